"""The published benchmarks, read as their publishers lay them out."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data.csv_cells import NOT_KNOWN, read_cells
from fopro_lab.data.decoding import FileReader
from fopro_lab.data.medmnist import ArrayReader, is_medmnist, medmnist_files, read_medmnist
from fopro_lab.data.sources import list_pictures, number_classes, refuse_twice
from fopro_lab.errors import InputError
from fopro_lab.fetching import fetched_place, find_source
from fopro_lab.progress import in_bytes

ISIC = "ISIC_2019_Training_"
# ISIC 2019's classes from the largest to the smallest, as ISIC-2019-LT ranks them.
ISIC_CLASSES = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "VASC", "DF")
TRACTS = ("lower-gi-tract", "upper-gi-tract")
SAME_PICTURES = {"isic2019-lt": "isic2019"}


class Benchmark(NamedTuple):
    """What is read of a benchmark.

    Attributes:
        table: As of a `Dataset`.
        class_names: In the order of the labels.
        reader: Of the pixels.
        files: Whose sizes and times stand for the pixels.
        passed_over: Files below the folder that are taken for no pictures.

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
    asked = SAME_PICTURES.get(name, name)
    if asked not in ("isic2019", "hyperkvasir") and not name.startswith("medmnist:"):
        return None
    place = fetched_place(asked)
    if place is None:
        source = find_source(asked)
        raise InputError(
            f"dataset: {name} is not here; fetch it (about {in_bytes(source.size)}, "
            f"{source.licence}): `fopro data fetch {source.name}`, or give the path of the folder "
            "that holds its pictures"
        )
    return place


def read_benchmark(folder: Path) -> Benchmark | None:
    """Read a folder that a publisher has laid out.

    Args:
        folder: Of ISIC 2019, HyperKvasir's labelled pictures or MedMNIST's arrays.

    Returns:
        What it holds; None if it has none of these layouts.

    Raises:
        InputError: If a table or an array is damaged, or pictures are missing.

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
    """Read ISIC 2019's training pictures: one column a class, lesions in a second table.

    Args:
        folder: With ``ISIC_2019_Training_GroundTruth.csv``, the pictures at any depth, and
            ``ISIC_2019_Training_Metadata.csv``, without which no lesion is known.

    Returns:
        Table with the lesion as group (a picture without one is its own) and the archive as
        source, HAM, BCN or MSK, the letters before a lesion's number; and the class names from
        the largest to the smallest.

    Raises:
        InputError: If a picture has no class or two, is listed twice or is missing.

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
            f"something else for {(~sound).sum()} pictures, first {first}"
        )
    ranks = marks.argmax(axis=1)
    present = np.unique(ranks)
    labels = np.searchsorted(present, ranks)  # a part of the pictures may lack a class
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
    """Read HyperKvasir's labelled pictures; a picture's class is the folder it lies in.

    Args:
        root: The folder with ``lower-gi-tract`` and ``upper-gi-tract``.

    Returns:
        Table with the file name as image, as the official splits write it, without groups and
        sources; and the class names in alphabetical order.

    Raises:
        InputError: If there are no pictures, or two of one name.

    Source: Borgli et al., Scientific Data 7, 283 (2020).
    """
    files = [file for file in list_pictures(root) if file.partition("/")[0] in TRACTS]
    if not files:
        raise InputError(f"{root}: expected pictures below {' and '.join(TRACTS)}, found none")
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
    """Return the lesion of each picture that has one."""
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
    """Find the pictures; some ids end in _downsampled, which not every copy keeps in its names."""
    root = folder / f"{ISIC}Input"
    root = root if root.is_dir() else folder
    stems = {file.rpartition("/")[2].rpartition(".")[0]: file for file in list_pictures(root)}
    found = [stems.get(image) or stems.get(image.removesuffix("_downsampled")) for image in images]
    missing = [image for image, file in zip(images, found, strict=True) if file is None]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(images)} pictures are missing, first {missing[0]}; "
            "fetch them again, or use a CSV of those that are here"
        )
    start = str(root) + "/"
    return [start + file for file in found if file]


def _refuse_missing_columns(frame: pd.DataFrame, needed: tuple[str, ...], path: Path) -> None:
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: no column '{missing[0]}'; it has {', '.join(frame.columns)}")
