"""The pipeline audit: what decode, resize and augmentation did to each frequency ring.

A claim on which frequencies a network prefers is a claim on the pictures it was given. Every step
is compared with the picture before it, ring by ring: the natural logarithm of the ratio of
amplitudes, 0 where nothing changed, -0.69 where half is left.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.auditing.resizing import decode_steps, full_picture, resize_steps, resized_side
from fopro_lab.auditing.steps import augment_steps
from fopro_lab.auditing.windows import band_limited, windowed
from fopro_lab.data import Pack
from fopro_lab.data.rows import check_rows
from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_energy
from fopro_lab.progress import progress as show_progress

EMPTY = (1e-3 / 255) ** 2  # energy of a ring that holds nothing: a thousandth of a grey level
FEWEST = 10  # pictures behind an interval
ALL = "all"
Measured = tuple[str, str, str, np.ndarray]  # stage, step, reference, log ratios (n, R)


def audit_pipeline(
    packed: Pack,
    rows: np.typing.ArrayLike,
    *,
    edges: Sequence[float],
    pictures: int = 192,
    size: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure what each step of the input pipeline does to each frequency ring.

    - ``decode``: JPEGs shrunk while decoding ("draft"), against the exact decode.
    - ``resize``: each interpolation, and bilinear without antialiasing as a bad example, against
      the ideal: the full picture cut to the frequencies that the small one can hold.
    - ``augment, fused`` and ``augment, exact``: each operation of the published recipe alone, and
      the recipe as a whole, against the packed picture.

    Args:
        packed: The pictures.
        rows: Which may be looked at, e.g. those of training.
        edges: ``R + 1`` increasing frequencies, cycles per pixel of the small picture.
        pictures: At most this many, shared evenly by the sources, one of each group.
        size: Side after the resize, pixels; 0 is that of the pack, or three eighths of the
            pictures' own side where they are no larger.
        seed: Of the choice, and of the augmentations.
        progress: Say how far it is.

    Returns:
        A row for each step, source ("all", and each where two are known) and ring: ``stage``,
        ``step``, ``reference``, ``size`` (pixels), ``source``, ``ring``, ``low``, ``high``
        (cycles per pixel), ``log_ratio`` (mean over pictures), ``spread`` (their standard
        deviation), ``n``, ``interval_low``, ``interval_high`` (95 %, normal; NaN below 10
        pictures). Rings that are empty in the reference are left out of the mean.

    Raises:
        InputError: If there are no rows, they are not row numbers, or the edges are wrong.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 32, progress=False)
        >>> table = audit_pipeline(packed, np.arange(24), edges=[0, 0.25, 0.5], pictures=4)
        >>> table["stage"].unique().tolist(), table["size"].unique().tolist()
        (['resize', 'augment, fused', 'augment, exact'], [32])
    """
    rows = check_rows(rows, count=len(packed))
    if not len(rows) or pictures < 1:
        raise InputError(f"rows, pictures: expected one or more, got {len(rows)} and {pictures}")
    chosen = choose_pictures(packed.dataset.table, rows, pictures=pictures, seed=seed)
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


def choose_pictures(
    table: pd.DataFrame, rows: np.ndarray, *, pictures: int, seed: int
) -> np.ndarray:
    """Choose rows: one of each group, so that they are independent, and as many of each source.

    Args:
        table: Of the data set: group, source.
        rows: To choose from.
        pictures: At most this many.
        seed: Of the choice.

    Returns:
        Sorted rows.

    Example:
        >>> table = pd.DataFrame({"group": list("aabc"), "source": list("xxxy")})
        >>> len(choose_pictures(table, np.arange(4), pictures=2, seed=0))
        2
    """
    order = np.random.default_rng(seed).permutation(rows)
    shuffled = table.iloc[order].assign(row=order).drop_duplicates("group")
    sources = shuffled["source"].nunique()
    each = max(1, pictures // sources)
    return np.sort(shuffled.groupby("source").head(each)["row"].to_numpy()[:pictures])


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
    """Compare resized pictures with the ideal, and drafts with exact decodes, one by one."""
    told: dict[tuple[str, str, str], list[np.ndarray]] = {}
    places: Iterator[int] | np.ndarray = rows
    if tell:
        places = show_progress(rows, total=len(rows), label="auditing decode and resize")
    for row in places:
        full = full_picture(packed.dataset, int(row))
        ideal = log_amplitude(as_batch([full]), size=size, edges=edges)
        steps = resize_steps(full, size)
        made = log_amplitude(as_batch([*steps.values()]), size=size, edges=edges)
        for step, ratio in zip(steps, made - ideal, strict=True):
            told.setdefault(("resize", step, "ideal band limit"), []).append(ratio)
        decoded = decode_steps(packed.dataset, int(row), size, exact=steps)
        for step, (exact, draft) in decoded.items():
            before, after = log_amplitude(as_batch([exact, draft]), size=size, edges=edges)
            told.setdefault(("decode", step, "exact decode"), []).append(after - before)
    for key in sorted(told, key=lambda key: key[0] != "decode"):
        yield (*key, np.array(told[key]))


def _measure_augmentations(
    packed: Pack, rows: np.ndarray, edges: Sequence[float], seed: int
) -> Iterator[Measured]:
    pixels = packed.images[rows]
    before = log_amplitude(as_batch([*pixels]), size=packed.size, edges=edges)
    for mode, step, changed in augment_steps(torch.from_numpy(pixels), seed=seed):
        after = log_amplitude(changed, size=packed.size, edges=edges)
        yield f"augment, {mode}", step, "packed picture", after - before


def as_batch(pictures: Sequence[np.ndarray]) -> Tensor:
    """Return 8-bit pictures of one size as ``(B, 3, H, W)`` in [0, 1].

    Example:
        >>> as_batch([np.full((4, 6, 3), 255, np.uint8)]).shape
        torch.Size([1, 3, 4, 6])
    """
    pixels = torch.from_numpy(np.stack(pictures))
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 255


def _describe(ratios: np.ndarray, edges: Sequence[float]) -> pd.DataFrame:
    """Average ``(n, R)`` over the pictures in which a ring holds anything."""
    rows = []
    for ring in range(len(edges) - 1):
        own = ratios[:, ring][np.isfinite(ratios[:, ring])]
        mean, spread = (own.mean(), own.std()) if len(own) else (np.nan, np.nan)
        reach = 1.96 * own.std(ddof=1) / len(own) ** 0.5 if len(own) >= FEWEST else np.nan
        row = {"ring": ring, "low": float(edges[ring]), "high": float(edges[ring + 1])}
        row |= {"log_ratio": mean, "spread": spread, "n": len(own)}
        rows.append({**row, "interval_low": mean - reach, "interval_high": mean + reach})
    return pd.DataFrame(rows)
