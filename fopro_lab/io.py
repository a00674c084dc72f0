"""Progress of long work: a bar in a terminal, a plain line now and then elsewhere."""

import errno
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from fopro_lab.errors import WorkError

# No right to write there; or a file stands where a folder is meant, or the other way round.
UNWRITABLE = (
    *(errno.EACCES, errno.EROFS, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends without an error.

    The temporary file lies in the target's folder, is flushed to disk and then renamed, so a
    reader sees the old file or the new one and never a part. On an error it is removed.

    Args:
        path: Where the finished file shall be. Missing parent folders are made.

    Yields:
        The path to write to.

    Raises:
        WorkError: If the disk is full or may not be written; nothing is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError(f"{path}: the disk is full; free some space and start again") from error
        if error.errno in UNWRITABLE:
            raise WorkError(f"{path}: may not be written; choose another folder") from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically.

    Args:
        path: Target file.
        content: Anything that ``json`` can write; NaN is refused, since JSON has none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"n": 1})
        ...     json.loads((Path(folder) / "a.json").read_text())
        {'n': 1}
    """
    text = json.dumps(content, indent=2, allow_nan=False, default=str)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as empty:
        ...     sha256_file(empty.name)[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


Item = TypeVar("Item")

QUIET_SECONDS = 5.0  # work shorter than this writes no line at all
LINE_SECONDS = 15.0  # an executed notebook or a log gets at most one line in this time


def progress(iterable: Iterable[Item], *, total: int, label: str) -> Iterator[Item]:
    """Yield the items of ``iterable`` and say on standard error how far it is.

    A terminal gets a bar. A log, a pipe or a notebook, where a bar freezes or fills the page,
    gets a plain line after 5 seconds, then one every 15 seconds, and one at the end.

    Args:
        iterable: The work, item by item.
        total: Number of items.
        label: What is being done, e.g. ``"packing ham10000"``.

    Yields:
        The items, in order.

    Example:
        >>> list(progress("abc", total=3, label="reading"))
        ['a', 'b', 'c']
    """
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=label, file=sys.stderr)
        return
    start = time.monotonic()
    due = start + QUIET_SECONDS
    done = 0
    for done, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        if now >= due and done < total:
            left = (now - start) / done * (total - done)
            guess = f", about {left:.0f} s left" if done > total / 50 else ""
            _write_line(f"{label}: {done} of {total}{guess}")
            due = now + LINE_SECONDS
    seconds = time.monotonic() - start
    if seconds >= QUIET_SECONDS:
        _write_line(f"{label}: {done} of {total} in {seconds:.0f} s")


def byte_progress(blocks: Iterable[bytes], *, done: int, total: int, label: str) -> Iterator[bytes]:
    """Yield blocks of a download and say how much is here, as `progress` does for items.

    Args:
        blocks: What comes in.
        done: Bytes that were here before.
        total: Bytes of the whole; 0 where unknown.
        label: What is being done, e.g. ``"fetching a.zip"``.

    Yields:
        The blocks, in order.

    Example:
        >>> list(byte_progress([b"ab", b"c"], done=0, total=3, label="fetching"))
        [b'ab', b'c']
    """
    if sys.stderr.isatty():
        with tqdm(
            total=total or None,
            initial=done,
            desc=label,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
        ) as bar:
            for block in blocks:
                yield block
                bar.update(len(block))
        return
    start, first = time.monotonic(), done
    due = start + QUIET_SECONDS
    for block in blocks:
        yield block
        done += len(block)
        now = time.monotonic()
        if now >= due:
            rate = (done - first) / (now - start)
            left = f", about {(total - done) / rate:.0f} s left" if total and rate else ""
            whole = f" of {in_bytes(total)}" if total else ""
            _write_line(f"{label}: {in_bytes(done)}{whole}, {in_bytes(rate)}/s{left}")
            due = now + LINE_SECONDS


def in_bytes(count: float) -> str:
    """Write a number of bytes for people.

    Example:
        >>> in_bytes(950), in_bytes(9_771_618_190)
        ('950 B', '9.8 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _write_line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
