"""What the Fourier prompt and its measurements cost, each against its plain alternative."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.gains import bench_gain
from benchmarks.images import photograph_pack
from benchmarks.responses import bench_precision, bench_rings, preference_changes
from benchmarks.steps import bench_steps
from benchmarks.teachers import random_resnet50
from fopro_lab.data import Pack
from fopro_lab.errors import InputError
from fopro_lab.models import load_teacher

BATCH = 32  # images, as published
SMALL_SIDE = 64  # pixels, what the builtin teacher was made for
SLOW_ROUNDS = 3  # of what takes many seconds a round on a CPU
RESNET_IMAGES = 4  # a ring response asks each of them 9 times


def bench_fourier(
    *, rounds: int = 9, size: int = 224, batch: int = BATCH
) -> dict[str, pd.DataFrame]:
    """Measure gains, prompted steps, ring responses and bfloat16.

    Args:
        rounds: That count, at least 3; of ResNet-50 and of bfloat16 3.
        size: Side of the images of gains and of ResNet-50, pixels; the builtin teacher's have
            64, or this if it is less.
        batch: Images of gains, steps and responses, 2 or more.

    Returns:
        Tables as of `compare_rounds`, one core each: ``gain``, ``gain_backward``, ``gain_alone``,
        ``bare``, ``bare_backward`` (see `bench_gain`), ``step`` and ``step_resnet50`` (builtin
        and small; ResNet-50 with random weights and ResNet-18), ``rings``, ``rings_resnet50``,
        ``bf16``; and ``preference``, of `preference_changes`. A machine with a GPU has each of
        them once more, for the GPU, with a name that ends in ``_cuda``.

    Raises:
        InputError: If a number is too small.

    Example:
        >>> bench_fourier(size=8)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: size: expected 16 or more pixels, got 8
    """
    if size < 16:  # below, a ring of the eight holds no frequency
        raise InputError(f"size: expected 16 or more pixels, got {size}")
    if batch < 2:
        raise InputError(f"batch: expected 2 or more images, got {batch}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
            small, large = (
                photograph_pack(Path(place) / name, size=side, count=count)
                for name, side, count in (
                    ("small", min(size, SMALL_SIDE), 2 * batch),
                    ("large", size, batch),
                )
            )
            tables = _tables(small, large, rounds=rounds, size=size, batch=batch, device="cpu")
            if torch.cuda.is_available():
                again = _tables(small, large, rounds=rounds, size=size, batch=batch, device="cuda")
                tables |= {f"{key}_cuda": table for key, table in again.items()}
            return tables
    finally:
        torch.set_num_threads(threads)


def _tables(
    small: Pack, large: Pack, *, rounds: int, size: int, batch: int, device: str
) -> dict[str, pd.DataFrame]:
    tables = bench_gain(rounds=rounds, size=size, batch=batch, device=device)
    few = min(rounds, SLOW_ROUNDS)
    builtin, resnet = load_teacher("builtin").to(device), random_resnet50(size).to(device)
    seen, seen_large = _pixels(small).to(device), _pixels(large).to(device)
    tables["step"] = bench_steps(
        builtin, small, student="small", rounds=rounds, batch=batch, label="step"
    )
    tables["step_resnet50"] = bench_steps(
        resnet,
        large,
        student="resnet18",
        rounds=few,
        batch=batch,
        label="step of ResNet-50",
        forms=["generator"],
    )
    tables["rings"] = bench_rings(builtin, seen[:batch], rounds=rounds, label="rings")
    tables["rings_resnet50"] = bench_rings(
        resnet, seen_large[:RESNET_IMAGES], rounds=few, label="rings of ResNet-50"
    )
    tables["bf16"] = bench_precision(builtin, seen[:batch], rounds=few, label="bfloat16")
    tables["preference"] = preference_changes(builtin, seen)
    return tables


def _pixels(packed: Pack) -> Tensor:
    return torch.from_numpy(np.array(packed.images)).permute(0, 3, 1, 2).contiguous() / 255
