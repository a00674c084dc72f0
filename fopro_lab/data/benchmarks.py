"""The published benchmarks, read as their publishers lay them out."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.config import Interpolation
from fopro_lab.data.decoding import FileReader, resize_square
from fopro_lab.data.fetch import fetched_place, find_source, medmnist_facts
from fopro_lab.data.readers import (
    NOT_KNOWN,
    list_images,
    number_classes,
    read_cells,
    refuse_twice,
)
from fopro_lab.errors import InputError
from fopro_lab.io import in_bytes

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
        """Return one image at its own size, ``uint8 (H, W, 3)``."""
        number, place = (int(value) for value in self.rows[row])
        pixels = np.asarray(_open(Path(self.files[number]))[place])
        return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels

    def take(self, rows: np.ndarray) -> "ArrayReader":
        """Return a reader of these rows alone."""
        return replace(self, rows=self.rows[rows])

    def with_interpolation(self, interpolation: Interpolation) -> "ArrayReader":
        """Return a reader that resizes so."""
        return replace(self, interpolation=interpolation)


def is_medmnist(folder: Path) -> bool:
    """Say whether a folder holds MedMNIST's arrays.

    Example:
        >>> is_medmnist(Path("nowhere"))
        False
    """
    return all((folder / f"train_{kind}.npy").is_file() for kind in ("images", "labels"))


def read_medmnist(folder: Path) -> tuple[pd.DataFrame, tuple[str, ...], ArrayReader]:
    """Read the six arrays of a set with one label an image.

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
                f"{where}_labels: expected {len(images)} integers, one an image, got "
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


ISIC = "ISIC_2019_Training_"
# ISIC 2019's classes from the largest to the smallest, as ISIC-2019-LT ranks them.
ISIC_CLASSES = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "VASC", "DF")
TRACTS = ("lower-gi-tract", "upper-gi-tract")
SAME_IMAGES = {"isic2019-lt": "isic2019"}


class Benchmark(NamedTuple):
    """What is read of a benchmark.

    Attributes:
        table: As of a `Dataset`.
        class_names: In the order of the labels.
        reader: Of the pixels.
        files: Whose sizes and times stand for the pixels.
        passed_over: Files below the folder that are taken for no images.

    Example:
        >>> Benchmark._fields
        ('table', 'class_names', 'reader', 'files', 'passed_over')
    """

    table: pd.DataFrame
    class_names: tuple[str, ...]
    reader: FileReader | ArrayReader
    files: list[str]
    passed_over: tuple[str, ...] = ()


def benchmark_place(name: str) -> Path | None:
    """Return the folder in which a benchmark was fetched.

    Args:
        name: ``isic2019``, ``isic2019-lt``, ``hyperkvasir`` or ``medmnist:NAME``.

    Returns:
        The folder; None if ``name`` is no benchmark's.

    Raises:
        InputError: If it was not fetched, with the command that does.

    Example:
        >>> benchmark_place("phantom") is None
        True
    """
    asked = SAME_IMAGES.get(name, name)
    if asked not in ("isic2019", "hyperkvasir") and not name.startswith("medmnist:"):
        return None
    place = fetched_place(asked)
    if place is None:
        source = find_source(asked)
        raise InputError(
            f"dataset: {name} is not here; fetch it (about {in_bytes(source.size)}, "
            f"{source.licence}): `fopro data fetch {source.name}`, or give the path of the folder "
            "that holds its images"
        )
    return place


def read_benchmark(folder: Path) -> Benchmark | None:
    """Read a folder that a publisher has laid out.

    Args:
        folder: Of ISIC 2019, HyperKvasir's labelled images or MedMNIST's arrays.

    Returns:
        What it holds; None if it has none of these layouts.

    Raises:
        InputError: If a table or an array is damaged, or images are missing.

    Example:
        >>> read_benchmark(Path("nowhere")) is None
        True
    """
    if (folder / f"{ISIC}GroundTruth.csv").is_file():
        return _of_files(*read_isic2019(folder))
    if is_medmnist(folder):
        table, names, reader = read_medmnist(folder)
        return Benchmark(table, names, reader, medmnist_files(folder))
    for root in (folder / "labeled-images", folder):
        if any((root / tract).is_dir() for tract in TRACTS):
            return _of_files(*read_hyperkvasir(root))
    return None


def read_isic2019(folder: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read ISIC 2019's training images: one column a class, lesions in a second table.

    Args:
        folder: With ``ISIC_2019_Training_GroundTruth.csv``, the images at any depth, and
            ``ISIC_2019_Training_Metadata.csv``, without which no lesion is known.

    Returns:
        Table with the lesion as group (an image without one is its own) and the archive as
        source, HAM, BCN or MSK, the letters before a lesion's number; and the class names from
        the largest to the smallest.

    Raises:
        InputError: If an image has no class or two, is listed twice or is missing.

    Source: ISIC 2019 challenge, task 1.
    """
    path = folder / f"{ISIC}GroundTruth.csv"
    truth = read_cells(path)
    _refuse_missing_columns(truth, ("image", *ISIC_CLASSES), path)
    images = truth["image"].tolist()
    refuse_twice(images, where=path)
    marks = truth[list(ISIC_CLASSES)].apply(pd.to_numeric, errors="coerce").to_numpy()
    sound = ((marks == 1).sum(axis=1) == 1) & ((marks == 0).sum(axis=1) == len(ISIC_CLASSES) - 1)
    if not sound.all():
        first = images[int(np.argmin(sound))]
        raise InputError(
            f"{path}: expected a 1 in one of {', '.join(ISIC_CLASSES)} and 0 elsewhere, got "
            f"something else for {(~sound).sum()} images, first {first}"
        )
    ranks = marks.argmax(axis=1)
    present = np.unique(ranks)
    labels = np.searchsorted(present, ranks)  # a part of the images may lack a class
    lesions = _isic_lesions(folder / f"{ISIC}Metadata.csv")
    groups = [lesions.get(image, "") for image in images]
    table = pd.DataFrame(
        {
            "image": images,
            "path": _isic_paths(images, folder),
            "label": labels,
            "group": [group or image for group, image in zip(groups, images, strict=True)],
            "source": [_archive(group) for group in groups],
            "split": "",
        }
    )
    return table, tuple(ISIC_CLASSES[rank] for rank in present)


def read_hyperkvasir(root: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read HyperKvasir's labelled images; an image's class is the folder it lies in.

    Args:
        root: The folder with ``lower-gi-tract`` and ``upper-gi-tract``.

    Returns:
        Table with the file name as image, as the official splits write it, without groups and
        sources; and the class names in alphabetical order.

    Raises:
        InputError: If there are no images, or two of one name.

    Source: Borgli et al., Scientific Data 7, 283 (2020).
    """
    files = [file for file in list_images(root) if file.partition("/")[0] in TRACTS]
    if not files:
        raise InputError(f"{root}: expected images below {' and '.join(TRACTS)}, found none")
    parts = [file.rsplit("/", 2) for file in files]
    images = [part[-1] for part in parts]
    refuse_twice(images, where=root)
    labels, names = number_classes([part[-2] for part in parts], where=str(root))
    start = str(root) + "/"
    table = pd.DataFrame({"image": images, "path": [start + file for file in files]})
    return table.assign(label=labels, group=images, source="", split=""), names


def _of_files(table: pd.DataFrame, names: tuple[str, ...]) -> Benchmark:
    paths = table["path"].tolist()
    return Benchmark(table, names, FileReader(tuple(paths)), paths)


def _isic_lesions(path: Path) -> dict[str, str]:
    """Return the lesion of each image that has one."""
    if not path.is_file():
        return {}
    known = read_cells(path)
    _refuse_missing_columns(known, ("image", "lesion_id"), path)
    pairs = zip(known["image"].tolist(), known["lesion_id"].tolist(), strict=True)
    return {image: lesion for image, lesion in pairs if lesion.casefold() not in NOT_KNOWN}


def _archive(lesion: str) -> str:
    """Return the letters before a lesion's number: HAM_0000118 is HAM's, MSK4_0011169 MSK's."""
    found = re.match(r"([A-Za-z]+)\d*_", lesion)
    return found[1].upper() if found else ""


def _isic_paths(images: list[str], folder: Path) -> list[str]:
    """Find the images; some ids end in _downsampled, which not every copy keeps in its names."""
    root = folder / f"{ISIC}Input"
    root = root if root.is_dir() else folder
    stems = {file.rpartition("/")[2].rpartition(".")[0]: file for file in list_images(root)}
    found = [stems.get(image) or stems.get(image.removesuffix("_downsampled")) for image in images]
    missing = [image for image, file in zip(images, found, strict=True) if file is None]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(images)} images are missing, first {missing[0]}; "
            "fetch them again, or use a CSV of those that are here"
        )
    start = str(root) + "/"
    return [start + file for file in found if file]


def _refuse_missing_columns(frame: pd.DataFrame, needed: tuple[str, ...], path: Path) -> None:
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: no column '{missing[0]}'; it has {', '.join(frame.columns)}")
