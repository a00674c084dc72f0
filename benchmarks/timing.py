"""Variants timed side by side: each runs once per round, and rounds are compared, not sums.

What slows the machine for a while slows a whole round; the ratio within the round stays.
"""

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fopro_lab.io import progress, write_json


@dataclass(frozen=True)
class Variant:
    """One way to do the work.

    Attributes:
        name: Shown to the user.
        run: Does the work once and returns how many images it processed.
        goal: The ratio to the reference that is aimed at; None if there is none.
    """

    name: str
    run: Callable[[], int]
    goal: float | None = None


def compare(
    variants: Sequence[Variant],
    *,
    rounds: int,
    threads: int = 1,
    label: str = "",
    warm_up: bool = True,
) -> pd.DataFrame:
    """Time variants in turns and compare each with the first.

    One round does not count (it warms up). The order turns by one place per round, so that no
    variant always follows the same other one. A GPU is waited for.

    Args:
        variants: The reference first; names differ.
        rounds: Rounds that count.
        threads: CPU threads of each.
        label: Of the progress bar.
        warm_up: Whether there is the round that does not count, and a run before each.

    Returns:
        One row per variant: ``variant``, ``per_second`` (images, median of the rounds), ``ratio``
        (median of the rounds' ratios; 2 is twice as fast as the reference), ``low``, ``high``
        (quartiles of the ratios), ``rounds``, ``goal``, ``reached``.
    """
    speeds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    if len(speeds) < len(variants):
        raise ValueError(f"variants: expected different names, got {list(speeds)}")
    turns = range(0 if warm_up else 1, rounds + 1)
    for number in progress(turns, total=len(turns), label=f"timing {label}"):
        turn = number % len(variants)
        for variant in [*variants[turn:], *variants[:turn]]:
            images, seconds = _timed(variant.run, threads=threads, warm_up=warm_up)
            if number:
                speeds[variant.name].append(images / seconds)
    speed = pd.DataFrame(speeds)
    ratio = speed.div(speed[variants[0].name], axis=0)
    goal = pd.Series({variant.name: variant.goal for variant in variants}, dtype=float)
    table = pd.DataFrame(
        {
            "per_second": speed.median(),
            "ratio": ratio.median(),
            "low": ratio.quantile(0.25),
            "high": ratio.quantile(0.75),
            "rounds": rounds,
            "goal": goal,
        }
    )
    table["reached"] = (
        (table["ratio"] >= goal).map({True: "yes", False: "no"}).where(goal.notna(), "")
    )
    return table.rename_axis("variant").reset_index()


def _timed(run: Callable[[], int], *, threads: int, warm_up: bool) -> tuple[int, float]:
    """Return images and seconds of one run, GPU included, right after one that warms up.

    torch's `Timer` does likewise, and cannot do without: a sweep would take three times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if warm_up:
            run()
        _wait()
        began = time.perf_counter()
        images = run()
        _wait()
        return images, time.perf_counter() - began
    finally:
        torch.set_num_threads(before)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_mb() -> float:
    """Return the most memory that this process has held, MB, by the Linux kernel.

    Not ``ru_maxrss``: a process that was started by another begins with that one's peak.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1e3


def machine_facts() -> dict[str, Any]:
    """Describe what was measured on: date, processor, cores, bf16 units, GPU and versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    known = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    known = {name.strip(): value.strip() for name, value in known.items()}
    flags = known.get("flags", "").split()
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    packages = ("fopro_lab", "torch", "torchvision", "numpy", "pillow")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": known.get("model name") or platform.processor() or platform.machine(),
        "cores": len(affinity(0)),
        "bf16_units": " ".join(unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "system": platform.system(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
    }


def print_table(title: str, table: pd.DataFrame) -> None:
    """Print a table, numbers to four digits, an empty cell where nothing is known."""
    shown = table.astype(object).where(table.notna(), "")
    text = shown.to_string(index=False, float_format=lambda value: f"{value:.4g}")
    print(f"\n{title}\n{text}")


def write_results(
    name: str, tables: dict[str, pd.DataFrame], *, out: Path, facts: dict[str, Any]
) -> Path:
    """Write ``NAME-MACHINE-DATE.json``, and a figure of each table that has ratios."""
    from fopro_lab.plots.style import save_figure

    kind = facts["gpu"].lower().replace(" ", "-") or f"cpu{facts['cores']}"
    path = out / f"{name}-{kind}-{facts['date']}.json"
    rows = {key: json.loads(table.to_json(orient="records")) for key, table in tables.items()}
    write_json(path, {"bench": name, "machine": facts, "tables": rows})
    for key, table in tables.items():
        if "ratio" in table:
            axes = plot_ratios(table, title=f"{facts['gpu'] or facts['processor']}, {key}")
            save_figure(axes, path.with_name(f"{path.stem}-{key}.png"))
    return path


def plot_ratios(table: pd.DataFrame, *, title: str) -> Any:
    """Draw each variant's ratio with its quartiles, the goal as a tick."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(8, 0.5 * len(table) + 1.2), layout="constrained").subplots()
    places = range(len(table))[::-1]
    axes.barh(places, table["ratio"], color="#3b75af", height=0.6)
    axes.hlines(places, table["low"], table["high"], color="black")
    axes.plot(table["goal"], places, "|", color="#c44e52", markersize=18, label="goal")
    axes.set_yticks(places, table["variant"])
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("Speed as a ratio to the first")
    axes.set_title(title, loc="left")
    if table["goal"].notna().any():
        axes.legend(frameon=False)
    return axes
