"""Read the published benchmarks as their publishers lay them out."""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.data import readers
from fopro_lab.data.decoding import ImageReader
from fopro_lab.data.fetch import DAMAGES, fetched_place, find_source, medmnist_facts, unpack_zip
from fopro_lab.data.readers import PARTS, Listing, list_files
from fopro_lab.data.tables import NOT_KNOWN
from fopro_lab.errors import InputError, WorkError, said_of
from fopro_lab.io import cache_folder, disk_errors, in_bytes, one_writer, regular, sha256_text

ISIC = "ISIC_2019_Training_"
# ISIC 2019's classes from the largest to the smallest, as ISIC-2019-LT ranks them.
ISIC_CLASSES = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "VASC", "DF")
TRACTS = ("lower-gi-tract", "upper-gi-tract")
SAME_IMAGES = {"isic2019-lt": "isic2019"}


def benchmark_place(name: str) -> Path | None:
    """Return the folder into which a benchmark was fetched; None if the name is no benchmark's."""
    source_name = SAME_IMAGES.get(name, name)
    if source_name not in ("isic2019", "hyperkvasir") and not name.startswith("medmnist:"):
        return None
    place = fetched_place(source_name)
    if place is None:
        source = find_source(source_name)
        facts = f"about {in_bytes(source.size)}, {source.licence}"
        way_out = f"fetch it ({facts}): `fopro data fetch {source.name}`, or give its folder's path"
        raise InputError(f"dataset: {name} is not here; {way_out}")
    return place


def read_benchmark(folder: Path) -> Listing | None:
    """Read a folder that a publisher has laid out; None if it has no such layout."""
    if (folder / f"{ISIC}GroundTruth.csv").is_file():
        return read_isic2019(folder)
    if all((folder / f"train_{kind}.npy").is_file() for kind in ("images", "labels")):
        return read_medmnist(folder)
    for root in (folder / "labeled-images", folder):
        if any((root / tract).is_dir() for tract in TRACTS):
            return read_hyperkvasir(root)
    return None


def read_isic2019(folder: Path) -> Listing:
    """Read ISIC 2019's training images: one column per class, lesions in a second table.

    A group is the lesion, a source its archive, the letters before a lesion's number (HAM, BCN,
    MSK); without the second table neither is known. Classes without images here are left out.
    """
    path = folder / f"{ISIC}GroundTruth.csv"
    truth = readers.read_cells(path, needed=("image", *ISIC_CLASSES))
    images = truth["image"].tolist()
    readers.refuse_twice(images, where=path)
    marks = truth[list(ISIC_CLASSES)].apply(pd.to_numeric, errors="coerce").to_numpy()
    sound = np.isin(marks, (0, 1)).all(axis=1) & (marks.sum(axis=1) == 1)
    if not sound.all():
        rule = f"expected a 1 in one of {', '.join(ISIC_CLASSES)} and 0 elsewhere"
        got = f"got something else for {(~sound).sum()} images, first {images[sound.argmin()]}"
        raise InputError(f"{path}: {rule}, {got}")
    present, labels = np.unique(marks.argmax(axis=1), return_inverse=True)
    lesions, metadata = pd.Series("", index=truth.index), folder / f"{ISIC}Metadata.csv"
    if metadata.is_file():
        known = readers.read_cells(metadata, needed=("image", "lesion_id"))
        known = known[~known["lesion_id"].str.casefold().isin(NOT_KNOWN)]
        lesions = truth[["image"]].merge(known.drop_duplicates("image"), how="left")["lesion_id"]
    archives = lesions.str.extract(r"^([A-Za-z]+)\d*_", expand=False).str.upper()
    root = folder / f"{ISIC}Input"
    place = root if root.is_dir() else folder
    how: Any = {"where": path, "way_out": "fetch them again, or use a CSV of those that are here"}
    paths, _ = readers.find_images(images, place, **how)
    classes = labels.tolist(), tuple(ISIC_CLASSES[rank] for rank in present)
    groups, sources = (cells.fillna("").tolist() for cells in (lesions, archives))
    return list_files(images, paths, classes, groups=groups, sources=sources)


def read_hyperkvasir(root: Path) -> Listing:
    """Read HyperKvasir's labelled images, named by file as in its splits; folders are classes."""
    files = [file for file in readers.sort_files(root)[0] if file.partition("/")[0] in TRACTS]
    if not files:
        raise InputError(f"{root}: expected images below {' and '.join(TRACTS)}, found none")
    parts = [file.rsplit("/", 2) for file in files]
    images = [part[-1] for part in parts]
    readers.refuse_twice(images, where=root)
    with said_of(str(root)):
        classes = readers.number_classes([part[-2] for part in parts])
    return list_files(images, [f"{root}/{file}" for file in files], classes)


def read_npz(path: Path) -> Listing:
    """Read a file of MedMNIST, or of its kind, with ``train_images``, ``train_labels`` and so on.

    Its arrays are unpacked into the cache once, so that images are read one by one. Parts that it
    lacks, other than training, are drawn.
    """
    place = path.resolve()
    key = sha256_text(f"{place} {place.stat().st_mtime_ns} {place.stat().st_size}")[:20]
    folder = cache_folder() / "arrays" / key / path.stem
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            size = sum(each.file_size for each in archive.infolist())
    except (OSError, *DAMAGES) as error:
        raise InputError(f"{path}: no .npz file that can be unpacked ({error})") from None
    parts = [part for part in PARTS if f"{part}_images" in held]
    wanted = [f"{part}_{kind}" for part in parts for kind in ("images", "labels")]
    if "train" not in parts or not set(wanted) <= set(held):
        rule = "expected the arrays train_images and train_labels, perhaps val_... and test_..."
        raise InputError(f"{path}: {rule}, found {', '.join(held)}")
    arrays = [f"{name}.npy" for name in wanted]
    with disk_errors(folder), one_writer(folder, talk=True, doing="unpacking it"):
        if not all((folder / name).is_file() for name in arrays):
            try:
                unpack_zip(path, folder, largest=size, holds=arrays)
            except WorkError as error:
                raise InputError(str(error)) from None
    return read_medmnist(folder, parts=parts, where=path)


def read_medmnist(
    folder: Path, *, parts: Sequence[str] = PARTS, where: Path | None = None
) -> Listing:
    """Read the arrays of a MedMNIST set with one label per image, in its given split.

    The folder's name says which set it is, as ``dermamnist_64`` or ``medmnist-derma-64``; class
    names are numbers where the set is not known.
    """
    tables, rows, files = [], list[tuple[int, int]](), list[str]()
    place = where or folder
    for number, part in enumerate(parts):
        paths = [folder / f"{part}_{kind}.npy" for kind in ("images", "labels")]
        images, labels = (open_array(each, where) for each in paths)
        grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
        if images.dtype != np.uint8 or not grey_or_colour:
            got = f"{images.dtype} {images.shape}; scale others to 0..255"
            rule = "expected uint8 (N, H, W) or (N, H, W, 3)"
            raise InputError(f"{place}: {part}_images: {rule}, got {got}")
        if labels.size != len(images) or labels.dtype.kind not in "iu":
            rule = f"expected whole numbers (N,) or (N, 1), N = {len(images)}"
            got = f"{labels.dtype} {labels.shape}; save one-hot labels as labels.argmax(axis=1)"
            raise InputError(f"{place}: {part}_labels: {rule}, got {got}")
        ids = [f"{part}-{row:06d}" for row in range(len(images))]
        table = pd.DataFrame({"image": ids, "path": "", "label": labels.ravel().astype(np.int64)})
        tables.append(table.assign(group=ids, source="", split=part))
        rows += [(number, row) for row in range(len(images))]
        files += map(str, paths)
    table = pd.concat(tables, ignore_index=True)
    reader = ArrayReader(tuple(files[::2]), rows)
    return Listing(table, _class_names(folder, table["label"], where), reader, files)


def _class_names(folder: Path, labels: pd.Series, where: Path | None) -> tuple[str, ...]:
    found = re.fullmatch(r"(?:medmnist-)?([a-z]+?)(?:mnist)?(?:[-_]\d+)?", folder.resolve().name)
    facts = medmnist_facts().get(found[1]) if found else None
    names = facts["classes"] if facts else [str(label) for label in range(labels.max() + 1)]
    if labels.min() < 0 or labels.max() >= len(names):
        got = f"{labels.min()} to {labels.max()}"
        raise InputError(f"{where or folder}: labels: expected 0 to {len(names) - 1}, got {got}")
    return tuple(names)


def open_array(path: Path | str, where: Path | None = None) -> np.ndarray:
    """Map an array, of the file ``where``; one that would run code when it is read is refused."""
    try:
        return np.load(regular(path), mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch or unpack the set again") from None
    except (OSError, ValueError, EOFError) as error:
        if "bject" in str(error):
            error = ValueError("it holds objects, which could run code; save it as plain numbers")
        name = f"{where}: {Path(path).stem}" if where else path
        raise InputError(f"{name}: no array that can be read ({error})") from None


@dataclass(frozen=True, eq=False)
class ArrayReader(ImageReader):
    """Reads images from arrays on disk."""

    files: tuple[str, ...]  # .npy of uint8 (N, H, W) or (N, H, W, 3)
    rows: Sequence[tuple[int, int]]  # of each image: number of the file, place in it

    def native(self, row: int) -> np.ndarray:
        """Return one image at its own size, ``uint8 (H, W, 3)``."""
        number, place = self.rows[row]
        pixels = np.asarray(open_array(self.files[number])[place])
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
