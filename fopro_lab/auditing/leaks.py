"""Leaks: what the parts of a split share that they should not."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fopro_lab.data import Split

PARTS = ("train", "val", "test")
TIES = ("group", "copy", "lookalike")  # by which a picture is tied to one of another part
TESTED = (("test", "train"), ("test", "val"), ("val", "train"))


def row_parts(split: Split, count: int) -> np.ndarray:
    """Return the part of each row: "train", "val", "test", or "" if the split leaves it out.

    Example:
        >>> rows = [np.array([0]), np.array([2]), np.array([3])]
        >>> row_parts(Split(*rows, protocol="", fingerprint=""), 4).tolist()
        ['train', '', 'val', 'test']
    """
    parts = np.full(count, "", dtype="U5")
    for name in PARTS:
        parts[getattr(split, name)] = name
    return parts


def torn_groups(table: pd.DataFrame, parts: np.ndarray) -> pd.DataFrame:
    """List the groups that have pictures in two parts or more.

    Args:
        table: Of the data set: group.
        parts: Of `row_parts`.

    Returns:
        Columns ``group``, ``train``, ``val``, ``test`` (pictures), by group.

    Example:
        >>> table = pd.DataFrame({"group": ["a", "a", "b"]})
        >>> torn_groups(table, np.array(["train", "test", "test"])).values.tolist()
        [['a', 1, 0, 1]]
    """
    used = parts != ""
    counts = pd.crosstab(table["group"].to_numpy()[used], parts[used])
    counts = counts.reindex(columns=list(PARTS), fill_value=0)
    torn = counts[(counts > 0).sum(axis=1) > 1]
    return torn.rename_axis(index="group", columns=None).reset_index()


def tie_pictures(
    table: pd.DataFrame, parts: np.ndarray, *, content: np.ndarray, lookalikes: pd.DataFrame
) -> pd.DataFrame:
    """Tell which pictures of test and validation are tied to one of another part.

    Args:
        table: Of the data set: image, label, group.
        parts: Of `row_parts`.
        content: Of `same_content`.
        lookalikes: Of `find_lookalikes`, over the first row of each content.

    Returns:
        A row for each picture and other part (test and train, test and val, val and train):
        ``image``, ``label``, ``part``, ``other``, and whether it is tied by its ``group``, a
        ``copy``, a ``lookalike``, or ``any`` of them.

    Example:
        >>> table = pd.DataFrame({"image": list("abc"), "label": 0, "group": list("aac")})
        >>> none = pd.DataFrame({"first": [], "second": []})
        >>> parts = np.array(["train", "test", "test"])
        >>> ties = tie_pictures(table, parts, content=np.arange(3), lookalikes=none)
        >>> ties[ties["other"] == "train"][["image", "group", "copy"]].values.tolist()
        [['b', True, False], ['c', False, False]]
    """
    groups = table["group"].to_numpy()
    pairs = lookalikes[["first", "second"]].to_numpy(dtype=np.int64)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    found = []
    for part, other in TESTED:
        rows, others = np.flatnonzero(parts == part), np.flatnonzero(parts == other)
        alike = pairs[np.isin(pairs[:, 1], content[others]), 0]
        ties = {
            "group": np.isin(groups[rows], groups[others]),
            "copy": np.isin(content[rows], content[others]),
            "lookalike": np.isin(content[rows], alike),
        }
        told = table.iloc[rows][["image", "label"]].reset_index(drop=True)
        told = told.assign(part=part, other=other, **ties)
        found.append(told.assign(any=told[list(TIES)].any(axis=1)))
    return pd.concat(found, ignore_index=True)


def count_ties(ties: pd.DataFrame, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Count the tied pictures of each class.

    Args:
        ties: Of `tie_pictures`.
        class_names: Of the data set.

    Returns:
        A row for each part, other part and class, and one with class "all": ``n`` pictures,
        and how many are tied by ``group``, ``copy``, ``lookalike`` and ``any``.

    Example:
        >>> ties = pd.DataFrame({"part": "test", "other": "train", "label": [0, 1],
        ...     "group": [True, False], "copy": False, "lookalike": False, "any": [True, False]})
        >>> count_ties(ties, ("nv", "mel"))[["class", "n", "group"]].values.tolist()
        [['nv', 1, 1], ['mel', 1, 0], ['all', 2, 1]]
    """
    return pd.DataFrame(list(_counts(ties, class_names)))


def _counts(ties: pd.DataFrame, class_names: tuple[str, ...]) -> Iterator[dict[str, object]]:
    for (part, other), own in ties.groupby(["part", "other"], sort=False):
        of_class = ((name, own[own["label"] == k]) for k, name in enumerate(class_names))
        for name, rows in (*of_class, ("all", own)):
            counts = {tie: int(rows[tie].sum()) for tie in (*TIES, "any")}
            yield {"part": part, "other": other, "class": name, "n": len(rows), **counts}
