"""What a prompt is driven towards: five terms, each switchable and weighted.

These are this project's reconstruction; the published generator was never released. The first,
the distance from natural statistics, is `fopro_lab.training.references.Reference.distance`.
"""

import math

import torch
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.fourier.spectrum import at_least_single
from fopro_lab.models import Student
from fopro_lab.training.losses import balanced_softmax_loss, cosine_distance


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
    """Entropy of each picture's prediction, minus the entropy of the mean prediction.

    Low where the teacher is sure of each picture and the batch still spreads over its classes;
    without the second term the prompt would turn every picture into one class.

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
        features: The teacher's, on prompted pictures, ``(B, D)``.
        head: Trained together with the prompt.
        labels: ``(B,)``.
        class_counts: ``(K,)``, training pictures a class.

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
        student: Frozen for the while, in evaluation mode; it sees the picture as it is.
        images: ``(B, 3, H, W)`` in [0, 1], at the student's size.
        features: The teacher's, on prompted pictures, ``(B, D)``.

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
    """Mean of ``(log G)^2``: how far the prompt is from leaving the picture alone.

    Args:
        gain: Positive, any shape.

    Returns:
        Scalar, 0 or more.

    Example:
        >>> float(identity_loss(torch.ones(3, 8, 5)))
        0.0
    """
    return gain.log().square().mean()
