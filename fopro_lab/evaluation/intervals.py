"""How sure a number is: resamples of test pictures and of seeds, and what replaces them.

The bootstrap resamples within each class, so a class keeps its share, and draws whole units: a
lesion or patient with all its pictures of the class, or single pictures where nothing is known.
It fails silently where all pictures of a class are right or all wrong: every resample then agrees
and the interval shrinks to a point. There Wilson's interval takes over, with units as trials.
"""

import math

import numpy as np

LEVEL = 0.95
_Z = 1.959963984540054  # standard normal quantile of 0.975


def bootstrap_weights(
    labels: np.ndarray, units: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Draw resamples of whole units within each class.

    Args:
        labels: Classes ``(n,)``.
        units: What is drawn as a whole, ``(n,)``: lesion, patient or the picture itself. A unit
            with pictures of two classes is drawn on its own in each.
        resamples: R, how many.
        seed: Seed of the draws.

    Returns:
        How often each picture was drawn, ``(n, R)``, ``float32``. Within a class the number of
        units drawn is always its number of units.

    Source: stratified (Davison & Hinkley 1997, section 3.2) cluster bootstrap (Field & Welsh,
        J. R. Stat. Soc. B 69 (2007) 369).

    Example:
        >>> labels, units = np.array([0, 0, 1]), np.array(["a", "b", "c"])
        >>> bootstrap_weights(labels, units, resamples=4, seed=0)[:2].sum(axis=0)
        array([2., 2., 2., 2.], dtype=float32)
    """
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
    """Draw resamples of training seeds, as weights of a mean over seeds.

    Resampling S seeds understates the variance of their mean by (S - 1) / S, half of it for two
    seeds; the deviations from 1 are therefore stretched by sqrt(S / (S - 1)).

    Args:
        seeds: S, at least 1; a single seed is never resampled (all ones).
        resamples: R.
        seed: Seed of the draws.

    Returns:
        Weights ``(S, R)`` with mean 1 over seeds; they may be negative.

    Source: rescaled bootstrap, Rao & Wu, J. Am. Stat. Assoc. 83 (1988) 231.

    Example:
        >>> seed_weights(2, resamples=500, seed=0).mean(axis=0).round(6).min()
        np.float64(1.0)
    """
    if seeds == 1:
        return np.ones((1, resamples))
    rng = np.random.default_rng([seed, 1])  # a stream of its own beside the pictures' draws
    counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T
    return 1 + (counts - 1) * np.sqrt(seeds / (seeds - 1))


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of the resampled values.

    Args:
        replicates: Values ``(R,)``, one a resample.

    Returns:
        Lower and upper limit; both NaN if any value is.

    Example:
        >>> [round(limit, 6) for limit in percentile_interval(np.arange(81.0))]
        [2.0, 78.0]
    """
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson_interval(share: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share; it never shrinks to a point.

    Args:
        share: Observed share in [0, 1].
        trials: Independent trials behind it, at least 1: lesions where lesions are resampled.

    Returns:
        Lower and upper limit in [0, 1].

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209; recommended for small n by Brown, Cai &
        DasGupta, Statist. Sci. 16 (2001) 101.

    Example:
        >>> [round(limit, 3) for limit in wilson_interval(0.0, 5)]
        [0.0, 0.434]
    """
    scale = 1 + _Z**2 / trials
    centre = (share + _Z**2 / (2 * trials)) / scale
    spread = _Z / scale * np.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    return max(0.0, float(centre - spread)), min(1.0, float(centre + spread))


def mean_interval(values: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """Return the interval of a mean of independent values from the interval of each.

    Args:
        values: Point values ``(K,)``.
        lows: Their lower limits ``(K,)``.
        highs: Their upper limits ``(K,)``.

    Returns:
        Lower and upper limit of the mean.

    Source: MOVER, Zou & Donner, Stat. Med. 27 (2008) 1693.

    Example:
        >>> mean_interval(np.zeros(4), np.zeros(4), np.full(4, 0.5))
        (0.0, 0.25)
    """
    mean, count = float(np.mean(values)), len(values)
    below = np.sqrt(np.sum((values - lows) ** 2)) / count
    above = np.sqrt(np.sum((highs - values) ** 2)) / count
    return mean - float(below), mean + float(above)


def difference_interval(share: float, other: float, trials: int) -> tuple[float, float]:
    """Return the interval of ``share - other`` from the Wilson interval of each.

    Pairing is left out, which makes the interval too wide rather than too narrow.

    Args:
        share: Observed share in [0, 1].
        other: The share it is compared with, over the same trials.
        trials: Independent trials behind each, at least 1.

    Returns:
        Lower and upper limit in [-1, 1].

    Source: Newcombe, Stat. Med. 17 (1998) 873, method 10.

    Example:
        >>> [round(limit, 3) for limit in difference_interval(0.0, 0.0, 5)]
        [-0.434, 0.434]
    """
    (low, high), (other_low, other_high) = (wilson_interval(p, trials) for p in (share, other))
    below = np.hypot(share - low, other_high - other)
    above = np.hypot(high - share, other - other_low)
    return float(share - other - below), float(share - other + above)


def basic_interval(value: float, replicates: np.ndarray) -> tuple[float, float]:
    """Mirror the resampled values about the observed one: for what resampling biases upwards.

    The calibration error of a resample is larger than the sample's by about as much as the
    sample's is larger than the truth, so its percentiles lie on the wrong side.
    The lower limit is cut at zero; the upper one is at least the observed value.

    Args:
        value: Observed value, at least 0.
        replicates: Values ``(R,)``, one a resample.

    Returns:
        Lower and upper limit.

    Source: basic bootstrap, Davison & Hinkley 1997, section 5.2.1.

    Example:
        >>> [round(limit, 2) for limit in basic_interval(0.1, np.linspace(0.1, 0.18, 81))]
        [0.02, 0.1]
    """
    low, high = percentile_interval(replicates)
    return max(0.0, 2 * value - high), max(value, 2 * value - low)


def interval_p_value(value: float, low: float, high: float) -> float:
    """Return the two-sided p-value of "no difference" that fits a 95 % interval.

    The distance from the value to the limit on zero's side is taken as 1.96 standard errors, so
    the p-value is below 0.05 just where the interval leaves zero out.

    Args:
        value: Observed difference.
        low: Lower limit, at most ``value``.
        high: Upper limit, at least ``value``.

    Returns:
        The p-value; NaN if a limit is.

    Example:
        >>> round(interval_p_value(0.2, 0.0, 0.3), 3)
        0.05
    """
    reach = value - low if value > 0 else high - value
    if np.isnan(reach) or reach <= 0:
        return float("nan")
    return math.erfc(abs(value) / reach * _Z / math.sqrt(2))


def sign_p_value(replicates: np.ndarray) -> float:
    """Return the two-sided bootstrap p-value of "no difference", matching the interval.

    Args:
        replicates: Differences ``(R,)``, one a resample.

    Returns:
        Twice the smaller share of resamples on one side of zero, counting the observed sample
        once; never below ``2 / (R + 1)``. NaN if a difference is.

    Source: Efron & Tibshirani 1993, section 15.4 (interval inversion); the added one: Davison &
        Hinkley 1997, section 4.2.

    Example:
        >>> sign_p_value(np.full(999, 0.1))
        0.002
    """
    if np.isnan(replicates).any():
        return float("nan")
    smaller = min(np.sum(replicates <= 0), np.sum(replicates >= 0))
    return float(min(1.0, 2 * (1 + smaller) / (1 + len(replicates))))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values for being several; one that is not known stays so and does not count.

    Args:
        p_values: Of one family, ``(K,)``.

    Returns:
        Corrected ones, at most 1, in the same order.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.

    Example:
        >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).round(3).tolist()
        [0.03, nan, 0.06, 0.06]
    """
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
