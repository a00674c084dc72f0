"""From resamples to estimates: a value, its 95 % interval and how that interval was made."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from fopro_lab.evaluation.intervals import mean_interval, percentile_interval, seed_weights
from fopro_lab.evaluation.pictures import Key, Pictures

Interval = tuple[float, float, str]  # low, high, how it was made
Parts = list[np.ndarray]  # one array a fold


def measure_all(
    pictures: Sequence[Pictures], *, resamples: int, seed: int
) -> tuple[dict[Key, Parts], dict[Key, Parts]]:
    """Measure every run on the pictures of its fold and on the same resamples of them.

    Args:
        pictures: One a fold, with the logits of its S runs.
        resamples: R.
        seed: Seed of the bootstrap.

    Returns:
        Of each key, a list with one entry a fold: plain values ``(S,)``, and resampled values
        ``(S, R)``.

    Example:
        >>> from fopro_lab.evaluation.pictures import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> pictures = line_up([table, table], {"nv": "head", "df": "tail"})
        >>> _, replicates = measure_all([pictures], resamples=5, seed=0)
        >>> replicates["overall", "all", "ece"][0].shape
        (2, 5)
    """
    points: dict[Key, Parts] = {key: [] for key in pictures[0].keys()}
    replicates: dict[Key, Parts] = {key: [] for key in points}
    for number, fold in enumerate(pictures):
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

    Folds differ because their pictures and seeds do, which is in the resamples already, and because
    their training pictures do, which is not. Only what goes beyond is added: the variance between
    folds less the mean variance within them, and nothing where that is negative (the moment
    estimate of DerSimonian & Laird, Control. Clin. Trials 7 (1986) 177). Folds resampled whole
    would count pictures and seeds twice: intervals 1.7 times too wide. Where three folds truly
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
    pictures: Pictures,
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
        pictures: What was measured, the folds put together.
        values: Mean over seeds and folds of each key.
        replicates: Resampled values ``(S, R)`` of each key, one array a fold.
        seed: Seed of the draws of seeds and folds.
        fallback: Interval from a key and the number of independent trials behind it.

    Returns:
        Lower limit, upper limit and "bootstrap", "mover", "none" or the fallback's word.

    Example:
        >>> from fopro_lab.evaluation.pictures import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> pictures = line_up([table], {"nv": "head", "df": "tail"})
        >>> points, drawn = measure_all([pictures], resamples=9, seed=0)
        >>> values = {key: mean_of(point) for key, point in points.items()}
        >>> found = limits(pictures, values, drawn, seed=0, fallback=lambda *_: (0.0, 1.0, "any"))
        >>> found["class", "df", "recall"], found["overall", "all", "mcc"]
        ((0.0, 1.0, 'any'), (nan, nan, 'none'))
    """
    units = pictures.class_sizes(units=True)
    trials = {key: sum(units[name] for name in pictures.members(key)) for key in pictures.keys()}
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
        members = [("class", name, "recall") for name in pictures.members(key) if units[name]]
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
    pictures: Pictures,
    columns: Mapping[str, Mapping[Key, float]],
    rows: Mapping[Key, Interval],
) -> pd.DataFrame:
    """Lay values and intervals out as a table, one row a key.

    Args:
        pictures: What was measured.
        columns: Named columns of values; "value" brings its count ``k`` along.
        rows: The interval of each key.

    Returns:
        The table without its protocol.

    Example:
        >>> from fopro_lab.evaluation.pictures import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> pictures = line_up([table], {"nv": "head", "df": "tail"})
        >>> key = ("class", "df", "recall")
        >>> tidy(pictures, {"value": {key: 0.0}}, {key: (0.0, 0.8, "wilson")})["n"].tolist()
        [1]
    """
    sizes = pictures.class_sizes()
    lines = []
    for key, (low, high, kind) in rows.items():
        scope, name, metric = key
        n = sum(sizes[member] for member in pictures.members(key))
        line: dict[str, object] = {
            "scope": scope,
            "name": name,
            "group": pictures.groups.get(name, "") if scope == "class" else "",
            "metric": metric,
            **{column: values[key] for column, values in columns.items()},
            "low": low,
            "high": high,
            "n": n,
        }
        if "value" in columns:
            counted = scope == "class" or metric == "accuracy"
            line["k"] = round(columns["value"][key] * n, 9) if counted and n else np.nan
        lines.append({**line, "interval": kind, "resampled": pictures.resampled})
    return pd.DataFrame(lines)
