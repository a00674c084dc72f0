"""`fopro gallery`: the figures of a report that the README shows, with where they are from.

Figures are taken as they are; one over the limit is encoded anew, with fewer colours, then fewer
pixels. Nothing is drawn here: what the gallery shows is what the report's notebooks wrote.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from fopro_lab.io import atomic_path
import copy
import html
from typing import TYPE_CHECKING, Any
import tempfile
from typing import Any
import pandas as pd
import re
from fopro_lab.reports.plan import NodeReport
from dataclasses import asdict
from functools import cache
import jinja2
from fopro_lab.reports.plan import NodeReport, Report
import json
from fnmatch import fnmatch
from fopro_lab.errors import InputError
from fopro_lab.io import atomic_path, write_json
from fopro_lab.reports.plan import nearest

if TYPE_CHECKING:
    import nbformat


BUDGET = 3_600_000  # bytes that all thumbnails of a page may take; a page is to stay below 5 MB
_KEPT = ".thumbnails"
# Width in pixels, quality, and the bytes that a figure of lines and words takes by experience:
# where there are fewer, the step is not even tried.
_STEPS = ((560, 86, 9_000), (420, 80, 6_500), (320, 76, 4_500), (240, 70, 0), (180, 60, 0))


def thumbnail(path: Path | str, *, width: int = 560, quality: int = 86) -> str:
    """Shrink an image and write it as a ``data:`` address.

    Args:
        path: Image file.
        width: Largest width, pixels; twice what the page shows, for fine screens.
        quality: Of WebP, 1 to 100.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (900, 300)).save(file.name)
        ...     thumbnail(file.name)[:22]
        'data:image/webp;base64'
    """
    return as_address(shrink(Path(path).read_bytes(), width=width, quality=quality))


def as_address(webp: bytes) -> str:
    """Write the bytes of a WebP image as a ``data:`` address.

    Example:
        >>> as_address(b"abc")
        'data:image/webp;base64,YWJj'
    """
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def shrink(image: bytes, *, width: int, quality: int) -> bytes:
    """Encode an image anew as WebP, on white where it is transparent.

    Args:
        image: Bytes of an image file.
        width: Largest width and height, pixels; a smaller image keeps its size.
        quality: Of WebP, 1 to 100.

    Returns:
        Bytes of the WebP file.

    Raises:
        OSError: If this is no image that can be read.
    """
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        small = opened.convert("RGBA")
    small.thumbnail((width, width), Image.Resampling.LANCZOS, reducing_gap=3.0)
    paper = Image.new("RGBA", small.size, "white")
    paper.alpha_composite(small)
    stream = io.BytesIO()
    paper.convert("RGB").save(stream, "WEBP", quality=quality, method=3)
    return stream.getvalue()


def small_images(
    paths: Sequence[Path], *, folder: Path | None = None, budget: int = BUDGET
) -> dict[Path, str]:
    """Shrink the images of a page so far that all together stay within a budget.

    Args:
        paths: Image files.
        folder: Where thumbnails are kept for the next time, in ``.thumbnails``, and those of
            images that are gone are removed; None keeps nothing.
        budget: Bytes of all addresses together, held unless even the smallest are too many.

    Returns:
        A ``data:`` address for each path; empty where the file is no image.

    Example:
        >>> small_images([])
        {}
    """
    share = budget // max(1, len(paths)) * 3 // 4  # base64 makes four characters of three bytes
    kept = None if folder is None else folder / _KEPT
    found, used = {}, set()
    for path in paths:
        state = path.stat()
        key = repr((str(path), state.st_size, state.st_mtime_ns, share, _STEPS))
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.webp"
        used.add(name)
        small = _kept_or_made(path, kept and kept / name, share)
        found[path] = as_address(small) if small else ""
    if kept is not None and kept.is_dir():
        for old in kept.glob("*.webp"):
            if old.name not in used:
                old.unlink(missing_ok=True)
    return found


def _kept_or_made(path: Path, kept: Path | None, share: int) -> bytes:
    """The thumbnail; nothing if the file is damaged."""
    from PIL import Image

    if kept is not None and kept.is_file():
        return kept.read_bytes()
    image = path.read_bytes()
    for width, quality, least in _STEPS:
        if share < least:
            continue
        try:
            made = shrink(image, width=width, quality=quality)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return b""
        if len(made) <= share:
            break
    if kept is not None:
        with atomic_path(kept) as temporary:
            temporary.write_bytes(made)
    return made


FITTING_BUDGET = 3_800_000  # characters of all figures of a page; with the rest it stays below 5 MB
LONGEST = 60_000  # characters of one text output
_TEXTS = 600_000  # and of all
_SMALL = 60_000  # characters; a figure below is never touched
_FITTING_STEPS = ((1400, 88), (1100, 82), (900, 78), (700, 72), (500, 66), (360, 60))  # pixels, quality
_ENDINGS = {"image/png": "png", "image/jpeg": "jpg"}


def fit(
    notebook: "nbformat.NotebookNode", *, folder: str, budget: int = FITTING_BUDGET
) -> tuple["nbformat.NotebookNode", dict[str, bytes]]:
    """Shrink what is too much for one page.

    Nothing is changed while all figures together stay within the budget. Otherwise the large ones
    become WebP images of fewer pixels, each a link to the whole figure beside the page. A text
    output that is very long loses its middle, and says how much.

    Args:
        notebook: Executed notebook, format 4; left as it is.
        folder: Folder of the whole figures, as seen from the page.
        budget: Characters that all inlined figures may take.

    Returns:
        The notebook for the page, and the content of each file for the folder.

    Example:
        >>> from nbformat.v4 import new_notebook
        >>> fit(new_notebook(), folder="a")[1]
        {}
    """
    fitting = copy.deepcopy(notebook)
    outputs = [output for cell in fitting.cells for output in cell.get("outputs", [])]
    _cut_texts(outputs)
    figures = [(output, *found) for output in outputs if (found := _figure(output))]
    size = sum(len(text) for _, _, text in figures)
    if size <= budget:
        return fitting, {}
    large = [figure for figure in figures if len(figure[2]) > _SMALL]
    kept = size - sum(len(text) for _, _, text in large)
    share = max(8_000, (budget - kept) // max(1, len(large)))
    beside = {}
    for number, (output, kind, text) in enumerate(large, start=1):
        whole = base64.b64decode(text)
        small = _shrunk(whole, share)
        if small:
            file = f"figure-{number:03d}.{_ENDINGS[kind]}"
            beside[file] = whole
            output["data"] = {"text/html": _linked(small, f"{folder}/{file}")}
    return fitting, beside


def _figure(output: Any) -> tuple[str, str] | None:
    """Return kind and text of an output's image, if that is what the page would show."""
    data = output.get("data", {})
    if "text/html" in data or "image/svg+xml" in data:
        return None
    return next(((kind, str(data[kind])) for kind in _ENDINGS if kind in data), None)


def _shrunk(whole: bytes, share: int) -> str:
    """The address of the largest version within the share; empty if it cannot be read."""
    for width, quality in _FITTING_STEPS:
        try:
            small = as_address(shrink(whole, width=width, quality=quality))
        except OSError:  # no image that Pillow knows: the page shows it as it is
            return ""
        if len(small) <= share:
            break
    return small


def _linked(address: str, target: str) -> str:
    return (
        f'<a class="whole" href="{html.escape(target)}"><img src="{address}" '
        'alt="Figure of the cell above, smaller than it is"></a>'
        f'<p class="note">Shown smaller: <a href="{html.escape(target)}">the whole figure</a>.</p>'
    )


def _cut_texts(outputs: list[Any]) -> None:
    """Cut the middle out of endless texts, and of all later ones once the page has enough."""
    left = _TEXTS
    for output in outputs:
        holder, key = (
            (output, "text") if "text" in output else (output.get("data", {}), "text/plain")
        )
        text = holder.get(key)
        if isinstance(text, str):
            holder[key] = _cut(text, max(2_000, min(LONGEST, left)))
            left -= len(holder[key])


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    cut = len(text) - most
    told = f"\n\n... {cut:,} characters are left out here; the executed notebook has them ...\n\n"
    return text[: most // 2] + told + text[-(most // 2) :]


_BAR = 136  # width of an interval's drawing, in its own units
_MARGIN = 4
_INTERVALS_SHOWN = 5  # what a laptop's screen holds; the file has them all


def headline(file: Path | str, *, form: str = "{:.3f}") -> dict[str, Any]:
    r"""Prepare a table for the page: columns ``x``, ``x_low``, ``x_high`` become one.

    The first five of those are shown; the protocol is said beside the table if it is one.

    Args:
        file: CSV with a row a method.
        form: How a number with decimals is written.

    Returns:
        ``columns`` (title, number), ``rows`` of cells (text, interval, and the place of the dot
        the bar's ends, and zero where it lies between, on the column's common scale) and
        ``protocol``.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as csv:
        ...     _ = csv.write("method,tail,tail_low,tail_high\nekd,0.5,0.4,0.6\n")
        ...     csv.flush()
        ...     table = headline(csv.name)
        >>> [cell["text"] for cell in table["rows"][0]], table["rows"][0][1]["interval"]
        (['ekd', '0.500'], '[0.400, 0.600]')
    """
    table = pd.read_csv(file)
    ends = {f"{name}{end}" for name in table for end in ("_low", "_high")} & set(table)
    protocols = list(table["protocol"].unique()) if "protocol" in table else []
    joined = [name for name in table if f"{name}_low" in ends][:_INTERVALS_SHOWN]
    names = [
        name
        for name in table
        if (name in joined or f"{name}_low" not in ends)
        and name not in ends
        and not (name == "protocol" and len(protocols) == 1)
    ]
    columns = [
        {
            "title": str(name).replace("_", " "),
            "number": pd.api.types.is_numeric_dtype(table[name]) and f"{name}_low" not in ends,
        }
        for name in names
    ]
    cells = [_column(table, name, form) for name in names]
    rows = [list(row) for row in zip(*cells, strict=True)]
    return {
        "columns": columns,
        "rows": rows,
        "protocol": protocols[0] if len(protocols) == 1 else "",
    }


def _column(table: pd.DataFrame, name: str, form: str) -> list[dict[str, Any]]:
    """The cells of one column, with its interval if there is one."""
    number = pd.api.types.is_numeric_dtype(table[name])
    plain = {"number": number, "interval": "", "dot": None, "low": None, "high": None, "zero": None}
    if not {f"{name}_low", f"{name}_high"} <= set(table):
        return [{**plain, "text": _text(value, form)} for value in table[name]]
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    left, right = low.min(), high.max()

    def place(value: float) -> float:
        share = (value - left) / (right - left) if right > left else 0.5
        return round(_MARGIN + share * (_BAR - 2 * _MARGIN), 1)

    return [
        {
            "number": True,
            "text": _text(value, form),
            "interval": f"[{_text(a, form)}, {_text(b, form)}]",
            "dot": place(value),
            "low": place(a),
            "high": place(b),
            "zero": place(0) if left < 0 < right else None,
        }
        if pd.notna([value, a, b]).all()
        else {**plain, "text": _text(value, form), "interval": "no interval", "number": False}
        for value, a, b in zip(table[name], low, high, strict=True)
    ]


def _text(value: Any, form: str) -> str:
    if pd.isna(value):
        return "n/a"
    if not isinstance(value, float):
        return str(value)
    told = form.format(value)
    return told if told.strip("+-0.") else form.format(0.0).replace("+", "")  # no minus zero


def as_headline(table: pd.DataFrame, *, form: str = "{:.3f}") -> dict[str, Any]:
    """Prepare a table in memory for a page; see `headline`.

    Args:
        table: A row a method.
        form: How a number with decimals is written.

    Example:
        >>> as_headline(pd.DataFrame({"method": ["ekd"], "n": [3]}))["rows"][0][1]["text"]
        '3'
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        table.to_csv(path, index=False)
        return headline(path, form=form)


FIRST = ("method", "teacher", "seed", "fold")  # what one looks for most
_MOST_VALUES, _MOST_FILTERS = 24, 6
# A value may hold commas, as a list does; the next name and its sign end it.
_PARAMETER = re.compile(r"(\w+) = (.*?)(?=, \w+ = |$)", re.DOTALL)


def chosen_parameters(told: str) -> dict[str, str]:
    """Take the text of a node's parameters apart.

    Args:
        told: ``name = value, name = value``.

    Example:
        >>> chosen_parameters("gains = [0.0, 2.0], method = bsm")
        {'gains': '[0.0, 2.0]', 'method': 'bsm'}
    """
    return dict(_PARAMETER.findall(told))


def differing(nodes: Sequence[NodeReport]) -> list[str]:
    """Name the parameters that have more than one value in a report, in the order they come.

    A node that does not have a parameter says nothing about it.

    Args:
        nodes: Of the report.
    """
    values: dict[str, set[str]] = {}
    for node in nodes:
        for name, value in chosen_parameters(node.parameters).items():
            values.setdefault(name, set()).add(value)
    return [name for name, found in values.items() if len(found) > 1]


def filters(nodes: Sequence[NodeReport]) -> list[dict[str, Any]]:
    """List the choices that an index offers.

    Args:
        nodes: Of the report.

    Returns:
        ``name`` and ``values`` of each filter with two values or more: state, step, then the
        parameters that differ, methods and teachers first. A parameter of very many values is
        left to the search for words.
    """
    asked = {
        "state": list(dict.fromkeys(node.state for node in nodes)),
        "step": list(dict.fromkeys(node.entry for node in nodes)),
    }
    names = sorted(differing(nodes), key=lambda name: (*FIRST, name).index(name))
    for name in names[:_MOST_FILTERS]:
        found = (chosen_parameters(node.parameters).get(name) for node in nodes)
        asked[name] = sorted({value for value in found if value is not None}, key=_order)
    return [
        {"name": name, "values": values}
        for name, values in asked.items()
        if 1 < len(values) <= (_MOST_VALUES if name != "step" else 10 * _MOST_VALUES)
    ]


def words_of(node: NodeReport) -> dict[str, str]:
    """What the filters compare a node with: its state, its step and each parameter's value."""
    return {"state": node.state, "step": node.entry, **chosen_parameters(node.parameters)}


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, before words by letter."""
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, 0.0, value)


TWINS = "tables"


def write_both(table: pd.DataFrame, path: Path) -> list[Path]:
    """Write a table as CSV and as parquet.

    Args:
        table: The table.
        path: Where, without an ending.

    Returns:
        Both paths.

    Raises:
        WorkError: If the disk is full or may not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [p.name for p in write_both(pd.DataFrame({"n": [1]}), Path(folder) / "counts")]
        ['counts.csv', 'counts.parquet']
    """
    csv, parquet = path.with_name(f"{path.name}.csv"), path.with_name(f"{path.name}.parquet")
    with atomic_path(csv) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(parquet) as temporary:
        _storable(table).to_parquet(temporary, index=False)
    return [csv, parquet]


def nodes_table(nodes: Sequence[NodeReport]) -> pd.DataFrame:
    """Lay the nodes of a report out as a table, a column a parameter.

    Args:
        nodes: Of the report.

    Returns:
        Columns ``name``, ``entry``, ``state``, ``seconds`` and what else is known of a node, then
        ``set_NAME`` for each parameter, as text, empty where the notebook has none of that name.
    """
    lines = []
    for node in nodes:
        known = {key: value for key, value in asdict(node).items() if key != "parameters"}
        given = chosen_parameters(node.parameters)
        lines.append(known | {f"set_{name}": value for name, value in given.items()})
    table = pd.DataFrame(lines)
    names = [str(name) for name in table if str(name).startswith("set_")]
    return table.fillna(dict.fromkeys(names, ""))


def headlines_table(nodes: Sequence[NodeReport], *, out: Path) -> pd.DataFrame:
    """Put the headlines of all nodes below each other, under the name of their node.

    Args:
        nodes: Those that ended well.
        out: Folder of the report.

    Returns:
        The table; no column where no node wrote a headline.
    """
    tables = {node.name: read_headline(node, out=out) for node in nodes}
    parts = [table.assign(node=name) for name, table in tables.items() if table is not None]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    return table[["node", *(name for name in table if name != "node")]]


def read_headline(node: NodeReport, *, out: Path) -> pd.DataFrame | None:
    """Read the headline of a node; None if it wrote none, or a file that is no table."""
    try:
        return pd.read_csv(out / node.folder / "headline.csv")
    except (ValueError, OSError):  # a notebook may write what it likes into its folder
        return None


def write_tables(nodes: Sequence[NodeReport], *, out: Path) -> None:
    """Write ``nodes`` and ``headline`` beside the index, and the missing twin of each node's table.

    A notebook writes CSV or parquet; the other form lies in ``tables/NODE``, and is not written
    again while its source has not changed.

    Args:
        nodes: Of the report.
        out: Its folder.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    well = [node for node in nodes if node.state in ("done", "kept")]
    write_both(nodes_table(nodes), out / "nodes")
    headlines = headlines_table(well, out=out)
    if len(headlines):
        write_both(headlines, out / "headline")
    for node in well:
        for source in table_files(out / node.folder):
            _write_twin(source, twin_of(source, node.name, out=out))


def table_files(folder: Path) -> list[Path]:
    """List the tables that a notebook left in its folder, each once."""
    csv, parquet = sorted(folder.glob("*.csv")), sorted(folder.glob("*.parquet"))
    return [*csv, *(path for path in parquet if path.with_suffix(".csv") not in csv)]


def twin_of(source: Path, node: str, *, out: Path) -> Path:
    """Name the file that holds a node's table in the other format: its own, or one in ``tables``.

    Example:
        >>> twin_of(Path("out/tail/scores.csv"), "tail", out=Path("out")).as_posix()
        'out/tables/tail/scores.parquet'
    """
    other = source.with_suffix(".parquet" if source.suffix == ".csv" else ".csv")
    return other if other.is_file() else out / TWINS / node / other.name


def _write_twin(source: Path, twin: Path) -> None:
    if twin.parent == source.parent:
        return
    if twin.is_file() and twin.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return
    try:
        table = pd.read_csv(source) if source.suffix == ".csv" else pd.read_parquet(source)
    except (ValueError, OSError):
        return  # not a table: a notebook may write what it likes into its folder
    with atomic_path(twin) as temporary:
        if twin.suffix == ".parquet":
            _storable(table).to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """Turn columns of mixed kinds into text: parquet holds one kind a column."""
    mixed = {
        name: str
        for name in table
        if pd.api.types.infer_dtype(table[name], skipna=True).startswith("mixed")
    }
    return table.astype(mixed) if mixed else table


TEMPLATES = Path(__file__).parent / "templates"

# The first form that an output has is shown. Widgets are not among them: they need a kernel, and
# those of this project bring a still along.
_SHOWN = ["text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/plain"]


@cache
def templates() -> jinja2.Environment:
    """Return the environment that renders the report's own templates, with escaping on.

    Example:
        >>> templates().get_template("index.html.j2").name
        'index.html.j2'
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_notebook_page(notebook: "nbformat.NotebookNode", path: Path | str, *, name: str) -> None:
    """Write the page of an executed notebook; figures too large for it lie beside, whole.

    Args:
        notebook: Executed notebook, format 4; left as it is.
        path: Of the page; what it cannot hold is written into the folder of the same name without
            its ending, and linked to.
        name: Name of the node, shown above the title.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    path = Path(path)
    fitting, beside = fit(notebook, folder=path.stem)
    for old in path.with_suffix("").glob("figure-*"):
        old.unlink()
    for file, content in beside.items():
        with atomic_path(path.with_suffix("") / file) as temporary:
            temporary.write_bytes(content)
    with atomic_path(path) as temporary:
        temporary.write_text(notebook_page(fitting, name=name), encoding="utf-8")


def notebook_page(notebook: "nbformat.NotebookNode", *, name: str) -> str:
    """Render an executed notebook: prose and figures in sight, code folded away.

    nbconvert's own templates fetch MathJax, RequireJS and the widgets' manager from the web; this
    one brings its style along and runs no script.

    Args:
        notebook: Executed notebook, format 4.
        name: Name of the node, shown above the title.

    Returns:
        The page, with figures inlined and a link back to ``../index.html``.

    Example:
        >>> from nbformat.v4 import new_markdown_cell, new_notebook
        >>> page = notebook_page(new_notebook(cells=[new_markdown_cell("# A title")]), name="a")
        >>> "<title>A title</title>" in page, "://" in page
        (True, False)
    """
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    exporter = HTMLExporter(
        config=Config(NbConvertBase={"display_data_priority": _SHOWN}),
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    resources: dict[str, Any] = {
        "page": {"title": _title(notebook) or name, "name": name, "css": stylesheet(code=True)}
    }
    page, _ = exporter.from_notebook_node(notebook, resources=resources)
    return page


def _title(notebook: "nbformat.NotebookNode") -> str:
    """The first heading of the notebook, without its marks."""
    lines = (line for cell in notebook.cells for line in cell.source.splitlines())
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


@cache
def stylesheet(*, code: bool = False) -> str:
    """Return the pages' style, light and dark.

    Args:
        code: Whether to add the colours of highlighted Python.

    Example:
        >>> "prefers-color-scheme: dark" in stylesheet()
        True
    """
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    if not code:
        return css
    from pygments.formatters import HtmlFormatter

    light, dark = (
        HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight")
        for style in ("default", "github-dark")  # both keep a contrast of 4.5
    )
    return f"{css}\n{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def index_page(report: Report, *, out: Path) -> str:
    """Render the index of a report from what its nodes wrote.

    Args:
        report: Title, nodes and facts.
        out: The report's folder; read are ``<folder>/headline.csv`` and ``<folder>/*.png``.

    Returns:
        The page; thumbnails are inlined, the smaller the more there are, and link to the full-size
        files beside it. They are kept in ``.thumbnails`` for the next time.

    Example:
        >>> from fopro_lab.reports.plan import NodeReport
        >>> node = NodeReport(name="train", entry="train", state="done", seconds=2.0)
        >>> report = Report("A title", "", [node], {"Finished": "today"})
        >>> "2.0 s" in index_page(report, out=Path("nowhere"))
        True
    """
    well = [node for node in report.nodes if node.state in ("done", "kept")]
    verdicts = [node for node in well if read_headline(node, out=out) is not None]
    damaged = [
        f"{node.folder}/headline.csv"
        for node in well
        if node not in verdicts and (out / node.folder / "headline.csv").is_file()
    ]
    in_order = [*verdicts, *(node for node in well if node not in verdicts)]
    figures, folded = _figures(report, in_order, out=out)
    different = differing(report.nodes)
    lines = [_line(node, different) for node in report.nodes]
    return (
        templates()
        .get_template("index.html.j2")
        .render(
            report=report,
            lines=lines,
            shared=_shared(report.nodes, different),
            with_memory=any(node.memory for node in report.nodes),
            tables=[_headline_of(node, out=out) for node in verdicts],
            damaged=damaged,
            figures=figures,
            folded=folded,
            filters=filters(report.nodes) if len(report.nodes) > 1 else [],
            data=_data(well, out=out),
            css=stylesheet(),
        )
    )


def write_index(report: Report, *, out: Path) -> Path:
    """Write ``index.html``, and what it shows as CSV and parquet beside it.

    Args:
        report: Title, nodes and facts.
        out: The report's folder.

    Returns:
        Path of the page.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    write_tables(report.nodes, out=out)
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(index_page(report, out=out), encoding="utf-8")
    return out / "index.html"


def _figures(
    report: Report, nodes: Sequence[NodeReport], *, out: Path
) -> tuple[list[dict[str, str]], dict[str, list[dict[str, str]]]]:
    """Lay out the thumbnails; those of an entry with several nodes are folded away."""
    files = {node.name: sorted((out / node.folder).glob("*.png"), key=_age) for node in nodes}
    small = small_images([path for found in files.values() for path in found], folder=out)
    entries = [node.entry for node in report.nodes]
    figures: list[dict[str, str]] = []
    folded: dict[str, list[dict[str, str]]] = {}
    for node in nodes:
        images = [
            {
                "file": f"{node.folder}/{path.name}",
                "caption": path.stem.replace("_", " ").replace("-", " "),
                "thumbnail": small[path],
                "node": node.name,
                "page": node.page,
            }
            for path in files[node.name]
        ]
        if entries.count(node.entry) == 1:
            figures += images
        elif images:
            folded.setdefault(node.entry, []).extend(images)
    return figures, folded


def _headline_of(node: NodeReport, *, out: Path) -> dict[str, Any]:
    file = f"{node.folder}/headline.csv"
    return {"node": node.name, "file": file, **headline(out / file)}


def _line(node: NodeReport, different: Sequence[str]) -> dict[str, Any]:
    """A row of the table of notebooks: the node, what it was filtered by, what sets it apart."""
    words = words_of(node)
    apart = {name: value for name, value in words.items() if name in different}
    return {"node": node, "words": words, "apart": apart}


def _shared(nodes: Sequence[NodeReport], different: Sequence[str]) -> dict[str, str]:
    """The parameters that have one value wherever a notebook has them."""
    given = {k: v for node in nodes for k, v in chosen_parameters(node.parameters).items()}
    return {name: value for name, value in given.items() if name not in different}


def _data(nodes: Sequence[NodeReport], *, out: Path) -> list[dict[str, Any]]:
    """List every node's tables: the file it wrote, and its twin in the other format."""
    listed = []
    for node in nodes:
        pairs = [
            (path, twin_of(path, node.name, out=out)) for path in table_files(out / node.folder)
        ]
        tables = [
            {
                "stem": path.stem,
                "files": [f.relative_to(out).as_posix() for f in (path, twin) if f.is_file()],
            }
            for path, twin in pairs
        ]
        if tables:
            listed.append({"node": node.name, "tables": tables})
    return listed


def _age(path: Path) -> tuple[int, str]:
    """When a figure was written: the order in which its notebook tells the story."""
    return path.stat().st_mtime_ns, path.name


# What tells a report's story on one screen; a report has those that its notebooks drew.
CHOSEN = (
    "headline.csv",
    "class_recall.png",
    "group_recall.png",
    "difference_to_*.png",
    "learned_mask.png",
    "ring_response_per_energy.png",
)
LIMIT = 150  # kB a file: a README with five of them opens at once
_WIDTHS = (1190, 1000, 850, 700, 560)  # pixels
_MANIFEST = "manifest.json"


def make_gallery(
    report: Path | str, *, out: Path | str, chosen: Sequence[str] = (), limit: int = LIMIT
) -> Path:
    """Copy chosen files of a finished report into a gallery and say where they are from.

    Args:
        report: Folder of a report of which every notebook is done.
        out: Folder of the gallery; what an earlier gallery put there and this one does not is
            removed.
        chosen: ``NODE/FILE`` or ``FILE``, with ``*`` for any letters; empty takes what is usual,
            and nothing of an entry that has several notebooks.
        limit: Largest size of an image, kB.

    Returns:
        Path of the gallery's ``README.md``; ``manifest.json`` beside it says the same as data.

    Raises:
        InputError: If there is no such report, it is not complete, or a chosen file is not in it.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> make_gallery("nowhere", out="reports/gallery/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere/report.json: no such file; ...
    """
    report, out = Path(report), Path(out)
    told = _read_report(report)
    if limit < 1:
        raise InputError(f"limit: expected 1 kB or more, got {limit}")
    files = _chosen_files(report, told, chosen)
    entries = []
    for name, source in files.items():
        width = _copy(source, out / name, limit=1000 * limit)
        entries.append(
            {
                "file": name,
                "from": source.relative_to(report).as_posix(),
                "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest(),
                "of": hashlib.sha256(source.read_bytes()).hexdigest(),
                "shrunk": width,
            }
        )
    _forget_earlier(out, keep=set(files))
    facts = told["facts"]
    manifest = {
        "title": told["title"],
        "command": _command(facts),
        "gallery": _own_command(report, out, chosen, limit),
        "commit": facts.get("Commit", "unknown"),
        "finished": facts.get("Finished", "unknown"),
        "facts": facts,
        "files": entries,
    }
    write_json(out / _MANIFEST, manifest)
    with atomic_path(out / "README.md") as temporary:
        temporary.write_text(_readme(manifest), encoding="utf-8")
    return out / "README.md"


def _read_report(report: Path) -> dict[str, Any]:
    path = report / "report.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        states = {node["name"]: node["state"] for node in told["nodes"]}
        told["facts"]["Plan"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a folder of `fopro report`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected a report's own file ({error})") from None
    open_ends = [f"{name} {state}" for name, state in states.items()
                 if state not in ("done", "kept")]  # fmt: skip
    if open_ends:
        raise InputError(
            f"{report}: expected a complete report, got {', '.join(open_ends[:3])}; "
            f"run `{_command(told['facts'])}` again"
        )
    return told


def _chosen_files(report: Path, told: dict[str, Any], chosen: Sequence[str]) -> dict[str, Path]:
    """Find the files, under the name that each bears in the gallery."""
    folders = {node["name"]: report / node["folder"] for node in told["nodes"]}
    entries = [node["entry"] for node in told["nodes"]]
    single = {node["name"] for node in told["nodes"] if entries.count(node["entry"]) == 1}
    there = [
        (name, path)
        for name, folder in folders.items()
        for path in sorted(folder.glob("*"))
        if path.suffix in (".png", ".csv") and (chosen or name in single)
    ]
    found: list[tuple[str, Path]] = []
    for pattern in chosen or CHOSEN:
        fits = [(name, path) for name, path in there if _fits(name, path, pattern)]
        if chosen and not fits:
            known = [f"{name}/{path.name}" for name, path in there]
            raise InputError(f"--take: {report} has no '{pattern}'; {nearest(pattern, known)}")
        found += [each for each in fits if each not in found]
    if not found:
        raise InputError(f"{report}: expected one of {', '.join(CHOSEN)}, found none; use --take")
    names = [path.name for _, path in found]
    # Of two files with one name, each bears its notebook's name as well.
    return {
        path.name if names.count(path.name) == 1 else f"{name}-{path.name}": path
        for name, path in found
    }


def _fits(name: str, path: Path, pattern: str) -> bool:
    return fnmatch(f"{name}/{path.name}" if "/" in pattern else path.name, pattern)


def _copy(source: Path, target: Path, *, limit: int) -> int:
    """Copy a file, an image within the limit; return the new width in pixels, 0 if it kept its."""
    from PIL import Image

    content, width = source.read_bytes(), 0
    if source.suffix == ".png" and len(content) > limit:
        with Image.open(source) as opened:
            image = opened.convert("RGB")
        for width in (image.width, *(w for w in _WIDTHS if w < image.width)):
            height = round(image.height * width / image.width)
            smaller = image.resize((width, height), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            smaller.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
            content = stream.getvalue()
            if len(content) <= limit:
                break
        else:
            raise InputError(
                f"{source}: takes {len(content) / 1000:.0f} kB at {width} px, more than the "
                f"{limit / 1000:.0f} allowed; give a larger --limit"
            )
        width = width if width < image.width else 0
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return width


def _forget_earlier(out: Path, *, keep: set[str]) -> None:
    """Remove what an earlier gallery put here, and nothing else."""
    try:
        earlier = json.loads((out / _MANIFEST).read_text(encoding="utf-8"))["files"]
        names = [Path(entry["file"]).name for entry in earlier]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        if name not in keep:
            (out / name).unlink(missing_ok=True)


def _command(facts: dict[str, str]) -> str:
    settings = facts.get("Settings", "none")
    told = "" if settings == "none" else f" with the settings {settings}"
    return f"fopro report {facts['Plan']}{told}"


def _own_command(report: Path, out: Path, chosen: Sequence[str], limit: int) -> str:
    takes = "".join(f" --take '{pattern}'" for pattern in chosen)
    limits = "" if limit == LIMIT else f" --limit {limit}"
    return f"fopro gallery {report.as_posix()} --out {out.as_posix()}{takes}{limits}"


def _readme(manifest: dict[str, Any]) -> str:
    lines = [
        f"# {manifest['title']}",
        "",
        f"Finished {manifest['finished']}; code and plan are those of commit {manifest['commit']}:",
        "",
        "```",
        manifest["command"],
        manifest["gallery"],
        "```",
        "",
        "| file | from the report's | size |",
        "|---|---|---|",
    ]
    for entry in manifest["files"]:
        size = f"shrunk to {entry['shrunk']} px, fewer colours" if entry["shrunk"] else "as it is"
        lines.append(f"| [{entry['file']}]({entry['file']}) | {entry['from']} | {size} |")
    facts = {
        k: v for k, v in manifest["facts"].items() if k in ("Versions", "Machine", "Wall time")
    }
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items())]
    return "\n".join([*lines, ""])
