"""Methods side by side: their means over seeds, and paired differences on the same pictures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.comparable import check_comparable
from fopro_lab.evaluation.estimates import limits, mean_of, mean_over_trainings, measure_all, tidy
from fopro_lab.evaluation.folds import group_families, merge_groups, pooled_protocol
from fopro_lab.evaluation.intervals import difference_interval, interval_p_value, sign_p_value
from fopro_lab.evaluation.pairing import by_method_of, pairs_of
from fopro_lab.evaluation.pictures import line_up, pool
from fopro_lab.evaluation.runs import Run
from fopro_lab.evaluation.scores import score_trainings

HEADLINE = {  # column of `summarise`: scope, name and metric of the tidy table
    "balanced_accuracy": ("overall", "all", "balanced_accuracy"),
    "head": ("group", "head", "recall"),
    "medium": ("group", "medium", "recall"),
    "tail": ("group", "tail", "recall"),
    "worst_class_recall": ("overall", "all", "worst_class_recall"),
    "macro_f1": ("overall", "all", "macro_f1"),
    "mcc": ("overall", "all", "mcc"),
    "auroc": ("overall", "all", "auroc"),
    "ece": ("overall", "all", "ece"),
}


def compare(
    runs: Sequence[Run],
    baseline: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Subtract a baseline from every other method, paired by test picture, seed and fold.

    Every resample draws whole lesions or patients within each class, the same ones for both
    methods, with two common seeds or more the seeds too, and with two folds or more the folds
    (see ``score_trainings``). Differences are averaged over the seeds that both methods have in a
    fold, then over the folds. Where all resamples agree, the two Wilson
    intervals are combined without pairing ("newcombe"). The p-values are not corrected for the
    number of rows: name the row of interest before looking.

    Args:
        runs: Finished runs of one split, or of several folds of one deal that share no tested
            picture; at most one a method, fold and seed.
        baseline: Method that is subtracted.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        Columns ``method``, ``baseline``, ``scope``, ``name``, ``group``, ``metric``,
        ``method_value``, ``baseline_value``, ``difference`` (the first minus the second), ``low``,
        ``high``, ``n``, ``interval``, ``resampled``, ``p`` (two-sided, of no difference),
        ``seeds`` (common ones, the fewest of a fold), ``folds`` (common ones), ``varies``
        ("pictures", "pictures and seeds", "pictures, seeds and folds"), ``protocol``.

    Raises:
        InputError: For runs of different protocols, splits or classes, folds that share a tested
            picture, a run that comes twice, a missing baseline, or a method without a fold and
            seed in common.

    Example:
        >>> compare([], "bsm")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    check_comparable(runs)
    by_method = by_method_of(runs)
    if baseline not in by_method:
        raise InputError(f"baseline: expected one of {', '.join(by_method)}, got '{baseline}'")
    if len(by_method) == 1:
        raise InputError(f"runs: expected another method beside '{baseline}', got none")
    tables = [
        _difference(by_method, method, baseline, split=split, resamples=resamples, seed=seed)
        for method in by_method
        if method != baseline
    ]
    return pd.concat(tables, ignore_index=True)


def score_runs(
    runs: Sequence[Run], *, split: str = "test", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Score every protocol and method, averaged over its seeds, and over folds that may be.

    Args:
        runs: Finished runs, at most one a protocol, method and seed. Folds of one deal are put
            together where no picture is tested twice.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        The columns of ``score`` after ``method``, ``seeds`` (how many, the fewest of a fold) and
        ``folds``; methods in the order of the runs.

    Raises:
        InputError: If runs of one protocol were not tested on the same pictures, or come twice.

    Example:
        >>> score_runs([])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    if not runs:
        raise InputError("runs: expected at least one, got none")
    tables = []
    for members in group_families(runs, split=split):
        check_comparable(members)
        for method, folds in by_method_of(members).items():
            table = score_trainings(
                [[run.predictions for run in by_seed.values()] for by_seed in folds.values()],
                merge_groups([run.groups for run in members]),
                pooled_protocol(list(folds)),
                split=split,
                resamples=resamples,
                seed=seed,
            )
            table.insert(0, "method", method)
            table.insert(1, "seeds", min(len(by_seed) for by_seed in folds.values()))
            table.insert(2, "folds", len(folds))
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def summarise(
    runs: Sequence[Run], *, split: str = "test", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Put the headline numbers of every protocol and method in one row.

    Args:
        runs: As in ``score_runs``.
        split: As in ``score_runs``.
        resamples: As in ``score_runs``.
        seed: As in ``score_runs``.

    Returns:
        Columns ``protocol``, ``method``, ``seeds``, ``folds``, ``n`` (test pictures), then each
        headline metric with ``_low`` and ``_high``: balanced_accuracy, head, medium, tail (mean
        class recalls), worst_class_recall, macro_f1, mcc, auroc, ece.

    Raises:
        InputError: As ``score_runs``.

    Example:
        >>> summarise([])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    tidy_table = score_runs(runs, split=split, resamples=resamples, seed=seed)
    lines = []
    for (protocol, method), part in tidy_table.groupby(["protocol", "method"], sort=False):
        by_key = part.set_index(["scope", "name", "metric"])
        whole = by_key.loc["overall", "all", "balanced_accuracy"]
        line = {"protocol": protocol, "method": method}
        line |= {column: whole[column] for column in ("seeds", "folds", "n")}
        for column, key in HEADLINE.items():
            row = by_key.loc[key] if key in by_key.index else {}
            line[column] = row.get("value", np.nan)
            line[f"{column}_low"] = row.get("low", np.nan)
            line[f"{column}_high"] = row.get("high", np.nan)
        lines.append(line)
    return pd.DataFrame(lines)


def _difference(
    by_method: dict[str, dict[str, dict[int, Run]]],
    method: str,
    baseline: str,
    *,
    split: str,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Compare one method with the baseline; see ``compare``."""
    pairs = pairs_of(by_method, method, baseline)
    groups = merge_groups([run.groups for own, _ in pairs.values() for run in own])
    folds = [
        line_up([run.predictions for run in (*ours, *theirs)], groups, split=split)
        for ours, theirs in pairs.values()
    ]
    pictures = pool(folds)
    points, replicates = measure_all(folds, resamples=resamples, seed=seed)
    halves = [len(ours) for ours, _ in pairs.values()]
    shares = {
        key: (
            mean_of([fold[:half] for fold, half in zip(parts, halves, strict=True)]),
            mean_of([fold[half:] for fold, half in zip(parts, halves, strict=True)]),
        )
        for key, parts in points.items()
    }
    values = {key: ours - theirs for key, (ours, theirs) in shares.items()}
    drawn = {
        key: [fold[:half] - fold[half:] for fold, half in zip(parts, halves, strict=True)]
        for key, parts in replicates.items()
    }
    rows = limits(
        pictures,
        values,
        drawn,
        seed=seed,
        fallback=lambda key, trials: (*difference_interval(*shares[key], trials), "newcombe"),
    )
    levels = {
        name: {key: share[side] for key, share in shares.items()}
        for side, name in enumerate(("method_value", "baseline_value"))
    }
    table = tidy(pictures, {**levels, "difference": values}, rows)
    table["p"] = [
        sign_p_value(mean_over_trainings(drawn[key], seed=seed))
        if kind == "bootstrap"
        else interval_p_value(values[key], low, high)
        for key, (low, high, kind) in rows.items()
    ]
    table["seeds"], table["folds"] = min(halves), len(halves)
    varied = ["pictures", *["seeds"] * (max(halves) > 1), *["folds"] * (len(halves) > 1)]
    table["varies"] = " and ".join([", ".join(varied[:-1]), varied[-1]] if varied[1:] else varied)
    table["protocol"] = pooled_protocol(list(pairs))
    table.insert(0, "method", method)
    table.insert(1, "baseline", baseline)
    return table
