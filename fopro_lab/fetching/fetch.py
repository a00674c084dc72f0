"""A source by name: downloaded, checked, unpacked and noted; done already, it returns at once."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from fopro_lab.errors import InputError, WorkError
from fopro_lab.fetching.archives import UnsafeArchive, unpack
from fopro_lab.fetching.disk import check_disk, disk_told
from fopro_lab.fetching.downloads import Patience, ResumingDownloader
from fopro_lab.fetching.publishers import RemoteFile, Source, find_source
from fopro_lab.fetching.records import (
    described,
    is_complete,
    note_complete,
    note_file,
    read_record,
)
from fopro_lab.progress import in_bytes

DOWNLOADS = ".downloads"


def fetch(
    name: str, *, out: Path | str | None = None, progress: bool = True, mirror: str = ""
) -> Path:
    """Bring a source from its publisher, once.

    A fetch that was cut, killed or ran out of disk goes on where it stopped. A second process
    that wants the same waits for the first.

    Args:
        name: ``isic2019``, ``hyperkvasir``, ``fopro-splits``, ``moco-v2``, or ``medmnist:NAME``
            with ``-64``, ``-128`` or ``-224`` for larger pictures.
        out: Folder of all sources; default ``$FOPRO_DATA``, else ``~/.local/share/fopro_lab``.
        progress: Say on standard error what comes, and under which licence.
        mirror: Address that holds ``FOLDER/FILE`` for each file; default ``$FOPRO_MIRROR``, else
            the publishers' own. Hashes are checked all the same.

    Returns:
        The source's own folder in ``out``.

    Raises:
        InputError: For an unknown name or a mirror that is no address.
        WorkError: If the network, the disk, the bytes or the archive fail.

    Example:
        >>> fetch("isic2018")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: source: expected isic2019, ... got 'isic2018'; ...
    """
    return fetch_source(find_source(name), root=data_folder(out), progress=progress, mirror=mirror)


def fetched_place(name: str, *, out: Path | str | None = None) -> Path | None:
    """Return the folder of a source if all of it was fetched; cheap enough to ask always.

    Args:
        name: As for `fetch`.
        out: As for `fetch`.

    Returns:
        The folder, or None.

    Raises:
        InputError: For an unknown name.

    Example:
        >>> fetched_place("isic2019", out="nowhere") is None
        True
    """
    source = find_source(name)
    place = data_folder(out) / source.folder
    return place if is_complete(source, place) else None


def data_folder(out: Path | str | None = None) -> Path:
    """Return the folder of sources: given, ``$FOPRO_DATA``, or ``~/.local/share/fopro_lab``.

    Example:
        >>> data_folder("/tmp/data").name
        'data'
    """
    return Path(out or os.environ.get("FOPRO_DATA") or "~/.local/share/fopro_lab").expanduser()


def fetch_source(
    source: Source,
    *,
    root: Path,
    progress: bool = True,
    mirror: str = "",
    patience: Patience | None = None,
) -> Path:
    """Do what `fetch` does for a source that is at hand.

    Args:
        source: What to bring.
        root: Folder of all sources.
        progress: As for `fetch`.
        mirror: As for `fetch`.
        patience: Time-outs and attempts.

    Returns:
        The source's folder.

    Raises:
        InputError: If the mirror is no address.
        WorkError: As for `fetch`.
    """
    mirror = (mirror or os.environ.get("FOPRO_MIRROR", "")).rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise InputError(f"mirror: expected an address, http:// or https://, got '{mirror}'")
    place = root / source.folder
    if is_complete(source, place):
        return place
    with _locked(root, source, tell=progress):
        if is_complete(source, place):  # another process has fetched it meanwhile
            return place
        with disk_told(place, kept=_kept):
            _fetch_all(source, place, progress, mirror, patience or Patience())
    return place


def _fetch_all(
    source: Source, place: Path, progress: bool, mirror: str, patience: Patience
) -> None:
    (place / DOWNLOADS).mkdir(parents=True, exist_ok=True)
    # Of a process that was killed: pooch's files, and notes that were being written.
    for stray in (*(place / DOWNLOADS).glob("tmp*"), *place.glob(".*.part")):
        stray.unlink()
    missing = [file for file in source.files if not _is_here(file, place)]
    coming = sum(max(file.size - _part(file, place)[1], 0) for file in missing)
    unpacked = sum(file.unpacked for file in missing)
    check_disk(place, coming + unpacked, label=source.name)
    if progress:
        size = f"about {in_bytes(coming)} to come, " if coming else ""
        _tell(f"{source.name}: {size}into {place}\n{described(source)}")
    for file in missing:
        _fetch_one(file, source, place, progress, mirror, patience)
    shutil.rmtree(place / DOWNLOADS)
    if hasattr(os, "sync"):  # the note must not outlive the bytes when the power fails
        os.sync()
    note_complete(place, source)


def _fetch_one(
    file: RemoteFile,
    source: Source,
    place: Path,
    progress: bool,
    mirror: str,
    patience: Patience,
) -> None:
    import pooch  # late: naming a source does without it

    url = f"{mirror}/{source.folder}/{quote(file.name)}" if mirror else file.url
    recorded = read_record(place)["files"].get(file.name, {}).get("sha256", "")
    known = file.known or (f"sha256:{recorded}" if recorded else "")
    part, _ = _part(file, place)
    downloader = ResumingDownloader(
        part,
        label=file.name,
        reserve=file.unpacked,
        progress=progress,
        patience=patience,
        plain=bool(mirror),
        proven=bool(known),
    )
    # Pooch puts a file into place when it is whole. The hash is looked at here, since a
    # publisher may give its first digits alone.
    pooch.get_logger().setLevel("WARNING")
    flat = part.name.removesuffix(".part")
    keeper = pooch.create(place / DOWNLOADS, "", registry={flat: None}, urls={flat: url})
    path = Path(keeper.fetch(flat, downloader=downloader))
    facts = {"address": url, "bytes": path.stat().st_size}
    try:
        facts |= _check_hash(path, file, known, place=place)
        if file.unpacked:
            unpack(path, place, largest=file.unpacked, members=file.members, only=file.holds)
            _check_holds(file, place)
        else:
            (place / file.name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place / file.name)
    except (WrongBytes, UnsafeArchive):
        path.unlink()
        downloader.discard()
        raise
    note_file(place, source, file.name, facts)
    path.unlink(missing_ok=True)
    downloader.discard()
    if progress and not known:
        _tell(f"{file.name}: its publisher gives no hash; recorded sha256 {facts['sha256']}")


class WrongBytes(WorkError):
    """A file that is not the one that was published."""


def _check_hash(path: Path, file: RemoteFile, known: str, *, place: Path) -> dict[str, str]:
    """Compare a file with its published hash, or with the one of its first fetch."""
    kind, _, expected = (known or "sha256:").partition(":")
    digests = {name: hashlib.new(name) for name in {"sha256", kind}}
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            for digest in digests.values():
                digest.update(block)
    got = digests[kind].hexdigest()
    if not got.startswith(expected.lower()):
        first = "" if file.known else f" as in {place / 'fetched.json'}"
        raise WrongBytes(
            f"{file.name}: expected {kind} {expected}{first}, got {got[: len(expected)]}; the "
            "file was removed: fetch it again, and if it stays so, its publisher has changed it"
        )
    if file.known:
        checked = f"publisher's {known}"
    elif known:
        checked = f"{known}, recorded when it was first fetched"
    else:
        checked = "nothing: the publisher gives no hash"
    return {"sha256": digests["sha256"].hexdigest(), "checked against": checked}


def _check_holds(file: RemoteFile, place: Path) -> None:
    absent = [name for name in file.holds if not (place / name).exists()]
    if absent:
        raise UnsafeArchive(
            f"{file.name}: expected it to hold {', '.join(file.holds)}, found no {absent[0]}"
        )


def _is_here(file: RemoteFile, place: Path) -> bool:
    names = file.holds or (file.name,)
    noted = file.name in read_record(place)["files"]
    return noted and all((place / name).exists() for name in names)


def _part(file: RemoteFile, place: Path) -> tuple[Path, int]:
    """Return where a file grows, and how much of it is here."""
    part = place / DOWNLOADS / (file.name.replace("/", "_") + ".part")
    grown = (path for path in (part, part.with_suffix("")) if path.exists())
    return part, max((path.stat().st_size for path in grown), default=0)


@contextmanager
def _locked(root: Path, source: Source, *, tell: bool) -> Iterator[None]:
    with disk_told(root, kept=_kept):
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f".{source.folder}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if tell:
                _tell(f"{source.name}: another process is fetching it, waiting")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _kept() -> str:
    return "the same command goes on from there"


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
