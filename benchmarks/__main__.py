"""`python -m benchmarks ...`: ratios measured side by side, with the machine they come from."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from fopro_lab.data import Pack

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the results.")]
bench_app = typer.Typer(
    help="Speed as ratios, measured side by side in one run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@bench_app.command("data")
def bench_data(
    out: Out = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 9,
    size: Annotated[int, typer.Option(help="Side of the packed images, pixels.")] = 224,
    as_json: AsJson = False,
) -> None:
    """Time batches, packing and opening against PIL and torchvision; needs no data of yours."""
    from benchmarks.data import bench_data as run
    from benchmarks.machine import machine_facts

    tables = run(rounds=rounds, size=size)
    _tell_bench("data", tables, machine_facts(), out=out, as_json=as_json)


@bench_app.command("fourier")
def bench_fourier(
    out: Out = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 9,
    size: Annotated[int, typer.Option(help="Side of the larger images, pixels.")] = 224,
    as_json: AsJson = False,
) -> None:
    """Time gains, prompted steps and ring responses against plain ones; needs no data of yours."""
    from benchmarks.fourier import bench_fourier as run
    from benchmarks.machine import machine_facts

    tables = run(rounds=rounds, size=size)
    _tell_bench("fourier", tables, machine_facts(), out=out, as_json=as_json)


@bench_app.command("step")
def bench_step(
    out: Out = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 5,
    size: Annotated[int, typer.Option(help="Side of the images, pixels.")] = 224,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Time the engine's steps against the published one, with memory and ceilings."""
    from benchmarks.machine import machine_facts
    from benchmarks.step import bench_step as run

    tables = run(rounds=rounds, size=size, batch=batch)
    _tell_bench("step", tables, machine_facts(), out=out, as_json=as_json)


@bench_app.command("lab")
def bench_lab(
    out: Out = "",
    rounds: Annotated[int, typer.Option(help="Batches of 12 notebooks.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time the explorer's ticks, a batch of small notebooks against its ideal, a finished plan."""
    from benchmarks.machine import machine_facts

    _tell_bench("lab", _measure_lab(rounds), machine_facts(), out=out, as_json=as_json)


@bench_app.command("all")
def bench_all(
    out: Out = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 5,
    size: Annotated[int, typer.Option(help="Side of the larger images, pixels.")] = 224,
) -> None:
    """Run all benchmarks one after the other; keep the machine free of other work meanwhile."""
    import benchmarks as bench

    runs: dict[str, Callable[..., dict[str, pd.DataFrame]]] = {
        "data": bench.bench_data,
        "fourier": bench.bench_fourier,
        "step": bench.bench_step,
    }
    for name, run in runs.items():
        tables = run(rounds=rounds, size=size)
        _tell_bench(name, tables, bench.machine_facts(), out=out, as_json=False)
    _tell_bench("lab", _measure_lab(rounds), bench.machine_facts(), out=out, as_json=False)


def _measure_lab(rounds: int) -> "dict[str, pd.DataFrame]":
    """Measure the widgets here and the reports in processes of their own, one after the other."""
    from benchmarks.reports import bench_reports
    from benchmarks.ticks import measure_ticks
    from fopro_lab.models import load_teacher
    from fopro_lab.widgets import BandExplorer

    teacher = load_teacher("builtin")

    def build(pack: "Pack") -> Callable[[float], None]:
        explorer = BandExplorer(pack, teacher=teacher, rings=8)
        return partial(setattr, explorer.sliders[1], "value")

    return {"ticks": measure_ticks(build), "reports": bench_reports(rounds=rounds)}


def _tell_bench(
    name: str,
    tables: "dict[str, pd.DataFrame]",
    facts: dict[str, Any],
    *,
    out: str,
    as_json: bool,
) -> None:
    """Print a benchmark's tables; with ``--out`` keep them, with a figure of each comparison."""
    from benchmarks.results import as_text, write_results

    if as_json:
        rows = {key: json.loads(table.to_json(orient="records")) for key, table in tables.items()}
        print(json.dumps({"machine": facts, "tables": rows}, indent=2))
    else:
        print(f"{facts['processor']}, {facts['cores']} cores, {facts['gpu'] or 'no GPU'}")
        for key, table in tables.items():
            print(f"\n{key}\n{as_text(table)}")
    if out:
        from benchmarks.plots import plot_ratios
        from fopro_lab.plots import save_figure

        path = write_results(name, tables, out=Path(out), facts=facts)
        for key, table in tables.items():
            if "ratio" in table:
                ax = plot_ratios(table, facts=facts)
                save_figure(ax, path.with_name(f"{path.stem}-{key}.png"))
        print(path, file=sys.stderr)


if __name__ == "__main__":
    bench_app()
