"""Decode once: all pictures of a data set in one file of 8-bit pixels."""

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from fopro_lab.config import Decoder, Interpolation
from fopro_lab.data.catalog import Dataset
from fopro_lab.data.decoding import decoder_version, with_rules
from fopro_lab.data.pack_files import is_whole, load_pixels, note_path, read_note
from fopro_lab.data.pack_writing import write_pack
from fopro_lab.data.packed import Pack
from fopro_lab.errors import InputError, WorkError
from fopro_lab.files import write_json

SHOWN = 20  # damaged files in one message

__all__ = ["Pack", "cache_folder", "pack"]


def pack(
    dataset: Dataset,
    size: int,
    *,
    decoder: Decoder = "exact",
    interpolation: Interpolation = "bilinear",
    cache: Path | str | None = None,
    jobs: int = 0,
    progress: bool = True,
    leave_out: bool = False,
    verify: bool = False,
) -> Pack:
    """Decode and resize every picture once, or open the result of an earlier time.

    The pack is kept under a key of the data set's fingerprint, the files' times of change, the
    decoder, the interpolation and the size. One process packs, others wait for it; one that is
    stopped, even by a kill, is gone on with. A pack whose file has another length or time than
    was noted is compared with its checksums first; what does not match is decoded again.

    Args:
        dataset: The pictures.
        size: Side of the square pictures, pixels, 8 to 2048.
        decoder: ``exact`` as PIL, or ``draft``: JPEGs shrunk while decoding, see `read_picture`.
        interpolation: Of the resize: box, bilinear, bicubic or lanczos, antialiased.
        cache: Folder of packs; default ``$FOPRO_CACHE``, else ``~/.cache/fopro_lab``.
        jobs: Processes; 0 is one a core, or this one alone if that takes less than 6 s.
        progress: Say how far it is.
        leave_out: Go on without unreadable pictures and record them.
        verify: Compare the whole pack with its checksums.

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
    decoder_version(decoder, interpolation)  # refuses unknown names
    reader = with_rules(dataset.reader, decoder=decoder, interpolation=interpolation)
    dataset = replace(dataset, reader=reader)
    version = decoder_version(
        getattr(reader, "decoder", "exact"), getattr(reader, "interpolation", interpolation)
    )
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
    """Return note and pictures of a whole pack, or None if it must be made or mended.

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
    """Try pictures that could not be read: rights or a network drive may be mended by now."""
    for entry in note["unreadable"]:
        with contextlib.suppress(InputError):
            dataset.read(entry["row"], size)
            return True
    return False


def _unreadable(dataset: Dataset, reasons: list[str]) -> InputError:
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return InputError(
        f"{dataset.name}: {len(reasons)} of {len(dataset)} pictures cannot be read: "
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
