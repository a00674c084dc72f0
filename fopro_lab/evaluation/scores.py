"""The verdict on one method: every metric with its interval, as one tidy table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from fopro_lab.config import DataConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import (
    GROUPS,
    basic_interval,
    limits,
    line_up,
    mean_of,
    mean_over_trainings,
    measure_all,
    pool,
    tidy,
    wilson_interval,
)


def class_groups(
    counts: Mapping[str, int],
    *,
    rule: Literal["rank", "count"] = "rank",
    head_above: int = 700,
    tail_below: int = 70,
) -> dict[str, str]:
    """Sort classes into head, medium and tail by their number of training images.

    Args:
        counts: Training images of each class, two classes or more.
        rule: ``rank`` takes thirds by rank: of K classes K // 3, at least one, are head, the rest
            is halved and an odd one goes to the tail. Eight classes give the published ranks 0-1,
            2-4, 5-7 of ISIC-2019-LT. ``count`` takes thresholds, by default HyperKvasir's.
        head_above: With ``count``: more training images than this is head.
        tail_below: With ``count``: fewer training images than this is tail.

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


def groups_from(
    config: DataConfig, names: Sequence[str], class_counts: Sequence[int] | np.ndarray
) -> dict[str, str]:
    """Sort classes into head, medium and tail by the rule that a config names.

    ``auto`` takes what is published: ranks for ISIC-2019-LT and everything else, thresholds for
    HyperKvasir, official folds and others alike. Its publishers draw no validation part, so there
    the images of ours count as training images.

    Args:
        config: Its fields ``group_rule``, ``head_above`` and ``tail_below``; for ``auto`` also
            ``dataset``, ``split_rule`` and the size of the validation part.
        names: The K class names, in label order.
        class_counts: ``(K,)``, training images a class.

    Returns:
        As `class_groups`.

    Example:
        >>> groups_from(DataConfig(), ["df", "nv"], [10, 900])
        {'nv': 'head', 'df': 'tail'}
        >>> groups_from(DataConfig(dataset="hyperkvasir"), ["ileum", "polyps"], [6, 699])
        {'polyps': 'head', 'ileum': 'tail'}
    """
    counts = np.asarray(class_counts)
    rule: Literal["rank", "count"] = "rank"
    if config.group_rule != "auto":
        rule = config.group_rule
    elif "hyperkvasir" in (config.rule, Path(config.dataset).name):
        rule = "count"
        counts = counts + (config.val_per_class or counts / (1 / config.val_fraction - 1))
    return class_groups(
        {str(name): round(n) for name, n in zip(names, counts.tolist(), strict=True)},
        rule=rule,
        head_above=config.head_above,
        tail_below=config.tail_below,
    )


def score(
    predictions: pd.DataFrame,
    groups: Mapping[str, str],
    protocol: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure one run on its test images, each number with its 95 % interval.

    Group recall and balanced accuracy are means of class recalls. A class without test images
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
        ``metric``, ``value``, ``low``, ``high``, ``n`` (images), ``k`` (right ones, of a class
        recall and the accuracy), ``interval`` (how it was made: see ``estimates.limits``;
        "basic" for the calibration error), ``resampled`` ("image", or "group" if lesions or
        patients hold several images), ``protocol``.

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
    return score_trainings(
        [[predictions]], groups, protocol, split=split, resamples=resamples, seed=seed
    )


def score_trainings(
    folds: Sequence[Sequence[pd.DataFrame]],
    groups: Mapping[str, str],
    protocol: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the mean over several seeds of one method, and over folds if there are some.

    Every resample draws images, the same for all seeds of a fold, with two seeds or more the
    seeds too, and with two folds or more the folds, so that the interval speaks of new images
    and of a new training (crossed bootstrap: Owen, Ann. Appl. Stat. 1 (2007) 386). With two seeds
    that differ much it is too narrow: two numbers say little of a spread.

    Args:
        folds: For each fold one table of predictions a seed; a split without folds is one fold.
        groups: As in ``score``.
        protocol: As in ``score``.
        split: As in ``score``.
        resamples: As in ``score``.
        seed: Seed of the bootstrap.

    Returns:
        The columns of ``score``; ``value`` and ``k`` are means over seeds and folds, ``n`` counts
        the images of all folds.

    Raises:
        InputError: If the tables of a fold do not hold the same images, or two folds share some.

    Example:
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...                       "label": [0, 1], "logit_nv": [2.0, 1.0], "logit_df": [0.0, 0.0]})
        >>> other = table.assign(logit_df=[0.0, 3.0])
        >>> found = score_trainings([[table, other]], {"nv": "head", "df": "tail"}, "toy")
        >>> found["value"][:2].tolist()
        [1.0, 0.5]
    """
    lined = [line_up(tables, groups, split=split) for tables in folds]
    images = pool(lined)
    points, replicates = measure_all(lined, resamples=resamples, seed=seed)
    values = {key: mean_of(point) for key, point in points.items()}
    rows = limits(
        images,
        values,
        replicates,
        seed=seed,
        fallback=lambda key, trials: (*wilson_interval(values[key], trials), "wilson"),
    )
    ece = ("overall", "all", "ece")
    if rows[ece][2] == "bootstrap":
        drawn = mean_over_trainings(replicates[ece], seed=seed)
        rows[ece] = (*basic_interval(values[ece], drawn), "basic")
    table = tidy(images, {"value": values}, rows).assign(protocol=protocol)
    # Stretched weights of seeds can carry a limit beyond what the metric can be.
    lowest = table["metric"].isin(["mcc", "kappa"]) * -1.0
    table["low"] = table["low"].clip(lower=lowest)
    table["high"] = table["high"].clip(upper=1.0)
    return table
