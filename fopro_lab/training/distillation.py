"""Distillations: what a student is to have of its teacher, a term added to the loss of the classes.

Each is a function, or a module with weights of its own, that names what it takes, as one of the
user's own does (`methods.GIVES`), and gives a scalar, the batch mean. Sources stand beside names.
With several processes the relations of `rkd_loss` and `sp_loss` are those of each one's share.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fopro_lab.fourier.rings import at_least_single
from fopro_lab.training.fitted_head import fit_head
from fopro_lab.training.losses import cosine_distance

SCALES = tuple(2.0**n for n in range(-9, 5))  # of a probe's logits
RKD_DISTANCE, RKD_ANGLE = 25.0, 50.0  # weights of the two relations


def kd_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T))`` of student and teacher, ``(B, K)`` each."""
    ours, theirs = ((at_least_single(x) / temperature).log_softmax(1)
                    for x in (logits, teacher_logits))  # fmt: skip
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


def fit_probe(
    features: Tensor, labels: Tensor, *, held_out: tuple[Tensor, Tensor], classes: int
) -> tuple[Tensor, Tensor]:
    """Fit a linear probe of the teacher, all classes alike: weight ``(K, D)`` and bias ``(K,)``.

    It is the shrunken discriminant of features ``(N, D)``, on the CPU; its logits are scaled for
    the lowest cross-entropy, mean over the classes, of ``held_out`` features and labels.
    """
    weight, bias = fit_head(features, labels, classes=classes)
    others, known = held_out
    logits, share = others @ weight + bias, 1 / known.bincount(minlength=classes).clamp(min=1)
    errors = torch.stack([F.cross_entropy(s * logits, known, weight=share) for s in SCALES])
    scale = SCALES[int(errors.argmin())]
    return scale * weight.T, scale * bias
