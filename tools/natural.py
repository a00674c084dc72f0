"""Natural images in memory, for pre-training: archives, crops and batches."""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fopro_lab.config import PretrainConfig
from fopro_lab.errors import InputError
from fopro_lab.io import sha256_file
from fopro_lab.models.backbones import IMAGENET_MEAN as MEAN
from fopro_lab.models.backbones import IMAGENET_STD as STD

# Each tenth image of a class is held out. A split given by the archive is passed over: the
# two parts of Tiny ImageNet were shrunk differently (the top rings of one hold two to six times
# the energy of the other), so that a network trained on one part alone fails on the other.
HELD_OUT_EVERY = 10
LARGE_ARCHIVE = 10_000  # training images; a smaller archive is passed twice an epoch


@dataclass(frozen=True)
class NaturalImages:
    """One archive in memory: square uint8 images ``(N, 3, S, S)`` by size, and labels."""

    name: str
    pyramid: tuple[Tensor, ...]  # the same images at several sizes: a crop is never resampled
    labels: Tensor
    held_out: Tensor  # bool (N,)
    classes: int
    sha256: str


def read_archive(path: Path, *, sizes: tuple[int, ...], first_label: int) -> NaturalImages:
    """Read a zip of images with its ``labels.csv`` (image, label).

    Args:
        path: The archive.
        sizes: Sides of the squares to keep, pixels; shrunk by an antialiased filter.
        first_label: Number of this archive's class 0 among all classes.

    Returns:
        The images in memory.

    Raises:
        InputError: If the archive is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
            images: list[list[np.ndarray]] = [[] for _ in sizes]
            for row in rows:
                encoded = io.BytesIO(archive.read(f"images/{row['image']}"))
                image = _centre_square(Image.open(encoded).convert("RGB"))
                for level, size in zip(images, sizes, strict=True):
                    level.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
        labels = torch.tensor([int(row["label"]) for row in rows])
        stacks = [torch.from_numpy(np.stack(level)) for level in images]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: expected a zip with labels.csv and images/, got {error}"
        ) from None
    counts: dict[str, int] = {}
    held_out = []
    for row in rows:
        counts[row["label"]] = counts.get(row["label"], -1) + 1
        held_out.append(counts[row["label"]] % HELD_OUT_EVERY == 0)
    return NaturalImages(
        name=path.name,
        pyramid=tuple(stack.permute(0, 3, 1, 2) for stack in stacks),
        labels=labels + first_label,
        held_out=torch.tensor(held_out),
        classes=int(labels.max()) + 1,
        sha256=sha256_file(path),
    )


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def normalise(images: Tensor) -> Tensor:
    """Scale uint8 images ``(B, 3, H, W)`` to the network's input."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def training_crops(images: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Cut one random square an image, flip half of them, and vary brightness and contrast.

    Args:
        images: uint8 ``(B, 3, S, S)``.
        size: Side of the crop, pixels; images of that side are padded by an eighth first.
        generator: Source of randomness, on the CPU.

    Returns:
        Normalised float images ``(B, 3, size, size)``.

    Example:
        >>> black = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> training_crops(black, size=32, generator=torch.Generator()).shape
        torch.Size([4, 3, 32, 32])
    """
    count, _, side, _ = images.shape
    if side == size:
        images = nn.functional.pad(images.float(), [size // 8] * 4, mode="reflect")
        side = images.shape[-1]
    top, left = torch.randint(0, side - size + 1, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(size), left + torch.arange(size)
    flip = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    index = torch.arange(count)[:, None, None]
    crops = images[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).float()
    contrast, brightness = 0.6 + 0.8 * torch.rand(2, count, 1, 1, 1, generator=generator)
    mean = crops.mean(dim=(1, 2, 3), keepdim=True)
    return normalise((((crops - mean) * contrast + mean) * brightness).clamp(0, 255))


def epoch_batches(
    archives: list[NaturalImages], config: PretrainConfig, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mixed batches; each small archive is passed often enough to matter.

    Args:
        archives: Images in memory.
        config: Batch size, crop size and seed.
        epoch: Number of the epoch; with the seed it decides order and crops.

    Yields:
        Normalised images ``(B, 3, S, S)`` and labels ``(B,)``.
    """
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    order = _pool(archives)
    order = order[torch.randperm(len(order), generator=generator)]
    for step in range(steps_per_epoch(archives, config)):
        part = order[step * config.batch_size : (step + 1) * config.batch_size]
        images, labels = [], []
        for number, archive in enumerate(archives):
            rows = part[part[:, 0] == number, 1]
            levels = torch.randint(len(archive.pyramid), (len(rows),), generator=generator)
            for level, stored in enumerate(archive.pyramid):
                chosen = rows[levels == level]
                if len(chosen):
                    images.append(
                        training_crops(stored[chosen], size=config.image_size, generator=generator)
                    )
                    labels.append(archive.labels[chosen])
        yield torch.cat(images), torch.cat(labels)


def steps_per_epoch(archives: list[NaturalImages], config: PretrainConfig) -> int:
    """Count the whole batches of an epoch; a smaller last one would disturb the batch norms."""
    return len(_pool(archives)) // config.batch_size


def _pool(archives: list[NaturalImages]) -> Tensor:
    pairs = []  # (archive, row); a small archive comes twice, so that it matters
    for number, archive in enumerate(archives):
        rows = torch.nonzero(~archive.held_out).flatten()
        repeats = 1 if len(rows) > LARGE_ARCHIVE else 2
        pairs.append(torch.stack([torch.full_like(rows, number), rows], dim=1).repeat(repeats, 1))
    return torch.cat(pairs)
