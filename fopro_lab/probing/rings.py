"""How far a teacher's features move when one frequency ring of its input is scaled."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.intervals import bootstrap_weights, percentile_interval
from fopro_lab.fourier import ring_energy, ring_parts
from fopro_lab.probing.features import Encoder, teacher_device

TINY = 1e-12  # variance, in squared units of [0, 1], of a picture that has none


def ring_response(
    teacher: Encoder,
    images: Tensor,
    edges: Sequence[float],
    gains: Sequence[float],
    *,
    units: np.ndarray | None = None,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Scale one ring of the pictures after another and measure the drift of the features.

    Drift is ``1 - cos(f(x), f(x'))``. The scaled picture is not clipped to [0, 1]: a clip would
    put energy into other rings. Energy is the share of a picture's variance (DC left out) that
    the scaling exchanged, ``(gain - 1)^2`` times the ring's share, over all channels. One forward
    transform serves all rings and gains, so the cost is that of the teacher's passes.

    Args:
        teacher: The frozen network.
        images: ``(N, 3, H, W)`` in [0, 1], on any device.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        gains: Non-negative factors of the amplitudes, dimensionless; 0 removes a ring.
        units: Lesion or patient of each picture, ``(N,)``, drawn as a whole; None is one each.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the bootstrap.

    Returns:
        A row for each ring and gain: ``ring``, ``low``, ``high`` (cycles per pixel), ``gain``,
        ``drift`` (mean), ``drift_low``, ``drift_high`` (95 % interval of it), ``energy`` (mean),
        ``drift_per_energy`` (ratio of the two means; NaN where nothing changed), ``n``.

    Raises:
        ShapeError: If ``images`` is no batch, or ``units`` does not fit it.
        InputError: If there is no picture or gain, a gain is negative, or the edges are wrong.

    Example:
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> table = ring_response(teacher, torch.rand(2, 3, 16, 16), [0, 0.25, 0.75], [0.0])
        >>> table["drift"].idxmax()  # means of quarters hold low frequencies
        0
    """
    check_gains(gains)
    if images.ndim != 4 or len(images) == 0:
        raise ShapeError(f"images: expected (N, 3, H, W), N 1 or more, got {tuple(images.shape)}")
    if units is None:
        units = np.arange(len(images))
    elif len(units) != len(images):
        raise ShapeError(f"units: expected one for each of {len(images)}, got {len(units)}")
    if batch_size < 1:
        raise InputError(f"batch_size: expected 1 or more, got {batch_size}")
    device = teacher_device(teacher)
    with torch.inference_mode():
        batches = [
            _measure_batch(teacher, batch.to(device), edges, gains)
            for batch in images.split(batch_size)
        ]
    drift, energy = (np.concatenate(part, axis=2) for part in zip(*batches, strict=True))
    same = np.zeros(len(images), dtype=np.int64)  # one class: the pictures are not labelled
    weights = bootstrap_weights(same, units, resamples=resamples, seed=seed).astype(np.float64)
    weights /= weights.sum(axis=0)
    rows = []
    for ring, (low, high) in enumerate(pairwise(edges)):
        for place, gain in enumerate(gains):
            values = drift[ring, place]
            drift_low, drift_high = percentile_interval(values @ weights)
            mean, changed = float(values.mean()), float(energy[ring, place].mean())
            rows.append(
                {
                    "ring": ring,
                    "low": float(low),
                    "high": float(high),
                    "gain": float(gain),
                    "drift": mean,
                    "drift_low": drift_low,
                    "drift_high": drift_high,
                    "energy": changed,
                    "drift_per_energy": mean / changed if changed > 0 else np.nan,
                    "n": len(images),
                }
            )
    return pd.DataFrame(rows)


def check_gains(gains: Sequence[float]) -> None:
    """Refuse gains of rings that are none, negative or not finite.

    Raises:
        InputError: If so.

    Example:
        >>> check_gains([-1.0])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: gains: expected one or more finite factors of 0 or above,
        got [-1.0]
    """
    if len(gains) == 0 or not all(0 <= gain < float("inf") for gain in gains):
        raise InputError(
            f"gains: expected one or more finite factors of 0 or above, got {list(gains)}"
        )


def _measure_batch(
    teacher: Encoder, images: Tensor, edges: Sequence[float], gains: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return drift and relative energy of each ring, gain and picture, ``(R, G, B)`` each."""
    before = teacher.encode(images).double()
    variance = images.double().var(dim=(2, 3), correction=0).sum(dim=1).clamp(min=TINY)
    share = ring_energy(images, edges).double().sum(dim=1) / variance[:, None]
    squared = (torch.tensor(gains, dtype=torch.float64, device=images.device) - 1).square()
    energy = share.T[:, None, :] * squared[None, :, None]
    drift = torch.stack(
        [
            torch.stack([_drift(before, teacher.encode(images + (g - 1) * part)) for g in gains])
            for part in ring_parts(images, edges)
        ]
    )
    return drift.cpu().numpy(), energy.cpu().numpy()


def _drift(before: Tensor, after: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(before, after.double(), dim=1)
