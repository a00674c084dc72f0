"""What the numbers say of the claims, in sentences."""

import pandas as pd

_CLEAR = 0.05  # level of the corrected p-value
_SAID = {("overall", "balanced_accuracy"): "balanced accuracy", ("group", "recall"): "tail recall"}


def claim_findings(claims: pd.DataFrame, distances: pd.DataFrame) -> list[str]:
    """Say of each pair and teacher what was found, hits and misses alike.

    Args:
        claims: Of ``evaluation.compare_teachers``.
        distances: Of ``probing.preference_distances``; empty if one teacher was asked.

    Returns:
        Sentences.

    Example:
        >>> claims = pd.DataFrame({"method": ["ekd"], "baseline": "bsm", "teacher": "builtin",
        ...     "student": "small", "scope": "overall", "name": "all", "metric":
        ...     "balanced_accuracy", "difference": 0.02, "low": -0.01, "high": 0.05,
        ...     "p_holm": 0.4})
        >>> claim_findings(claims, pd.DataFrame())[0]
        'ekd against bsm, balanced accuracy: shown for 0 of 1: builtin +2.0 [-1.0, +5.0].'
    """
    told = []
    kinds = claims[["scope", "metric"]].apply(tuple, axis=1)
    headline = claims[kinds.isin(list(_SAID)) & claims["name"].isin(["all", "tail"])]
    for (method, baseline, scope, metric), rows in headline.groupby(
        ["method", "baseline", "scope", "metric"], sort=False
    ):
        up = int(((rows["p_holm"] < _CLEAR) & (rows["difference"] > 0)).sum())
        down = int(((rows["p_holm"] < _CLEAR) & (rows["difference"] < 0)).sum())
        each = "; ".join(_told(row) for row in rows.to_dict("records"))
        against = f", the opposite for {down}" if down else ""
        told.append(
            f"{method} against {baseline}, {_SAID[scope, metric]}: shown for {up} of {len(rows)}"
            f"{against}: {each}."
        )
    if len(distances):
        pairs = distances[distances["teacher"] != "all"]
        apart = int((pairs["difference_low"] > 0).sum())
        told.append(
            f"Preferences of {apart} of {len(pairs)} pairs of teachers differ more than two "
            f"measurements of one teacher on other lesions do."
        )
    return told


def _told(row: dict) -> str:
    value, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "low", "high"))
    student = "" if row["student"] == "small" else f" (student {row['student']})"
    return f"{row['teacher']}{student} {value} [{low}, {high}]"
