"""How the built-in teacher was made: pre-training on natural images, then its card.

``python -m tools.make_builtin --out DIR --probe PATH`` reads two archives of natural images (Tiny
ImageNet at 32 pixels and Caltech-101) and writes ``builtin.safetensors`` and ``card.json``. It
takes about an hour on two cores; a training that was stopped starts from the beginning.
"""

import argparse
import copy
import csv
import io
import json
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from fopro_lab.data import make_split, open_dataset, pack
from fopro_lab.errors import InputError
from fopro_lab.io import atomic_path, sha256_file, write_json
from fopro_lab.models import Teacher, wrap_teacher
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD, SmallResNet
from fopro_lab.options import Config, option, parse_settings
from fopro_lab.probing.features import probe_advantage

CALTECH_SIZES = (32, 48, 64, 96)  # pixels: crops show the same things at several scales
PROBE_SIZE = 64  # pixels, the size of the demo's images
# Every tenth image of a class is held out. A split given by the archive is ignored: the two parts
# of Tiny ImageNet were shrunk differently (the top rings of one hold two to six times the energy
# of the other), so that a network trained on one part alone fails on the other.
HELD_OUT_EVERY = 10
LARGE_ARCHIVE = 10_000  # training images; a smaller archive comes twice per epoch, so it matters


class PretrainConfig(Config):
    """Recipe of the built-in teacher."""

    natural: str = option("../shared/data/natural", "folder with the two zip archives")
    width: int = option(32, "channels of the first stage", ge=8, le=256)
    image_size: int = option(32, "side of the training crop, pixels", ge=16, le=32)
    epochs: int = option(45, "passes over the images", ge=1)
    batch_size: int = option(128, "images per step", ge=2)
    learning_rate: float = option(2e-3, "peak of AdamW's one-cycle schedule", gt=0)
    weight_decay: float = option(0.05, "AdamW's decoupled decay", ge=0)
    label_smoothing: float = option(0.1, "share of the uniform label", ge=0, lt=1)
    precision: Literal["32-true", "bf16-mixed"] = option("32-true", "arithmetic")
    seed: int = option(0, "seed of weights, order and crops", ge=0)


@dataclass(frozen=True)
class NaturalImages:
    """One archive in memory: square uint8 images ``(N, 3, S, S)`` by size, and labels."""

    name: str
    pyramid: tuple[Tensor, ...]  # the same images at several sizes: a crop is never resampled
    labels: Tensor
    held_out: Tensor  # bool (N,)
    classes: int
    sha256: str


def read_natural(config: PretrainConfig) -> list[NaturalImages]:
    """Read both archives, their classes numbered one after the other."""
    folder = Path(config.natural).expanduser()
    tiny = read_archive(folder / "tinyimagenet32.zip", sizes=(32,), first_label=0)
    caltech = folder / "caltech101_30.zip"
    return [tiny, read_archive(caltech, sizes=CALTECH_SIZES, first_label=tiny.classes)]


def read_archive(path: Path, *, sizes: tuple[int, ...], first_label: int) -> NaturalImages:
    """Read a zip of images with its ``labels.csv`` (image, label).

    Squares of each of ``sizes`` pixels are kept, shrunk by an antialiased filter; ``first_label``
    is the number of this archive's class 0 among all classes.
    """
    levels: list[list[np.ndarray]] = [[] for _ in sizes]
    try:
        with zipfile.ZipFile(path) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
            for row in rows:
                image = Image.open(io.BytesIO(archive.read(f"images/{row['image']}")))
                square = _centre_square(image.convert("RGB"))
                for level, size in zip(levels, sizes, strict=True):
                    level.append(np.asarray(square.resize((size, size), Image.Resampling.BICUBIC)))
        labels = torch.tensor([int(row["label"]) for row in rows])
        stacks = [torch.from_numpy(np.stack(level)).permute(0, 3, 1, 2) for level in levels]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        expected = "expected a zip with labels.csv and images/"
        raise InputError(f"{path}: {expected}, got {error}") from None
    within_class = pd.Series(labels).groupby(labels.numpy()).cumcount()
    return NaturalImages(
        name=path.name,
        pyramid=tuple(stacks),
        labels=labels + first_label,
        held_out=torch.from_numpy(within_class.to_numpy() % HELD_OUT_EVERY == 0),
        classes=int(labels.max()) + 1,
        sha256=sha256_file(path),
    )


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def normalise(images: Tensor) -> Tensor:
    """Scale uint8 images ``(B, 3, H, W)`` to the network's input."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.float() / 255 - mean) / std


def training_crops(images: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Cut one random square per image, flip half of them, and vary brightness and contrast.

    From uint8 ``(B, 3, S, S)``, padded by an eighth if ``S`` is ``size``, to normalised floats.
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


def training_rows(archives: Sequence[NaturalImages]) -> Tensor:
    """List the training images as ``(N, 2)``: archive and row; a small archive comes twice."""
    pairs = []
    for number, archive in enumerate(archives):
        rows = torch.nonzero(~archive.held_out).flatten()
        repeats = 1 if len(rows) > LARGE_ARCHIVE else 2
        pairs.append(torch.stack([torch.full_like(rows, number), rows], dim=1).repeat(repeats, 1))
    return torch.cat(pairs)


def epoch_batches(
    archives: Sequence[NaturalImages], config: PretrainConfig, *, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the mixed batches of an epoch: normalised images ``(B, 3, S, S)``, labels ``(B,)``.

    Order and crops depend on seed and epoch alone. An incomplete last batch is dropped.
    """
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    order = training_rows(archives)
    order = order[torch.randperm(len(order), generator=generator)]
    whole = len(order) // config.batch_size * config.batch_size
    for part in order[:whole].split(config.batch_size):
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


def untrained(config: PretrainConfig, *, classes: int) -> SmallResNet:
    """Build the network as it is before the first step: what the trained one is compared with."""
    torch.manual_seed(config.seed)
    network = SmallResNet(width=config.width, classes=classes)
    return network.to(memory_format=torch.channels_last)


def pretrain(archives: Sequence[NaturalImages], config: PretrainConfig) -> SmallResNet:
    """Train the built-in teacher, one line on stdout per epoch, and round it as it is stored.

    No epoch is selected, so the held-out images decide nothing and their accuracy is unbiased.
    """
    network = untrained(config, classes=sum(archive.classes for archive in archives))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    steps = len(training_rows(archives)) // config.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps * config.epochs, pct_start=0.15
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    for epoch in range(config.epochs):
        network.train()
        started, total = time.perf_counter(), 0.0
        for images, labels in epoch_batches(archives, config, epoch=epoch):
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed"):
                logits = network(images.to(memory_format=torch.channels_last))
            loss = loss_function(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        top1 = held_out_accuracy(network, archives[0])["top1"]
        sys.stdout.write(
            f"epoch {epoch + 1}/{config.epochs}  loss {total / steps:.3f}  "
            f"held-out top-1 {top1:.3f}  {time.perf_counter() - started:.0f} s\n"
        )
        sys.stdout.flush()
    network.load_state_dict(as_stored(network))
    return network.eval()


def as_stored(network: SmallResNet) -> dict[str, Tensor]:
    """Round the weights to half precision, which halves the file; batch statistics stay single."""
    return {
        name: (value.half() if value.ndim > 1 else value).contiguous()
        for name, value in network.state_dict().items()
    }


@torch.inference_mode()
def held_out_accuracy(network: SmallResNet, archive: NaturalImages) -> dict[str, float]:
    """Measure ``top1``, the share of right answers among all classes, on held-out images."""
    network.eval()
    rows = torch.nonzero(archive.held_out).flatten()
    logits = torch.cat([network(normalise(archive.pyramid[0][part])) for part in rows.split(500)])
    right = int((logits.argmax(1) == archive.labels[rows]).sum())
    return {"images": len(rows), "top1": right / len(rows), "chance": 1 / logits.shape[1]}


def write_builtin(
    network: SmallResNet,
    archives: Sequence[NaturalImages],
    config: PretrainConfig,
    *,
    advantage: dict[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Write the network, in half precision, with its card, and return the card."""
    card = {
        "architecture": "SmallResNet",
        "width": config.width,
        "classes": sum(archive.classes for archive in archives),
        "input_size": config.image_size,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "data": [
            {
                "archive": archive.name,
                "sha256": archive.sha256,
                "training_images": int((~archive.held_out).sum()),
                "classes": archive.classes,
                "held_out": held_out_accuracy(network, archive),
            }
            for archive in archives
        ],
        "recipe": config.model_dump(exclude={"natural"}),
        "seed": config.seed,
        "advantage_over_untrained": advantage,
    }
    with atomic_path(out / "builtin.safetensors") as temporary:
        temporary.write_bytes(safetensors.torch.save(as_stored(network)))
    write_json(out / "card.json", card)
    return card


def _as_teacher(network: SmallResNet, config: PretrainConfig) -> Teacher:
    body = copy.deepcopy(network)
    body.fc = nn.Identity()
    rules: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    rules |= {"input_size": config.image_size, "feature_dim": network.feature_dim}
    return wrap_teacher(body, **rules)


def make_builtin(config: PretrainConfig, *, out: Path, probe: str = "") -> dict[str, Any]:
    """Pre-train, measure and store the built-in teacher; return its card.

    On the data set ``probe``, if one is given, a linear probe compares the trained network with
    the same one untrained.
    """
    dataset = open_dataset(probe) if probe else None  # a wrong path must not cost an hour
    archives = read_natural(config)
    trained = pretrain(archives, config)
    measured = {}
    if dataset is not None:
        blank = untrained(config, classes=sum(archive.classes for archive in archives))
        measured[dataset.name] = probe_advantage(
            _as_teacher(trained, config),
            _as_teacher(blank, config),
            pack(dataset, PROBE_SIZE),
            make_split(dataset),
        )
    return write_builtin(trained, archives, config, advantage=measured, out=out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pre-train the built-in teacher.")
    parser.add_argument("--out", default="builtin-teacher", type=Path)
    parser.add_argument("--probe", default="", help="data set on which to measure the features")
    parser.add_argument("--set", default=[], action="append", metavar="KEY=VALUE")
    given = parser.parse_args()
    config = PretrainConfig.from_mapping(parse_settings(given.set))
    made = make_builtin(config, out=given.out, probe=given.probe)
    sys.stdout.write(json.dumps(made, indent=2) + "\n")
