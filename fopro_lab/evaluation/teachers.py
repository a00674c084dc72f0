"""Claims, teacher by teacher: pairs of methods compared where everything else is the same."""

from collections.abc import Iterable, Sequence

import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.evaluation.comparable import TAUGHT
from fopro_lab.evaluation.comparisons import compare, summarise
from fopro_lab.evaluation.folds import group_families
from fopro_lab.evaluation.intervals import holm
from fopro_lab.evaluation.runs import Run


def compare_teachers(
    runs: Sequence[Run],
    pairs: Iterable[tuple[str, str]],
    *,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare pairs of methods for every teacher, student and deal of folds.

    Methods without a teacher stand beside every teacher with the same student and pictures. The
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
    """Name a run's teacher as its config does, with its picture size where one was chosen.

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
