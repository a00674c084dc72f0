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
        >>> print(claim_findings(claims, pd.DataFrame())[0])
        ekd against bsm, student small, balanced accuracy: higher for 0 of 1 teachers, lower for 0,
        undecided for 1: builtin +2.0 [-1.0, +5.0].
    """
    told = []
    kinds = claims[["scope", "metric"]].apply(tuple, axis=1)
    headline = claims[kinds.isin(list(_SAID)) & claims["name"].isin(["all", "tail"])]
    families = ["method", "baseline", "student", "scope", "metric"]
    for (method, baseline, student, scope, metric), rows in headline.groupby(families, sort=False):
        clear = rows["p_holm"] < _CLEAR
        up, down = (int((clear & (rows["difference"] * sign > 0)).sum()) for sign in (1, -1))
        each = "; ".join(_told(row) for row in rows.to_dict("records"))
        told.append(
            f"{method} against {baseline}, student {student}, {_SAID[scope, metric]}: higher for "
            f"{up} of {len(rows)} teachers, lower for {down}, undecided for "
            f"{len(rows) - up - down}: {each}."
        )
    if len(distances):
        pairs = distances[distances["teacher"] != "all"]
        apart = int((pairs["p_holm"] < _CLEAR).sum())
        told.append(
            f"Preferences differ, by more than two measurements of one teacher on other lesions "
            f"do, for {apart} of {len(pairs)} pairs of teachers."
        )
    return told


def _told(row: dict) -> str:
    value, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "low", "high"))
    return f"{row['teacher']} {value} [{low}, {high}]"
