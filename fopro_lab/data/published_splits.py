"""A published split and the pictures that are here: which is which, and what is missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.sources import SUFFIXES, refuse_twice
from fopro_lab.errors import InputError


class Matched(NamedTuple):
    """The named pictures that are here.

    Attributes:
        rows: Row of the data set of each, ``int64 (M,)``.
        named: The same pictures as the file names them, ``M`` rows.
        ending: What the protocol id adds: empty if all named pictures are here.
        notes: What is missing, a line each.

    Example:
        >>> Matched._fields
        ('rows', 'named', 'ending', 'notes')
    """

    rows: np.ndarray
    named: pd.DataFrame
    ending: str
    notes: list[str]


def match_pictures(
    dataset: Dataset, named: pd.DataFrame, *, where: Path | str, leave_out: bool
) -> Matched:
    """Find the pictures that a published split names, with or without their extensions.

    Args:
        dataset: The pictures that are here; those that are not named belong to no part.
        named: Column ``image`` and what else the split says; a row a picture.
        where: File or folder of the split, for the messages.
        leave_out: Go on without named pictures that are not here; the protocol id tells.

    Returns:
        The pictures of both.

    Raises:
        InputError: If a picture is named twice or two pictures have one name, none is here, or
            some are not and ``leave_out`` is off.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=24)
        >>> named = pd.DataFrame({"image": [*dataset.table["image"][:3], "elsewhere"]})
        >>> match_pictures(dataset, named, where="a.csv", leave_out=True).ending
        '/part-3of4-phantom-24'
    """
    ids = [picture_id(image) for image in named["image"]]
    own = [picture_id(image) for image in dataset.table["image"]]
    row_of = dict(zip(own, range(len(own)), strict=True))
    refuse_twice(ids, where=where)
    if len(row_of) < len(own):  # twins that no split names do no harm
        named_here = set(ids)
        refuse_twice((name for name in own if name in named_here), where=dataset.name)
    here = np.array([name in row_of for name in ids])
    have, total = int(here.sum()), len(ids)
    if not have:
        raise InputError(
            f"{where}: none of its {total:,} pictures is in {dataset.name}, first {ids[0]}; "
            "is it the split of these pictures?"
        )
    if have < total and not leave_out:
        raise InputError(
            f"{where}: {total - have:,} of its {total:,} pictures are not in {dataset.name}, "
            f"first {ids[int(np.argmin(here))]}; add them, or go on without them: "
            "unusable=leave-out"
        )
    rows = np.array([row_of[name] for name in ids if name in row_of], dtype=np.int64)
    if have == total:
        return Matched(rows, named, "", [])
    note = f"{have:,} of the {total:,} pictures that the published split names are here"
    return Matched(rows, named[here], f"/part-{have}of{total}-{dataset.name}", [note])


def picture_id(name: str) -> str:
    """Return a picture's name without folders and extension.

    Args:
        name: As a data set or a split writes it. ISIC 2019 calls some pictures ``_downsampled``,
            copies of it do not, and no picture is there in both forms.

    Returns:
        What both have in common.

    Example:
        >>> picture_id("nv/ISIC_0000017_downsampled.JPG"), picture_id("v1.2-3")
        ('ISIC_0000017', 'v1.2-3')
    """
    plain = name.rpartition("/")[2]
    stem, dot, suffix = plain.rpartition(".")
    return (stem if (dot + suffix).lower() in SUFFIXES else plain).removesuffix("_downsampled")


def refuse_disagreement(
    dataset: Dataset, matched: Matched, expected: Sequence[str], *, where: Path | str
) -> None:
    """Refuse a split whose classes are not those of the data set.

    Args:
        dataset: The pictures.
        matched: Those that the split names; its column ``class`` is told in the message.
        expected: The data set's class that each named picture should have, ``(M,)``.
        where: File or folder of the split.

    Raises:
        InputError: If a picture has another class.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=24)
        >>> named = pd.DataFrame({"image": dataset.table["image"][:1], "class": ["X"]})
        >>> matched = match_pictures(dataset, named, where="a.csv", leave_out=False)
        >>> refuse_disagreement(dataset, matched, [dataset.class_names[0]], where="a.csv")
    """
    labels = dataset.table["label"].to_numpy()[matched.rows]
    own = np.array(dataset.class_names, dtype=object)[labels]
    wrong = np.flatnonzero(own != np.array(list(expected), dtype=object))
    if len(wrong):
        first = matched.named.iloc[wrong[0]]
        raise InputError(
            f"{where}: {len(wrong):,} of {len(own):,} pictures have another class in "
            f"{dataset.name}, first {first['image']}: '{own[wrong[0]]}' where the split says "
            f"'{first['class']}'; mend the labels"
        )
