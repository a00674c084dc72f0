"""Steps of EKD and FoPro-KD, ResNet-50 teacher and ResNet-18 student, against a plain script."""

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.data import photograph_pack
from benchmarks.fourier import random_resnet50
from benchmarks.timing import Variant, compare, peak_memory_mb
from fopro_lab.config import TrainConfig
from fopro_lab.data import Pack, Split, batches
from fopro_lab.models import Teacher, choose_device
from fopro_lab.training import distillation_loss
from fopro_lab.training.setup import start_fabric
from fopro_lab.training.train import TrainSetup, TrainState, build, train_epoch

PLAIN = "plain script: float32, contiguous, default Adam"
BF16 = {"precision": "bf16-mixed"}
ENGINE: dict[str, tuple[dict[str, Any], float | None]] = {  # options, goal
    "engine": ({}, 1.2),
    "engine, compiled": ({"compile": "on"}, None),
    "engine, bfloat16": (BF16, None),
    "engine, bfloat16, compiled": (BF16 | {"compile": "on"}, 5.0),
}
PROMPTED: dict[str, tuple[dict[str, Any], float | None]] = {
    "EKD": ({}, None),
    "FoPro-KD, one gain per image": ({"method": "fopro"}, 0.95),
    "FoPro-KD, rings": ({"method": "fopro", "prompt_form": "ring"}, 0.95),
}


def bench_step(*, rounds: int = 5, size: int = 224, batch: int = 32) -> dict[str, pd.DataFrame]:
    """Measure whole steps on the GPU if there is one, else on all cores.

    Args:
        rounds: Rounds that count.
        size: Side of the images, pixels, 32 or more.
        batch: Images per step; on a GPU it is measured with 128 as well.

    Returns:
        ``step`` and ``prompted`` of `compare` in images per second, and ``memory``.
    """
    device = choose_device("auto")
    tables = {}
    for count in (batch, 128) if device.type == "cuda" else (batch,):
        end = "" if count == batch else f"_{count}"
        with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
            packed = photograph_pack(Path(place), size=size, count=2 * count)
            teacher = random_resnet50(size).to(device)
            how: dict[str, Any] = {"rounds": rounds, "threads": torch.get_num_threads()}
            plain = Variant(PLAIN, plain_epoch(*set_up(packed, teacher, batch=count)))
            for key, first, options in (("step", [plain], ENGINE), ("prompted", [], PROMPTED)):
                variants = first + [
                    Variant(name, engine_epoch(*set_up(packed, teacher, batch=count, **more)), goal)
                    for name, (more, goal) in options.items()
                ]
                tables[key + end] = compare(variants, label=key, **how)
    tables["memory"] = peak_memory(size=size, batch=batch)
    return tables


def set_up(
    packed: Pack,
    teacher: Teacher | None,
    *,
    batch: int,
    student: str = "resnet18",
    repeats: int = 1,
    **options: Any,
) -> tuple[TrainSetup, TrainState]:
    """Build what `train_epoch` takes, as `distill` does; images are not augmented.

    An epoch has each image ``repeats`` times.
    """
    config = TrainConfig.from_mapping(
        {
            "method": "ekd",
            "student": student,
            "image_size": packed.size,
            "batch_size": batch,
            "augment": "none",
            "prompted_fraction": 1.0,
            **options,
        }
    )
    device = choose_device(config.device) if teacher is None else teacher.mean.device
    fabric = start_fabric(config.model_copy(update={"device": device.type}))
    rows = np.arange(len(packed))
    train = np.tile(rows, repeats)
    split = Split(train=train, val=rows[:1], test=rows[:1], protocol="benchmark", fingerprint="")
    return build(config, fabric=fabric, packed=packed, split=split, teacher=teacher)


def engine_epoch(setup: TrainSetup, state: TrainState) -> Callable[[], int]:
    """One epoch of the product's own training loop."""

    def run() -> int:
        train_epoch(state, setup)
        return setup.batches * setup.batch_size

    return run


def plain_epoch(
    setup: TrainSetup, state: TrainState, losses: list[float] | None = None
) -> Callable[[], int]:
    """EKD as a first script has it: the same loss on the same batches, written plainly.

    It neither clips gradients nor checks that they are finite, so it does less than the engine.
    """
    assert setup.teacher is not None
    teacher = copy.deepcopy(setup.teacher).to(memory_format=torch.contiguous_format)
    student = copy.deepcopy(state.student).to(memory_format=torch.contiguous_format).train()
    optimiser = torch.optim.Adam(student.parameters(), lr=setup.config.learning_rate)
    how: dict[str, Any] = {"batch_size": setup.batch_size, "shuffle": True, "drop_last": True}

    def run() -> int:
        device, done = setup.fabric.device, 0
        for images, labels in batches(setup.packed, setup.split.train, device=device, **how):
            with torch.no_grad():
                features = teacher.encode(images)
            loss = distillation_loss(
                student(images),
                features,
                labels=labels,
                class_counts=setup.class_counts,
                weight=setup.config.distill_weight,
            )[0]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            seen = loss.item()
            if losses is not None:
                losses.append(seen)
            done += len(images)
        return done

    return run


def peak_memory(*, size: int, batch: int) -> pd.DataFrame:
    """Measure the peak memory of two steps of each variant, in a process of its own.

    Returns:
        One row per variant: ``variant``, ``peak_mb`` (of the process on a CPU, of the allocator
        on a GPU), ``share`` of the plain script's.
    """
    rows = []
    for name, options in {PLAIN: {}, "engine": {}, "engine, bfloat16": BF16}.items():
        call = f"_print_peak({name == PLAIN}, {json.dumps(options)}, {size}, {batch})"
        words = [sys.executable, "-c", f"from benchmarks.step import _print_peak; {call}"]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        rows.append((name, float(done.stdout.split()[-1])))
    table = pd.DataFrame(rows, columns=["variant", "peak_mb"])
    return table.assign(share=table["peak_mb"] / table["peak_mb"].iloc[0])


def _print_peak(plain: bool, options: dict[str, Any], size: int, batch: int) -> None:
    """Take two steps and print the peak in MB; of use in a fresh process alone."""
    device = choose_device("auto")
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        packed = photograph_pack(Path(place), size=size, count=2 * batch)
        made = set_up(packed, random_resnet50(size).to(device), batch=batch, **options)
        (plain_epoch if plain else engine_epoch)(*made)()
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e6
    else:
        peak = peak_memory_mb()
    print(peak)
