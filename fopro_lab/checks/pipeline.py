"""The pipeline audit: what resize and augmentation did to each frequency ring.

A claim on which frequencies a network prefers is a claim on the images it was given. Every step
is compared with the image before it, ring by ring: the natural logarithm of the ratio of
amplitudes, 0 where nothing changed, -0.69 where half is left.
"""

from collections.abc import Sequence
from typing import cast, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.config import AugmentMode, Interpolation
from fopro_lab.data import Pack, augment
from fopro_lab.data.dataset import check_rows
from fopro_lab.data.decoding import ImageReader, resize_square
from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_energy
from fopro_lab.io import progress

RECIPE = "published recipe"
EMPTY = (1e-3 / 255) ** 2  # energy of a ring that holds nothing: a thousandth of a grey level
FEWEST = 10  # images behind an interval


def audit_pipeline(
    packed: Pack,
    rows: "np.typing.ArrayLike",
    *,
    edges: Sequence[float],
    images: int = 192,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure what each step of the input pipeline does to each frequency ring.

    - ``resize``: each interpolation, against the ideal: the full image cut to the frequencies that
      the small one can hold.
    - ``augment, fused`` and ``augment, exact``: each operation of the published recipe alone, and
      the recipe as a whole, against the packed image.

    Args:
        packed: The images.
        rows: Row numbers that may be used.
        edges: ``R + 1`` increasing frequencies, cycles per pixel of the small image.
        images: At most this many, shared evenly by the sources, one of each group.
        seed: Of the choice, and of the augmentations.

    Returns:
        One row per step, source ("all", and each where two are known) and ring (``low`` to
        ``high``, cycles per pixel): ``log_ratio`` is the mean over the ``n`` images whose reference
        is not empty, ``spread`` their standard deviation, ``interval_low`` and ``interval_high``
        95 %, normal, NaN below 10 images.

    Raises:
        InputError: If there are no rows, they are not row numbers, or the edges are wrong.
    """
    rows = check_rows(rows, count=len(packed))
    if not len(rows) or images < 1:
        raise InputError(f"rows, images: expected one or more, got {len(rows)} and {images}")
    chosen = choose_images(packed.dataset.table, rows, images=images, seed=seed)
    reader = cast(ImageReader, packed.dataset.reader)
    side = min(reader.native(int(chosen[0])).shape[:2])
    # To the size of the pack, or 3/8 of images no larger.
    small = packed.size if side > packed.size else max(8, 3 * side // 8)
    sources = packed.dataset.table["source"].to_numpy()[chosen]
    members = {"all": np.ones(len(chosen), dtype=bool)}
    known = sorted(set(sources) - {""})
    if len(known) > 1:
        members |= {name: sources == name for name in known}
    resized = _measure_resize(reader, chosen, small, edges).items()
    steps = [("resize", step, "ideal band limit", small, ratios) for step, ratios in resized]
    pixels = torch.from_numpy(packed.checked(chosen))
    before = log_amplitude(augment.float_images(pixels), size=packed.size, edges=edges)
    for mode in get_args(AugmentMode):
        for step, drawn in draw_steps(len(chosen), seed=seed).items():
            changed = augment.apply_augmentations(pixels, drawn, mode=mode)
            after = log_amplitude(changed, size=packed.size, edges=edges)
            steps.append((f"augment, {mode}", step, "packed image", packed.size, after - before))
    tables = []
    for stage, step, reference, side, ratios in steps:
        about = {"stage": stage, "step": step, "reference": reference, "size": side}
        for source, own in members.items():
            tables.append(_describe(ratios[own], edges).assign(**about, source=source))
    columns = ["stage", "step", "reference", "size", "source", "ring", "low", "high"]
    columns += ["log_ratio", "spread", "n", "interval_low", "interval_high"]
    return pd.concat(tables, ignore_index=True)[columns]


def choose_images(table: pd.DataFrame, rows: np.ndarray, *, images: int, seed: int) -> np.ndarray:
    """Choose rows, sorted: one of each group, so that they are independent; as many per source."""
    order = np.random.default_rng(seed).permutation(rows)
    shuffled = table.iloc[order].assign(row=order).drop_duplicates("group")
    each = max(1, images // shuffled["source"].nunique())
    return np.sort(shuffled.groupby("source").head(each)["row"].to_numpy()[:images])


def _measure_resize(
    reader: ImageReader, rows: np.ndarray, size: int, edges: Sequence[float]
) -> dict[str, np.ndarray]:
    """Compare resized images with the ideal, one by one: log ratios ``(n, R)`` of each step."""
    names, found = get_args(Interpolation), list[np.ndarray]()
    for row in progress(rows, total=len(rows), label="auditing the resize"):
        full = reader.native(int(row))
        resized = [resize_square(full, size=size, interpolation=name) for name in names]
        both = (augment.float_images(torch.from_numpy(np.stack(own))) for own in ([full], resized))
        ideal, made = (log_amplitude(images, size=size, edges=edges) for images in both)
        found.append(made - ideal)
    return dict(zip(names, np.stack(found, axis=1), strict=True))


def draw_steps(count: int, *, seed: int) -> dict[str, augment.Augmentations]:
    """Draw each operation of the published recipe alone, then the recipe as a whole."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, 6, generator=generator, dtype=torch.float64)
    even = 2 * draw - 1
    nothing = augment.sample_augmentations(count, kind="none", generator=generator)
    strength = torch.tensor(augment.JITTER, dtype=torch.float64)
    low, high = augment.SCALE
    return {
        "flips": nothing._replace(flip=torch.where(draw[:, :2] < 0.5, -1.0, 1.0).double()),
        "scale": nothing._replace(scale=low + (high - low) * draw[:, 0]),
        "shift": nothing._replace(shift=augment.SHIFT * even[:, 0]),
        "rotation": nothing._replace(angle=augment.ROTATION * even[:, 0]),
        "colour jitter": nothing._replace(factors=nothing.factors + strength * even[:, 2:]),
        RECIPE: augment.sample_augmentations(count, kind="published", generator=generator),
    }


def log_amplitude(images: Tensor, *, size: int, edges: Sequence[float]) -> np.ndarray:
    """Return the logarithm of each ring's amplitude, ``float64 (B, R)``, NaN where it is empty.

    The spectrum of ``(B, C, H, W)`` is cut to ``size`` pixels; energies are averaged over channels.
    """
    energy = ring_energy(band_limited(windowed(images), size), edges).mean(dim=1).double().numpy()
    return np.log(np.where(energy > EMPTY, energy, np.nan)) / 2


def windowed(images: Tensor) -> Tensor:
    """Subtract each channel's mean under a Hann window, then multiply by the window.

    The window's mean square is 1, so that noise keeps its energy.
    """
    down, across = (  # at pixel centres, where its mean square is 3/8 at any size
        torch.sin(torch.pi * (torch.arange(size).to(images) + 0.5) / size).square() / (3 / 8) ** 0.5
        for size in images.shape[-2:]
    )
    window = down[:, None] * across
    mean = (images * window).sum(dim=(-2, -1), keepdim=True) / window.sum()
    return (images - mean) * window


def band_limited(images: Tensor, size: int) -> Tensor:
    """Resize ideally: keep the frequencies that a square of ``size`` pixels holds, drop the rest.

    The Nyquist row and column are dropped too: two mirrored waves share one number there.
    """
    height, width = images.shape[-2:]
    spectrum = torch.fft.rfft2(images, norm="forward")
    rows, columns = ((min(side, size) - 1) // 2 for side in (height, width))
    kept = spectrum.new_zeros((*images.shape[:-2], size, size // 2 + 1))
    kept[..., : rows + 1, : columns + 1] = spectrum[..., : rows + 1, : columns + 1]
    if rows:
        kept[..., -rows:, : columns + 1] = spectrum[..., -rows:, : columns + 1]
    return torch.fft.irfft2(kept, s=(size, size), norm="forward")


def _describe(ratios: np.ndarray, edges: Sequence[float]) -> pd.DataFrame:
    """Average ``(n, R)`` over the images in which a ring holds anything."""
    own = pd.DataFrame(ratios)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "log_ratio": own.mean()})
    table = table.assign(spread=own.std(ddof=0), n=own.count())
    reach = (1.96 * own.std() / table["n"] ** 0.5).where(table["n"] >= FEWEST)
    ends = {"interval_low": table["log_ratio"] - reach, "interval_high": table["log_ratio"] + reach}
    return table.assign(**ends).rename_axis("ring").reset_index()
