"""Who judges a prompt: the frozen actors, and the weight of each term."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from fopro_lab.config import Objective
from fopro_lab.errors import InputError
from fopro_lab.fourier.scaling import scale_spectrum
from fopro_lab.models import Student, Teacher
from fopro_lab.training.objectives import (
    TaskHead,
    confidence_loss,
    disagreement_loss,
    identity_loss,
    task_loss,
)
from fopro_lab.training.references import Reference, watched


@dataclass(frozen=True, eq=False)
class Judge:
    """Everything that judges a prompt.

    Attributes:
        teacher: Frozen.
        objectives: Weight of each term that counts, above 0.
        reference: What ``statistics`` compares with.
        class_counts: ``(K,)``, training pictures a class; what ``task`` needs.
        head: What ``task`` trains together with the prompt.
        student: What ``disagreement`` needs, in evaluation mode.
        student_size: Side of the picture the student sees, pixels; 0 is as it comes.
    """

    teacher: Teacher
    objectives: Mapping[Objective, float]
    reference: Reference | None = None
    class_counts: Tensor | None = None
    head: TaskHead | None = None
    student: Student | None = None
    student_size: int = 0

    def measure(
        self, images: Tensor, labels: Tensor, gain: Tensor
    ) -> tuple[dict[Objective, Tensor], Tensor]:
        """Measure each term, before its weight, on pictures under a gain.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            labels: ``(B,)``.
            gain: ``(B, 3, H, W // 2 + 1)``.

        Returns:
            A scalar tensor a term, and the teacher's features of the prompted pictures.
        """
        with ExitStack() as stack:
            if self.reference is not None:
                measured = stack.enter_context(watched(self.teacher, self.reference.layers))
            features = self.teacher.encode(scale_spectrum(images, gain))
        terms: dict[Objective, Tensor] = {}
        for name in self.objectives:
            if name == "statistics":
                assert self.reference is not None
                terms[name] = self.reference.distance(measured)
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
        return terms, features

    def total(self, terms: Mapping[Objective, Tensor]) -> Tensor:
        """Sum the terms with their weights."""
        return torch.stack([self.objectives[name] * value for name, value in terms.items()]).sum()


def drift(plain: Tensor, features: Tensor) -> Tensor:
    """Tell how far features have turned away: mean of ``1 - cos``, in [0, 2].

    Args:
        plain: The teacher's on the pictures as they are, ``(B, D)``.
        features: On the prompted pictures, ``(B, D)``.

    Returns:
        Scalar.

    Example:
        >>> float(drift(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])))
        1.0
    """
    return (1 - torch.nn.functional.cosine_similarity(plain, features, dim=1)).mean()


def active_objectives(
    objectives: Mapping[Objective, float], teacher: Teacher
) -> dict[Objective, float]:
    """Leave out terms of weight 0, and refuse those that the teacher cannot answer.

    Args:
        objectives: Weight of each term.
        teacher: Has it a head?

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
        raise InputError(
            f"objective 'confidence': teacher {teacher.name} has no head; "
            "set objectives.confidence=0"
        )
    return active


def shrink(images: Tensor, size: int) -> Tensor:
    """Bring pictures to the side the student sees, antialiased; 0 leaves them alone.

    Example:
        >>> shrink(torch.rand(1, 3, 8, 8), 4).shape
        torch.Size([1, 3, 4, 4])
    """
    if size in (0, images.shape[-1]):
        return images
    return torch.nn.functional.interpolate(
        images, (size, size), mode="bilinear", antialias=True, align_corners=False
    )


@contextmanager
def evaluating(student: Student | None) -> Iterator[None]:
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
