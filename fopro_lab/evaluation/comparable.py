"""Which runs may be compared: one split, one recipe, or the difference would be theirs."""

from collections.abc import Sequence

from fopro_lab.config import PromptConfig, TeacherConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation.folds import by_protocol, family
from fopro_lab.evaluation.runs import Run


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

    Seeds of one method share every knob; methods share those that all of them use.
    """
    free = {"method", "seed", "fold", "device", "threads"}
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
