"""Split images into train, val and test: by class, keeping groups together; folds; long tails."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data.dataset import Dataset
from fopro_lab.data.sampling import hashed_order
from fopro_lab.errors import InputError

PARTS = ("train", "val", "test")
ISIC2019_TOTALS = (12875, 4522, 3323, 2624, 867, 628, 253, 239)  # NV MEL BCC BKL AK SCC VASC DF
ISIC2019_HELD_OUT = 150  # images of each class: 50 for validation, 100 for test


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three parts, sorted, and how they came about.

    Attributes:
        train: ``int64`` rows.
        val: Rows on which epochs and options are chosen.
        test: Rows that choose nothing; a method is scored on them once.
        protocol: Names data, rule and seed; results of two protocols are never averaged.
        fingerprint: SHA-256 over every image's id and part, whatever the order of the rows.
        notes: What a reader of the results should know of the parts, a line each.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    protocol: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    def class_counts(self, dataset: Dataset) -> np.ndarray:
        """Return the number of training images of each class, ``int64 (K,)``."""
        return _count_classes(dataset, self.train)

    def shared_groups(self, dataset: Dataset) -> int:
        """Count groups with images in more than one part; 0 unless a given split leaks."""
        parts = np.full(len(dataset), "", dtype="U5")
        for name in PARTS:
            parts[getattr(self, name)] = name
        return count_shared(dataset, parts)


def make_split(
    dataset: Dataset,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    val_per_class: int = 0,
    test_per_class: int = 0,
    seed: int = 0,
) -> Split:
    """Split by class without dividing a group; a given split is honoured.

    A group follows the class of most of its images. Parts that the data set gives are kept as
    they are; those that it does not give are drawn from the given training part.

    Args:
        dataset: The images.
        val_fraction: Share of each class, between 0 and 1.
        test_fraction: Share of each class; both together below 1.
        val_per_class: If above 0, exactly this many images of every class instead. Images of
            a group that would exceed it are left out of all parts.
        test_per_class: The same for the test part.
        seed: Another seed gives another split.

    Returns:
        The split; a class that a given validation or test lacks is named in its notes.

    Raises:
        InputError: If a class has fewer than three groups or is missing from training.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> split = make_split(open_dataset("phantom", images=40), seed=1)
        >>> split.protocol, len(split.train), len(split.val), len(split.test)
        ('phantom-40/groups/val0.15-test0.25/seed1', 19, 9, 12)
    """
    wanted = (
        Wanted("test", test_fraction, test_per_class),
        Wanted("val", val_fraction, val_per_class),
    )
    parts, drawn = _draw_missing(dataset, wanted, seed)
    protocol = _name_drawing(dataset, drawn, seed)
    return build_split(dataset, parts, protocol, given=set(PARTS) - {part.name for part in drawn})


def make_folds(
    dataset: Dataset,
    *,
    folds: int = 5,
    fold: int = 1,
    val_fraction: float = 0.15,
    val_per_class: int = 0,
    seed: int = 0,
) -> Split:
    """Test on one of several folds, validate on a share of the others, train on the rest.

    The test parts of all folds are a partition of the data set. A given split is passed over.

    Args:
        dataset: The images.
        folds: How many, 2 or more.
        fold: The one that is tested, from 1.
        val_fraction: Share of each class of the other folds.
        val_per_class: If above 0, exactly this many images of every class instead.
        seed: Another seed deals other folds.

    Returns:
        The split.

    Raises:
        InputError: If a class has fewer groups than there are folds, or ``fold`` is not one.
    """
    check_fold(fold, folds=folds)
    tested = deal_folds(dataset, folds=folds, seed=seed) == fold
    wanted = Wanted("val", val_fraction, val_per_class)
    rule = f"{_group_word(dataset)}/folds{folds}-{wanted.label}"
    parts = draw_validation(dataset, tested, wanted, rest=~tested, seed=seed)
    passed = ["the split that the data set gives is passed over"] * any(dataset.table["split"])
    protocol = f"{dataset.name}/{rule}/seed{seed}/fold{fold}"
    return build_split(dataset, parts, protocol, notes=passed)


def make_long_tail(
    dataset: Dataset,
    *,
    ratio: float,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    val_per_class: int = 0,
    test_per_class: int = 0,
    seed: int = 0,
) -> Split:
    """Draw validation and test, then thin the training part to a long tail.

    Classes keep their order by size and get `long_tail_counts` training images. With
    ``val_per_class=50, test_per_class=100`` this is the rule of ISIC-2019-LT, whose curve starts
    from all images of the largest class. Validation and test by share, or given by the data
    set, stay natural, and the curve starts from what is left of the largest class for training,
    so that the ratio is the training part's own. Thinned images belong to no part.

    ``ratio`` is the smallest to the largest class, in (0, 1]; the other arguments are those of
    `make_split`.

    Raises:
        InputError: As `make_split`, or if a class would keep no training image.
    """
    wanted = (
        Wanted("test", test_fraction, test_per_class),
        Wanted("val", val_fraction, val_per_class),
    )
    long_tail_counts([], ratio=ratio, largest=0)  # refuses a wrong ratio before anything is drawn
    parts, drawn = _draw_missing(dataset, wanted, seed)
    totals = _count_classes(dataset, np.arange(len(dataset)))
    left = _count_classes(dataset, np.flatnonzero(parts == "train"))
    ranked = np.argsort(-totals, kind="stable")
    balanced = len(drawn) == len(wanted) and all(part.per_class for part in drawn)
    largest = int((totals if balanced else left)[ranked[0]])
    counts = np.zeros_like(left)
    counts[ranked] = long_tail_counts(left[ranked].tolist(), ratio=ratio, largest=largest)
    for label in np.flatnonzero((counts == 0) & (left > 0)):
        raise InputError(
            f"tail_ratio: expected a ratio that leaves every class an image, got {ratio:g}: "
            f"{dataset.name} has {totals[label]} of '{dataset.class_names[label]}', none would be "
            "left; take a larger one"
        )
    # Keep so many training images of each class, by whole groups except for the last.
    training = dataset.table[["image", "group", "label"]].assign(row=np.arange(len(dataset)))
    training = training[parts == "train"]
    order = {name: i for i, name in enumerate(hashed_order(training["group"], seed=seed))}
    training = training.assign(place=training["group"].map(order)).sort_values(["place", "image"])
    rank = training.groupby("label").cumcount()
    thinned = training["row"][rank >= counts[training["label"]]]
    parts[thinned.to_numpy()] = ""
    protocol = _name_drawing(dataset, drawn, seed, thinning=f"longtail{ratio:g}")
    return build_split(dataset, parts, protocol, given=set(PARTS) - {part.name for part in drawn})


def long_tail_counts(left: Sequence[int], *, ratio: float, largest: int) -> list[int]:
    """Return the training images of each class under an exponential tail with a cap.

    Args:
        left: Images that may be trained on, the K classes in the order of their size.
        ratio: Smallest to largest class before the cap, in (0, 1].
        largest: Images from which the curve starts.

    Returns:
        ``n_i = min(floor(largest ratio^(i/(K-1))), left_i)`` for the ranks 0 to K-1.

    Source: Cui et al., CVPR 2019, arXiv:1901.05555, sec. 5.1, for the exponential tail; the cap is
        the one that reproduces FoPro-KD's files.
    """
    if not 0 < ratio <= 1:
        raise InputError(f"ratio: expected above 0 and at most 1, got {ratio}")
    steps = max(len(left) - 1, 1)
    # A hair above: 32 x (1/32)^(2/5) is 8, where double precision says 7.999999999999999.
    curve = [int(largest * ratio ** (rank / steps) * (1 + 1e-12)) for rank in range(len(left))]
    return [min(images, most) for images, most in zip(curve, left, strict=True)]


def isic2019_lt_counts(ratio: float) -> list[int]:
    """Return ISIC-2019-LT's training images of each class, largest class first.

    150 images of each class are kept for validation and test.

    Source: the split files published with FoPro-KD (Elbatel et al., IEEE TMI 43(3), 2024).
    """
    left = [total - ISIC2019_HELD_OUT for total in ISIC2019_TOTALS]
    return long_tail_counts(left, ratio=ratio, largest=ISIC2019_TOTALS[0])


class Wanted(NamedTuple):
    """A part to draw: a share of each class or, if above 0, a number of images per class."""

    name: str
    fraction: float
    per_class: int = 0

    @property
    def label(self) -> str:
        """The part and its size, as a protocol id has it: ``val0.15`` or ``test100``."""
        return f"{self.name}{self.per_class or format(self.fraction, 'g')}"


def build_split(
    dataset: Dataset,
    parts: np.ndarray,
    protocol: str,
    *,
    given: Collection[str] = (),
    notes: Iterable[str] = (),
) -> Split:
    """Turn the part of each image, an empty text for none, into a split.

    A part that is empty, or lacks a class, is refused; but of validation and test that were
    ``given``, not drawn, a note says which class they lack.
    """
    gone = dataset.left_out
    found = [f"left out, cannot be read: {gone:,} image{'s' * (gone > 1)}"] if gone else []
    train, val, test = (np.flatnonzero(parts == name) for name in PARTS)
    for name, rows in zip(PARTS, (train, val, test), strict=True):
        counts = _count_classes(dataset, rows)
        missing = [dataset.class_names[label] for label in np.flatnonzero(counts == 0)]
        if missing and (name == "train" or name not in given or not len(rows)):
            raise InputError(
                f"{dataset.name}: class '{missing[0]}' has no image in {name}; "
                "add images, leave the class out, or drop the given split"
            )
        if missing:
            found.append(f"{name} has no image of {', '.join(missing)}")
    used = parts != ""
    lines = dataset.table["image"].to_numpy()[used] + "\t" + parts[used].astype(object)
    fingerprint = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    return Split(train, val, test, protocol, fingerprint, (*notes, *found))


def count_shared(dataset: Dataset, parts: np.ndarray) -> int:
    """Count groups with images in more than one part; an empty text is no part."""
    used = parts != ""
    members = pd.Series(parts[used]).groupby(dataset.table["group"].to_numpy()[used])
    return int((members.nunique() > 1).sum())


def check_fold(fold: int, *, folds: int) -> None:
    """Refuse a fold that there is not."""
    if not 1 <= fold <= folds:
        raise InputError(f"fold: expected 1 to {folds}, got {fold}")


def deal_folds(dataset: Dataset, *, folds: int, seed: int) -> np.ndarray:
    """Deal the groups of each class to folds, the largest first, always to the smallest fold.

    A group is dealt by the class of most of its images. Counted by those images, two folds differ
    in every class by at most one group's. scikit-learn's ``StratifiedGroupKFold`` is close to
    this, but its shuffled folds changed with version 1.8, and a protocol id must name the same
    images everywhere. Returns the fold of each image, from 1, ``int64 (N,)``.
    """
    if folds < 2:
        raise InputError(f"folds: expected 2 or more, got {folds}")
    fold_of = np.zeros(len(dataset), dtype=np.int64)
    totals = [0] * folds
    groups = list_groups(dataset.table)
    for label, name in enumerate(dataset.class_names):
        of_class = groups[groups["label"] == label]
        if 0 < len(of_class) < folds:
            raise InputError(
                f"{dataset.name}: class '{name}' has {len(of_class)} groups, too few for {folds} "
                "folds; take fewer folds or leave the class out"
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
    """Return the part of each image: test where ``tested``, validation drawn from the ``rest``."""
    _check_sizes([wanted])
    parts = np.where(tested, "test", "").astype("U5")
    free = np.flatnonzero(rest)
    parts[free] = draw_parts(
        dataset, free, wanted=[wanted], seed=seed, fold=" beside its test fold"
    )
    return parts


def draw_parts(
    dataset: Dataset, rows: np.ndarray, *, wanted: Sequence[Wanted], seed: int, fold: str = ""
) -> np.ndarray:
    """Give each of these rows a part, class by class and group by group.

    What is not drawn for ``wanted``, in its order, is ``"train"``; an empty text leaves the image
    out of all parts. ``fold`` says in the message where the rows are from.
    """
    parts = np.full(len(rows), "train", dtype="U5")
    groups = list_groups(dataset.table.iloc[rows])
    for label, name in enumerate(dataset.class_names):
        of_class = groups[groups["label"] == label]
        if of_class.empty:
            continue
        total, least = int(of_class["own"].sum()), len(wanted) + 1
        has = f"'{name}' has {total} image{'s' * (total > 1)} in {len(of_class)} group"
        has = f"{dataset.name}: class {has}{'s' * (len(of_class) > 1)}"
        if len(of_class) < least:
            raise InputError(
                f"{has}{fold}; a split needs at least {least} groups of each class; add images"
                f"{', take more folds' if fold else ''} or leave the class out"
            )
        left = of_class.loc[hashed_order(of_class.index, seed=seed)]
        for position, part in enumerate(wanted):
            reserve = len(wanted) - position  # groups that the later parts and training need
            if part.per_class:
                # A group of several classes would upset the balance: it stays in training.
                pure = left[left["own"] == left["places"].str.len()]
                impure = len(left) - len(pure)
                chosen, places = _take_exactly(pure, part.per_class, max(reserve - impure, 0))
                if len(places) < part.per_class:
                    raise InputError(
                        f"{has}, too few for {part.per_class} in {part.name} and a group in each "
                        "other part"
                    )
            else:
                chosen = _take_about(left, max(1, round(total * part.fraction)), reserve)
                places = [place for group in chosen for place in left.at[group, "places"]]
            for group in chosen:
                parts[left.at[group, "places"]] = ""
            parts[places] = part.name
            left = left.drop(chosen)
    return parts


def list_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List the groups of a table: label (of most images), own (how many have it) and places.

    The places are rows of the table ordered by image id: the order of the rows has no influence.
    """
    frame = table[["image", "group", "label"]].assign(place=np.arange(len(table)))
    frame = frame.sort_values("image")
    votes = frame.groupby(["group", "label"]).size().rename("own").reset_index()
    votes = votes.sort_values(["own", "label"], ascending=[False, True])
    winners = votes.drop_duplicates("group").set_index("group")
    return winners.join(frame.groupby("group")["place"].apply(list).rename("places"))


def _take_about(left: pd.DataFrame, count: int, reserve: int) -> list[str]:
    """Take the groups that fit into ``count`` images, in order; the smallest if none does."""
    chosen: list[str] = []
    for name, own in left["own"].items():
        if own <= count and len(chosen) < len(left) - reserve:
            chosen.append(str(name))
            count -= own
    return chosen or [str(left["own"].idxmin())]


def _take_exactly(left: pd.DataFrame, count: int, reserve: int) -> tuple[list[str], list[int]]:
    """Take ``count`` images; of the last group some may be left over. Fewer if impossible."""
    if left.empty:
        return [], []
    chosen = _take_about(left, count, reserve)
    places = [place for name in chosen for place in left.at[name, "places"]]
    others = left.drop(chosen).sort_values("own", kind="stable")
    if len(places) < count and len(others) > reserve:
        last = str(others.index[0])
        chosen.append(last)
        places += others.at[last, "places"]
    return chosen, places[:count]


def _draw_missing(
    dataset: Dataset, wanted: Sequence[Wanted], seed: int
) -> tuple[np.ndarray, list[Wanted]]:
    """Keep the parts that a data set gives and draw the others from its training part."""
    _check_sizes(wanted)
    given = dataset.table["split"].to_numpy().astype("U5")
    parts, has = given.copy(), set(given) - {""}
    if has and "train" not in has:
        raise InputError(f"{dataset.name}: the given split has no training part")
    drawn = [part for part in wanted if part.name not in has]
    if drawn:
        free = np.flatnonzero(given == ("train" if has else ""))
        parts[free] = draw_parts(dataset, free, wanted=drawn, seed=seed)
    return parts, drawn


def _check_sizes(wanted: Sequence[Wanted]) -> None:
    for part in wanted:
        if not 0 < part.fraction < 1:
            raise InputError(f"{part.name}_fraction: expected between 0 and 1, got {part.fraction}")
        if part.per_class < 0:
            raise InputError(f"{part.name}_per_class: expected 0 or more, got {part.per_class}")
    drawn = sum(part.fraction for part in wanted if not part.per_class)
    if drawn >= 1:
        raise InputError(f"val_fraction and test_fraction: expected a sum below 1, got {drawn:g}")


def _name_drawing(
    dataset: Dataset, drawn: Sequence[Wanted], seed: int, *, thinning: str = ""
) -> str:
    """Name what was drawn, and how, as a protocol id."""
    given = [name for name in ("val", "test") if name in set(dataset.table["split"])]
    start = dataset.name
    if any(dataset.table["split"]):
        start += f"/given-{'-'.join(given) or 'train'}" if drawn else "/given"
    steps = "-".join(filter(None, [thinning, *(part.label for part in drawn[::-1])]))
    return f"{start}/{_group_word(dataset)}/{steps}/seed{seed}" if steps else start


def _group_word(dataset: Dataset) -> str:
    """Say whether groups or single images were kept apart."""
    return "images" if dataset.table["group"].is_unique else "groups"


def _count_classes(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    labels = dataset.table["label"].to_numpy()[rows]
    return np.bincount(labels, minlength=len(dataset.class_names))
