"""Room on the disk: asked for before the work, and one line when it runs out."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fopro_lab.errors import WorkError
from fopro_lab.files import UNWRITABLE
from fopro_lab.progress import in_bytes

SPARE = 50_000_000  # bytes that stay free


def check_disk(folder: Path, need: int, *, label: str) -> None:
    """Refuse work that would fill the disk.

    Args:
        folder: Where it shall lie; it must exist.
        need: Bytes.
        label: What it is for.

    Raises:
        WorkError: With what is needed and what is there.

    Example:
        >>> check_disk(Path("."), 10**18, label="a.zip")
        Traceback (most recent call last):
        fopro_lab.errors.WorkError: a.zip: needs 1000000000.0 GB of disk, ...
    """
    free = shutil.disk_usage(folder).free
    if need + SPARE > free:
        raise WorkError(
            f"{label}: needs {in_bytes(need)} of disk, {in_bytes(free)} are free in {folder}; "
            "free some space or choose another folder with --out"
        )


@contextmanager
def disk_told(folder: Path, *, kept: Callable[[], str]) -> Iterator[None]:
    """Say in one line that the disk is full or may not be written.

    Args:
        folder: What is written to.
        kept: Gives the line's end: what is kept of the work.

    Raises:
        WorkError: In place of the system's error.

    Example:
        >>> with disk_told(Path("a"), kept=lambda: "nothing is kept"):
        ...     raise OSError(errno.ENOSPC, "")
        Traceback (most recent call last):
        fopro_lab.errors.WorkError: a: the disk is full; free some space; nothing is kept
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            told = f"{folder}: the disk is full; free some space; {kept()}"
            raise WorkError(told) from error
        if error.errno in UNWRITABLE:
            told = f"{folder}: may not be written; choose another folder with --out"
            raise WorkError(told) from error
        raise
