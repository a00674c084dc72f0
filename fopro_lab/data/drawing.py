"""Draw validation and test pictures class by class, without tearing a group apart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.sampling import hashed_order
from fopro_lab.errors import InputError


class Wanted(NamedTuple):
    """A part to draw: a share of each class or, if above 0, a number of pictures a class.

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
        dataset: The pictures; its column ``split`` is honoured.
        wanted: Test and validation, in the order in which they are drawn.
        seed: Another seed gives other parts.

    Returns:
        Part of each picture, ``(N,)``, and those of ``wanted`` that were drawn.

    Raises:
        InputError: If sizes are out of range, the given split has no training part, or as
            `draw_parts`.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=24)
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
        dataset: The pictures.
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
    """Tell whether a rule kept groups or single pictures apart.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> group_word(open_dataset("phantom"))
        'groups'
    """
    return "pictures" if dataset.table["group"].is_unique else "groups"


def draw_parts(
    dataset: Dataset, rows: np.ndarray, *, wanted: Sequence[Wanted], seed: int
) -> np.ndarray:
    """Give each of some pictures a part, class by class and group by group.

    Args:
        dataset: The pictures.
        rows: Those to share out, ``(N,)``.
        wanted: What to draw, in this order; the rest is ``"train"``.
        seed: Another seed gives other parts.

    Returns:
        Part of each picture, ``(N,)``; an empty text leaves it out of all parts.

    Raises:
        InputError: If a class has too few groups, or too few pictures for ``per_class``.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", pictures=24)
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
                        f"{total} pictures in {len(of_class)} groups, too few for "
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
    """List each group's class (that of most of its pictures), how many it has of it, and places.

    Args:
        table: Columns ``image``, ``group``, ``label``.

    Returns:
        A row a group, named by it: ``label``, ``own`` and ``places``, the rows of ``table``
        ordered by picture id, so that the order of the rows has no say.

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
    """Take the groups that fit into ``count`` pictures, in order; the smallest if none does."""
    chosen: list[str] = []
    room = count
    for name, own in left["own"].items():
        if own <= room and len(chosen) < len(left) - reserve:
            chosen.append(str(name))
            room -= own
    return chosen or [str(left["own"].idxmin())]


def _take_exactly(left: pd.DataFrame, count: int, reserve: int) -> tuple[list[str], list[int]]:
    """Take ``count`` pictures; of the last group some may be left over. Fewer if impossible."""
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
        pictures = int(groups["own"].sum())
        has = f"{pictures} picture{'s' * (pictures > 1)}"
        if pictures > len(groups):
            has += f" in {len(groups)} group{'s' * (len(groups) > 1)}"
        raise InputError(
            f"{dataset.name}: class '{dataset.class_names[label]}' has {has}; a split needs at "
            f"least {least} groups of each class; add pictures or leave the class out"
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
