"""Test pictures lined up across runs, and every metric of them in every bootstrap resample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation import metrics
from fopro_lab.evaluation.intervals import bootstrap_weights
from fopro_lab.evaluation.predictions import LOGIT_PREFIX, check_predictions, class_names

GROUPS = ("head", "medium", "tail")
OVERALL = (
    "balanced_accuracy",
    "worst_class_recall",
    "accuracy",
    "macro_f1",
    "mcc",
    "kappa",
    "auroc",
    "ece",
)
Key = tuple[str, str, str]  # scope ("class", "group", "overall"), name, metric


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of one split that one or several runs were tested on, in a common order.

    Attributes:
        labels: True classes ``(n,)``.
        units: What the bootstrap draws as a whole, ``(n,)``: the group, or the picture itself.
        logits: One array ``(n, K)`` a run.
        names: The K class names in label order.
        groups: "head", "medium" or "tail" for each class, in the order of the tables.
        resampled: "group" if some unit holds several pictures of a class, else "image".
    """

    labels: np.ndarray
    units: np.ndarray
    logits: list[np.ndarray]
    names: tuple[str, ...]
    groups: dict[str, str]
    resampled: str

    def keys(self) -> list[Key]:
        """List all that is measured, in the order of the tables."""
        return [
            *(("class", name, "recall") for name in self.groups),
            *(("group", name, "recall") for name in GROUPS if name in self.groups.values()),
            *(("overall", "all", metric) for metric in OVERALL),
        ]

    def members(self, key: Key) -> list[str]:
        """Name the classes that a key speaks of: one, those of a group, or all."""
        scope, name, _ = key
        if scope == "class":
            return [name]
        return [c for c, group in self.groups.items() if scope == "overall" or group == name]

    def class_sizes(self, *, units: bool = False) -> dict[str, int]:
        """Count the pictures of each class, or the units that are resampled."""
        counted = pd.DataFrame({"label": self.labels, "unit": self.units})
        counts = (counted.drop_duplicates() if units else counted)["label"].value_counts()
        return {name: int(counts.get(label, 0)) for label, name in enumerate(self.names)}

    def weights(self, *, resamples: int, seed: int) -> np.ndarray:
        """Draw the bootstrap's resamples, ``(n, R)``."""
        if resamples < 2:
            raise InputError(f"resamples: expected at least 2, got {resamples}")
        return bootstrap_weights(self.labels, self.units, resamples=resamples, seed=seed)

    def measure(self, logits: np.ndarray, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """Compute every metric of one run in every resample.

        Args:
            logits: One run's ``(n, K)``.
            weights: How often each picture was drawn, ``(n, R)``; ones for the plain metric.

        Returns:
            Values ``(R,)`` for each of ``keys``; NaN where no picture bears on a metric.
        """
        probabilities = metrics.softmax(logits)
        confusion = metrics.confusion_matrices(
            self.labels, logits.argmax(axis=1), weights, classes=len(self.names)
        )
        recalls = metrics.class_recalls(confusion)
        overall = (
            mean_of_known(recalls),
            np.nanmin(recalls, axis=1),
            metrics.accuracy(confusion),
            metrics.macro_f1(confusion),
            metrics.matthews(confusion),
            metrics.kappa(confusion),
            metrics.macro_auroc(probabilities, self.labels, weights),
            metrics.calibration_error(probabilities, self.labels, weights),
        )
        whole = dict(zip(OVERALL, overall, strict=True))
        label = {name: k for k, name in enumerate(self.names)}
        return {
            key: whole[key[2]]
            if key[0] == "overall"
            else mean_of_known(recalls[:, [label[name] for name in self.members(key)]])
            for key in self.keys()
        }


def line_up(
    tables: Sequence[pd.DataFrame], groups: Mapping[str, str], *, split: str = "test"
) -> Pictures:
    """Line up the predictions of several runs, picture by picture.

    Args:
        tables: Tables of predictions of the same pictures, one a run.
        groups: "head", "medium" or "tail" for each class.
        split: "val" or "test".

    Returns:
        The pictures, sorted by name.

    Raises:
        InputError: If a table is invalid, has no rows of the split, or differs from the first in
            its classes, pictures, labels or groups; if ``groups`` misses a class.

    Example:
        >>> table = pd.DataFrame({"image": ["b", "a"], "group": "", "source": "", "split": "test",
        ...                       "label": [1, 0], "logit_nv": [0.0, 1.0], "logit_df": [2.0, 0.0]})
        >>> line_up([table], {"nv": "head", "df": "tail"}).labels
        array([0, 1])
    """
    parts = []
    for table in tables:
        checked = check_predictions(table)
        part = checked[checked["split"] == split].sort_values("image", ignore_index=True)
        if part.empty:
            got = ", ".join(sorted(set(checked["split"]))) or "an empty table"
            raise InputError(f"split: expected pictures of '{split}', got {got}")
        parts.append(part)
    first, names = parts[0], class_names(parts[0])
    for part in parts[1:]:
        if class_names(part) != names:
            raise InputError(
                f"predictions: expected the classes {', '.join(names)} in every run, "
                f"got {', '.join(class_names(part))}"
            )
        for column in ("image", "label", "group"):
            if not part[column].equals(first[column]):
                raise InputError(
                    f"predictions: expected the same pictures of '{split}' in every run, "
                    f"got {len(first)} and {len(part)} that differ in '{column}'; "
                    f"use runs of one split"
                )
    units = first["group"].where(first["group"] != "", "image " + first["image"])
    several = pd.DataFrame({"label": first["label"], "unit": units}).duplicated().any()
    return Pictures(
        labels=first["label"].to_numpy(),
        units=units.to_numpy(dtype=str),
        logits=[part[[f"{LOGIT_PREFIX}{name}" for name in names]].to_numpy() for part in parts],
        names=names,
        groups=_checked_groups(groups, names),
        resampled="group" if several else "image",
    )


def pool(pictures: Sequence[Pictures]) -> Pictures:
    """Put the pictures of all folds together, without logits: for counts and names.

    Raises:
        InputError: If a lesion, patient or picture is in two folds.

    Example:
        >>> folds = [line_up([pd.DataFrame({"image": [name, "x" + name], "group": "", "source": "",
        ...     "split": "test", "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})],
        ...     {"nv": "head", "df": "tail"}) for name in "ab"]
        >>> pool(folds).labels.tolist()
        [0, 1, 0, 1]
    """
    if len(pictures) == 1:
        return pictures[0]
    for one, other in combinations(pictures, 2):
        both = np.intersect1d(one.units, other.units)
        if len(both):
            raise InputError(
                f"runs: expected folds that share no tested lesion, patient or picture, got "
                f"{len(both)} in two folds, '{both[0]}' for one; compare the folds one by one"
            )
    first = pictures[0]
    return Pictures(
        labels=np.concatenate([each.labels for each in pictures]),
        units=np.concatenate([each.units for each in pictures]),
        logits=[],
        names=first.names,
        groups=first.groups,
        resampled="group" if any(each.resampled == "group" for each in pictures) else "image",
    )


def mean_of_known(recalls: np.ndarray) -> np.ndarray:
    """Return the mean over classes that have pictures, NaN if none has.

    Args:
        recalls: ``(R, K)``, NaN for a class without pictures.

    Returns:
        Means ``(R,)``.

    Example:
        >>> mean_of_known(np.array([[1.0, 0.5, np.nan]]))
        array([0.75])
    """
    known = ~np.isnan(recalls[0])
    if not known.any():
        return np.full(len(recalls), np.nan)
    return recalls[:, known].mean(axis=1)


def _checked_groups(groups: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the groups of exactly the named classes, or tell what does not fit."""
    if set(groups) != set(names):
        raise InputError(
            f"groups: expected one for each of {', '.join(names)}, got {', '.join(groups)}"
        )
    for name, group in groups.items():
        if group not in GROUPS:
            raise InputError(f"groups: {name}: expected head, medium or tail, got '{group}'")
    return dict(groups)
