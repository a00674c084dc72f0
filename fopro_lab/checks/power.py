"""Power: the smallest difference between two methods that a test part can be expected to show."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm

POWER = 0.8
ALPHA = 0.05  # two-sided
DISCORDANCE = 0.2  # share of images that exactly one of the two methods gets right
FEWEST = 6  # a two-sided sign test over five images never falls below 0.05


def detectable_differences(
    labels: np.ndarray,
    units: np.ndarray,
    *,
    class_names: tuple[str, ...],
    groups: Mapping[str, str],
) -> pd.DataFrame:
    """Find the smallest difference in recall that shows with 80 % power at a two-sided 5 %.

    Two methods are compared on the same test images. Assumed: exactly one of them is right on a
    fifth of the images of every class, or on as many as the difference needs; they differ by the
    same amount in all classes of a group; images of one lesion or patient (``units``) are right or
    wrong together, so a class counts ``n^2 / sum m^2`` independent images for units of ``m``
    images. Differences between training seeds come on top. Below some 50 images the number is a
    guide: an exact sign test finds it in 0.65 to 0.8 of all cases.

    Returns:
        One row per class, for head, medium and tail, and for all classes: ``scope`` ("class",
        "group", "overall"), ``name``, ``n`` images, ``units``, ``effective`` (independent
        images; of a mean over classes, the number that would give one class its variance),
        ``discordance``, ``detectable`` (share, NaN if none would show).

    Source: Connor, Biometrics 43 (1987) 207, for paired shares; Kish's effective sample size.
    """
    rows = []
    for label, name in enumerate(class_names):
        sizes = np.unique(units[labels == label], return_counts=True)[1].astype(np.float64)
        effective = float(sizes.sum() ** 2 / np.square(sizes).sum()) if len(sizes) else 0.0
        rows.append(("class", name, int(sizes.sum()), len(sizes), effective))
    columns = ["scope", "name", "n", "units", "effective"]
    classes = pd.DataFrame(rows, columns=columns)
    means = [("group", group) for group in ("head", "medium", "tail")] + [("overall", "all")]
    for scope, name in means:
        own = classes[[scope == "overall" or groups[each] == name for each in class_names]]
        if len(own):
            # The variance of a mean over classes is the mean of their variances over their number.
            each = own["effective"].to_numpy()
            effective = float(len(each) ** 2 / (1 / each).sum()) if each.all() else 0.0
            rows.append((scope, name, int(own["n"].sum()), int(own["units"].sum()), effective))
    table = pd.DataFrame(rows, columns=columns).assign(discordance=DISCORDANCE)
    return table.assign(detectable=[smallest_difference(n) for n in table["effective"]])


def smallest_difference(effective: float) -> float:
    """Solve ``d = z_a sqrt(q / n) + z_b sqrt((q - d^2) / n)`` for the difference ``d``.

    Where ``d`` would exceed the discordance ``q``, that is raised to ``d``; NaN below six images.
    """
    if effective < FEWEST:
        return float("nan")
    z_alpha, z_power = norm.ppf(1 - ALPHA / 2), norm.ppf(POWER)

    def gap(difference: float) -> float:
        share = max(DISCORDANCE, difference)
        spread = z_alpha * share**0.5 + z_power * (share - difference**2) ** 0.5
        return float(spread / effective**0.5 - difference)

    return float(brentq(gap, 0.0, 1.0, xtol=1e-15))
