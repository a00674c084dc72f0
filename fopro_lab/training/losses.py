"""Losses: of the classes, of distillations, and what a Fourier prompt is trained towards.

Those of the classes stand in `LOSSES`: of logits ``(B, K)`` and labels ``(B,)``, or class shares
``(B, K)`` of mixed or smoothed ones, a scalar in nats, the batch mean. `DISTILLATIONS` are added to
them: functions, or modules with weights of their own, of what a student is to have of its teacher.
Each names what it takes, as one of the user's own does (`methods.GIVES`); counts are ``(K,)``,
above 0. Sources stand beside names. With several processes the relations of `rkd_loss` and
`sp_loss` are those of each one's share.

The terms of the prompt are this project's reconstruction (the published generator was never
released); the distance from natural statistics is `statistics.Reference.distance`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.rings import at_least_single
from fopro_lab.models import Student, StudentOutput
from fopro_lab.models.student import COSINE_SCALE

LDAM_MARGIN = 0.5  # of the rarest class, a cosine
DRW_FROM = 0.8  # share of the epochs after which classes have weights: the authors' 160 of 200
RKD_DISTANCE, RKD_ANGLE = 25.0, 50.0  # weights of the two relations


class DistillationLoss(NamedTuple):
    """The EKD loss and its three parts, each a scalar tensor averaged over the batch."""

    total: Tensor
    classes: Tensor
    second: Tensor
    distance: Tensor


def balanced_softmax_loss(logits: Tensor, labels: Tensor, *, class_counts: Tensor) -> Tensor:
    """Cross-entropy of ``logits + log n``, which corrects for the sizes of the classes.

    Args:
        logits: ``(B, K)``.
        labels: ``(B,)``, integers in [0, K), or ``(B, K)``, class shares of mixed or smoothed ones.
        class_counts: ``(K,)``, images drawn of each class in an epoch, each above 0.

    Returns:
        Scalar, nats, mean over the batch.

    Raises:
        InputError: If a shape does not fit, or a count is 0 (on a GPU that check would wait).

    Source: Ren et al., Balanced Meta-Softmax, NeurIPS 2020, eq. 4.

    Examples:
        >>> even = balanced_softmax_loss(
        ...     torch.zeros(1, 2), torch.tensor([0]), class_counts=torch.tensor([9, 1]))
        >>> round(float(even.exp()), 4)  # 1 / 0.9
        1.1111
    """
    logits = _checked(logits, labels, class_counts)
    return F.cross_entropy(logits + class_counts.to(logits).log(), labels)


def _checked(logits: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    if logits.ndim != 2 or len(labels) != len(logits):
        got = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ShapeError(f"logits, labels: expected (B, K) and a label for each of B, got {got}")
    if class_counts.shape != logits.shape[1:]:
        wrong = tuple(class_counts.shape)
        raise ShapeError(f"class_counts: expected ({logits.shape[1]},), got {wrong}")
    if class_counts.device.type == "cpu" and (class_counts <= 0).any():
        empty = torch.nonzero(class_counts <= 0).flatten().tolist()
        raise InputError(f"class_counts: expected 1 or more per class, got 0 for classes {empty}")
    return at_least_single(logits)  # in bfloat16 the logarithm of 6,705 is off by 0.01


def label_shares(labels: Tensor, *, classes: int, smoothing: float = 0.0) -> Tensor:
    """Turn labels ``(B,)``, or class shares ``(B, K)``, into smoothed class shares ``(B, K)``."""
    shares = F.one_hot(labels, classes).float() if labels.ndim == 1 else labels
    return (1 - smoothing) * shares + smoothing / classes


def _mean(terms: Tensor, labels: Tensor) -> Tensor:
    """Mean over images of their classes' terms ``(B, K)``, each by its share."""
    return (label_shares(labels, classes=terms.shape[1]).to(terms) * terms).sum(dim=1).mean()


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(logits, labels)


def logit_adjusted_loss(
    logits: Tensor, labels: Tensor, *, class_counts: Tensor, tau: float = 1.0
) -> Tensor:
    """Cross-entropy of ``logits + tau * log(class share)``: balanced softmax at a ``tau`` of 1."""
    logits = _checked(logits, labels, class_counts)
    counts = class_counts.to(logits)
    return F.cross_entropy(logits + tau * (counts / counts.sum()).log(), labels)


def focal_loss(logits: Tensor, labels: Tensor, *, gamma: float = 2.0) -> Tensor:
    """``-(1 - p)^gamma log p`` of the softmax; cross-entropy at a ``gamma`` of 0."""
    log_p = at_least_single(logits).log_softmax(dim=1)
    # 1 - p, exact where p is near 1; a root of 0 would have no gradient.
    return _mean(-((-log_p.expm1()).clamp(min=1e-7) ** gamma) * log_p, labels)


def effective_weights(class_counts: Tensor, *, beta: float = 0.9999) -> Tensor:
    """Weight of each class ``(K,)``, ``~ 1 / (1 - beta^n)``, of mean 1, for a beta in [0, 1)."""
    counts = class_counts.double()
    weights = -1 / torch.expm1(counts * math.log(beta)) if beta else torch.ones_like(counts)
    return weights / weights.mean()


def class_balanced_loss(
    logits: Tensor, labels: Tensor, *, class_counts: Tensor, beta: float = 0.9999
) -> Tensor:
    """Cross-entropy with `effective_weights`, mean over images, not over their weights."""
    log_p = _checked(logits, labels, class_counts).log_softmax(dim=1)
    return _mean(-effective_weights(class_counts, beta=beta).to(log_p) * log_p, labels)


def ldam_loss(
    logits: Tensor, labels: Tensor, *, train_counts: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Label-distribution-aware margins for the logits of a `CosineClassifier`.

    The label's logit loses `COSINE_SCALE` times ``n^(-1/4)``, scaled to at most `LDAM_MARGIN`;
    ``train_counts`` are different images. With ``weights (K,)`` of the classes it is their mean,
    over the sum of the batch's weights, as in the authors' code.
    """
    logits = _checked(logits, labels, train_counts)
    margins = train_counts.to(logits) ** -0.25
    margins = COSINE_SCALE * LDAM_MARGIN * margins / margins.max()
    # (B, K, K): in row k class k has lost its margin.
    log_p = (logits[:, None] - margins.diag()).log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    shares = label_shares(labels, classes=logits.shape[1]).to(logits)
    shares = shares if weights is None else shares * weights.to(logits)
    return -(shares * log_p).sum() / shares.sum()


def ldam_drw_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    train_counts: Tensor,
    class_counts: Tensor,
    epoch: int,
    epochs: int,
    beta: float = 0.9999,
) -> Tensor:
    """LDAM, in the last fifth of the epochs with `effective_weights`."""
    late = epoch >= DRW_FROM * epochs
    weights = effective_weights(class_counts, beta=beta) if late else None
    return ldam_loss(logits, labels, train_counts=train_counts, weights=weights)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": cross_entropy_loss,
    "bsm": balanced_softmax_loss,  # Ren et al., NeurIPS 2020, eq. 4
    "logit-adjustment": logit_adjusted_loss,  # Menon et al., ICLR 2021, eq. 10
    "focal": focal_loss,  # Lin et al., ICCV 2017, eq. 4
    "class-balanced": class_balanced_loss,  # Cui et al., CVPR 2019, eq. 4
    "ldam": ldam_loss,  # Cao et al., NeurIPS 2019, eq. 13; scale and largest margin of its code
    "ldam-drw": ldam_drw_loss,
}


def cosine_distance(projection: Tensor, features: Tensor) -> Tensor:
    """Squared distance of unit vectors ``(B, D)``, ``2 - 2 cos(q, f)``, in [0, 4], batch mean."""
    if projection.shape != features.shape:
        expected, got = tuple(features.shape), tuple(projection.shape)
        raise ShapeError(f"projection: expected {expected} as the features, got {got}")
    cosine = F.cosine_similarity(at_least_single(projection), at_least_single(features), dim=1)
    return (2 - 2 * cosine).mean()


def distillation_loss(
    output: StudentOutput,
    features: Tensor,
    *,
    labels: Tensor,
    class_counts: Tensor,
    weight: float = 3.0,
) -> DistillationLoss:
    """EKD: ``CE(a + log n, y) + CE(b + log n, y) + weight * mean(2 - 2 cos(q, f(x')))``.

    ``output`` is the student's, with a projector, on the unprompted image; ``features (B, D)`` are
    the teacher's on the prompted one, and get no gradient. ``weight`` is lambda, 3 in the release;
    the rest is as in `balanced_softmax_loss`, for both heads. ``distance`` is before the weight.

    Source: FoPro-KD, IEEE TMI 43(3), 2024, section III-B, and its released code.
    """
    if output.projection is None or output.second_logits is None:
        raise InputError("student: has no projector; build it with teacher_dim above 0")
    classes = balanced_softmax_loss(output.logits, labels, class_counts=class_counts)
    second = balanced_softmax_loss(output.second_logits, labels, class_counts=class_counts)
    distance = cosine_distance(output.projection, features.detach())
    return DistillationLoss(classes + second + weight * distance, classes, second, distance)


def kd_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T))`` of student and teacher, ``(B, K)`` each."""
    pair = (logits, teacher_logits)
    ours, theirs = ((at_least_single(each) / temperature).log_softmax(1) for each in pair)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def dkd_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Decoupled KD: ``alpha`` times that of label against rest, ``beta`` times that in the rest."""
    others = torch.arange(logits.shape[1] - 1, device=labels.device)
    others = others + (others >= labels[:, None])  # (B, K - 1), all classes but the label

    def split(values: Tensor) -> tuple[Tensor, Tensor]:
        values = at_least_single(values) / temperature
        rest = values.gather(1, others)
        own = values.gather(1, labels[:, None])
        return torch.cat([own, rest.logsumexp(1, keepdim=True)], dim=1), rest

    pairs = zip(split(logits), split(teacher_logits), strict=True)
    target, rest = (kd_loss(ours, theirs, temperature=1) for ours, theirs in pairs)
    return temperature**2 * (alpha * target + beta * rest)


class FitNet(nn.Module):
    """Mean square of the teacher's features minus a linear map of the student's, learned too."""

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.regressor = nn.Linear(student_dim, teacher_dim)

    def forward(self, student_features: Tensor, features: Tensor) -> Tensor:
        """Compare features ``(B, F)`` with ``(B, D)``, in their own unit."""
        return F.mse_loss(self.regressor(student_features).to(features), features)


def rkd_loss(student_features: Tensor, features: Tensor) -> Tensor:
    """Smooth L1 of distances over their mean, and of cosines at each image between two others.

    Scale and rotation of features ``(B, F)`` and ``(B, D)`` change nothing.
    """
    relations, exactly = [], "donot_use_mm_for_euclid_dist"
    for each in map(at_least_single, (student_features, features)):
        distances = torch.cdist(each, each, compute_mode=exactly)
        mean = distances.sum() / max(len(each) * (len(each) - 1), 1)
        units = F.normalize(each[None] - each[:, None], dim=2)
        relations.append((distances / mean.clamp(min=1e-12), units @ units.transpose(1, 2)))
    distance, angle = (F.smooth_l1_loss(*pair) for pair in zip(*relations, strict=True))
    return RKD_DISTANCE * distance + RKD_ANGLE * angle


def sp_loss(student_features: Tensor, features: Tensor) -> Tensor:
    """Mean square between Gram matrices ``(B, B)`` of student and teacher, rows of length 1."""
    pair = map(at_least_single, (student_features, features))
    ours, theirs = (F.normalize(each @ each.T, dim=1) for each in pair)
    return (ours - theirs).square().mean()


DISTILLATIONS: dict[str, Callable[..., Any]] = {
    "ekd": cosine_distance,
    "kd": kd_loss,  # Hinton et al., arXiv:1503.02531
    "dkd": dkd_loss,  # Zhao et al., CVPR 2022, eq. 7, without its warm-up
    "fitnet": FitNet,  # Romero et al., ICLR 2015, eq. 3, on pooled features of the last layer
    "rkd": rkd_loss,  # Park et al., CVPR 2019, eq. 5 to 8
    "sp": sp_loss,  # Tung & Mori, ICCV 2019, eq. 4
}


class TaskHead(nn.Module):
    """A linear classifier on the teacher's features, trained together with the prompt.

    Features are standardised over the batch, since teachers differ a thousandfold in scale, and
    divided by the root of their number, since a step of Adam moves every weight alike.
    """

    def __init__(self, feature_dim: int, *, classes: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.standardise = nn.BatchNorm1d(feature_dim, affine=False)
            self.linear = nn.Linear(feature_dim, classes)
        self.batches = 0  # seen in training, counted here: to read the norm's tensor, a GPU waits
        self.register_load_state_dict_post_hook(_count_batches)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, D)`` to logits ``(B, K)``."""
        if self.training:
            # The first batches count in full: from 1, a small variance takes a hundred steps.
            self.standardise.momentum = max(0.1, 1 / (1 + self.batches))
            self.batches += 1
        return self.linear(self.standardise(features) / features.shape[1] ** 0.5)


def _count_batches(head: nn.Module, _: object) -> None:
    head.batches = int(head.standardise.num_batches_tracked)  # type: ignore[assignment,union-attr,arg-type]


def disagreement_loss(student: Student, images: Tensor, features: Tensor) -> Tensor:
    """Minus the EKD distance between the student and the prompted teacher (AKD), in [-4, 0].

    The student, in evaluation mode, sees the unprompted images and gets no gradient.
    """
    with torch.no_grad():
        projection = student(images).projection
    if projection is None:
        raise InputError("objective 'disagreement': the student has no projector")
    return -cosine_distance(projection, features)


def identity_loss(gain: Tensor) -> Tensor:
    """Mean of ``(log G)^2``: how far a gain (above 0, any shape) is from changing nothing."""
    return gain.log().square().mean()
