"""What a change of the pictures does to recall: by class and group, with intervals and tests.

Many cells are measured at once, so some leave zero out of their 95 % interval by chance. Each cell
therefore carries a p-value, Holm's correction over all cells of its family, and their number.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.intervals import (
    LEVEL,
    bootstrap_weights,
    difference_interval,
    holm,
    mean_interval,
    percentile_interval,
    wilson_interval,
)

GROUPS = ("head", "medium", "tail")


def measure_changes(
    labels: np.ndarray,
    units: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    *,
    names: Sequence[str],
    groups: Mapping[str, str],
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare predictions of changed pictures with those of the same pictures unchanged.

    Intervals are of the paired change: bootstrap within each class, whole lesions or patients;
    where no picture of a class changed sides two Wilson intervals are combined instead
    ("newcombe"), and a mean over such classes is "mover". The p-value is of the exact sign test
    over lesions: did more get better than worse? A normal approximation would call six lesions
    of a rare class a certainty.

    Args:
        labels: True classes ``(n,)``.
        units: What is drawn as a whole ``(n,)``: lesion, patient or picture.
        before: Predicted classes of the unchanged pictures ``(n,)``.
        after: Predicted classes in each of M cases ``(M, n)``.
        names: Class names, in the order of the labels.
        groups: "head", "medium" or "tail" for each class; its order is the table's.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        A row for each case and each class, group and "overall" (means of class recalls):
        ``case``, ``scope``, ``name``, ``group`` (of a class), ``recall``, ``recall_low``,
        ``recall_high``, ``clean_recall``, ``change``, ``change_low``, ``change_high``, ``n``,
        ``interval``, ``p``, ``p_holm``, ``cells`` (in the correction's family: all classes, or
        all means), ``survives`` (5 % after the correction, and the interval leaves zero out),
        ``resampled``. A class without pictures has NaN.

    Raises:
        InputError: If the groups do not fit the classes.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.

    Example:
        >>> table = measure_changes(np.array([0, 0, 1, 1]), np.arange(4), np.array([0, 0, 1, 1]),
        ...     np.array([[0, 0, 0, 0]]), names=["a", "b"], groups={"a": "head", "b": "tail"})
        >>> table.set_index("name").loc[["a", "b", "all"], "change"].tolist()
        [0.0, -1.0, -0.5]
    """
    check_groups(groups, names)
    weights = bootstrap_weights(labels, units, resamples=resamples, seed=seed)
    members = {name: labels == names.index(name) for name in groups}
    right_before = before == labels
    rows: list[dict[str, Any]] = []
    for case, predicted in enumerate(after):
        right = predicted == labels
        classes = {
            name: _class_change(own, units, weights, right_before, right)
            for name, own in members.items()
        }
        rows.extend({"case": case, **row} for row in _tidy(classes, groups))
    table = pd.DataFrame(rows).drop(columns=["replicates", "recalls", "signs"])
    repeated = pd.DataFrame({"label": labels, "unit": units}).duplicated().any()
    return correct_for_many(table).assign(resampled="group" if repeated else "image")


def check_groups(groups: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse groups that do not name head, medium or tail for each class.

    Raises:
        InputError: If so.
    """
    if set(groups) != set(names) or not set(groups.values()) <= set(GROUPS):
        raise InputError(
            f"groups: expected head, medium or tail for each of {', '.join(names)}, got {groups}"
        )


def correct_for_many(table: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's correction: once over all classes and once over all means.

    Args:
        table: Columns ``scope``, ``p``, ``change_low``, ``change_high``.

    Returns:
        The table with ``p_holm``, ``cells`` and ``survives``.

    Example:
        >>> table = pd.DataFrame({"scope": "class", "p": [0.001, 0.04], "change_low": 0.1,
        ...                       "change_high": 0.2})
        >>> correct_for_many(table)[["p_holm", "cells", "survives"]].values.tolist()
        [[0.002, 2, True], [0.04, 2, True]]
    """
    family = np.where(table["scope"] == "class", "class", "mean")
    adjusted = table["p"].groupby(family).transform(lambda p: holm(p.to_numpy()))
    clear = (table["change_low"] > 0) | (table["change_high"] < 0)
    cells = table["p"].groupby(family).transform("count")
    return table.assign(
        p_holm=adjusted, cells=cells.astype(int), survives=clear & (adjusted < 1 - LEVEL)
    )


def lay_out(
    table: pd.DataFrame, cases: pd.DataFrame, *, reader: str, protocol: str
) -> pd.DataFrame:
    """Put what each case was in place of its number.

    Args:
        table: Of `measure_changes`.
        cases: A row a case.
        reader: Who read.
        protocol: Of the split.

    Returns:
        Reader, scope, name and group first, then the columns of ``cases``, then the numbers.

    Example:
        >>> table = pd.DataFrame({"case": [1], "scope": "class", "name": "nv", "group": "head",
        ...                       "recall": 0.5})
        >>> lay_out(table, pd.DataFrame({"gain": [0, 2]}), reader="probe", protocol="toy").columns
        Index(['reader', 'scope', 'name', 'group', 'gain', 'recall', 'protocol'], dtype=...)
    """
    told = cases.iloc[table["case"]].reset_index(drop=True)
    first = table[["scope", "name", "group"]]
    rest = table.drop(columns=["case", "scope", "name", "group"])
    joined = pd.concat([first, told, rest], axis=1)
    joined.insert(0, "reader", reader)
    return joined.assign(protocol=protocol)


def sign_test(better: int, worse: int) -> float:
    """Return the exact two-sided p-value of "as many better as worse".

    Example:
        >>> sign_test(0, 6)
        0.03125
    """
    total, few = better + worse, min(better, worse)
    tail = sum(math.comb(total, k) for k in range(few + 1))
    return min(1.0, 2 * tail / 2**total)


def _class_change(
    members: np.ndarray,
    units: np.ndarray,
    weights: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
) -> dict[str, Any]:
    """Measure one class's recall before and after, and its change in every resample."""
    if not members.any():
        limits = [f"{key}{end}" for key in ("recall", "change") for end in ("", "_low", "_high")]
        nothing = np.full(weights.shape[1], np.nan)
        return dict.fromkeys([*limits, "clean_recall"], np.nan) | {
            "n": 0, "interval": "none", "p": np.nan,
            "replicates": nothing, "recalls": nothing, "signs": (0, 0),
        }  # fmt: skip
    drawn = weights[members].astype(np.float64)
    total = drawn.sum(axis=0)  # divided last: sums of whole numbers are exact
    difference = after[members].astype(np.float64) - before[members]
    recall, clean = float(after[members].mean()), float(before[members].mean())
    replicates, recalls = difference @ drawn / total, after[members] @ drawn / total
    names, unit = np.unique(units[members], return_inverse=True)
    interval = "bootstrap" if np.ptp(replicates) > 0 else "newcombe"
    low, high = (
        percentile_interval(replicates)
        if interval == "bootstrap"
        else difference_interval(recall, clean, len(names))
    )
    recall_low, recall_high = (
        percentile_interval(recalls) if np.ptp(recalls) > 0 else wilson_interval(recall, len(names))
    )
    of_unit = np.bincount(unit, weights=difference)
    signs = (int((of_unit > 0).sum()), int((of_unit < 0).sum()))
    return {
        "recall": recall,
        "recall_low": recall_low,
        "recall_high": recall_high,
        "clean_recall": clean,
        "change": recall - clean,
        "change_low": low,
        "change_high": high,
        "n": int(members.sum()),
        "interval": interval,
        "p": sign_test(*signs),
        "replicates": replicates,
        "recalls": recalls,
        "signs": signs,
    }


def _tidy(
    classes: Mapping[str, Mapping[str, Any]], groups: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Lay out the classes, then the means over each group and over all."""
    rows: list[dict[str, Any]] = [
        {"scope": "class", "name": name, "group": groups[name], **classes[name]} for name in groups
    ]
    for group in (*GROUPS, "all"):
        members = [
            found
            for name, found in classes.items()
            if group in (groups[name], "all") and found["n"]
        ]
        if members:
            scope = "overall" if group == "all" else "group"
            rows.append({"scope": scope, "name": group, "group": "", **_mean_change(members)})
    return rows


def _mean_change(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average recalls and changes over classes; resamples of different classes are independent."""
    found: dict[str, Any] = {
        key: float(np.mean([m[key] for m in members])) for key in ("recall", "clean_recall")
    }
    found["change"] = found["recall"] - found["clean_recall"]
    sure = all(member["interval"] == "bootstrap" for member in members)
    for key, replicates in (("change", "replicates"), ("recall", "recalls")):
        drawn = np.mean([member[replicates] for member in members], axis=0)
        low, high = percentile_interval(drawn)
        if not sure:
            values, lows, highs = (
                np.array([m[f"{key}{end}"] for m in members]) for end in ("", "_low", "_high")
            )
            wide = mean_interval(values, lows, highs)
            low, high = min(low, wide[0]), max(high, wide[1])
        found |= {f"{key}_low": low, f"{key}_high": high, replicates: drawn}
    signs = tuple(int(total) for total in np.sum([m["signs"] for m in members], axis=0))
    return found | {
        "n": sum(member["n"] for member in members),
        "interval": "bootstrap" if sure else "mover",
        "p": sign_test(*signs),
        "signs": signs,
    }
