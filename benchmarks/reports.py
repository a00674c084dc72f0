"""Slider ticks of the band explorer, and what a report adds to the work of its notebooks."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks.data import photograph_pack

CELLS = ("import time, numpy", "numpy.random.default_rng(seed).normal(size=9).sum()")


def bench_reports(*, rounds: int = 3) -> dict[str, pd.DataFrame]:
    """Measure ticks in this process and reports in processes of their own."""
    return {"ticks": measure_ticks(), "reports": measure_batches(rounds=rounds)}


def measure_ticks(*, sizes: tuple[int, ...] = (64, 224), ticks: int = 60) -> pd.DataFrame:
    """Time one tick of a slider, from the new value to the new images.

    Returns:
        One row per size: ``size`` (pixels), ``median_ms``, ``slowest_tenth_ms``, ``ticks``,
        ``goal_ms``.
    """
    from fopro_lab.models import load_teacher
    from fopro_lab.widgets import BandExplorer

    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
            packed = photograph_pack(Path(place), size=size, count=4)
            explorer = BandExplorer(packed, teacher=load_teacher("builtin"), rings=8)
            seconds = []
            for number in range(ticks + ticks // 10):  # the first tenth warms up
                start = time.perf_counter()
                explorer.sliders[1].value = 4 * ((number * 7) % 40 + 0.5) / 40  # always a new one
                seconds.append(time.perf_counter() - start)
        taken = 1000 * pd.Series(seconds[ticks // 10 :])
        rows.append((size, taken.median(), taken.quantile(0.9), ticks, 20.0))
    columns = ["size", "median_ms", "slowest_tenth_ms", "ticks", "goal_ms"]
    return pd.DataFrame(rows, columns=columns)


def measure_batches(*, rounds: int = 3, notebooks: int = 12, work: float = 5.0) -> pd.DataFrame:
    """Time a batch of small notebooks, one per core, and the same command on the finished plan.

    Args:
        rounds: Batches.
        notebooks: In the plan.
        work: Seconds that each notebook waits in a cell.

    Returns:
        One row per measure: ``what``, ``unit``, ``value`` (median), ``low``, ``high``
        (quartiles), ``goal`` (at most).
    """
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    slots = len(affinity(0))
    spread, overhead, finished = [], [], []
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        folder = Path(place)
        plan = _write_plan(folder, notebooks=notebooks, work=work)
        for number in range(rounds):
            out = folder / f"out-{number}"
            wall = _run_report(plan, out)
            own = _cell_seconds(out)
            spread.append(wall * slots / sum(own))
            overhead.append((wall * slots - sum(own)) / notebooks)
            finished.append(_run_report(plan, out))
    measured: list[tuple[str, str, list[float], float]] = [
        (f"{notebooks} notebooks on {slots} cores over their cells' time", "ratio", spread, 1.3),
        ("what a notebook adds to its cells", "s", overhead, 5.0),
        ("a finished plan, the whole command", "s", finished, 2.0),
    ]
    rows = [
        (what, unit, *pd.Series(values).quantile([0.5, 0.25, 0.75]), goal)
        for what, unit, values, goal in measured
    ]
    return pd.DataFrame(rows, columns=["what", "unit", "value", "low", "high", "goal"])


def _write_plan(folder: Path, *, notebooks: int, work: float) -> Path:
    sources = ("seed: int = 0  # of the numbers", *CELLS, f"time.sleep({work})")
    cells: list[Any] = [new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=cells), folder / "small.ipynb")
    plan = {
        "title": "Small notebooks",
        "notebooks": {
            "small": {"notebook": "small.ipynb", "matrix": {"seed": list(range(notebooks))}}
        },
    }
    path = folder / "plan.yaml"
    path.write_text(json.dumps(plan), encoding="utf-8")  # JSON is YAML
    return path


def _run_report(plan: Path, out: Path) -> float:
    """Run the command as a user does, and return its wall time in seconds."""
    words = [sys.executable, "-m", "fopro_lab", "report", str(plan), "--out", str(out)]
    start = time.perf_counter()
    subprocess.run(words, cwd=plan.parent, capture_output=True, check=True)
    return time.perf_counter() - start


def _cell_seconds(out: Path) -> list[float]:
    """Sum the durations of each notebook's cells, as papermill wrote them."""
    return [
        sum(
            cell["metadata"].get("papermill", {}).get("duration") or 0.0
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        )
        for path in (out / "notebooks").glob("*.ipynb")
    ]
