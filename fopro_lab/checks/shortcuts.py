"""Shortcuts: does brightness, size or format alone tell the class? Are there few grey levels?"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from fopro_lab.data import Pack
from fopro_lab.data.sampling import choose_rows

MOST = 3000  # images that are looked at
LEAST = 10  # groups of a class, and of all others, below which nothing is said
FOLDS = 5
PERMUTATIONS = 19  # of labels between groups: none may do as well, p = 0.05
TELLING = (0.75, 0.9)  # balanced accuracy from which a feature is worth a note, a warning


class Shortcut(NamedTuple):
    """How well one simple feature tells one class from all others."""

    feature: str
    name: str  # of the class
    accuracy: float  # balanced, cross-validated by group, 0.5 by chance
    telling: bool  # no permutation does as well


def image_facts(packed: Pack, rows: np.ndarray) -> pd.DataFrame:
    """Return brightness, and of files width, height and format, a row per image."""
    images = packed.images
    facts: list[dict[str, Any]] = [{"brightness": float(np.mean(images[row]))} for row in rows]
    paths = packed.dataset.table["path"].to_numpy()[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fact, path in zip(facts, paths, strict=True):
            if path:
                with Image.open(path) as opened:  # its header alone
                    kind = f"{opened.format} {opened.mode} {opened.info.get('progression', 0)}"
                    fact |= {"width": opened.width, "height": opened.height, "format": kind}
    return pd.DataFrame(facts)


def find_shortcuts(packed: Pack, *, seed: int = 0) -> list[Shortcut]:
    """Try for each class what a tree of depth 2 learns from brightness, size or format alone.

    Classes of few groups are left out. Returns the best class of each feature, the best first.
    """
    table = packed.dataset.table
    rows = np.arange(len(packed))
    if len(rows) > MOST:
        rows = np.sort(choose_rows(table, images=MOST, seed=seed))
    facts, groups = image_facts(packed, rows), table["group"].to_numpy()[rows]
    features = {"brightness": facts[["brightness"]]}
    if "format" in facts:
        features["size"] = facts[["width", "height"]].fillna(0)
        features["format"] = pd.get_dummies(facts["format"]).astype(float)
    rng, found = np.random.default_rng(seed), []
    for feature, values in features.items():
        array = values.to_numpy(dtype=float)
        if (array == array[0]).all():
            continue
        best = Shortcut(feature, "", 0.0, False)
        truth = np.zeros(len(rows), dtype=bool)
        for label, name in enumerate(packed.dataset.class_names):
            own = packed.labels[rows] == label
            if min(len(set(groups[own])), len(set(groups[~own]))) < LEAST:
                continue
            accuracy = _accuracy(array, own, groups)
            if accuracy > best.accuracy:
                best, truth = Shortcut(feature, name, accuracy, False), own
        if best.accuracy >= TELLING[0]:
            units, inverse = np.unique(groups, return_inverse=True)
            first = truth[np.unique(groups, return_index=True)[1]]
            chance = [
                _accuracy(array, rng.permutation(first)[inverse], groups)
                for _ in range(PERMUTATIONS if len(units) > 1 else 0)
            ]
            best = best._replace(telling=best.accuracy > max(chance, default=1.0))
        found.append(best)
    return sorted(found, key=lambda each: -each.accuracy)


def _accuracy(values: np.ndarray, own: np.ndarray, groups: np.ndarray) -> float:
    """Return the balanced accuracy of a small tree, cross-validated with groups kept whole."""
    tree = DecisionTreeClassifier(max_depth=2, class_weight="balanced", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = StratifiedGroupKFold(FOLDS)
        guessed = cross_val_predict(tree, values, own, groups=groups, cv=parts)
        return float(balanced_accuracy_score(own, guessed))


def count_levels(packed: Pack) -> np.ndarray:
    """Return how many of 256 levels each packed image uses, over all its channels."""
    return np.array(
        [np.count_nonzero(np.bincount(i.ravel(), minlength=256)) for i in packed.images]
    )
