"""Order and choose by hash: the same on every machine and for every order of the rows."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError

FEWEST_GROUPS = 3  # one each for train, validation and test


def hashed_order(names: Iterable[str], *, seed: int) -> list[str]:
    """Shuffle distinct names by their hash: the order depends on the names and the seed alone."""
    keys = {name: hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in set(names)}
    return sorted(keys, key=keys.__getitem__)


def share_out(counts: np.ndarray, *, total: int, least: int) -> np.ndarray:
    """Scale counts ``(K,)`` down to a total, in proportion, by largest remainders.

    No class falls below ``least``, or below its own count if that is smaller.
    """
    floor = np.minimum(counts, least)
    if total < floor.sum():
        rule = f"expected at least {floor.sum()}, {least} of each of the {len(counts)} classes"
        raise InputError(f"images: {rule}, got {total}")
    result = floor.copy()
    free = np.ones(len(counts), dtype=bool)
    # A class whose fair share is below its floor keeps the floor; the others share the rest.
    while True:
        share = (total - result[~free].sum()) * counts / max(counts[free].sum(), 1)
        low = free & (share < floor)
        if not low.any():
            break
        free &= ~low
    whole = np.floor(share[free]).astype(np.int64)
    result[free] = whole
    remainder = np.zeros(len(counts))
    remainder[free] = share[free] - whole
    result[np.argsort(-remainder, kind="stable")[: total - result.sum()]] += 1
    return result


def choose_rows(table: pd.DataFrame, *, images: int, seed: int) -> np.ndarray:
    """Choose at most so many images in proportion to the classes, by whole groups where they fit.

    Returns sorted row numbers; each class keeps images of three groups if it has them.
    """
    if images >= len(table):
        return np.arange(len(table))
    targets = share_out(np.bincount(table["label"]), total=images, least=FEWEST_GROUPS)
    frame = table[["image", "group", "label"]].assign(row=np.arange(len(table)))
    chosen: list[int] = []
    for label, part in frame.sort_values("image").groupby("label"):
        members = part.groupby("group")["row"].apply(list).to_dict()
        room = int(targets[label])
        for number, name in enumerate(hashed_order(members, seed=seed)):
            rows = members[name]
            if number < FEWEST_GROUPS:  # may be cut, so that all three have room
                to_come = min(FEWEST_GROUPS, len(members)) - number - 1
                rows = rows[: room - to_come]
            if len(rows) <= room:
                chosen += rows
                room -= len(rows)
    return np.sort(np.array(chosen, dtype=np.int64))
