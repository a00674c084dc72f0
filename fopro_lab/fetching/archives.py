"""Archives from strangers: nothing outside the folder, no links, no bombs; whole or not at all."""

import gzip
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_IFMT, S_ISDIR, S_ISREG
from typing import IO, NamedTuple

from fopro_lab.errors import WorkError

BLOCK = 1 << 20
HEADERS = 2048  # bytes of a tar archive that a member takes besides its content
DAMAGES = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, RuntimeError),
)


class UnsafeArchive(WorkError):
    """An archive that is damaged, or does what no publisher's archive does."""


class Member(NamedTuple):
    """A file or folder in an archive.

    Example:
        >>> Member("a/b.jpg", 3, False).name
        'a/b.jpg'
    """

    name: str
    size: int
    folder: bool


def unpack(
    archive: Path, target: Path, *, largest: int, members: int, only: Sequence[str] = ()
) -> list[str]:
    """Unpack a zip or tar archive, plain or gzipped, into a folder.

    It goes into a hidden folder first, and from there into place when all of it was sound; what
    an earlier attempt left there is removed. Names in place are replaced; what is not asked for
    stays behind, so that an archive cannot replace what lies beside it.

    Args:
        archive: The file; what it is tells its content, not its name.
        target: The folder, made if need be.
        largest: Most bytes that may come out, declared or not.
        members: Most files and folders that it may hold.
        only: Top names to put into place; all of them if empty.

    Returns:
        The names in ``target`` that it brought, sorted.

    Raises:
        UnsafeArchive: If a name leads out of the folder or comes twice, a member is a link, a
            device or encrypted, it is too large, or damaged. Nothing is left of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     archive = Path(folder) / "a.zip"
        ...     with zipfile.ZipFile(archive, "w") as opened:
        ...         opened.writestr("pictures/1.txt", "one")
        ...     unpack(archive, Path(folder) / "out", largest=10, members=2)
        ['pictures']
    """
    target.mkdir(parents=True, exist_ok=True)
    temporary = target / f".{archive.name}.unpacking"
    _remove(temporary)
    try:
        temporary.mkdir()
        with _damage_told(archive):
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, temporary, largest, members)
            else:
                _unpack_tar(archive, temporary, largest, members)
        names = sorted(os.listdir(temporary))
        if not names:
            raise UnsafeArchive(f"{archive.name}: holds nothing")
        names = [name for name in names if not only or name in only]
        for name in names:
            _remove(target / name)
            os.rename(temporary / name, target / name)
        return names
    finally:
        _remove(temporary)


def safe_name(name: str) -> str:
    """Return a member's name below the folder, or refuse it.

    Args:
        name: As the archive has it, with forward slashes.

    Returns:
        The name without ``.`` parts and without a slash at its end.

    Raises:
        UnsafeArchive: If it leads elsewhere on any system.

    Example:
        >>> safe_name("./a/b.jpg")
        'a/b.jpg'
        >>> safe_name("../b.jpg")
        Traceback (most recent call last):
        fopro_lab.fetching.archives.UnsafeArchive: member '../b.jpg' leads out of the folder
    """
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    wrong = (
        name.startswith("/")
        or "\\" in name
        or any(re.match(r"[A-Za-z]:", part) for part in parts)  # a drive
        or any(ord(letter) < 32 for letter in name)
        or any(part in ("", "..") for part in parts)
        or len(os.fsencode(name)) > 1000
    )
    if wrong:
        raise UnsafeArchive(f"member {name[:80]!r} leads out of the folder")
    return "/".join(parts)


class _Register:
    """Counts members and bytes, and knows the names that were there."""

    def __init__(self, largest: int, members: int) -> None:
        self.largest, self.members = largest, members
        self.declared = self.actual = 0
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def admit(self, raw: str, *, size: int, folder: bool) -> Member | None:
        """Check a member before a byte of it is unpacked; None is the folder itself."""
        name = safe_name(raw)
        key = name.casefold()  # some systems take A and a for one file
        parents = {key.rsplit("/", depth)[0] for depth in range(1, key.count("/") + 1)}
        if key in self.files or parents & self.files or (not folder and key in self.folders):
            raise UnsafeArchive(f"member {raw!r} comes twice")
        self.folders |= parents | ({key} if folder else set())
        self.files |= set() if folder else {key}
        self.declared += size
        if self.declared > self.largest:
            raise UnsafeArchive(f"declares more than {self.largest} bytes")
        if len(self.files) + len(self.folders) > self.members:
            raise UnsafeArchive(f"holds more than {self.members} files and folders")
        return Member(name, size, folder) if name else None

    def write(self, member: Member, stream: IO[bytes] | None, folder: Path) -> None:
        """Write a member and count what really comes out."""
        path = folder / member.name
        if member.folder or stream is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with open(path, "xb") as written:
            while block := stream.read(BLOCK):
                size += len(block)
                self.actual += len(block)
                if size > member.size or self.actual > self.largest:
                    raise UnsafeArchive(f"member {member.name!r} is larger than declared")
                written.write(block)
        if size != member.size:
            raise UnsafeArchive(f"member {member.name!r} is shorter than declared")


def _unpack_zip(archive: Path, folder: Path, largest: int, members: int) -> None:
    register = _Register(largest, members)
    with zipfile.ZipFile(archive) as opened:
        admitted = []
        for info in opened.infolist():  # all of them are checked before the first is unpacked
            kind = S_IFMT(info.external_attr >> 16)
            if kind and not (S_ISREG(kind) or S_ISDIR(kind)):
                raise UnsafeArchive(f"member {info.filename!r} is a link or a device")
            if info.flag_bits & 1:
                raise UnsafeArchive(f"member {info.filename!r} is encrypted")
            # orig_filename: zipfile's own cleaning would hide a backslash on Windows, or a NUL.
            member = register.admit(info.orig_filename, size=info.file_size, folder=info.is_dir())
            admitted.append((info, member))
        for info, member in admitted:
            if member is None or member.folder:
                register.write(member or Member("", 0, True), None, folder)
                continue
            with opened.open(info) as stream:
                register.write(member, stream, folder)


def _unpack_tar(archive: Path, folder: Path, largest: int, members: int) -> None:
    register = _Register(largest, members)
    with open(archive, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    most = largest + members * HEADERS + BLOCK
    with _Bounded(archive, packed, most) as bounded:
        # "r|": one pass over the stream, so that what is counted is all that is unpacked.
        with tarfile.open(fileobj=bounded, mode="r|") as opened:  # type: ignore[call-overload]
            for info in opened:
                if not (info.isreg() or info.isdir()):
                    raise UnsafeArchive(f"member {info.name!r} is a link or a device")
                member = register.admit(info.name, size=info.size, folder=info.isdir())
                if member is not None:
                    register.write(member, opened.extractfile(info), folder)


class _Bounded:
    """A stream of bytes, unzipped if need be, that refuses to give more than a bound."""

    def __init__(self, path: Path, packed: bool, most: int) -> None:
        self.stream: IO[bytes] | gzip.GzipFile = gzip.open(path) if packed else open(path, "rb")
        self.left = most

    def __enter__(self) -> "_Bounded":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def read(self, count: int) -> bytes:
        block = self.stream.read(count)
        self.left -= len(block)
        if self.left < 0:
            raise UnsafeArchive("unpacks to more than it may")
        return block


@contextmanager
def _damage_told(archive: Path) -> Iterator[None]:
    """Put the archive's name before what is wrong with it."""
    try:
        yield
    except UnsafeArchive as error:
        raise UnsafeArchive(f"{archive.name}: {error}; nothing of it was kept") from None
    except (*DAMAGES, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's; bz2 raises one without a number for bytes that are none of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsafeArchive(
            f"{archive.name}: a damaged archive, or none ({reason}); nothing of it was kept"
        ) from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
