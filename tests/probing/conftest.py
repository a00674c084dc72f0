"""A tiny world: images whose class is a wave of one frequency, and teachers made by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from fopro_lab.data import Dataset, Pack, Split

CLASS_NAMES = ("slow", "fast", "flat")
SIZE = 16
CYCLES = {"slow": 2, "fast": 6, "flat": 0}  # 0.125, 0.375 and 0 cycles per pixel


class Stub(nn.Module):
    """A teacher by hand: any function of the images as features."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.name, self.card = function, "stub", {"name": "stub"}
        self.seen = []

    def encode(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.function(images)


def amplitudes(images: Tensor) -> Tensor:
    """Return what tells the classes apart: how much there is of the two waves, ``(B, 2)``."""
    return torch.fft.rfft(images.mean(dim=(1, 2))).abs()[:, [2, 6]]


def wave_images(labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.arange(SIZE)
    images = []
    for label in labels:
        name = CLASS_NAMES[label]
        contrast = 60 if CYCLES[name] else 0
        row = 128 + contrast * np.cos(2 * np.pi * (CYCLES[name] * x / SIZE + rng.random()))
        noise = rng.normal(0, 4, (SIZE, SIZE, 3))
        images.append(np.clip(row[None, :, None] + noise, 0, 255).astype(np.uint8))
    return np.stack(images)


@pytest.fixture
def world():
    """A pack of 90 images, 45 lesions of two images each, and a split by lesion."""
    labels = np.repeat(np.tile(np.arange(3), 15), 2).astype(np.int64)
    lesion = np.repeat(np.arange(45), 2)
    table = pd.DataFrame(
        {
            "image": [f"image {row}" for row in range(90)],
            "path": "",
            "label": labels,
            "group": [f"lesion {number}" for number in lesion],
            "source": np.where(lesion % 2 == 0, "a", "b"),
            "split": "",
        }
    )
    images = wave_images(labels)
    dataset = Dataset("waves", table, CLASS_NAMES, lambda row, size: images[row], "f" * 64)
    pack = Pack(images, labels, SIZE, dataset, {})
    split = Split(
        train=np.arange(30),
        val=np.arange(30, 48),
        test=np.arange(48, 90),
        protocol="waves/groups/toy",
        fingerprint="s" * 64,
    )
    groups = {"slow": "head", "fast": "medium", "flat": "tail"}
    return SimpleNamespace(pack=pack, split=split, groups=groups, teacher=Stub(amplitudes))


@pytest.fixture
def stub():
    return Stub
