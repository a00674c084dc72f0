"""Published architectures: timm's and torchvision's, cut into a body and a head."""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.models.weights import Weights, load_matching

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The only metadata handed to an architecture: a file must not choose what else timm does.
ARCHITECTURE_METADATA = ("pad_type", "global_pool")


class TimmFeatures(nn.Module):
    """Pooled features of a timm model, before its classifier.

    Example:
        >>> import timm
        >>> TimmFeatures(timm.create_model("resnet18"))(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 512])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model  # timm's models share these methods, but no class that has them

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised pictures ``(B, 3, H, W)`` to features ``(B, D)``."""
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True)


def build_timm(architecture: str, weights: Weights) -> dict[str, Any]:
    """Build a timm model and fill it.

    Args:
        architecture: Name in timm, such as ``resnet50`` or ``vit_small_patch14_dinov2``.
        weights: From `read_weights`.

    Returns:
        What `Teacher` takes: body, head, mean, std, input_size, feature_dim, resize, card.

    Raises:
        InputError: If timm does not know the name, or the weights do not fit.
    """
    import timm  # costs a second, so only where it is used

    if not timm.is_model(architecture):
        near = ", ".join(get_close_matches(architecture, timm.list_models(), n=3)) or "none"
        raise InputError(f"teacher: timm has no model '{architecture}'; near: {near}")
    defaults = timm.get_pretrained_cfg(architecture)
    assert defaults is not None
    classifier = defaults.classifier if isinstance(defaults.classifier, str) else "head"
    classes = _classes(weights, classifier)
    options: dict[str, Any] = {
        key: value for key, value in weights.metadata.items() if key in ARCHITECTURE_METADATA
    }
    fixed = bool(defaults.fixed_input_size)
    if fixed:
        options["dynamic_img_size"] = True
    try:
        try:
            model: Any = timm.create_model(architecture, num_classes=classes, **options)
        except TypeError:  # of the networks of fixed size only some can be told another one
            options.pop("dynamic_img_size", None)
            model = timm.create_model(architecture, num_classes=classes, **options)
    except (TypeError, AssertionError) as error:
        raise InputError(
            f"weights: {weights.path}: its metadata does not suit {architecture} ({error})"
        ) from None
    card = load_matching(model, weights)
    return _parts(
        TimmFeatures(model),
        model.get_classifier() if classes else None,
        weights,
        mean=defaults.mean,
        std=defaults.std,
        input_size=defaults.input_size[-1],
        resize=fixed,
        card=card,
    )


def build_torchvision(architecture: str, weights: Weights) -> dict[str, Any]:
    """Build a torchvision classification model and fill it; as `build_timm`."""
    from torchvision import models  # costs four seconds, so only where it is used

    if architecture not in models.list_models(module=models):
        raise InputError(f"teacher: torchvision has no classification model '{architecture}'")
    skeleton = models.get_model(architecture, weights=None)
    linear = [key for key, layer in skeleton.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise InputError(
            f"teacher: torchvision's {architecture} has no linear classifier to cut before; "
            "build it yourself and use wrap_teacher"
        )
    name = linear[-1]
    classes = _classes(weights, name)
    model = (
        models.get_model(architecture, weights=None, num_classes=classes) if classes else skeleton
    )
    # A self-supervised checkpoint has no head, or one of another width: it is left out.
    card = load_matching(model, weights, ignore=() if classes else (name,))
    head = model.get_submodule(name)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Identity())
    return _parts(
        model,
        head if classes else None,
        weights,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_size=224,
        resize=architecture.startswith(("vit_", "swin")),
        card=card,
    )


def _classes(weights: Weights, classifier: str) -> int:
    """Count the rows of the file's classifier; 0 where it has none."""
    found = [v for k, v in weights.state.items() if f".{k}".endswith(f".{classifier}.weight")]
    return int(found[0].shape[0]) if found and found[0].ndim == 2 else 0


def _parts(
    body: nn.Module,
    head: nn.Module | None,
    weights: Weights,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    input_size: int,
    resize: bool,
    card: dict[str, Any],
) -> dict[str, Any]:
    def numbers(key: str, default: tuple[float, ...]) -> list[float]:
        text = weights.metadata.get(key)
        try:
            return [float(value) for value in text.split(",")] if text else list(default)
        except ValueError:
            raise InputError(
                f"weights: {weights.path}: metadata {key}: expected numbers, got '{text}'"
            ) from None

    side = int(numbers("input_size", (input_size,))[-1])
    body.eval()
    try:
        with torch.inference_mode():
            features = body(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"weights: {weights.path}: its architecture takes no picture of {side} px ({error})"
        ) from None
    return {
        "body": body,
        "head": head,
        "mean": numbers("mean", mean),
        "std": numbers("std", std),
        "input_size": side,
        "feature_dim": int(features.shape[-1]),
        "resize": resize,
        "card": card,
    }
