"""Confidence intervals over lesions, training seeds and folds, and the p-values that fit them.

Recalls and their means take the jackknife over lesions, other metrics the bootstrap (weights per
image, see ``metrics``); both take t quantiles. Where nothing varies, for example because a class is
entirely right, the closed forms of this file take their place. ``docs/intervals.md`` has coverage.

Legend: ``n`` images, ``K`` classes, ``R`` resamples, ``S`` training seeds.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from fopro_lab.errors import InputError

LEVEL = 0.95
FEWEST_GROUPS = 5  # fewer lesions or patients say too little of their spread for an interval
_UPPER = (1 + LEVEL) / 2
_Z = 1.959963984540054  # standard normal quantile of 0.975
Part = tuple[np.ndarray, float]  # a covariance (S, S) over groups, its degrees of freedom
Error = tuple[float, float]  # standard error, quantile that it is multiplied with


def bootstrap_weights(
    labels: np.ndarray | None, units: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Draw whole units (lesions, patients) within each class; return each image's count ``(n, R)``.

    Within a class the number of units drawn is always its number of units; a unit with images of
    two classes is drawn separately in each. Without labels all images are of one class.

    Source: stratified (Davison & Hinkley 1997, section 3.2) cluster bootstrap (Field & Welsh,
        J. R. Stat. Soc. B 69 (2007) 369).
    """
    if resamples < 2:
        raise InputError(f"resamples: expected at least 2, got {resamples}")
    labels = np.zeros(len(units), dtype=np.int64) if labels is None else labels
    rng = np.random.default_rng(seed)
    weights = np.zeros((len(labels), resamples), dtype=np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        names, unit = np.unique(units[rows], return_inverse=True)
        draws = rng.integers(len(names), size=(resamples, len(names)))
        cells = draws + len(names) * np.arange(resamples)[:, None]
        counts = np.bincount(cells.ravel(), minlength=resamples * len(names))
        weights[rows] = counts.reshape(resamples, len(names)).T[unit]
    return weights


def resampled(labels: np.ndarray, units: np.ndarray) -> str:
    """Say what is drawn: "group" if some unit holds several images of a class, else "image"."""
    several = len(set(zip(labels.tolist(), units.tolist(), strict=True))) < len(labels)
    return "group" if several else "image"


def sample_and_resamples(
    labels: np.ndarray, units: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Return weights ``(n, 1 + R)``: ones, for the sample itself, then `bootstrap_weights`."""
    drawn = bootstrap_weights(labels, units, resamples=resamples, seed=seed)
    return np.column_stack([np.ones(len(drawn), drawn.dtype), drawn])


def group_covariance(hits: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the covariance ``(S, S)``, over new groups, of the means of hits ``(S, n)``.

    It is the jackknife over whole units (lesions, patients) ``(n,)``, with G - 1 degrees of freedom
    for G units; all zeros for a single unit.

    Source: delete-one-group jackknife (CR3), Bell & McCaffrey, Survey Methodology 28 (2002) 169.
    """
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return np.zeros((len(hits), len(hits)))
    apart = hits - hits.mean(axis=1, keepdims=True)
    left_out = np.stack([np.bincount(unit, weights=run) for run in apart]) / (len(units) - sizes)
    left_out -= left_out.mean(axis=1, keepdims=True)
    return np.asarray((len(sizes) - 1) / len(sizes) * left_out @ left_out.T)


def mean_error(values: Sequence[np.ndarray], parts: Sequence[Sequence[Part]]) -> Error:
    """Return standard error and t quantile of a mean over seeds and folds, both random effects.

    ``values`` are of each fold ``(S,)`` for S seeds; ``parts`` covariances ``(S, S)`` over groups
    that add up (such as those of classes), each with its degrees of freedom.

    Groups and seeds are crossed: the variance is what all seeds share of that over groups, and
    that between seeds, which holds their interaction (Obuchowski & Rockette, Commun. Stat. Simul.
    24 (1995) 285). The mean of both quantiles, weighted by the variances (Cochran & Cox 1957,
    section 4.14), holds more than it says, Satterthwaite's degrees of freedom less: so one fifth
    is the latter's. What folds differ by beyond that is added with the quantile of folds.
    """
    if not all(parts):
        return float("nan"), _Z  # a class without images
    shared = between = least = 0.0
    known = [(own.mean(), np.trace(own) / len(own) ** 2, df) for each in parts for own, df in each]
    trainings = sum(len(own) - 1 for own in values)
    for own, fold in zip(values, parts, strict=True):
        total, seeds = sum(covariance for covariance, _ in fold), len(own)
        common = floor = float(np.mean(total))  # over groups, of the mean of these seeds
        if seeds > 1:
            common = (np.sum(total) - np.trace(total)) / (seeds * (seeds - 1))
            between += own.var(ddof=1) / seeds
            floor = max((1 - 1.5 / seeds) * floor, np.trace(total) / seeds**2 / 8)
        shared, least = shared + common, least + floor
    whole = max(shared + between, least, 0.0)  # few seeds may agree by chance (docs/intervals.md)
    variance, quantile = whole / len(values) ** 2, _Z
    if variance > 0:
        means, alones, dfs = np.array([part for part in known if part[2]] or [(0.0, 0.0, 1.0)]).T
        # Seeds that cancel each other over groups leave rounding errors: as if they shared nothing.
        sizes = means if means.sum() > 1e-9 * alones.sum() else np.maximum(alones, 1e-30)
        df, weight = sizes.sum() ** 2 / (sizes**2 / dfs).sum(), min(1.0, between / whole)
        quantile = of_images = t.ppf(_UPPER, df)
        if trainings:
            pooled = 1 / ((1 - weight) ** 2 / df + weight**2 / trainings)
            mean = of_images + weight * (t.ppf(_UPPER, trainings) - of_images)
            quantile = 0.8 * mean + 0.2 * t.ppf(_UPPER, pooled)
    if len(values) > 1:
        apart = np.var([own.mean() for own in values], ddof=1) / len(values)
        if apart > variance:
            more = t.ppf(_UPPER, len(values) - 1) - quantile
            variance, quantile = apart, quantile + (1 - variance / apart) * more
    return float(np.sqrt(variance)), float(quantile)


def seed_spread(values: Sequence[np.ndarray]) -> float:
    """Return the standard deviation over the seeds of a fold, pooled; ``values`` are ``(S,)`` each.

    NaN without a second seed in any fold.
    """
    df = sum(len(own) - 1 for own in values)
    squares = sum(((own - own.mean()) ** 2).sum() for own in values)
    return float(np.sqrt(squares / df)) if df else float("nan")


def seeds_needed(values: Sequence[np.ndarray], effect: float) -> float:
    """Return how many seeds per fold show an effect at 80 % power, by the spread over seeds alone.

    NaN without a second seed. ``values`` are differences, for each fold ``(S,)``.
    """
    spread = seed_spread(values)
    if np.isnan(spread) or np.isnan(effect):
        return float("nan")
    needed = (_Z + norm.ppf(0.8)) ** 2 * spread**2 / len(values)
    return float(max(1.0, np.ceil(needed / effect**2))) if effect else float("inf")


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the limits of the middle 95 % of resampled values ``(R,)``; NaN if any is NaN."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def basic_interval(value: float, replicates: np.ndarray) -> tuple[float, float]:
    """Mirror the resampled values about the observed one, for what resampling biases upwards.

    The calibration error of a resample exceeds the sample's by about as much as the sample's
    exceeds the truth, so its percentiles lie on the wrong side.

    Source: basic bootstrap, Davison & Hinkley 1997, section 5.2.1.
    """
    low, high = percentile_interval(replicates)
    return max(0.0, 2 * value - high), max(value, 2 * value - low)


def wilson_interval(share: float, trials: float, *, quantile: float = _Z) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share of independent trials, such as lesions.

    Unlike scipy's, it takes a share that is a mean over seeds, which no whole count gives, and
    effective trials, ``share * (1 - share) / variance``, with the t quantile of that variance.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209; recommended for small n by Brown, Cai &
        DasGupta, Statist. Sci. 16 (2001) 101; effective trials: Dean & Pagano, J. Surv. Stat.
        Methodol. 3 (2015) 484.
    """
    z = quantile
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    spread = z / scale * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, float(centre - spread)), min(1.0, float(centre + spread))


def difference_interval(share: float, other: float, trials: int) -> tuple[float, float]:
    """Return the interval of ``share - other`` from the Wilson interval of each.

    Pairing is ignored, which makes the interval too wide rather than too narrow.

    Source: Newcombe, Stat. Med. 17 (1998) 873, method 10.
    """
    (low, high), (other_low, other_high) = (wilson_interval(p, trials) for p in (share, other))
    below = np.hypot(share - low, other_high - other)
    above = np.hypot(high - share, other - other_low)
    return float(share - other - below), float(share - other + above)


def mean_interval(
    values: np.ndarray, lows: np.ndarray, highs: np.ndarray, *, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the interval of a (weighted) mean of independent values from the interval of each.

    Source: MOVER, Zou & Donner, Stat. Med. 27 (2008) 1693.
    """
    shares = np.ones(len(values)) if weights is None else np.asarray(weights)
    mean, total = np.average(values, weights=weights), shares.sum()
    below = np.sqrt(np.sum((shares * (values - lows)) ** 2)) / total
    above = np.sqrt(np.sum((shares * (highs - values)) ** 2)) / total
    return float(mean - below), float(mean + above)


def recall_interval(value: float, replicates: np.ndarray, trials: int) -> tuple[float, float, str]:
    """Return the percentiles of a recall's resamples; Wilson's interval where they agree."""
    if np.ptp(replicates) <= 1e-12:
        return (*wilson_interval(value, trials), "wilson")
    return (*percentile_interval(replicates), "bootstrap")


def class_mean_interval(
    replicates: np.ndarray, classes: np.ndarray, *, varied: bool, weights: np.ndarray | None = None
) -> tuple[float, float, str]:
    """Return the percentiles of a mean over classes; unless all varied, at least `mean_interval`.

    ``classes`` are value, low and high of each, ``(K, 3)``.
    """
    low, high = percentile_interval(replicates)
    if varied:
        return low, high, "bootstrap"
    wide = mean_interval(*classes.T, weights=weights)
    return min(low, wide[0]), max(high, wide[1]), "mover"


def interval_p_value(value: float, low: float, high: float, *, quantile: float = _Z) -> float:
    """Return the two-sided p-value of "no difference" that fits a 95 % interval; NaN without one.

    The distance from the value to the limit on zero's side is taken as so many standard errors as
    the quantile says, of the t distribution that has it: below 0.05 exactly where zero is outside.
    """
    reach = value - low if value > 0 else high - value
    if np.isnan(reach) or reach <= 0:
        return float("nan")
    size = abs(value) / reach * quantile
    if quantile < t.ppf(_UPPER, 1e4):
        return float(2 * norm.sf(size / quantile * _Z))
    df = brentq(lambda each: t.ppf(_UPPER, each) - quantile, 0.5, 2e4, xtol=1e-12)
    return float(2 * t.sf(size, df))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct the p-values ``(K,)`` of one family for their number; NaN does not count.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.
    """
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
