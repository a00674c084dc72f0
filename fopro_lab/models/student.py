"""Students: the network that is trained, with a projector and a second head."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.fourier.rings import at_least_single, check_pixels
from fopro_lab.models import backbones
from fopro_lab.models.weights import load_matching, read_weights

SMALL_WIDTH = 12  # 0.17 million weights: a step takes milliseconds on a CPU
COSINE_LOSSES, COSINE_SCALE = ("ldam", "ldam-drw"), 30.0  # as in LDAM's code


class CosineClassifier(nn.Linear):
    """Maps features ``(B, F)`` to their cosines with each class's weights, times the scale."""

    def forward(self, features: Tensor) -> Tensor:  # noqa: D102
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would round to 0.1
            unit = nn.functional.normalize(at_least_single(features), dim=1)
            return COSINE_SCALE * unit @ nn.functional.normalize(self.weight, dim=1).T


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

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        classes: int,
        teacher_dim: int,
        mean: Sequence[float] = backbones.IMAGENET_MEAN,
        std: Sequence[float] = backbones.IMAGENET_STD,
        cosines: bool = False,
    ) -> None:
        super().__init__()
        self.card: dict[str, Any] = {}  # what it was built with, and what it costs
        # Channels last is what CPU and GPU convolutions want; the numbers stay the same.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        linear: Any = partial(CosineClassifier, bias=False) if cosines else nn.Linear
        self.classifier: nn.Linear = linear(width, classes)
        self.projector: nn.Module | None = None
        self.second_classifier: nn.Linear | None = None
        self.distiller: nn.Module | None = None  # of a distillation with weights; not in forward
        if teacher_dim:
            self.projector = nn.Sequential(
                nn.Linear(width, teacher_dim),
                nn.BatchNorm1d(teacher_dim),
                nn.ReLU(),
                nn.Linear(teacher_dim, teacher_dim),
            )
            self.second_classifier = linear(teacher_dim, classes)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

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
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def build_student(
    name: str,
    *,
    classes: int,
    teacher_dim: int = 0,
    seed: int = 0,
    weights: str = "",
    image_size: int = 0,
    rules: Mapping[str, Any] | None = None,
    cosines: bool = False,
) -> Student:
    """Build a student, in training mode, with weights that depend on nothing but the seed.

    Args:
        name: ``small`` (0.17 million weights, for a CPU), ``resnet18`` (11 million), or
            ``timm:NAME``, any network of timm.
        classes: K, 2 or more.
        teacher_dim: Width of the teacher's features; 0 for a baseline.
        seed: Of the initial weights; the global generator is not touched.
        weights: File with a backbone to start from; empty starts at random.
        image_size: Side of its images, pixels: it must take them, and its `card` has what it
            costs. 0 for any; a network of timm that has a fixed size then has its own.
        cosines: Let the classifiers give scaled cosines, as LDAM's.
        rules: Of timm's, what ``card["rules"]`` of such a student says; None is by its weights.

    Raises:
        InputError: If there is no such network, it cannot take the images, or the file does not
            hold all of its weights.
    """
    if classes < 2:
        raise InputError(f"classes: expected 2 or more, got {classes}")
    kind, _, architecture = name.partition(":")
    how: dict[str, Any] = {"classes": classes, "teacher_dim": teacher_dim, "cosines": cosines}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "small":
            small = backbones.SmallResNet(width=SMALL_WIDTH, classes=0)
            student = Student(small, width=8 * SMALL_WIDTH, **how)
        elif name == "resnet18":
            from torchvision.models import resnet18  # costs four seconds, so only here

            backbone = resnet18(weights=None)
            backbone.fc = nn.Identity()
            student = Student(backbone, width=512, **how)
        elif kind == "timm" and architecture:
            student = _timm_student(architecture, weights, image_size, rules, how)
        else:
            raise InputError(f"student: expected small, resnet18 or timm:NAME, got '{name}'")
    if weights and kind != "timm":
        load_matching(student.backbone, read_weights(weights), head=("fc",))
    if image_size:
        student.card |= {"name": name, "image_size": image_size}
        student.card |= measure_cost(student, image_size)
    return student


def _timm_student(
    architecture: str, path: str, side: int, rules: Mapping[str, Any] | None, how: dict[str, Any]
) -> Student:
    """Build a student on a network of timm, by the rules of its weights if it starts from some."""
    weights, said = read_weights(path) if path else None, dict(rules or {})
    pixels: dict[str, Any] = {key: said.pop(key) for key in ("mean", "std") if key in said}
    about: dict[str, Any] = {"role": "student", "side": side, "options": said}
    model, found, options, fill = backbones.create_timm(architecture, weights, **about)
    fill()
    pixels = {"mean": found["mean"], "std": found["std"]} | pixels
    backbone, name = backbones.TimmFeatures(model), f"student timm:{architecture}"
    width = _try_images(backbone, name, side or found["input_size"]).shape[1]
    student = Student(backbone, width=width, **pixels, **how)
    student.card["rules"] = pixels | options
    return student


@torch.no_grad()
def _try_images(network: nn.Module, name: str, side: int) -> Tensor:
    """Give a network, in evaluation mode, one image of ``side`` px that it may refuse."""
    try:
        return network.eval()(torch.zeros(1, 3, side, side))
    except Exception as error:  # each network refuses a size in its own way
        line = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        way_out = "set student_size or image_size to a side that it takes, or choose another"
        problem = f"{name}: cannot take images of {side} px ({line}); {way_out} student"
        raise InputError(problem) from error
    finally:
        network.train()


def measure_cost(student: Student, side: int) -> dict[str, Any]:
    """Count what inference takes, by backbone and classifier, for one image of ``side`` px.

    ``macs`` are half of what torch's FlopCounterMode counts, of convolutions, matrix products and
    attention; ``megabytes`` (10^6 bytes) are of all weights and buffers.
    """
    parts, training = nn.ModuleList([student.backbone, student.classifier]), student.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        student.eval().classify(torch.zeros(1, 3, side, side))
    student.train(training)
    size = sum(value.numel() * value.itemsize for value in parts.state_dict().values())
    parameters = sum(value.numel() for value in parts.parameters())
    cost: dict[str, Any] = {"parameters": parameters, "macs": counter.get_total_flops() // 2}
    return cost | {"megabytes": round(size / 1e6, 3)}


def student_from(config: TrainConfig, *, classes: int = 2, teacher_dim: int = 0) -> Student:
    """Build the student that a config names, for images of its size; see `build_student`."""
    how: dict[str, Any] = {"weights": config.student_weights, "seed": config.seed}
    how |= {"image_size": config.student_size or config.image_size}
    how |= {"cosines": config.parts.loss in COSINE_LOSSES}
    return build_student(config.student, classes=classes, teacher_dim=teacher_dim, **how)


def check_scale(images: Tensor, network: nn.Module) -> None:
    """Refuse what is no batch ``(B, 3, H, W)`` of images in [0, 1], prompted or not.

    Of a network on a GPU, which would have to be waited for, only the first batch is looked at.
    """
    if torch.compiler.is_compiling():
        return  # a traced tensor has no values
    if getattr(images, "is_cuda", False):
        if network.__dict__.get("scale_checked"):
            return
        network.__dict__["scale_checked"] = True
    check_pixels(images, changed=True, finite=False)


def shrink(images: Tensor, size: int, *, mode: str = "bilinear") -> Tensor:
    """Bring images to the side that a network sees, antialiased; 0 leaves them alone."""
    if not size or images.shape[2:] == (size, size):
        return images
    return nn.functional.interpolate(images, (size, size), mode=mode, antialias=True)
