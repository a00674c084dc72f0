"""Bootstrap confidence intervals over lesions and training seeds, and the p-values that fit them.

Any statistic that takes weights per image (see ``metrics``) is computed for all resamples at once.
Where all resamples agree, for example because a class is entirely right, the bootstrap knows no
interval and the closed forms of this file take its place.

Legend: ``n`` images, ``K`` classes, ``R`` resamples, ``S`` training seeds.
"""

import math
from collections.abc import Sequence

import numpy as np

from fopro_lab.errors import InputError

LEVEL = 0.95
_Z = 1.959963984540054  # standard normal quantile of 0.975


def bootstrap_weights(
    labels: np.ndarray, units: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Draw whole units (lesions, patients) within each class; return each image's count ``(n, R)``.

    Within a class the number of units drawn is always its number of units; a unit with images of
    two classes is drawn separately in each. Equal labels give a bootstrap without strata.

    Source: stratified (Davison & Hinkley 1997, section 3.2) cluster bootstrap (Field & Welsh,
        J. R. Stat. Soc. B 69 (2007) 369).
    """
    if resamples < 2:
        raise InputError(f"resamples: expected at least 2, got {resamples}")
    rng = np.random.default_rng(seed)
    weights = np.zeros((len(labels), resamples), dtype=np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        names, unit = np.unique(units[rows], return_inverse=True)
        draws = rng.integers(len(names), size=(resamples, len(names)))
        cells = draws.T + len(names) * np.arange(resamples)
        counts = np.bincount(cells.ravel(), minlength=resamples * len(names))
        weights[rows] = counts.reshape(resamples, len(names)).T[unit]
    return weights


def seed_weights(seeds: int, *, resamples: int, seed: int) -> np.ndarray:
    """Draw resamples of training seeds, as weights ``(S, R)`` of a mean over seeds.

    Resampling S seeds understates the variance of their mean by (S - 1) / S, half of it for two
    seeds; deviations from 1 are therefore stretched by sqrt(S / (S - 1)), and weights may be
    negative. A single seed is never resampled (all ones).

    Source: rescaled bootstrap, Rao & Wu, J. Am. Stat. Assoc. 83 (1988) 231.
    """
    if seeds == 1:
        return np.ones((1, resamples))
    rng = np.random.default_rng([seed, 1])  # another stream than that of the images' draws
    counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T
    return 1 + (counts - 1) * np.sqrt(seeds / (seeds - 1))


def mean_over_trainings(replicates: Sequence[np.ndarray], *, seed: int) -> np.ndarray:
    """Average values ``(S, R)`` of each fold over resampled seeds and folds; return ``(R,)``.

    Folds differ because their images and seeds do, which is in the resamples already, and because
    their training images do, which is not. Only what goes beyond is added: the variance between
    folds less the mean variance within them, and nothing where that is negative (the moment
    estimate of DerSimonian & Laird, Control. Clin. Trials 7 (1986) 177). Folds resampled whole
    would count images and seeds twice: intervals 1.7 times too wide. Where three folds truly
    differ by more than both, three numbers say too little and intervals are too narrow.
    """
    drawn = []
    for number, fold in enumerate(replicates):
        seeds, resamples = fold.shape
        weights = seed_weights(seeds, resamples=resamples, seed=fold_seed(seed, number))
        drawn.append((weights * fold).mean(axis=0))
    means = np.stack(drawn)
    count, resamples = means.shape
    if count == 1:
        return means[0]
    between = float(np.var(means.mean(axis=1), ddof=1))
    beyond = max(0.0, between - float(np.var(means, axis=1).mean()))
    share = np.sqrt(beyond / between) if between else 0.0
    folds = seed_weights(count, resamples=resamples, seed=fold_seed(seed, count))
    return ((1 + share * (folds - 1)) * means).mean(axis=0)


def fold_seed(seed: int, number: int) -> int:
    """Return the seed of a fold's draws; the first fold's are those of a split without folds."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


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


def wilson_interval(share: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share of independent trials, such as lesions.

    Unlike scipy's, it takes a share that is a mean over seeds, which no whole count gives.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209; recommended for small n by Brown, Cai &
        DasGupta, Statist. Sci. 16 (2001) 101.
    """
    scale = 1 + _Z**2 / trials
    centre = (share + _Z**2 / (2 * trials)) / scale
    spread = _Z / scale * np.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
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
    values: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    *,
    weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """Return the interval of a (weighted) mean of independent values from the interval of each.

    Source: MOVER, Zou & Donner, Stat. Med. 27 (2008) 1693.
    """
    shares = np.ones(len(values)) if weights is None else np.asarray(weights)
    mean, total = np.average(values, weights=weights), shares.sum()
    below = np.sqrt(np.sum((shares * (values - lows)) ** 2)) / total
    above = np.sqrt(np.sum((shares * (highs - values)) ** 2)) / total
    return float(mean - below), float(mean + above)


def interval_p_value(value: float, low: float, high: float) -> float:
    """Return the two-sided p-value of "no difference" that fits a 95 % interval; NaN without one.

    The distance from the value to the limit on zero's side is taken as 1.96 standard errors.
    """
    reach = value - low if value > 0 else high - value
    if np.isnan(reach) or reach <= 0:
        return float("nan")
    return math.erfc(abs(value) / reach * _Z / math.sqrt(2))


def sign_p_value(replicates: np.ndarray) -> float:
    """Return the two-sided bootstrap p-value of "no difference" of resampled differences ``(R,)``.

    It is twice the smaller share on one side of zero, counting the observed sample once.

    Source: Efron & Tibshirani 1993, section 15.4 (interval inversion); the added one: Davison &
        Hinkley 1997, section 4.2.
    """
    if np.isnan(replicates).any():
        return float("nan")
    smaller = min(np.sum(replicates <= 0), np.sum(replicates >= 0))
    return float(min(1.0, 2 * (1 + smaller) / (1 + len(replicates))))


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
