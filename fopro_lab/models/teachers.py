"""Frozen teachers: any network behind one contract, with its normalisation inside."""

import json
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import Any

import torch
from torch import Tensor, nn

from fopro_lab.config import TeacherConfig
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.models.cifar_resnet import PREFIX, build_cifar
from fopro_lab.models.fetched import fetched_weights
from fopro_lab.models.published import build_timm, build_torchvision
from fopro_lab.models.small_resnet import SmallResNet
from fopro_lab.models.weights import load_matching, read_weights

BUILTIN = files("fopro_lab.models") / "builtin"
ALIASES = {"moco-v2-resnet50": "torchvision:resnet50"}


class Teacher(nn.Module):
    """A frozen network that turns pictures in [0, 1] into features.

    Normalisation, and resizing where the network has a fixed size, happen inside, so that
    prompt, teacher and student see one and the same picture. Gradients flow to the pictures and
    never into the weights; ``train()`` leaves it in evaluation mode.

    Args:
        body: Maps normalised pictures ``(B, 3, H, W)`` to features ``(B, D)``.
        mean: Of the normalisation, per channel, in units of [0, 1].
        std: Likewise, above 0.
        input_size: Side of the picture that the network was made for, pixels.
        feature_dim: D.
        head: Maps features to class logits; None where there is none.
        name: For tables and figures.
        resize: Bring every picture to ``input_size`` (bilinear, antialiased) first.
        card: What is known about it: file, hash, coverage, data, recipe.

    Example:
        >>> teacher = load_teacher("builtin")
        >>> teacher.encode(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 256])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int,
        feature_dim: int,
        head: nn.Module | None = None,
        name: str = "wrapped",
        resize: bool = False,
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise InputError(
                f"mean, std: expected 3 numbers each, std above 0, got {list(mean)}, {list(std)}"
            )
        # Channels last is what CPU and GPU convolutions want; the numbers stay the same.
        self.body = body.to(memory_format=torch.channels_last)
        self.head = head
        self.input_size, self.feature_dim = int(input_size), int(feature_dim)
        self.name, self.resize = name, resize
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()
        self.card: dict[str, Any] = {
            "name": name,
            "input_size": self.input_size,
            "resize": resize,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "feature_dim": self.feature_dim,
            "head": head is not None,
            "batch_norms": len(self.batch_norms()),
            "parameters": sum(value.numel() for value in body.parameters()),
            **(card or {}),
        }

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode: a frozen teacher's batch norms must never move."""
        return super().train(False)

    def encode(self, images: Tensor) -> Tensor:
        """Turn pictures into features.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1]; a prompted picture may leave that range.

        Returns:
            Features ``(B, D)``, differentiable in ``images``.

        Raises:
            ShapeError: If ``images`` is not a batch of colour pictures.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"images: expected (B, 3, H, W), got {tuple(images.shape)}")
        size = (self.input_size, self.input_size)
        if self.resize and images.shape[2:] != size:
            images = nn.functional.interpolate(
                images, size, mode="bilinear", antialias=True, align_corners=False
            )
        normalised = (images - self.mean) / self.std
        return self.body(normalised.contiguous(memory_format=torch.channels_last))

    def classify(self, features: Tensor) -> Tensor:
        """Turn features ``(B, D)`` into the logits of the teacher's own head.

        Raises:
            InputError: If this teacher has no head.
        """
        if self.head is None:
            raise InputError(f"teacher {self.name}: has no head, so it gives features alone")
        return self.head(features)

    def logits(self, images: Tensor) -> Tensor:
        """Turn pictures ``(B, 3, H, W)`` in [0, 1] into logits of the teacher's own head."""
        return self.classify(self.encode(images))

    def batch_norms(self) -> list[nn.BatchNorm2d]:
        """List the layers whose running statistics tell what the teacher was trained on."""
        return [
            layer
            for layer in self.body.modules()
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None
        ]

    def layer_norms(self) -> list[nn.Module]:
        """List the layers before which a ViT's tokens have a scale of their own, each once."""
        return [layer for layer in self.body.modules() if isinstance(layer, nn.LayerNorm)]


def wrap_teacher(
    module: nn.Module,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    input_size: int,
    feature_dim: int,
    head: nn.Module | None = None,
    name: str = "wrapped",
    resize: bool = False,
) -> Teacher:
    """Make a teacher of any network.

    Args:
        module: ``module(images)`` gives features ``(B, D)`` of normalised ``(B, 3, H, W)``.
        mean: Of the normalisation, per channel, in units of [0, 1].
        std: Likewise.
        input_size: Side of the picture the network was made for, pixels.
        feature_dim: D.
        head: Maps features to logits, if there is one.
        name: For tables and figures.
        resize: Bring every picture to ``input_size``; needed where the size is fixed.

    Returns:
        The frozen teacher.

    Raises:
        InputError: If a first grey picture does not come out as ``(1, D)`` finite features.

    Example:
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        >>> wrap_teacher(pool, mean=[0.5] * 3, std=[0.5] * 3, input_size=32, feature_dim=12).name
        'wrapped'
    """
    teacher = Teacher(
        module,
        mean=mean,
        std=std,
        input_size=input_size,
        feature_dim=feature_dim,
        head=head,
        name=name,
        resize=resize,
    )
    _check_first_picture(teacher)
    return teacher


def _check_first_picture(teacher: Teacher) -> None:
    side = teacher.input_size
    try:
        with torch.inference_mode():
            features: Any = teacher.encode(torch.full((1, 3, side, side), 0.5))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InputError(
            f"teacher {teacher.name}: cannot encode a picture of {side} x {side} px ({error})"
        ) from error
    if not isinstance(features, Tensor) or features.shape != (1, teacher.feature_dim):
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"teacher {teacher.name}: expected features (1, {teacher.feature_dim}) of one "
            f"picture, got {got}; pool them, or give another feature_dim"
        )
    if not torch.isfinite(features).all():
        raise InputError(f"teacher {teacher.name}: its features of a grey picture are not finite")


def load_teacher(
    name: str,
    *,
    weights: str = "",
    size: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Teacher:
    """Load a frozen teacher by name, with weights from a local file.

    Args:
        name: ``builtin``, ``timm:NAME``, ``torchvision:NAME``, ``cifar-resnet20`` (or another
            depth) or ``moco-v2-resnet50``.
        weights: Safetensors file, or a published pickle (read with ``weights_only=True``);
            empty for ``builtin``, and for ``moco-v2-resnet50`` once fetched. Metadata ``mean``,
            ``std``, ``input_size`` and ``pad_type`` of a safetensors file is honoured.
        size: Side of the picture the teacher sees, pixels. 0: a network of fixed size resizes to
            it, any other takes pictures as they come.
        mean: Overrides the normalisation that belongs to the weights; empty keeps it.
        std: Likewise.

    Returns:
        The teacher; ``teacher.card`` holds hash and key coverage.

    Raises:
        InputError: For an unknown name, a missing file, weights of another architecture.

    Example:
        >>> load_teacher("builtin").card["coverage"]
        1.0
    """
    kind, _, architecture = ALIASES.get(name, name).partition(":")
    if name == "builtin":
        if weights:
            raise InputError("weights: the builtin teacher has its own; give none")
        parts = _builtin_parts()
    elif kind in ("timm", "torchvision") and architecture:
        weights = weights or fetched_weights(name)
        build = build_timm if kind == "timm" else build_torchvision
        parts = build(architecture, read_weights(weights))
    elif name.startswith(PREFIX):
        if not weights:
            raise InputError(f"weights: {name} comes without any; give their file")
        parts = build_cifar(name, read_weights(weights))
    else:
        raise InputError(
            f"teacher: expected builtin, timm:NAME, torchvision:NAME, {PREFIX}DEPTH or "
            f"{', '.join(ALIASES)}, got '{name}'"
        )
    parts |= {"mean": mean} if mean else {}
    parts |= {"std": std} if std else {}
    parts |= {"input_size": size, "resize": True} if size else {}
    teacher = Teacher(name=name, **parts)
    _check_first_picture(teacher)
    return teacher


def load_from(config: TeacherConfig) -> Teacher:
    """Load the teacher that a config names; see `load_teacher`."""
    return load_teacher(
        config.teacher,
        weights=config.weights,
        size=config.teacher_size,
        mean=config.teacher_mean,
        std=config.teacher_std,
    )


def _builtin_parts() -> dict[str, Any]:
    card = json.loads((BUILTIN / "card.json").read_text(encoding="utf-8"))
    network = SmallResNet(width=card["width"], classes=card["classes"])
    with as_file(BUILTIN / "builtin.safetensors") as path:
        card |= load_matching(network, read_weights(path))
    head, network.fc = network.fc, nn.Identity()
    return {
        "body": network,
        "head": head,
        "mean": card["mean"],
        "std": card["std"],
        "input_size": card["input_size"],
        "feature_dim": network.feature_dim,
        "card": card,
    }
