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

from fopro_lab.data import Pack, batches
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.bootstrap import bootstrap_weights, percentile_interval
from fopro_lab.fourier import ring_energy, ring_masks, ring_parts
from fopro_lab.fourier.rings import bin_counts, check_pixels
from fopro_lab.probing import features
from fopro_lab.probing.features import Encoder

FLOOR = (1e-3 / 255) ** 2  # a thousandth of a grey level, so that a flat image has a logarithm


def check_gains(gains: Sequence[float]) -> None:
    """Refuse gains that are none, negative or not finite."""
    if len(gains) == 0 or not all(0 <= gain < float("inf") for gain in gains):
        raise InputError(f"gains: expected one or more finite factors of 0 on, got {list(gains)}")


def check_rings(edges: Sequence[float], *, height: int, width: int) -> None:
    """Refuse edges that do not increase, and rings that hold no frequency of such an image."""
    filled = ring_masks(height, width, edges).flatten(1).any(dim=1).tolist()
    if not all(filled):
        ring = filled.index(False)
        got = f"none in ring {ring} ({edges[ring]:g} to {edges[ring + 1]:g} cycles per pixel)"
        way_out = f"of images of {height} x {width} px; use fewer rings or larger images"
        raise InputError(f"edges: expected a frequency in every ring, got {got} {way_out}")


@dataclass(frozen=True, eq=False)
class RingDrifts:
    """The response of each single image to R rings and G gains."""

    edges: tuple[float, ...]  # R + 1 frequencies, cycles per pixel
    gains: tuple[float, ...]
    drift: np.ndarray  # 1 - cos(f(x), f(x')), float64 (R, G, N)
    energy: np.ndarray  # of the change, over the image's variance; above 1 for large gains


def ring_response(
    teacher: Encoder,
    images: Tensor,
    edges: Sequence[float],
    gains: Sequence[float],
    *,
    units: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Scale one ring of the images after another and measure the drift of the features.

    Args:
        teacher: The frozen network.
        images: ``(N, 3, H, W)`` in [0, 1], on any device.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        gains: Non-negative factors of the amplitudes; 0 removes a ring.
        units: Lesion or patient of each image, ``(N,)``, drawn as a whole; None is one each.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        batch_size: Images per pass of the teacher.

    Returns:
        A row for each ring and gain: ``ring``, ``low``, ``high`` (cycles per pixel), ``gain``,
        ``drift`` (mean), ``energy`` (mean; the ring's share of the variance times
        ``(gain - 1) ** 2``: above 1 for large gains) and ``drift_per_energy`` (ratio of the two
        means; NaN where nothing changed), the first and the last with ``_low`` and ``_high`` (95 %
        interval), ``n``.

    Raises:
        ShapeError: If ``images`` is no batch, or ``units`` does not fit it.
        InputError: If gains or edges are wrong, a ring is empty, or the teacher has no features.
    """
    units = np.arange(len(images)) if units is None else units
    if len(units) != len(images):
        raise ShapeError(f"units: expected one for each of {len(images)}, got {len(units)}")
    drifts = ring_drifts(teacher, images, edges, gains, batch_size=batch_size)
    return summarise_drifts(drifts, units, resamples=resamples, seed=seed)


def ring_drifts(
    teacher: Encoder,
    images: Tensor,
    edges: Sequence[float],
    gains: Sequence[float],
    *,
    batch_size: int = 64,
) -> RingDrifts:
    """Measure drift and energy of each single image; see `ring_response`.

    The scaled image is not clipped to [0, 1]: clipping would put energy into other rings.
    """
    check_gains(gains)
    check_pixels(images, changed=True)  # prompted ones may leave [0, 1]
    if len(images) == 0:
        raise ShapeError(f"images: expected (N, 3, H, W), N 1 or more, got {tuple(images.shape)}")
    check_rings(edges, height=images.shape[-2], width=images.shape[-1])
    device = features.teacher_device(teacher)
    with torch.inference_mode():
        parts = images.split(batch_size)
        measured = [_measure_batch(teacher, part.to(device), edges, gains) for part in parts]
    drift, energy = np.concatenate(measured, axis=-1)
    return RingDrifts(tuple(map(float, edges)), tuple(map(float, gains)), drift, energy)


def _measure_batch(
    teacher: Encoder, images: Tensor, edges: Sequence[float], gains: Sequence[float]
) -> np.ndarray:
    """Return drift and relative energy of each ring, gain and image, ``(2, R, G, B)``."""
    before = features.encode(teacher, images).double()
    variance = images.double().var(dim=(2, 3), correction=0).sum(dim=1).clamp(min=1e-12)
    # Kept on the teacher's device up to the end of the batch: a copy would wait for every pass.
    found = variance.new_zeros(2, len(edges) - 1, len(gains), len(images))
    for ring, part in enumerate(ring_parts(images, edges)):
        # Parseval: what a ring holds is its part's mean square, without a second transform.
        share = part.square().mean(dim=(2, 3)).double().sum(dim=1) / variance
        for step, gain in enumerate(gains):
            after = features.encode(teacher, torch.add(images, part, alpha=gain - 1), check=False)
            found[0, ring, step] = features.feature_drift(before, after.double())
            found[1, ring, step] = share * (gain - 1) ** 2
    features.check_finite(teacher, found)
    return found.cpu().numpy()


def summarise_drifts(
    drifts: RingDrifts, units: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Average drifts over the images, with bootstrap intervals; see `ring_response`."""
    weights = bootstrap_weights(None, units, resamples=resamples, seed=seed).astype(np.float64)
    weights /= weights.sum(axis=0)
    rows = []
    rings = enumerate(pairwise(drifts.edges))
    for (r, (low, high)), (g, gain) in product(rings, enumerate(drifts.gains)):
        own, energy = drifts.drift[r, g], drifts.energy[r, g]
        moved, changed = own @ weights, energy @ weights
        ratios = moved / np.where(changed > 0, changed, np.nan)
        mean, share = own.mean(), energy.mean()
        raw = (mean, *percentile_interval(moved), share)
        per_energy = (mean / (share or np.nan), *percentile_interval(ratios))
        rows.append((r, low, high, gain, *raw, *per_energy, len(units)))
    columns = [
        *("ring", "low", "high", "gain", "drift", "drift_low", "drift_high", "energy"),
        *("drift_per_energy", "drift_per_energy_low", "drift_per_energy_high", "n"),
    ]
    return pd.DataFrame(rows, columns=columns)


def drift_table(drifts: RingDrifts, names: np.ndarray, units: np.ndarray) -> pd.DataFrame:
    """Tabulate drifts, one row per ring, gain and image; `drifts_from_table` reads it."""
    levels = [range(len(drifts.edges) - 1), drifts.gains, names]
    keys = pd.MultiIndex.from_product(levels, names=["ring", "gain", "image"])
    each = np.tile(units, len(keys) // len(units))
    measured = {"drift": drifts.drift.ravel(), "energy": drifts.energy.ravel()}
    return keys.to_frame(index=False).assign(unit=each, **measured)


def drifts_from_table(
    table: pd.DataFrame, edges: Sequence[float]
) -> tuple[RingDrifts, np.ndarray, np.ndarray]:
    """Return a `drift_table`'s drifts, image names and units."""
    gains = tuple(table["gain"].unique())
    shape = (len(edges) - 1, len(gains), -1)
    drift, energy = (table[key].to_numpy().reshape(shape) for key in ("drift", "energy"))
    first = table.iloc[: drift.shape[-1]].astype(str)
    found = RingDrifts(tuple(edges), gains, drift, energy)
    return found, first["image"].to_numpy(dtype=str), first["unit"].to_numpy(dtype=str)


def radial_gain(gain: Tensor, edges: Sequence[float], *, width: int) -> pd.DataFrame:
    """Average gains over the frequencies of each ring, geometrically, as `bin_counts` counts them.

    ``gain`` is ``(..., H, width // 2 + 1)``, above 0, as of ``FourierPrompt.mean_gain``; ``edges``
    are ``R + 1`` increasing frequencies, cycles per pixel; ``width`` is the image's, in pixels.

    Returns:
        One row per ring: ``ring``, ``low``, ``high`` (cycles per pixel), ``gain`` (geometric
        mean), ``gain_low``, ``gain_high`` (one standard deviation of the log gain below and above;
        a spread, not a confidence interval). A ring narrower than a bin has NaN.
    """
    if gain.ndim < 2 or gain.shape[-1] != width // 2 + 1:
        raise ShapeError(f"gain: expected (..., H, {width // 2 + 1}), got {tuple(gain.shape)}")
    log_gain = gain.detach().double().log().cpu()
    masks = ring_masks(gain.shape[-2], width, edges)
    rows = []
    for ring, (low, high) in enumerate(pairwise(map(float, edges))):
        values, counts = log_gain[..., masks[ring]], (masks[ring] * bin_counts(width))[masks[ring]]
        mean = (values @ counts / counts.sum()).mean()
        spread = ((values - mean).square() @ counts / counts.sum()).mean().sqrt()
        limits = torch.stack([mean, mean - spread, mean + spread]).exp()
        rows.append((ring, low, high, *limits.tolist()))
    return pd.DataFrame(rows, columns=["ring", "low", "high", "gain", "gain_low", "gain_high"])


def mean_spectra(pack: Pack, rows: np.ndarray, *, edges: Sequence[float]) -> pd.DataFrame:
    """Average the logarithm of each ring's amplitude over the images of a class or source.

    A ring's amplitude is its contrast: the root of its energy, averaged over the channels. The
    difference is taken from the mean over classes (or sources), each counting the same: a sum
    over images would let the size of a class leak in. ``edges`` are ``R + 1`` increasing
    frequencies, cycles per pixel, as in ``ring_masks``.

    Returns:
        A row for each class or source that occurs and each ring: ``scope`` ("class", "source"),
        ``name``, ``ring``, ``low``, ``high`` (cycles per pixel), ``log_amplitude`` (mean natural
        logarithm, amplitude in units of [0, 1]), ``difference`` (from the mean within the scope),
        ``spread`` (standard deviation over the images), ``n``. Unknown sources have no row.
    """
    with torch.inference_mode():
        stream = batches(pack, rows, batch_size=256)
        energy = torch.cat([ring_energy(images, edges) for images, _ in stream]).mean(dim=1)
    log_amplitude = np.log(np.maximum(energy.numpy().astype(np.float64), FLOOR)) / 2
    chosen = pack.dataset.table.iloc[rows]
    class_names = np.array(pack.dataset.class_names, dtype=object)[chosen["label"]]
    lines = []
    for scope, members in (("class", class_names), ("source", chosen["source"].to_numpy())):
        names = [name for name in dict.fromkeys(members) if name != ""]
        parts = [log_amplitude[members == name] for name in names]
        means = [part.mean(axis=0) for part in parts]
        overall = np.mean(means, axis=0) if means else 0
        for name, part, mean in zip(names, parts, means, strict=True):
            for ring, (low, high) in enumerate(pairwise(map(float, edges))):
                numbers = (mean[ring], (mean - overall)[ring], part[:, ring].std(), len(part))
                lines.append((scope, name, ring, low, high, *numbers))
    columns = ["scope", "name", "ring", "low", "high", "log_amplitude", "difference", "spread", "n"]
    return pd.DataFrame(lines, columns=columns)
