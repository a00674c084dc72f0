"""From resamples to estimates: a value, its 95 % interval and how that interval was made."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from fopro_lab.evaluation.intervals import mean_interval, percentile_interval, seed_weights
from fopro_lab.evaluation.pictures import Key, Pictures

Interval = tuple[float, float, str]  # low, high, how it was made


def measure_all(
    pictures: Pictures, *, resamples: int, seed: int
) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """Measure every run on the pictures and on the same resamples of them.

    Args:
        pictures: Pictures with the logits of S runs.
        resamples: R.
        seed: Seed of the bootstrap.

    Returns:
        Plain values ``(S,)`` and resampled values ``(S, R)`` of each key.

    Example:
        >>> from fopro_lab.evaluation.pictures import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> pictures = line_up([table, table], {"nv": "head", "df": "tail"})
        >>> _, replicates = measure_all(pictures, resamples=5, seed=0)
        >>> replicates["overall", "all", "ece"].shape
        (2, 5)
    """
    weights = pictures.weights(resamples=resamples, seed=seed)
    plain = np.ones((len(pictures.labels), 1))
    points = [pictures.measure(logits, plain) for logits in pictures.logits]
    drawn = [pictures.measure(logits, weights) for logits in pictures.logits]
    keys = pictures.keys()
    return (
        {key: np.array([run[key][0] for run in points]) for key in keys},
        {key: np.stack([run[key] for run in drawn]) for key in keys},
    )


def mean_over_seeds(replicates: np.ndarray, *, seed: int) -> np.ndarray:
    """Average resampled values over resampled seeds.

    Args:
        replicates: Values ``(S, R)``.
        seed: Seed of the draws of seeds.

    Returns:
        Means ``(R,)``.

    Example:
        >>> mean_over_seeds(np.array([[0.5, 0.7]]), seed=0)
        array([0.5, 0.7])
    """
    seeds, resamples = replicates.shape
    return (seed_weights(seeds, resamples=resamples, seed=seed) * replicates).mean(axis=0)


def limits(
    pictures: Pictures,
    values: Mapping[Key, float],
    replicates: Mapping[Key, np.ndarray],
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
        pictures: What was measured.
        values: Mean over seeds of each key.
        replicates: Resampled values ``(S, R)`` of each key.
        seed: Seed of the draws of seeds.
        fallback: Interval from a key and the number of independent trials behind it.

    Returns:
        Lower limit, upper limit and "bootstrap", "mover", "none" or the fallback's word.

    Example:
        >>> from fopro_lab.evaluation.pictures import line_up
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> pictures = line_up([table], {"nv": "head", "df": "tail"})
        >>> points, drawn = measure_all(pictures, resamples=9, seed=0)
        >>> values = {key: float(point[0]) for key, point in points.items()}
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
        low, high = percentile_interval(mean_over_seeds(drawn, seed=seed))
        agree = bool(np.all(np.ptp(drawn, axis=1) <= 1e-12))
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
            drawn_low, drawn_high = percentile_interval(mean_over_seeds(replicates[key], seed=seed))
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
