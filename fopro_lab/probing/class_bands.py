"""Which class lives in which band: recall when one frequency ring of the input is scaled."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product

import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, Split
from fopro_lab.fourier import ring_parts
from fopro_lab.probing.asking import ask_changed
from fopro_lab.probing.changes import check_groups
from fopro_lab.probing.features import Encoder
from fopro_lab.probing.pictures import draw_per_class
from fopro_lab.probing.probe import LinearProbe
from fopro_lab.probing.readers import Classifier, Reader, reader_of
from fopro_lab.probing.ring_checks import check_gains, check_rings


def class_band_matrix(
    asked: Encoder | Reader | Classifier,
    pack: Pack,
    split: Split,
    edges: Sequence[float],
    *,
    groups: Mapping[str, str],
    gains: Sequence[float] = (0.0, 2.0),
    probe: LinearProbe | None = None,
    per_class: int = 0,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure how each class's recall changes when one ring of the test pictures is scaled.

    A teacher is read by a linear probe, fitted on untouched training pictures and never again; a
    trained student reads for itself. Intervals and tests are those of `measure_changes`.

    Args:
        asked: A frozen teacher; or a function from pictures to logits, such as a trained
            student's ``classify``; or a `Reader`.
        pack: The pictures, with their data set.
        split: Its train rows fit the probe, val chooses its regularisation, test is measured.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        groups: "head", "medium" or "tail" for each class; its order is the table's.
        gains: Non-negative factors of the amplitudes; 0 removes a ring. Nothing is clipped.
        probe: A probe of this teacher and split, if there is one already.
        per_class: At most this many test pictures of a class, drawn by ``seed``; 0 is all.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row for each class, group and "overall" (means of class recalls), ring and gain:
        ``reader``, ``scope``, ``name``, ``group`` (of a class), ``ring``, ``low``, ``high``
        (cycles per pixel), ``gain``, then as `measure_changes`, and ``protocol``.

    Raises:
        InputError: If the gains, edges or groups are wrong, a ring is empty at this size, or a
            class is absent from training.

    Example:
        >>> class_band_matrix(None, None, None, [0, 0.75], groups={}, gains=[])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: gains: expected one or more finite factors of 0 or above,
        got []
    """
    check_gains(gains)
    check_groups(groups, pack.dataset.class_names)
    check_rings(edges, height=pack.size, width=pack.size)
    reader = reader_of(asked, pack, split, probe=probe, batch_size=batch_size)
    rows = draw_per_class(split.test, pack.labels[split.test], per_class=per_class, seed=seed)

    def scale_each(images: Tensor) -> Iterator[Tensor]:
        for part in ring_parts(images, edges):
            for gain in gains:
                yield torch.add(images, part, alpha=gain - 1)

    cases = pd.DataFrame(
        [
            {"ring": ring, "low": float(low), "high": float(high), "gain": float(gain)}
            for (ring, (low, high)), gain in product(enumerate(pairwise(edges)), gains)
        ]
    )
    return ask_changed(
        reader, pack, rows, scale_each, cases=cases, split=split, groups=groups,
        label="class bands", batch_size=batch_size, resamples=resamples,
        seed=seed, progress=progress,
    )  # fmt: skip
