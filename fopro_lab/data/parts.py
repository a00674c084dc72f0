"""Train, validation and test as rows of a data set, and what they lack."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fopro_lab.data.catalog import Dataset
from fopro_lab.errors import InputError

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three parts, sorted, and how they came about.

    Attributes:
        train: ``int64`` rows.
        val: Rows on which epochs and knobs are chosen.
        test: Rows that choose nothing; a method is scored on them once.
        protocol: Names data, rule and seed; results of two protocols are never averaged.
        fingerprint: SHA-256 over every picture's id and part, whatever the order of the rows.
        notes: What a reader of the results should know of the parts, a line each.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset
        >>> dataset = open_dataset("phantom", pictures=40)
        >>> make_split(dataset).class_counts(dataset).tolist()
        [8, 4, 2, 1, 1, 1, 1, 1]
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    protocol: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    def class_counts(self, dataset: Dataset) -> np.ndarray:
        """Return the number of training pictures of each class, ``int64 (K,)``."""
        labels = dataset.table["label"].to_numpy()[self.train]
        return np.bincount(labels, minlength=len(dataset.class_names))

    def shared_groups(self, dataset: Dataset) -> int:
        """Count groups with pictures in more than one part; 0 unless a given split leaks."""
        part = pd.Series("", index=range(len(dataset)))
        for name in PARTS:
            part.iloc[getattr(self, name)] = name
        return count_shared(dataset, part.to_numpy())


def count_shared(dataset: Dataset, parts: np.ndarray) -> int:
    """Count groups with pictures in more than one part.

    Args:
        dataset: The pictures.
        parts: Part of each picture, ``(N,)``; an empty text is none.

    Returns:
        Number of groups.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=100)
        >>> count_shared(dataset, np.array(["train", "test"] * 50)) > 9
        True
    """
    used = parts != ""
    members = pd.Series(parts[used]).groupby(dataset.table["group"].to_numpy()[used])
    return int((members.nunique() > 1).sum())


def make_parts(
    dataset: Dataset,
    parts: np.ndarray,
    protocol: str,
    *,
    given: Collection[str] = (),
    notes: Iterable[str] = (),
) -> Split:
    """Turn the part of each picture into a split, if every class can be trained.

    Args:
        dataset: The pictures.
        parts: ``"train"``, ``"val"``, ``"test"`` or an empty text for each, ``(N,)``.
        protocol: Id of data, rule and seed.
        given: Parts that were not drawn here: a class may be missing from their validation or
            test, which a note says then.
        notes: More to say.

    Returns:
        The split.

    Raises:
        InputError: If a part is empty, or a class is missing from training or from a drawn part.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=24)
        >>> make_parts(dataset, np.array(["train", "val", "test"] * 8), "toy").val
        array([ 1,  4,  7, 10, 13, 16, 19, 22])
    """
    gone = dataset.left_out
    told = [f"left out, cannot be read: {gone:,} picture{'s' * (gone > 1)}"] if gone else []
    for name in PARTS:
        missing = _missing_classes(dataset, parts == name)
        if missing and (name == "train" or name not in given or not (parts == name).any()):
            raise InputError(
                f"{dataset.name}: class '{missing[0]}' has no picture in {name}; "
                "add pictures, leave the class out, or drop the given split"
            )
        if missing:
            told.append(f"{name} has no picture of {', '.join(missing)}")
    used = parts != ""
    lines = dataset.table["image"].to_numpy()[used] + "\t" + parts[used].astype(object)
    fingerprint = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    train, val, test = (np.flatnonzero(parts == name) for name in PARTS)
    return Split(train, val, test, protocol, fingerprint, (*notes, *told))


def _missing_classes(dataset: Dataset, chosen: np.ndarray) -> list[str]:
    labels = dataset.table["label"].to_numpy()[chosen]
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    return [name for name, n in zip(dataset.class_names, counts, strict=True) if not n]
