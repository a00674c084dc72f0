"""Split images into train, val and test: by class, keeping groups together; folds; long tails."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data.dataset import Dataset
from fopro_lab.data.readers import PARTS
from fopro_lab.data.sampling import hashed_order
from fopro_lab.errors import InputError
from fopro_lab.io import Summary, sha256_text


@dataclass(frozen=True, eq=False, repr=False)
class Split(Summary):
    """Row numbers of the three parts, sorted, and how they came about."""

    _shown = ("train", "val", "test", "protocol")

    train: np.ndarray  # int64 rows
    val: np.ndarray  # rows on which epochs and options are chosen
    test: np.ndarray  # rows that choose nothing; a method is scored on them once
    protocol: str  # names data, rule and seed; results of two protocols are never averaged
    fingerprint: str  # SHA-256 over every image's id and part, whatever the order of the rows
    notes: tuple[str, ...] = ()  # what a reader of the results should know of the parts
    data: str = ""  # fingerprint of the data set whose rows they are; empty if made by hand

    def class_counts(self, dataset: Dataset) -> np.ndarray:
        """Return the number of training images of each class, ``int64 (K,)``."""
        return _count_classes(dataset, self.train)

    def parts(self, count: int) -> np.ndarray:
        """Return the part of each of ``count`` rows, an empty text for none."""
        parts = np.full(count, "", dtype="U5")
        for name in PARTS:
            parts[getattr(self, name)] = name
        return parts

    def group_leakage(self, dataset: Dataset) -> pd.DataFrame:
        """List the groups that have images in two parts or more, and how many in each.

        There are none unless a given split leaks.
        """
        parts = self.parts(len(dataset))
        used = parts != ""
        counts = pd.crosstab(dataset.table["group"].to_numpy()[used], parts[used])
        counts = counts.reindex(columns=list(PARTS), fill_value=0)
        shared = counts[(counts > 0).sum(axis=1) > 1]
        return shared.rename_axis(index="group", columns=None).reset_index()


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
    they are, and a class that one lacks is named in the split's notes; those that it does not give
    are drawn from the given training part: shares of each class, together below 1, or exactly
    ``..._per_class`` images of every class if that is above 0. What a group has beyond these
    belongs to no part. Another ``seed`` gives another split.

    Raises:
        InputError: If a class has fewer than three groups or is missing from training.
    """
    test = Wanted("test", test_fraction, test_per_class)
    wanted = (test, Wanted("val", val_fraction, val_per_class))
    parts, drawn, protocol = _draw_missing(dataset, wanted, seed=seed)
    return build_split(dataset, parts, protocol, drawn={part.name for part in drawn})


def make_folds(
    dataset: Dataset,
    *,
    folds: int = 5,
    fold: int = 1,
    val_fraction: float = 0.15,
    val_per_class: int = 0,
    seed: int = 0,
    ratio: float | None = None,
) -> Split:
    """Test on one of several folds, validate on a share of the others, train on the rest.

    The test parts of all ``folds``, 2 or more, are a partition of the data set; ``fold``, from 1,
    is the one. Validation, a share of the other folds, is drawn as by `make_split`; a given split
    is passed over. With a ``ratio`` training is thinned to a long tail, as by `make_long_tail`.

    Raises:
        InputError: If a class has fewer groups than there are folds, or ``fold`` is not one, or
            if a class would keep no training image.
    """
    check_fold(fold, folds=folds)
    fold_of = deal_folds(dataset, folds=folds, seed=seed)
    wanted = Wanted("val", val_fraction, val_per_class)
    parts = draw_validation(dataset, fold_of, wanted, fold=fold, seed=seed)
    thinning = ""
    if ratio is not None:
        thin(dataset, parts, ratio=ratio, seed=seed)
        thinning = f"longtail{ratio:g}-"
    rule = f"{_unit_name(dataset)}/{thinning}folds{folds}-{wanted.label}"
    protocol = f"{dataset.name}/{rule}/seed{seed}/fold{fold}"
    notes = ["the split that the data set gives is passed over"] * any(dataset.table["split"])
    return build_split(dataset, parts, protocol, notes=notes)


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
    """Draw validation and test as `make_split` does, then thin training to a long tail.

    Classes keep their order by size and get `long_tail_counts` training images; thinned images
    belong to no part. With ``val_per_class=50, test_per_class=100`` this is the rule of
    ISIC-2019-LT, whose curve starts from all images of the largest class. If validation and test
    are shares, or given, the curve starts from the largest class's training images, so that
    ``ratio``, the smallest to the largest class in (0, 1], is the training part's own.

    Raises:
        InputError: As `make_split`, or if a class would keep no training image.
    """
    test = Wanted("test", test_fraction, test_per_class)
    wanted = (test, Wanted("val", val_fraction, val_per_class))
    thinning = f"longtail{ratio:g}"
    parts, drawn, protocol = _draw_missing(dataset, wanted, seed=seed, thinning=thinning)
    balanced = len(drawn) == len(wanted) and all(part.per_class for part in drawn)
    thin(dataset, parts, ratio=ratio, seed=seed, of_all=balanced)
    return build_split(dataset, parts, protocol, drawn={part.name for part in drawn})


def thin(
    dataset: Dataset, parts: np.ndarray, *, ratio: float, seed: int, of_all: bool = False
) -> None:
    """Thin training to a long tail, in place; its curve may start from all images of a class."""
    totals = _count_classes(dataset, np.arange(len(dataset)))
    left = _count_classes(dataset, np.flatnonzero(parts == "train"))
    ranked = np.argsort(-totals, kind="stable")
    largest = int((totals if of_all else left)[ranked[0]])
    counts = np.zeros_like(left)
    counts[ranked] = long_tail_counts(left[ranked].tolist(), ratio=ratio, largest=largest)
    for label in np.flatnonzero((counts == 0) & (left > 0)):
        of = f"of the {totals[label]} images of '{dataset.class_names[label]}' in {dataset.name}"
        raise InputError(f"tail_ratio: expected a larger one, got {ratio:g}: {of} none is left")
    # Keep so many training images of each class, by whole groups except for the last.
    training = dataset.table.reset_index(drop=True)[parts == "train"]
    order = {name: i for i, name in enumerate(hashed_order(training["group"], seed=seed))}
    training = training.assign(place=training["group"].map(order)).sort_values(["place", "image"])
    rank = training.groupby("label").cumcount()
    parts[training.index[rank >= counts[training["label"]]]] = ""


def long_tail_counts(left: Sequence[int], *, ratio: float, largest: int) -> list[int]:
    """Return ``min(floor(largest ratio^(i/(K-1))), left_i)`` of K classes ordered by size.

    Source: Cui et al., CVPR 2019, arXiv:1901.05555, sec. 5.1, for the exponential tail; the cap,
        the ``left`` images that may be trained on, is the one that reproduces FoPro-KD's files.
    """
    if not 0 < ratio <= 1:
        raise InputError(f"ratio: expected above 0 and at most 1, got {ratio}")
    steps = max(len(left) - 1, 1)
    # A hair above: 32 x (1/32)^(2/5) is 8, where double precision says 7.999999999999999.
    curve = (int(largest * ratio ** (rank / steps) * (1 + 1e-12)) for rank in range(len(left)))
    return list(map(min, curve, left))


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
    drawn: Collection[str] = PARTS,
    notes: Iterable[str] = (),
) -> Split:
    """Turn the part of each image, an empty text for none, into a split.

    A part that lacks a class is refused; but what a validation or test that was given, not
    ``drawn``, lacks is noted.
    """
    gone = dataset.left_out
    found = [f"left out, cannot be read: {gone:,} image{'s' * (gone > 1)}"] if gone else []
    train, val, test = (np.flatnonzero(parts == name) for name in PARTS)
    for name, rows in zip(PARTS, (train, val, test), strict=True):
        counts = _count_classes(dataset, rows)
        missing = [dataset.class_names[label] for label in np.flatnonzero(counts == 0)]
        if missing and (name == "train" or name in drawn or not len(rows)):
            way_out = "add images, leave the class out, or drop the given split"
            what = f"class '{missing[0]}' has no image in {name}"
            raise InputError(f"{dataset.name}: {what}; {way_out}")
        if missing:
            found.append(f"{name} has no image of {', '.join(missing)}")
    used = parts != ""
    lines = dataset.table["image"].to_numpy()[used] + "\t" + parts[used].astype(object)
    fingerprint = sha256_text("\n".join(sorted(lines)))
    return Split(train, val, test, protocol, fingerprint, (*notes, *found), dataset.fingerprint)


def check_split(split: Split, dataset: Dataset) -> None:
    """Refuse a split with an empty part, or whose rows are not known to be a data set's."""
    for name in PARTS:
        if not len(getattr(split, name)):
            way_out = "move some there, or let make_split draw the parts"
            raise InputError(f"split: expected images in each part, got none in {name}; {way_out}")
    rows = np.concatenate([split.train, split.val, split.test])
    if split.data not in ("", dataset.fingerprint) or rows.max() >= len(dataset):
        rule = f"expected rows below {len(dataset)}, of these images ({dataset.name})"
        way_out = "split those of the pack: make_split(pack.dataset)"
        raise InputError(f"split: {rule}, got {split.protocol}, of others; {way_out}")


def check_fold(fold: int, *, folds: int) -> None:
    """Refuse a fold that there is not."""
    if not 1 <= fold <= folds:
        raise InputError(f"fold: expected 1 to {folds}, got {fold}")


def deal_folds(dataset: Dataset, *, folds: int, seed: int) -> np.ndarray:
    """Deal the groups of each class to folds, the largest first, always to the smallest fold.

    Returns the fold of each image, from 1, ``int64 (N,)``; two folds differ in a class by at most
    one group's images.
    """
    # Not StratifiedGroupKFold: its shuffled folds changed with scikit-learn 1.8, and a protocol id
    # must name the same images everywhere.
    if folds < 2:
        raise InputError(f"folds: expected 2 or more, got {folds}")
    fold_of = np.zeros(len(dataset), dtype=np.int64)
    totals = [0] * folds
    groups = list_groups(dataset.table)
    for label, name in enumerate(dataset.class_names):
        of_class = groups[groups["label"] == label]
        if 0 < len(of_class) < folds:
            has = f"class '{name}' has {len(of_class)} groups, too few for {folds} folds"
            raise InputError(f"{dataset.name}: {has}; take fewer folds or leave the class out")
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
    dataset: Dataset, fold_of: np.ndarray, wanted: Wanted, *, fold: int, seed: int
) -> np.ndarray:
    """Return the part of each image: its fold is tested, validation drawn from the other ones."""
    _check_sizes([wanted])
    parts = np.where(fold_of == fold, "test", "").astype("U5")
    rest = np.flatnonzero((fold_of != fold) & (fold_of > 0))
    parts[rest] = draw_parts(dataset, rest, wanted=[wanted], seed=seed, folds=True)
    return parts


def draw_parts(
    dataset: Dataset, rows: np.ndarray, *, wanted: Sequence[Wanted], seed: int, folds: bool = False
) -> np.ndarray:
    """Give each of these rows a part, class by class and group by group.

    What is not drawn for ``wanted``, in its order, is ``"train"``; an empty text is no part.
    """
    parts = np.full(len(rows), "train", dtype="U5")
    groups = list_groups(dataset.table.iloc[rows])
    for label, name in enumerate(dataset.class_names):
        of_class = groups[groups["label"] == label]
        if of_class.empty:
            continue
        total, least = int(of_class["own"].sum()), len(wanted) + 1
        has = f"{dataset.name}: class '{name}' has {total} image(s) in {len(of_class)} group(s)"
        if len(of_class) < least:
            rule = f"a split needs at least {least} groups of each class"
            way_out = f"add images{', take more folds' * folds} or leave the class out"
            raise InputError(f"{has}{' beside its test fold' * folds}; {rule}; {way_out}")
        left = of_class.loc[hashed_order(of_class.index, seed=seed)]
        for position, part in enumerate(wanted):
            reserve = len(wanted) - position  # groups that the later parts and training need
            if part.per_class:
                # A group of several classes would upset the balance: it stays in training.
                pure = left[left["own"] == left["places"].str.len()]
                impure = len(left) - len(pure)
                chosen, places = _take_exactly(pure, part.per_class, max(reserve - impure, 0))
                if len(places) < part.per_class:
                    wish = f"{part.per_class} in {part.name} and a group in each other part"
                    raise InputError(f"{has}, too few for {wish}")
            else:
                chosen = _take_about(left, max(1, round(total * part.fraction)), reserve)
                places = [place for group in chosen for place in left.at[group, "places"]]
            for group in chosen:
                parts[left.at[group, "places"]] = ""
            parts[places] = part.name
            left = left.drop(chosen)
    return parts


def list_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List the groups of a table: label (of most images), own (how many have it) and places."""
    frame = table[["image", "group", "label"]].assign(place=np.arange(len(table)))
    frame = frame.sort_values("image")  # so that the order of the rows has no influence
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
    dataset: Dataset, wanted: Sequence[Wanted], *, seed: int, thinning: str = ""
) -> tuple[np.ndarray, list[Wanted], str]:
    """Keep the parts that a data set gives and draw the others from its training part.

    Returns the part of each image, what was drawn, and the protocol id.
    """
    _check_sizes(wanted)
    parts = dataset.table["split"].to_numpy().astype("U5")
    has = set(parts) - {""}
    if has and "train" not in has:
        raise InputError(f"{dataset.name}: the given split has no training part")
    for part in wanted:
        if part.per_class and part.name in has:
            rule = f"expected 0, for {dataset.name} gives its {part.name} part"
            way_out = "leave it out, or draw another split: split_column=none for a table"
            raise InputError(f"{part.name}_per_class: {rule}, got {part.per_class}; {way_out}")
    drawn = [part for part in wanted if part.name not in has]
    protocol = dataset.name
    if has:
        given = "-".join(name for name in ("val", "test") if name in has) or "train"
        protocol += f"/given-{given}" if drawn else "/given"
    if drawn:
        free = np.flatnonzero(parts == ("train" if has else ""))
        parts[free] = draw_parts(dataset, free, wanted=drawn, seed=seed)
    steps = [thinning] * bool(thinning) + [part.label for part in drawn[::-1]]
    if steps:
        protocol += f"/{_unit_name(dataset)}/{'-'.join(steps)}/seed{seed}"
    return parts, drawn, protocol


def _check_sizes(wanted: Sequence[Wanted]) -> None:
    for part in wanted:
        if not 0 < part.fraction < 1:
            raise InputError(f"{part.name}_fraction: expected between 0 and 1, got {part.fraction}")
        if part.per_class < 0:
            raise InputError(f"{part.name}_per_class: expected 0 or more, got {part.per_class}")
    drawn = sum(part.fraction for part in wanted if not part.per_class)
    if drawn >= 1:
        raise InputError(f"val_fraction and test_fraction: expected a sum below 1, got {drawn:g}")


def _unit_name(dataset: Dataset) -> str:
    """Say in a protocol id whether groups or single images were kept apart."""
    return "images" if dataset.table["group"].is_unique else "groups"


def _count_classes(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    return np.bincount(dataset.table["label"].to_numpy()[rows], minlength=len(dataset.class_names))
