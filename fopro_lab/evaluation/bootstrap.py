"""From resamples to estimates: a value, its 95 % interval and how that interval was made."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation import metrics
from fopro_lab.evaluation.predictions import LOGIT_PREFIX, check_predictions, class_names

LEVEL = 0.95
_Z = 1.959963984540054  # standard normal quantile of 0.975


def bootstrap_weights(
    labels: np.ndarray, units: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Draw resamples of whole units within each class.

    Args:
        labels: Classes ``(n,)``.
        units: What is drawn as a whole, ``(n,)``: lesion, patient or the image itself. A unit
            with images of two classes is drawn on its own in each.
        resamples: R, how many.
        seed: Seed of the draws.

    Returns:
        How often each image was drawn, ``(n, R)``, ``float32``. Within a class the number of
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
    rng = np.random.default_rng([seed, 1])  # a stream of its own beside the images' draws
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
class Images:
    """The images of one split that one or several runs were tested on, in a common order.

    Attributes:
        labels: True classes ``(n,)``.
        units: What the bootstrap draws as a whole, ``(n,)``: the group, or the image itself.
        logits: One array ``(n, K)`` a run.
        names: The K class names in label order.
        groups: "head", "medium" or "tail" for each class, in the order of the tables.
        resampled: "group" if some unit holds several images of a class, else "image".
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
        """Count the images of each class, or the units that are resampled."""
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
            weights: How often each image was drawn, ``(n, R)``; ones for the plain metric.

        Returns:
            Values ``(R,)`` for each of ``keys``; NaN where no image bears on a metric.
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
) -> Images:
    """Line up the predictions of several runs, image by image.

    Args:
        tables: Tables of predictions of the same images, one a run.
        groups: "head", "medium" or "tail" for each class.
        split: "val" or "test".

    Returns:
        The images, sorted by name.

    Raises:
        InputError: If a table is invalid, has no rows of the split, or differs from the first in
            its classes, images, labels or groups; if ``groups`` misses a class.

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
            raise InputError(f"split: expected images of '{split}', got {got}")
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
                    f"predictions: expected the same images of '{split}' in every run, "
                    f"got {len(first)} and {len(part)} that differ in '{column}'; "
                    f"use runs of one split"
                )
    units = first["group"].where(first["group"] != "", "image " + first["image"])
    several = pd.DataFrame({"label": first["label"], "unit": units}).duplicated().any()
    return Images(
        labels=first["label"].to_numpy(),
        units=units.to_numpy(dtype=str),
        logits=[part[[f"{LOGIT_PREFIX}{name}" for name in names]].to_numpy() for part in parts],
        names=names,
        groups=_checked_groups(groups, names),
        resampled="group" if several else "image",
    )


def pool(images: Sequence[Images]) -> Images:
    """Put the images of all folds together, without logits: for counts and names.

    Raises:
        InputError: If a lesion, patient or image is in two folds.

    Example:
        >>> folds = [line_up([pd.DataFrame({"image": [name, "x" + name], "group": "", "source": "",
        ...     "split": "test", "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})],
        ...     {"nv": "head", "df": "tail"}) for name in "ab"]
        >>> pool(folds).labels.tolist()
        [0, 1, 0, 1]
    """
    if len(images) == 1:
        return images[0]
    for one, other in combinations(images, 2):
        both = np.intersect1d(one.units, other.units)
        if len(both):
            raise InputError(
                f"runs: expected folds that share no tested lesion, patient or image, got "
                f"{len(both)} in two folds, '{both[0]}' for one; compare the folds one by one"
            )
    first = images[0]
    return Images(
        labels=np.concatenate([each.labels for each in images]),
        units=np.concatenate([each.units for each in images]),
        logits=[],
        names=first.names,
        groups=first.groups,
        resampled="group" if any(each.resampled == "group" for each in images) else "image",
    )


def mean_of_known(recalls: np.ndarray) -> np.ndarray:
    """Return the mean over classes that have images, NaN if none has.

    Args:
        recalls: ``(R, K)``, NaN for a class without images.

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


Interval = tuple[float, float, str]  # low, high, how it was made
Parts = list[np.ndarray]  # one array a fold


def measure_all(
    images: Sequence[Images], *, resamples: int, seed: int
) -> tuple[dict[Key, Parts], dict[Key, Parts]]:
    """Measure every run on the images of its fold and on the same resamples of them.

    Args:
        images: One a fold, with the logits of its S runs.
        resamples: R.
        seed: Seed of the bootstrap.

    Returns:
        Of each key, a list with one entry a fold: plain values ``(S,)``, and resampled values
        ``(S, R)``.

    Example:
        >>> from fopro_lab.evaluation.bootstrap import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> images = line_up([table, table], {"nv": "head", "df": "tail"})
        >>> _, replicates = measure_all([images], resamples=5, seed=0)
        >>> replicates["overall", "all", "ece"][0].shape
        (2, 5)
    """
    points: dict[Key, Parts] = {key: [] for key in images[0].keys()}
    replicates: dict[Key, Parts] = {key: [] for key in points}
    for number, fold in enumerate(images):
        weights = fold.weights(resamples=resamples, seed=_seed_of_fold(seed, number))
        plain = np.ones((len(fold.labels), 1))
        measured = [fold.measure(logits, plain) for logits in fold.logits]
        drawn = [fold.measure(logits, weights) for logits in fold.logits]
        for key in points:
            points[key].append(np.array([run[key][0] for run in measured]))
            replicates[key].append(np.stack([run[key] for run in drawn]))
    return points, replicates


def mean_over_trainings(replicates: Parts, *, seed: int) -> np.ndarray:
    """Average resampled values over resampled seeds, and over resampled folds.

    Folds differ because their images and seeds do, which is in the resamples already, and because
    their training images do, which is not. Only what goes beyond is added: the variance between
    folds less the mean variance within them, and nothing where that is negative (the moment
    estimate of DerSimonian & Laird, Control. Clin. Trials 7 (1986) 177). Folds resampled whole
    would count images and seeds twice: intervals 1.7 times too wide. Where three folds truly
    differ by more than both, three numbers say too little and intervals are too narrow.

    Args:
        replicates: Values ``(S, R)``, one array a fold.
        seed: Seed of the draws of seeds and folds.

    Returns:
        Means ``(R,)``.

    Example:
        >>> mean_over_trainings([np.array([[0.5, 0.7]])], seed=0)
        array([0.5, 0.7])
    """
    drawn = []
    for number, fold in enumerate(replicates):
        seeds, resamples = fold.shape
        weights = seed_weights(seeds, resamples=resamples, seed=_seed_of_fold(seed, number))
        drawn.append((weights * fold).mean(axis=0))
    means = np.stack(drawn)
    count, resamples = means.shape
    if count == 1:
        return means[0]
    between = float(np.var(means.mean(axis=1), ddof=1))
    beyond = max(0.0, between - float(np.var(means, axis=1).mean()))
    share = np.sqrt(beyond / between) if between else 0.0
    folds = seed_weights(count, resamples=resamples, seed=_seed_of_fold(seed, count))
    return ((1 + share * (folds - 1)) * means).mean(axis=0)


def mean_of(points: Parts) -> float:
    """Average plain values over seeds, then over folds.

    Example:
        >>> mean_of([np.array([0.25, 0.75]), np.array([1.0])])
        0.75
    """
    return float(np.mean([fold.mean() for fold in points]))


def _seed_of_fold(seed: int, number: int) -> int:
    """Seed the draws of a fold; the first one's are those of a split without folds."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def limits(
    images: Images,
    values: Mapping[Key, float],
    replicates: Mapping[Key, Parts],
    *,
    seed: int,
    fallback: Callable[[Key, int], Interval],
) -> dict[Key, Interval]:
    """Find the 95 % interval of each value, also where the bootstrap has none.

    Where all resamples agree (a class all right or all wrong), the bootstrap's interval would be
    a point. A class recall, the worst one and the accuracy then take ``fallback``; a mean of
    class recalls that contains such a class combines the intervals of its classes ("mover");
    other metrics have none (NaN, "none"). All else is the percentile bootstrap ("bootstrap").

    Args:
        images: What was measured, the folds put together.
        values: Mean over seeds and folds of each key.
        replicates: Resampled values ``(S, R)`` of each key, one array a fold.
        seed: Seed of the draws of seeds and folds.
        fallback: Interval from a key and the number of independent trials behind it.

    Returns:
        Lower limit, upper limit and "bootstrap", "mover", "none" or the fallback's word.

    Example:
        >>> from fopro_lab.evaluation.bootstrap import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> images = line_up([table], {"nv": "head", "df": "tail"})
        >>> points, drawn = measure_all([images], resamples=9, seed=0)
        >>> values = {key: mean_of(point) for key, point in points.items()}
        >>> found = limits(images, values, drawn, seed=0, fallback=lambda *_: (0.0, 1.0, "any"))
        >>> found["class", "df", "recall"], found["overall", "all", "mcc"]
        ((0.0, 1.0, 'any'), (nan, nan, 'none'))
    """
    units = images.class_sizes(units=True)
    trials = {key: sum(units[name] for name in images.members(key)) for key in images.keys()}
    # Whichever class is the worst, it has at least the units of the smallest one.
    worst = ("overall", "all", "worst_class_recall")
    trials[worst] = min(size for size in units.values() if size)
    with_trials = {worst, ("overall", "all", "accuracy")}
    found: dict[Key, Interval] = {}
    for key, drawn in replicates.items():
        low, high = percentile_interval(mean_over_trainings(drawn, seed=seed))
        agree = all(np.all(np.ptp(fold, axis=1) <= 1e-12) for fold in drawn)
        if np.isnan(values[key]):
            found[key] = (np.nan, np.nan, "none")
        elif not agree and not np.isnan(low):
            found[key] = (low, high, "bootstrap")
        elif key[0] == "class" or key in with_trials:
            other_low, other_high, kind = fallback(key, trials[key])
            found[key] = (min(low, other_low), max(high, other_high), kind)
        else:
            found[key] = (np.nan, np.nan, "none")
    for key in replicates:
        members = [("class", name, "recall") for name in images.members(key) if units[name]]
        is_mean = key[0] == "group" or key[2] == "balanced_accuracy"
        if is_mean and any(found[member][2] != "bootstrap" for member in members):
            lows, highs = (np.array([found[m][side] for m in members]) for side in (0, 1))
            shares = np.array([values[member] for member in members])
            low, high = mean_interval(shares, lows, highs)
            means = mean_over_trainings(replicates[key], seed=seed)
            drawn_low, drawn_high = percentile_interval(means)
            found[key] = (min(low, drawn_low), max(high, drawn_high), "mover")
    return found


def tidy(
    images: Images,
    columns: Mapping[str, Mapping[Key, float]],
    rows: Mapping[Key, Interval],
) -> pd.DataFrame:
    """Lay values and intervals out as a table, one row a key.

    Args:
        images: What was measured.
        columns: Named columns of values; "value" brings its count ``k`` along.
        rows: The interval of each key.

    Returns:
        The table without its protocol.

    Example:
        >>> from fopro_lab.evaluation.bootstrap import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> images = line_up([table], {"nv": "head", "df": "tail"})
        >>> key = ("class", "df", "recall")
        >>> tidy(images, {"value": {key: 0.0}}, {key: (0.0, 0.8, "wilson")})["n"].tolist()
        [1]
    """
    sizes = images.class_sizes()
    lines = []
    for key, (low, high, kind) in rows.items():
        scope, name, metric = key
        n = sum(sizes[member] for member in images.members(key))
        line: dict[str, object] = {
            "scope": scope,
            "name": name,
            "group": images.groups.get(name, "") if scope == "class" else "",
            "metric": metric,
            **{column: values[key] for column, values in columns.items()},
            "low": low,
            "high": high,
            "n": n,
        }
        if "value" in columns:
            counted = scope == "class" or metric == "accuracy"
            line["k"] = round(columns["value"][key] * n, 9) if counted and n else np.nan
        lines.append({**line, "interval": kind, "resampled": images.resampled})
    return pd.DataFrame(lines)
