"""`fopro compare`: methods over the same test pictures, as lines, tables, or a page."""

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fopro_lab.cli.options import AsJson, Out


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, or above.")],
    baseline: Annotated[str, typer.Option(help="Method to compare with.")] = "bsm",
    html: Annotated[
        bool, typer.Option("--html", help="Write a page into --out, else ./comparison.")
    ] = False,
    out: Out = "",
    latex: Annotated[
        str, typer.Option(metavar="FILE.tex", help="Tables for a paper, by booktabs.")
    ] = "",
    markdown: Annotated[
        str, typer.Option(metavar="FILE.md", help="The same tables as Markdown.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Compare methods over the same test pictures, paired, with intervals.

    With --html a page is written, with its figures, tables as CSV and parquet, and tables for a
    paper. Runs that have no partner of their seed and fold, or are not finished, are named on
    stderr and on the page.
    """
    from fopro_lab.evaluation import compare as compare_runs
    from fopro_lab.evaluation import dropped_lines, load_runs, pairings
    from fopro_lab.files import atomic_path

    found = load_runs(runs, unfinished=True)
    done = [run for run in found if run.complete]
    if html or latex or markdown:
        from fopro_lab.lab.compare_pages import Comparison, write_comparison_page

        whole = Comparison.of(found, baseline)
        table = whole.differences
    else:
        table = compare_runs(done, baseline)
    for line in dropped_lines(pairings(found, baseline)):
        print(f"fopro: {line}", file=sys.stderr)
    for file, text in ((latex, "latex"), (markdown, "markdown")):
        if file:
            with atomic_path(file) as temporary:
                temporary.write_text(getattr(whole, text)(), encoding="utf-8")
    if html:
        command = shlex.join(["fopro", *sys.argv[1:]])
        page = write_comparison_page(whole, out=Path(out or "comparison"), command=command)
    elif out:
        with atomic_path(Path(out) / "comparison.csv") as temporary:
            table.to_csv(temporary, index=False)
    if as_json:
        print(table.to_json(orient="records", indent=2))
        return
    for row in table[table["scope"] != "class"].itertuples():
        known = math.isfinite(row.low) and math.isfinite(row.high)
        interval = f"{row.low:+.3f} to {row.high:+.3f}" if known else "no interval"
        print(
            f"{row.method:<8} minus {row.baseline:<6} {row.metric:<20} {row.name:<8} "
            f"{row.difference:+.3f} ({interval})  n {row.n}, seeds {row.seeds}"
        )
    if html:
        print(page)
