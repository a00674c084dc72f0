"""Decode once: all images of a data set in one file of 8-bit pixels, kept in a cache.

And from a config to packed images and their split.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import sys
import time
import zlib
from collections.abc import Generator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fopro_lab.config import DataConfig, Interpolation
from fopro_lab.data.dataset import Dataset, check_rows, open_from, take_rows
from fopro_lab.data.decoding import FileReader, ImageReader, Reader, decoder_version, survey
from fopro_lab.data.published_splits import make_hyperkvasir, make_isic2019_lt, make_monica
from fopro_lab.data.split_rules import Split, make_folds, make_long_tail, make_split
from fopro_lab.errors import InputError, ShapeError, WorkError
from fopro_lab.io import Summary, atomic_path, cache_folder, one_writer, quiet, regular, write_json
from fopro_lab.io import progress as show_progress

if TYPE_CHECKING:
    from torch import Tensor

HEADER = 128  # bytes before the first pixel; numpy pads its header to this for any count
CHUNK = 32  # images decoded by one task
SHORT = 6.0  # seconds; for less, starting other processes takes longer than it saves
SHOWN = 3  # unreadable images in one message


@dataclass(frozen=True, eq=False, repr=False)
class Pack(Summary):
    """All images at one size; row ``i`` is row ``i`` of ``dataset``."""

    _shown = ("images", "size", "dataset", "path")

    images: np.ndarray  # uint8 (N, size, size, 3), RGB, a read-only memory map
    labels: np.ndarray  # int64 (N,)
    size: int  # pixels
    dataset: Dataset  # what was packed, without the images that were left out
    left_out: dict[str, str]  # ids of unreadable images, and the reason
    path: Path | None = None  # None for a pack that was made in memory
    checksums: tuple[int, ...] = ()  # of each MB or so of the file; see `checked`

    def checked(self, rows: np.typing.ArrayLike | None = None) -> np.ndarray:
        """Return the pixels of some rows, or all, each MB compared with its checksum at first use.

        A `WorkError` says that they are not those that were packed.
        """
        if self._unread.any():
            each = _rows_per_checksum(self.size)
            read = np.arange(len(self)) if rows is None else np.asarray(rows)
            chunks = np.unique(read // each)
            for chunk in chunks[self._unread[chunks]].tolist():
                first = chunk * each
                pixels = np.ascontiguousarray(self.images[first : first + each])
                if zlib.crc32(pixels.data) != self.checksums[chunk]:
                    problem = f"pixels of images {first + 1} to {first + each} have changed"
                    way_out = "remove the file and start again, or `fopro data pack --verify`"
                    raise WorkError(f"{self.path}: {problem} since they were packed; {way_out}")
                self._unread[chunk] = False
        return self.images if rows is None else self.images[np.asarray(rows)]

    @cached_property
    def _unread(self) -> np.ndarray:
        return np.ones(len(self.checksums), dtype=bool)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.for_torch()[row]

    def for_torch(self, rows: np.typing.ArrayLike | None = None) -> TorchPack:
        """Return some rows, or all, as a map-style data set that any ``DataLoader`` of torch takes.

        Images are ``(3, H, W)``, float in [0, 1].
        """
        chosen = np.arange(len(self)) if rows is None else rows
        return TorchPack(self, check_rows(chosen, count=len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # Another process is sent the file's name, not the pixels.
        state = dict(self.__dict__)
        if isinstance(getattr(self.images, "base", None), mmap.mmap):  # the whole map, not a part
            state["images"] = str(self.images.filename)  # type: ignore[attr-defined]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["images"], str):
            try:
                state = state | {"images": np.load(state["images"], mmap_mode="r")}
            except (OSError, ValueError):
                raise WorkError(f"{state['images']}: the pack is gone; pack again") from None
        self.__dict__.update(state)


@dataclass(frozen=True, eq=False)
class TorchPack:
    """Some rows of a pack as pairs of image and label; see `Pack.for_torch`."""

    packed: Pack
    rows: np.ndarray

    @property
    def targets(self) -> np.ndarray:
        """Label of each item, ``int64 (n,)``, where samplers look for it."""
        return self.packed.labels[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import torch  # late: packing alone does without it

        row = int(self.rows[index])
        pixels = torch.from_numpy(np.array(self.packed.checked([row])[0]))
        return pixels.permute(2, 0, 1).float() / 255, int(self.packed.labels[row])


def pack(
    dataset: Dataset,
    size: int,
    *,
    interpolation: Interpolation = "bilinear",
    cache: Path | str | None = None,
    jobs: int = 0,
    progress: bool = True,
    leave_out: bool = False,
    verify: bool = False,
    make: bool = True,
) -> Pack:
    """Decode and resize every image once, or open the result of an earlier call.

    The pack is kept under a key of the data set's fingerprint, the files' modification times, the
    decoder, the interpolation (antialiased) and the size. One process packs, others wait for it. A
    pack is written whole or not at all: after a kill it is made again.

    Args:
        dataset: The images.
        size: Side of the square images, pixels, 8 to 2048.
        interpolation: Of the resize.
        cache: Folder of packs; default ``$FOPRO_CACHE``, else ``~/.cache/fopro_lab``.
        jobs: Processes; 0 is one per core, or this one alone if that takes less than 6 s.
        progress: Show progress.
        leave_out: Go on without unreadable images; the pack's rows are those of ``pack.dataset``.
        verify: Compare all pixels with their checksum; a damaged pack is made again.
        make: If False, only open what an earlier call made.

    Raises:
        InputError: If images cannot be read, the first three are named; or there is no pack.
        WorkError: If the disk is full or not writable, or a decoding process was killed.
    """
    if not 8 <= size <= 2048:
        raise InputError(f"size: expected 8 to 2048 pixels, got {size}")
    if jobs < 0:
        raise InputError(f"jobs: expected 0 for one per core or a positive number, got {jobs}")
    if isinstance(dataset.reader, ImageReader):
        reader = replace(dataset.reader, interpolation=interpolation)
        dataset = replace(dataset, reader=reader)
    version = decoder_version(interpolation)
    given = dataset.reader.depth if isinstance(dataset.reader, FileReader) else 0
    version += f" depth {given}" if given else ""
    key = hashlib.sha256(f"{dataset.fingerprint} {dataset.stamp} {version} {size}".encode())
    safe_name = re.sub(r"[^\w.-]", "_", dataset.name)[:80]
    target = cache_folder(cache) / f"{safe_name}-{size}-{key.hexdigest()[:20]}.npy"
    identity = {"fingerprint": dataset.fingerprint, "decoder": version, "size": size}
    found = _open(target, identity, verify=verify)
    if found is None and not make:
        raise InputError(f"{target}: no such pack; `fopro data pack` makes it")
    # Permissions or a network drive may be mended by now.
    if found is None or (not leave_out and found[0]["unreadable"]):
        before = found
        with one_writer(target, talk=progress):
            # Another process may have packed meanwhile.
            found = _open(target, identity, verify=verify)
            if found is None or (before is not None and found[0] == before[0]):
                if found is None and target.exists():
                    problem = "damaged or of an earlier version; it is made again"
                    sys.stderr.write(f"{target}: {problem}\n")
                _write(dataset, target, identity, jobs=jobs, talk=progress)
                found = _open(target, identity, verify=False)
    assert found is not None
    note, images = found
    left_out = {entry["image"]: entry["reason"] for entry in note["unreadable"]}
    if left_out and not leave_out:
        raise _unreadable(dataset, list(left_out.values()))
    if left_out:
        kept = np.delete(np.arange(len(dataset)), [entry["row"] for entry in note["unreadable"]])
        name = f"{dataset.name}-without{len(left_out)}"  # and so in every protocol id
        dataset = replace(dataset.subset(kept), name=name, left_out=len(left_out))
    bits, told = note.get("bit_depth", (16, ""))
    if told and isinstance(dataset.reader, FileReader):
        reader = replace(dataset.reader, depth=bits)
        dataset = replace(dataset, reader=reader, notes=(*dataset.notes, told))
    if lost := note.get("lost", ""):
        dataset = replace(dataset, notes=(*dataset.notes, lost))
    labels = dataset.table["label"].to_numpy(dtype=np.int64)
    return Pack(images, labels, size, dataset, left_out, target, tuple(note["checksums"]))


def _rows_per_checksum(size: int) -> int:
    return max(1, (1 << 20) // (3 * size**2))


def _open(
    target: Path, identity: Mapping[str, Any], *, verify: bool
) -> tuple[dict[str, Any], np.ndarray] | None:
    """Return note and images of a pack, or None if there is none, or it is damaged or another's."""
    try:
        text = regular(target.with_suffix(".json")).read_text(encoding="utf-8")
        note: dict[str, Any] = json.loads(text)
        images = np.load(regular(target), mmap_mode="r")
        sound = note["bytes"] == target.stat().st_size and identity.items() <= note.items()
        sound = sound and len(images) <= len(note["checksums"]) * _rows_per_checksum(note["size"])
        if sound and (not verify or note["checksum"] == zlib.crc32(images)):
            return note, images
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not as it was written
        pass
    return None


def _write(
    dataset: Dataset, target: Path, identity: Mapping[str, Any], *, jobs: int, talk: bool
) -> None:
    """Decode all images into one file, then write the note that makes it a pack."""
    size: int = identity["size"]
    unreadable, crc, checksums, each = [], 0, list[int](), _rows_per_checksum(size)
    reader, bits, depth, lost = dataset.reader, 16, "", ""
    if isinstance(reader, FileReader):  # before the images: all of a set are read alike
        bits, depth, lost = survey(reader.rows, bits=reader.depth)
        reader = replace(reader, depth=bits)
        for line in (lost, depth and f"{depth}; bit_depth=... gives another"):
            if talk and line:
                sys.stderr.write(f"fopro: {line}\n")
    decoded = decode_rows(reader, len(dataset), size, jobs)
    with closing(decoded), atomic_path(target) as part, open(part, "wb") as stream:
        stream.seek(HEADER)
        bar = show_progress(decoded, total=len(dataset), label=f"packing {dataset.name}")
        for row, pixels in enumerate(bar if talk else decoded):
            if isinstance(pixels, str):
                name = dataset.table["image"].iloc[row]
                unreadable.append({"row": row, "image": name, "reason": pixels})
            else:
                stream.write(pixels.data)
                crc = zlib.crc32(pixels.data, crc)
                if (row - len(unreadable)) % each == 0:
                    checksums.append(0)
                checksums[-1] = zlib.crc32(pixels.data, checksums[-1])
        if len(unreadable) == len(dataset):
            raise _unreadable(dataset, [entry["reason"] for entry in unreadable])
        shape = (len(dataset) - len(unreadable), size, size, 3)
        stream.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
    note: dict[str, Any] = {"dataset": dataset.name, **identity, "checksums": checksums}
    note |= {"bytes": target.stat().st_size, "checksum": crc}
    note |= {"bit_depth": (bits, depth), "lost": lost, "unreadable": unreadable}
    write_json(target.with_suffix(".json"), note)


def decode_rows(
    reader: Reader, count: int, size: int, jobs: int
) -> Generator[np.ndarray | str, None, None]:
    """Yield the pixels of each row in order, or why it cannot be read."""
    # Pillow lets go of the interpreter's lock only while it decodes and resizes, so threads gain
    # less. Joblib's processes need no guarded main module, and start from a notebook as well.
    from joblib import Parallel, delayed  # late: opening a pack does without it

    length = max(1, min(CHUNK, (8 << 20) // size**2))
    chunks = [np.arange(count)[start : start + length] for start in range(0, count, length)]
    start = time.monotonic()
    yield from _decode_chunk(take_rows(reader, chunks[0]), len(chunks[0]), size)
    long = (time.monotonic() - start) * (len(chunks) - 1) > SHORT
    run = Parallel(n_jobs=jobs or (-1 if long else 1), batch_size=1, return_as="generator")
    work = delayed(_decode_chunk)
    results = run(work(take_rows(reader, rows), len(rows), size) for rows in chunks[1:])
    try:
        for chunk in results:
            yield from chunk
    except (BrokenProcessPool, MemoryError):
        problem = "decoding: memory was not enough, or a process was killed"
        raise WorkError(f"{problem}; start again with fewer processes") from None
    finally:  # on a full disk: end the processes; that their work is lost needs no warning
        with quiet():
            results.close()


def _decode_chunk(reader: Reader, count: int, size: int) -> list[np.ndarray | str]:
    found: list[np.ndarray | str] = []
    for row in range(count):
        try:
            pixels = np.ascontiguousarray(reader(row, size))
        except InputError as error:
            found.append(str(error))
            continue
        if pixels.shape != (size, size, 3) or pixels.dtype != np.uint8:
            got = f"{pixels.dtype} {pixels.shape}"
            raise ShapeError(f"reader: expected uint8 {(size, size, 3)}, got {got}")
        found.append(pixels)
    return found


def _unreadable(dataset: Dataset, reasons: list[str]) -> InputError:
    shown = "; ".join(reasons[:SHOWN])
    shown += f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    many = f"{len(reasons)} of {len(dataset)} images cannot be read: {shown}"
    way_out = "Replace or remove them, or continue without: unusable=leave-out"
    return InputError(f"{dataset.name}: {many}. {way_out}")


def pixel_fingerprint(packed: Pack) -> str:
    """Identify the pixels of a pack: by the checksum beside its file, else by hashing them."""
    images: Any = packed.images
    mapped = isinstance(getattr(images, "base", None), mmap.mmap)  # the whole map, not a part
    if packed.path is not None and mapped and packed.path.samefile(images.filename):
        sums = hashlib.sha256(repr(packed.checksums).encode()).hexdigest()[:16]
        return f"{packed.path.stem} {sums}"
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


def split_from(dataset: Dataset, config: DataConfig) -> Split:
    """Split a data set by the rule that a config names; raises what the rule's function raises."""
    files = Path(config.split_files).expanduser() if config.split_files else None
    published: dict[str, Any] = {"files": files, "leave_out": config.unusable == "leave-out"}
    sizes = config.model_dump(include={"val_fraction", "val_per_class"})
    sizes |= {"seed": config.split_seed}
    if config.rule == "isic2019-lt":
        return make_isic2019_lt(dataset, ratio=config.tail_ratio, fold=config.fold, **published)
    if config.rule == "monica":
        return make_monica(dataset, **published)
    if config.rule in ("hyperkvasir", "balanced-mixup"):
        sizes |= {"folds": config.folds, "fold": config.fold, **published}
        return make_hyperkvasir(dataset, redraw=config.rule == "balanced-mixup", **sizes)
    if config.rule in ("folds", "folds-long-tail"):
        ratio = config.tail_ratio if config.rule == "folds-long-tail" else None
        return make_folds(dataset, folds=config.folds, fold=config.fold, ratio=ratio, **sizes)
    sizes |= config.model_dump(include={"test_fraction", "test_per_class"})
    if config.rule == "long-tail":
        return make_long_tail(dataset, ratio=config.tail_ratio, **sizes)
    return make_split(dataset, **sizes)


def pack_from(config: DataConfig, **how: Any) -> Pack:
    """Open and pack the data set that a config names; raises what `open_dataset` and `pack` do."""
    how |= {"interpolation": config.interpolation, "leave_out": config.unusable == "leave-out"}
    return pack(open_from(config), config.image_size, **how)


class Prepared(NamedTuple):
    """Packed images and their split; the split's rows are the pack's."""

    packed: Pack
    split: Split


def prepare(config: DataConfig, *, progress: bool = True) -> Prepared:
    """Open, pack and split the data set that a config names.

    Raises what `open_dataset`, `pack` and the function of the split rule do.
    """
    packed = pack_from(config, progress=progress)
    return Prepared(packed, split_from(packed.dataset, config))
