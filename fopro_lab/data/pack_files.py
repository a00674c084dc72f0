"""A pack on disk: an array file of numpy, and a note beside it that makes it a pack.

The array holds the readable pictures in the order of their rows. The note says what they are, how
long the file was and when it was written, and holds a checksum a chunk.
"""

import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fopro_lab.data.journal import Chunk
from fopro_lab.errors import WorkError

HEADER = 128  # bytes before the first pixel; numpy pads its header to this for any count
CHUNK = 32  # pictures a checksum, and a task
FORMAT = 1  # of note and journal: raise the number when their meaning changes
HELD = 64 << 20  # bytes; a pack up to this is read into memory, which takes 20 ms


@dataclass(frozen=True)
class Layout:
    """Where each picture lies while a pack is made: a fixed place a row.

    Example:
        >>> layout = Layout(rows=70, size=8)
        >>> layout.chunks, layout.chunk_rows(2), layout.place(1)
        (3, range(64, 70), 320)
    """

    rows: int
    size: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one picture."""
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
    """Return the head of numpy's file of ``count`` pictures.

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
        compact: The unreadable pictures' places have been closed up.

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
    """Return the pictures of an open pack: in memory up to 64 MiB, else as a memory map."""
    shape = (note["rows"], note["size"], note["size"], 3)
    if note["bytes"] > HELD:
        return np.memmap(stream, dtype=np.uint8, mode="r", offset=HEADER, shape=shape)
    stream.seek(HEADER)
    pixels = np.fromfile(stream, dtype=np.uint8).reshape(shape)
    pixels.flags.writeable = False
    return pixels
