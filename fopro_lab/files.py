"""Files that are whole or absent: atomic writes and content hashes."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
