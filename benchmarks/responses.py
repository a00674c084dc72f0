"""Ring responses: against the teacher's bare passes, and in bfloat16."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.side_by_side import side_by_side
from benchmarks.timing import Variant
from fopro_lab.fourier import ring_edges
from fopro_lab.models import Teacher
from fopro_lab.probing.features import Encoder, Precision
from fopro_lab.probing.preferences import preference
from fopro_lab.probing.ring_response import RingDrifts, ring_drifts

RINGS = 8
EDGES = ring_edges(RINGS)[:-1]  # equally wide ones up to 0.5 cycles per pixel, no corners
GAINS = (0.0, 0.5, 2.0, 4.0)  # a teacher card's own
RING_GOAL = 1 / 1.1
SINGLE = "single precision"
GUARDED = "bfloat16 where its rounding is small"
EVERYWHERE = "bfloat16 everywhere"


class InHalf:
    """A teacher that computes in bfloat16 whatever is asked; what probing does not do.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> InHalf(load_teacher("builtin")).encode(torch.rand(1, 3, 32, 32)).dtype
        torch.float32
    """

    def __init__(self, teacher: Encoder) -> None:
        self.teacher = teacher
        self.name: str = teacher.name
        self.card: dict[str, Any] = teacher.card

    def encode(self, images: Tensor) -> Tensor:
        """Turn ``(B, 3, H, W)`` into ``(B, D)``."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            return self.teacher.encode(images).float()

    def parameters(self) -> Iterable[Tensor]:
        """Give the weights."""
        return self.teacher.parameters()

    def buffers(self) -> Iterable[Tensor]:
        """Give the buffers."""
        return self.teacher.buffers()


def bench_rings(teacher: Teacher, images: Tensor, *, rounds: int, label: str) -> pd.DataFrame:
    """Time the response to 8 rings against the 9 passes of the teacher that it needs at least.

    Both go through all images as one batch, in inference mode.

    Args:
        teacher: On the device to compute on.
        images: ``(N, 3, H, W)`` in [0, 1], there, too.
        rounds: That count, at least 3.
        label: Of the progress.

    Returns:
        The table of `compare_rounds`, images a second.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> table = bench_rings(
        ...     load_teacher("builtin"), torch.rand(2, 3, 16, 16), rounds=3, label="rings")
        >>> table["variant"].tolist()
        ['9 passes of the teacher', 'ring_drifts over 8 rings']
    """

    def passes() -> int:
        with torch.inference_mode():
            for _ in range(RINGS + 1):
                teacher.encode(images)
        return len(images)

    variants = [
        Variant(f"{RINGS + 1} passes of the teacher", passes),
        Variant(f"ring_drifts over {RINGS} rings", _asked(teacher, images), RING_GOAL),
    ]
    return side_by_side(variants, rounds=rounds, label=label, device=images.device)


def bench_precision(teacher: Teacher, images: Tensor, *, rounds: int, label: str) -> pd.DataFrame:
    """Time the same response in single precision and in bfloat16.

    Args:
        teacher: As in `bench_rings`.
        images: As in `bench_rings`.
        rounds: That count, at least 3.
        label: Of the progress.

    Returns:
        The table of `compare_rounds`, images a second; it has no goals.
    """
    variants = [
        Variant(SINGLE, _asked(teacher, images)),
        Variant(GUARDED, _asked(teacher, images, precision="bf16-mixed")),
        Variant(EVERYWHERE, _asked(InHalf(teacher), images)),
    ]
    return side_by_side(variants, rounds=rounds, label=label, device=images.device)


def preference_changes(
    teacher: Teacher, images: Tensor, *, gains: Sequence[float] = GAINS
) -> pd.DataFrame:
    """Measure what bfloat16 changes in a teacher's preference, ring by ring.

    Args:
        teacher: As in `bench_rings`.
        images: As in `bench_rings`.
        gains: Factors of the amplitudes, none of them 1.

    Returns:
        A row for each ring, and one with ring "all": ``ring``, ``low``, ``high`` (cycles per
        pixel), ``drift`` (mean ``1 - cos`` in single precision, the smallest over the gains),
        ``rounding`` (mean ``1 - cos`` that bfloat16 alone makes), ``preference`` (mean over the
        gains, natural logarithm), ``in_half`` (share of the gains that probing measures in
        bfloat16), ``mean`` and ``largest`` (absolute change of the preference over the gains,
        natural logarithm), ``mean_everywhere`` and ``largest_everywhere`` (likewise, all in
        bfloat16), ``n``.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> table = preference_changes(load_teacher("builtin"), torch.rand(4, 3, 16, 16))
        >>> table["ring"].tolist()
        ['0', '1', '2', '3', '4', '5', '6', '7', 'all']
    """
    single = ring_drifts(teacher, images, EDGES, gains)
    guarded = ring_drifts(teacher, images, EDGES, gains, precision="bf16-mixed")
    before = _shape(single)
    changes = [
        np.abs(_shape(found) - before)
        for found in (guarded, ring_drifts(InHalf(teacher), images, EDGES, gains))
    ]
    drift = single.drift.mean(axis=3)[0]
    assert guarded.half is not None
    asked: list[tuple[str, slice, tuple[float, float]]] = [
        (str(ring), slice(ring, ring + 1), edges) for ring, edges in enumerate(pairwise(EDGES))
    ]
    rows = []
    for name, own, (low, high) in [*asked, ("all", slice(None), (EDGES[0], EDGES[-1]))]:
        rows.append(
            {
                "ring": name,
                "low": low,
                "high": high,
                "drift": drift[own].min(),
                "rounding": guarded.rounding,
                # Over all rings it is 0 by construction.
                "preference": np.nan if name == "all" else before[own].mean(),
                "in_half": guarded.half[0][own].mean(),
                "mean": changes[0][own].mean(),
                "largest": changes[0][own].max(),
                "mean_everywhere": changes[1][own].mean(),
                "largest_everywhere": changes[1][own].max(),
                "n": len(images),
            }
        )
    return pd.DataFrame(rows)


def _shape(drifts: RingDrifts) -> np.ndarray:
    """Return the preference ``(R, G)``."""
    return preference(drifts).reshape(len(drifts.edges) - 1, -1)


def _asked(
    teacher: Encoder, images: Tensor, *, precision: Precision = "32-true"
) -> Callable[[], int]:
    def run() -> int:
        # Looked up when called, so that a test can put something slower in its place.
        ring_drifts(teacher, images, EDGES, [0.0], precision=precision, batch_size=len(images))
        return len(images)

    return run
