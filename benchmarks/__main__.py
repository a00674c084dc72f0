"""`python -m benchmarks [data|fourier|step|kept|sweep|reports|scaling|all|page] [--out DIR]`."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks import data, fourier, reports, scaling, step, sweep
from benchmarks.page import write_page
from benchmarks.timing import machine_facts, print_table, write_results

BENCHMARKS: dict[str, Callable[..., dict[str, pd.DataFrame]]] = {
    "data": data.bench_data,  # files to batches
    "fourier": fourier.bench_fourier,  # gains and ring responses
    "step": step.bench_step,  # steps of distillation, with and without a prompt
    "kept": sweep.bench_kept_features,  # what kept teacher features save in an epoch
    "sweep": sweep.bench_sweep,  # and over folds, seeds and methods
    "reports": reports.bench_reports,  # slider ticks, a batch of notebooks
    "scaling": scaling.bench_scaling,  # time and memory as work grows
}


KEPT = Path("reports/bench")


def main() -> None:
    """Run one benchmark or all, print its tables, and keep them with ``--out``.

    ``page`` writes docs/speed.md from the runs in reports/bench.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all", "page"])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, 3 or more")
    parser.add_argument("--out", type=Path, help="folder for JSON and figures")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error(f"--rounds: expected 3 or more, got {options.rounds}")
    if options.name == "page":
        write_page(KEPT, path=Path("docs/speed.md"))
        return
    facts = machine_facts()
    print(f"{facts['processor']}, {facts['cores']} cores, {facts['gpu'] or 'no GPU'}")
    for name in BENCHMARKS if options.name == "all" else [options.name]:
        tables = BENCHMARKS[name](rounds=options.rounds)
        for key, table in tables.items():
            print_table(f"{name}: {key}", table)
        if options.out:
            print(write_results(name, tables, out=options.out, facts=facts))


if __name__ == "__main__":
    main()
