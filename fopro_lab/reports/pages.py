"""Pages of a report: each executed notebook, and the index with its tables as CSV and parquet."""

import base64
import copy
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from fopro_lab.io import atomic_path, in_bytes
from fopro_lab.reports.plan import NodeReport, Report, duration

if TYPE_CHECKING:
    import nbformat

TEMPLATES = Path(__file__).parent / "templates"
# The first form that an output has is shown. Widgets are not among them: they need a kernel, and
# those of this project bring a still image along.
_SHOWN = ["text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/plain"]
_INTERVALS_SHOWN = 5  # what a laptop's screen holds; the file has them all
_BAR, _MARGIN = 136, 4  # width of an interval's drawing and of its margin, in its own units
_FIRST = ("method", "teacher", "seed", "fold")  # parameters looked for most
_MOST_VALUES, _MOST_FILTERS = 24, 6


def write_notebook_page(
    notebook: "nbformat.NotebookNode", path: Path | str, *, name: str, home: str = "../index.html"
) -> None:
    """Write the page of an executed notebook: prose and figures in sight, code folded away."""
    # nbconvert's own templates fetch MathJax, RequireJS and the widgets' manager from the web;
    # this one brings its style along and runs no script
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    notebook = copy.deepcopy(notebook)
    for output in [output for cell in notebook.cells for output in cell.get("outputs", ())]:
        if "text/markdown" in (data := output.get("data", {})):  # a class may be called <b>
            data["text/markdown"] = "".join(data["text/markdown"]).replace("<", "&lt;")
    exporter = HTMLExporter(
        config=Config(NbConvertBase={"display_data_priority": _SHOWN}),
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    lines = (line for cell in notebook.cells for line in cell.source.splitlines())
    title = next((line[2:].strip() for line in lines if line.startswith("# ")), name)
    words = {"title": title, "name": name, "home": home, "css": stylesheet(code=True)}
    page, _ = exporter.from_notebook_node(notebook, resources={"page": words})
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


@cache
def stylesheet(*, code: bool = False) -> str:
    """Return the pages' style, light and dark; with ``code`` the colours of highlighted Python."""
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    if not code:
        return css
    from pygments.formatters import HtmlFormatter

    light, dark = (
        HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight")
        for style in ("default", "github-dark")  # both keep a contrast of 4.5
    )
    return f"{css}\n{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def write_index(report: Report, *, out: Path) -> Path:
    """Write ``index.html`` from the nodes' tables and figures; its tables as files beside it."""
    well = [node for node in report.nodes if node.state in ("done", "kept")]
    written = {node.name: out / node.folder / "headline.csv" for node in well}
    headlines = {name: table for name, path in written.items() if len(table := _read(path))}
    damaged = [p for name, p in written.items() if p.is_file() and name not in headlines]
    _write_both(_nodes_table(report.nodes), out / "nodes")
    for earlier in out.glob("headline.*"):
        earlier.unlink()
    if headlines:
        rows = [table.assign(node=name) for name, table in headlines.items()]
        whole = pd.concat(rows, ignore_index=True)
        _write_both(whole[["node", *whole.columns.drop("node")]], out / "headline")
    different = differing(report.nodes)
    given = {k: v for node in report.nodes for k, v in _texts(node).items()}
    first = sorted(well, key=lambda node: node.name not in headlines)  # verdicts first
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("index.html.j2").render(
        report=report,
        lines=[_line(node, different) for node in report.nodes],
        shared={name: value for name, value in given.items() if name not in different},
        with_memory=any(node.memory for node in report.nodes),
        tables=[
            {"node": name, "file": f"{name}/headline.csv", **headline(table)}
            for name, table in headlines.items()
        ],
        damaged=[path.relative_to(out).as_posix() for path in damaged],
        filters=filters(report.nodes) if len(report.nodes) > 1 else [],
        data=[item for node in well if (item := _tables_of(node, out))["tables"]],
        css=stylesheet(),
        **_figures(first, [node.entry for node in report.nodes], out=out),
    )
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / "index.html"


def _line(node: NodeReport, different: Sequence[str]) -> dict[str, Any]:
    """Lay out a row of the table of notebooks: what it is filtered by, what sets it apart."""
    texts = _texts(node)
    return {
        "node": node,
        "words": {"state": node.state, "step": node.entry, **texts},
        "apart": {name: texts[name] for name in different if name in texts},
        "time": duration(node.seconds) if node.seconds else "",
        "memory": in_bytes(node.memory) if node.memory else "",
    }


def _texts(node: NodeReport) -> dict[str, str]:
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in node.parameters.items()}
    return {name: str(value) if value != "" else "''" for name, value in lists.items()}


def differing(nodes: Sequence[NodeReport]) -> list[str]:
    """Name the parameters with more than one value in a report, in the order they come."""
    pairs = dict.fromkeys(item for node in nodes for item in _texts(node).items())
    counts = Counter(name for name, _ in pairs)
    return [name for name, count in counts.items() if count > 1]


def filters(nodes: Sequence[NodeReport]) -> list[dict[str, Any]]:
    """List the choices that an index offers: state, step, then the parameters that differ."""
    found = {
        "state": list(dict.fromkeys(node.state for node in nodes)),
        "step": list(dict.fromkeys(node.entry for node in nodes)),
    }
    names = sorted(differing(nodes), key=lambda name: (*_FIRST, name).index(name))
    for name in names[:_MOST_FILTERS]:
        values = {_texts(node)[name] for node in nodes if name in node.parameters}
        found[name] = sorted(values, key=_by_size)
    return [
        {"name": name, "values": values}
        for name, values in found.items()
        # a parameter of very many values is left to the search for words
        if len(values) > 1 and (name == "step" or len(values) <= _MOST_VALUES)
    ]


def _by_size(value: str) -> tuple[bool, float, str]:
    """Order numbers by size, before words by letter."""
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, 0.0, value)


def headline(table: pd.DataFrame) -> dict[str, Any]:
    """Prepare a table for the page: columns ``x``, ``x_low``, ``x_high`` become one.

    The first five of those are shown; a protocol that all rows share is said beside the table.
    """
    ends = {f"{name}{end}" for name in table for end in ("_low", "_high")} & set(table)
    protocols = list(table["protocol"].unique()) if "protocol" in table else []
    joined = [name for name in table if f"{name}_low" in ends][:_INTERVALS_SHOWN]
    names = [
        str(name)
        for name in table
        if name not in ends
        and (name in joined or f"{name}_low" not in ends)
        and not (name == "protocol" and len(protocols) == 1)
    ]
    number = {name: pd.api.types.is_numeric_dtype(table[name]) for name in names}
    columns = [
        {"title": name.replace("_", " "), "number": number[name] and f"{name}_low" not in ends}
        for name in names
    ]
    cells = [_column(table, name, number=number[name]) for name in names]
    rows = [list(row) for row in zip(*cells, strict=True)]
    protocol = protocols[0] if len(protocols) == 1 else ""
    return {"columns": columns, "rows": rows, "protocol": protocol}


def _column(table: pd.DataFrame, name: str, *, number: bool) -> list[dict[str, Any]]:
    """Lay out the cells of one column, with its interval if there is one."""
    plain = {"number": number, "interval": "", "dot": None, "low": None, "high": None, "zero": None}
    cells = [{**plain, "text": _text(value)} for value in table[name]]
    if not {f"{name}_low", f"{name}_high"} <= set(table):
        return cells
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    left, right = low.min(), high.max()

    def place(value: float) -> float:
        share = (value - left) / (right - left) if right > left else 0.5
        return round(_MARGIN + share * (_BAR - 2 * _MARGIN), 1)

    zero = place(0) if left < 0 < right else None
    for cell, value, a, b in zip(cells, table[name], low, high, strict=True):
        if pd.notna([value, a, b]).all():
            cell |= {"interval": f"[{_text(a)}, {_text(b)}]", "dot": place(value)}
            cell |= {"low": place(a), "high": place(b), "zero": zero}
        else:
            cell |= {"interval": "no interval", "number": False}
    return cells


def _text(value: Any) -> str:
    if pd.isna(value):
        return "n/a"
    return f"{value + 0:.3f}".replace("-0.000", "0.000") if isinstance(value, float) else str(value)


def _figures(nodes: Sequence[NodeReport], entries: Sequence[str], *, out: Path) -> dict[str, Any]:
    """Lay out the thumbnails; those of an entry with several nodes are folded away."""
    files = {
        # by age: the order in which the notebook drew them
        node.name: sorted((out / node.folder).glob("*.png"), key=lambda p: p.stat().st_mtime_ns)
        for node in nodes
    }
    width = 560 if sum(map(len, files.values())) <= 60 else 320
    figures: list[dict[str, str]] = []
    folded: dict[str, list[dict[str, str]]] = {}
    for node in nodes:
        several = entries.count(node.entry) > 1
        for path in files[node.name]:
            item = {
                "file": f"{node.folder}/{path.name}",
                "caption": path.stem.replace("_", " ").replace("-", " "),
                "thumbnail": thumbnail(path, width=width),
                "node": node.name,
                "page": node.page,
            }
            (folded.setdefault(node.entry, []) if several else figures).append(item)
    return {"figures": figures, "folded": folded}


def thumbnail(path: Path, *, width: int) -> str:
    """Shrink an image to WebP, on white, as a ``data:`` address; empty if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            small = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    small.thumbnail((width, width), Image.Resampling.LANCZOS, reducing_gap=3.0)
    paper = Image.new("RGBA", small.size, "white")
    paper.alpha_composite(small)
    stream = io.BytesIO()
    paper.convert("RGB").save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _nodes_table(nodes: Sequence[NodeReport]) -> pd.DataFrame:
    """Lay the nodes out as a table, with a column ``set_NAME`` per parameter, as text."""
    table = pd.DataFrame(asdict(node) for node in nodes).drop(columns="parameters")
    texts = pd.DataFrame([_texts(node) for node in nodes], index=table.index)
    return table.join(texts.fillna("").add_prefix("set_"))


def _tables_of(node: NodeReport, out: Path) -> dict[str, Any]:
    """List a node's tables, each as CSV and as parquet: the form that is missing is written."""
    tables = []
    for source in sorted((out / node.folder).glob("*")):
        if source.suffix not in (".csv", ".parquet"):
            continue
        other = source.with_suffix(".parquet" if source.suffix == ".csv" else ".csv")
        if other.exists() and source.suffix == ".parquet":
            continue  # listed with its CSV
        if not other.exists():
            other = out / "tables" / node.name / other.name
            other.unlink(missing_ok=True)  # of an earlier table
            if len(table := _read(source)):
                _write_table(table, other)
        files = [path.relative_to(out).as_posix() for path in (source, other) if path.is_file()]
        tables.append({"stem": source.stem, "files": files})
    return {"node": node.name, "tables": tables}


def _read(path: Path) -> pd.DataFrame:
    """Read a table; an empty one if it is none: a notebook may write what it likes."""
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError):
        return pd.DataFrame()


def _write_both(table: pd.DataFrame, stem: Path) -> None:
    for suffix in (".csv", ".parquet"):
        _write_table(table, stem.with_name(stem.name + suffix))


def _write_table(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
            return
        infer = pd.api.types.infer_dtype
        mixed = {name: str for name in table if infer(table[name], skipna=True).startswith("mixed")}
        table.astype(mixed).to_parquet(temporary, index=False)  # it holds one kind per column
