"""Decode once: all images of a data set in one file of 8-bit pixels."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from fopro_lab.config import Interpolation
from fopro_lab.data.dataset import Dataset, take_rows
from fopro_lab.data.decoding import Reader, decoder_version, with_interpolation
from fopro_lab.errors import InputError, ShapeError, WorkError
from fopro_lab.io import UNWRITABLE, atomic_path, write_json
from fopro_lab.io import progress as show_progress

if TYPE_CHECKING:
    from torch import Tensor

    from fopro_lab.data.augment import TorchPack


@dataclass(frozen=True)
class Chunk:
    """Some images in a row that were decoded together.

    Attributes:
        crc: CRC-32 over the pixels of the readable images, in order.
        unreadable: Row numbers of the others, and why.

    Example:
        >>> Chunk.from_mapping(Chunk(7, {3: "cut"}).as_mapping()) == Chunk(7, {3: "cut"})
        True
    """

    crc: int
    unreadable: dict[int, str]

    def as_mapping(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"crc": self.crc, "unreadable": {str(k): v for k, v in self.unreadable.items()}}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Chunk:
        """Build it from what `as_mapping` returned."""
        unreadable = {int(row): str(reason) for row, reason in values["unreadable"].items()}
        return cls(int(values["crc"]), unreadable)


class Journal:
    """The list of finished chunks beside a pack in the making.

    Each line carries its own checksum: what a kill or a power cut tore is not believed, nor what
    follows it. The journal claims, the pixels decide: who reads it compares each chunk with the
    file, so the two need not reach the disk in order.

    Args:
        path: The file, one that exists or shall.
        head: What the chunks belong to; a journal of something else is not read.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "a.journal"
        >>> Journal(path, {"rows": 9}).start({})
        >>> with Journal(path, {"rows": 9}) as journal:
        ...     journal.add(0, Chunk(7, {}))
        >>> Journal(path, {"rows": 9}).read(), Journal(path, {"rows": 8}).read()
        ({0: Chunk(crc=7, unreadable={})}, {})
        >>> folder.cleanup()
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.head = dict(head)

    def read(self) -> dict[int, Chunk]:
        """Return the chunks by number; none if there is no journal of this head."""
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        entries = []
        for line in lines:
            entry = _parse(line)
            if entry is None:
                break
            entries.append(entry)
        if not entries or entries[0] != self.head:
            return {}
        return {int(entry["chunk"]): Chunk.from_mapping(entry) for entry in entries[1:]}

    def start(self, chunks: Mapping[int, Chunk]) -> None:
        """Write the head and the chunks that are kept, in place of what was there."""
        entries = [self.head, *({"chunk": n, **c.as_mapping()} for n, c in chunks.items())]
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(b"".join(map(_line, entries)))

    def add(self, number: int, chunk: Chunk) -> None:
        """Note that a chunk's pixels are written; inside ``with``."""
        self._stream.write(_line({"chunk": number, **chunk.as_mapping()}))
        self._stream.flush()

    def __enter__(self) -> Journal:
        self._stream = open(self.path, "ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()


def _line(entry: Mapping[str, Any]) -> bytes:
    body = json.dumps(entry).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> dict[str, Any] | None:
    check, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(body):
        return None
    entry: dict[str, Any] = json.loads(body)
    return entry


HEADER = 128  # bytes before the first pixel; numpy pads its header to this for any count
CHUNK = 32  # images a checksum, and a task
FORMAT = 1  # of note and journal: raise the number when their meaning changes
HELD = 64 << 20  # bytes; a pack up to this is read into memory, which takes 20 ms


@dataclass(frozen=True)
class Layout:
    """Where each image lies while a pack is made: a fixed place a row.

    Example:
        >>> layout = Layout(rows=70, size=8)
        >>> layout.chunks, layout.chunk_rows(2), layout.place(1)
        (3, range(64, 70), 320)
    """

    rows: int
    size: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return self.size * self.size * 3

    @property
    def chunks(self) -> int:
        """How many chunks there are; the last may be shorter."""
        return -(-self.rows // CHUNK)

    def chunk_rows(self, number: int) -> range:
        """Return the rows of one chunk."""
        return range(number * CHUNK, min((number + 1) * CHUNK, self.rows))

    def place(self, row: int) -> int:
        """Return the offset of a row's first byte."""
        return HEADER + row * self.row_bytes


def array_header(count: int, size: int) -> bytes:
    """Return the head of numpy's file of ``count`` images.

    Example:
        >>> len(array_header(3, 8)) == len(array_header(10**9, 2048)) == HEADER
        True
    """
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def sound_chunks(
    stream: BinaryIO, layout: Layout, chunks: Mapping[int, Chunk], *, compact: bool
) -> Iterator[int]:
    """Compare pixels with their checksums.

    Args:
        stream: The file.
        layout: Of the file.
        chunks: What is claimed of it.
        compact: The unreadable images' places have been closed up.

    Yields:
        Numbers of the chunks whose pixels are the ones that were written.
    """
    place = HEADER
    for number in range(layout.chunks):
        chunk = chunks.get(number)
        if chunk is None:
            continue
        crc = 0
        for row in layout.chunk_rows(number):
            if row in chunk.unreadable:
                continue
            stream.seek(place if compact else layout.place(row))
            crc = zlib.crc32(stream.read(layout.row_bytes), crc)
            place += layout.row_bytes
        if crc == chunk.crc:
            yield number


def note_path(target: Path) -> Path:
    """Return where the note of a pack lies.

    Example:
        >>> note_path(Path("a.npy")).name
        'a.json'
    """
    return target.with_suffix(".json")


def read_note(target: Path) -> dict[str, Any] | None:
    """Return what was noted when the pack was finished, or None if it never was."""
    try:
        note: dict[str, Any] = json.loads(note_path(target).read_text(encoding="utf-8"))
        return note if note["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def noted_chunks(note: Mapping[str, Any]) -> dict[int, Chunk]:
    """Return a note's checksums as the journal's chunks."""
    unreadable: dict[int, dict[int, str]] = {}
    for entry in note["unreadable"]:
        unreadable.setdefault(entry["row"] // CHUNK, {})[entry["row"]] = entry["reason"]
    return {n: Chunk(crc, unreadable.get(n, {})) for n, crc in enumerate(note["checksums"])}


def is_whole(stream: BinaryIO, note: Mapping[str, Any]) -> bool:
    """Read a finished pack from end to end and compare it with its note."""
    layout = Layout(note["rows"] + len(note["unreadable"]), note["size"])
    if os.fstat(stream.fileno()).st_size != note["bytes"]:
        return False
    stream.seek(0)
    if stream.read(HEADER) != array_header(note["rows"], note["size"]):
        return False
    sound = sound_chunks(stream, layout, noted_chunks(note), compact=True)
    return sum(1 for _ in sound) == layout.chunks


def map_pixels(path: Path | str, shape: tuple[int, ...]) -> np.memmap:
    """Map the pixels of a pack into memory, to be read only.

    Raises:
        WorkError: If the file is gone or too short.

    Example:
        >>> map_pixels("nowhere.npy", (1, 8, 8, 3))
        Traceback (most recent call last):
        fopro_lab.errors.WorkError: nowhere.npy: the pack is gone or cut; pack again
    """
    try:
        return np.memmap(path, dtype=np.uint8, mode="r", offset=HEADER, shape=shape)
    except (OSError, ValueError):
        raise WorkError(f"{path}: the pack is gone or cut; pack again") from None


def load_pixels(stream: BinaryIO, note: Mapping[str, Any]) -> np.ndarray:
    """Return the images of an open pack: in memory up to 64 MiB, else as a memory map."""
    shape = (note["rows"], note["size"], note["size"], 3)
    if note["bytes"] > HELD:
        return np.memmap(stream, dtype=np.uint8, mode="r", offset=HEADER, shape=shape)
    stream.seek(HEADER)
    pixels = np.fromfile(stream, dtype=np.uint8).reshape(shape)
    pixels.flags.writeable = False
    return pixels


BUFFER = 1 << 20  # bytes; small images are written together, at half the cost
SHORT = 6.0  # seconds; for less, starting other processes takes longer than it saves


def decode_chunks(
    reader: Reader, part: Path, *, layout: Layout, numbers: Sequence[int], jobs: int
) -> Iterator[tuple[int, Chunk]]:
    """Write the pixels of some chunks to their places in a file.

    Processes write into the file themselves: no pixel goes through a pipe.

    Args:
        reader: Of all rows.
        part: The file, which exists.
        layout: Places in it.
        numbers: The chunks.
        jobs: Processes; 0 is one a core, or this one alone if that takes less than 6 s.

    Yields:
        Number and checksum of each chunk, once its pixels are written; in any order.

    Raises:
        ShapeError: If the reader returns anything but ``uint8 (size, size, 3)``.
        OSError: If the disk is full.
    """
    calls: Iterable[tuple[Reader, Path, Layout, int]] = (
        (take_rows(reader, np.array(layout.chunk_rows(number))), part, layout, number)
        for number in numbers
    )
    calls = iter(calls)
    if jobs < 2 or len(numbers) < 2:
        start = time.monotonic()
        for first in calls:
            yield _decode_chunk(*first)
            break
        seconds = (time.monotonic() - start) * (len(numbers) - 1)
        if jobs == 1 or len(numbers) < 2 or seconds < SHORT:
            for call in calls:
                yield _decode_chunk(*call)
            return
    # Pillow lets go of the interpreter's lock only while it decodes and resizes, so threads gain
    # less. Joblib's processes need no guarded main module, and start from a notebook as well.
    from joblib import Parallel, delayed  # late: opening a pack does without it

    tasks = (delayed(_decode_chunk)(*call, owner=os.getpid()) for call in calls)
    with Parallel(n_jobs=jobs or -1, batch_size=1, return_as="generator_unordered") as parallel:
        results = parallel(tasks)
        try:
            for result in results:  # noqa: UP028, closing is to be silent
                yield result
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that work was thrown away: it is meant
                results.close()  # ends the processes


def _decode_chunk(
    reader: Reader, part: Path, layout: Layout, number: int, *, owner: int = 0
) -> tuple[int, Chunk]:
    crc = 0
    unreadable: dict[int, str] = {}
    shape = (layout.size, layout.size, 3)
    with open(part, "rb+", buffering=BUFFER) as stream:
        place = 0
        for index, row in enumerate(layout.chunk_rows(number)):
            try:
                pixels = np.ascontiguousarray(reader(index, layout.size))
            except InputError as error:
                unreadable[row] = str(error)
                continue
            if pixels.shape != shape or pixels.dtype != np.uint8:
                raise ShapeError(
                    f"reader: expected uint8 {shape}, got {pixels.dtype} {pixels.shape}"
                )
            if owner and os.getppid() != owner:  # killed; another may be packing by now
                os._exit(1)
            if place != layout.place(row):  # at first, and after a gap; seeking empties the buffer
                stream.seek(layout.place(row))
            stream.write(pixels.data)
            place = layout.place(row + 1)
            crc = zlib.crc32(pixels.data, crc)
    return number, Chunk(crc, unreadable)


def write_pack(
    dataset: Dataset, size: int, target: Path, *, facts: Mapping[str, Any], jobs: int, tell: bool
) -> dict[int, str]:
    """Decode what is not there yet, close the file, and write the note that makes it a pack.

    Pixels go to ``.part`` and, after each chunk, a line to ``.journal``. After a kill at any
    moment or a full disk the next call goes on; the bytes are the same in the end. After a loss
    of power as well: what is taken over is compared with its checksum before, and a finished
    pack is on the disk before its note. The caller holds the lock.

    Args:
        dataset: The images.
        size: Side, pixels.
        target: Where the pack shall be.
        facts: What the note shall say besides.
        jobs: Processes, as of `decode_chunks`.
        tell: Say how far it is.

    Returns:
        Unreadable rows and why. If no row is readable, no pack is made.

    Raises:
        WorkError: If the disk is full or may not be written, or a process that decodes was killed.
    """
    part, layout = target.with_suffix(".part"), Layout(len(dataset), size)
    head = {"format": FORMAT, "rows": layout.rows, "size": size, "chunk": CHUNK}
    journal = Journal(target.with_suffix(".journal"), head)
    try:
        _reopen(target, part, journal)
        part.touch()
        with open(part, "rb") as stream:
            chunks = journal.read()
            sound = list(sound_chunks(stream, layout, chunks, compact=False))
        chunks = {number: chunks[number] for number in sound}
        _check_space(part, layout)
        journal.start(chunks)
        if tell and chunks:
            sys.stderr.write(f"{target.name}: {len(chunks)} of {layout.chunks} chunks are there\n")
        # Closed at once on an error: no process may write when the lock is given back.
        decoded = _decode(dataset, part, layout, chunks, jobs=jobs, tell=tell)
        with journal, closing(decoded):
            for number, chunk in decoded:
                journal.add(number, chunk)
                chunks[number] = chunk
        unreadable = {r: why for n in sorted(chunks) for r, why in chunks[n].unreadable.items()}
        if len(unreadable) < layout.rows:
            _close_up(part, layout, unreadable)
            os.replace(part, target)
            _write_note(dataset, target, layout, chunks, facts)
        part.unlink(missing_ok=True)
        journal.path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError(
                f"{target}: the disk is full; free some space and start again, "
                "what is packed so far is kept"
            ) from None
        if error.errno in UNWRITABLE:
            raise WorkError(f"{target}: may not be written; choose another folder") from None
        raise
    except (BrokenProcessPool, MemoryError):
        raise WorkError(
            f"{target}: the memory was not enough, or a process was killed; "
            "start again with fewer processes, what is packed so far is kept"
        ) from None
    return unreadable


def _reopen(target: Path, part: Path, journal: Journal) -> None:
    """Make a finished file without a valid note, or one that is damaged, a part again."""
    note = read_note(target)
    if target.exists() and not part.exists():
        if note is not None and not note["unreadable"]:  # each image still has its place
            journal.start(noted_chunks(note))
        note_path(target).unlink(missing_ok=True)
        if journal.path.exists():
            os.replace(target, part)
    note_path(target).unlink(missing_ok=True)
    target.unlink(missing_ok=True)


def _check_space(part: Path, layout: Layout) -> None:
    """Refuse before the first image what cannot be finished."""
    there = part.stat()
    used = getattr(there, "st_blocks", there.st_size // 512) * 512  # a part may have holes
    needed = layout.place(layout.rows) - used
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise WorkError(
            f"{part.parent}: expected {needed / 1e9:.2f} GB of free space for the pack, got "
            f"{free / 1e9:.2f} GB; free some, or set FOPRO_CACHE to a folder on another disk"
        )


def _decode(
    dataset: Dataset,
    part: Path,
    layout: Layout,
    done: Mapping[int, Chunk],
    *,
    jobs: int,
    tell: bool,
) -> Generator[tuple[int, Chunk], None, None]:
    missing = [number for number in range(layout.chunks) if number not in done]
    results = decode_chunks(dataset.reader, part, layout=layout, numbers=missing, jobs=jobs)
    if not tell:
        yield from results
        return
    # The bar counts images. A chunk goes on, to the journal, before it is counted.
    count = sum(len(layout.chunk_rows(number)) for number in missing)
    images = (
        (number, chunk) if index == 0 else None
        for number, chunk in results
        for index in range(len(layout.chunk_rows(number)))
    )
    for result in show_progress(images, total=count, label=f"packing {dataset.name}"):
        if result is not None:
            yield result


def _close_up(part: Path, layout: Layout, unreadable: Mapping[int, str]) -> None:
    """Move images up to where unreadable ones left gaps, and put the header before them.

    If this is stopped in the middle, the chunks that were moved no longer match their checksums
    and are decoded again.
    """
    kept = [row for row in range(layout.rows) if row not in unreadable]
    with open(part, "rb+") as stream:
        for index, row in enumerate(kept):
            if index != row:
                stream.seek(layout.place(row))
                pixels = stream.read(layout.row_bytes)
                stream.seek(layout.place(index))
                stream.write(pixels)
        stream.seek(0)
        stream.write(array_header(len(kept), layout.size))
        stream.truncate(HEADER + len(kept) * layout.row_bytes)
        stream.flush()
        os.fsync(stream.fileno())


def _write_note(
    dataset: Dataset,
    target: Path,
    layout: Layout,
    chunks: Mapping[int, Chunk],
    facts: Mapping[str, Any],
) -> None:
    images = dataset.table["image"]
    unreadable = [
        {"row": row, "image": images.iloc[row], "reason": reason}
        for number in sorted(chunks)
        for row, reason in chunks[number].unreadable.items()
    ]
    written = target.stat()
    note = {
        "format": FORMAT,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        **facts,
        "size": layout.size,
        "rows": layout.rows - len(unreadable),
        "bytes": written.st_size,
        "mtime_ns": written.st_mtime_ns,
        "unreadable": unreadable,
        "checksums": [chunks[number].crc for number in range(layout.chunks)],
    }
    write_json(note_path(target), note)


class _Mapped(NamedTuple):
    """A memory map on its way to another process: the file's name instead of its pixels."""

    path: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pack:
    """All images at one size; row ``i`` is row ``i`` of ``dataset``.

    Up to 64 MiB the images are held in memory; above, they are a memory map, of which the
    system holds as much as there is room for, so that a set larger than memory works. Another
    process gets a map's file name and maps it again, and a copy of images held in memory.

    Attributes:
        images: ``uint8 (N, size, size, 3)``, RGB, read-only.
        labels: ``int64 (N,)``.
        size: Side, pixels.
        dataset: What was packed, without the images that were left out.
        left_out: Ids of unreadable images and the reason, empty unless asked for.
        path: The file, or None for a pack that was made in memory.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> image, label = packed[0]
        >>> len(packed), image.shape, label
        (24, torch.Size([3, 16, 16]), 0)
    """

    images: np.ndarray
    labels: np.ndarray
    size: int
    dataset: Dataset
    left_out: dict[str, str]
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        import torch  # late: packing alone does without it

        pixels = torch.from_numpy(self.images[row].copy())
        return pixels.permute(2, 0, 1).float() / 255, int(self.labels[row])

    def for_torch(
        self,
        rows: np.typing.ArrayLike | None = None,
        *,
        transform: Callable[[Tensor], Any] | None = None,
        pixels: Literal["float", "uint8"] = "float",
    ) -> TorchPack:
        """Return some rows as a ``torch.utils.data.Dataset``, for anybody's loop.

        Args:
            rows: Row numbers, for example ``split.train``; None is all.
            transform: Applied to each image, a tensor ``(3, H, W)``.
            pixels: ``float`` in [0, 1], or ``uint8`` as stored.

        Returns:
            A map-style data set of ``(image, label)``; any ``DataLoader`` takes it.

        Raises:
            InputError: If the rows are not row numbers of the pack.

        Example:
            >>> from fopro_lab.data import open_dataset, pack
            >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
            >>> len(packed.for_torch([3, 5, 8]))
            3
        """
        from fopro_lab.data.augment import TorchPack

        return TorchPack(self, rows, transform=transform, pixels=pixels)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if isinstance(getattr(self.images, "base", None), mmap.mmap):  # whole, no part of a map
            state["images"] = _Mapped(str(self.images.filename), self.images.shape)  # type: ignore[attr-defined]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["images"], _Mapped):
            state = state | {"images": map_pixels(*state["images"])}
        self.__dict__.update(state)


SHOWN = 20  # damaged files in one message


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
) -> Pack:
    """Decode and resize every image once, or open the result of an earlier time.

    The pack is kept under a key of the data set's fingerprint, the files' times of change, the
    decoder, the interpolation and the size. One process packs, others wait for it; one that is
    stopped, even by a kill, is gone on with. A pack whose file has another length or time than
    was noted is compared with its checksums first; what does not match is decoded again.

    Args:
        dataset: The images.
        size: Side of the square images, pixels, 8 to 2048.
        interpolation: Of the resize: box, bilinear, bicubic or lanczos, antialiased.
        cache: Folder of packs; default ``$FOPRO_CACHE``, else ``~/.cache/fopro_lab``.
        jobs: Processes; 0 is one a core, or this one alone if that takes less than 6 s.
        progress: Say how far it is.
        leave_out: Go on without unreadable images and record them.
        verify: Compare the whole pack with its checksums.

    Returns:
        The pack. With ``leave_out``, split ``pack.dataset``, whose rows are the pack's.

    Raises:
        InputError: If images cannot be read: all of them in one message.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> pack(open_dataset("phantom", images=24), 16, progress=False).images.shape
        (24, 16, 16, 3)
    """
    if not 8 <= size <= 2048:
        raise InputError(f"size: expected 8 to 2048 pixels, got {size}")
    if jobs < 0:
        raise InputError(f"jobs: expected 0 for one a core or a positive number, got {jobs}")
    decoder_version(interpolation)  # refuses unknown names
    reader = with_interpolation(dataset.reader, interpolation)
    dataset = replace(dataset, reader=reader)
    version = decoder_version(getattr(reader, "interpolation", interpolation))
    safe_name = re.sub(r"[^\w.-]", "_", dataset.name)[:80]
    target = cache_folder(cache) / f"{safe_name}-{size}-{_key(dataset, size, version)}.npy"
    found = _open(target, verify=verify)
    stale = None
    if found is not None and not leave_out and _readable_again(dataset, size, found[0]):
        stale, found = found[0], None
    if found is None:
        with _locked(target, tell=progress):
            if stale is not None and read_note(target) == stale:
                target.unlink(missing_ok=True)
            found = _open(target, verify=verify)  # another process may have packed meanwhile
            if found is None:
                found = _make(dataset, size, target, version, jobs=jobs, tell=progress)
    note, images = found
    left_out = {entry["image"]: entry["reason"] for entry in note["unreadable"]}
    if left_out and not leave_out:
        raise _unreadable(dataset, list(left_out.values()))
    if left_out:
        kept = np.setdiff1d(np.arange(len(dataset)), [entry["row"] for entry in note["unreadable"]])
        dataset = dataset.subset(kept).without(len(left_out))
    labels = dataset.table["label"].to_numpy(dtype=np.int64)
    return Pack(images, labels, size, dataset, left_out, target)


def cache_folder(cache: Path | str | None = None) -> Path:
    """Return the folder of packs: as given, else ``$FOPRO_CACHE``, else ``~/.cache/fopro_lab``.

    Example:
        >>> cache_folder("/tmp/packs").name
        'packs'
    """
    chosen = cache or os.environ.get("FOPRO_CACHE") or "~/.cache/fopro_lab"
    return Path(chosen).expanduser()


def _key(dataset: Dataset, size: int, version: str) -> str:
    facts = f"{dataset.fingerprint} {dataset.stamp} {version} {size}"
    return hashlib.sha256(facts.encode()).hexdigest()[:20]


def _open(target: Path, *, verify: bool = False) -> tuple[dict[str, Any], np.ndarray] | None:
    """Return note and images of a whole pack, or None if it must be made or mended.

    The file that is looked at is the file that is read, even if another process replaces it.
    """
    note = read_note(target)
    if note is None:
        return None
    try:
        with open(target, "rb") as stream:
            facts = os.fstat(stream.fileno())
            noted = (facts.st_size, facts.st_mtime_ns) == (note["bytes"], note["mtime_ns"])
            if not noted or verify:
                if not is_whole(stream, note):
                    return None
                if not noted:  # copied or touched: remember that it was compared
                    note["mtime_ns"] = facts.st_mtime_ns
                    with contextlib.suppress(WorkError, OSError):  # may only be read, or is in use
                        write_json(note_path(target), note)
            return note, load_pixels(stream, note)
    except FileNotFoundError:
        return None


def _make(
    dataset: Dataset, size: int, target: Path, version: str, *, jobs: int, tell: bool
) -> tuple[dict[str, Any], np.ndarray]:
    """Write the pack, or mend it; the lock is held."""
    if target.exists() and read_note(target) is not None:
        sys.stderr.write(f"{target}: damaged; what does not match its checksum is decoded again\n")
    facts = {"decoder": version}
    unreadable = write_pack(dataset, size, target, facts=facts, jobs=jobs, tell=tell)
    found = _open(target)
    if found is None:  # not one could be read
        raise _unreadable(dataset, list(unreadable.values()))
    return found


def _readable_again(dataset: Dataset, size: int, note: dict[str, Any]) -> bool:
    """Try images that could not be read: rights or a network drive may be mended by now."""
    for entry in note["unreadable"]:
        with contextlib.suppress(InputError):
            dataset.read(entry["row"], size)
            return True
    return False


def _unreadable(dataset: Dataset, reasons: list[str]) -> InputError:
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return InputError(
        f"{dataset.name}: {len(reasons)} of {len(dataset)} images cannot be read: "
        f"{'; '.join(reasons[:SHOWN])}{more}. Replace or remove them, or go on without: "
        "unusable=leave-out"
    )


@contextmanager
def _locked(target: Path, *, tell: bool) -> Iterator[None]:
    """Hold the right to write ``target``; clear away notes that a killed process began."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_suffix(".lock"))
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if tell:
                sys.stderr.write(f"{target.name}: another process is packing, waiting for it\n")
            lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(f"{target.parent}: cannot be used as cache ({reason})") from None
    try:
        for stale in target.parent.glob(f".{target.stem}.*.part"):
            stale.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
