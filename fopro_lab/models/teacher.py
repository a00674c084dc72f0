"""The same frozen teacher, faster: batch norms folded, lower precision, compiled."""

import copy
import json
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fopro_lab.config import TeacherConfig
from fopro_lab.data.fetch import fetched_place, find_source
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.models.backbones import (
    PREFIX,
    SmallResNet,
    build_cifar,
    build_timm,
    build_torchvision,
)
from fopro_lab.models.weights import load_matching, read_weights

FETCHED = {"moco-v2-resnet50": "moco-v2"}


def fetched_weights(name: str) -> str:
    """Return the file of weights that was fetched for a teacher.

    Args:
        name: As `load_teacher` takes it.

    Returns:
        Its path.

    Raises:
        InputError: If it was not fetched, or is none that can be.

    Example:
        >>> fetched_weights("timm:resnet50")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: weights: expected a file with the weights of timm:resnet50, ...
    """
    asked = FETCHED.get(name)
    place = fetched_place(asked) if asked else None
    if asked and place:
        return str(place / find_source(asked).files[0].name)
    way_out = (
        f"fetch them with `fopro data fetch {asked}`, or give the path"
        if asked
        else "nothing is downloaded, so fetch them from their publisher and give the path"
    )
    raise InputError(f"weights: expected a file with the weights of {name}, got none; {way_out}")


BUILTIN = files("fopro_lab.models") / "builtin"
ALIASES = {"moco-v2-resnet50": "torchvision:resnet50"}


class Teacher(nn.Module):
    """A frozen network that turns images in [0, 1] into features.

    Normalisation, and resizing where the network has a fixed size, happen inside, so that
    prompt, teacher and student see one and the same image. Gradients flow to the images and
    never into the weights; ``train()`` leaves it in evaluation mode.

    Args:
        body: Maps normalised images ``(B, 3, H, W)`` to features ``(B, D)``.
        mean: Of the normalisation, per channel, in units of [0, 1].
        std: Likewise, above 0.
        input_size: Side of the image that the network was made for, pixels.
        feature_dim: D.
        head: Maps features to class logits; None where there is none.
        name: For tables and figures.
        resize: Bring every image to ``input_size`` (bilinear, antialiased) first.
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
        """Turn images into features.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1]; a prompted image may leave that range.

        Returns:
            Features ``(B, D)``, differentiable in ``images``.

        Raises:
            ShapeError: If ``images`` is not a batch of colour images.
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
        """Turn images ``(B, 3, H, W)`` in [0, 1] into logits of the teacher's own head."""
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
        input_size: Side of the image the network was made for, pixels.
        feature_dim: D.
        head: Maps features to logits, if there is one.
        name: For tables and figures.
        resize: Bring every image to ``input_size``; needed where the size is fixed.

    Returns:
        The frozen teacher.

    Raises:
        InputError: If a first grey image does not come out as ``(1, D)`` finite features.

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
    _check_first_image(teacher)
    return teacher


def _check_first_image(teacher: Teacher) -> None:
    side = teacher.input_size
    try:
        with torch.inference_mode():
            features: Any = teacher.encode(torch.full((1, 3, side, side), 0.5))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InputError(
            f"teacher {teacher.name}: cannot encode an image of {side} x {side} px ({error})"
        ) from error
    if not isinstance(features, Tensor) or features.shape != (1, teacher.feature_dim):
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"teacher {teacher.name}: expected features (1, {teacher.feature_dim}) of one "
            f"image, got {got}; pool them, or give another feature_dim"
        )
    if not torch.isfinite(features).all():
        raise InputError(f"teacher {teacher.name}: its features of a grey image are not finite")


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
        size: Side of the image the teacher sees, pixels. 0: a network of fixed size resizes to
            it, any other takes images as they come.
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
    _check_first_image(teacher)
    return teacher


def choose_device(name: str = "auto") -> torch.device:
    """Choose where to compute.

    Args:
        name: ``auto``: the GPU if there is one, else the CPU; or a device as torch names it.

    Returns:
        The device.

    Raises:
        InputError: If a GPU is named and torch finds none.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: expected a GPU for '{name}', torch finds none; use cpu or auto")
    return torch.device(name)


def load_from(config: TeacherConfig, *, device: torch.device | str = "") -> Teacher:
    """Load the teacher that a config names; see `load_teacher`.

    Args:
        config: Names the teacher, its weights and how images go in.
        device: Where to put it; empty is ``config.device``, by `choose_device`.

    Returns:
        The teacher, on its device.
    """
    place = choose_device(config.device) if not device else torch.device(device)
    teacher = load_teacher(
        config.teacher,
        weights=config.weights,
        size=config.teacher_size,
        mean=config.teacher_mean,
        std=config.teacher_std,
    )
    return teacher.to(place)


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


# Largest change of a feature by folding, in units of the largest feature. float64 rounds at 1e-16
# a layer; a norm that belongs to another layer changes features in their first digits.
FOLDING_BOUND = 1e-9
SIDE = 48  # pixels, of the image that traces a teacher of free size


def quick_teacher(
    teacher: Teacher,
    *,
    fold: bool = True,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    tell: Callable[[str], object] = lambda line: None,
) -> Teacher:
    """Copy a teacher into a form that only encodes, and does that fast.

    Args:
        teacher: Left as it is. What measures batch norms still needs it.
        fold: Put each batch norm into the convolution before it, where there is one.
        dtype: Of weights and arithmetic behind the normalisation; features are float32 again.
        compiled: Compile the network, at the first batch of each shape; torch keeps what it
            compiled for later runs.
        tell: Told in a line what could not be done; the teacher then works without it.

    Returns:
        A frozen teacher without head; its card is the given one's.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> teacher = load_teacher("builtin")
        >>> quick = quick_teacher(teacher)
        >>> len(teacher.batch_norms()) > 0, len(quick.batch_norms())
        (True, 0)
    """
    folds = fold and bool(teacher.batch_norms())
    quick = _folded(teacher, tell) if folds else copy.deepcopy(teacher)
    quick.head = None
    body: nn.Module = quick.body.to(dtype)
    if compiled:
        body = _Compiled(body, tell)
    quick.body = _In(body, dtype) if dtype != torch.float32 else body
    return quick


class _In(nn.Module):
    """Computes in another precision, and gives float32 back."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def forward(self, images: Tensor) -> Tensor:
        # Autocast would cast every weight again at each call: it keeps only what is trained.
        with torch.autocast(images.device.type, enabled=False):
            return self.body(images.to(self.dtype)).float()


class _Compiled(nn.Module):
    """Runs a network compiled, and plainly for good once that has failed."""

    def __init__(self, body: nn.Module, tell: Callable[[str], object]) -> None:
        super().__init__()
        self.body, self.tell = body, tell
        self.faster: Callable[[Tensor], Tensor] | None = torch.compile(body)

    def forward(self, images: Tensor) -> Tensor:
        if self.faster is not None:
            try:
                return self.faster(images)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a missing compiler, or anything that it stumbles over
                self.faster = None
                reason = str(error).strip().splitlines() or [type(error).__name__]
                self.tell(f"teacher: not compiled ({reason[0][:120]}); going on without")
        return self.body(images)


def _folded(teacher: Teacher, tell: Callable[[str], object]) -> Teacher:
    """Fold what can be folded, and keep it only if the features are those of before.

    In float64 and on the CPU, where nothing but a wrong fold changes a feature by much, whatever
    the teacher's device rounds to; the folded weights are rounded once.
    """
    plain = copy.deepcopy(teacher).to("cpu", torch.float64)
    side = plain.input_size if plain.resize else min(plain.input_size, SIDE)
    # A generator of its own: nobody else's random numbers may depend on whether a teacher folds.
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, side, side, generator=noise, dtype=torch.float64)
    names = {layer: name for name, layer in plain.body.named_modules()}
    try:
        with torch.no_grad():
            pairs = _pairs(plain, images)
            features = plain.encode(images)
            folded = copy.deepcopy(plain)
            for convolution, norm in pairs:
                _fold_pair(folded.body, names[convolution], names[norm])
            changed = (folded.encode(images) - features).abs().max() / features.abs().max()
    except (RuntimeError, TypeError) as error:  # a network that computes in float32 alone
        tell(f"teacher: batch norms not folded ({str(error).splitlines()[0][:120]})")
        return copy.deepcopy(teacher)
    if not changed <= FOLDING_BOUND:
        tell(f"teacher: batch norms not folded (features would change by {float(changed):.1g})")
        return copy.deepcopy(teacher)
    return folded.to(teacher.mean.device, torch.float32)


def _pairs(teacher: Teacher, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Find each batch norm that alone reads a convolution, by watching one pass.

    A pass shows what a traced graph would, for networks, too, that cannot be traced.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is held: else its id is free again
    calls: Counter[nn.Module] = Counter()
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch_convolution(layer: Any, inputs: Any, output: Tensor) -> None:
        calls[layer] += 1
        made[id(output)] = (layer, output)

    def watch_norm(layer: Any, inputs: Any, output: Tensor) -> None:
        calls[layer] += 1
        before = made.get(id(inputs[0]))
        if before is not None and _activation(layer) is not None:
            pairs.append((before[0], layer))

    watched = [
        layer.register_forward_hook(
            watch_convolution if isinstance(layer, nn.Conv2d) else watch_norm
        )
        for layer in teacher.body.modules()
        if _linear(layer) or isinstance(layer, nn.BatchNorm2d)
    ]
    try:
        teacher.encode(images)
    finally:
        for hook in watched:
            hook.remove()
    once = Counter(layer for pair in pairs for layer in pair)
    return [pair for pair in pairs if all(calls[layer] == once[layer] == 1 for layer in pair)]


def _linear(layer: nn.Module) -> bool:
    """Tell whether a layer is a convolution by its weight as it stands, and no relative of one."""
    return type(layer) is nn.Conv2d or type(layer).__name__ == "Conv2dSame"  # timm's, padded


def _activation(norm: nn.BatchNorm2d) -> nn.Module | None:
    """What is left of a norm that is folded away; None for a kind that is not known."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d":  # timm's, which holds dropout and activation
        return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))
    return None


def _fold_pair(body: nn.Module, convolution_name: str, norm_name: str) -> None:
    convolution: Any = body.get_submodule(convolution_name)
    norm: Any = body.get_submodule(norm_name)
    if norm.running_mean is None:
        return
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    told = (weight.detach().contiguous(memory_format=torch.channels_last), bias.detach())
    convolution.weight, convolution.bias = (nn.Parameter(v, requires_grad=False) for v in told)
    body.set_submodule(norm_name, _activation(norm) or nn.Identity())
