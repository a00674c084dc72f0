"""From files to batches: packing, loading and augmenting against PIL and torchvision."""

import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.timing import Variant, compare
from fopro_lab.data import Pack, batches, open_dataset, pack, read_pixels
from fopro_lab.data.augment import apply_augmentations, sample_augmentations
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD

BATCH = 32  # images, as published
SIDE = 1024  # pixels of a photograph, as most of ISIC 2019


def bench_data(
    *, rounds: int = 5, size: int = 224, images: int = 64, side: int = SIDE, many: int = 25_000
) -> dict[str, pd.DataFrame]:
    """Measure the way from files to batches on one core.

    Args:
        rounds: Rounds that count.
        size: Side of the packed images, pixels.
        images: Generated photographs, a multiple of 32.
        side: Of a photograph, pixels.
        many: Files of the data set whose opening is timed (25,000: as many as ISIC 2019).

    Returns:
        Tables ``batches`` and ``packing`` of `compare`; ``fused`` (difference between fused and
        exact augmentation, grey levels of 255); ``opening`` (milliseconds).
    """
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        folder = Path(place)
        write_photographs(folder / "photographs", count=images, side=side)
        packed = pack(open_dataset(folder / "photographs"), size, cache=folder, progress=False)
        return {
            "batches": _batches(packed, rounds),
            "packing": _packing(folder, size, rounds),
            "fused": fused_difference(packed),
            "opening": _opening(folder, many, rounds),
        }


def write_photographs(folder: Path, *, count: int, side: int = SIDE) -> None:
    """Write JPEGs of two classes that cost a decoder what dermoscopy costs it.

    Amplitudes fall as the frequency to the power of -1.4 and the channels mostly agree; at
    quality 90 a file has about 190 kB at 1024 px, the mean of ISIC 2019. Decoding time follows
    the bytes.
    """
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1 / side
    for number in range(count):
        rng = np.random.default_rng(number)
        noise = rng.standard_normal((4, *frequency.shape), dtype=np.float32)
        fields = np.fft.irfft2((noise[:2] + 1j * noise[2:]) / frequency**1.4, s=(side, side))
        shared, tint = fields / fields.std(axis=(1, 2), keepdims=True)
        grain = 0.006 * rng.standard_normal((side, side), dtype=np.float32)  # of the sensor
        light = np.array([0.75, 0.58, 0.52]) + (0.11 * shared + grain)[..., None]
        light += 0.02 * tint[..., None] * [1.0, -0.5, -0.5]
        path = folder / "ab"[number % 2] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.round(255 * np.clip(light, 0, 1)).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def photograph_pack(folder: Path, *, size: int, count: int) -> Pack:
    """Pack generated photographs of the size at which they are used."""
    write_photographs(folder / f"photographs-{size}", count=count, side=size)
    dataset = open_dataset(folder / f"photographs-{size}")
    return pack(dataset, size, cache=folder, progress=False)


def published_transforms(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Build the published training transforms with torchvision.

    Source: recipe of xmed-lab/Fed-MAS, see `fopro_lab.data.augment`.
    """
    from torchvision import transforms as t  # late: the import costs seconds

    one_of = [
        t.RandomAffine(degrees=0, scale=(0.95, 1.2)),
        t.RandomAffine(degrees=0, translate=(0.05, 0)),
        t.RandomAffine(degrees=45),
    ]
    colours = [t.ColorJitter(0.25, 0.25, 0.25, 0.01)]
    flips = [t.RandomHorizontalFlip(), t.RandomVerticalFlip()]
    end = [t.ToTensor(), t.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    recipe: Callable[[Image.Image], torch.Tensor] = t.Compose(
        [t.Resize((size, size)), t.RandomChoice(one_of), *colours, *flips, *end]
    )
    return recipe


def _batches(packed: Pack, rounds: int) -> pd.DataFrame:
    transform = published_transforms(packed.size)
    paths = list(packed.dataset.table["path"])
    order = np.random.default_rng(0).permutation(len(packed))

    def published() -> int:
        for start in range(0, len(paths), BATCH):
            images = []
            for path in paths[start : start + BATCH]:
                with Image.open(path) as opened:
                    images.append(transform(opened.convert("RGB")))
            torch.stack(images)
        return len(paths)

    def load() -> int:
        for start in range(0, len(packed), BATCH):
            read_pixels(packed, order[start : start + BATCH])
        return len(packed)

    variants = [
        Variant("PIL + torchvision, from files", published),
        Variant("packed, exact augmentation", _augmented(packed, "exact", "cpu"), 3.0),
        Variant("packed, fused augmentation", _augmented(packed, "fused", "cpu"), 12.0),
        Variant("packed, load alone, 8 bit", load, 100.0),
    ]
    if torch.cuda.is_available():
        variants += [
            Variant(f"packed, {mode} augmentation on the GPU", _augmented(packed, mode, "cuda"))
            for mode in ("exact", "fused")
        ]
    return compare(variants, rounds=rounds, label="batches")


def _augmented(packed: Pack, mode: str, device: str) -> Callable[[], int]:
    """One epoch over a pack, shuffled, augmented and normalised as the alternative does."""
    mean, std = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    epochs = count()

    def run() -> int:
        done = 0
        recipe: dict[str, Any] = {"augment": "published", "augment_mode": mode, "shuffle": True}
        options: dict[str, Any] = {
            "batch_size": BATCH,
            "epoch": next(epochs),
            "device": device,
            **recipe,
        }
        for images, _ in batches(packed, range(len(packed)), **options):
            images.sub_(mean).div_(std)
            done += len(images)
        return done

    return run


def _packing(folder: Path, size: int, rounds: int) -> pd.DataFrame:
    for path in sorted((folder / "photographs").rglob("*.jpg")):  # more files by further names
        for number in range(8):
            link = folder / "repeated" / path.parent.name / f"{path.stem}-{number}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    dataset = open_dataset(folder / "repeated")
    fresh = count()

    def decode() -> int:
        for path in dataset.table["path"]:
            with Image.open(path) as opened:
                np.asarray(opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
        return len(dataset)

    def packing(jobs: int) -> Callable[[], int]:
        def run() -> int:
            cache = folder / f"packs-{next(fresh)}"
            pack(dataset, size, cache=cache, jobs=jobs, progress=False)
            return len(dataset)

        return run

    cores = os.cpu_count() or 1
    variants = [
        Variant("decode and resize alone, PIL", decode),
        Variant("pack, one process", packing(1), 1 / 1.1),
    ]
    if cores > 1:
        variants.append(Variant(f"pack, {cores} processes", packing(cores), cores / 1.1))
    return compare(variants, rounds=rounds, label="packing")


def fused_difference(packed: Pack, *, count: int = 64) -> pd.DataFrame:
    """Measure what the fused augmentation changes against the exact one, with the same draws.

    Returns:
        One row per recipe: ``recipe``, ``mean`` and ``largest`` absolute difference in grey
        levels of 255, ``n`` images.
    """
    pixels = torch.from_numpy(np.array(packed.images[:count]))
    rows = []
    for recipe in ("flips", "published"):
        generator = torch.Generator().manual_seed(0)
        drawn = sample_augmentations(len(pixels), kind=recipe, generator=generator)
        fused, exact = (
            apply_augmentations(pixels, drawn, mode=mode) for mode in ("fused", "exact")
        )
        change = 255 * (fused - exact).abs()
        rows.append((recipe, float(change.mean()), float(change.max()), len(pixels)))
    return pd.DataFrame(rows, columns=["recipe", "mean", "largest", "n"])


def _opening(folder: Path, many: int, rounds: int) -> pd.DataFrame:
    """Time the opening of a data set of many small files that is packed already."""
    root = folder / "many"
    for number in range(many):
        path = root / ("odd" if number % 2 else "even") / f"{number:05d}.png"
        if number < 2:
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, 90, 60)).save(path)
        else:
            os.link(path.with_name(f"0000{number % 2}.png"), path)
    pack(open_dataset(root), 8, cache=folder, progress=False)
    rows = []
    for _ in range(rounds):
        start = time.perf_counter()
        dataset = open_dataset(root)
        opened = time.perf_counter()
        pack(dataset, 8, cache=folder, progress=False)
        rows.append((opened - start, time.perf_counter() - opened))
    times = 1e3 * np.median(rows, axis=0)
    return pd.DataFrame(
        {
            "what": ["open_dataset: list the files", "pack: open what is packed"],
            "files": many,
            "milliseconds": times,
        }
    )
