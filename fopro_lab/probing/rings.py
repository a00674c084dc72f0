"""How far a teacher's features move when one frequency ring of its input is scaled."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.intervals import bootstrap_weights, percentile_interval
from fopro_lab.fourier import ring_masks, ring_parts
from fopro_lab.probing.features import Encoder, Precision, encode, teacher_device

TINY = 1e-12  # variance, in squared units of [0, 1], of a picture that has none
TOGETHER, EACH = ("all",), ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class RingDrifts:
    """What each single picture answered; `ring_response` averages it.

    Attributes:
        edges: ``R + 1`` frequencies, cycles per pixel.
        gains: G factors.
        channels: M names of what was scaled: "all", or "red", "green" and "blue" one by one.
        drift: ``1 - cos(f(x), f(x'))``, float64 ``(M, R, G, N)``.
        energy: Share of the picture's variance that the scaling exchanged, ``(M, R, G, N)``.
        rounding: Mean drift that the precision alone makes on untouched pictures, 0 in single
            precision.
    """

    edges: tuple[float, ...]
    gains: tuple[float, ...]
    channels: tuple[str, ...]
    drift: np.ndarray
    energy: np.ndarray
    rounding: float


def ring_response(
    teacher: Encoder,
    images: Tensor,
    edges: Sequence[float],
    gains: Sequence[float],
    *,
    units: np.ndarray | None = None,
    per_channel: bool = False,
    precision: Precision = "32-true",
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
        per_channel: Scale red, green and blue one by one instead of together.
        precision: As in `encode`.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples of the pictures.
        seed: Seed of the bootstrap.

    Returns:
        A row for each channel, ring and gain: ``channel`` ("all", or the colour), ``ring``,
        ``low``, ``high`` (cycles per pixel), ``gain``, ``drift`` (mean), ``energy`` (mean) and
        ``drift_per_energy`` (ratio of the two means; NaN where nothing changed), the first and
        the last with ``_low`` and ``_high`` (95 % interval), ``rounding``, ``n``. A drift that is
        not well above ``rounding`` says nothing.

    Raises:
        ShapeError: If ``images`` is no batch, or ``units`` does not fit it.
        InputError: If there is no picture or gain, a gain is negative, the edges are wrong, or a
            ring holds no frequency at this size; or as in `encode`.

    Example:
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> table = ring_response(teacher, torch.rand(2, 3, 16, 16), [0, 0.25, 0.75], [0.0])
        >>> table["drift"].idxmax()  # means of quarters hold low frequencies
        0
    """
    if units is None:
        units = np.arange(len(images))
    elif len(units) != len(images):
        raise ShapeError(f"units: expected one for each of {len(images)}, got {len(units)}")
    drifts = ring_drifts(
        teacher,
        images,
        edges,
        gains,
        per_channel=per_channel,
        precision=precision,
        batch_size=batch_size,
    )
    return summarise_drifts(drifts, units, resamples=resamples, seed=seed)


def ring_drifts(
    teacher: Encoder,
    images: Tensor,
    edges: Sequence[float],
    gains: Sequence[float],
    *,
    per_channel: bool = False,
    precision: Precision = "32-true",
    batch_size: int = 64,
) -> RingDrifts:
    """Measure drift and energy of each single picture; arguments as in `ring_response`.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> found = ring_drifts(
        ...     load_teacher("builtin"), torch.rand(2, 3, 16, 16), [0, 0.25, 0.75], [0.0, 2.0])
        >>> found.drift.shape
        (1, 2, 2, 2)
    """
    check_gains(gains)
    if images.ndim != 4 or len(images) == 0:
        raise ShapeError(f"images: expected (N, 3, H, W), N 1 or more, got {tuple(images.shape)}")
    if batch_size < 1:
        raise InputError(f"batch_size: expected 1 or more, got {batch_size}")
    check_rings(edges, height=images.shape[-2], width=images.shape[-1])
    device = teacher_device(teacher)
    channels = EACH if per_channel else TOGETHER
    measured = []
    with torch.inference_mode():
        for batch in images.split(batch_size):
            part = _measure_batch(teacher, batch.to(device), edges, gains, channels, precision)
            measured.append(part)
        first = images[:batch_size].to(device)
        rounding = _rounding(teacher, first) if precision == "bf16-mixed" else 0.0
    drift, energy = (np.concatenate(part, axis=3) for part in zip(*measured, strict=True))
    return RingDrifts(
        tuple(map(float, edges)), tuple(map(float, gains)), channels, drift, energy, rounding
    )


def summarise_drifts(
    drifts: RingDrifts, units: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Average drifts over the pictures, with bootstrap intervals; see `ring_response`.

    Args:
        drifts: Of `ring_drifts`.
        units: Lesion, patient or picture of each, ``(N,)``, drawn as a whole.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        The table of `ring_response`.

    Example:
        >>> drifts = RingDrifts((0, 0.5), (0.0,), ("all",), np.full((1, 1, 1, 4), 0.25),
        ...                     np.full((1, 1, 1, 4), 0.5), 0.0)
        >>> summarise_drifts(drifts, np.arange(4))["drift_per_energy"].tolist()
        [0.5]
    """
    same = np.zeros(len(units), dtype=np.int64)  # one class: the pictures are not labelled
    weights = bootstrap_weights(same, units, resamples=resamples, seed=seed).astype(np.float64)
    weights /= weights.sum(axis=0)
    rows = []
    rings = enumerate(pairwise(drifts.edges))
    for (place, channel), (ring, (low, high)), (step, gain) in product(
        enumerate(drifts.channels), rings, enumerate(drifts.gains)
    ):
        drift, energy = (part[place, ring, step] for part in (drifts.drift, drifts.energy))
        moved, changed = drift @ weights, energy @ weights
        known = bool((changed > 0).all())
        ratio = percentile_interval(moved / changed) if known else (np.nan, np.nan)
        interval = percentile_interval(moved)
        mean, exchanged = float(drift.mean()), float(energy.mean())
        rows.append(
            {
                "channel": channel,
                "ring": ring,
                "low": low,
                "high": high,
                "gain": gain,
                "drift": mean,
                "drift_low": interval[0],
                "drift_high": interval[1],
                "energy": exchanged,
                "drift_per_energy": mean / exchanged if exchanged > 0 else np.nan,
                "drift_per_energy_low": ratio[0],
                "drift_per_energy_high": ratio[1],
                "rounding": drifts.rounding,
                "n": len(units),
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


def check_rings(edges: Sequence[float], *, height: int, width: int) -> None:
    """Refuse edges that do not increase, and rings that hold no frequency of such a picture.

    Raises:
        InputError: If so; names the first empty ring.

    Example:
        >>> check_rings([0, 0.01, 0.75], height=16, width=16)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: edges: expected a frequency in every ring, got none in ring 0
        (0 to 0.01 cycles per pixel) of pictures of 16 x 16 px; use fewer rings or larger pictures
    """
    filled = ring_masks(height, width, edges).flatten(1).any(dim=1).tolist()
    if not all(filled):
        ring = filled.index(False)
        raise InputError(
            f"edges: expected a frequency in every ring, got none in ring {ring} "
            f"({edges[ring]:g} to {edges[ring + 1]:g} cycles per pixel) of pictures of "
            f"{height} x {width} px; use fewer rings or larger pictures"
        )


def _measure_batch(
    teacher: Encoder,
    images: Tensor,
    edges: Sequence[float],
    gains: Sequence[float],
    channels: tuple[str, ...],
    precision: Precision,
) -> tuple[np.ndarray, np.ndarray]:
    """Return drift and relative energy of each channel, ring, gain and picture."""
    before = encode(teacher, images, precision=precision).double()
    variance = images.double().var(dim=(2, 3), correction=0).sum(dim=1).clamp(min=TINY)
    shape = (len(channels), len(edges) - 1, len(gains), len(images))
    drift, energy = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    for ring, whole in enumerate(ring_parts(images, edges)):
        for place in range(len(channels)):
            part = whole if channels == TOGETHER else _one_channel(whole, place)
            # Parseval: what a ring holds is its part's mean square, without a second transform.
            share = part.square().mean(dim=(2, 3)).double().sum(dim=1) / variance
            for step, gain in enumerate(gains):
                after = encode(
                    teacher, torch.add(images, part, alpha=gain - 1), precision=precision
                )
                moved = 1 - torch.cosine_similarity(before, after.double(), dim=1)
                drift[place, ring, step] = moved.cpu()
                energy[place, ring, step] = (share * (gain - 1) ** 2).cpu()
    return drift.numpy(), energy.numpy()


def _one_channel(part: Tensor, place: int) -> Tensor:
    only = torch.zeros_like(part)
    only[:, place] = part[:, place]
    return only


def _rounding(teacher: Encoder, images: Tensor) -> float:
    """Return the mean drift between half and single precision on untouched pictures."""
    half, single = (
        encode(teacher, images, precision=precision).double()
        for precision in ("bf16-mixed", "32-true")  # type: tuple[Precision, ...]
    )
    return float((1 - torch.cosine_similarity(half, single, dim=1)).mean())
