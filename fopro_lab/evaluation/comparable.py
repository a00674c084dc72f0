"""Which runs may be compared: one split, one recipe, or the difference would be theirs."""

from collections.abc import Iterable, Sequence
from typing import Any

from fopro_lab.config import PromptConfig, TeacherConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation.folds import by_protocol, family
from fopro_lab.evaluation.runs import Run

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
    prompting |= {"warmup_epochs", "explore_every", "prompt_file"}
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
