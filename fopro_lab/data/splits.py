"""Train, validation and test: stratified by class, groups kept apart, the same everywhere."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fopro_lab.config import DataConfig
from fopro_lab.data.catalog import Dataset
from fopro_lab.data.drawing import Wanted, draw_parts
from fopro_lab.errors import InputError

PARTS = ("train", "val", "test")
ISIC2019_TOTALS = (12875, 4522, 3323, 2624, 867, 628, 253, 239)  # NV MEL BCC BKL AK SCC VASC DF


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three parts, sorted, and how they came about.

    Attributes:
        train: ``int64`` rows.
        val: Rows on which epochs and knobs are chosen.
        test: Rows that choose nothing; a method is scored on them once.
        protocol: Names data, rule and seed; results of two protocols are never averaged.
        fingerprint: SHA-256 over every picture's id and part, whatever the order of the rows.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=40)
        >>> make_split(dataset).class_counts(dataset).tolist()
        [8, 4, 2, 1, 1, 1, 1, 1]
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    protocol: str
    fingerprint: str

    def class_counts(self, dataset: Dataset) -> np.ndarray:
        """Return the number of training pictures of each class, ``int64 (K,)``."""
        labels = dataset.table["label"].to_numpy()[self.train]
        return np.bincount(labels, minlength=len(dataset.class_names))

    def shared_groups(self, dataset: Dataset) -> int:
        """Count groups with pictures in more than one part; 0 unless a given split leaks."""
        part = pd.Series("", index=range(len(dataset)))
        for name in PARTS:
            part.iloc[getattr(self, name)] = name
        used = part[part != ""]
        return int((used.groupby(dataset.table["group"]).nunique() > 1).sum())


def make_split(
    dataset: Dataset,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    val_per_class: int = 0,
    test_per_class: int = 0,
    seed: int = 0,
) -> Split:
    """Split by class without tearing a group apart; a given split is honoured.

    A group goes where the majority of its pictures' class sends it. Parts that the data set
    gives are kept as they are; of those it does not give, test and validation are drawn from the
    given training part.

    Args:
        dataset: The pictures.
        val_fraction: Share of each class, between 0 and 1.
        test_fraction: Share of each class; both together below 1.
        val_per_class: If above 0, exactly this many pictures of every class instead. Pictures of
            a group that would exceed it are left out of all parts.
        test_per_class: The same for the test part.
        seed: Another seed gives another split.

    Returns:
        The split.

    Raises:
        InputError: If a class has fewer than three groups or is missing from a part.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> split = make_split(open_dataset("phantom", pictures=40), seed=1)
        >>> split.protocol, len(split.train), len(split.val), len(split.test)
        ('phantom-40/groups/val0.15-test0.25/seed1', 19, 9, 12)
    """
    sizes = (
        Wanted("test", test_fraction, test_per_class),
        Wanted("val", val_fraction, val_per_class),
    )
    _check_sizes(sizes)
    given = dataset.table["split"].to_numpy().astype("U5")
    parts, has = given.copy(), set(given) - {""}
    if has and "train" not in has:
        raise InputError(f"{dataset.name}: the given split has no training part")
    wanted = [part for part in sizes if part.name not in has]
    if wanted:
        free = np.flatnonzero(given == ("train" if has else ""))
        parts[free] = draw_parts(dataset, free, wanted=wanted, seed=seed)
    _check_parts(dataset, parts)
    return _finish(dataset, parts, _protocol(dataset, has, wanted, seed))


def split_from(dataset: Dataset, config: DataConfig) -> Split:
    """Split a data set as a config says.

    Args:
        dataset: The pictures.
        config: Its fields ``val_fraction`` to ``split_seed``.

    Returns:
        The split.

    Raises:
        InputError: As `make_split`.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> split_from(open_dataset("phantom", pictures=40), DataConfig(split_seed=2)).protocol
        'phantom-40/groups/val0.15-test0.25/seed2'
    """
    return make_split(
        dataset,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        val_per_class=config.val_per_class,
        test_per_class=config.test_per_class,
        seed=config.split_seed,
    )


def isic2019_lt_counts(ratio: float) -> list[int]:
    """Return ISIC-2019-LT's training pictures of each class, largest class first.

    Args:
        ratio: Smallest to largest class before the cap, e.g. 0.01, 0.005, 0.002.

    Returns:
        ``n_i = min(floor(12875 ratio^(i/7)), total_i - 150)`` for the ranks 0 to 7; 150 pictures
        of each class are kept for validation and test.

    Raises:
        InputError: If the ratio is not in (0, 1].

    Source: the split files published with FoPro-KD (Elbatel et al., IEEE TMI 43(3), 2024).

    Example:
        >>> isic2019_lt_counts(0.01)
        [12725, 4372, 3173, 1788, 717, 478, 103, 89]
    """
    if not 0 < ratio <= 1:
        raise InputError(f"ratio: expected above 0 and at most 1, got {ratio}")
    largest = ISIC2019_TOTALS[0]
    return [
        min(int(largest * ratio ** (rank / 7)), total - 150)
        for rank, total in enumerate(ISIC2019_TOTALS)
    ]


def _check_sizes(wanted: Sequence[Wanted]) -> None:
    for part in wanted:
        if not 0 < part.fraction < 1:
            raise InputError(f"{part.name}_fraction: expected between 0 and 1, got {part.fraction}")
        if part.per_class < 0:
            raise InputError(f"{part.name}_per_class: expected 0 or more, got {part.per_class}")
    drawn = sum(part.fraction for part in wanted if not part.per_class)
    if drawn >= 1:
        raise InputError(f"val_fraction and test_fraction: expected a sum below 1, got {drawn:g}")


def _check_parts(dataset: Dataset, parts: np.ndarray) -> None:
    labels = dataset.table["label"].to_numpy()
    for name in PARTS:
        counts = np.bincount(labels[parts == name], minlength=len(dataset.class_names))
        if not counts.all():
            missing = dataset.class_names[int(np.argmin(counts))]
            raise InputError(
                f"{dataset.name}: class '{missing}' has no picture in {name}; "
                "add pictures, leave the class out, or drop the given split"
            )


def _finish(dataset: Dataset, parts: np.ndarray, protocol: str) -> Split:
    used = parts != ""
    lines = dataset.table["image"].to_numpy()[used] + "\t" + parts[used].astype(object)
    fingerprint = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    train, val, test = (np.flatnonzero(parts == name) for name in PARTS)
    return Split(train, val, test, protocol, fingerprint)


def _protocol(dataset: Dataset, has: set[str], wanted: list[Wanted], seed: int) -> str:
    if not wanted:
        return f"{dataset.name}/given"
    kept = "-".join(name for name in ("val", "test") if name in has)
    start = f"{dataset.name}/given-{kept}" if has else dataset.name
    rule = "pictures" if dataset.table["group"].is_unique else "groups"
    sizes = [f"{part.name}{part.per_class or format(part.fraction, 'g')}" for part in wanted[::-1]]
    return f"{start}/{rule}/{'-'.join(sizes)}/seed{seed}"
