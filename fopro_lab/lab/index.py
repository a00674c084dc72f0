"""The index page of a report: headline table, thumbnails, states, and how it was made."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fopro_lab.lab.pages import stylesheet, templates

_BAR = 136  # width of an interval's drawing, in its own units
_MARGIN = 4
_INTERVALS_SHOWN = 5  # what a laptop's screen holds; the file has them all


@dataclass(frozen=True)
class NodeReport:
    """How one node ended: done, kept, failed, skipped, stopped or left out.

    ``folder`` is its ``out_dir`` and ``page`` its HTML page, both seen from the index; ``page`` is
    empty when there is none. ``reason`` says in one line what went wrong.
    """

    name: str
    entry: str
    state: str
    seconds: float = 0.0
    folder: str = ""
    page: str = ""
    reason: str = ""
    parameters: str = ""

    @property
    def time(self) -> str:
        """The duration as a person says it; empty if the node never ran."""
        return duration(self.seconds) if self.seconds else ""


@dataclass(frozen=True)
class Report:
    """All that the index says in words."""

    title: str
    about: str
    nodes: Sequence[NodeReport]
    facts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def duration(seconds: float) -> str:
    """Say a duration.

    Args:
        seconds: At least 0.

    Example:
        >>> duration(3.24), duration(75), duration(3720)
        ('3.2 s', '1 min 15 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def index_page(report: Report, *, out: Path) -> str:
    """Render the index of a report from what its nodes wrote.

    Args:
        report: Title, nodes and facts.
        out: The report's folder; read are ``<folder>/headline.csv`` and ``<folder>/*.png``.

    Returns:
        The page; thumbnails are inlined and link to the full-size files beside it.

    Example:
        >>> node = NodeReport(name="train", entry="train", state="done", seconds=2.0)
        >>> report = Report("A title", "", [node], {"Finished": "today"})
        >>> "2.0 s" in index_page(report, out=Path("nowhere"))
        True
    """
    tables, figures = [], []
    folded: dict[str, list[dict[str, str]]] = {}
    entries = [node.entry for node in report.nodes]
    ended_well = [node for node in report.nodes if node.state in ("done", "kept")]
    verdicts = [n for n in ended_well if (out / n.folder / "headline.csv").is_file()]
    for node in verdicts:
        file = f"{node.folder}/headline.csv"
        tables.append({"node": node.name, "file": file, **headline(out / file)})
    for node in [*verdicts, *(n for n in ended_well if n not in verdicts)]:
        pictures = [
            {
                "file": f"{node.folder}/{path.name}",
                "caption": path.stem.replace("_", " ").replace("-", " "),
                "thumbnail": thumbnail(path),
                "node": node.name,
                "page": node.page,
            }
            for path in sorted((out / node.folder).glob("*.png"), key=_age)
        ]
        if entries.count(node.entry) == 1:
            figures += pictures
        elif pictures:
            folded.setdefault(node.entry, []).extend(pictures)
    return (
        templates()
        .get_template("index.html.j2")
        .render(report=report, tables=tables, figures=figures, folded=folded, css=stylesheet())
    )


def _age(path: Path) -> tuple[int, str]:
    """When a figure was written: the order in which its notebook tells the story."""
    return path.stat().st_mtime_ns, path.name


def headline(file: Path | str) -> dict[str, Any]:
    r"""Prepare a table for the page: columns ``x``, ``x_low``, ``x_high`` become one.

    The first five of those are shown; the protocol is said beside the table if it is one.

    Args:
        file: CSV with a row a method.

    Returns:
        ``columns`` (title, number), ``rows`` of cells (text, interval, and the place of the dot
        and the bar's ends on the column's common scale) and ``protocol``.

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
    cells = [_column(table, name) for name in names]
    rows = [list(row) for row in zip(*cells, strict=True)]
    return {
        "columns": columns,
        "rows": rows,
        "protocol": protocols[0] if len(protocols) == 1 else "",
    }


def _column(table: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    """The cells of one column, with its interval if there is one."""
    number = pd.api.types.is_numeric_dtype(table[name])
    plain = {"number": number, "interval": "", "dot": None, "low": None, "high": None}
    if not {f"{name}_low", f"{name}_high"} <= set(table):
        return [{**plain, "text": _text(value)} for value in table[name]]
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    left, right = low.min(), high.max()

    def place(value: float) -> float:
        share = (value - left) / (right - left) if right > left else 0.5
        return round(_MARGIN + share * (_BAR - 2 * _MARGIN), 1)

    return [
        {
            "number": True,
            "text": _text(value),
            "interval": f"[{_text(a)}, {_text(b)}]",
            "dot": place(value),
            "low": place(a),
            "high": place(b),
        }
        if pd.notna([value, a, b]).all()
        else {**plain, "text": _text(value)}
        for value, a, b in zip(table[name], low, high, strict=True)
    ]


def _text(value: Any) -> str:
    if pd.isna(value):
        return "n/a"
    return f"{value:.3f}".replace("-0.000", "0.000") if isinstance(value, float) else str(value)


def thumbnail(path: Path | str, *, width: int = 560) -> str:
    """Shrink a picture and write it as a ``data:`` address.

    Args:
        path: Picture file.
        width: Largest width, pixels; twice what the page shows, for fine screens.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (900, 300)).save(file.name)
        ...     thumbnail(file.name)[:22]
        'data:image/webp;base64'
    """
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGBA")
    paper = Image.new("RGBA", small.size, "white")
    paper.alpha_composite(small)
    paper.thumbnail((width, width), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    paper.convert("RGB").save(stream, "WEBP", quality=86, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
