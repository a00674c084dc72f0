"""Ring response: how far a teacher's features move when one frequency ring of its input is scaled.

Drift is the cosine distance ``1 - cos(f(x), f(x'))``. Raw, low rings win because they hold most of
an image's energy; divided by the energy that the scaling changed, the teacher's preference is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.bootstrap import bootstrap_weights, percentile_interval
from fopro_lab.fourier import ring_masks, ring_parts
from fopro_lab.probing.features import Encoder, Precision, encode, not_finite, teacher_device

SAFE = 40.0  # a drift this many times the rounding of half precision is off by 5 % or so
TINY = 1e-12  # variance, in squared units of [0, 1], of an image that has none
TOGETHER, EACH = ("all",), ("red", "green", "blue")


def check_gains(gains: Sequence[float]) -> None:
    """Refuse gains that are none, negative or not finite."""
    if len(gains) == 0 or not all(0 <= gain < float("inf") for gain in gains):
        raise InputError(
            f"gains: expected one or more finite factors of 0 or above, got {list(gains)}"
        )


def check_rings(edges: Sequence[float], *, height: int, width: int) -> None:
    """Refuse edges that do not increase, and rings that hold no frequency of such an image."""
    filled = ring_masks(height, width, edges).flatten(1).any(dim=1).tolist()
    if not all(filled):
        ring = filled.index(False)
        raise InputError(
            f"edges: expected a frequency in every ring, got none in ring {ring} "
            f"({edges[ring]:g} to {edges[ring + 1]:g} cycles per pixel) of images of "
            f"{height} x {width} px; use fewer rings or larger images"
        )


@dataclass(frozen=True, eq=False)
class RingDrifts:
    """The response of each single image to M channels, R rings and G gains."""

    edges: tuple[float, ...]  # R + 1 frequencies, cycles per pixel
    gains: tuple[float, ...]
    channels: tuple[str, ...]  # what was scaled: "all", or "red", "green" and "blue" one by one
    drift: np.ndarray  # 1 - cos(f(x), f(x')), float64 (M, R, G, N)
    energy: np.ndarray  # share of the image's variance that the scaling changed, (M, R, G, N)
    rounding: float  # mean drift that half precision alone makes on unchanged images
    half: np.ndarray | None = None  # which were measured in half precision, (M, R, G)


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
    """Scale one ring of the images after another and measure the drift of the features.

    The scaled image is not clipped to [0, 1]: clipping would put energy into other rings. One
    forward transform serves all rings and gains, so the cost is that of the teacher's passes.

    Args:
        teacher: The frozen network.
        images: ``(N, 3, H, W)`` in [0, 1], on any device.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        gains: Non-negative factors of the amplitudes; 0 removes a ring.
        units: Lesion or patient of each image, ``(N,)``, drawn as a whole; None is one each.
        per_channel: Scale red, green and blue one by one instead of together.
        precision: ``"bf16-mixed"`` lets the first batch decide: a ring and gain whose drift is
            below 40 times the rounding is measured in single precision after all.
        batch_size: Images per pass.
        resamples: Bootstrap resamples of the images.
        seed: Seed of the bootstrap.

    Returns:
        A row for each channel, ring and gain: ``channel`` ("all", or the colour), ``ring``,
        ``low``, ``high`` (cycles per pixel), ``gain``, ``drift`` (mean), ``energy`` (mean share
        of the variance that was changed) and ``drift_per_energy`` (ratio of the two means; NaN
        where nothing changed), the first and the last with ``_low`` and ``_high`` (95 % interval),
        ``precision``, ``n``.

    Raises:
        ShapeError: If ``images`` is no batch, or ``units`` does not fit it.
        InputError: If gains or edges are wrong, a ring holds no frequency at this size, or the
            teacher gives no features.

    Example:
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> table = ring_response(teacher, torch.rand(2, 3, 16, 16), [0, 0.25, 0.75], [0.0])
        >>> table["drift"].idxmax()  # means of quarters hold low frequencies
        0
    """
    units = np.arange(len(images)) if units is None else units
    if len(units) != len(images):
        raise ShapeError(f"units: expected one for each of {len(images)}, got {len(units)}")
    drifts = ring_drifts(
        teacher, images, edges, gains, per_channel=per_channel, precision=precision,
        batch_size=batch_size,
    )  # fmt: skip
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
    """Measure drift and energy of each single image; arguments as in `ring_response`."""
    check_gains(gains)
    if images.ndim != 4 or len(images) == 0:
        raise ShapeError(f"images: expected (N, 3, H, W), N 1 or more, got {tuple(images.shape)}")
    if batch_size < 1:
        raise InputError(f"batch_size: expected 1 or more, got {batch_size}")
    check_rings(edges, height=images.shape[-2], width=images.shape[-1])
    channels = EACH if per_channel else TOGETHER
    half = np.full((len(channels), len(edges) - 1, len(gains)), precision == "bf16-mixed")
    rounding, measured = 0.0, []
    with torch.inference_mode():
        for place, batch in enumerate(images.split(batch_size)):
            pixels = batch.to(teacher_device(teacher))
            part = _measure_batch(teacher, pixels, edges, gains, channels, half)
            if place == 0 and half.any():
                features = (
                    encode(teacher, pixels, precision="bf16-mixed"),
                    encode(teacher, pixels),
                )
                rounding = float(_drift(*(each.double() for each in features)).mean())
                half = part[0].mean(axis=3) > SAFE * rounding
                if not half.all():
                    part = _measure_batch(teacher, pixels, edges, gains, channels, half)
            measured.append(part)
    drift, energy = (np.concatenate(part, axis=3) for part in zip(*measured, strict=True))
    return RingDrifts(
        tuple(map(float, edges)), tuple(map(float, gains)), channels, drift, energy, rounding, half
    )


def _measure_batch(
    teacher: Encoder,
    images: Tensor,
    edges: Sequence[float],
    gains: Sequence[float],
    channels: tuple[str, ...],
    half: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return drift and relative energy of each channel, ring, gain and image."""
    kinds: dict[bool, Precision] = {False: "32-true", True: "bf16-mixed"}
    before = {
        kind: encode(teacher, images, precision=kinds[kind]).double()
        for kind in set(half.ravel().tolist())
    }
    variance = images.double().var(dim=(2, 3), correction=0).sum(dim=1).clamp(min=TINY)
    # Kept on the teacher's device up to the end of the batch: a copy would wait for every pass.
    found = variance.new_zeros(2, *half.shape, len(images))
    for ring, whole in enumerate(ring_parts(images, edges)):
        for place in range(len(channels)):
            part = whole
            if channels == EACH:
                part = torch.zeros_like(whole)
                part[:, place] = whole[:, place]
            # Parseval: what a ring holds is its part's mean square, without a second transform.
            share = part.square().mean(dim=(2, 3)).double().sum(dim=1) / variance
            for step, gain in enumerate(gains):
                kind = bool(half[place, ring, step])
                scaled = torch.add(images, part, alpha=gain - 1)
                after = encode(teacher, scaled, precision=kinds[kind], check=False).double()
                found[0, place, ring, step] = _drift(before[kind], after)
                found[1, place, ring, step] = share * (gain - 1) ** 2
    drift, energy = found.cpu().numpy()
    if not np.isfinite(drift).all():
        raise not_finite(teacher)
    return drift, energy


def _drift(before: Tensor, after: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(before, after, dim=1)


def summarise_drifts(
    drifts: RingDrifts, units: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Average drifts over the images, with bootstrap intervals; see `ring_response`."""
    weights = image_weights(units, resamples=resamples, seed=seed).astype(np.float64)
    weights /= weights.sum(axis=0)
    rows = []
    rings = enumerate(pairwise(drifts.edges))
    for (place, channel), (ring, (low, high)), (step, gain) in product(
        enumerate(drifts.channels), rings, enumerate(drifts.gains)
    ):
        drift, energy = (part[place, ring, step] for part in (drifts.drift, drifts.energy))
        moved, changed = drift @ weights, energy @ weights
        interval = percentile_interval(moved)
        known = (changed > 0).all()
        ratio = percentile_interval(moved / changed) if known else (np.nan, np.nan)
        mean, exchanged = float(drift.mean()), float(energy.mean())
        in_half = drifts.half is not None and drifts.half[place, ring, step]
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
                "precision": "bf16-mixed" if in_half else "32-true",
                "n": len(units),
            }
        )
    return pd.DataFrame(rows)


def image_weights(units: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Draw resamples of whole units, all images being of one kind; ``(N, resamples)``."""
    one_class = np.zeros(len(units), dtype=np.int64)
    return bootstrap_weights(one_class, units, resamples=resamples, seed=seed)


def drift_table(drifts: RingDrifts, names: np.ndarray, units: np.ndarray) -> pd.DataFrame:
    """Tabulate drifts, one row per channel, ring, gain and image; `drifts_from_table` reads it."""
    rings = range(len(drifts.edges) - 1)
    index = pd.MultiIndex.from_product(
        [drifts.channels, rings, drifts.gains, range(len(names))],
        names=["channel", "ring", "gain", "place"],
    )
    table = index.to_frame(index=False)
    place = table.pop("place").to_numpy()
    return table.assign(
        image=names[place],
        unit=units[place],
        drift=drifts.drift.ravel(),
        energy=drifts.energy.ravel(),
    )


def drifts_from_table(
    table: pd.DataFrame, edges: Sequence[float], *, rounding: float = 0.0
) -> tuple[RingDrifts, np.ndarray, np.ndarray]:
    """Return the drifts of a `drift_table` in its order, the images' names and their units."""
    channels, gains = (tuple(table[key].unique()) for key in ("channel", "gain"))
    blocks = len(channels) * (len(edges) - 1) * len(gains)
    if blocks == 0 or len(table) % blocks or len(table) == 0:
        raise InputError(f"drifts: expected whole blocks of {blocks} rows, got {len(table)}")
    count = len(table) // blocks
    shape = (len(channels), len(edges) - 1, len(gains), count)
    drift, energy = (table[key].to_numpy().reshape(shape) for key in ("drift", "energy"))
    first = table.iloc[:count]
    found = RingDrifts(tuple(edges), gains, channels, drift, energy, rounding)
    return found, first["image"].to_numpy(dtype=str), first["unit"].to_numpy(dtype=str)


def radial_gain(gain: Tensor, edges: Sequence[float], *, width: int) -> pd.DataFrame:
    """Average gains over each frequency ring, geometrically.

    Args:
        gain: ``(..., H, width // 2 + 1)``, above 0, as of ``FourierPrompt.mean_gain``.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        width: Columns of the image, pixels, which the half spectrum leaves open.

    Returns:
        One row per ring: ``ring``, ``low``, ``high`` (cycles per pixel), ``gain`` (geometric
        mean), ``gain_low``, ``gain_high`` (one standard deviation of the log gain below and above;
        a spread, not a confidence interval). A ring narrower than a bin has NaN.
    """
    if gain.ndim < 2 or gain.shape[-1] != width // 2 + 1:
        raise ShapeError(f"gain: expected (..., H, {width // 2 + 1}), got {tuple(gain.shape)}")
    log_gain = gain.detach().double().log().cpu().numpy()
    masks = ring_masks(gain.shape[-2], width, edges).numpy()
    rows = []
    for ring, (low, high) in enumerate(pairwise(map(float, edges))):
        values = log_gain[..., masks[ring]]
        mean, spread = (values.mean(), values.std()) if values.size else (np.nan, np.nan)
        limits = (mean, mean - spread, mean + spread)
        rows.append((ring, low, high, *np.exp(limits)))
    return pd.DataFrame(rows, columns=["ring", "low", "high", "gain", "gain_low", "gain_high"])
