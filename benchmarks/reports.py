"""What a report costs beside its notebooks' own work: a batch, and a finished one asked again."""

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError, WorkError

NOTEBOOKS = 12
SPREAD = 1.3  # wall time over the ideal, at the most
OVERHEAD = 5.0  # seconds a notebook over its own cells, at the most
FINISHED = 2.0  # seconds of a finished plan, at the most
_PARAMETERS = "seed: int = 0  # of the numbers"
_CELLS = ("import time", "import numpy as np", "np.random.default_rng(seed).normal(size=9).sum()")


def bench_reports(
    *, rounds: int = 3, notebooks: int = NOTEBOOKS, work: float = 5.0
) -> pd.DataFrame:
    """Measure a batch of small notebooks, one a core, and the same command on the finished plan.

    The ideal of a batch is the sum of its notebooks' times over the cores. Own time is that of the
    cells, as papermill noted it: imports, a few numbers, and a wait; wall time has the kernel's
    start and end and the page in it, and so tells what the batch alone adds.

    Args:
        rounds: That count, at least 1; a batch each and five finished plans.
        notebooks: In the plan, at least 1.
        work: Seconds that each notebook waits in a cell, 0 or more.

    Returns:
        A row a measure: ``what``, ``unit``, ``value`` (median), ``low``, ``high`` (quartiles),
        ``rounds``, ``goal`` (at the most), ``reached``.

    Raises:
        InputError: If a number is too small.
        WorkError: If a notebook failed.

    Example:
        >>> bench_reports(rounds=0)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: rounds, notebooks: expected 1 or more, got 0 and 12
    """
    if rounds < 1 or notebooks < 1:
        raise InputError(f"rounds, notebooks: expected 1 or more, got {rounds} and {notebooks}")
    slots = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    spread, packed, overhead, finished = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        folder = Path(place)
        plan = _lay_out(folder, notebooks=notebooks, work=work)
        for number in range(rounds):
            out = folder / f"out-{number}"
            wall = _report(plan, out, folder)
            own, seconds = _own_times(out), _wall_times(out)
            spread.append(wall * (slots or 1) / sum(own.values()))
            packed.append(wall * (slots or 1) / sum(seconds.values()))
            overhead += [seconds[name] - own[name] for name in own]
            finished += [_report(plan, out, folder) for _ in range(5)]
    rows = [
        _row(
            f"batch of {notebooks} on {slots} cores over their cells' time", "ratio", spread, SPREAD
        ),
        _row("the same over the notebooks' wall time", "ratio", packed, SPREAD),
        _row("a notebook over its own cells", "s", overhead, OVERHEAD),
        _row("a finished plan, the whole command", "s", finished, FINISHED),
    ]
    return pd.DataFrame(rows)


def _lay_out(folder: Path, *, notebooks: int, work: float) -> Path:
    """Write one notebook and a plan with a matrix over its seed."""
    cells = [_cell(_PARAMETERS, tags=["parameters"]), *map(_cell, _CELLS)]
    cells.append(_cell(f"time.sleep({work})"))
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "small.ipynb").write_text(json.dumps(book), encoding="utf-8")
    plan = folder / "plan.yaml"
    seeds = ", ".join(map(str, range(notebooks)))
    plan.write_text(
        "title: Small notebooks\nnotebooks:\n  small:\n    notebook: small.ipynb\n"
        f"    matrix: {{seed: [{seeds}]}}\n",
        encoding="utf-8",
    )
    return plan


def _cell(source: str, *, tags: list[str] | None = None) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": f"cell-{zlib.crc32(source.encode())}",
        "metadata": {"tags": tags or []},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


def _report(plan: Path, out: Path, folder: Path) -> float:
    """Run the command as a person does, and take its wall time."""
    words = [sys.executable, "-m", "fopro_lab", "report", str(plan), "--out", str(out)]
    began = time.perf_counter()
    ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise WorkError(f"the batch failed: {(ran.stderr.strip().splitlines() or [''])[-1]}")
    return time.perf_counter() - began


def _own_times(out: Path) -> dict[str, float]:
    """Sum the durations of each notebook's cells, by node."""
    own = {}
    for path in (out / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        noted = [cell["metadata"].get("papermill", {}).get("duration") or 0.0 for cell in cells]
        own[path.stem] = float(sum(noted))
    return own


def _wall_times(out: Path) -> dict[str, float]:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {node["name"]: float(node["seconds"]) for node in report["nodes"]}


def _row(what: str, unit: str, values: list[float], goal: float) -> dict[str, Any]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "what": what,
        "unit": unit,
        "value": middle,
        "low": low,
        "high": high,
        "rounds": len(values),
        "goal": goal,
        "reached": "yes" if middle <= goal else "no",
    }
