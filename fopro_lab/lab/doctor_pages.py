"""`fopro data check --out`: what the doctor found as a folder of tables and figures."""

from pathlib import Path

from fopro_lab.auditing import Findings
from fopro_lab.lab import figures


def write_checkup(found: Findings, *, out: Path) -> Path:
    """Write ``findings.json``, a CSV a table, and the figures that have something to show.

    Args:
        found: By the doctor.
        out: Folder; made if missing.

    Returns:
        The folder.

    Raises:
        WorkError: If the disk is full or may not be written.
    """
    found.write(out)
    tables = found.tables
    figures.save_figure(figures.plot_checkup(tables["counts"], found.table()), out / "checkup.png")
    ties = tables["ties"]
    if ties[ties["other"] == "train"]["any"].any():
        figures.save_figure(figures.plot_leaks(ties), out / "leaks.png")
    if len(tables["sources"].columns) > 1:
        figures.save_figure(figures.plot_class_sources(tables["sources"]), out / "sources.png")
    return out
