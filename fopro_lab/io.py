"""Atomic files, hashes, and progress of long work on stderr."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from tqdm import tqdm

from fopro_lab.errors import WorkError, printable

Item = TypeVar("Item")

FULL = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE = (errno.EACCES, errno.EROFS, errno.EPERM)
MISPLACED = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY)  # a file for a folder
REASONS = dict.fromkeys(FULL, "the disk is full; free some space and start again")
REASONS |= dict.fromkeys(UNWRITABLE + MISPLACED, "may not be written; choose another folder")
REASONS |= {errno.EIO: "input/output error; look after the disk, or choose another folder"}
REASONS |= {errno.ENAMETOOLONG: "name too long; shorten it, or choose another folder"}
_LARGE = "larger than this disk or `ulimit -f` allows; raise the limit, or choose another folder"
REASONS |= {errno.EFBIG: _LARGE}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first letters
# What files begin with that are not what was asked for.
KINDS = {b"version https://git-lfs": "a pointer of Git LFS (`git lfs pull` gets the file)",
         b"\x89HDF": "HDF5, as of Keras", b"\x08": "ONNX", b"GGUF": "GGUF", b"\x93NUMPY": "NumPy",
         b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7zXZ": "xz",
         b"]\0\0": "LZMA, as of joblib", b"\x78": "zlib, as of joblib", b"{": "JSON",
         b"\x80": "a pickle, as of joblib", b"(dp": "a pickle", b"cos\n": "a pickle",
         b"PAR1": "Parquet", b"<": "a web page", b"7z\xbc": "7-Zip", b"Rar!": "RAR"}  # fmt: skip
QUIET_SECONDS = 5.0  # work shorter than this writes no line at all
LINE_SECONDS = 15.0  # an executed notebook or a log gets at most one line in this time


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings; what fails is raised all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Say in one line that the disk is full or ``path`` may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in REASONS:
            raise WorkError(f"{path}: {REASONS[error.errno]}") from error
        raise


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends without an error.

    A reader sees the old file or the new one, never a part. Missing parent folders are made.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            os.close(fd)
            temporary = Path(name)
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def one_writer(target: Path, *, talk: bool, doing: str = "packing") -> Iterator[None]:
    """Hold the right to write ``target``; remove what a killed process left half written."""
    lock = FileLock(target.with_suffix(".lock"))
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=1)
        except Timeout:
            if talk:
                sys.stderr.write(f"{target.name}: another process is {doing}, waiting for it\n")
            held = lock.acquire()
    with held:
        for stale in target.parent.glob(f".{target.stem}.*.part"):
            stale.unlink(missing_ok=True)
        yield


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder, whose name is short; remove those that killed processes left."""
    for lock in Path(tempfile.gettempdir()).glob("fopro-*/.lock"):  # held as long as its process
        with suppress(OSError, Timeout):
            if time.time() - lock.stat().st_mtime > 60:  # else perhaps about to be held
                with FileLock(lock, timeout=0):
                    shutil.rmtree(lock.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fopro-", ignore_cleanup_errors=True) as name:
        with FileLock(Path(name) / ".lock"):
            yield Path(name)


def write_file(path: Path | str, content: str | bytes) -> None:
    """Write text, as UTF-8, or bytes, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path | str, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically; NaN, which JSON has not, is refused."""
    write_file(path, json.dumps(content, indent=2, allow_nan=False, default=str) + "\n")


def read_json(path: Path | str) -> Any:
    """Read the JSON of a regular file."""
    return json.loads(regular(path).read_text(encoding="utf-8"))


def regular(path: Path | str) -> Path:
    """Return a path to open; what is no file, such as a pipe that would be waited for, fails."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return Path(path)


def kind_of(path: Path | str) -> str:
    """Say what a file of another kind is, by its first bytes; nothing in it is read as that."""
    with open(regular(path), "rb") as opened:
        start = opened.read(512)
    known = (kind for first, kind in KINDS.items() if start.lstrip().startswith(first))
    kind = "a tar archive" if start[257:262] == b"ustar" else next(known, "another or damaged")
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        names = " ".join(archive.namelist())
        kind = "NumPy's .npz" if names.endswith(".npy") else kind
        kind = "a damaged file of torch.save, or with code" if "data.pkl" in names else kind
    return f"{kind}, which begins {start[:16]!r}"


def plain_cells(table: Any) -> Any:
    """Copy a table for CSV: no control codes, and before what is like a formula a quote."""

    def plain(value: Any) -> Any:
        return "'" * (value[:1] in FORMULA) + printable(value) if isinstance(value, str) else value

    kept = {name: column.map(plain) for name, column in table.items() if column.dtype.kind == "O"}
    return table.assign(**kept).rename(columns=plain)


def write_csv(path: Path | str, table: Any, **how: Any) -> None:
    """Write a table as CSV, atomically, without its index and without formulas."""
    with atomic_path(path) as temporary:
        plain_cells(table).to_csv(temporary, index=False, **how)


def as_markdown(text: object) -> str:
    """Write a text for Markdown, where its letters are to mean nothing but themselves."""
    return re.sub(r"([\\`*_\[\]#|$!~]|:(?=//))", r"\\\1", escape(printable(text), quote=False))


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(regular(path), "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def progress(
    iterable: Iterable[Item], *, total: int, label: str, done: int = 0, blocks: bool = False
) -> Iterator[Item]:
    """Yield the items of ``iterable`` and show on stderr how far it is.

    A terminal gets a bar; logs, pipes and notebooks get a plain line now and then, and at the end.
    ``total`` is 0 where unknown; ``done`` was done before; of ``blocks`` the bytes count.
    """
    options: dict[str, Any] = {"unit": "B", "unit_scale": True} if blocks else {}
    if not sys.stderr.isatty():
        line = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {elapsed} passed, {remaining} left\n"
        options |= {"bar_format": line, "delay": QUIET_SECONDS, "mininterval": LINE_SECONDS}
    with tqdm(total=total or None, initial=done, desc=label, file=sys.stderr, **options) as bar:
        for item in iterable:
            yield item
            bar.update(len(item) if blocks else 1)  # type: ignore[arg-type]


@cache
def say_once(line: str) -> None:
    """Write a line to stderr, once per process."""
    sys.stderr.write(f"fopro: {line}\n")


def commit() -> str:
    """Describe the checkout this file lies in; empty for an installed package."""
    root = Path(__file__).parents[1]
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        if (root / ".git").exists():
            how: dict[str, Any] = {"check": True, "capture_output": True, "text": True}
            return subprocess.run(command, cwd=root, timeout=10, **how).stdout.strip()
    return ""


class Summary:
    """Shows an object in one line, and in a notebook as a small table, by some attributes."""

    _shown: tuple[str, ...] = ()

    def _facts(self) -> dict[str, str]:
        found = {name.replace("_", " "): getattr(self, name) for name in self._shown}
        return {
            name: f"{len(value):,}" if hasattr(value, "dtype") else " ".join(str(value).split())
            for name, value in found.items()
        }

    def __repr__(self) -> str:
        """Write the facts in one line."""
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<{type(self).__name__}: {facts}>"

    def _repr_html_(self) -> str:
        rows = [f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in self._facts().items()]
        return f"<table><caption>{type(self).__name__}</caption>{''.join(rows)}</table>"


def cache_folder(cache: Path | str | None = None) -> Path:
    """Return the cache folder: as given, else ``$FOPRO_CACHE``, else ``~/.cache/fopro_lab``."""
    return Path(cache or os.environ.get("FOPRO_CACHE") or "~/.cache/fopro_lab").expanduser()


def some(texts: Sequence[str], *, most: int = 5) -> str:
    """Join the first of several texts, and count the others."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return (", ".join(texts[:most]) or "none") + more


def home_folder(name: Path | str) -> Path:
    """Return a default folder for results: below ``$FOPRO_HOME`` if set, else the current one."""
    return Path(os.environ.get("FOPRO_HOME") or "").expanduser() / name


def in_bytes(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
