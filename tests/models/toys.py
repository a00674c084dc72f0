"""Tiny networks and weight files for the tests of models and training."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fopro_lab.models import Teacher, wrap_teacher
from fopro_lab.models.weights import Weights

RULES = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.5)}


class Pool(nn.Module):
    """Mean over each cell of a 2 x 2 grid: features ``(B, 12)`` that can be told by hand."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def pool_teacher(*, side: int = 8, resize: bool = False) -> Teacher:
    return wrap_teacher(Pool(), **RULES, input_size=side, resize=resize)


def norm_body(seed: int = 0) -> nn.Module:
    """Two convolutions with batch norms whose running statistics are not the start's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        norms = nn.BatchNorm2d(6), nn.BatchNorm2d(5)
        for norm in norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(first, norms[0], nn.Tanh(), second, norms[1], pool)


def norm_teacher(*, seed: int = 0) -> Teacher:
    return wrap_teacher(norm_body(seed), **RULES, input_size=16)


def toy_images(count: int = 4, side: int = 16, *, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def weights_of(state: dict[str, Tensor], **metadata: str) -> Weights:
    return Weights(state, metadata, "0" * 64, Path("toy.safetensors"))


def save_timm(path: Path, architecture: str, *, classes: int = 7, **metadata: str) -> nn.Module:
    """Write the weights of a new timm model and return the model, in evaluation mode."""
    model = timm.create_model(architecture, num_classes=classes)
    save_file(model.state_dict(), path, metadata=metadata or None)
    return model.eval()
