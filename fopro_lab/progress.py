"""Progress of long work: a bar in a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

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
