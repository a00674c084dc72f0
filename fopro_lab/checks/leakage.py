"""What makes results look better than they are: leakage between parts, and shortcuts to the class.

Shortcuts are a source, a brightness, a size or a format that tell the class alone.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from fopro_lab.data import Pack
from fopro_lab.data.sampling import choose_rows
from fopro_lab.io import quiet, regular

KINDS = ("group", "copy", "near_duplicate")  # by which an image can be known from another part
COMPARED = (("test", "train"), ("test", "val"), ("val", "train"))
MOST = 3000  # images that are looked at for shortcuts
LEAST = 10  # groups of a class, and of all others, below which nothing is said
FOLDS = 5
PERMUTATIONS = 19  # of labels between groups: none may do as well, p = 0.05
TELLING = (0.75, 0.9)  # balanced accuracy from which a feature is worth a note, a warning


def find_leaks(
    table: pd.DataFrame, parts: np.ndarray, *, content: np.ndarray, near_duplicates: pd.DataFrame
) -> pd.DataFrame:
    """Say which images of test and validation are known from another part.

    ``near_duplicates`` are those of the first row of each content. Returns one row per image and
    other part, and whether it is known by its ``group``, a ``copy``, a ``near_duplicate`` or
    ``any`` of them.
    """
    groups = table["group"].to_numpy()
    pairs = near_duplicates[["first", "second"]].to_numpy(dtype=np.int64)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    found = []
    for part, other in COMPARED:
        rows, others = np.flatnonzero(parts == part), np.flatnonzero(parts == other)
        alike = pairs[np.isin(pairs[:, 1], content[others]), 0]
        own = table.iloc[rows][["image", "label"]].assign(
            part=part,
            other=other,
            group=np.isin(groups[rows], groups[others]),
            copy=np.isin(content[rows], content[others]),
            near_duplicate=np.isin(content[rows], alike),
        )
        found.append(own.assign(any=own[list(KINDS)].any(axis=1)))
    return pd.concat(found, ignore_index=True)


def count_leaks(leaks: pd.DataFrame, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Count the images of each part, other part and class, or "all", and those that are known."""
    rows = []
    for (part, other), own in leaks.groupby(["part", "other"], sort=False):
        of_class = [(name, own[own["label"] == label]) for label, name in enumerate(class_names)]
        for name, some in (*of_class, ("all", own)):
            counts = {kind: int(some[kind].sum()) for kind in (*KINDS, "any")}
            rows.append({"part": part, "other": other, "class": name, "n": len(some), **counts})
    return pd.DataFrame(rows, columns=["part", "other", "class", "n", *KINDS, "any"])


class Association(NamedTuple):
    """How strongly class and source are associated."""

    v: float  # Cramer's V with bias correction, 0 (independent) to 1 (one gives the other away)
    low: float  # of the 95 % bootstrap interval over groups
    high: float
    p: float  # permutation p-value of independence: groups change places, each kept whole
    groups: int


def class_by_source(table: pd.DataFrame, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Count the images of each class (row) from each known source (column, by name)."""
    known = table[table["source"] != ""]
    counts = pd.crosstab(known["label"], known["source"])
    counts = counts.reindex(range(len(class_names)), fill_value=0)
    counts.index = pd.Index(class_names, name="class")
    return counts


def class_source_association(table: pd.DataFrame, *, resamples: int = 999) -> Association:
    """Measure how strongly class and source are associated, and how certain that is.

    Images of one lesion or patient stay together. The bootstrap draws groups. The permutation
    gives each group the sources of another one, in the shares that one has, and leaves its labels
    alone, all of them if it has several. So pairings within a group do not count. Unknown sources
    ("") are left out; all is NaN if there are not two classes and two sources.
    """
    known = table[table["source"] != ""]
    units = known.groupby(["group", "label", "source"], sort=True).size().reset_index(name="n")
    groups = int(units["group"].nunique())
    labels, sources = (pd.factorize(units[name])[0] for name in ("label", "source"))
    shape = (labels.max(initial=-1) + 1, sources.max(initial=-1) + 1)
    if min(shape) < 2:
        return Association(*(float("nan"),) * 4, groups)
    sizes = units["n"].to_numpy(dtype=np.float64)
    of_group = pd.factorize(units["group"])[0]
    rng = np.random.default_rng(0)

    def measure(weights: np.ndarray) -> float:
        cells = np.bincount(labels * shape[1] + sources, weights=weights, minlength=np.prod(shape))
        return cramers_v(cells.reshape(shape))

    even = np.full(groups, 1 / groups)
    drawn = [measure(sizes * rng.multinomial(groups, even)[of_group]) for _ in range(resamples)]
    of_label, of_source = np.zeros((groups, shape[0])), np.zeros((groups, shape[1]))
    np.add.at(of_label, (of_group, labels), sizes)
    np.add.at(of_source, (of_group, sources), sizes)
    of_source /= of_source.sum(axis=1, keepdims=True)
    apart = cramers_v(of_label.T @ of_source)  # as observed, where no group has two of both
    permuted = [cramers_v(of_label.T @ rng.permutation(of_source)) for _ in range(resamples)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])  # NaN: a draw without a second source
    # Sums in another order differ in their last bits: an equal table must not count as smaller.
    p = (1 + np.sum(np.array(permuted) >= apart - 1e-9)) / (1 + resamples)
    return Association(measure(sizes), float(low), float(high), float(p), groups)


def cramers_v(counts: np.ndarray) -> float:
    """Return Cramer's V of counts ``(K, S)``, 0 to 1, corrected for the bias of small samples.

    Empty rows and columns do not count; NaN with fewer than two others.

    Source: Bergsma, J. Korean Stat. Soc. 42 (2013) 323; scipy's ``association`` has no correction.
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


class Shortcut(NamedTuple):
    """How well one simple feature tells one class from all others."""

    feature: str
    name: str  # of the class
    accuracy: float  # balanced, cross-validated by group, 0.5 by chance
    telling: bool  # no permutation does as well


def find_shortcuts(packed: Pack) -> list[Shortcut]:
    """Try for each class what a tree of depth 2 learns from brightness, size or format alone.

    Classes of few groups are left out. Returns the best class of each feature, the best first.
    """
    table, rng = packed.dataset.table, np.random.default_rng(0)
    rows = choose_rows(table, images=MOST, seed=0)
    labels, groups = packed.labels[rows], table["group"].to_numpy()[rows]
    firsts, inverse = np.unique(groups, return_index=True, return_inverse=True)[1:]
    headers = pd.DataFrame(map(_read_header, table["path"].to_numpy()[rows]))
    features = {
        "brightness": np.array([[np.mean(packed.checked([row]))] for row in rows]),
        "size": headers[[0, 1]].to_numpy(dtype=float),
        "format": pd.get_dummies(headers[2]).to_numpy(dtype=float),
    }
    found = []
    for feature, values in features.items():
        if (values == values[0]).all():
            continue
        best, truth = Shortcut(feature, "", 0.0, False), labels == 0
        for label, name in enumerate(packed.dataset.class_names):
            own = labels == label
            if min(len(set(groups[own])), len(set(groups[~own]))) < LEAST:
                continue
            accuracy = _accuracy(values, own, groups)
            if accuracy > best.accuracy:
                best, truth = best._replace(name=name, accuracy=accuracy), own
        if best.accuracy >= TELLING[0]:
            shuffled = (rng.permutation(truth[firsts])[inverse] for _ in range(PERMUTATIONS))
            chance = max(_accuracy(values, own, groups) for own in shuffled)
            best = best._replace(telling=best.accuracy > chance)
        found.append(best)
    return sorted(found, key=lambda each: -each.accuracy)


def _read_header(path: str) -> tuple[int, int, str]:
    """Return width, height and format of a file; the same for all images without one."""
    if not path:
        return 0, 0, ""
    with quiet(), Image.open(regular(path)) as opened:
        kind = f"{opened.format} {opened.mode} {opened.info.get('progression', 0)}"
        return opened.width, opened.height, kind


def _accuracy(values: np.ndarray, own: np.ndarray, groups: np.ndarray) -> float:
    """Return the balanced accuracy of a small tree, cross-validated with groups kept whole."""
    tree = DecisionTreeClassifier(max_depth=2, class_weight="balanced", random_state=0)
    with quiet():
        parts = StratifiedGroupKFold(FOLDS)
        guessed = cross_val_predict(tree, values, own, groups=groups, cv=parts)
        return float(balanced_accuracy_score(own, guessed))


def count_levels(packed: Pack) -> np.ndarray:
    """Return how many of 256 levels each packed image uses, over all its channels."""
    return np.array([np.count_nonzero(np.bincount(image.ravel())) for image in packed.checked()])
