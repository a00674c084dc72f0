"""`fopro train`, `probe`, `report`, `compare` and `ledger`: the laboratory's own work."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fopro_lab.cli.options import AsJson, FromFile, Out, Settings, read_config
from fopro_lab.errors import InputError, WorkError


def train(
    out: Out = "",
    settings: Settings = [],
    file: FromFile = "",
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every knob, its value and meaning.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train one student: method=ce, bsm, ekd, fopro or random."""
    from fopro_lab.config import TrainConfig
    from fopro_lab.settings import explained

    try:
        config = read_config(TrainConfig, settings, file)
    except InputError as error:  # started by torchrun, one process a machine says it
        error.told = os.environ.get("LOCAL_RANK", "0") != "0"
        raise
    if print_config:
        print(explained(config))
        return
    from fopro_lab.training import distill, is_first, run_name

    run = distill(config, out=out or Path("runs") / run_name(config))
    if not is_first():
        return
    scores = run.table(resamples=1000)
    headline = scores[scores["scope"] != "class"]
    if as_json:
        print(headline.to_json(orient="records", indent=2))
        return
    best, chosen = run.manifest["best_epoch"], run.manifest["scores"]["val_balanced_accuracy"]
    print(f"{run.path}: best epoch {best}, validation balanced accuracy {chosen:.3f}; on test:")
    for row in headline.itertuples():
        known = row.low == row.low  # NaN: too few pictures for an interval
        interval = f"{row.low:.3f} to {row.high:.3f}" if known else "no interval"
        print(f"  {row.metric:<20} {row.name:<8} {row.value:.3f} ({interval})  n {row.n}")


def probe(
    cards: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR...]", help="With --compare: cards' folders.")
    ] = None,
    out: Out = "",
    settings: Settings = [],
    file: FromFile = "",
    compare: Annotated[
        bool, typer.Option("--compare", help="Lay cards side by side instead of making one.")
    ] = False,
) -> None:
    """Ask a teacher which frequencies it prefers: tables, figures and a page in a folder.

    `fopro probe --set teacher=...` writes a teacher's card and prints the path of its page; a heat
    map that was stopped goes on. `fopro probe --compare DIR DIR...` lays such cards side by side,
    and says whether teachers differ more than measurements of one teacher do.
    """
    if compare:
        from fopro_lab.lab.teacher_comparisons import write_comparison

        folders = [Path(card) for card in cards or []]
        print(write_comparison(folders, out=Path(out or Path("probes") / "compared")))
        return
    if cards:
        raise InputError(f"{cards[0]}: folders are taken with --compare; a teacher with --set")
    from fopro_lab.config import ProbeConfig
    from fopro_lab.lab.teacher_pages import write_teacher_card

    config = read_config(ProbeConfig, settings, file)
    stem = f"{Path(config.dataset).name}-{config.teacher}".replace(":", "_")
    print(write_teacher_card(config, out=Path(out or Path("probes") / stem)))


def report(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="YAML file: notebooks and knobs.")],
    out: Out = "",
    settings: Settings = [],
    jobs: Annotated[int, typer.Option(help="Notebooks at a time; 0 is one a core.")] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Execute this notebook alone; repeatable."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Dry run: the graph, the cost and what is missing.")
    ] = False,
) -> None:
    """Execute a plan's notebooks and print the path of its index page.

    With --plan nothing is executed or written: every notebook is listed with what it waits for,
    then the cost as far as it is known, and each input that is missing, with the way to get it.
    Exit code 1 if something is missing, 0 if the plan is ready.
    """
    folder = Path(out or Path("reports") / Path(plan).stem)
    if plan_only and only:
        raise InputError(
            "--only: expected without --plan, which shows the whole plan; leave it out"
        )
    if plan_only:
        from fopro_lab.lab.dry_run import dry_run

        told = dry_run(plan, out=folder, settings=settings, jobs=jobs)
        print("\n".join(told.lines()))
        if not told.ready:
            count = len(told.missing) + len(told.wrong)
            raise WorkError(f"not ready: {count} missing or wrong, see above; nothing was executed")
        return
    from fopro_lab.lab import run_plan

    print(run_plan(plan, out=folder, settings=settings, jobs=jobs, only=only or []))


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, or above.")],
    baseline: Annotated[str, typer.Option(help="Method to compare with.")] = "bsm",
    out: Out = "",
    as_json: AsJson = False,
) -> None:
    """Compare methods over the same test pictures, paired, with intervals."""
    from fopro_lab.evaluation import compare as compare_runs
    from fopro_lab.evaluation import load_runs
    from fopro_lab.files import atomic_path

    table = compare_runs(load_runs(runs), baseline)
    if out:
        with atomic_path(Path(out) / "comparison.csv") as temporary:
            table.to_csv(temporary, index=False)
    if as_json:
        print(table.to_json(orient="records", indent=2))
        return
    for row in table[table["scope"] != "class"].itertuples():
        print(
            f"{row.method:<8} minus {row.baseline:<6} {row.metric:<20} {row.name:<8} "
            f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})  n {row.n}, "
            f"seeds {row.seeds}"
        )


def ledger(
    headline: Annotated[
        str, typer.Argument(metavar="[HEADLINE.csv]", help="Numbers of notebook 05 to write in.")
    ] = "",
    commit: Annotated[str, typer.Option(help="Commit of the code that trained.")] = "",
    day: Annotated[str, typer.Option("--date", help="Of the runs, YYYY-MM-DD.")] = "",
    command: Annotated[str, typer.Option(help="What makes the runs again.")] = "",
    teacher: Annotated[str, typer.Option(help="As the config names it.")] = "",
    student: Annotated[str, typer.Option(help="As the config names it.")] = "",
    protocol: Annotated[str, typer.Option(help="Readable name, for rows that are new.")] = "",
    file: Annotated[str, typer.Option("--file", help="The ledger.")] = "reports/ledger.csv",
) -> None:
    """Check and print the ledger: published numbers beside ours; or write a report's into it.

    With HEADLINE.csv its numbers are written into the rows of their protocol, method, teacher and
    student; published cells are never touched, and a wrong row leaves the file as it is.
    """
    from fopro_lab.evaluation.ledger import Origin, fill_ledger, ledger_lines, read_ledger

    if headline:
        origin = Origin(commit, day, command, teacher, student, protocol)
        print(f"{file}: {fill_ledger(file, headline, origin=origin)} rows filled")
        return
    print("\n".join(ledger_lines(read_ledger(file))))
