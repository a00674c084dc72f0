"""The built-in teacher from natural images to its card: pre-trained, then measured."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fopro_lab.config import PretrainConfig
from fopro_lab.data import make_split, open_dataset, pack
from fopro_lab.models import Teacher, wrap_teacher
from fopro_lab.models.backbones import IMAGENET_MEAN as MEAN
from fopro_lab.models.backbones import IMAGENET_STD as STD
from fopro_lab.models.backbones import SmallResNet
from fopro_lab.probing.features import probe_advantage
from tools.pretrain import pretrain, read_natural, untrained, write_builtin

PROBE_SIZE = 64  # pixels, the size of the demo's images


def make_builtin(config: PretrainConfig, *, out: Path, probe: str = "") -> dict[str, Any]:
    """Pre-train, store and measure the built-in teacher.

    Args:
        config: Recipe.
        out: Folder for ``builtin.safetensors``, ``card.json`` and the checkpoint.
        probe: Data set (a name or a path) on which a linear probe compares the trained network
            with the same one untrained; empty leaves the comparison out.

    Returns:
        The card.

    Raises:
        InputError: If images are missing or the checkpoint belongs to another recipe.
    """
    dataset = open_dataset(probe) if probe else None  # a wrong path is told before an hour's work
    archives = read_natural(config)
    trained = pretrain(archives, config, checkpoint=out / "checkpoint.pt")
    measured = {}
    if dataset is not None:
        classes = sum(archive.classes for archive in archives)
        packed = pack(dataset, PROBE_SIZE)
        measured[dataset.name] = probe_advantage(
            _as_teacher(trained.eval(), config),
            _as_teacher(untrained(config, classes=classes).eval(), config),
            packed,
            make_split(dataset),
        )
    return write_builtin(trained, archives, config, advantage=measured, out=out)


def _as_teacher(network: SmallResNet, config: PretrainConfig) -> Teacher:
    return wrap_teacher(
        _Features(network),
        mean=MEAN,
        std=STD,
        input_size=config.image_size,
        feature_dim=network.feature_dim,
    )


class _Features(nn.Module):
    """The network without its head, which goes on to be stored."""

    def __init__(self, network: SmallResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.features(images)
