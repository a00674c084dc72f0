"""Frozen teachers: loaded by name, wrapped, and made faster."""

import copy
import hashlib
import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fopro_lab.config import DataConfig, TeacherConfig, is_called
from fopro_lab.data.fetch import fetched_place, find_source
from fopro_lab.errors import InputError
from fopro_lab.io import Summary
from fopro_lab.models import backbones
from fopro_lab.models.backbones import CIFAR, LITE
from fopro_lab.models.student import check_scale, shrink
from fopro_lab.models.weights import Weights, load_matching, read_weights

BUILTIN = files("fopro_lab.models") / "builtin"
# The published teacher that `fopro data fetch` brings, and its source there.
PUBLISHED, PUBLISHED_SOURCE = "moco-v2-resnet50", "moco-v2"
_IMPORTED: dict[str, bytes] = {}  # files of the user's own code, as they were when imported


class Teacher(Summary, nn.Module):
    """A frozen network that turns images in [0, 1] into features.

    Normalisation, and resizing where the network has a fixed size, happen inside. Gradients flow
    to the images and never into the weights; ``train()`` leaves it in evaluation mode.

    Args:
        body: Maps normalised images ``(B, 3, H, W)`` to features ``(B, D)``.
        mean: Of the normalisation, per channel, in units of [0, 1]; likewise ``std``, above 0.
        input_size: Side of the image that the network was made for, pixels.
        feature_dim: D; 0 lets `wrap_teacher` measure it.
        name: For tables and figures.
        resize: Bring every image to ``input_size`` (antialiased) first.
        interpolation: Of that resize: ``bilinear`` or ``bicubic``.
        card: What is known about it: file, hash, tensors taken and left out, data, recipe.
    """

    _shown = ("name", "input_size", "feature_dim", "resize")

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int,
        feature_dim: int = 0,
        name: str = "wrapped",
        resize: bool = False,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        given = f"{list(mean)}, {list(std)}"
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise InputError(f"mean, std: expected 3 numbers each, std above 0, got {given}")
        if max(*map(abs, mean), *std) > 1:
            way_out = "divide both by 255 if they are for 0 to 255"
            raise InputError(f"mean, std: expected in units of [0, 1], got {given}; {way_out}")
        # Channels last is what CPU and GPU convolutions want; the numbers stay the same.
        self.body = body.to(memory_format=torch.channels_last)
        self.input_size, self.feature_dim = int(input_size), int(feature_dim)
        self.name, self.resize, self.interpolation = name, resize, interpolation
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()
        attributes = ("name", "input_size", "resize", "interpolation", "feature_dim")
        self.card: dict[str, Any] = {key: getattr(self, key) for key in attributes}
        self.card |= {"mean": list(map(float, mean)), "std": list(map(float, std))}
        self.card["batch_norms"] = len(self.batch_norms())
        self.card["parameters"] = sum(value.numel() for value in body.parameters())
        self.card |= card or {}

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode: a frozen teacher's batch norms must never move."""
        return super().train(False)

    def encode(self, images: Tensor) -> Tensor:
        """Turn images ``(B, 3, H, W)`` roughly in [0, 1] into features ``(B, D)``."""
        check_scale(images, self)
        images = shrink(images, self.input_size if self.resize else 0, mode=self.interpolation)
        normalised = (images - self.mean) / self.std
        return self.body(normalised.contiguous(memory_format=torch.channels_last))

    def batch_norms(self) -> list[nn.BatchNorm2d]:
        """List the layers whose running statistics show what the teacher was trained on."""
        norms = (layer for layer in self.body.modules() if isinstance(layer, nn.BatchNorm2d))
        return [norm for norm in norms if norm.running_mean is not None]

    def layer_norms(self) -> list[nn.Module]:
        """List the layers before which a ViT's tokens have a scale of their own, each once."""
        return [layer for layer in self.body.modules() if isinstance(layer, nn.LayerNorm)]


def wrap_teacher(module: nn.Module, **rules: Any) -> Teacher:
    """Make a teacher of any network, and try it on one image.

    Args:
        module: Maps normalised images ``(B, 3, H, W)`` to features ``(B, D)``.
        rules: Keyword arguments of `Teacher`: ``mean``, ``std``, ``input_size``, and where they
            apply ``feature_dim``, ``name``, ``resize``, ``interpolation`` and ``card``.

    Raises:
        InputError: If a rule is unknown or missing, a grey image does not come out as ``(1, D)``
            finite features, or twice not as the same.
    """
    try:
        teacher = Teacher(module, **rules)
    except TypeError as error:  # an unknown rule, or none where one is needed
        raise InputError(f"wrap_teacher: {error}".replace("Teacher.__init__() ", "")) from None
    wide = check_takes(teacher, teacher.input_size, count=1)
    teacher.feature_dim = teacher.card["feature_dim"] = wide
    image = _synthetic_image(teacher.input_size).float()[None].to(teacher.mean.device)
    with torch.inference_mode():
        features, again, other = map(teacher.encode, (image, image, image.square()))
    # Sums in another order, as on GPUs, differ by less.
    if float((features - again).abs().max()) > 1e-3 * float(features.abs().max()):
        what = "its features of one image differ from pass to pass"
        raise InputError(f"teacher {teacher.name}: {what}; is dropout on in evaluation mode?")
    if torch.equal(features, other):
        what = "its features of two different images are equal"
        raise InputError(f"teacher {teacher.name}: {what}; are its weights all zero, or constant?")
    return teacher


def check_takes(teacher: Teacher, side: int, *, count: int = 2) -> int:
    """Encode grey images of ``side`` px, before any work is done for nothing; return D.

    An `InputError` says in one line whether their size or the network is to blame.
    """
    name, wide = teacher.name, teacher.feature_dim
    images = torch.full((count, 3, side, side), 0.5, device=teacher.mean.device)
    try:
        with torch.inference_mode():
            features: Any = teacher.encode(images)
    except Exception as error:  # whatever the user's own network raises
        own = f"another side, such as its own of {teacher.input_size} px, is set by teacher_size"
        way_out = f"it has to map images (B, 3, H, W) to features (B, D); {own}"
        problem = f"cannot encode images of {side} px ({_first_line(error)}); {way_out}"
        raise InputError(f"teacher {name}: {problem}") from error
    tensor = isinstance(features, Tensor)
    if not tensor or features.ndim != 2 or features.shape != (count, wide or features.shape[1]):
        got = tuple(features.shape) if tensor else type(features).__name__
        rule = f"expected features ({count}, {wide or 'D'}) of a batch of {count}, got {got}"
        way_out = "pool them, or give another feature_dim or teacher_size"
        raise InputError(f"teacher {name}: {rule}; {way_out}")
    if not torch.isfinite(features).all():
        raise InputError(f"teacher {name}: its features of grey images are not finite")
    return features.shape[1]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def load_teacher(
    name: str,
    *,
    weights: str = "",
    size: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Teacher:
    """Load a frozen teacher by name, with weights from a local file, on the CPU.

    Args:
        name: ``builtin``, ``efficientnet-lite0`` (1, 2), ``timm:NAME``, ``torchvision:NAME``,
            ``cifar-resnet20`` (or another depth), ``moco-v2-resnet50``, or
            ``package.module:function`` of the user's own, which returns a `Teacher`, or a network
            and a dictionary of the rules of `wrap_teacher`.
        weights: File of safetensors or of torch.save, or a folder of timm or Hugging Face with
            one (of a pickle nothing is run); empty for ``builtin``, for a function, and for what is
            installed (``efficientnet-lite0``) or fetched (``moco-v2-resnet50``). What its metadata
            say of its images is honoured.
        size: Side of the image the teacher sees, pixels. 0: a network of fixed size resizes to
            it, any other takes images as they come.
        mean: Overrides the normalisation that belongs to the weights; empty keeps it.
        std: Likewise.

    Returns:
        The teacher; ``teacher.card`` holds hashes, what was taken, resampled and left out, where
        mean, std and size come from, and ``reference``: features of a synthetic image.
    """
    kind, _, architecture = ("torchvision:resnet50" if name == PUBLISHED else name).partition(":")
    if weights and (name == "builtin" or is_called(name)):
        raise InputError(f"weights: the teacher {name} has its own; give none")

    def read(find: Callable[[str], Path | str] = fetched_weights) -> Weights:
        return read_weights(weights or find(name))

    if name == "builtin":
        parts = _builtin()
    elif is_called(name):
        parts = _called(name)
    elif kind == "timm" and architecture:
        parts = backbones.build_timm(architecture, read(), size=size)
    elif kind == "torchvision" and architecture:
        parts = backbones.build_torchvision(architecture, read())
    elif name in (f"{LITE}0", f"{LITE}1", f"{LITE}2"):
        parts = backbones.build_lite(name, read(backbones.lite_weights))
    elif name.startswith(CIFAR):
        parts = backbones.build_cifar(name, read())
    else:
        known = f"builtin, timm:NAME, torchvision:NAME, {CIFAR}DEPTH, {LITE}0 (1, 2), {PUBLISHED}"
        raise InputError(f"teacher: expected {known} or module:function, got '{name}'")
    rules = {"mean": mean, "std": std, "input_size": size}
    given = {key: value for key, value in rules.items() if value}
    parts |= given | ({"resize": True} if size else {})
    rules_of = parts.pop("rules_of", {}) | dict.fromkeys(given, "given")
    teacher = wrap_teacher(parts.pop("body"), **{"name": name, **parts})
    teacher.card |= {"rules_of": rules_of} if rules_of else {}
    teacher.card |= {"state_sha256": state_hash(teacher), "reference": reference_features(teacher)}
    return teacher


def load_called(name: str, kind: str, *, call: bool = False) -> Any:
    """Find the user's own ``module:function`` from the current folder, and call it if asked to."""
    place, _, function = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(place)
        if file := getattr(module, "__file__", None):  # a kernel may have an older one
            content = Path(file).read_bytes()
            if _IMPORTED.setdefault(file, content) != content:
                module, _IMPORTED[file] = importlib.reload(module), content
        found = getattr(module, function)
        return found() if call else found
    except Exception as error:  # it is the user's own code
        raise InputError(f"{kind} {name}: cannot be called ({_first_line(error)})") from error
    finally:
        sys.path.remove(here)


def _called(name: str) -> dict[str, Any]:
    """Call the user's own ``module:function`` for a teacher."""
    made = load_called(name, "teacher", call=True)
    if isinstance(made, Teacher):
        keys = ("mean", "std", "input_size", "feature_dim", "resize", "interpolation")
        made = (made.body, {key: made.card[key] for key in keys})
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return {**made[1], "body": made[0], "card": {**made[1].get("card", {}), "called": name}}
    rule = "expected a Teacher, or a network and a dictionary with mean, std and input_size"
    raise InputError(f"teacher {name}: {rule}, got {type(made).__name__}")


def state_hash(network: nn.Module) -> str:
    """Hash the names, shapes and numbers of all weights and buffers: SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def reference_features(teacher: Teacher, count: int = 4) -> list[float]:
    """Encode a synthetic image: the first features, to three digits of the largest of all.

    The image is a formula and the pass in float64, so every machine gives the same numbers.
    """
    image = _synthetic_image(teacher.input_size)
    with torch.inference_mode():
        try:
            features = copy.deepcopy(teacher).double().encode(image[None])[0]
        except Exception:  # a network that computes in float32 alone
            features = teacher.encode(image[None].float())[0].double()
    features = features.nan_to_num()
    largest = float(features.abs().max())
    digits = 2 - math.floor(math.log10(largest)) if largest > 0 else 0
    return [round(float(value), digits) + 0.0 for value in features[:count]]


def _synthetic_image(side: int) -> Tensor:
    """Return ``float64 (3, side, side)`` in [0.1, 0.9]: a product of waves in each channel."""
    place = torch.arange(side, dtype=torch.float64) / side
    waves = [torch.cos(2 * torch.pi * (cycles * place + 0.1)) for cycles in (1, 3, 7)]
    return torch.stack([0.5 + 0.4 * torch.outer(waves[k], waves[k - 1]) for k in range(3)])


def _builtin() -> dict[str, Any]:
    card = json.loads((BUILTIN / "card.json").read_text(encoding="utf-8"))
    network = backbones.SmallResNet(width=card["width"], classes=card["classes"])
    with as_file(BUILTIN / "builtin.safetensors") as path:
        card |= load_matching(network, read_weights(path))
    parts = {key: card[key] for key in ("mean", "std", "input_size")}
    network.fc = nn.Identity()
    return {**parts, "body": network, "card": card}


def fetched_weights(name: str) -> str:
    """Return the file of weights that was fetched for a teacher; an `InputError` if none was."""
    way_out = "nothing is downloaded, so fetch them from their publisher and give the path"
    if name == PUBLISHED:
        if place := fetched_place(PUBLISHED_SOURCE):
            return str(place / find_source(PUBLISHED_SOURCE).files[0].name)
        way_out = f"fetch them with `fopro data fetch {PUBLISHED_SOURCE}`, or give the path"
    if name.startswith("timm:"):
        backbones.check_name(name.removeprefix("timm:"), role="teacher")
    raise InputError(f"weights: expected a file with the weights of {name}, got none; {way_out}")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name: ``auto`` is the GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: expected a GPU for '{name}', torch finds none; use cpu or auto")
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError(f"device: expected auto, cpu or cuda, got '{name}'") from None


def load_from(config: TeacherConfig, *, device: torch.device | str = "") -> Teacher:
    """Load the teacher that a config names, by `load_teacher`, onto ``device`` or the config's."""
    rules: dict[str, Any] = {k: getattr(config, f"teacher_{k}") for k in ("size", "mean", "std")}
    teacher = load_teacher(config.teacher, weights=config.weights, **rules)
    if isinstance(config, DataConfig):
        check_takes(teacher, config.image_size)
    return teacher.to(device or choose_device(config.device))


def quick_teacher(
    teacher: Teacher,
    *,
    dtype: torch.dtype = torch.float32,
    tell: Callable[[str], object] = lambda line: None,
) -> Teacher:
    """Copy a teacher into a fast form; its features stay float32.

    Batch norms go into the convolutions before them; ``tell`` gets a line if they stay.
    """
    quick = _folded(teacher, tell) if teacher.batch_norms() else copy.deepcopy(teacher)
    body = quick.body.to(dtype)
    quick.body = _InPrecision(body, dtype) if dtype != torch.float32 else body
    return quick


class _InPrecision(nn.Module):
    """Computes in another precision, and returns float32."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def forward(self, images: Tensor) -> Tensor:
        # Autocast would cast every weight again at each call: it keeps only what is trained.
        with torch.autocast(images.device.type, enabled=False):
            return self.body(images.to(self.dtype)).float()


def _folded(teacher: Teacher, tell: Callable[[str], object]) -> Teacher:
    """Fold what can be folded, and keep it only if the features stay the same."""
    # In float64 and on the CPU nothing but a wrong fold changes a feature by much.
    plain = copy.deepcopy(teacher).to("cpu", torch.float64)
    side = plain.input_size if plain.resize else min(plain.input_size, 48)
    # A generator of its own: no other random number may depend on whether a teacher folds.
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, side, side, generator=noise, dtype=torch.float64)
    names = {layer: name for name, layer in plain.body.named_modules()}
    try:
        with torch.no_grad():
            features = plain.encode(images)
            folded = copy.deepcopy(plain)
            for convolution, norm in _pairs(plain.body):
                folded.body.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
                folded.body.set_submodule(names[norm], _rest(norm) or nn.Identity())
            changed = (folded.encode(images) - features).abs().max() / features.abs().max()
    except (RuntimeError, TypeError) as error:  # a network that computes in float32 alone
        tell(f"teacher: batch norms not folded ({str(error).splitlines()[0][:120]})")
        return copy.deepcopy(teacher)
    # float64 rounds at 1e-16 per layer; a norm of another layer changes the first digits.
    if not changed <= 1e-9:
        tell(f"teacher: batch norms not folded (features would change by {float(changed):.1g})")
        return copy.deepcopy(teacher)
    return folded.to(teacher.mean.device, torch.float32)


def _pairs(body: nn.Module) -> list[tuple[Any, Any]]:
    """List each convolution with the batch norm that its block lists next."""
    # Plain convolutions and timm's padded ones use their weight as it is; relatives may not.
    return [
        (one, other)
        for block in body.modules()
        for one, other in pairwise(block.children())
        if type(one).__name__ in ("Conv2d", "Conv2dSame")
        and isinstance(other, nn.BatchNorm2d)
        and other.running_mean is not None
        and _rest(other)
    ]


def _rest(norm: nn.Module) -> nn.Module | None:
    """What is left of a norm that is folded away; None for an unknown kind."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d":  # timm's, which holds dropout and activation
        return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))
    return None
