"""Claims, teacher by teacher: pairs of methods compared where everything else is the same."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.config import PromptConfig, TeacherConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import (
    GROUPS,
    difference_interval,
    holm,
    interval_p_value,
    limits,
    line_up,
    mean_of,
    mean_over_trainings,
    measure_all,
    pool,
    sign_p_value,
    tidy,
)
from fopro_lab.evaluation.runs import Run
from fopro_lab.evaluation.scores import score_trainings

_FOLD = re.compile(r"/fold(\d+)$")


def family(protocol: str) -> str:
    """Return a protocol id without its fold: what the folds of one deal have in common.

    Example:
        >>> family("ham10000/groups/folds3-val0.15/seed0/fold2"), family("toy/seed0")
        ('ham10000/groups/folds3-val0.15/seed0', 'toy/seed0')
    """
    return _FOLD.sub("", protocol)


def pooled_protocol(protocols: Sequence[str]) -> str:
    """Name several folds of one deal in one id.

    Example:
        >>> pooled_protocol(["toy/folds3/fold1", "toy/folds3/fold3"])
        'toy/folds3/fold1+3'
        >>> pooled_protocol(["toy/seed0"])
        'toy/seed0'
    """
    different = list(dict.fromkeys(protocols))
    if len(different) == 1:
        return different[0]
    numbers = [found.group(1) for found in map(_FOLD.search, different) if found]
    return f"{family(different[0])}/fold{'+'.join(sorted(numbers, key=int))}"


def group_families(runs: Sequence[Run], *, split: str = "test") -> list[list[Run]]:
    """Sort runs into those whose numbers may be averaged.

    Folds of one deal are averaged where no lesion, patient or image is tested twice. Published
    "folds" that are drawn anew each time test some images twice and stay apart, as all other
    protocols do.

    Args:
        runs: Finished runs.
        split: "test" or "val".

    Returns:
        Lists of runs, in the order of the first of each.

    Example:
        >>> group_families([])
        []
    """
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(family(run.protocol), []).append(run)
    sorted_out: list[list[Run]] = []
    for members in families.values():
        folds = by_protocol(members)
        if len(folds) > 1 and _tested_twice([own[0] for own in folds.values()], split=split):
            sorted_out += list(folds.values())
        else:
            sorted_out.append(members)
    return sorted_out


def by_protocol(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Sort runs by protocol, in the order of the ids.

    Example:
        >>> by_protocol([])
        {}
    """
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.protocol):
        found.setdefault(run.protocol, []).append(run)
    return found


def merge_groups(groups: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Give each class the group that it has in most folds; of two as frequent, the rarer one.

    Folds differ by a few training images, so two classes of almost one size may change places.

    Example:
        >>> one, other = {"nv": "head", "mel": "medium"}, {"mel": "head", "nv": "head"}
        >>> merge_groups([one, one, other])
        {'nv': 'head', 'mel': 'medium'}
    """
    merged = {}
    for name in groups[0]:
        places = [GROUPS.index(each[name]) for each in groups]
        merged[name] = GROUPS[max(set(places), key=lambda place: (places.count(place), place))]
    return merged


def _tested_twice(runs: Sequence[Run], *, split: str) -> bool:
    """Say whether some lesion, patient or image is tested in two of the runs."""
    tested: list[set[str]] = []
    for run in runs:
        table = run.predictions
        part = table[table["split"] == split]
        units = part["group"].astype(str).where(part["group"].astype(str) != "", part["image"])
        tested.append(set(units))
    return any(one & other for one, other in combinations(tested, 2))


def pairs_of(
    by_method: dict[str, dict[str, dict[int, Run]]], method: str, baseline: str
) -> dict[str, tuple[list[Run], list[Run]]]:
    """Pair the runs of two methods by seed, fold by fold.

    Args:
        by_method: Of `by_method_of`.
        method: The one.
        baseline: The other.

    Returns:
        Of each protocol with a seed in common, the runs of the one and of the other.

    Raises:
        InputError: If they have no seed of any fold in common.
    """
    pairs = {}
    for protocol, ours in by_method[method].items():
        theirs = by_method[baseline].get(protocol, {})
        common = [each for each in ours if each in theirs]
        if common:
            pairs[protocol] = [ours[each] for each in common], [theirs[each] for each in common]
    if not pairs:
        had = (
            ", ".join(f"{seed} of {protocol}" for protocol, own in folds.items() for seed in own)
            for folds in (by_method[method], by_method[baseline])
        )
        raise InputError(
            f"{method}: expected a seed in common with '{baseline}', got {' against '.join(had)}"
        )
    return pairs


def by_method_of(runs: Sequence[Run]) -> dict[str, dict[str, dict[int, Run]]]:
    """Sort runs by method, protocol and seed, each combination once.

    Args:
        runs: Finished runs.

    Raises:
        InputError: If two runs have the same method, protocol and seed.

    Example:
        >>> by_method_of([])
        {}
    """
    found: dict[str, dict[str, dict[int, Run]]] = {run.method: {} for run in runs}
    for protocol, members in by_protocol(runs).items():
        for run in members:
            by_seed = found[run.method].setdefault(protocol, {})
            if run.seed in by_seed:
                raise InputError(
                    f"{run.path}: expected one run of '{run.method}' with seed {run.seed}, got "
                    f"also {by_seed[run.seed].path}; leave one out"
                )
            by_seed[run.seed] = run
    return found


def pairings(runs: Sequence[Run], baseline: str) -> pd.DataFrame:
    """Tell of every run whether a comparison takes it, and why not.

    Args:
        runs: Finished and unfinished ones.
        baseline: Method that is subtracted.

    Returns:
        A row a run: ``run`` (its path), ``method``, ``seed``, ``protocol``, ``state``, ``paired``
        (whether any difference rests on it), ``with`` (the methods it is paired with) and
        ``reason`` (why it is left out, or out of some pairs; empty if it is in all).

    Example:
        >>> pairings([], "bsm").columns.tolist()[:3]
        ['run', 'method', 'seed']
    """
    finished = [run for run in runs if run.complete]
    found = {(run.method, run.protocol, run.seed) for run in finished}
    others = list(dict.fromkeys(run.method for run in finished if run.method != baseline))
    rows = []
    for run in runs:
        partners = others if run.method == baseline else [baseline]
        done = run.complete
        known = [name for name in partners if done and (name, run.protocol, run.seed) in found]
        lacking = [name for name in partners if name not in known]
        reason = f"not finished: {run.state}" if run.state != "done" else "no predictions.parquet"
        if done:
            reason = f"no run of {', '.join(lacking)} has its seed and fold" if lacking else ""
        rows.append(
            {
                "run": run.path.as_posix(),
                "method": run.method,
                "seed": run.seed,
                "protocol": run.manifest.get("protocol", ""),
                "state": run.state,
                "paired": bool(known),
                "with": ", ".join(known),
                "reason": reason,
            }
        )
    names = ["run", "method", "seed", "protocol", "state", "paired", "with", "reason"]
    return pd.DataFrame(rows, columns=names)


def dropped_lines(table: pd.DataFrame) -> list[str]:
    """Say in a line each which runs a comparison leaves out, wholly or in part.

    Args:
        table: Of `pairings`.

    Example:
        >>> dropped_lines(pairings([], "bsm"))
        []
    """
    told = []
    for row in table[table["reason"] != ""].itertuples():
        how = f"used against {row[7]} alone" if row.paired else "left out"
        told.append(f"{how}: {row.run} ({row.method}, seed {row.seed}): {row.reason}")
    return told


PROMPTED = ("fopro", "random")
TAUGHT = ("ekd", *PROMPTED)


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs whose numbers may not stand side by side; folds of one deal may.

    Args:
        runs: Finished runs.

    Raises:
        InputError: If there are none, or they differ in protocol (but for the fold), in the split
            of a fold, in classes, groups, or in a knob of the recipe.

    Example:
        >>> check_comparable([])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    if not runs:
        raise InputError("runs: expected at least one, got none")
    first = runs[0]
    for run in runs[1:]:
        names = ("protocol", "class_names")
        expected = (family(first.protocol), first.manifest["class_names"])
        got = (family(run.protocol), run.manifest["class_names"])
        for key, one, other in zip(names, expected, got, strict=True):
            if one != other:
                _refuse(run, first, key, first.manifest[key], run.manifest[key])
    for members in by_protocol(runs).values():
        for run in members[1:]:
            for key in ("split_fingerprint", "groups"):
                one, other = members[0].manifest[key], run.manifest[key]
                if one != other:
                    _refuse(run, members[0], key, one, other)
    _check_recipes(runs)


def _refuse(run: Run, first: Run, key: str, expected: object, got: object) -> None:
    raise InputError(
        f"{run.path}: expected the {key} of {first.path}, {expected!r}, got {got!r}; "
        f"compare only runs of one split"
    )


def _check_recipes(runs: Sequence[Run]) -> None:
    """Refuse runs that differ in more than method and seed: the difference would be the recipe's.

    Seeds of one method share every knob. Methods share those that both use: all of them data and
    steps, those with a teacher also the teacher, its file and the weight of its loss, those with a
    prompt also how it is built, driven and scheduled.
    """
    free = {"method", "seed", "fold", "device", "threads"}
    teaching = TeacherConfig.model_fields.keys() | {"distill_weight"}
    prompting = PromptConfig.model_fields.keys() | {"prompted_fraction", "prompted_decay"}
    prompting |= {"warmup_epochs", "prompt_every", "prompt_file"}
    plain = TrainConfig.model_fields.keys() - free - teaching - prompting - {"random_gains"}
    for knobs, methods in ((plain, None), (teaching, TAUGHT), (prompting, PROMPTED)):
        users = [run for run in runs if methods is None or run.method in methods]
        for run in users[1:]:
            _check_knobs(users[0], run, knobs)
    for run in runs:
        peer = next(other for other in runs if other.method == run.method)
        _check_knobs(peer, run, TrainConfig.model_fields.keys() - free)
    taught = [run for run in runs if run.method in TAUGHT]
    for run in taught[1:]:
        one, other = (
            (each.manifest.get("teacher") or {}).get("sha256") for each in (taught[0], run)
        )
        if one != other:
            raise InputError(
                f"{run.path}: expected the teacher's weights of {taught[0].path}, got another "
                f"file; compare runs of one teacher"
            )


def _check_knobs(first: Run, run: Run, knobs: Iterable[str]) -> None:
    for knob in sorted(knobs):
        expected, got = (_value(each, knob) for each in (first, run))
        if expected != got:
            raise InputError(
                f"{run.path}: {knob}: expected {expected!r} as in {first.path}, got "
                f"{got!r}; compare runs of one recipe"
            )


def _value(run: Run, knob: str) -> Any:
    """Return a knob's value; a run that is older than the knob was trained as its default is."""
    value = run.config.get(knob, TrainConfig.model_fields[knob].get_default())
    return list(value) if isinstance(value, tuple) else value


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
    """Subtract a baseline from every other method, paired by test image, seed and fold.

    Every resample draws whole lesions or patients within each class, the same ones for both
    methods, with two common seeds or more the seeds too, and with two folds or more the folds
    (see ``score_trainings``). Differences are averaged over the seeds that both methods have in a
    fold, then over the folds. Where all resamples agree, the two Wilson
    intervals are combined without pairing ("newcombe"). The p-values are not corrected for the
    number of rows: name the row of interest before looking.

    Args:
        runs: Finished runs of one split, or of several folds of one deal that share no tested
            image; at most one a method, fold and seed.
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
            together where no image is tested twice.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        The columns of ``score`` after ``method``, ``seeds`` (how many, the fewest of a fold) and
        ``folds``; methods in the order of the runs.

    Raises:
        InputError: If runs of one protocol were not tested on the same images, or come twice.

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
        Columns ``protocol``, ``method``, ``seeds``, ``folds``, ``n`` (test images), then each
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
    images = pool(folds)
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
        images,
        values,
        drawn,
        seed=seed,
        fallback=lambda key, trials: (*difference_interval(*shares[key], trials), "newcombe"),
    )
    levels = {
        name: {key: share[side] for key, share in shares.items()}
        for side, name in enumerate(("method_value", "baseline_value"))
    }
    table = tidy(images, {**levels, "difference": values}, rows)
    table["p"] = [
        sign_p_value(mean_over_trainings(drawn[key], seed=seed))
        if kind == "bootstrap"
        else interval_p_value(values[key], low, high)
        for key, (low, high, kind) in rows.items()
    ]
    table["seeds"], table["folds"] = min(halves), len(halves)
    varied = ["images", *["seeds"] * (max(halves) > 1), *["folds"] * (len(halves) > 1)]
    table["varies"] = " and ".join([", ".join(varied[:-1]), varied[-1]] if varied[1:] else varied)
    table["protocol"] = pooled_protocol(list(pairs))
    table.insert(0, "method", method)
    table.insert(1, "baseline", baseline)
    return table


def compare_teachers(
    runs: Sequence[Run],
    pairs: Iterable[tuple[str, str]],
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare pairs of methods for every teacher, student and deal of folds.

    Methods without a teacher stand beside every teacher with the same student and images. The
    same is asked of several teachers, so p-values come corrected too: by Holm, over the teachers of
    one pair, student and number. Several pairs and numbers are not corrected among themselves.

    Args:
        runs: Finished runs, at most one a student, deal, teacher, method, fold and seed.
        pairs: Method and baseline; a pair that nothing was trained for is left out.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        The columns of `compare` after ``teacher`` (name, "none" where neither method has one) and
        ``student``, and ``p_holm`` after ``p``.

    Raises:
        InputError: If no pair can be compared, or as `compare`.

    Example:
        >>> compare_teachers([], [("ekd", "bsm")])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
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
        asked = ", ".join(f"{method} against {baseline}" for method, baseline in pairs)
        had = ", ".join(dict.fromkeys(run.method for run in runs))
        raise InputError(f"runs: expected both methods of a pair ({asked}), got {had}")
    found = pd.concat(tables, ignore_index=True)
    families = found.groupby(
        ["method", "baseline", "student", "scope", "name", "metric"], sort=False
    )
    corrected = families["p"].transform(lambda p: holm(p.to_numpy()))
    found.insert(found.columns.get_loc("p") + 1, "p_holm", corrected)
    return found


def summarise_teachers(
    runs: Sequence[Run], *, split: str = "test", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Put the headline numbers of every student, teacher and method in one row.

    Args:
        runs: As in `compare_teachers`.
        split: "test" or "val".
        resamples: Bootstrap resamples, at least 2.
        seed: Seed of the bootstrap.

    Returns:
        The columns of `summarise` after ``student`` and ``teacher``.

    Raises:
        InputError: As `summarise`.

    Example:
        >>> summarise_teachers([])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """
    if not runs:
        raise InputError("runs: expected at least one, got none")
    settings: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        settings.setdefault((_student_of(run), teacher_of(run)), []).append(run)
    tables = []
    for (student, teacher), members in settings.items():
        table = summarise(members, split=split, resamples=resamples, seed=seed)
        table.insert(0, "student", student)
        table.insert(1, "teacher", teacher or "none")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def teacher_of(run: Run) -> str:
    """Name a run's teacher as its config does, with its image size where one was chosen.

    Args:
        run: Any run.

    Returns:
        The name; empty for a method without a teacher.
    """
    if run.method not in TAUGHT:
        return ""
    size = int(run.config.get("teacher_size", 0))
    name = str(run.config.get("teacher", "builtin")).split(":")[-1]
    return f"{name}, {size} px" if size else name


def _student_of(run: Run) -> str:
    return str(run.config.get("student", "small"))


def _settings(runs: Sequence[Run], *, split: str) -> Iterable[tuple[str, str, list[Run]]]:
    """Yield student, teacher and their runs, baselines among them; deals of folds stay apart."""
    for own in group_families(runs, split=split):
        for student in dict.fromkeys(map(_student_of, own)):
            of_student = [run for run in own if _student_of(run) == student]
            alone = [run for run in of_student if not teacher_of(run)]
            if alone:
                yield student, "", alone
            for teacher in dict.fromkeys(filter(None, map(teacher_of, of_student))):
                taught = [run for run in of_student if teacher_of(run) == teacher]
                yield student, teacher, alone + taught
