"""Small data sets for the tests of this package."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fopro_lab.data import Dataset
from fopro_lab.data.split_rules import long_tail_counts


def toy_dataset(
    groups: list[tuple[int, int]], *, order: np.ndarray | None = None, split: dict | None = None
) -> Dataset:
    """Make a data set without images: one group for each (label, number of images)."""
    rows = [
        (f"p{number}-{i}", label, f"g{number}")
        for number, (label, size) in enumerate(groups)
        for i in range(size)
    ]
    table = pd.DataFrame(rows, columns=["image", "label", "group"])
    table = table.assign(path="", source="", split="")
    if split:
        table["split"] = table["group"].map(split).fillna("")
    if order is not None:
        table = table.iloc[order].reset_index(drop=True)
    names = tuple(f"class{label}" for label in range(table["label"].max() + 1))
    return Dataset("toy", table, names, lambda row, size: np.zeros((size, size, 3), np.uint8), "f")


def write_images(root: Path, *, classes: int = 2, each: int = 3, side: int = 20) -> Path:
    """Write a folder of noise per class."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        for number in range(each):
            path = root / f"class{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return root


def altered(*paths: Path) -> str:
    """Return what made-up split files add to a protocol id."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return f"/altered-{hashlib.sha256(chr(10).join(digests).encode()).hexdigest()[:8]}"


ISIC2019_TOTALS = (12875, 4522, 3323, 2624, 867, 628, 253, 239)  # NV MEL BCC BKL AK SCC VASC DF


def isic2019_lt_counts(ratio: float) -> list[int]:
    """Return the training images of each class in the files of FoPro-KD, largest class first."""
    left = [total - 150 for total in ISIC2019_TOTALS]  # 50 to validate on and 100 to test on
    return long_tail_counts(left, ratio=ratio, largest=ISIC2019_TOTALS[0])
