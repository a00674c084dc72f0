"""A long tail of a chosen ratio: the rule behind ISIC-2019-LT, for any data set."""

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


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three parts, sorted, and how they came about.

    Attributes:
        train: ``int64`` rows.
        val: Rows on which epochs and knobs are chosen.
        test: Rows that choose nothing; a method is scored on them once.
        protocol: Names data, rule and seed; results of two protocols are never averaged.
        fingerprint: SHA-256 over every image's id and part, whatever the order of the rows.
        notes: What a reader of the results should know of the parts, a line each.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset
        >>> dataset = open_dataset("phantom", images=40)
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
        """Return the number of training images of each class, ``int64 (K,)``."""
        labels = dataset.table["label"].to_numpy()[self.train]
        return np.bincount(labels, minlength=len(dataset.class_names))

    def shared_groups(self, dataset: Dataset) -> int:
        """Count groups with images in more than one part; 0 unless a given split leaks."""
        part = pd.Series("", index=range(len(dataset)))
        for name in PARTS:
            part.iloc[getattr(self, name)] = name
        return count_shared(dataset, part.to_numpy())


def count_shared(dataset: Dataset, parts: np.ndarray) -> int:
    """Count groups with images in more than one part.

    Args:
        dataset: The images.
        parts: Part of each image, ``(N,)``; an empty text is none.

    Returns:
        Number of groups.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", images=100)
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
    """Turn the part of each image into a split, if every class can be trained.

    Args:
        dataset: The images.
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
        >>> dataset = open_dataset("phantom", images=24)
        >>> make_parts(dataset, np.array(["train", "val", "test"] * 8), "toy").val
        array([ 1,  4,  7, 10, 13, 16, 19, 22])
    """
    gone = dataset.left_out
    told = [f"left out, cannot be read: {gone:,} image{'s' * (gone > 1)}"] if gone else []
    for name in PARTS:
        missing = _missing_classes(dataset, parts == name)
        if missing and (name == "train" or name not in given or not (parts == name).any()):
            raise InputError(
                f"{dataset.name}: class '{missing[0]}' has no image in {name}; "
                "add images, leave the class out, or drop the given split"
            )
        if missing:
            told.append(f"{name} has no image of {', '.join(missing)}")
    used = parts != ""
    lines = dataset.table["image"].to_numpy()[used] + "\t" + parts[used].astype(object)
    fingerprint = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    train, val, test = (np.flatnonzero(parts == name) for name in PARTS)
    return Split(train, val, test, protocol, fingerprint, (*notes, *told))


def _missing_classes(dataset: Dataset, chosen: np.ndarray) -> list[str]:
    labels = dataset.table["label"].to_numpy()[chosen]
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    return [name for name, n in zip(dataset.class_names, counts, strict=True) if not n]


class Wanted(NamedTuple):
    """A part to draw: a share of each class or, if above 0, a number of images a class.

    Example:
        >>> Wanted("val", 0.15).per_class
        0
    """

    name: str
    fraction: float
    per_class: int = 0

    @property
    def label(self) -> str:
        """The part and its size, as a protocol id tells it.

        Example:
            >>> Wanted("test", 0.25, per_class=100).label
            'test100'
        """
        return f"{self.name}{self.per_class or format(self.fraction, 'g')}"


def draw_missing(
    dataset: Dataset, *, wanted: Sequence[Wanted], seed: int
) -> tuple[np.ndarray, list[Wanted]]:
    """Keep the parts that a data set gives and draw the others from the rest.

    Args:
        dataset: The images; its column ``split`` is honoured.
        wanted: Test and validation, in the order in which they are drawn.
        seed: Another seed gives other parts.

    Returns:
        Part of each image, ``(N,)``, and those of ``wanted`` that were drawn.

    Raises:
        InputError: If sizes are out of range, the given split has no training part, or as
            `draw_parts`.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", images=24)
        >>> parts, drawn = draw_missing(dataset, wanted=[Wanted("test", 0.3)], seed=0)
        >>> (parts == "test").sum(), [part.name for part in drawn]
        (np.int64(8), ['test'])
    """
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


def name_drawing(
    dataset: Dataset, drawn: Sequence[Wanted], *, seed: int, thinning: str = ""
) -> str:
    """Name what was drawn, and how, as a protocol id.

    Args:
        dataset: The images.
        drawn: As `draw_missing` returns it.
        seed: Of the drawing.
        thinning: What was done to the training part afterwards.

    Returns:
        The id.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> name_drawing(open_dataset("phantom"), [Wanted("val", 0.15)], seed=3)
        'phantom/groups/val0.15/seed3'
    """
    given = [name for name in ("val", "test") if name in set(dataset.table["split"])]
    start = dataset.name
    if any(dataset.table["split"]):
        start += f"/given-{'-'.join(given) or 'train'}" if drawn else "/given"
    sizes = [part.label for part in drawn[::-1]]
    steps = "-".join([thinning, *sizes] if thinning else sizes)
    return f"{start}/{group_word(dataset)}/{steps}/seed{seed}" if steps else start


def group_word(dataset: Dataset) -> str:
    """Tell whether a rule kept groups or single images apart.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> group_word(open_dataset("phantom"))
        'groups'
    """
    return "images" if dataset.table["group"].is_unique else "groups"


def draw_parts(
    dataset: Dataset, rows: np.ndarray, *, wanted: Sequence[Wanted], seed: int
) -> np.ndarray:
    """Give each of some images a part, class by class and group by group.

    Args:
        dataset: The images.
        rows: Those to share out, ``(N,)``.
        wanted: What to draw, in this order; the rest is ``"train"``.
        seed: Another seed gives other parts.

    Returns:
        Part of each image, ``(N,)``; an empty text leaves it out of all parts.

    Raises:
        InputError: If a class has too few groups, or too few images for ``per_class``.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", images=24)
        >>> parts = draw_parts(dataset, np.arange(24), wanted=[Wanted("test", 0.3)], seed=0)
        >>> (parts == "test").sum(), (parts == "train").sum()
        (np.int64(8), np.int64(16))
    """
    parts = np.full(len(rows), "train", dtype="U5")
    groups = list_groups(dataset.table.iloc[rows])
    for label, of_class in groups.groupby("label"):
        left = of_class.loc[hashed_order(of_class.index, seed=seed)]
        _refuse_too_few(dataset, int(str(label)), left, least=len(wanted) + 1)
        total = int(left["own"].sum())
        for position, part in enumerate(wanted):
            reserve = len(wanted) - position  # groups that the later parts and training need
            if part.per_class:
                # A group of several classes would upset the balance: it stays in training.
                pure = left[left["own"] == left["places"].str.len()]
                impure = len(left) - len(pure)
                chosen, places = _take_exactly(pure, part.per_class, max(reserve - impure, 0))
                if len(places) < part.per_class:
                    raise InputError(
                        f"{dataset.name}: class '{dataset.class_names[int(str(label))]}' has "
                        f"{total} images in {len(of_class)} groups, too few for "
                        f"{part.per_class} in {part.name} and a group in each other part"
                    )
            else:
                count = max(1, round(total * part.fraction))
                chosen = _take_about(left, count, reserve)
                places = [place for name in chosen for place in left.at[name, "places"]]
            for name in chosen:
                parts[left.at[name, "places"]] = ""
            parts[places] = part.name
            left = left.drop(chosen)
    return parts


def list_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List each group's class (that of most of its images), how many it has of it, and places.

    Args:
        table: Columns ``image``, ``group``, ``label``.

    Returns:
        A row a group, named by it: ``label``, ``own`` and ``places``, the rows of ``table``
        ordered by image id, so that the order of the rows has no say.

    Example:
        >>> table = pd.DataFrame({"image": list("bac"), "group": list("xxy"), "label": [1, 1, 0]})
        >>> list_groups(table).loc["x", "places"]
        [1, 0]
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
    room = count
    for name, own in left["own"].items():
        if own <= room and len(chosen) < len(left) - reserve:
            chosen.append(str(name))
            room -= own
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


def _refuse_too_few(dataset: Dataset, label: int, groups: pd.DataFrame, *, least: int) -> None:
    if len(groups) < least:
        images = int(groups["own"].sum())
        has = f"{images} image{'s' * (images > 1)}"
        if images > len(groups):
            has += f" in {len(groups)} group{'s' * (len(groups) > 1)}"
        raise InputError(
            f"{dataset.name}: class '{dataset.class_names[label]}' has {has}; a split needs at "
            f"least {least} groups of each class; add images or leave the class out"
        )


def _check_sizes(wanted: Sequence[Wanted]) -> None:
    for part in wanted:
        if not 0 < part.fraction < 1:
            raise InputError(f"{part.name}_fraction: expected between 0 and 1, got {part.fraction}")
        if part.per_class < 0:
            raise InputError(f"{part.name}_per_class: expected 0 or more, got {part.per_class}")
    drawn = sum(part.fraction for part in wanted if not part.per_class)
    if drawn >= 1:
        raise InputError(f"val_fraction and test_fraction: expected a sum below 1, got {drawn:g}")


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

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> split = make_folds(open_dataset("phantom", images=200), folds=3, fold=3)
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

    A group is dealt by the class that most of its images have. Counted by those images, two
    folds differ in every class by at most one group's. A group's images of other classes go
    with it uncounted, so where groups have mixed labels a class may differ by more.
    scikit-learn's ``StratifiedGroupKFold`` is close to this, but its shuffled folds changed with
    version 1.8, and a protocol id must name the same images everywhere.

    Args:
        dataset: The images.
        folds: How many, 2 or more.
        seed: Another seed deals other folds.

    Returns:
        Fold of each image, from 1, ``int64 (N,)``; the order of the rows has no say.

    Raises:
        InputError: If a class has fewer groups than there are folds.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> np.bincount(deal_folds(open_dataset("phantom", images=200), folds=3, seed=0))
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
        dataset: The images.
        tested: Those of the test part, ``bool (N,)``.
        wanted: The validation part.
        rest: Those to draw from, ``bool (N,)``; what is in neither belongs to no part.
        seed: Another seed draws another one.

    Returns:
        Part of each image, ``(N,)``.

    Raises:
        InputError: If a class has too few groups outside of the test part.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> tested = np.arange(40) % 4 == 0
        >>> dataset = open_dataset("phantom", images=40)
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


ISIC2019_TOTALS = (12875, 4522, 3323, 2624, 867, 628, 253, 239)  # NV MEL BCC BKL AK SCC VASC DF
ISIC2019_HELD_OUT = 150  # images of each class: 50 for validation, 100 for test


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

    Args:
        dataset: The images; a given split is honoured, only its training part is thinned.
        ratio: Smallest to largest class, in (0, 1].
        val_fraction: As in `make_split`.
        test_fraction: As in `make_split`.
        val_per_class: As in `make_split`.
        test_per_class: As in `make_split`.
        seed: Another seed gives another split.

    Returns:
        The split.

    Raises:
        InputError: As `make_split`, or if a class would keep no training image.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", images=800)
        >>> split = make_long_tail(dataset, ratio=0.01, val_per_class=1, test_per_class=2)
        >>> split.protocol, split.class_counts(dataset).tolist()
        ('phantom-800/groups/longtail0.01-val1-test2/seed0', [385, 198, 101, 51, 25, 11, 4, 1])
    """
    _check_ratio(ratio)
    wanted = (
        Wanted("test", test_fraction, test_per_class),
        Wanted("val", val_fraction, val_per_class),
    )
    parts, drawn = draw_missing(dataset, wanted=wanted, seed=seed)
    labels = dataset.table["label"].to_numpy()
    totals = np.bincount(labels, minlength=len(dataset.class_names))
    left = np.bincount(labels[parts == "train"], minlength=len(dataset.class_names))
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
    protocol = name_drawing(dataset, drawn, seed=seed, thinning=f"longtail{ratio:g}")
    given = set(PARTS) - {part.name for part in drawn}
    return make_parts(dataset, _thin(dataset, parts, counts, seed), protocol, given=given)


def long_tail_counts(left: Sequence[int], *, ratio: float, largest: int) -> list[int]:
    """Return the training images of each class under an exponential tail.

    Args:
        left: Images that may be trained on, the K classes in the order of their size.
        ratio: Smallest to largest class before the cap, in (0, 1].
        largest: Images from which the curve starts.

    Returns:
        ``n_i = min(floor(largest ratio^(i/(K-1))), left_i)`` for the ranks 0 to K-1.

    Raises:
        InputError: If the ratio is not in (0, 1].

    Source: Cui et al., CVPR 2019, arXiv:1901.05555, sec. 5.1, for the exponential tail; the cap is
        the one that reproduces FoPro-KD's files.

    Example:
        >>> long_tail_counts([90, 40, 30], ratio=0.01, largest=100)
        [90, 10, 1]
    """
    _check_ratio(ratio)
    steps = max(len(left) - 1, 1)
    # A hair above: 32 x (1/32)^(2/5) is 8, where double precision says 7.999999999999999.
    curve = [int(largest * ratio ** (rank / steps) * (1 + 1e-12)) for rank in range(len(left))]
    return [min(images, most) for images, most in zip(curve, left, strict=True)]


def isic2019_lt_counts(ratio: float) -> list[int]:
    """Return ISIC-2019-LT's training images of each class, largest class first.

    Args:
        ratio: Smallest to largest class before the cap, e.g. 0.01, 0.005, 0.002.

    Returns:
        ``n_i = min(floor(12875 ratio^(i/7)), total_i - 150)`` for the ranks 0 to 7; 150 images
        of each class are kept for validation and test.

    Raises:
        InputError: If the ratio is not in (0, 1].

    Source: the split files published with FoPro-KD (Elbatel et al., IEEE TMI 43(3), 2024).

    Example:
        >>> isic2019_lt_counts(0.01)
        [12725, 4372, 3173, 1788, 717, 478, 103, 89]
    """
    left = [total - ISIC2019_HELD_OUT for total in ISIC2019_TOTALS]
    return long_tail_counts(left, ratio=ratio, largest=ISIC2019_TOTALS[0])


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise InputError(f"ratio: expected above 0 and at most 1, got {ratio}")


def _thin(dataset: Dataset, parts: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Keep so many training images of each class, by whole groups but for the last."""
    table = dataset.table[["image", "group", "label"]].assign(row=np.arange(len(dataset)))
    training = table[parts == "train"]
    place = {name: i for i, name in enumerate(hashed_order(training["group"], seed=seed))}
    training = training.assign(place=training["group"].map(place)).sort_values(["place", "image"])
    rank = training.groupby("label").cumcount().to_numpy()
    thinned = parts.copy()
    thinned[training["row"].to_numpy()[rank >= counts[training["label"].to_numpy()]]] = ""
    return thinned
