"""A tiny world: images whose class is a wave of one frequency, and teachers made by hand."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fopro_lab.config import ProbeConfig
from fopro_lab.data import Dataset, Pack
from fopro_lab.probing import teacher_card

CLASS_NAMES = ("slow", "fast", "flat")
SIZE = 16
CYCLES = (2, 6, 0)  # 0.125, 0.375 and 0 cycles per pixel
EDGES = [0, 0.25, 0.5, 0.75]  # the slow wave is in ring 0, the fast one in ring 1


class Stub(nn.Module):
    """A teacher by hand: any function of the images as features."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.name, self.card = function, "stub", {"name": "stub"}

    def encode(self, images: Tensor) -> Tensor:
        return self.function(images)


def amplitudes(images: Tensor) -> Tensor:
    """Return what tells the classes apart: how much there is of the two waves, ``(B, 2)``."""
    return torch.fft.rfft(images.mean(dim=(1, 2))).abs()[:, [2, 6]]


def flatten(images: Tensor) -> Tensor:
    return images.flatten(1)


def photos(count: int, side: int, *, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def make_pack(pixels: np.ndarray, labels: np.ndarray, lesion: np.ndarray, source, names) -> Pack:
    rows = range(len(labels))
    columns = {"image": [f"image {row}" for row in rows], "path": "", "label": labels}
    columns |= {"group": [f"lesion {n}" for n in lesion], "source": source, "split": ""}
    table = pd.DataFrame(columns)
    dataset = Dataset("waves", table, names, lambda row, size: pixels[row], "f" * 64)
    return Pack(pixels, labels, pixels.shape[1], dataset, {})


def wave_images(labels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    cycles = np.array(CYCLES)[labels][:, None]
    contrast = np.where(cycles > 0, 60, 0)
    phases = cycles * np.arange(SIZE) / SIZE + rng.random((len(labels), 1))
    rows = 128 + contrast * np.cos(2 * np.pi * phases)
    noise = rng.normal(0, 4, (len(labels), SIZE, SIZE, 3))
    return np.clip(rows[:, None, :, None] + noise, 0, 255).astype(np.uint8)


def make_card(world, teacher, *, student=None, **options):
    small = {"rings": 2, "resamples": 50, "probe_images": 18, "gains": [0.0, 2.0]}
    small |= {"heat_images": 6}
    config = ProbeConfig.from_mapping(small | options)
    return teacher_card(
        teacher, world.pack, world.split, config, groups=world.groups, student=student
    )
