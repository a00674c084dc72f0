"""What a prompt is driven towards: five terms, each switchable and weighted.

These are this project's reconstruction; the published generator was never released. The first,
the distance from natural statistics, is `fopro_lab.training.references.Reference.distance`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.rings import at_least_single
from fopro_lab.models import Student, StudentOutput


class DistillationLoss(NamedTuple):
    """The EKD loss and its three parts, each a scalar tensor averaged over the batch."""

    total: Tensor
    classes: Tensor
    second: Tensor
    distance: Tensor


def balanced_softmax_loss(
    logits: Tensor, labels: Tensor, *, class_counts: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of ``logits + log n``: training learns what is left beside the class sizes.

    Args:
        logits: ``(B, K)``.
        labels: ``(B,)``, integers in [0, K), or ``(B, K)``, shares of mixed images.
        class_counts: ``(K,)``, images drawn of each class, each above 0: the training images,
            if each is drawn once.
        label_smoothing: Share of every label that is spread evenly over the K classes, 0 to 1. The
            counts stay in the logits: it is the label that is smoothed, not the prior.

    Returns:
        Scalar, nats, mean over the batch.

    Raises:
        ShapeError: If ``class_counts`` has not one number a class.
        InputError: If a class has no training image, and the counts are on the CPU: its logarithm
            is minus infinity.

    Source: Ren et al., Balanced Meta-Softmax, NeurIPS 2020, eq. 4.

    Example:
        >>> even = balanced_softmax_loss(
        ...     torch.zeros(1, 2), torch.tensor([0]), class_counts=torch.tensor([9, 1]))
        >>> round(float(even.exp()), 4)  # 1 / 0.9
        1.1111
    """
    if class_counts.shape != logits.shape[1:]:
        raise ShapeError(
            f"class_counts: expected ({logits.shape[1]},), got {tuple(class_counts.shape)}"
        )
    # On a GPU the question would make it wait; an epoch asks before its first step.
    if class_counts.device.type == "cpu" and (class_counts <= 0).any():
        empty = torch.nonzero(class_counts <= 0).flatten().tolist()
        raise InputError(f"class_counts: expected 1 or more a class, got 0 for classes {empty}")
    logits = at_least_single(logits)  # in bfloat16 the logarithm of 6,705 is off by 0.01
    biased = logits + class_counts.to(logits).log()
    return F.cross_entropy(biased, labels, label_smoothing=label_smoothing)


def cosine_distance(projection: Tensor, features: Tensor) -> Tensor:
    """Squared distance of the unit vectors, ``2 - 2 cos(q, f)``, in [0, 4], mean over the batch.

    Args:
        projection: ``(B, D)``.
        features: ``(B, D)``.

    Returns:
        Scalar.

    Example:
        >>> float(cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])))
        2.0
    """
    if projection.shape != features.shape:
        raise ShapeError(
            f"projection: expected {tuple(features.shape)} as the features, "
            f"got {tuple(projection.shape)}"
        )
    cosine = F.cosine_similarity(at_least_single(projection), at_least_single(features), dim=1)
    return (2 - 2 * cosine).mean()


def distillation_loss(
    output: StudentOutput,
    features: Tensor,
    *,
    labels: Tensor,
    class_counts: Tensor,
    weight: float = 3.0,
    label_smoothing: float = 0.0,
) -> DistillationLoss:
    """Compute the EKD loss: two balanced softmaxes and the distance to the teacher.

    ``CE(a + log n, y) + CE(b + log n, y) + weight * mean(2 - 2 cos(q, f(x')))``

    Args:
        output: The student's, on the image as it is.
        features: The teacher's, on the prompted image, ``(B, D)``; no gradient flows into them.
        labels: As in `balanced_softmax_loss`.
        class_counts: As in `balanced_softmax_loss`.
        weight: Lambda, dimensionless, 3 in the release.
        label_smoothing: As in `balanced_softmax_loss`, in both heads alike.

    Returns:
        The total and its parts; ``distance`` is given before the weight.

    Raises:
        InputError: If the student was built without a projector.

    Source: FoPro-KD, IEEE TMI 43(3), 2024, section III-B, and its released code.

    Example:
        >>> from fopro_lab.models import build_student
        >>> student = build_student("small", classes=2, teacher_dim=4)
        >>> loss = distillation_loss(
        ...     student(torch.rand(2, 3, 32, 32)), torch.rand(2, 4),
        ...     labels=torch.tensor([0, 1]), class_counts=torch.tensor([5, 1]))
        >>> torch.allclose(loss.total, loss.classes + loss.second + 3 * loss.distance)
        True
    """
    if output.projection is None or output.second_logits is None:
        raise InputError("student: has no projector; build it with teacher_dim above 0")
    classes, second = (
        balanced_softmax_loss(
            logits, labels, class_counts=class_counts, label_smoothing=label_smoothing
        )
        for logits in (output.logits, output.second_logits)
    )
    distance = cosine_distance(output.projection, features.detach())
    return DistillationLoss(classes + second + weight * distance, classes, second, distance)


class TaskHead(nn.Module):
    """A linear classifier on the teacher's features, trained together with the prompt.

    Features are standardised over the batch first, since teachers differ a thousandfold in scale,
    and divided by the root of their number: a step of Adam moves every weight alike, and with a
    thousand features a rate that suits the prompt would throw the head from side to side.

    Args:
        feature_dim: D.
        classes: K.
        seed: Of the initial weights; the global generator is left as it is.

    Example:
        >>> TaskHead(4, classes=3)(torch.rand(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(self, feature_dim: int, *, classes: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.standardise = nn.BatchNorm1d(feature_dim, affine=False)
            self.linear = nn.Linear(feature_dim, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, D)`` to logits ``(B, K)``."""
        if self.training:
            # The first batches count in full: a running variance that starts at 1 would need
            # a hundred steps to get down to features of a hundredth.
            seen = self.standardise.num_batches_tracked
            assert seen is not None
            self.standardise.momentum = max(0.1, 1 / (1 + int(seen)))
        return self.linear(self.standardise(features) / features.shape[1] ** 0.5)


def confidence_loss(logits: Tensor) -> Tensor:
    """Entropy of each image's prediction, minus the entropy of the mean prediction.

    Low where the teacher is sure of each image and the batch still spreads over its classes;
    without the second term the prompt would turn every image into one class.

    Args:
        logits: Of the teacher's own head, ``(B, K)``.

    Returns:
        Scalar, nats, in [-log K, 0]: minus the mutual information.

    Source: DAFL (Chen et al., ICCV 2019), one-hot and information-entropy terms.

    Example:
        >>> round(float(confidence_loss(torch.tensor([[99.0, 0.0], [0.0, 99.0]]))), 4)
        -0.6931
    """
    log_each = torch.log_softmax(at_least_single(logits), dim=1)
    log_mean = torch.logsumexp(log_each, dim=0) - math.log(len(logits))
    each = -(log_each.exp() * log_each).sum(dim=1).mean()
    return each + (log_mean.exp() * log_mean).sum()


def task_loss(features: Tensor, *, head: TaskHead, labels: Tensor, class_counts: Tensor) -> Tensor:
    """Balanced softmax of a linear head on the prompted features: the label-aware objective.

    Args:
        features: The teacher's, on prompted images, ``(B, D)``.
        head: Trained together with the prompt.
        labels: ``(B,)``.
        class_counts: ``(K,)``, training images a class.

    Returns:
        Scalar, nats.

    Example:
        >>> loss = task_loss(torch.rand(2, 4), head=TaskHead(4, classes=2),
        ...                  labels=torch.tensor([0, 1]), class_counts=torch.tensor([1, 1]))
        >>> loss.shape
        torch.Size([])
    """
    return balanced_softmax_loss(head(features), labels, class_counts=class_counts)


def disagreement_loss(student: Student, images: Tensor, features: Tensor) -> Tensor:
    """Minus the EKD distance between the student and the prompted teacher (AKD).

    Args:
        student: Frozen for the while, in evaluation mode; it sees the image as it is.
        images: ``(B, 3, H, W)`` in [0, 1], at the student's size.
        features: The teacher's, on prompted images, ``(B, D)``.

    Returns:
        Scalar in [-4, 0].

    Raises:
        InputError: If the student has no projector.

    Example:
        >>> from fopro_lab.models import build_student
        >>> student = build_student("small", classes=2, teacher_dim=4).eval()
        >>> -4 <= float(disagreement_loss(student, torch.rand(1, 3, 32, 32), torch.rand(1, 4))) <= 0
        True
    """
    with torch.no_grad():
        projection = student(images).projection
    if projection is None:
        raise InputError("objective 'disagreement': the student has no projector")
    return -cosine_distance(projection, features)


def identity_loss(gain: Tensor) -> Tensor:
    """Mean of ``(log G)^2``: how far the prompt is from leaving the image alone.

    Args:
        gain: Positive, any shape.

    Returns:
        Scalar, 0 or more.

    Example:
        >>> float(identity_loss(torch.ones(3, 8, 5)))
        0.0
    """
    return gain.log().square().mean()
