"""What a step of the engine costs beside the published one, and what holds it back."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.ceilings import measure_ceilings, profile_step, share_of_ceilings
from benchmarks.images import photograph_pack
from benchmarks.memory import peak_memory
from benchmarks.published_step import PublishedStep, published_epoch
from benchmarks.side_by_side import side_by_side
from benchmarks.steps import STEP_GOAL, epoch_of, stage_of
from benchmarks.teachers import random_resnet50
from benchmarks.timing import Variant
from fopro_lab.data import Pack
from fopro_lab.errors import InputError
from fopro_lab.models import Teacher

STUDENT = "resnet18"  # with ResNet-50 as teacher: what was published
REFERENCE = "published step: float32, contiguous, default Adam"
BF16: dict[str, Any] = {"precision": "bf16-mixed"}
COMPILED: dict[str, Any] = {"compile_teacher": True}
FOPRO: dict[str, Any] = {"method": "fopro"}
ENGINE: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("engine, teacher not folded", {"fold_teacher": False}, 0.0),
    ("engine", {}, 1.4),
    ("engine, teacher compiled", COMPILED, 0.0),
    ("engine, bfloat16", BF16, 0.0),
    ("engine, bfloat16, teacher compiled", BF16 | COMPILED, 5.0),
)
PROMPTED: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("FoPro-KD step", FOPRO, STEP_GOAL),
    ("EKD step, bfloat16", BF16, 0.0),
    ("FoPro-KD step, bfloat16", FOPRO | BF16, 0.0),
)
GPU_BATCH = 128  # images: the goal for a GPU is stated at this


def bench_step(*, rounds: int = 5, size: int = 224, batch: int = 32) -> dict[str, pd.DataFrame]:
    """Measure steps of EKD and FoPro-KD: ResNet-50 with random weights, ResNet-18, all threads.

    Args:
        rounds: That count, at least 3.
        size: Side of the images, pixels, 32 or more.
        batch: Images a step, 2 or more; on a GPU it is measured with 128, too.

    Returns:
        ``step`` and ``prompted``, tables of `compare_rounds`, images a second; ``ceilings`` of
        `share_of_ceilings`; ``memory`` of `peak_memory`; ``profile`` of `profile_step`. With a
        GPU each of them is of the GPU, and named so.

    Raises:
        InputError: If a number is too small.

    Example:
        >>> bench_step(size=8)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: size: expected 32 or more pixels, got 8
    """
    if size < 32:  # below, a ResNet-50 leaves less than a pixel
        raise InputError(f"size: expected 32 or more pixels, got {size}")
    if batch < 2:
        raise InputError(f"batch: expected 2 or more images, got {batch}")
    cuda = torch.cuda.is_available()
    teacher = random_resnet50(size).to("cuda" if cuda else "cpu")
    tables: dict[str, pd.DataFrame] = {}
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        packed = photograph_pack(Path(place), size=size, count=batch)
        tables |= _tables(teacher, packed, rounds=rounds, batch=batch)
        if cuda:
            many = photograph_pack(Path(place) / "many", size=size, count=2 * GPU_BATCH)
            again = _tables(teacher, many, rounds=rounds, batch=GPU_BATCH)
            tables |= {f"{key}_{GPU_BATCH}": table for key, table in again.items()}
    return tables


def _tables(teacher: Teacher, packed: Pack, *, rounds: int, batch: int) -> dict[str, pd.DataFrame]:
    device = teacher.mean.device
    shown: dict[str, Any] = {"student": STUDENT, "batch": batch}
    published = PublishedStep(stage_of(teacher, packed, **shown))
    stages = {
        name: stage_of(teacher, packed, **shown, **knobs) for name, knobs, _ in ENGINE + PROMPTED
    }
    variants = [Variant(REFERENCE, published_epoch(published))]
    variants += [Variant(name, epoch_of(stages[name]), goal) for name, _, goal in ENGINE]
    tables = {"step": side_by_side(variants, rounds=rounds, label="steps", device=device)}
    plain = Variant("EKD step", epoch_of(stages["engine"]))
    more = [Variant(name, epoch_of(stages[name]), goal) for name, _, goal in PROMPTED]
    tables["prompted"] = side_by_side(
        [plain, *more], rounds=rounds, label="prompted steps", device=device
    )
    runs = {"engine": epoch_of(stages["engine"])}
    runs["engine, bfloat16"] = epoch_of(stages["engine, bfloat16"])
    tables["ceilings"] = share_of_ceilings(runs, measure_ceilings(device), device=device)
    tables["profile"] = profile_step(runs["engine, bfloat16"], device=device)
    del published, stages, variants, plain, more, runs
    tables["memory"] = peak_memory(size=packed.size, batch=batch, device=device.type)
    return tables
