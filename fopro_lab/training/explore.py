"""Explore: drive a prompt towards its objectives while teacher and student stand still."""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd
import torch
from torch import Tensor

from fopro_lab.config import Objective
from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import Student, Teacher
from fopro_lab.training.checking import HeldOut, Keeper, hold_drift, plain_features
from fopro_lab.training.judging import Judge, active_objectives, drift, evaluating
from fopro_lab.training.masks import MaskRecord
from fopro_lab.training.objectives import TaskHead
from fopro_lab.training.references import Reference, reference_of


def explore(
    prompt: FourierPrompt,
    teacher: Teacher,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    objectives: Mapping[Objective, float],
    steps: int,
    learning_rate: float = 0.01,
    max_drift: float = 0.0,
    held_out: HeldOut | None = None,
    reference: Reference | None = None,
    class_counts: Tensor | None = None,
    head: TaskHead | None = None,
    student: Student | None = None,
    student_size: int = 0,
    generator: torch.Generator | None = None,
    record: MaskRecord | None = None,
) -> pd.DataFrame:
    """Take some steps of Adam on the prompt, and on the task head if there is one.

    Args:
        prompt: Changed in place.
        teacher: Frozen.
        batches: Images ``(B, 3, H, W)`` in [0, 1] and labels ``(B,)``; begun anew at its end.
        objectives: Weight of each term, 0 or more; a weight of 0 leaves the term out.
        steps: Prompt steps.
        learning_rate: Adam's.
        max_drift: Bound of the teacher's drift, mean ``1 - cos``: a prompt beyond is moved back
            towards the identity; 0 is none.
        held_out: Pictures that choose among the prompts of these steps, and may end them early;
            None keeps the last prompt.
        reference: What ``statistics`` compares with; None takes it anew, see `reference_of`.
        class_counts: ``(K,)``, training pictures a class; needed by ``task``.
        head: Goes on from an earlier exploration; None starts one where ``task`` needs it.
        student: Needed by ``disagreement``; set to evaluation mode for the while.
        student_size: Side of the picture the student sees, pixels; 0 is as it comes.
        generator: Source of the prompt's noise.
        record: Looks at the mask now and then, and at the end at the one that was kept.

    Returns:
        One row a step: ``step``, each term before its weight, ``total``, ``log_gain`` (mean of
        |log gain|, natural logarithm), with a bound ``drift``. Where a check was made after the
        step, columns ``val_...`` of `Keeper.check`, elsewhere NaN; ``kept`` is 1 for the step
        whose prompt was kept, nowhere if the prompt was best as it came.

    Raises:
        InputError: If an objective lacks what it needs, or there are no batches.
        WorkError: If a value or a gradient stops being finite; the prompt is left as it was before
            that step, or as the best that was checked.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> batches = [(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))]
        >>> history = explore(FourierPrompt("ring", size=32), load_teacher("builtin"), batches,
        ...                   objectives={"statistics": 1.0}, steps=2)
        >>> list(history.columns)
        ['step', 'statistics', 'total', 'log_gain']
    """
    active = active_objectives(objectives, teacher)
    if "disagreement" in active and student is None:
        raise InputError("objective 'disagreement': expected a student, got none")
    head = _task_head(head, teacher, class_counts) if "task" in active else None
    stream = _endless(batches)
    first = next(stream)
    if "statistics" in active:
        reference = reference or reference_of(teacher, size=first[0].shape[-1])
    else:
        reference = None
    judge = Judge(teacher, active, reference, class_counts, head, student, student_size)
    prompt.observe(first[0])
    parameters = [*prompt.parameters(), *(head.parameters() if head is not None else ())]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    keeper = Keeper(judge, held_out, prompt, max_drift) if held_out is not None else None
    rows: list[dict[str, float]] = []
    kept = -1  # the prompt as it came
    with evaluating(student):
        if keeper is not None:
            keeper.check()
        if record is not None:
            record.look(prompt, 0)
        for step, (images, labels) in enumerate(_chained(first, stream, steps)):
            gain = prompt.gain(images, generator)
            terms, features = judge.measure(images, labels, gain)
            total = judge.total(terms)
            row: dict[str, float] = {name: float(value.detach()) for name, value in terms.items()}
            optimiser.zero_grad()
            if torch.isfinite(total):
                total.backward()
            if not torch.isfinite(total) or not _finite_gradients(parameters):
                if keeper is not None:
                    keeper.restore()
                raise WorkError(f"explore: step {step}: not finite: {row}; lower explore_rate")
            optimiser.step()
            row["total"] = float(total.detach())
            row["log_gain"] = float(gain.detach().log().abs().mean())
            if max_drift:
                plain = plain_features(judge, images)
                row["drift"] = float(drift(plain, features.detach()))
                if row["drift"] > max_drift or step + 1 == steps:
                    hold_drift(prompt, judge, images, plain, max_drift)
            rows.append({"step": step, **row})
            if record is not None and step + 1 < steps:
                record.look(prompt, step + 1)
            if keeper is not None and held_out is not None:
                if (step + 1) % held_out.every == 0 or step + 1 == steps:
                    rows[-1] |= keeper.check()
                    kept = step if keeper.waited == 0 else kept
                if keeper.done:
                    break
        if keeper is not None:
            keeper.restore()
        if record is not None and record.steps - {0}:
            record.take(prompt, len(rows))
    history = pd.DataFrame(rows)
    return history if held_out is None else history.assign(kept=(history["step"] == kept) * 1)


def _task_head(head: TaskHead | None, teacher: Teacher, class_counts: Tensor | None) -> TaskHead:
    """Go on with a head, or start one."""
    if class_counts is None:
        raise InputError("objective 'task': expected class_counts, got none")
    if head is not None:
        return head
    return TaskHead(teacher.feature_dim, classes=len(class_counts)).to(teacher.mean.device)


def _finite_gradients(parameters: list[torch.nn.Parameter]) -> bool:
    """Tell whether a step may be taken; after a step on NaN nothing could be saved."""
    norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    return bool(torch.isfinite(torch.stack(norms)).all()) if norms else True


def _chained(
    first: tuple[Tensor, Tensor], stream: Iterator[tuple[Tensor, Tensor]], steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``steps`` batches, and take none in advance."""
    yield first
    for _ in range(steps - 1):
        yield next(stream)


def _endless(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        came = False
        for batch in batches:
            came = True
            yield batch
        if not came:
            raise InputError("batches: expected images and labels, got none; an iterator that is "
                             "used up cannot begin anew")  # fmt: skip
