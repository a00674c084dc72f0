"""Open a data set by name or path: one table with a row per image, and a way to read its pixels."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.config import DataConfig
from fopro_lab.data import phantom
from fopro_lab.data.benchmarks import benchmark_place, read_benchmark
from fopro_lab.data.decoding import Reader
from fopro_lab.data.readers import Listing, read_csv_images, read_folders
from fopro_lab.data.sampling import choose_rows
from fopro_lab.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes, groups and sources; pixels are read on demand.

    Attributes:
        name: Short name, the first part of a protocol id.
        table: A row per image: image (unique id), path (empty if generated), label (0..K-1),
            group (lesion or patient), source (empty if unknown), split (empty, train, val, test).
        class_names: ``K`` names in the order of the labels.
        reader: ``(row, size)`` to ``uint8 (size, size, 3)``.
        fingerprint: SHA-256 over ids, labels, groups, splits and file sizes; the same on every
            machine that holds the same images.
        stamp: SHA-256 over the files' times of change, in the order of the rows; empty for
            generated images. It tells a file that was replaced by one of the same size.
        left_out: How many images are left out because they cannot be read.
        passed_over: Files below its folder that are not taken for images.
    """

    name: str
    table: pd.DataFrame
    class_names: tuple[str, ...]
    reader: Reader
    fingerprint: str
    stamp: str = ""
    left_out: int = 0
    passed_over: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def read(self, row: int, size: int) -> np.ndarray:
        """Return one image, ``uint8 (size, size, 3)``."""
        return self.reader(int(row), size)

    def subset(self, rows: "np.typing.ArrayLike") -> "Dataset":
        """Return the data set of these rows alone, in this order; labels keep their numbers."""
        rows = check_rows(rows, count=len(self))
        table = self.table.iloc[rows].reset_index(drop=True)
        images = "\n".join(table["image"].tolist())
        fingerprint = _hash(self.fingerprint + images)
        stamp = _hash(self.stamp + images) if self.stamp else ""
        reader = take_rows(self.reader, rows)
        return replace(self, table=table, reader=reader, fingerprint=fingerprint, stamp=stamp)

    def without(self, count: int) -> "Dataset":
        """Say in the name, and so in every protocol id, how many images were left out."""
        if not count:
            return self
        return replace(self, name=f"{self.name}-without{count}", left_out=self.left_out + count)


def open_dataset(
    name_or_path: str | Path,
    *,
    image_column: str = "",
    class_column: str = "",
    group_column: str = "",
    source_column: str = "",
    split_column: str = "",
    images: int = 0,
    seed: int = 0,
    leave_out: bool = False,
) -> Dataset:
    """Open the built-in phantom, a fetched benchmark, a folder per class, or images with a CSV.

    Args:
        name_or_path: ``"phantom"``; ``"isic2019"``, ``"isic2019-lt"`` (the same images),
            ``"hyperkvasir"`` or ``"medmnist:NAME"``, once fetched; a folder, also one as these
            are published; or a CSV above or beside its images.
        image_column: CSV column of file names, with or without extension. This and the next
            four are looked for under their usual names if empty.
        class_column: CSV column of classes.
        group_column: CSV column of lesions or patients.
        source_column: CSV column of scanners or hospitals.
        split_column: CSV column of a given split, train, val or test.
        images: At most this many, stratified by class, by whole groups; 0 is all. Of the
            phantom, how many are drawn.
        seed: Of that choice, and of the phantom.
        leave_out: Accept a CSV that lists images which are missing, unless all are.

    Returns:
        The data set.

    Raises:
        InputError: If the path, a column or an image is missing, or labels are wrong.

    Example:
        >>> open_dataset("phantom", images=100).name
        'phantom-100'
    """
    if images < 0:
        raise InputError(f"images: expected 0 for all or a positive number, got {images}")
    check_place(str(name_or_path))
    kinds = {"image": image_column, "class": class_column, "group": group_column}
    kinds |= {"source": source_column, "split": split_column}
    columns = {kind: name for kind, name in kinds.items() if name}
    path = Path(name_or_path).expanduser()
    name = path.resolve().stem if path.is_file() else path.resolve().name
    if not path.exists():
        place = benchmark_place(str(name_or_path))
        if place is None:
            return _open_phantom(images, seed)
        path, name = place, place.name if ":" in str(name_or_path) else str(name_or_path)
        if columns:
            raise InputError(f"{name}: a column was named, but its publisher's tables are fixed")
    listing = None if columns else read_benchmark(path)
    listing = listing or _read_path(path, columns, leave_out)
    table, class_names, reader, files, passed_over = listing
    sizes, stamp = _sizes_and_stamp(files)
    # What the data set is, but not where it is.
    contents = [table[name].tolist() for name in ("image", "label", "group", "source", "split")]
    lists = [class_names, sizes, *contents]
    fingerprint = _hash("\0".join("\n".join(map(str, values)) for values in lists))
    dataset = Dataset(name, table, class_names, reader, fingerprint, stamp, passed_over=passed_over)
    if 0 < images < len(dataset):
        chosen = dataset.subset(choose_rows(table, images=images, seed=seed))
        return _rename(chosen, images, seed)
    return dataset


def open_from(config: DataConfig) -> Dataset:
    """Open the data set that a config names, as `open_dataset` does."""
    return open_dataset(
        config.dataset,
        image_column=config.image_column,
        class_column=config.class_column,
        group_column=config.group_column,
        source_column=config.source_column,
        split_column=config.split_column,
        images=config.images,
        seed=config.split_seed,
        leave_out=config.unusable == "leave-out",
    )


def check_place(name: str) -> None:
    """Refuse the name of a data set that cannot be opened, without opening it."""
    if name == "phantom" or Path(name).expanduser().exists() or benchmark_place(name):
        return
    raise InputError(
        f"dataset: expected 'phantom' or a path that exists, got '{name}'; isic2019, isic2019-lt, "
        "hyperkvasir and medmnist:NAME open what `fopro data fetch` brought"
    )


def check_rows(rows: "np.typing.ArrayLike", *, count: int) -> np.ndarray:
    """Return row numbers below ``count`` as ``int64 (n,)``, and refuse anything else.

    Nothing is cast in silence: a mask would become rows 0 and 1, a half the row below it.
    """
    found = np.asarray(rows)
    if found.ndim != 1:
        raise InputError(f"rows: expected one axis, got shape {found.shape}")
    if not found.size:
        return np.zeros(0, dtype=np.int64)
    if found.dtype.kind == "b":
        raise InputError("rows: expected row numbers, got a mask; np.flatnonzero(mask) gives them")
    if found.dtype.kind not in "iu":
        raise InputError(f"rows: expected whole numbers, got {found.dtype}")
    if found.min() < 0 or found.max() >= count:
        raise InputError(
            f"rows: expected 0 to {count - 1}, got {found.min()} to {found.max()}; "
            "was the split made of the same images, pack.dataset?"
        )
    return found.astype(np.int64, copy=False)


def take_rows(reader: Reader, rows: np.ndarray) -> Reader:
    """Return a reader whose row ``i`` is row ``rows[i]`` of ``reader``."""
    if hasattr(reader, "take"):
        taken: Reader = reader.take(rows)
        return taken
    return lambda row, size: reader(int(rows[row]), size)


def _open_phantom(images: int, seed: int) -> Dataset:
    table = phantom.phantom_table(images or phantom.IMAGES, seed=seed)
    reader = phantom.PhantomReader(seed, tuple(table["image"]))
    fingerprint = _hash(f"{phantom.VERSION} {seed}\n" + "\n".join(table["image"]))
    dataset = Dataset("phantom", table, phantom.CLASS_NAMES, reader, fingerprint)
    return _rename(dataset, images, seed)


def _rename(dataset: Dataset, images: int, seed: int) -> Dataset:
    """Say in the name, and so in every protocol id, which part was chosen by which seed."""
    name = dataset.name + (f"-{images}" if images else "") + (f"-seed{seed}" if seed else "")
    return replace(dataset, name=name)


def _read_path(path: Path, columns: Mapping[str, str], leave_out: bool) -> Listing:
    """Read a folder or CSV of the user's own."""
    if path.is_file() and path.suffix.lower() not in (".csv", ".tsv"):
        raise InputError(f"{path}: expected a folder or a CSV, got a '{path.suffix}' file")
    try:
        tables = sorted(file for file in path.glob("*.[ct]sv") if file.name[0] != ".")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(tables) > 1:
        some = ", ".join(file.name for file in tables[:4])
        raise InputError(f"{path}: expected one CSV, found {some}; give the path of the one")
    if path.is_file() or tables:
        csv, root = (path, path.parent) if path.is_file() else (tables[0], path)
        return read_csv_images(csv, root=root, columns=columns, leave_out=leave_out)
    if columns:
        raise InputError(f"{path}: a column was named, but the folder holds no CSV")
    return read_folders(path)


def _sizes_and_stamp(files: list[str]) -> tuple[list[int], str]:
    """Return the files' sizes and the stamp of their times: one look at each file for both."""
    sizes, times = [], []
    for file in files:
        try:
            facts = os.stat(file)
            sizes.append(facts.st_size)
            times.append(facts.st_mtime_ns)
        except OSError:  # reading the image gives the message
            sizes.append(-1)
            times.append(-1)
    return sizes, _hash(",".join(map(str, times)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
