"""Make a pack, or go on with one: after a kill, a full disk, or damage to a finished one."""

import errno
import os
import shutil
import sys
from collections.abc import Generator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.decode_chunks import decode_chunks
from fopro_lab.data.journal import Chunk, Journal
from fopro_lab.data.pack_files import (
    CHUNK,
    FORMAT,
    HEADER,
    Layout,
    array_header,
    note_path,
    noted_chunks,
    read_note,
    sound_chunks,
)
from fopro_lab.errors import WorkError
from fopro_lab.files import UNWRITABLE, write_json
from fopro_lab.progress import progress as show_progress


def write_pack(
    dataset: Dataset, size: int, target: Path, *, facts: Mapping[str, Any], jobs: int, tell: bool
) -> dict[int, str]:
    """Decode what is not there yet, close the file, and write the note that makes it a pack.

    Pixels go to ``.part`` and, after each chunk, a line to ``.journal``. After a kill at any
    moment or a full disk the next call goes on; the bytes are the same in the end. After a loss
    of power as well: what is taken over is compared with its checksum before, and a finished
    pack is on the disk before its note. The caller holds the lock.

    Args:
        dataset: The pictures.
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
        if note is not None and not note["unreadable"]:  # each picture still has its place
            journal.start(noted_chunks(note))
        note_path(target).unlink(missing_ok=True)
        if journal.path.exists():
            os.replace(target, part)
    note_path(target).unlink(missing_ok=True)
    target.unlink(missing_ok=True)


def _check_space(part: Path, layout: Layout) -> None:
    """Refuse before the first picture what cannot be finished."""
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
    # The bar counts pictures. A chunk goes on, to the journal, before it is counted.
    count = sum(len(layout.chunk_rows(number)) for number in missing)
    pictures = (
        (number, chunk) if index == 0 else None
        for number, chunk in results
        for index in range(len(layout.chunk_rows(number)))
    )
    for result in show_progress(pictures, total=count, label=f"packing {dataset.name}"):
        if result is not None:
            yield result


def _close_up(part: Path, layout: Layout, unreadable: Mapping[int, str]) -> None:
    """Move pictures up to where unreadable ones left gaps, and put the header before them.

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
