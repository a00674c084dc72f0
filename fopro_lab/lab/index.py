"""The index page of a report: headline table, thumbnails, states, and how it was made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fopro_lab.files import atomic_path
from fopro_lab.lab.filters import chosen_parameters, differing, filters, words_of
from fopro_lab.lab.headlines import headline
from fopro_lab.lab.outcomes import NodeReport, Report
from fopro_lab.lab.pages import stylesheet, templates
from fopro_lab.lab.report_tables import read_headline, table_files, twin_of, write_tables
from fopro_lab.lab.thumbnails import small_pictures


def index_page(report: Report, *, out: Path) -> str:
    """Render the index of a report from what its nodes wrote.

    Args:
        report: Title, nodes and facts.
        out: The report's folder; read are ``<folder>/headline.csv`` and ``<folder>/*.png``.

    Returns:
        The page; thumbnails are inlined, the smaller the more there are, and link to the full-size
        files beside it. They are kept in ``.thumbnails`` for the next time.

    Example:
        >>> from fopro_lab.lab.outcomes import NodeReport
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
    small = small_pictures([path for found in files.values() for path in found], folder=out)
    entries = [node.entry for node in report.nodes]
    figures: list[dict[str, str]] = []
    folded: dict[str, list[dict[str, str]]] = {}
    for node in nodes:
        pictures = [
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
            figures += pictures
        elif pictures:
            folded.setdefault(node.entry, []).extend(pictures)
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
