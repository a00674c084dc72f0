"""Students: the network that is trained, with a projector and a second head."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.fourier.rings import check_pixels
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD, SmallResNet
from fopro_lab.models.weights import load_matching, read_weights

SMALL_WIDTH = 12  # 0.17 million weights: a step takes milliseconds on a CPU


class StudentOutput(NamedTuple):
    """Outputs of one pass; the last two are None for a student without a teacher."""

    features: Tensor  # h, (B, F)
    logits: Tensor  # a = W h, (B, K); the only one used at inference
    projection: Tensor | None  # q = P(h), (B, D), in the teacher's width
    second_logits: Tensor | None  # b = V q, (B, K)


class Student(nn.Module):
    """A small network with the projector and second head of EKD.

    The second head reads the classes from the projection, which keeps the projector from
    carrying the distillation alone (FoPro-KD, section III-B). The backbone maps images that the
    student normalises to features of ``width``; a ``teacher_dim`` of 0 builds neither of the two.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, *, width: int, classes: int, teacher_dim: int) -> None:
        super().__init__()
        # Channels last is what CPU and GPU convolutions want; the numbers stay the same.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.classifier = nn.Linear(width, classes)
        self.projector: nn.Module | None = None
        self.second_classifier: nn.Module | None = None
        if teacher_dim:
            self.projector = nn.Sequential(
                nn.Linear(width, teacher_dim),
                nn.BatchNorm1d(teacher_dim),
                nn.ReLU(),
                nn.Linear(teacher_dim, teacher_dim),
            )
            self.second_classifier = nn.Linear(teacher_dim, classes)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> StudentOutput:
        """Map images ``(B, 3, H, W)`` in [0, 1] to all outputs; what training needs."""
        features = self.backbone(self._normalised(images))
        projection = None if self.projector is None else self.projector(features)
        second = None if self.second_classifier is None else self.second_classifier(projection)
        return StudentOutput(features, self.classifier(features), projection, second)

    def classify(self, images: Tensor) -> Tensor:
        """Map images ``(B, 3, H, W)`` in [0, 1] to logits ``(B, K)``; what inference needs."""
        return self.classifier(self.backbone(self._normalised(images)))

    def _normalised(self, images: Tensor) -> Tensor:
        check_scale(images, self)
        normalised = (images - self.mean) / self.std
        return normalised.contiguous(memory_format=torch.channels_last)


def build_student(
    name: str, *, classes: int, teacher_dim: int = 0, seed: int = 0, weights: str = ""
) -> Student:
    """Build a student, in training mode, with weights that depend on nothing but the seed.

    Args:
        name: ``small`` (0.17 million weights, for a CPU) or ``resnet18`` (11 million).
        classes: K, 2 or more.
        teacher_dim: Width of the teacher's features; 0 for a baseline.
        seed: Of the initial weights; the global generator is not touched.
        weights: File with a backbone to start from; empty starts at random.
    """
    if classes < 2:
        raise InputError(f"classes: expected 2 or more, got {classes}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "small":
            backbone: nn.Module = SmallResNet(width=SMALL_WIDTH, classes=0)
            width = 8 * SMALL_WIDTH
        elif name == "resnet18":
            from torchvision.models import resnet18  # costs four seconds, so only here

            backbone, width = resnet18(weights=None), 512
            backbone.fc = nn.Identity()
        else:
            raise InputError(f"student: expected one of 'small', 'resnet18', got '{name}'")
        student = Student(backbone, width=width, classes=classes, teacher_dim=teacher_dim)
    if weights:
        load_matching(student.backbone, read_weights(weights), head=("fc",))
    return student


def check_scale(images: Tensor, network: nn.Module) -> None:
    """Refuse what is no batch ``(B, 3, H, W)`` of images in [0, 1], prompted or not.

    Of a network on a GPU, which would have to be waited for, only the first batch is looked at.
    """
    if getattr(images, "is_cuda", False):
        if network.__dict__.get("scale_checked"):
            return
        network.__dict__["scale_checked"] = True
    check_pixels(images, changed=True, finite=False)


def shrink(images: Tensor, size: int) -> Tensor:
    """Bring images to the side the student sees, antialiased; 0 leaves them alone."""
    if size in (0, images.shape[-1]):
        return images
    return nn.functional.interpolate(
        images, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
