"""Decode chunk by chunk into a pack in the making, alone or on all cores."""

import os
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fopro_lab.data.catalog import take_rows
from fopro_lab.data.decoding import Reader
from fopro_lab.data.journal import Chunk
from fopro_lab.data.pack_files import Layout
from fopro_lab.errors import InputError, ShapeError

BUFFER = 1 << 20  # bytes; small pictures are written together, at half the cost
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
