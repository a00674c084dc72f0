"""Pages of a report: each executed notebook, and the index with its tables as CSV."""

import base64
import copy
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from pandas.api.types import is_numeric_dtype as is_numeric

from fopro_lab.errors import printable
from fopro_lab.evaluation import method_label
from fopro_lab.io import read_json, regular, write_csv, write_file
from fopro_lab.reports.plan import NodeReport, Report, duration

TEMPLATES = Path(__file__).parent / "templates"
# The first form that an output has is shown. Widgets are not among them: they need a kernel, and
# those of this project bring a still image along.
_SHOWN = ["text/html", "image/png", "image/jpeg", "text/markdown", "text/plain"]
_TAGS = set("a abbr b blockquote br caption code col colgroup dd del details div dl dt em "
            "figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li ol p pre q s samp small span "
            "strong sub summary sup table tbody td tfoot th thead tr u ul".split())  # fmt: skip
_ATTRIBUTES = {"*": ["class", "id", "style", "title", "colspan", "rowspan", "scope", "role"]}
_ATTRIBUTES |= {"a": ["href"], "img": ["src", "alt", "width", "height"], "div": ["data-rings"]}
_PROTOCOLS = ["http", "https", "mailto", "data"]
SLIDERS = 'id="sliders"'  # in the page of a notebook that shows ring sliders
_INTERVALS_SHOWN = 4  # what a laptop's screen holds; the file has them all
# In the file alone.
_COSTS = {"parameters", "macs", "megabytes", "train_seconds", "group_mean", "mcc_median"}
_TABLES = (".csv", ".parquet")
_FOUND = "**What was found**"  # the last text of a notebook begins so
_LARGE = ("class_recall", "learned_mask", "ring_response")  # figures shown before all others
_FIRST = ("method", "teacher", "seed", "fold")  # parameters looked for most
_MOST_VALUES, _MOST_FILTERS = 24, 6
# Letters of one output (last: of a cell) that a page shows, beside images: cleaning takes time.
_MOST_LETTERS = {"text/html": 500_000, "text/markdown": 100_000, "text/plain": 10**6, "text": 10**6}


def write_notebook_page(
    notebook: Any, path: Path | str, *, name: str, home: str = "../index.html"
) -> None:
    """Write the page of an executed notebook: findings first, then prose and figures, code folded.

    The findings are what an executed last cell shows, below a text that begins so.
    """
    # nbconvert's own templates fetch MathJax, RequireJS and the widgets' manager from the web;
    # this one brings its style along and runs no script but that of the ring sliders
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    notebook = copy.deepcopy(notebook)
    cells = notebook.cells
    if len(cells) > 2 and cells[-2].source.startswith(_FOUND) and cells[-1].get("outputs"):
        cells[1:] = [*cells[-2:], *cells[1:-2]]
    shown: dict[int, int] = {}  # letters of each cell
    for n, output in [(n, o) for n, c in enumerate(notebook.cells) for o in c.get("outputs", ())]:
        data = output if output.output_type == "stream" else output.get("data", {})
        for kind, most in _MOST_LETTERS.items():
            text = data.get(kind, "")
            if kind == "text" and "\r" in text:  # as in a terminal, where a bar writes over itself
                rows = (row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n"))
                text = data[kind] = "\n".join(rows)
            if kind == "text/markdown" and text:  # a class may be called <b>
                text = data[kind] = text.replace("<", "&lt;")
            size = len(re.sub(r"[\w+/=]{999,}", "", text) if kind == "text/html" else text)
            most = max(200, min(most, _MOST_LETTERS["text"] - shown.get(n, 0)))
            shown[n] = shown.get(n, 0) + min(size, most)
            if size > most:
                gone = f"{len(text) - most:,} letters are in the executed notebook alone"
                data.pop(kind)
                plain = f"{text[: most // 2]}\n... {gone} ...\n{text[len(text) - most // 2 :]}"
                data["text" if kind == "text" else "text/plain"] = plain
                break
    how: dict[str, Any] = {"template_name": "notebook", "sanitize_html": True}
    how |= {f"exclude_{each}": True for each in ("anchor_links", "input_prompt", "output_prompt")}
    how |= {"extra_template_basedirs": [str(TEMPLATES)]}
    exporter = HTMLExporter(config=Config(NbConvertBase={"display_data_priority": _SHOWN}), **how)
    lines = (line for cell in notebook.cells for line in cell.source.splitlines())
    title = next((line[2:].strip() for line in lines if line.startswith("# ")), name)
    words = {"title": title, "name": name, "home": home, "css": stylesheet(code=True)}
    words["script_hash"] = _hash_of(_asset("ring_sliders.js"))
    exporter.register_filter("clean_html", cleaned)
    page, _ = exporter.from_notebook_node(notebook, resources={"page": words})
    if SLIDERS in page:  # cells keep no script: the one that is trusted is put in here
        page = page.replace("</main>", f"{ring_sliders_script()}</main>")
    write_file(path, printable(page, but="\n\t"))


def cleaned(html: Any) -> str:
    """Keep the elements and attributes of an allow-list: no script, style, form, frame or base."""
    import bleach
    from bleach.css_sanitizer import CSSSanitizer

    text = html.decode() if isinstance(html, bytes) else str(html)
    text = re.sub(r"<(script|style)\b.*?(</\1\s*>|$)", "", text, flags=re.DOTALL | re.IGNORECASE)
    how: dict[str, Any] = {"tags": _TAGS, "attributes": _ATTRIBUTES, "protocols": _PROTOCOLS}
    return bleach.clean(text, **how, css_sanitizer=CSSSanitizer(), strip=True)


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash_of(script: str) -> str:
    """Name a script in a content security policy."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def ring_sliders_script() -> str:
    """Return style and script of the ring sliders: the only script that a notebook's page runs."""
    css, code = _asset("ring_sliders.css"), _asset("ring_sliders.js")
    return f"<style>{css}</style><script>{code}</script>"


@cache
def stylesheet(*, code: bool = False) -> str:
    """Return the pages' style, light and dark; with ``code`` the colours of highlighted Python."""
    css = _asset("style.css")
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
    headlines: dict[str, pd.DataFrame] = {}
    laid: dict[str, dict[str, Any]] = {}
    damaged: list[Path] = []
    for node in well:
        path = out / node.folder / "headline.csv"
        try:  # a notebook may write what it likes: this table alone is left out
            table = pd.read_csv(regular(path))
            if table.empty:
                raise ValueError("no rows")
            laid[node.name] = headline(table)
            headlines[node.name] = table
        except FileNotFoundError:
            continue
        except Exception:
            damaged.append(path)
    files = {node.name: sorted((out / node.folder).glob("*")) for node in well}
    odd = [path for own in files.values() for path in own if not path.is_file()]
    damaged += [p for p in odd if p.suffix in (".png", *_TABLES) and p not in damaged]
    tables = {
        name: [p.relative_to(out).as_posix() for p in own if p.suffix in _TABLES and p.is_file()]
        for name, own in files.items()
    }
    texts = {  # of all parameters
        node.name: {k: str([*v] if isinstance(v, tuple) else v) or "''" for k, v in own.items()}
        for node, own in ((node, node.parameters) for node in report.nodes)
    }
    nodes = pd.DataFrame(asdict(node) for node in report.nodes).drop(columns="parameters")
    chosen = pd.DataFrame(texts.values(), index=nodes.index).fillna("").add_prefix("set_")
    write_csv(out / "nodes.csv", nodes.join(chosen))
    for earlier in out.glob("headline.*"):
        earlier.unlink()
    if headlines:
        rows = [table.assign(node=name) for name, table in headlines.items()]
        whole = pd.concat(rows, ignore_index=True)
        write_csv(out / "headline.csv", whole[["node", *whole.columns.drop("node")]])
    values: dict[str, dict[str, None]] = {}  # of each parameter, in the order they come
    for name, value in (item for own in texts.values() for item in own.items()):
        values.setdefault(name, {})[value] = None
    pages = [(node, out / node.page) for node in well if (out / node.page).is_file()]
    ranked = sorted(well, key=lambda node: node.name not in headlines)  # verdicts first
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    page = environment.get_template("index.html.j2").render(
        report=report,
        texts=texts,
        values=values,
        tables=laid,
        damaged=[path.relative_to(out).as_posix() for path in damaged],
        filters=_filters(report.nodes, values) if len(report.nodes) > 1 else {},
        data={name: own for name, own in tables.items() if own},
        sliders=[node for node, path in pages if SLIDERS in path.read_text(encoding="utf-8")],
        findings={n.name: lines for n in ranked if (lines := _findings(n, out))},
        css=stylesheet(),
        script=_asset("filters.js"),
        script_hash=_hash_of(_asset("filters.js")),
        **_figures(ranked, report, out=out),
    )
    write_file(out / "index.html", page)
    return out / "index.html"


def _filters(
    nodes: Sequence[NodeReport], values: Mapping[str, Iterable[str]]
) -> dict[str, list[str]]:
    """List the choices that an index offers: state, step, then the parameters that differ."""
    found = {"state": [node.state for node in nodes], "step": [node.entry for node in nodes]}
    different = [name for name, own in values.items() if len([*own]) > 1]
    for name in sorted(different, key=lambda name: (*_FIRST, name).index(name))[:_MOST_FILTERS]:
        found[name] = [*values[name]]
    unique = {name: list(dict.fromkeys(own)) for name, own in found.items()}
    # a parameter of very many values is left to the search for words
    most = dict.fromkeys(unique, _MOST_VALUES) | {"step": len(nodes)}
    return {name: own for name, own in unique.items() if 1 < len(own) <= most[name]}


def headline(table: pd.DataFrame) -> dict[str, Any]:
    """Prepare a table for the page: columns ``x``, ``x_low``, ``x_high`` become one.

    The first ones are shown, those from -1 to 1 in per cent; a protocol that all rows share is said
    beside the table.
    """
    ended = [name for name in table if {f"{name}_low", f"{name}_high"} <= set(table)]
    hidden = {f"{name}{end}" for name in ended for end in ("_low", "_high")}
    hidden |= set(ended[_INTERVALS_SHOWN:]) | _COSTS
    protocols = list(table["protocol"].unique()) if "protocol" in table else []
    hidden |= {"protocol"} if len(protocols) == 1 else set()
    names = [str(name) for name in table if name not in hidden]
    shares = {name for name in ended if table[name].abs().max() <= 1}
    cells = []  # of each column: texts, and intervals or nothing
    for name in names:
        texts, intervals = table[name].map(_text), [""] * len(table)
        texts = texts.map(method_label) if name == "method" else texts
        if name in ended:
            scale, digits = (100, 1) if name in shares else (1, 3)
            numbers = scale * table[[name, f"{name}_low", f"{name}_high"]].astype(float)
            texts, low, high = (numbers[each].apply(_text, digits=digits) for each in numbers)
            known = numbers.notna().all(axis=1)
            intervals = list(("[" + low + ", " + high + "]").where(known, "no interval"))
        cells.append(list(zip(texts, intervals, strict=True)))
    titles = {name: name.replace("_", " ") + ", %" * (name in shares) for name in names}
    plain = {name for name in names if name not in ended and is_numeric(table[name])}
    columns = [{"title": titles[name], "number": name in plain} for name in names]
    rows, protocol = list(zip(*cells, strict=True)), protocols[0] if len(protocols) == 1 else ""
    return {"columns": columns, "rows": rows, "protocol": protocol}


def _text(value: Any, digits: int = 3) -> str:
    if pd.isna(value):
        return "n/a"
    return f"{round(value, digits) + 0:.{digits}f}" if isinstance(value, float) else str(value)


def _findings(node: NodeReport, out: Path) -> list[str]:
    """Read what a notebook found: the lines of a list in its last output, as plain text."""
    try:
        notebook = read_json(out / f"notebooks/{node.name}.ipynb")
        texts = ["".join(output["data"]["text/markdown"])
                 for output in notebook["cells"][-1]["outputs"]
                 if "text/markdown" in output.get("data", {})]  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    items = [item for text in texts for item in re.findall(r"^- (.+(?:\n {2,}.+)*)", text, re.M)]
    plain = (unescape(re.sub(r"\\([!-/:-@[-`{-~])|`|\*\*", r"\1", item)) for item in items)
    return [" ".join(item.split()) for item in plain]


def _figures(nodes: Sequence[NodeReport], report: Report, *, out: Path) -> dict[str, Any]:
    """Lay out the thumbnails; those of an entry with several nodes are folded away."""
    found = {n.name: filter(Path.is_file, (out / n.folder).glob("*.png")) for n in nodes}
    # by age: the order in which the notebook drew them
    files = {name: sorted(own, key=lambda p: p.stat().st_mtime_ns) for name, own in found.items()}
    width = 560 if sum(map(len, files.values())) <= 60 else 320
    entries = [node.entry for node in report.nodes]
    figures: list[dict[str, Any]] = []
    folded: dict[str, list[dict[str, Any]]] = {}
    large: dict[str, dict[str, Any]] = {}
    for node in nodes:
        several = entries.count(node.entry) > 1
        for path in files[node.name]:
            caption = path.stem.replace("_", " ").replace("-", " ")
            item = {"file": f"{node.folder}/{path.name}", "caption": caption, "node": node}
            first = path.stem in _LARGE and not several and path.stem not in large
            item["thumbnail"] = thumbnail(path, width=1000 if first else width)
            if first:
                large[path.stem] = item
            else:
                (folded.setdefault(node.entry, []) if several else figures).append(item)
    shown = [large[stem] for stem in _LARGE if stem in large]
    return {"figures": figures, "folded": folded, "large": shown}


def thumbnail(path: Path, *, width: int) -> str:
    """Shrink an image to WebP, on white, as a ``data:`` address; empty if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(regular(path)) as opened:
            small = opened.convert("RGBA")
    except Exception:  # decoders raise whatever they like on a damaged file
        return ""
    small.thumbnail((width, width), Image.Resampling.LANCZOS, reducing_gap=3.0)
    paper = Image.new("RGBA", small.size, "white")
    paper.alpha_composite(small)
    stream = io.BytesIO()
    paper.convert("RGB").save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
