"""Decode once: all pictures of a data set in one memory map of 8-bit pixels."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from fopro_lab.data.catalog import Dataset, Reader, take_rows
from fopro_lab.data.decoding import decoder_version
from fopro_lab.errors import InputError, WorkError
from fopro_lab.files import atomic_path, write_json
from fopro_lab.progress import progress as show_progress

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 32  # pictures a task
SHORT = 20.0  # seconds; for less, starting other processes takes longer than it saves
SHOWN = 20  # damaged files in one message


@dataclass(frozen=True, eq=False)
class Pack:
    """All pictures at one size; row ``i`` is row ``i`` of ``dataset``.

    It is a map-style data set for ``torch.utils.data.DataLoader`` too.

    Attributes:
        images: ``uint8 (N, size, size, 3)``, RGB, a read-only memory map.
        labels: ``int64 (N,)``.
        size: Side, pixels.
        dataset: What was packed, without the pictures that were left out.
        left_out: Ids of unreadable pictures and the reason, empty unless asked for.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> image, label = packed[0]
        >>> len(packed), image.shape, label
        (24, torch.Size([3, 16, 16]), 0)
    """

    images: np.ndarray
    labels: np.ndarray
    size: int
    dataset: Dataset
    left_out: dict[str, str]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        import torch  # late: packing alone does without it

        pixels = torch.from_numpy(self.images[row].copy())
        return pixels.permute(2, 0, 1).float() / 255, int(self.labels[row])


def pack(
    dataset: Dataset,
    size: int,
    *,
    cache: Path | str | None = None,
    jobs: int = 0,
    progress: bool = True,
    leave_out: bool = False,
) -> Pack:
    """Decode and resize every picture once, or open the result of an earlier time.

    The pack is kept under a key of the data set's fingerprint, the files' times of change, the
    decoder's version and the size. One process packs, others wait for it; one that is stopped
    leaves nothing that looks like a pack.

    Args:
        dataset: The pictures.
        size: Side of the square pictures, pixels, 8 to 2048.
        cache: Folder of packs; default ``$FOPRO_CACHE``, else ``~/.cache/fopro_lab``.
        jobs: Processes; 0 is one a core, or this one alone if that takes less than 20 s.
        progress: Say how far it is.
        leave_out: Go on without unreadable pictures and record them.

    Returns:
        The pack. With ``leave_out``, split ``pack.dataset``, whose rows are the pack's.

    Raises:
        InputError: If pictures cannot be read: all of them in one message.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> pack(open_dataset("phantom", pictures=24), 16, progress=False).images.shape
        (24, 16, 16, 3)
    """
    if not 8 <= size <= 2048:
        raise InputError(f"size: expected 8 to 2048 pixels, got {size}")
    if jobs < 0:
        raise InputError(f"jobs: expected 0 for one a core or a positive number, got {jobs}")
    folder = cache_folder(cache)
    safe_name = re.sub(r"[^\w.-]", "_", dataset.name)
    target = folder / f"{safe_name}-{size}-{_key(dataset, size)}.npy"
    note = _read_note(target, size)
    if note is None:
        with _locked(target, tell=progress):
            note = _read_note(target, size)  # another process may have packed meanwhile
            if note is None:
                note = _write(dataset, size, target, jobs=jobs, tell=progress)
    left_out: dict[str, str] = note["left_out"]
    if left_out and not leave_out:
        raise _unreadable(dataset, left_out)
    if left_out:
        kept = ~dataset.table["image"].isin(left_out.keys()).to_numpy()
        dataset = dataset.subset(np.flatnonzero(kept))
    labels = dataset.table["label"].to_numpy(dtype=np.int64)
    return Pack(np.load(target, mmap_mode="r"), labels, size, dataset, left_out)


def cache_folder(cache: Path | str | None = None) -> Path:
    """Return the folder of packs: as given, else ``$FOPRO_CACHE``, else ``~/.cache/fopro_lab``.

    Example:
        >>> cache_folder("/tmp/packs").name
        'packs'
    """
    chosen = cache or os.environ.get("FOPRO_CACHE") or "~/.cache/fopro_lab"
    return Path(chosen).expanduser()


def _key(dataset: Dataset, size: int) -> str:
    digest = hashlib.sha256(f"{dataset.fingerprint} {decoder_version()} {size}".encode())
    for path in filter(None, dataset.table["path"]):
        try:
            digest.update(str(os.stat(path).st_mtime_ns).encode())
        except OSError:
            digest.update(b"gone")  # reading it gives the message
    return digest.hexdigest()[:20]


def _read_note(target: Path, size: int) -> dict[str, Any] | None:
    """Return what was noted when the pack was finished, or None if there is no whole pack."""
    try:
        note: dict[str, Any] = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        whole = target.stat().st_size == note["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    return note if whole else None


def _write(dataset: Dataset, size: int, target: Path, *, jobs: int, tell: bool) -> dict[str, Any]:
    """Write the pixels, then the note that makes them a pack."""
    left_out: dict[str, str] = {}
    results: Iterable[np.ndarray | str] = _read_all(dataset, size, jobs)
    if tell:
        results = show_progress(results, total=len(dataset), label=f"packing {dataset.name}")
    with atomic_path(target) as temporary, open(temporary, "wb") as stream:
        _write_header(stream, len(dataset), size)
        for image, result in zip(dataset.table["image"], results, strict=True):
            if isinstance(result, str):
                left_out[image] = result
            else:
                stream.write(result.tobytes())
        if len(left_out) == len(dataset):
            raise _unreadable(dataset, left_out)
        total = stream.tell()
        stream.seek(0)
        _write_header(stream, len(dataset) - len(left_out), size)
    note = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "decoder": decoder_version(),
        "size": size,
        "bytes": total,
        "left_out": left_out,
    }
    write_json(target.with_suffix(".json"), note)
    return note


def _write_header(stream: BinaryIO, count: int, size: int) -> None:
    """Write numpy's header; it has the same length for any count, so that it can be replaced."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(stream, header)


def _read_all(dataset: Dataset, size: int, jobs: int) -> Iterator[np.ndarray | str]:
    """Yield the pixels of each row in order, or the reason why there are none."""
    chunks = (
        np.arange(start, min(start + CHUNK, len(dataset)))
        for start in range(0, len(dataset), CHUNK)
    )
    start = time.monotonic()
    first = next(chunks, np.arange(0))
    yield from _read_rows(dataset.reader, first, size)
    seconds = (time.monotonic() - start) * (len(dataset) / max(len(first), 1) - 1)
    if jobs == 1 or (jobs == 0 and seconds < SHORT):
        for rows in chunks:
            yield from _read_rows(dataset.reader, rows, size)
        return
    # Pillow holds the interpreter's lock while it decodes, so threads gain nothing. Joblib's
    # processes need no guarded main module, and start from a notebook's kernel as well.
    from joblib import Parallel, delayed  # late: opening a pack does without it

    calls = (
        delayed(_read_rows)(take_rows(dataset.reader, rows), np.arange(len(rows)), size)
        for rows in chunks
    )
    with Parallel(n_jobs=jobs or -1, return_as="generator") as parallel:
        for results in parallel(calls):
            yield from results


def _read_rows(reader: Reader, rows: np.ndarray, size: int) -> list[np.ndarray | str]:
    results: list[np.ndarray | str] = []
    for row in rows:
        try:
            results.append(reader(int(row), size))
        except InputError as error:
            results.append(str(error))
    return results


def _unreadable(dataset: Dataset, left_out: dict[str, str]) -> InputError:
    reasons = list(left_out.values())
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return InputError(
        f"{dataset.name}: {len(reasons)} of {len(dataset)} pictures cannot be read: "
        f"{'; '.join(reasons[:SHOWN])}{more}. Replace or remove them"
    )


@contextmanager
def _locked(target: Path, *, tell: bool) -> Iterator[None]:
    """Hold the right to write ``target``; clear away what a killed process left."""
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
        for stale in target.parent.glob(f".{target.name}.*.part"):
            stale.unlink()
        yield
    finally:
        lock.release()
