"""The peak of memory of a few steps, each variant in a process of its own."""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

STEPS = 3  # the moments of the optimiser come with the first, gradients beside them with the next
VARIANTS: dict[str, dict[str, Any]] = {
    "published step": {},
    "engine": {},
    "engine, FoPro-KD": {"method": "fopro"},
    "engine, bfloat16": {"precision": "bf16-mixed"},
}
GOAL = 1.0
PROGRAM = "from benchmarks.memory import main; main()"


def peak_memory(*, size: int, batch: int, device: str) -> pd.DataFrame:
    """Measure the peak of a few steps of each variant, in a process of its own.

    On a CPU it is what the process held at most while it took them, less what it held before the
    student and the optimiser were built; on a GPU what PyTorch's allocator held at most.

    Args:
        size: Side of the images, pixels.
        batch: Images a step.
        device: ``cpu`` or ``cuda``.

    Returns:
        A row each: ``variant``, ``peak_mb``, ``share`` of the first's, ``goal``, ``reached``.
    """
    rows = []
    for name in VARIANTS:
        told = {"name": name, "size": size, "batch": batch, "device": device}
        command = [sys.executable, "-c", PROGRAM, json.dumps(told)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"variant": name, "peak_mb": float(done.stdout.split()[-1])})
    table = pd.DataFrame(rows)
    table["share"] = table["peak_mb"] / table["peak_mb"].iloc[0]
    table["goal"] = [None, *[GOAL] * (len(table) - 1)]
    reached = ["yes" if share <= GOAL else "no" for share in table["share"]]
    table["reached"] = ["", *reached[1:]]
    return table


def measure(name: str, *, size: int, batch: int, device: str) -> float:
    """Take the steps of one variant and tell their peak, MB; of use in a fresh process alone."""
    import torch

    from benchmarks.images import photograph_pack
    from benchmarks.published_step import PublishedStep
    from benchmarks.steps import epoch_of, stage_of
    from benchmarks.teachers import random_resnet50

    teacher = random_resnet50(size).to(device)
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        packed = photograph_pack(Path(place), size=size, count=STEPS * batch)
        before = _resident()
        stage = stage_of(teacher, packed, student="resnet18", batch=batch, **VARIANTS[name])
        if name == "published step":
            stage = stage._replace(setup=replace(stage.setup, encoder=None))
        _forget_peak(device)  # of building
        if name == "published step":
            PublishedStep(stage, copied=False).epoch()
        else:
            epoch_of(stage)()
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 1e6
        return _peak() - before


def _forget_peak(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(key: str) -> float:
    """Read a number of this process's memory, MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status: {key} is not in it")


def main() -> None:
    """Answer `peak_memory` from a process of its own."""
    asked = json.loads(sys.argv[1])
    sys.stdout.write(f"{measure(asked.pop('name'), **asked)}\n")
