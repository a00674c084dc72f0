"""Class against source: can the scanner or hospital be mistaken for the disease?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data import Split

PARTS = ("train", "val", "test")
TIES = ("group", "copy", "lookalike")  # by which an image is tied to one of another part
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
    """List the groups that have images in two parts or more.

    Args:
        table: Of the data set: group.
        parts: Of `row_parts`.

    Returns:
        Columns ``group``, ``train``, ``val``, ``test`` (images), by group.

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


def tie_images(
    table: pd.DataFrame, parts: np.ndarray, *, content: np.ndarray, lookalikes: pd.DataFrame
) -> pd.DataFrame:
    """Tell which images of test and validation are tied to one of another part.

    Args:
        table: Of the data set: image, label, group.
        parts: Of `row_parts`.
        content: Of `same_content`.
        lookalikes: Of `find_lookalikes`, over the first row of each content.

    Returns:
        A row for each image and other part (test and train, test and val, val and train):
        ``image``, ``label``, ``part``, ``other``, and whether it is tied by its ``group``, a
        ``copy``, a ``lookalike``, or ``any`` of them.

    Example:
        >>> table = pd.DataFrame({"image": list("abc"), "label": 0, "group": list("aac")})
        >>> none = pd.DataFrame({"first": [], "second": []})
        >>> parts = np.array(["train", "test", "test"])
        >>> ties = tie_images(table, parts, content=np.arange(3), lookalikes=none)
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
    """Count the tied images of each class.

    Args:
        ties: Of `tie_images`.
        class_names: Of the data set.

    Returns:
        A row for each part, other part and class, and one with class "all": ``n`` images,
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


class Entanglement(NamedTuple):
    """How strongly class and source hang together.

    Attributes:
        v: Cramer's V with bias correction, 0 (independent) to 1 (one tells the other).
        low: Of the 95 % bootstrap interval over groups.
        high: Of the same.
        p: Permutation p-value of independence: groups change places, each kept whole.
        groups: Groups behind it.
    """

    v: float
    low: float
    high: float
    p: float
    groups: int


def class_by_source(table: pd.DataFrame, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Count the images of each class from each known source.

    Args:
        table: Of the data set: label, source.
        class_names: Names of the labels.

    Returns:
        Classes in rows, sources in columns; sources in alphabetical order, classes in theirs.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1], "source": ["a", "b", "b"]})
        >>> class_by_source(table, ("nv", "mel")).values.tolist()
        [[1, 1], [0, 1]]
    """
    known = table[table["source"] != ""]
    counts = pd.crosstab(known["label"], known["source"])
    counts = counts.reindex(range(len(class_names)), fill_value=0)
    counts.index = pd.Index(class_names, name="class")
    return counts


def entangle(table: pd.DataFrame, *, resamples: int = 999, seed: int = 0) -> Entanglement:
    """Measure how strongly class and source hang together, and how sure that is.

    Images of one lesion or patient stay together. The bootstrap draws groups. The permutation
    gives each group the sources of another one, in the shares that one has, and leaves its labels
    alone, all of them if it has several. So within a group, what goes with what has no say.

    Args:
        table: Of the data set: label, group, source; unknown sources ("") are left out.
        resamples: Of the bootstrap, and of the permutation.
        seed: Of both.

    Returns:
        The measure; all NaN if there are not two classes and two sources.

    Source: bias correction by Bergsma, J. Korean Stat. Soc. 42 (2013) 323.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1] * 50, "source": ["a", "b"] * 50})
        >>> entangle(table.assign(group=table.index)).v
        1.0
    """
    known = table[table["source"] != ""]
    units = known.groupby(["group", "label", "source"], sort=True).size().reset_index(name="n")
    groups = int(units["group"].nunique())
    labels, sources = (pd.factorize(units[name])[0] for name in ("label", "source"))
    shape = (labels.max(initial=-1) + 1, sources.max(initial=-1) + 1)
    if min(shape) < 2:
        return Entanglement(*(float("nan"),) * 4, groups)
    sizes = units["n"].to_numpy(dtype=np.float64)
    of_group = pd.factorize(units["group"])[0]
    rng = np.random.default_rng(seed)

    def measure(weights: np.ndarray) -> float:
        cells = np.bincount(labels * shape[1] + sources, weights=weights, minlength=np.prod(shape))
        return cramers_v(cells.reshape(shape))

    observed = measure(sizes)
    drawn = [
        measure(sizes * rng.multinomial(groups, np.full(groups, 1 / groups))[of_group])
        for _ in range(resamples)
    ]
    of_label, of_source = np.zeros((groups, shape[0])), np.zeros((groups, shape[1]))
    np.add.at(of_label, (of_group, labels), sizes)
    np.add.at(of_source, (of_group, sources), sizes)
    of_source /= of_source.sum(axis=1, keepdims=True)
    apart = cramers_v(of_label.T @ of_source)  # as observed, where no group has two of both
    permuted = [cramers_v(of_label.T @ rng.permutation(of_source)) for _ in range(resamples)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])  # NaN: a draw without a second source
    # Sums in another order differ in their last bits: an equal table must not count as smaller.
    p = (1 + np.sum(np.array(permuted) >= apart - 1e-9)) / (1 + resamples)
    return Entanglement(observed, float(low), float(high), float(p), groups)


def cramers_v(counts: np.ndarray) -> float:
    """Return Cramer's V of a table of counts, corrected for the bias of small samples.

    Args:
        counts: ``(K, S)``; empty rows and columns do not count.

    Returns:
        0 to 1; NaN with fewer than two filled rows or columns.

    Source: Bergsma, J. Korean Stat. Soc. 42 (2013) 323.

    Example:
        >>> cramers_v(np.array([[50, 0], [0, 50]])), cramers_v(np.array([[25, 25], [25, 25]]))
        (1.0, 0.0)
    """
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0].astype(np.float64)
    rows, columns = counts.shape
    total = counts.sum()
    if min(rows, columns) < 2 or total < 2:
        return float("nan")
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / total
    share = float(((counts - expected) ** 2 / expected).sum()) / total
    share = max(0.0, share - (rows - 1) * (columns - 1) / (total - 1))
    least = min(side - (side - 1) ** 2 / (total - 1) for side in (rows, columns))
    return float(np.sqrt(min(1.0, share / (least - 1)))) if least > 1 else float("nan")
