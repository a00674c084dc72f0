"""`fopro train`, `probe` and `ledger`: the laboratory's own work."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fopro_lab.cli.options import AsJson, FromFile, Out, Settings, read_config
from fopro_lab.errors import InputError


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
