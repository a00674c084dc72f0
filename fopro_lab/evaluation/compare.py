"""Paired comparisons of methods over the same test images, seeds and folds.

Runs may be compared where nothing but the method differs (`check_comparable`). `compare` subtracts
a baseline from every other method of one protocol; `compare_teachers` does so for each teacher;
`pairings` says which runs a difference leaves out; `score_runs` and `summarise` give the levels.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.config import REMOVED, PromptConfig, TeacherConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import (
    difference_interval,
    holm,
    interval_p_value,
    mean_over_trainings,
    sign_p_value,
)
from fopro_lab.evaluation.runs import Run
from fopro_lab.evaluation.scores import (
    GROUPS,
    align,
    limits,
    mean_of,
    measure_folds,
    pool,
    score_trainings,
    tidy,
)

PROMPTED = ("fopro", "random")
TAUGHT = ("ekd", *PROMPTED)
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
_FOLD = re.compile(r"/fold(\d+)$")
ByMethod = dict[str, dict[str, dict[int, Run]]]  # method, protocol, seed


def family(protocol: str) -> str:
    """Return a protocol id without its fold: what the folds of one partition have in common."""
    return _FOLD.sub("", protocol)


def pooled_protocol(protocols: Iterable[str]) -> str:
    """Name several folds of one partition in one id."""
    different = list(dict.fromkeys(protocols))
    if len(different) == 1:
        return different[0]
    numbers = [found.group(1) for found in map(_FOLD.search, different) if found]
    return f"{family(different[0])}/fold{'+'.join(sorted(numbers, key=int))}"


def _sort_out(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Sort runs by a key, in the order in which the keys first come."""
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _by_protocol(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return _sort_out(sorted(runs, key=lambda run: run.protocol), lambda run: run.protocol)


def group_families(runs: Sequence[Run], *, split: str = "test") -> list[list[Run]]:
    """Sort runs into lists whose numbers may be averaged.

    Folds of one partition are averaged where no lesion, patient or image is tested twice.
    Published "folds" that are independent draws test some images twice and stay apart, as all
    other protocols do.
    """
    sorted_out: list[list[Run]] = []
    for members in _sort_out(runs, lambda run: family(run.protocol)).values():
        folds = _by_protocol(members)
        tested: list[set[str]] = []
        for own in folds.values() if len(folds) > 1 else ():
            part = own[0].predictions.query("split == @split")
            tested.append(set(part["group"].where(part["group"] != "", part["image"])))
        twice = any(one & other for one, other in combinations(tested, 2))
        sorted_out += list(folds.values()) if twice else [members]
    return sorted_out


def merge_groups(groups: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Give each class the group that it has in most folds; of two as frequent, the rarer one.

    Folds differ by a few training images, so two classes of almost one size may change places.
    """
    merged = {}
    for name in groups[0]:
        places = [GROUPS.index(each[name]) for each in groups]
        merged[name] = GROUPS[max(set(places), key=lambda place: (places.count(place), place))]
    return merged


def _by_method(runs: Sequence[Run]) -> ByMethod:
    """Sort runs by method, protocol and seed, and refuse a combination that comes twice."""
    found: ByMethod = {run.method: {} for run in runs}
    for protocol, members in _by_protocol(runs).items():
        for run in members:
            by_seed = found[run.method].setdefault(protocol, {})
            if run.seed in by_seed:
                raise InputError(
                    f"{run.path}: expected one run of '{run.method}' with seed {run.seed}, got "
                    f"also {by_seed[run.seed].path}; leave one out"
                )
            by_seed[run.seed] = run
    return found


def _pairs_of(
    by_method: ByMethod, method: str, baseline: str
) -> dict[str, tuple[list[Run], list[Run]]]:
    """Pair the runs of two methods by seed, for each protocol with a seed in common."""
    pairs = {}
    for protocol, ours in by_method[method].items():
        theirs = by_method[baseline].get(protocol, {})
        common = [seed for seed in ours if seed in theirs]
        if common:
            pairs[protocol] = [ours[seed] for seed in common], [theirs[seed] for seed in common]
    if not pairs:
        had = (
            ", ".join(f"{seed} of {protocol}" for protocol, own in folds.items() for seed in own)
            for folds in (by_method[method], by_method[baseline])
        )
        raise InputError(
            f"{method}: expected a seed in common with '{baseline}', got {' against '.join(had)}"
        )
    return pairs


def pairings(runs: Sequence[Run], baseline: str) -> pd.DataFrame:
    """List for every run whether a comparison uses it, and why not.

    Args:
        runs: Finished and unfinished ones.
        baseline: Method that is subtracted.

    Returns:
        One row per run: ``run`` (its path), ``method``, ``seed``, ``protocol``, ``state``,
        ``paired`` (whether any difference rests on it), ``with`` (the methods it is paired with)
        and ``reason`` (why it is left out, or out of some pairs; empty if it is in all).
    """
    found = {(run.method, run.protocol, run.seed) for run in runs if run.complete}
    others = list(dict.fromkeys(r.method for r in runs if r.complete and r.method != baseline))
    rows = []
    for run in runs:
        partners = others if run.method == baseline else [baseline]
        known = [n for n in partners if run.complete and (n, run.protocol, run.seed) in found]
        lacking = ", ".join(name for name in partners if name not in known)
        reason = f"no run of {lacking} has its seed and fold" if lacking else ""
        if not run.complete:
            lost = run.state == "done"
            reason = "no predictions.parquet" if lost else f"not finished: {run.state}"
        about = (run.path.as_posix(), run.method, run.seed, run.manifest.get("protocol", ""))
        rows.append((*about, run.state, bool(known), ", ".join(known), reason))
    names = ["run", "method", "seed", "protocol", "state", "paired", "with", "reason"]
    return pd.DataFrame(rows, columns=names)


def dropped_lines(table: pd.DataFrame) -> list[str]:
    """Say in one line each which runs of `pairings` a comparison leaves out, wholly or in part."""
    return [
        (f"used against {row['with']} alone" if row["paired"] else "left out")
        + f": {row['run']} ({row['method']}, seed {row['seed']}): {row['reason']}"
        for row in table[table["reason"] != ""].to_dict("records")
    ]


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that differ in more than method and seed; folds of one partition may differ.

    Seeds of one method share every option. Methods share the options that both use: all of them
    data and steps, those with a teacher also the teacher, its file and the weight of its loss,
    those with a prompt also how it is built, trained and scheduled.

    Args:
        runs: Finished runs.
    """
    if not runs:
        raise InputError("runs: expected at least one, got none")
    first = runs[0]
    for run in runs[1:]:
        if family(run.protocol) != family(first.protocol):
            _refuse(run, first, "protocol")
        if run.class_names != first.class_names:
            _refuse(run, first, "class_names")
    for members in _by_protocol(runs).values():
        for run in members[1:]:
            for key in ("split_fingerprint", "groups"):
                if members[0].manifest[key] != run.manifest[key]:
                    _refuse(run, members[0], key)
    every = TrainConfig.model_fields.keys() | REMOVED.keys()
    every -= {"method", "seed", "fold", "device", "threads"}
    teaching = TeacherConfig.model_fields.keys() | {"distill_weight"}
    prompting = PromptConfig.model_fields.keys() | {"prompted_fraction", "prompted_decay"}
    prompting |= {"warmup_epochs", "prompt_every", "prompt_file"}
    taught = [run for run in runs if run.method in TAUGHT]
    _check_options(runs, every - teaching - prompting - {"random_gains"})
    _check_options(taught, teaching)
    _check_options([run for run in runs if run.method in PROMPTED], prompting)
    for peers in _sort_out(runs, lambda run: run.method).values():
        _check_options(peers, every)
    weights = [(run.manifest.get("teacher") or {}).get("sha256") for run in taught]
    for run, sha256 in zip(taught, weights, strict=True):
        if sha256 != weights[0]:
            raise InputError(
                f"{run.path}: expected the teacher's weights of {taught[0].path}, got another "
                f"file; compare runs of one teacher"
            )


def _refuse(run: Run, first: Run, key: str) -> None:
    raise InputError(
        f"{run.path}: expected the {key} of {first.path}, {first.manifest[key]!r}, got "
        f"{run.manifest[key]!r}; compare only runs of one split"
    )


def _check_options(runs: Sequence[Run], names: Iterable[str]) -> None:
    for run in runs[1:]:
        for name in sorted(names):
            expected, got = _option(runs[0], name), _option(run, name)
            if expected != got:
                raise InputError(
                    f"{run.path}: {name}: expected {expected!r} as in {runs[0].path}, got "
                    f"{got!r}; compare runs of one recipe"
                )


def _option(run: Run, name: str) -> Any:
    """Return an option; a run of a version that lacks it was trained as by its default."""
    known = TrainConfig.model_fields
    default = known[name].get_default() if name in known else REMOVED[name]
    value = run.config.get(name, default)
    return list(value) if isinstance(value, tuple) else value


def compare(
    runs: Sequence[Run],
    baseline: str,
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Subtract a baseline from every other method, paired by test image, seed and fold.

    Every resample draws whole lesions or patients within each class, the same ones for both
    methods, with two common seeds or more the seeds too, and with two folds or more the folds
    (see ``score_trainings``). Differences are averaged over the seeds that both methods have in a
    fold, then over the folds. Where all resamples agree, the two Wilson intervals are combined
    without pairing ("newcombe"). The p-values are not corrected for the number of rows: name the
    row of interest before looking.

    Args:
        runs: Finished runs of one split, or of several folds of one partition that share no
            tested image; at most one per method, fold and seed.
        baseline: Method that is subtracted.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        Columns ``method``, ``baseline``, ``scope``, ``name``, ``group``, ``metric``,
        ``method_value``, ``baseline_value``, ``difference`` (the first minus the second), ``low``,
        ``high``, ``n``, ``interval``, ``resampled``, ``p`` (two-sided, of no difference),
        ``seeds`` (common ones, the fewest of a fold), ``folds`` (common ones), ``varies``
        ("images", "images and seeds", "images, seeds and folds"), ``protocol``.

    Raises:
        InputError: For runs of different protocols, splits or classes, folds that share a tested
            image, a run that comes twice, a missing baseline, or a method without a fold and
            seed in common.

    Example:
        >>> compare([], "bsm")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    check_comparable(runs)
    by_method = _by_method(runs)
    if baseline not in by_method:
        raise InputError(f"baseline: expected one of {', '.join(by_method)}, got '{baseline}'")
    if len(by_method) == 1:
        raise InputError(f"runs: expected another method beside '{baseline}', got none")
    tables = []
    for method in by_method:
        if method != baseline:
            pairs = _pairs_of(by_method, method, baseline)
            table = _subtract(pairs, split=split, resamples=resamples, seed=seed)
            table.insert(0, "method", method)
            table.insert(1, "baseline", baseline)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _subtract(
    pairs: Mapping[str, tuple[list[Run], list[Run]]], *, split: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Compare the first runs of each protocol's pair with the second; see ``compare``."""
    groups = merge_groups([run.groups for own, _ in pairs.values() for run in own])
    folds = [
        align([run.predictions for run in (*ours, *theirs)], groups, split=split)
        for ours, theirs in pairs.values()
    ]
    images = pool(folds)
    points, replicates = measure_folds(folds, resamples=resamples, seed=seed)
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
    means = {key: mean_over_trainings(each, seed=seed) for key, each in drawn.items()}
    intervals = limits(
        images,
        values,
        drawn,
        means,
        fallback=lambda key, trials: (*difference_interval(*shares[key], trials), "newcombe"),
    )
    columns = {
        "method_value": {key: ours for key, (ours, _) in shares.items()},
        "baseline_value": {key: theirs for key, (_, theirs) in shares.items()},
        "difference": values,
    }
    table = tidy(images, columns, intervals)
    table["p"] = [
        sign_p_value(means[key])
        if kind == "bootstrap"
        else interval_p_value(values[key], low, high)
        for key, (low, high, kind) in intervals.items()
    ]
    table["seeds"], table["folds"] = min(halves), len(halves)
    varied = ["images", *["seeds"] * (max(halves) > 1), *["folds"] * (len(halves) > 1)]
    table["varies"] = " and ".join([", ".join(varied[:-1]), varied[-1]] if varied[1:] else varied)
    table["protocol"] = pooled_protocol(pairs)
    return table


def score_runs(
    runs: Sequence[Run], *, split: str = "test", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Score every protocol and method, averaged over its seeds, and over folds where that is fair.

    Args:
        runs: Finished runs, at most one per protocol, method and seed. Folds of one partition are
            put together where no image is tested twice.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        The columns of ``score`` after ``method``, ``seeds`` (how many, the fewest of a fold) and
        ``folds``; methods in the order of the runs.

    Raises:
        InputError: If runs of one protocol were not tested on the same images, or come twice.
    """
    if not runs:
        raise InputError("runs: expected at least one, got none")
    tables = []
    for members in group_families(runs, split=split):
        check_comparable(members)
        for method, folds in _by_method(members).items():
            table = score_trainings(
                [[run.predictions for run in by_seed.values()] for by_seed in folds.values()],
                merge_groups([run.groups for run in members]),
                pooled_protocol(folds),
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
    """Put the headline numbers of every protocol and method in one row; see `score_runs`.

    Returns:
        Columns ``protocol``, ``method``, ``seeds``, ``folds``, ``n`` (test images), then each
        headline metric with ``_low`` and ``_high``: balanced_accuracy, head, medium, tail (mean
        class recalls), worst_class_recall, macro_f1, mcc, auroc, ece.
    """
    scores = score_runs(runs, split=split, resamples=resamples, seed=seed)
    lines = []
    for (protocol, method), part in scores.groupby(["protocol", "method"], sort=False):
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


def compare_teachers(
    runs: Sequence[Run],
    pairs: Iterable[tuple[str, str]],
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare pairs of methods for every teacher, student and partition into folds.

    Methods without a teacher are compared with every teacher that has the same student and
    images. Since several teachers answer the same question, p-values are also corrected: by Holm,
    over the teachers of one pair, student and number, not over several pairs and numbers.

    Args:
        runs: Finished runs, at most one per student, partition, teacher, method, fold and seed.
        pairs: Method and baseline; a pair that nothing was trained for is left out.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        The columns of `compare` after ``teacher`` (name, "none" where neither method has one) and
        ``student``, and ``p_holm`` after ``p``.

    Raises:
        InputError: If no pair can be compared, or as `compare`.
    """
    if not runs:
        raise InputError("runs: expected at least one, got none")
    pairs = list(pairs)
    tables = []
    for student, teacher, members in _settings(runs, split=split):
        methods = {run.method for run in members}
        for method, baseline in pairs:
            has_teacher = bool({method, baseline} & set(TAUGHT))
            if not {method, baseline} <= methods or has_teacher != bool(teacher):
                continue
            two = [run for run in members if run.method in (method, baseline)]
            table = compare(two, baseline, split=split, resamples=resamples, seed=seed)
            table.insert(0, "teacher", teacher or "none")
            table.insert(1, "student", student)
            tables.append(table)
    if not tables:
        wanted = ", ".join(f"{method} against {baseline}" for method, baseline in pairs)
        had = ", ".join(dict.fromkeys(run.method for run in runs))
        raise InputError(f"runs: expected both methods of a pair ({wanted}), got {had}")
    found = pd.concat(tables, ignore_index=True)
    question = ["method", "baseline", "student", "scope", "name", "metric"]
    corrected = found.groupby(question, sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
    found.insert(found.columns.get_loc("p") + 1, "p_holm", corrected)
    return found


def summarise_teachers(
    runs: Sequence[Run], *, split: str = "test", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Put the headline numbers of every student, teacher and method in one row; see `summarise`."""
    if not runs:
        raise InputError("runs: expected at least one, got none")
    tables = []
    settings = _sort_out(runs, lambda run: (_student_of(run), teacher_of(run)))
    for (student, teacher), members in settings.items():
        table = summarise(members, split=split, resamples=resamples, seed=seed)
        table.insert(0, "student", student)
        table.insert(1, "teacher", teacher or "none")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def teacher_of(run: Run) -> str:
    """Name a run's teacher, with its image size where one was chosen; empty without a teacher."""
    if run.method not in TAUGHT:
        return ""
    size = int(run.config.get("teacher_size", 0))
    name = str(run.config.get("teacher", "builtin")).split(":")[-1]
    return f"{name}, {size} px" if size else name


def _student_of(run: Run) -> str:
    return str(run.config.get("student", "small"))


def _settings(runs: Sequence[Run], *, split: str) -> Iterable[tuple[str, str, list[Run]]]:
    """Yield student, teacher and their runs with those of no teacher; partitions stay apart."""
    for own in group_families(runs, split=split):
        for student, members in _sort_out(own, _student_of).items():
            alone = [run for run in members if not teacher_of(run)]
            if alone:
                yield student, "", alone
            for teacher, taught in _sort_out(members, teacher_of).items():
                if teacher:
                    yield student, teacher, alone + taught
