"""The low-pass and high-pass ladder: how much of the spectrum a reader needs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pandas as pd
from torch import Tensor

from fopro_lab.data import Pack, Split
from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_parts
from fopro_lab.probing.asking import ask_changed
from fopro_lab.probing.features import Encoder
from fopro_lab.probing.pictures import draw_per_class
from fopro_lab.probing.probe import LinearProbe
from fopro_lab.probing.readers import Classifier, Reader, reader_of
from fopro_lab.probing.ring_checks import check_rings

CORNER = 0.75  # cycles per pixel, above every frequency


def pass_ladder(
    asked: Encoder | Reader | Classifier,
    pack: Pack,
    split: Split,
    cutoffs: Sequence[float],
    *,
    groups: Mapping[str, str],
    probe: LinearProbe | None = None,
    per_class: int = 0,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure recall on test pictures that keep only what is below, or above, a frequency.

    Low-pass keeps every frequency up to and with the cut-off, high-pass all above it; the two sum
    to the picture. The mean of each channel (DC) stays in both, so that brightness and colour do
    not tell the steps apart, and nothing is clipped. All steps share one forward transform.

    Args:
        asked: As in `class_band_matrix`.
        pack: The pictures, with their data set.
        split: As in `class_band_matrix`.
        cutoffs: Increasing frequencies above 0 and below 0.7, cycles per pixel.
        groups: "head", "medium" or "tail" for each class.
        probe: A probe of this teacher and split, if there is one already.
        per_class: At most this many test pictures of a class; 0 is all.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples.
        seed: Seed of the drawn pictures and of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row for each class, group and "overall", and each step: ``reader``, ``scope``, ``name``,
        ``group``, ``kind`` ("low-pass", "high-pass"), ``cutoff`` (cycles per pixel), then as
        `measure_changes`, and ``protocol``. Rows of scope "overall" are balanced accuracy.

    Raises:
        InputError: If the cut-offs are wrong or two of them keep the same frequencies.

    Example:
        >>> pass_ladder(None, None, None, [0.2, 0.1], groups={})
        Traceback (most recent call last):
        fopro_lab.errors.InputError: cutoffs: expected one or more increasing frequencies above 0
        and below 0.7 cycles per pixel, got [0.2, 0.1]
    """
    steps = [0.0, *map(float, cutoffs), CORNER]
    if len(steps) < 3 or steps != sorted(set(steps)) or steps[-2] >= 0.7:
        raise InputError(
            "cutoffs: expected one or more increasing frequencies above 0 and below 0.7 cycles "
            f"per pixel, got {list(cutoffs)}"
        )
    check_rings(steps, height=pack.size, width=pack.size)
    reader = reader_of(asked, pack, split, probe=probe, batch_size=batch_size)
    rows = draw_per_class(split.test, pack.labels[split.test], per_class=per_class, seed=seed)

    def climb(images: Tensor) -> Iterator[Tensor]:
        mean = images.mean(dim=(2, 3), keepdim=True)
        low = mean.expand_as(images)
        for part, _ in zip(ring_parts(images, steps), cutoffs, strict=False):
            low = low + part
            yield low
            yield images - low + mean

    cases = pd.DataFrame(
        list(product(map(float, cutoffs), ("low-pass", "high-pass"))), columns=["cutoff", "kind"]
    )[["kind", "cutoff"]]
    return ask_changed(
        reader, pack, rows, climb, cases=cases, split=split, groups=groups,
        label="ladder", batch_size=batch_size, resamples=resamples,
        seed=seed, progress=progress,
    )  # fmt: skip
