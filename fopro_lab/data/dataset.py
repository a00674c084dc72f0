"""Open a data set by name or path: one table with a row per image, and a way to read its pixels."""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from PIL import Image

from fopro_lab.arguments import wrong
from fopro_lab.config import DataConfig
from fopro_lab.data import phantom
from fopro_lab.data.benchmarks import benchmark_place, read_benchmark, read_npz
from fopro_lab.data.decoding import DEPTHS, FileReader, ImageReader, Reader, to_rgb
from fopro_lab.data.readers import Listing, read_folders, sort_files
from fopro_lab.data.sampling import choose_rows
from fopro_lab.data.tables import USUAL_NAMES, find_table, list_parts, not_used, read_table
from fopro_lab.errors import InputError, said_of
from fopro_lab.io import Summary, sha256_text


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Summary):
    """Images with their classes, groups and sources; pixels are read on demand.

    ``table`` has a row per image: image (unique id), path (empty if generated), label (0..K-1),
    group (lesion or patient), source (empty if unknown), split (empty, train, val, test).
    """

    _shown = ("name", "images", "classes")

    name: str  # the first part of a protocol id
    table: pd.DataFrame
    class_names: tuple[str, ...]  # K, in the order of the labels
    reader: Reader
    fingerprint: str  # SHA-256 over the table without paths, and file sizes: the same everywhere
    stamp: str = ""  # SHA-256 over the files' times, tells a file replaced by one of the same size
    left_out: int = 0  # images that are left out because they cannot be read
    passed_over: tuple[str, ...] = ()  # files below its folder that are not taken for images
    notes: tuple[str, ...] = ()  # what was guessed or left out when it was opened
    groups_known: bool = False  # of every image, also if each image is of a lesion of its own

    def __len__(self) -> int:
        return len(self.table)

    @property
    def grouping(self) -> str:
        """How many lesions or patients there are, in words."""
        if self.table["group"].is_unique and not self.groups_known:
            return "unknown lesions or patients"
        return f"{self.table['group'].nunique():,} lesions or patients"

    images = property(__len__, doc="Number of images.")
    classes = property(lambda self: len(self.class_names), doc="Number of classes.")

    def read(self, row: int, size: int) -> np.ndarray:
        """Return one image, ``uint8 (size, size, 3)``."""
        return self.reader(int(row), size)

    def subset(self, rows: "np.typing.ArrayLike") -> "Dataset":
        """Return the data set of these rows alone, in this order; labels keep their numbers."""
        rows = check_rows(rows, count=len(self))
        table = self.table.iloc[rows].reset_index(drop=True)
        images = "\n".join(table["image"].tolist())
        fingerprint = sha256_text(self.fingerprint + images)
        stamp = sha256_text(self.stamp + images) if self.stamp else ""
        reader = take_rows(self.reader, rows)
        return replace(self, table=table, reader=reader, fingerprint=fingerprint, stamp=stamp)


def open_dataset(
    name_or_path: str | Path,
    *,
    image_column: str = "",
    class_column: str = "",
    group_column: str = "",
    source_column: str = "",
    split_column: str = "",
    image_dir: str | Path = "",
    labels_from: Literal["auto", "folders"] = "auto",
    multi_label: Literal["stop", "first", "leave-out"] = "stop",
    unclear_split: Literal["stop", "leave-out"] = "stop",
    test_fold: str = "",
    bit_depth: int = 0,
    images: int = 0,
    seed: int = 0,
    leave_out: bool = False,
) -> Dataset:
    """Open the built-in phantom, a fetched benchmark, a folder per class, or images with a CSV.

    ``name_or_path`` is ``"phantom"``; ``"isic2019"``, ``"isic2019-lt"`` (the same images),
    ``"hyperkvasir"`` or ``"medmnist:NAME"``, once fetched; a folder, also one as these are
    published; or a table (CSV and its kin) above or beside its images. Its columns are looked for
    under their usual names, and by what they hold, unless they are named; ``"none"`` is none.

    All others are options of `DataConfig`, which docs/options.md explains: ``seed`` is
    ``split_seed``, and ``leave_out`` accepts that some images of a table are missing, as
    ``unusable="leave-out"`` does.

    Raises:
        InputError: If the path, a column or an image is missing, or labels are wrong.
    """
    given = locals()
    options = {name: given[name] for name in given.keys() & DataConfig.model_fields.keys()}
    options |= {"split_seed": seed, "unusable": "leave-out" if leave_out else "stop"}
    return open_from(DataConfig(dataset=str(name_or_path), **options))


def open_from(config: DataConfig) -> Dataset:
    """Open the data set that a config names, as `open_dataset` does."""
    images, seed = config.images, config.split_seed
    place, path = check_place(config.dataset), Path(config.dataset).expanduser()
    part = (f"-{images}" if images else "") + (f"-seed{seed}" if seed else "")
    if place is None:
        table = phantom.phantom_table(images or phantom.IMAGES, seed=seed)
        drawn = tuple(table["image"])
        reader, names = phantom.PhantomReader(seed, drawn), phantom.CLASS_NAMES
        fingerprint = sha256_text(f"{phantom.VERSION} {seed}\n" + "\n".join(drawn))
        name = "phantom" + part
        return Dataset(name, table, names, reader, fingerprint, groups_known=True)
    columns = any(getattr(config, f"{kind}_column") for kind in USUAL_NAMES)
    name = place.resolve().stem if place.is_file() else place.resolve().name
    if not path.exists():
        name = place.name if ":" in config.dataset else config.dataset
        if columns:
            raise InputError(f"{name}: a column was named, but its publisher's tables are fixed")
    own = columns or config.image_dir or config.labels_from == "folders"
    listing = (None if own else read_benchmark(place)) or _read_path(place, config, columns)
    table, class_names, file_reader, files = listing[:4]
    if isinstance(file_reader, FileReader) and config.bit_depth:
        if config.bit_depth not in DEPTHS:
            raise InputError(f"bit_depth: expected one of {DEPTHS}, got {config.bit_depth}")
        file_reader = replace(file_reader, depth=config.bit_depth)
    for note in listing.notes:
        sys.stderr.write(f"fopro: {note}\n")
    sizes, times = [-1] * len(files), [-1] * len(files)
    for i, file in enumerate(files):
        with suppress(OSError):  # reading the image gives the message
            state = os.stat(file)
            sizes[i], times[i] = state.st_size, state.st_mtime_ns
    # What the data set is, but not where it is.
    contents = [table[name].tolist() for name in ("image", "label", "group", "source", "split")]
    lists = [class_names, sizes, *contents]
    fingerprint = sha256_text("\0".join("\n".join(map(str, values)) for values in lists))
    about: Any = {n: getattr(listing, n) for n in ("passed_over", "notes", "groups_known")}
    what = (name + listing.ending, table, class_names, file_reader)
    dataset = Dataset(*what, fingerprint, sha256_text(",".join(map(str, times))), **about)
    if 0 < images < len(dataset):
        chosen = dataset.subset(choose_rows(table, images=images, seed=seed))
        return replace(chosen, name=dataset.name + part)
    return dataset


def from_torch(
    source: Any,
    *,
    class_names: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
    name: str = "own",
) -> Dataset:
    """Take a torch data set as images: it is read once now, and again when it is packed.

    Args:
        source: Map-style: ``len`` and items of image and label, without random transforms. An image
            is one of Pillow or ``uint8 (H, W)`` or ``(H, W, 3)`` of numpy, or a tensor
            ``(1 or 3, H, W)``, ``uint8`` or float in [0, 1], which is rounded to 8 bits. A label
            is a whole number from 0.
        class_names: In label order; None takes ``source.classes``, else the numbers.
        groups: Lesion or patient of each item; where it is None, NaN or empty, it is unknown.
        name: First part of the protocol id.

    Returns:
        A data set for `pack`; its fingerprint is that of all pixels and labels.

    Raises:
        InputError: If an item is none of these, or differs when it is read again.
    """
    rows = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if not rows or hasattr(source, "keys"):  # a mapping or a table has no items by number
        expected = "a map-style data set with len (list(...) makes one of what can be iterated)"
        raise wrong("source", expected, source, "")
    count = len(source)
    reader = TorchReader(source, range(count))
    if not count:
        raise InputError("source: expected one item or more, got none")
    if not np.array_equal(reader.native(0), reader.native(0)):
        raise InputError("source: item 0 differs when read again; leave out random transforms")
    labels, digest = [], hashlib.sha256()
    for row in range(count):
        pixels, label = reader.item(row)
        labels.append(label)
        digest.update(f"{pixels.shape} {label}\n".encode() + pixels.tobytes())
    called = class_names if class_names is not None else getattr(source, "classes", None)
    names = [str(n) for n in (called if called is not None else range(max(labels) + 1))]
    if len(names) <= max(labels):
        raise InputError(f"class_names: expected {max(labels) + 1} or more, got {len(names)}")
    own = pd.Series([None] * count if groups is None else list(groups), dtype=object)
    if len(own) != count:
        raise InputError(f"groups: expected one for each of {count} items, got {len(own)}")
    table = pd.DataFrame({"image": [f"{row:07d}" for row in range(count)], "path": ""})
    known = own.notna() & (own.map(str) != "")
    own = own.map(str).where(known, table["image"])  # an item of unknown group is one of its own
    table = table.assign(label=labels, group=own, source="", split="")
    fingerprint = sha256_text("\0".join([digest.hexdigest(), *names, *own]))
    return Dataset(name, table, tuple(names), reader, fingerprint, groups_known=bool(known.all()))


@dataclass(frozen=True)
class TorchReader(ImageReader):
    """Reads the items of a torch data set as 8-bit RGB."""

    source: Any
    rows: Sequence[int]

    def native(self, row: int) -> np.ndarray:
        """Return ``uint8 (H, W, 3)``."""
        return self.item(self.rows[row])[0]

    def item(self, row: int) -> tuple[np.ndarray, int]:
        """Return pixels and label, checked."""
        found = self.source[row]
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise wrong(f"source: item {row}", "an image and a label", found, "")
        image, label = found
        try:
            number = -1 if isinstance(label, bool) else index(label)
        except TypeError:
            number = -1
        if number < 0:
            raise wrong(f"source: label {row}", "a whole number from 0", label, "")
        if not isinstance(image, Image.Image):
            values = np.asarray(image)
            if hasattr(image, "permute"):  # a tensor: channels first
                values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values[:0]
            if values.dtype.kind == "f" and (np.abs(2 * values - 1) <= 1).all():  # in [0, 1]
                values = np.round(255 * values).astype(np.uint8)
            values = values[..., 0] if values.shape[2:] == (1,) else values
            sound = values.dtype == np.uint8 and values.size
            if not sound or values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)):
                rule = "uint8, or a float tensor in [0, 1], of 1 or 3 channels"
                raise wrong(f"source: image {row}", rule, image, "")
            image = Image.fromarray(values)
        return np.asarray(to_rgb(image)), number


def check_place(name: str) -> Path | None:
    """Find a data set without opening it, refuse one that is not here; None is the phantom."""
    if not name.strip():
        raise InputError("dataset: expected 'phantom' or a path, got an empty text; '.' is here")
    path = Path(name).expanduser()
    place = path if path.exists() else benchmark_place(name)
    if place is None and name != "phantom":
        way_out = "`fopro data list` shows the names of those that can be fetched"
        rule = "expected 'phantom' or a path that exists"
        raise InputError(f"dataset: {rule}, got '{name}'; {way_out}")
    return place


def check_rows(rows: "np.typing.ArrayLike", *, count: int) -> np.ndarray:
    """Return row numbers below ``count`` as ``int64 (n,)``, and refuse anything else."""
    if isinstance(rows, str) or not (isinstance(rows, Sequence) or hasattr(rows, "__array__")):
        raise wrong("rows", "a list of row numbers", rows, "rows")
    found = np.asarray(rows)  # nothing is cast in silence: a mask would become rows 0 and 1
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        got = f"{found.dtype} {found.shape}; np.flatnonzero(mask) gives those of a mask"
        raise InputError(f"rows: expected row numbers (n,), got {got}")
    if found.size and (found.min() < 0 or found.max() >= count):
        got = f"{found.min()} to {found.max()}; was the split made of the same pack.dataset?"
        raise InputError(f"rows: expected 0 to {count - 1}, got {got}")
    return found.astype(np.int64, copy=False)


def take_rows(reader: Reader, rows: np.ndarray) -> Reader:
    """Return a reader whose row ``i`` is row ``rows[i]`` of ``reader``."""
    if hasattr(reader, "take"):
        return cast(Reader, reader.take(rows))
    return lambda row, size: reader(int(rows[row]), size)


def _read_path(path: Path, config: DataConfig, columns: bool) -> Listing:
    """Read a folder or table of the user's own; ``columns`` tells whether one was named."""
    root = path if path.is_dir() else path.parent
    if config.image_dir:
        given = Path(config.image_dir).expanduser()
        root = given if given.is_dir() else root / given
        if not root.is_dir():
            raise InputError(f"image_dir: no such folder: {config.image_dir}")
    sure = config.labels_from == "folders"
    archives = [path] if path.suffix.lower() == ".npz" else []
    # A set of arrays, unless there are images.
    if path.is_dir() and not (sure or sort_files(path)[0]):
        archives = sorted(file for file in path.iterdir() if file.suffix.lower() == ".npz")
    if len(archives) > 1:
        some = ", ".join(file.name for file in archives[:4])
        raise InputError(f"{path}: expected one .npz file, found {some}; give the path of the one")
    table, notes = (path if path.is_file() and not archives else None), list[str]()
    if not (sure or archives or table):
        table, notes = find_table(path, config, images_below=root)
    if (sure and table) or (columns and not table):
        raise InputError(f"{path}: a table or column was named, but no table is read here")
    if archives:
        return read_npz(archives[0])
    if table:
        listing = read_table(table, root=root, rules=config)
        return listing._replace(notes=(*notes, *listing.notes))
    with said_of(str(root)):
        listing = read_folders(root, sure=sure)
    lists = [] if sure else not_used([file.name for file in list_parts(path)])
    return listing._replace(notes=(*listing.notes, *lists))
