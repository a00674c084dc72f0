"""Power: the smallest difference between two methods that a test part can be expected to show."""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError

POWER = 0.8
ALPHA = 0.05  # two-sided
DISCORDANCE = 0.2  # share of images that exactly one of the two methods gets right
FEWEST = 6  # a two-sided sign test over five images never falls below 0.05
_Z_ALPHA = NormalDist().inv_cdf(1 - ALPHA / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)


def detectable_differences(
    labels: np.ndarray,
    units: np.ndarray,
    *,
    class_names: tuple[str, ...],
    groups: Mapping[str, str],
    discordance: float = DISCORDANCE,
) -> pd.DataFrame:
    """Find the smallest difference in recall that shows with 80 % power at a two-sided 5 %.

    Two methods are compared on the same test images. Assumed: exactly one of them is right on
    ``discordance`` of the images of every class, or on as many as the difference needs; they
    differ by the same amount in all classes of a group; images of one lesion or patient are
    right or wrong together, so a class counts ``n^2 / sum m^2`` independent images for units
    of ``m`` images. Differences between training seeds come on top. Below some 50 images the
    number is a guide: an exact sign test finds it in 0.65 to 0.8 of all cases, a normal one in
    0.95.

    Args:
        labels: Classes of the test images, ``(n,)``.
        units: Lesion, patient or the image itself, ``(n,)``.
        class_names: ``K`` names.
        groups: Of each class name: head, medium or tail.
        discordance: Above 0, at most 1.

    Returns:
        A row for each class, for head, medium and tail, and for all classes: ``scope`` ("class",
        "group", "overall"), ``name``, ``n`` images, ``units``, ``effective`` (independent
        images; of a mean over classes, the number that would give one class its variance),
        ``discordance``, ``detectable`` (share, NaN if none would show).

    Raises:
        InputError: If the discordance is not a share above 0.

    Source: Connor, Biometrics 43 (1987) 207, for paired shares; Kish's effective sample size.

    Example:
        >>> table = detectable_differences(np.repeat([0, 1], 100), np.arange(200),
        ...     class_names=("nv", "df"), groups={"nv": "head", "df": "tail"})
        >>> table.set_index("name")["detectable"].round(3).to_dict()
        {'nv': 0.124, 'df': 0.124, 'head': 0.124, 'tail': 0.124, 'all': 0.088}
    """
    if not 0 < discordance <= 1:
        raise InputError(f"discordance: expected above 0 and at most 1, got {discordance}")
    rows = [_count(labels == k, units, "class", name) for k, name in enumerate(class_names)]
    for group in ("head", "medium", "tail"):
        members = [
            row for row, name in zip(rows, class_names, strict=False) if groups[name] == group
        ]
        if members:
            rows.append(_mean(members, "group", group))
    rows.append(_mean(rows[: len(class_names)], "overall", "all"))
    table = pd.DataFrame(rows).assign(discordance=discordance)
    detectable = [smallest_difference(n, discordance=discordance) for n in table["effective"]]
    return table.assign(detectable=detectable)


def smallest_difference(effective: float, *, discordance: float = DISCORDANCE) -> float:
    """Solve ``d = z_a sqrt(q / n) + z_b sqrt((q - d^2) / n)`` for the difference ``d``.

    Args:
        effective: Independent images ``n``.
        discordance: ``q``; where ``d`` would exceed it, it is raised to ``d``.

    Returns:
        The difference, a share; NaN with fewer than six images.

    Example:
        >>> round(smallest_difference(1000), 4), smallest_difference(4)
        (0.0396, nan)
    """
    if effective < FEWEST:
        return float("nan")

    def gap(difference: float) -> float:
        share = max(discordance, difference)
        spread = _Z_ALPHA * share**0.5 + _Z_POWER * (share - difference**2) ** 0.5
        return spread / effective**0.5 - difference

    low, high = 0.0, 1.0  # the gap falls from above 0 to below it; bisection finds where
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if gap(middle) > 0 else (low, middle)
    return high


def _count(chosen: np.ndarray, units: np.ndarray, scope: str, name: str) -> dict[str, object]:
    sizes = np.unique(units[chosen], return_counts=True)[1].astype(np.float64)
    effective = float(sizes.sum() ** 2 / np.square(sizes).sum()) if len(sizes) else 0.0
    counts = {"n": int(chosen.sum()), "units": len(sizes), "effective": effective}
    return {"scope": scope, "name": name, **counts}


def _mean(members: list[dict[str, object]], scope: str, name: str) -> dict[str, object]:
    """Return the counts of a mean over classes: its variance is the mean of theirs over K."""
    each = np.array([row["effective"] for row in members], dtype=np.float64)
    effective = float(len(each) ** 2 / (1 / each).sum()) if each.all() else 0.0
    sums = {key: sum(int(row[key]) for row in members) for key in ("n", "units")}  # type: ignore[call-overload]
    return {"scope": scope, "name": name, **sums, "effective": effective}
