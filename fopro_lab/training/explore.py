"""Explore: drive a prompt towards its objectives while teacher and student stand still."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import torch
from torch import Tensor

from fopro_lab.config import Objective
from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier import FourierPrompt, apply_gain
from fopro_lab.models import Student, Teacher
from fopro_lab.training.objectives import (
    TaskHead,
    batch_norm_inputs,
    check_batch_norms,
    confidence_loss,
    disagreement_loss,
    identity_loss,
    statistics_distance,
    task_loss,
)


@dataclass(frozen=True, eq=False)
class Judge:
    """Everything that judges a prompt: the frozen actors and the weighted terms.

    Attributes:
        teacher: Frozen.
        objectives: Weight of each term that counts, above 0.
        class_counts: ``(K,)``, training pictures a class; what ``task`` needs.
        head: What ``task`` trains together with the prompt.
        student: What ``disagreement`` needs, in evaluation mode.
        student_size: Side of the picture the student sees, pixels; 0 is as it comes.
    """

    teacher: Teacher
    objectives: Mapping[Objective, float]
    class_counts: Tensor | None = None
    head: TaskHead | None = None
    student: Student | None = None
    student_size: int = 0

    def measure(self, images: Tensor, labels: Tensor, gain: Tensor) -> dict[Objective, Tensor]:
        """Measure each term, before its weight, on pictures under a gain.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            labels: ``(B,)``.
            gain: ``(B, 3, H, W // 2 + 1)``.

        Returns:
            A scalar tensor a term.
        """
        with ExitStack() as stack:
            if "statistics" in self.objectives:
                collected = stack.enter_context(batch_norm_inputs(self.teacher))
            features = self.teacher.encode(apply_gain(images, gain))
        terms: dict[Objective, Tensor] = {}
        for name in self.objectives:
            if name == "statistics":
                terms[name] = statistics_distance(collected)
            elif name == "confidence":
                terms[name] = confidence_loss(self.teacher.classify(features))
            elif name == "task":
                assert self.head is not None and self.class_counts is not None
                terms[name] = task_loss(
                    features, head=self.head, labels=labels, class_counts=self.class_counts
                )
            elif name == "disagreement":
                assert self.student is not None
                seen = shrink(images, self.student_size)
                terms[name] = disagreement_loss(self.student, seen, features)
            else:
                terms[name] = identity_loss(gain)
        return terms


def explore(
    prompt: FourierPrompt,
    teacher: Teacher,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    objectives: Mapping[Objective, float],
    steps: int,
    learning_rate: float = 0.01,
    class_counts: Tensor | None = None,
    head: TaskHead | None = None,
    student: Student | None = None,
    student_size: int = 0,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """Take some steps of Adam on the prompt, and on the task head if there is one.

    Args:
        prompt: Changed in place.
        teacher: Frozen.
        batches: Images ``(B, 3, H, W)`` in [0, 1] and labels ``(B,)``; begun anew at its end.
        objectives: Weight of each term, 0 or more; a weight of 0 leaves the term out.
        steps: Prompt steps.
        learning_rate: Adam's.
        class_counts: ``(K,)``, training pictures a class; needed by ``task``.
        head: Goes on from an earlier exploration; None starts one where ``task`` needs it.
        student: Needed by ``disagreement``; set to evaluation mode for the while.
        student_size: Side of the picture the student sees, pixels; 0 is as it comes.
        generator: Source of the prompt's noise.

    Returns:
        One row a step: ``step``, each term before its weight, ``total``, and ``log_gain``, the
        mean of |log gain|, natural logarithm.

    Raises:
        InputError: If an objective lacks what it needs, or there are no batches.
        WorkError: If a value stops being finite; the prompt is left as it was before that step.

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
    if "task" in active and class_counts is None:
        raise InputError("objective 'task': expected class_counts, got none")
    if "task" in active and head is None and class_counts is not None:
        head = TaskHead(teacher.feature_dim, classes=len(class_counts)).to(teacher.mean.device)
    judge = Judge(teacher, active, class_counts, head, student, student_size)
    parameters = [*prompt.parameters(), *(head.parameters() if head is not None else ())]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    rows = []
    with _evaluating(student):
        for step, (images, labels) in zip(range(steps), _endless(batches), strict=False):
            height, width = images.shape[2:]
            gain = prompt.sample_gain(len(images), generator, size=(height, width))
            terms = judge.measure(images, labels, gain)
            total = torch.stack([active[name] * value for name, value in terms.items()]).sum()
            row: dict[str, float] = {name: float(value.detach()) for name, value in terms.items()}
            if not torch.isfinite(total):
                raise WorkError(f"explore: step {step}: not finite: {row}; lower explore_rate")
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            strength = float(gain.detach().log().abs().mean())
            rows.append({"step": step, **row, "total": float(total.detach()), "log_gain": strength})
    return pd.DataFrame(rows)


@torch.no_grad()
def batch_norm_distance(
    teacher: Teacher, images: Tensor, *, prompt: FourierPrompt | None = None
) -> float:
    """Measure how far pictures are from what the teacher's batch norms expect.

    Args:
        teacher: One with batch norms.
        images: ``(B, 3, H, W)`` in [0, 1], all in one batch.
        prompt: Put before the teacher; its noise is drawn from a fixed seed.

    Returns:
        See `fopro_lab.training.objectives.statistics_distance`.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> batch_norm_distance(load_teacher("builtin"), torch.rand(4, 3, 32, 32)) > 0
        True
    """
    with batch_norm_inputs(teacher) as collected:
        if prompt is not None:
            images = prompt(images, torch.Generator().manual_seed(0))
        teacher.encode(images)
    return float(statistics_distance(collected))


def shrink(images: Tensor, size: int) -> Tensor:
    """Bring pictures to the student's size by an antialiased bilinear filter.

    Args:
        images: ``(B, C, H, W)``.
        size: Side, pixels; 0 leaves them alone.

    Returns:
        ``(B, C, size, size)``.

    Example:
        >>> shrink(torch.ones(1, 3, 64, 64), 32).shape
        torch.Size([1, 3, 32, 32])
    """
    if size in (0, images.shape[-1]):
        return images
    return torch.nn.functional.interpolate(
        images, (size, size), mode="bilinear", antialias=True, align_corners=False
    )


def _endless(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        came = False
        for batch in batches:
            came = True
            yield batch
        if not came:
            raise InputError("batches: expected images and labels, got none; an iterator that is "
                             "used up cannot begin anew")  # fmt: skip


@contextmanager
def _evaluating(student: Student | None) -> Iterator[None]:
    """Keep a student's batch norms still; training goes on afterwards as before."""
    if student is None:
        yield
        return
    was_training = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(was_training)


def active_objectives(
    objectives: Mapping[Objective, float], teacher: Teacher
) -> dict[Objective, float]:
    """Leave out terms of weight 0, and refuse those that the teacher cannot answer.

    Args:
        objectives: Weight of each term.
        teacher: Has it batch norms, a head?

    Returns:
        The terms that count.

    Raises:
        InputError: For an unknown name, a negative weight, nothing beside ``identity``, or a
            term that this teacher lacks.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> active_objectives({"statistics": 1.0, "task": 0.0}, load_teacher("builtin"))
        {'statistics': 1.0}
    """
    active = {name: weight for name, weight in objectives.items() if weight != 0}
    unknown = sorted(set(active) - set(get_args(Objective)))
    if unknown:
        raise InputError(f"objectives: expected names out of {get_args(Objective)}, got {unknown}")
    if not all(0 < weight < math.inf for weight in active.values()):
        raise InputError(f"objectives: expected weights of 0 or more, got {active}")
    if not set(active) - {"identity"}:
        raise InputError(f"objectives: expected one beside 'identity', got {sorted(active)}")
    if "confidence" in active and teacher.head is None:
        raise InputError(f"objective 'confidence': teacher {teacher.name} has no head")
    if "statistics" in active:
        check_batch_norms(teacher)
    return active
