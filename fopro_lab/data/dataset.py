"""Data sets by name or path: one table a data set, and a way to read its pixels."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.config import DataConfig
from fopro_lab.data import phantom
from fopro_lab.data.benchmarks import Benchmark, benchmark_place, read_benchmark
from fopro_lab.data.decoding import FileReader, Reader
from fopro_lab.data.readers import CsvColumns, read_csv_images, read_folders
from fopro_lab.data.sampling import choose_rows
from fopro_lab.errors import InputError


def check_rows(rows: "np.typing.ArrayLike", *, count: int) -> np.ndarray:
    """Return row numbers as ``int64``, or refuse what is none.

    Nothing is cast in silence: a mask would become rows 0 and 1, a half the row below it.

    Args:
        rows: Whole numbers ``(n,)``; may be empty.
        count: How many rows there are.

    Returns:
        ``int64 (n,)``.

    Raises:
        InputError: For a mask, floats, more than one axis, or a row that is not there.

    Example:
        >>> check_rows(range(2), count=3)
        array([0, 1])
        >>> check_rows([True, False, True], count=3)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: rows: expected row numbers, got a mask; ...
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


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes, groups and sources; pixels are read when asked for.

    Attributes:
        name: Short name, the first part of a protocol id.
        table: A row an image: image (unique id), path (empty if generated), label (0..K-1),
            group (lesion or patient), source (empty if unknown), split (empty, train, val, test).
        class_names: ``K`` names in the order of the labels.
        reader: ``(row, size)`` to ``uint8 (size, size, 3)``.
        fingerprint: SHA-256 over ids, labels, groups, splits and file sizes; the same on every
            machine that holds the same images.
        stamp: SHA-256 over the files' times of change, in the order of the rows; empty for
            generated images. It tells a file that was replaced by one of the same size.
        left_out: How many images it is without because they cannot be read.
        passed_over: Files below its folder that are taken for no images.

    Example:
        >>> dataset = open_dataset("phantom", images=40)
        >>> len(dataset), dataset.read(0, 32).shape, len(dataset.subset([0, 1]))
        (40, (32, 32, 3), 2)
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
        """Return the data set of these rows alone, in this order; labels keep their numbers.

        Raises:
            InputError: If the rows are not row numbers of this data set.
        """
        rows = check_rows(rows, count=len(self))
        table = self.table.iloc[rows].reset_index(drop=True)
        images = "\n".join(table["image"].tolist())
        fingerprint = _hash(self.fingerprint, images)
        stamp = _hash(self.stamp, images) if self.stamp else ""
        reader = take_rows(self.reader, rows)
        return replace(self, table=table, reader=reader, fingerprint=fingerprint, stamp=stamp)

    def without(self, count: int) -> "Dataset":
        """Let the name, and so every protocol id, tell how many images were left out.

        Example:
            >>> open_dataset("phantom", images=40).without(2).name
            'phantom-40-without2'
        """
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
        image_column: CSV column of file names, with or without extension; this and the next
            four are looked for under their usual names when empty.
        class_column: CSV column of classes.
        group_column: CSV column of the lesion or patient.
        source_column: CSV column of the scanner or hospital.
        split_column: CSV column with train, val and test.
        images: At most this many, stratified by class; 0 is all. The phantom makes that many.
        seed: Of the choice, and of the phantom.
        leave_out: Keep rows of a CSV whose image is missing; packing leaves them out.

    Returns:
        The data set; ``name`` tells when it is a part.

    Raises:
        InputError: If the path, a column or an image is missing, or labels are wrong.

    Example:
        >>> open_dataset("phantom", images=100).name
        'phantom-100'
    """
    if images < 0:
        raise InputError(f"images: expected 0 for all or a positive number, got {images}")
    check_place(str(name_or_path))
    columns = CsvColumns(image_column, class_column, group_column, source_column, split_column)
    path = Path(name_or_path).expanduser()
    name = path.resolve().stem if path.is_file() else path.resolve().name
    if not path.exists():
        place = benchmark_place(str(name_or_path))
        if place is None:
            return _open_phantom(images, seed)
        path, name = place, place.name if ":" in str(name_or_path) else str(name_or_path)
        if columns != CsvColumns():
            raise InputError(f"{name}: a column was named, but its publisher's tables are fixed")
    found = read_benchmark(path) if columns == CsvColumns() else None
    found = found or _read_path(path, columns, leave_out)
    sizes, stamp = _look_at(found.files)
    fingerprint = _fingerprint(found.table, found.class_names, sizes)
    dataset = Dataset(
        *(name, found.table, found.class_names, found.reader, fingerprint, stamp),
        passed_over=found.passed_over,
    )
    if 0 < images < len(dataset):
        chosen = dataset.subset(choose_rows(dataset.table, images=images, seed=seed))
        return _renamed(chosen, images, seed)
    return dataset


def open_from(config: DataConfig) -> Dataset:
    """Open the data set that a config names.

    Args:
        config: Its fields ``dataset``, ``images``, ``split_seed``, ``unusable``, the columns.

    Returns:
        The data set.

    Raises:
        InputError: As `open_dataset`.

    Example:
        >>> len(open_from(DataConfig(images=50)))
        50
    """
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


def take_rows(reader: Reader, rows: np.ndarray) -> Reader:
    """Return a reader whose row ``i`` is row ``rows[i]`` of ``reader``.

    Example:
        >>> take_rows(FileReader(("a.png", "b.png")), np.array([1])).paths
        ('b.png',)
    """
    if hasattr(reader, "take"):
        taken: Reader = reader.take(rows)
        return taken
    return lambda row, size: reader(int(rows[row]), size)


def _open_phantom(images: int, seed: int) -> Dataset:
    table = phantom.phantom_table(images or phantom.IMAGES, seed=seed)
    reader = phantom.PhantomReader(seed, tuple(table["image"]))
    content = f"{phantom.VERSION} {seed}\n" + "\n".join(table["image"])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    dataset = Dataset("phantom", table, phantom.CLASS_NAMES, reader, fingerprint)
    return _renamed(dataset, images, seed)


def _renamed(dataset: Dataset, images: int, seed: int) -> Dataset:
    """Let the name, and so every protocol id, tell the part and the seed of the choice."""
    name = dataset.name + (f"-{images}" if images else "") + (f"-seed{seed}" if seed else "")
    return replace(dataset, name=name)


def _read_path(path: Path, columns: CsvColumns, leave_out: bool) -> Benchmark:
    """Read a folder or CSV of the user's; a CSV tells itself what its images are."""
    csv_path = _find_csv(path)
    passed_over: tuple[str, ...] = ()
    if csv_path is not None:
        root = path.parent if csv_path == path else path
        table, class_names = read_csv_images(
            csv_path, root=root, columns=columns, leave_out=leave_out
        )
    elif columns != CsvColumns():
        raise InputError(f"{path}: a column was named, but the folder holds no CSV")
    else:
        table, class_names, passed_over = read_folders(path)
    paths = table["path"].tolist()
    return Benchmark(table, class_names, FileReader(tuple(paths)), paths, passed_over)


def _find_csv(path: Path) -> Path | None:
    """Return the CSV that is named or lies in a folder; None if there is none."""
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".tsv"):
            raise InputError(f"{path}: expected a folder or a CSV, got a '{path.suffix}' file")
        return path
    try:
        found = sorted(file for file in path.glob("*.[ct]sv") if file.name[0] != ".")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(found) > 1:
        some = ", ".join(file.name for file in found[:4])
        raise InputError(f"{path}: expected one CSV, found {some}; give the path of the one")
    return found[0] if found else None


def _look_at(paths: list[str]) -> tuple[list[int], str]:
    """Return the files' sizes and the stamp of their times: one look at each file for both."""
    sizes, times = [], []
    for path in paths:
        try:
            facts = os.stat(path)
        except OSError:  # reading the image gives the message
            sizes.append(-1)
            times.append(-1)
        else:
            sizes.append(facts.st_size)
            times.append(facts.st_mtime_ns)
    return sizes, _hash("", ",".join(map(str, times)))


def _fingerprint(table: pd.DataFrame, class_names: tuple[str, ...], sizes: list[int]) -> str:
    """Hash what the data set is, but not where it lies."""
    columns = [table[name].tolist() for name in ("image", "label", "group", "source", "split")]
    parts = [class_names, sizes, *columns]
    return _hash("", "\0".join("\n".join(map(str, part)) for part in parts))


def _hash(start: str, text: str) -> str:
    return hashlib.sha256((start + text).encode()).hexdigest()


def check_place(name: str) -> None:
    """Refuse the name of a data set that cannot be opened, without opening it.

    Args:
        name: As `open_dataset` takes it.

    Raises:
        InputError: If it is neither ``phantom``, a fetched benchmark nor a path that exists.

    Example:
        >>> check_place("nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: dataset: expected 'phantom' or a path that exists, got ...
    """
    if name == "phantom" or Path(name).expanduser().exists() or benchmark_place(name):
        return
    raise InputError(
        f"dataset: expected 'phantom' or a path that exists, got '{name}'; isic2019, isic2019-lt, "
        "hyperkvasir and medmnist:NAME open what `fopro data fetch` brought"
    )
