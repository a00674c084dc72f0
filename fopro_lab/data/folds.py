"""Stratified folds for a cross-validation: groups stay whole, each is tested once."""

import numpy as np

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.drawing import Wanted, draw_parts, group_word, list_groups
from fopro_lab.data.parts import Split, make_parts
from fopro_lab.data.sampling import hashed_order
from fopro_lab.errors import InputError


def make_folds(
    dataset: Dataset,
    *,
    folds: int = 5,
    fold: int = 1,
    val_fraction: float = 0.15,
    val_per_class: int = 0,
    seed: int = 0,
) -> Split:
    """Test on one of several folds, validate on a share of the rest, train on what is left.

    The test parts of all folds are a partition of the data set. A given split is passed over.

    Args:
        dataset: The pictures.
        folds: How many, 2 or more.
        fold: The one that is tested, from 1.
        val_fraction: Share of each class of the other folds.
        val_per_class: If above 0, exactly this many pictures of every class instead.
        seed: Another seed deals other folds.

    Returns:
        The split.

    Raises:
        InputError: If a class has fewer groups than there are folds, or ``fold`` is not one.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> split = make_folds(open_dataset("phantom", pictures=200), folds=3, fold=3)
        >>> split.protocol, len(split.train), len(split.val), len(split.test)
        ('phantom-200/groups/folds3-val0.15/seed0/fold3', 111, 23, 66)
    """
    tested = deal_folds(dataset, folds=folds, seed=seed) == check_fold(fold, folds=folds)
    wanted = Wanted("val", val_fraction, val_per_class)
    protocol = (
        f"{dataset.name}/{group_word(dataset)}/folds{folds}-{wanted.label}/seed{seed}/fold{fold}"
    )
    passed = ["the split that the data set gives is passed over"] * any(dataset.table["split"])
    parts = draw_validation(dataset, tested, wanted, rest=~tested, seed=seed)
    return make_parts(dataset, parts, protocol, notes=passed)


def deal_folds(dataset: Dataset, *, folds: int, seed: int) -> np.ndarray:
    """Deal the groups of each class to folds, the largest first, always to the smallest fold.

    A group is dealt by the class that most of its pictures have. Counted by those pictures, two
    folds differ in every class by at most one group's. A group's pictures of other classes go
    with it uncounted, so where groups have mixed labels a class may differ by more.
    scikit-learn's ``StratifiedGroupKFold`` is close to this, but its shuffled folds changed with
    version 1.8, and a protocol id must name the same pictures everywhere.

    Args:
        dataset: The pictures.
        folds: How many, 2 or more.
        seed: Another seed deals other folds.

    Returns:
        Fold of each picture, from 1, ``int64 (N,)``; the order of the rows has no say.

    Raises:
        InputError: If a class has fewer groups than there are folds.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> np.bincount(deal_folds(open_dataset("phantom", pictures=200), folds=3, seed=0))
        array([ 0, 67, 67, 66])
    """
    if folds < 2:
        raise InputError(f"folds: expected 2 or more, got {folds}")
    fold_of = np.zeros(len(dataset), dtype=np.int64)
    totals = [0] * folds
    for label, of_class in list_groups(dataset.table).groupby("label"):
        if len(of_class) < folds:
            raise InputError(
                f"{dataset.name}: class '{dataset.class_names[int(str(label))]}' has "
                f"{len(of_class)} groups, too few for {folds} folds; "
                f"take fewer folds or leave the class out"
            )
        shuffled = of_class.loc[hashed_order(of_class.index, seed=seed)]
        ordered = shuffled.sort_values("own", ascending=False, kind="stable")
        sizes = [0] * folds
        for own, places in zip(ordered["own"], ordered["places"], strict=True):
            smallest = min(range(folds), key=lambda k: (sizes[k], totals[k]))
            fold_of[places] = smallest + 1
            sizes[smallest] += own
            totals[smallest] += len(places)
    return fold_of


def draw_validation(
    dataset: Dataset, tested: np.ndarray, wanted: Wanted, *, rest: np.ndarray, seed: int
) -> np.ndarray:
    """Draw the validation part of a split whose test part is known.

    Args:
        dataset: The pictures.
        tested: Those of the test part, ``bool (N,)``.
        wanted: The validation part.
        rest: Those to draw from, ``bool (N,)``; what is in neither belongs to no part.
        seed: Another seed draws another one.

    Returns:
        Part of each picture, ``(N,)``.

    Raises:
        InputError: If a class has too few groups outside of the test part.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> tested = np.arange(40) % 4 == 0
        >>> dataset = open_dataset("phantom", pictures=40)
        >>> parts = draw_validation(dataset, tested, Wanted("val", 0.2), rest=~tested, seed=0)
        >>> [int((parts == name).sum()) for name in ("train", "val", "test")]
        [21, 9, 10]
    """
    if not 0 < wanted.fraction < 1:
        raise InputError(f"val_fraction: expected between 0 and 1, got {wanted.fraction}")
    free = np.flatnonzero(rest)
    kept = list_groups(dataset.table.iloc[free]).groupby("label").size()
    for label, groups in kept.items():
        if groups < 2:
            raise InputError(
                f"{dataset.name}: class '{dataset.class_names[int(str(label))]}' keeps {groups} "
                "group beside the tested fold, and training and validation need one each; "
                "take more folds or leave the class out"
            )
    parts = np.where(tested, "test", "").astype("U5")
    parts[free] = draw_parts(dataset, free, wanted=[wanted], seed=seed)
    return parts


def check_fold(fold: int, *, folds: int) -> int:
    """Return the fold's number if there is such a fold.

    Raises:
        InputError: If there is none.

    Example:
        >>> check_fold(6, folds=5)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: fold: expected 1 to 5, got 6
    """
    if not 1 <= fold <= folds:
        raise InputError(f"fold: expected 1 to {folds}, got {fold}")
    return fold
