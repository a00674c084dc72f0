"""MedMNIST's arrays: pictures of one size in memory maps, with the split they come with."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.config import Decoder, Interpolation
from fopro_lab.data.decoding import resize_square
from fopro_lab.errors import InputError
from fopro_lab.fetching.publishers import medmnist_facts

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Read row by row from arrays on disk; small enough to send to another process.

    Attributes:
        files: ``.npy`` files, each ``uint8 (N, H, W)`` or ``(N, H, W, 3)``.
        rows: ``int64 (N, 2)``: number of the file and place in it, for each row.
        interpolation: Of the resize.

    Example:
        >>> ArrayReader(("a.npy",), np.array([[0, 3], [0, 4]])).take(np.array([1])).rows.tolist()
        [[0, 4]]
    """

    files: tuple[str, ...]
    rows: np.ndarray
    interpolation: Interpolation = "bilinear"

    def __call__(self, row: int, size: int) -> np.ndarray:
        """Return the pixels of one row, ``uint8 (size, size, 3)``."""
        return resize_square(self.native(row), size=size, interpolation=self.interpolation)

    def native(self, row: int) -> np.ndarray:
        """Return one picture at its own size, ``uint8 (H, W, 3)``."""
        number, place = (int(value) for value in self.rows[row])
        pixels = np.asarray(_open(Path(self.files[number]))[place])
        return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels

    def take(self, rows: np.ndarray) -> "ArrayReader":
        """Return a reader of these rows alone."""
        return replace(self, rows=self.rows[rows])

    def with_rules(self, *, decoder: Decoder, interpolation: Interpolation) -> "ArrayReader":
        """Return a reader that resizes so; arrays need no decoder."""
        return replace(self, interpolation=interpolation)


def is_medmnist(folder: Path) -> bool:
    """Say whether a folder holds MedMNIST's arrays.

    Example:
        >>> is_medmnist(Path("nowhere"))
        False
    """
    return all((folder / f"train_{kind}.npy").is_file() for kind in ("images", "labels"))


def read_medmnist(folder: Path) -> tuple[pd.DataFrame, tuple[str, ...], ArrayReader]:
    """Read the six arrays of a set with one label a picture.

    Args:
        folder: With ``train_images.npy``, ``train_labels.npy`` and so on; its name tells the set,
            as ``dermamnist_64`` or ``medmnist-derma-64``.

    Returns:
        Table as of `read_folders`, with the given split and without paths; the class names, which
        are numbers where the set is not known; a reader.

    Raises:
        InputError: If an array is missing, damaged, of another shape, or a label has no name.

    Source: Yang et al., Scientific Data 10, 41 (2023).
    """
    files = tuple(str(folder / f"{part}_images.npy") for part in PARTS)
    tables, rows = [], []
    for number, part in enumerate(PARTS):
        images, labels = _open(Path(files[number])), _open(folder / f"{part}_labels.npy")
        where = f"{folder}: {part}"
        grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
        if images.dtype != np.uint8 or not grey_or_colour:
            raise InputError(
                f"{where}_images: expected uint8 (N, H, W) or (N, H, W, 3), got {images.dtype} "
                f"{images.shape}"
            )
        if labels.size != len(images) or labels.dtype.kind not in "iu":
            raise InputError(
                f"{where}_labels: expected {len(images)} integers, one a picture, got "
                f"{labels.dtype} {labels.shape}"
            )
        ids = [f"{part}-{place:06d}" for place in range(len(images))]
        tables.append(pd.DataFrame({"image": ids, "label": labels.ravel(), "split": part}))
        rows.append(np.stack([np.full(len(images), number), np.arange(len(images))], axis=1))
    table = pd.concat(tables, ignore_index=True)
    table["label"] = table["label"].astype(np.int64)
    table = table.assign(path="", group=table["image"], source="")
    names = _class_names(folder, table["label"].to_numpy())
    order = ["image", "path", "label", "group", "source", "split"]
    return table[order], names, ArrayReader(files, np.concatenate(rows))


def medmnist_files(folder: Path) -> list[str]:
    """List what stands for the pixels and labels of a set: size and time of these files.

    Example:
        >>> len(medmnist_files(Path("anywhere")))
        6
    """
    kinds = ("images", "labels")
    return [str(folder / f"{part}_{kind}.npy") for part in PARTS for kind in kinds]


def _class_names(folder: Path, labels: np.ndarray) -> tuple[str, ...]:
    count = int(labels.max()) + 1
    found = re.fullmatch(r"(?:medmnist-)?([a-z]+?)(?:mnist)?(?:[-_]\d+)?", folder.resolve().name)
    facts = medmnist_facts().get(found[1]) if found else None
    if facts is None:
        return tuple(map(str, range(count)))
    if labels.min() < 0 or count > len(facts["classes"]):
        raise InputError(
            f"{folder}: labels: expected 0 to {len(facts['classes']) - 1}, got {labels.min()} to "
            f"{labels.max()}"
        )
    return tuple(facts["classes"])


def _open(path: Path) -> np.ndarray:
    """Map an array; one that would run code when it is read is refused."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch or unpack the set again") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no array that can be read ({error})") from None
    return array
