"""Methods side by side: their means over seeds, and paired differences on the same pictures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fopro_lab.config import PromptConfig, TeacherConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation.estimates import limits, mean_over_seeds, measure_all, tidy
from fopro_lab.evaluation.intervals import difference_interval, interval_p_value, sign_p_value
from fopro_lab.evaluation.pictures import line_up
from fopro_lab.evaluation.runs import Run
from fopro_lab.evaluation.scores import score_seeds

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
    """Subtract a baseline from every other method, paired by test picture and by seed.

    Every resample draws whole lesions or patients within each class, the same ones for both
    methods, and with two common seeds or more the seeds too (see ``score_seeds``). Differences
    are averaged over the seeds that both methods have. Where all resamples agree, the two Wilson
    intervals are combined without pairing ("newcombe"). The p-values are not corrected for the
    number of rows: name the row of interest before looking.

    Args:
        runs: Finished runs of one protocol and split, at most one a method and seed.
        baseline: Method that is subtracted.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        Columns ``method``, ``baseline``, ``scope``, ``name``, ``group``, ``metric``,
        ``difference`` (method minus baseline), ``low``, ``high``, ``n``, ``interval``,
        ``resampled``, ``p`` (two-sided, of no difference), ``seeds`` (common ones), ``varies``
        ("pictures" or "pictures and seeds"), ``protocol``.

    Raises:
        InputError: For runs of different protocols, splits or classes, a run that comes twice, a
            missing baseline, or a method without a common seed.

    Example:
        >>> compare([], "bsm")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    _check_comparable(runs)
    by_method = _by_method(runs)
    if baseline not in by_method:
        raise InputError(f"baseline: expected one of {', '.join(by_method)}, got '{baseline}'")
    if len(by_method) == 1:
        raise InputError(f"runs: expected another method beside '{baseline}', got none")
    tables = [
        _difference(by_method, method, baseline, split=split, resamples=resamples, seed=seed)
        for method in by_method
        if method != baseline
    ]
    return pd.concat(tables, ignore_index=True).assign(protocol=runs[0].protocol)


def score_runs(
    runs: Sequence[Run], *, split: str = "test", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Score every protocol and method, averaged over its seeds.

    Args:
        runs: Finished runs, at most one a protocol, method and seed.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        The columns of ``score`` after ``method`` and ``seeds`` (how many); methods in the order
        of the runs.

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
    for protocol in dict.fromkeys(run.protocol for run in runs):
        same = [run for run in runs if run.protocol == protocol]
        _check_comparable(same)
        for method, by_seed in _by_method(same).items():
            table = score_seeds(
                [run.predictions for run in by_seed.values()],
                same[0].groups,
                protocol,
                split=split,
                resamples=resamples,
                seed=seed,
            )
            table.insert(0, "method", method)
            table.insert(1, "seeds", len(by_seed))
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
        Columns ``protocol``, ``method``, ``seeds``, ``n`` (test pictures), then each headline
        metric with ``_low`` and ``_high``: balanced_accuracy, head, medium, tail (mean class
        recalls), worst_class_recall, macro_f1, mcc, auroc, ece.

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
        line = {"protocol": protocol, "method": method, "seeds": whole["seeds"], "n": whole["n"]}
        for column, key in HEADLINE.items():
            row = by_key.loc[key] if key in by_key.index else {}
            line[column] = row.get("value", np.nan)
            line[f"{column}_low"] = row.get("low", np.nan)
            line[f"{column}_high"] = row.get("high", np.nan)
        lines.append(line)
    return pd.DataFrame(lines)


def _difference(
    by_method: dict[str, dict[int, Run]],
    method: str,
    baseline: str,
    *,
    split: str,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Compare one method with the baseline; see ``compare``."""
    ours, theirs = by_method[method], by_method[baseline]
    common = [each for each in ours if each in theirs]
    if not common:
        raise InputError(
            f"{method}: expected a seed in common with '{baseline}', got "
            f"{', '.join(map(str, ours))} against {', '.join(map(str, theirs))}"
        )
    paired = [ours[each] for each in common] + [theirs[each] for each in common]
    pictures = line_up([run.predictions for run in paired], paired[0].groups, split=split)
    points, replicates = measure_all(pictures, resamples=resamples, seed=seed)
    half = len(common)
    shares = {key: (p[:half].mean(), p[half:].mean()) for key, p in points.items()}
    values = {key: float(ours_ - theirs_) for key, (ours_, theirs_) in shares.items()}
    drawn = {key: runs[:half] - runs[half:] for key, runs in replicates.items()}
    rows = limits(
        pictures,
        values,
        drawn,
        seed=seed,
        fallback=lambda key, trials: (*difference_interval(*shares[key], trials), "newcombe"),
    )
    table = tidy(pictures, {"difference": values}, rows)
    table["p"] = [
        sign_p_value(mean_over_seeds(drawn[key], seed=seed))
        if kind == "bootstrap"
        else interval_p_value(values[key], low, high)
        for key, (low, high, kind) in rows.items()
    ]
    table["seeds"] = half
    table["varies"] = "pictures" if half == 1 else "pictures and seeds"
    table.insert(0, "method", method)
    table.insert(1, "baseline", baseline)
    return table


def _check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs whose numbers may not stand side by side."""
    if not runs:
        raise InputError("runs: expected at least one, got none")
    first = runs[0]
    for run in runs[1:]:
        for key in ("protocol", "split_fingerprint", "class_names", "groups"):
            expected, got = first.manifest[key], run.manifest[key]
            if expected != got:
                raise InputError(
                    f"{run.path}: expected the {key} of {first.path}, {expected!r}, got {got!r}; "
                    f"compare only runs of one split"
                )
    _check_recipes(runs)


def _check_recipes(runs: Sequence[Run]) -> None:
    """Refuse runs that differ in more than method and seed: the difference would be the recipe's.

    Seeds of one method share every knob; methods share those that all of them use.
    """
    free = {"method", "seed", "device", "threads"}
    own = {"distill_weight", "prompted_fraction", "prompted_decay", "warmup_epochs"}
    own |= {"explore_every", "prompt_file", "random_gains"}
    own |= TeacherConfig.model_fields.keys() | PromptConfig.model_fields.keys()
    shared = TrainConfig.model_fields.keys() - free - own
    firsts: dict[str, Run] = {}
    for run in runs:
        peer = firsts.setdefault(run.method, run)
        for other, knobs in ((peer, shared | own), (runs[0], shared)):
            for knob in sorted(knobs):
                expected, got = other.config.get(knob), run.config.get(knob)
                if expected != got:
                    raise InputError(
                        f"{run.path}: {knob}: expected {expected!r} as in {other.path}, got "
                        f"{got!r}; compare runs of one recipe"
                    )


def _by_method(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Sort runs by method and seed, each combination once."""
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        by_seed = found.setdefault(run.method, {})
        if run.seed in by_seed:
            raise InputError(
                f"{run.path}: expected one run of '{run.method}' with seed {run.seed}, got also "
                f"{by_seed[run.seed].path}; leave one out"
            )
        by_seed[run.seed] = run
    return found
