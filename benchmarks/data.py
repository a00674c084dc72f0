"""How fast images come in: batches, packing and opening, each against its plain alternative."""

import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.images import SIDE, write_photographs
from benchmarks.published import published_transforms, read_batch
from benchmarks.side_by_side import side_by_side
from benchmarks.timing import Variant
from fopro_lab.data import Pack, augment_batch, batches, open_dataset, pack, read_pixels
from fopro_lab.data.augment import AugmentMode
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD

BATCH = 32  # images, as published
PACKING_ROUNDS = 5  # of half a minute
MANY = 25_000  # images, as many as ISIC 2019 has
PUBLISHED = "PIL + torchvision, from files"
DECODING = "decode and resize alone, PIL"


def bench_data(
    *,
    rounds: int = 9,
    size: int = 224,
    images: int = 64,
    side: int = SIDE,
    many: int = MANY,
) -> dict[str, pd.DataFrame]:
    """Measure the way from files to batches.

    Args:
        rounds: That count, at least 3; of packing at most 5.
        size: Side of the packed images, pixels.
        images: Photographs, generated; a multiple of 32.
        side: Of a photograph, pixels.
        many: Files of the set whose opening is timed.

    Returns:
        Tables ``batches`` and ``packing`` as of `compare_rounds`, one core each but where it is
        said; ``fused`` (difference of the fused augmentation to the exact one, grey levels of
        255); ``opening`` (milliseconds).

    Example:
        >>> tables = bench_data(rounds=3, size=16, images=32, side=64, many=30)
        >>> list(tables)
        ['batches', 'packing', 'fused', 'opening']
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
            folder = Path(place)
            for name, part in (("a", images // 2), ("b", images - images // 2)):
                write_photographs(
                    folder / "photographs" / name, count=part, side=side, seed=ord(name)
                )
            packed = pack(open_dataset(folder / "photographs"), size, cache=folder, progress=False)
            return {
                "batches": _bench_batches(packed, rounds),
                "packing": _bench_packing(folder, size, min(rounds, PACKING_ROUNDS)),
                "fused": fused_difference(packed),
                "opening": _bench_opening(folder, many, rounds),
            }
    finally:
        torch.set_num_threads(threads)


def _bench_batches(packed: Pack, rounds: int) -> pd.DataFrame:
    transform = published_transforms(packed.size)
    paths = [Path(path) for path in packed.dataset.table["path"]]
    starts = range(0, len(packed), BATCH)

    def published() -> int:
        for start in starts:
            read_batch(paths[start : start + BATCH], transform)
        return len(paths)

    order = np.random.default_rng(0).permutation(len(packed))

    def load() -> int:
        for start in starts:
            read_pixels(packed, order[start : start + BATCH])
        return len(packed)

    variants = [
        Variant(PUBLISHED, published),
        Variant("packed, exact augmentation", _augmented(packed, "exact", "cpu"), goal=3.0),
        Variant("packed, fused augmentation", _augmented(packed, "fused", "cpu"), goal=12.0),
        Variant("packed, load alone, 8 bit", load, goal=100.0),
    ]
    if torch.cuda.is_available():
        modes: tuple[AugmentMode, ...] = ("exact", "fused")
        variants += [
            Variant(f"packed, {mode} augmentation on the GPU", _augmented(packed, mode, "cuda"))
            for mode in modes
        ]
    return side_by_side(variants, rounds=rounds, label=PUBLISHED)


def _augmented(packed: Pack, mode: AugmentMode, device: str) -> Callable[[], int]:
    """Go once through a pack, shuffled, augmented and normalised as the alternative does."""
    mean, std = (
        torch.tensor(three, device=device)[:, None, None] for three in (IMAGENET_MEAN, IMAGENET_STD)
    )
    epochs = count()

    def run() -> int:
        done = 0
        for images, _ in batches(
            packed,
            range(len(packed)),
            batch_size=BATCH,
            shuffle=True,
            augment="published",
            augment_mode=mode,
            epoch=next(epochs),
            device=device,
        ):
            images.sub_(mean).div_(std)
            done += len(images)
        if device == "cuda":
            torch.cuda.synchronize()
        return done

    return run


def _bench_packing(folder: Path, size: int, rounds: int) -> pd.DataFrame:
    dataset = open_dataset(_repeated(folder / "photographs", folder / "repeated", times=8))
    fresh = count()

    def decode() -> int:
        for path in dataset.table["path"]:
            with Image.open(path) as opened:
                small = opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            np.asarray(small)
        return len(dataset)

    def packing(jobs: int) -> Callable[[], int]:
        def run() -> int:
            cache = folder / f"packs-{next(fresh)}"
            pack(dataset, size, cache=cache, jobs=jobs, progress=False)
            return len(dataset)

        return run

    cores = os.cpu_count() or 1
    variants = [
        Variant(DECODING, decode),
        Variant("pack, one process", packing(1), goal=1 / 1.1),
    ]
    if cores > 1:
        name = f"pack, {cores} processes"
        variants.append(Variant(name, packing(cores), goal=cores / 1.1))
    return side_by_side(variants, rounds=rounds, label=DECODING)


def _repeated(folder: Path, target: Path, *, times: int) -> Path:
    """Give each image further names: processes are worth their start on many images alone."""
    for path in sorted(folder.rglob("*.jpg")):
        for number in range(times):
            link = target / path.parent.name / f"{path.stem}-{number}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    return target


def fused_difference(packed: Pack, *, count: int = 64) -> pd.DataFrame:
    """Measure what the fused augmentation changes against the exact one, with the same draws.

    Args:
        packed: The images.
        count: How many of them.

    Returns:
        One row a recipe: ``recipe``, ``mean``, ``largest`` (absolute difference in grey levels of
        255, over images, channels and pixels) and ``n``.

    Example:
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> fused_difference(packed)["recipe"].tolist()
        ['flips', 'published']
    """
    images = torch.from_numpy(np.array(packed.images[:count])).permute(0, 3, 1, 2) / 255
    rows = []
    for recipe in ("flips", "published"):
        fused, exact = (
            augment_batch(
                images, kind=recipe, mode=mode, generator=torch.Generator().manual_seed(0)
            )
            for mode in ("fused", "exact")
        )
        change = 255 * (fused - exact).abs()
        rows.append((recipe, float(change.mean()), float(change.max()), len(images)))
    return pd.DataFrame(rows, columns=["recipe", "mean", "largest", "n"])


def _bench_opening(folder: Path, many: int, rounds: int) -> pd.DataFrame:
    """Time the opening of a set of many small files that is packed already."""
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
        begun = time.perf_counter()
        dataset = open_dataset(root)
        opened = time.perf_counter()
        pack(dataset, 8, cache=folder, progress=False)
        done = time.perf_counter()
        rows.append((opened - begun, done - opened, done - begun))
    times = 1e3 * np.array(rows)
    return pd.DataFrame(
        {
            "what": ["open_dataset: list the files", "pack: open what is packed", "both"],
            "files": many,
            "milliseconds": np.median(times, axis=0),
            "low": np.quantile(times, 0.25, axis=0),
            "high": np.quantile(times, 0.75, axis=0),
            "goal": [np.nan, np.nan, 50.0],
        }
    )
