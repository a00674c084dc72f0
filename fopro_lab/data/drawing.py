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
    groups = _list_groups(dataset.table.iloc[rows])
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


def _list_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List each group's class (that of most of its pictures), how many it has of it, and places.

    Places count rows of ``table``, ordered by picture id: the order of the rows has no say.
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
