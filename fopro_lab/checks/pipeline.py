"""The pipeline audit: what resize and augmentation did to each frequency ring.

A claim on which frequencies a network prefers is a claim on the images it was given. Every step
is compared with the image before it, ring by ring: the natural logarithm of the ratio of
amplitudes, 0 where nothing changed, -0.69 where half is left.
"""

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from fopro_lab.config import Interpolation
from fopro_lab.data import Dataset, Pack
from fopro_lab.data.augment import (
    HUE,
    JITTER,
    ROTATION,
    SCALE,
    SHIFT,
    Augmentations,
    AugmentMode,
    apply_augmentations,
    sample_augmentations,
)
from fopro_lab.data.dataset import check_rows
from fopro_lab.data.decoding import resize_square
from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_energy
from fopro_lab.fourier.rings import check_images
from fopro_lab.io import progress as show_progress


def windowed(images: Tensor) -> Tensor:
    """Subtract each channel's mean under a Hann window, then multiply by the window.

    The window's mean square is 1, so that noise keeps its energy.

    Args:
        images: ``(B, C, H, W)``.

    Returns:
        ``(B, C, H, W)`` of mean zero.

    Raises:
        ShapeError: If ``images`` has no four axes.

    Example:
        >>> bool(windowed(torch.full((1, 1, 8, 8), 0.3)).abs().max() < 1e-6)
        True
    """
    check_images(images)
    window = _hann(images.shape[-2], images)[:, None] * _hann(images.shape[-1], images)
    mean = (images * window).sum(dim=(-2, -1), keepdim=True) / window.sum()
    return (images - mean) * window


def band_limited(images: Tensor, size: int) -> Tensor:
    """Resize ideally: keep the frequencies that a square of ``size`` pixels holds, drop the rest.

    The Nyquist row and column are dropped too: two mirrored waves share one number there. Where
    the image is smaller than ``size``, the new frequencies are empty.

    Args:
        images: ``(B, C, H, W)``, periodic or windowed.
        size: Side of the result, pixels, 2 or more.

    Returns:
        ``(B, C, size, size)``, in the unit of ``images``.

    Raises:
        ShapeError: If ``images`` has no four axes.
        InputError: If ``size`` is below 2.

    Example:
        >>> wave = torch.cos(2 * torch.pi * torch.arange(32) / 32).expand(1, 1, 32, 32)
        >>> torch.allclose(band_limited(wave, 8), wave[..., ::4, ::4], atol=1e-6)
        True
    """
    check_images(images)
    if size < 2:
        raise InputError(f"size: expected 2 or more pixels, got {size}")
    height, width = images.shape[-2:]
    spectrum = torch.fft.rfft2(images, norm="forward")
    rows, columns = ((min(side, size) - 1) // 2 for side in (height, width))
    kept = spectrum.new_zeros((*images.shape[:-2], size, size // 2 + 1))
    kept[..., : rows + 1, : columns + 1] = spectrum[..., : rows + 1, : columns + 1]
    if rows:
        kept[..., -rows:, : columns + 1] = spectrum[..., -rows:, : columns + 1]
    return torch.fft.irfft2(kept, s=(size, size), norm="forward")


def _hann(size: int, like: Tensor) -> Tensor:
    """Sample Hann's window at pixel centres; its mean square is 3/8 whatever the size."""
    centres = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size
    return torch.sin(torch.pi * centres).square() / (3 / 8) ** 0.5


BAD_EXAMPLE = "bilinear, no antialias"


def full_image(dataset: Dataset, row: int) -> np.ndarray:
    """Return an image at its own size, as the data set's reader tells it.

    Files are decoded exactly, arrays given as they lie there, phantoms as they are drawn.

    Args:
        dataset: Readable images.
        row: Which.

    Returns:
        ``uint8 (H, W, 3)``, RGB.

    Raises:
        InputError: If the reader knows no own size.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> full_image(open_dataset("phantom", images=24), 0).shape
        (64, 64, 3)
    """
    if not hasattr(dataset.reader, "native"):
        raise InputError(
            f"{dataset.name}: expected a reader with a method native(row), which returns the "
            "image at its own size; without it no resize can be audited"
        )
    full: np.ndarray = dataset.reader.native(row)
    return full


def resized_side(packed: Pack, row: int) -> int:
    """Return the size at which a resize is worth looking at: the pack's, or 3/8 of the image.

    At a half, bilinear points fall between two pixels and average them as a box does, so that the
    bad example would be none.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 64, progress=False)
        >>> resized_side(packed, 0)  # drawn at 64 pixels: nothing to resize
        24
    """
    side = min(full_image(packed.dataset, row).shape[:2])
    return packed.size if side > packed.size else max(8, 3 * side // 8)


def resize_steps(full: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Resize with each interpolation, and without antialiasing as a bad example.

    Args:
        full: ``uint8 (H, W, 3)``.
        size: Side of the results, pixels.

    Returns:
        ``uint8 (size, size, 3)`` of each way.

    Example:
        >>> list(resize_steps(np.zeros((9, 9, 3), np.uint8), 4))
        ['box', 'bilinear', 'bicubic', 'lanczos', 'bilinear, no antialias']
    """
    steps = {
        name: resize_square(full, size=size, interpolation=name) for name in get_args(Interpolation)
    }
    pixels = torch.from_numpy(full.copy()).permute(2, 0, 1)[None].float()
    points = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    steps[BAD_EXAMPLE] = points[0].permute(1, 2, 0).round().byte().numpy()
    return steps


RECIPE = "published recipe"


def augment_steps(pixels: Tensor, *, seed: int) -> Iterator[tuple[AugmentMode, str, Tensor]]:
    """Apply each operation of the published recipe alone, then the whole recipe, in each mode.

    Args:
        pixels: ``uint8 (B, H, W, 3)``, as a pack holds them.
        seed: Of all draws; each operation has the range it has in the recipe.

    Yields:
        Mode, name of the step, and the changed images ``(B, 3, H, W)`` in [0, 1].

    Example:
        >>> pixels = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
        >>> [step for mode, step, _ in augment_steps(pixels, seed=0) if mode == "exact"]
        ['flips', 'scale', 'shift', 'rotation', 'colour jitter', 'published recipe']
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = draw_alone(len(pixels), generator)
    drawn[RECIPE] = sample_augmentations(len(pixels), kind="published", generator=generator)
    for mode in get_args(AugmentMode):
        for step, augmentations in drawn.items():
            yield mode, step, apply_augmentations(pixels, augmentations, mode=mode)


def draw_alone(count: int, generator: torch.Generator) -> dict[str, Augmentations]:
    """Draw each operation with its published range while the others do nothing.

    Example:
        >>> drawn = draw_alone(3, torch.Generator().manual_seed(0))
        >>> drawn["scale"].angle.tolist(), bool((drawn["scale"].scale == 1).any())
        ([0.0, 0.0, 0.0], False)
    """
    draw = torch.rand(count, 6, generator=generator, dtype=torch.float64)
    even = 2 * draw - 1
    nothing = sample_augmentations(count, kind="none", generator=generator)
    strength = torch.tensor([JITTER, JITTER, JITTER, HUE], dtype=torch.float64)
    low, high = SCALE
    return {
        "flips": nothing._replace(flip=torch.where(draw[:, :2] < 0.5, -1.0, 1.0).double()),
        "scale": nothing._replace(scale=low + (high - low) * draw[:, 0]),
        "shift": nothing._replace(shift=SHIFT * even[:, 0]),
        "rotation": nothing._replace(angle=ROTATION * even[:, 0]),
        "colour jitter": nothing._replace(factors=nothing.factors + strength * even[:, 2:]),
    }


EMPTY = (1e-3 / 255) ** 2  # energy of a ring that holds nothing: a thousandth of a grey level
FEWEST = 10  # images behind an interval
ALL = "all"
Measured = tuple[str, str, str, np.ndarray]  # stage, step, reference, log ratios (n, R)


def audit_pipeline(
    packed: Pack,
    rows: np.typing.ArrayLike,
    *,
    edges: Sequence[float],
    images: int = 192,
    size: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure what each step of the input pipeline does to each frequency ring.

    - ``resize``: each interpolation, and bilinear without antialiasing as a bad example, against
      the ideal: the full image cut to the frequencies that the small one can hold.
    - ``augment, fused`` and ``augment, exact``: each operation of the published recipe alone, and
      the recipe as a whole, against the packed image.

    Args:
        packed: The images.
        rows: Which may be looked at, e.g. those of training.
        edges: ``R + 1`` increasing frequencies, cycles per pixel of the small image.
        images: At most this many, shared evenly by the sources, one of each group.
        size: Side after the resize, pixels; 0 is that of the pack, or three eighths of the
            images' own side where they are no larger.
        seed: Of the choice, and of the augmentations.
        progress: Say how far it is.

    Returns:
        A row for each step, source ("all", and each where two are known) and ring: ``stage``,
        ``step``, ``reference``, ``size`` (pixels), ``source``, ``ring``, ``low``, ``high``
        (cycles per pixel), ``log_ratio`` (mean over images), ``spread`` (their standard
        deviation), ``n``, ``interval_low``, ``interval_high`` (95 %, normal; NaN below 10
        images). Rings that are empty in the reference are left out of the mean.

    Raises:
        InputError: If there are no rows, they are not row numbers, or the edges are wrong.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 32, progress=False)
        >>> table = audit_pipeline(packed, np.arange(24), edges=[0, 0.25, 0.5], images=4)
        >>> table["stage"].unique().tolist(), table["size"].unique().tolist()
        (['resize', 'augment, fused', 'augment, exact'], [32])
    """
    rows = check_rows(rows, count=len(packed))
    if not len(rows) or images < 1:
        raise InputError(f"rows, images: expected one or more, got {len(rows)} and {images}")
    chosen = choose_images(packed.dataset.table, rows, images=images, seed=seed)
    small = size or resized_side(packed, int(chosen[0]))
    steps = [
        *_measure_files(packed, chosen, small, edges, tell=progress),
        *_measure_augmentations(packed, chosen, edges, seed),
    ]
    sources = packed.dataset.table["source"].to_numpy()[chosen]
    known = [name for name in dict.fromkeys(sources) if name != ""]
    members = {ALL: np.ones(len(chosen), dtype=bool)}
    if len(known) > 1:
        members |= {name: sources == name for name in sorted(known)}
    tables = [
        _describe(ratios[own], edges).assign(
            stage=stage, step=step, reference=reference, source=source,
            size=packed.size if stage.startswith("augment") else small,
        )
        for stage, step, reference, ratios in steps
        for source, own in members.items()
    ]  # fmt: skip
    columns = ["stage", "step", "reference", "size", "source", "ring", "low", "high"]
    columns += ["log_ratio", "spread", "n", "interval_low", "interval_high"]
    return pd.concat(tables, ignore_index=True)[columns]


def choose_images(table: pd.DataFrame, rows: np.ndarray, *, images: int, seed: int) -> np.ndarray:
    """Choose rows: one of each group, so that they are independent, and as many of each source.

    Args:
        table: Of the data set: group, source.
        rows: To choose from.
        images: At most this many.
        seed: Of the choice.

    Returns:
        Sorted rows.

    Example:
        >>> table = pd.DataFrame({"group": list("aabc"), "source": list("xxxy")})
        >>> len(choose_images(table, np.arange(4), images=2, seed=0))
        2
    """
    order = np.random.default_rng(seed).permutation(rows)
    shuffled = table.iloc[order].assign(row=order).drop_duplicates("group")
    sources = shuffled["source"].nunique()
    each = max(1, images // sources)
    return np.sort(shuffled.groupby("source").head(each)["row"].to_numpy()[:images])


def log_amplitude(images: Tensor, *, size: int, edges: Sequence[float]) -> np.ndarray:
    """Return the natural logarithm of each ring's amplitude, NaN where the ring is empty.

    Args:
        images: ``(B, C, H, W)``, in [0, 1].
        size: Side to which the spectrum is cut, pixels.
        edges: ``R + 1`` frequencies, cycles per pixel of that size.

    Returns:
        ``float64 (B, R)``; energies are averaged over the channels first.

    Example:
        >>> bool(np.isnan(log_amplitude(torch.ones(1, 3, 8, 8), size=8, edges=[0, 0.5])).all())
        True
    """
    energy = ring_energy(band_limited(windowed(images), size), edges).mean(dim=1).double().numpy()
    return np.log(np.where(energy > EMPTY, energy, np.nan)) / 2


def _measure_files(
    packed: Pack, rows: np.ndarray, size: int, edges: Sequence[float], *, tell: bool
) -> Iterator[Measured]:
    """Compare resized images with the ideal, one by one."""
    told: dict[tuple[str, str, str], list[np.ndarray]] = {}
    places: Iterator[int] | np.ndarray = rows
    if tell:
        places = show_progress(rows, total=len(rows), label="auditing the resize")
    for row in places:
        full = full_image(packed.dataset, int(row))
        ideal = log_amplitude(as_batch([full]), size=size, edges=edges)
        steps = resize_steps(full, size)
        made = log_amplitude(as_batch([*steps.values()]), size=size, edges=edges)
        for step, ratio in zip(steps, made - ideal, strict=True):
            told.setdefault(("resize", step, "ideal band limit"), []).append(ratio)
    for key, ratios in told.items():
        yield (*key, np.array(ratios))


def _measure_augmentations(
    packed: Pack, rows: np.ndarray, edges: Sequence[float], seed: int
) -> Iterator[Measured]:
    pixels = packed.images[rows]
    before = log_amplitude(as_batch([*pixels]), size=packed.size, edges=edges)
    for mode, step, changed in augment_steps(torch.from_numpy(pixels), seed=seed):
        after = log_amplitude(changed, size=packed.size, edges=edges)
        yield f"augment, {mode}", step, "packed image", after - before


def as_batch(images: Sequence[np.ndarray]) -> Tensor:
    """Return 8-bit images of one size as ``(B, 3, H, W)`` in [0, 1].

    Example:
        >>> as_batch([np.full((4, 6, 3), 255, np.uint8)]).shape
        torch.Size([1, 3, 4, 6])
    """
    pixels = torch.from_numpy(np.stack(images))
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 255


def _describe(ratios: np.ndarray, edges: Sequence[float]) -> pd.DataFrame:
    """Average ``(n, R)`` over the images in which a ring holds anything."""
    rows = []
    for ring in range(len(edges) - 1):
        own = ratios[:, ring][np.isfinite(ratios[:, ring])]
        mean, spread = (own.mean(), own.std()) if len(own) else (np.nan, np.nan)
        reach = 1.96 * own.std(ddof=1) / len(own) ** 0.5 if len(own) >= FEWEST else np.nan
        row = {"ring": ring, "low": float(edges[ring]), "high": float(edges[ring + 1])}
        row |= {"log_ratio": mean, "spread": spread, "n": len(own)}
        rows.append({**row, "interval_low": mean - reach, "interval_high": mean + reach})
    return pd.DataFrame(rows)
