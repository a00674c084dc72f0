"""The verdict on one method: every metric with its interval, as one tidy table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.intervals import (
    basic_interval,
    mean_interval,
    percentile_interval,
    seed_weights,
    wilson_interval,
)
from fopro_lab.evaluation.pictures import GROUPS, Key, Pictures, line_up

Interval = tuple[float, float, str]  # low, high, how it was made


def class_groups(
    counts: Mapping[str, int],
    *,
    rule: Literal["rank", "count"] = "rank",
    head_above: int = 700,
    tail_below: int = 70,
) -> dict[str, str]:
    """Sort classes into head, medium and tail by their number of training pictures.

    Args:
        counts: Training pictures of each class, two classes or more.
        rule: ``rank`` takes thirds by rank: of K classes K // 3, at least one, are head, the rest
            is halved and an odd one goes to the tail. Eight classes give the published ranks 0-1,
            2-4, 5-7 of ISIC-2019-LT. ``count`` takes thresholds, by default HyperKvasir's.
        head_above: With ``count``: more training pictures than this is head.
        tail_below: With ``count``: fewer training pictures than this is tail.

    Returns:
        "head", "medium" or "tail" for each class, the most frequent class first.

    Raises:
        InputError: For fewer than two classes, an unknown rule or thresholds that cross.

    Example:
        >>> class_groups({"df": 10, "nv": 900, "mel": 100})
        {'nv': 'head', 'mel': 'medium', 'df': 'tail'}
    """
    if len(counts) < 2:
        raise InputError(f"counts: expected two classes or more, got {len(counts)}")
    ranked = sorted(counts, key=lambda name: -counts[name])
    if rule == "rank":
        heads = max(1, len(ranked) // 3)
        mediums = (len(ranked) - heads) // 2
        places = [(rank >= heads) + (rank >= heads + mediums) for rank in range(len(ranked))]
    elif rule == "count":
        if tail_below > head_above + 1:
            raise InputError(
                f"tail_below: expected at most head_above + 1 = {head_above + 1}, got {tail_below}"
            )
        places = [(counts[n] <= head_above) + (counts[n] < tail_below) for n in ranked]
    else:
        raise InputError(f"rule: expected 'rank' or 'count', got '{rule}'")
    return {name: GROUPS[place] for name, place in zip(ranked, places, strict=True)}


def score(
    predictions: pd.DataFrame,
    groups: Mapping[str, str],
    protocol: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure one run on its test pictures, each number with its 95 % interval.

    Group recall and balanced accuracy are means of class recalls. A class without test pictures
    gets NaN with ``n`` 0 and is left out of every mean.

    Args:
        predictions: Table of predictions.
        groups: "head", "medium" or "tail" for each class; its order is the table's.
        protocol: Id of data and split; kept beside each number, never average across ids.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        Columns ``scope`` ("class", "group", "overall"), ``name``, ``group`` (of a class),
        ``metric``, ``value``, ``low``, ``high``, ``n`` (pictures), ``k`` (right ones, of a class
        recall and the accuracy), ``interval`` (how it was made, see ``limits``;
        the calibration error takes "basic"), ``resampled``
        ("image", or "group" if lesions or patients hold several pictures), ``protocol``.

    Raises:
        InputError: If the table or the groups do not fit.

    Example:
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> score(table, {"nv": "head", "df": "tail"}, "toy").head(2)[["name", "value", "k", "n"]]
          name  value    k  n
        0   nv    1.0  1.0  1
        1   df    0.0  0.0  1
    """
    return score_seeds([predictions], groups, protocol, split=split, resamples=resamples, seed=seed)


def score_seeds(
    tables: Sequence[pd.DataFrame],
    groups: Mapping[str, str],
    protocol: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the mean over several seeds of one method, tested on the same pictures.

    Every resample draws pictures, the same for all seeds, and with two seeds or more the seeds
    too, so that the interval speaks of new pictures and of a new training (a crossed bootstrap:
    Owen, Ann. Appl. Stat. 1 (2007) 386, slightly too wide rather than too narrow). Two or three
    seeds tell little about their spread: take the interval then as a lower bound.

    Args:
        tables: One table of predictions a seed.
        groups: As in ``score``.
        protocol: As in ``score``.
        split: As in ``score``.
        resamples: As in ``score``.
        seed: Seed of the bootstrap.

    Returns:
        The columns of ``score``; ``value`` and ``k`` are means over the seeds.

    Raises:
        InputError: If the tables do not hold the same pictures.

    Example:
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> other = table.assign(logit_df=[0.0, 3.0])
        >>> score_seeds([table, other], {"nv": "head", "df": "tail"}, "toy")["value"][:2].tolist()
        [1.0, 0.5]
    """
    pictures = line_up(tables, groups, split=split)
    points, replicates = measure_all(pictures, resamples=resamples, seed=seed)
    values = {key: float(point.mean()) for key, point in points.items()}
    rows = limits(
        pictures,
        values,
        replicates,
        seed=seed,
        fallback=lambda key, trials: (*wilson_interval(values[key], trials), "wilson"),
    )
    ece = ("overall", "all", "ece")
    if rows[ece][2] == "bootstrap":
        drawn = mean_over_seeds(replicates[ece], seed=seed)
        rows[ece] = (*basic_interval(values[ece], drawn), "basic")
    return tidy(pictures, {"value": values}, rows).assign(protocol=protocol)


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
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> score(table, {"nv": "head", "df": "tail"}, "toy")["interval"].unique().tolist()
        ['wilson', 'mover', 'none']
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
        elif not agree:
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
            found[key] = (*mean_interval(shares, lows, highs), "mover")
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
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> score(table, {"nv": "head", "df": "tail"}, "toy").columns[:4].tolist()
        ['scope', 'name', 'group', 'metric']
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
