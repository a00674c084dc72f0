"""Fetch data sets, splits and weights from their publishers: download, check, unpack, record."""

import json
import os
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import quote

import requests
import yaml
from filelock import FileLock, Timeout

from fopro_lab.errors import InputError, WorkError
from fopro_lab.io import FULL, UNWRITABLE, atomic_path, in_bytes, write_json
from fopro_lab.io import progress as show_progress

PLAIN_NAMES = ("isic2019", "hyperkvasir", "fopro-splits", "moco-v2")
MEDMNIST_SIZES = (28, 64, 128, 224)  # pixels
RECORD = "fetched.json"  # what has been fetched into a folder
DOWNLOADS = ".downloads"
SPARE = 50_000_000  # bytes of disk that stay free
MOST_MEMBERS = 50_000  # files and folders of an archive; ISIC 2019 has half as many
TIMEOUT = (15.0, 60.0)  # seconds, for the connection and for the next bytes
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE = 1.0  # seconds before the second attempt; doubled after each
BLOCK = 1 << 15  # bytes
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which another attempt is worth it
NETWORK_ERRORS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
DAMAGES = (EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, LZMAError)
REASONS = {  # of network errors, by what their texts hold
    "timed out": "the server stalls",
    "certificate": "its certificate cannot be trusted",
    "nameresolutionerror": "no connection, the server's name is not known here",
    "newconnectionerror": "no connection, the server refuses it",
    "proxyerror": "no connection, the proxy refuses it",
}


@dataclass(frozen=True)
class RemoteFile:
    """One file at a publisher.

    Attributes:
        name: Path below the source's folder; of an archive, its file name.
        url: Its address.
        known: Published hash, ``sha256:...`` or ``md5:...``, whole or its first digits; empty
            where the publisher gives none.
        size: Bytes, about; 0 where unknown.
        unpacked: Of a zip archive: most bytes that it may unpack to; 0 is no archive.
        holds: Of a zip archive: the files and folders that it must bring.
    """

    name: str
    url: str
    known: str = ""
    size: int = 0
    unpacked: int = 0
    holds: tuple[str, ...] = ()

    def is_in(self, place: Path) -> bool:
        """Say whether the file, or what it holds, lies in a folder."""
        return all((place / name).exists() for name in self.holds or (self.name,))


@dataclass(frozen=True)
class Source:
    """What a publisher offers under one name: its files, and the terms in words."""

    name: str
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    home: str
    note: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder it is fetched into."""
        return self.name.replace(":", "-")

    @property
    def size(self) -> int:
        """Bytes to download, about, as far as they are known."""
        return sum(file.size for file in self.files)

    @property
    def description(self) -> str:
        """Licence, citation and home page, a line each."""
        note = f"\nnote: {self.note}" if self.note else ""
        return (
            f"licence: {self.licence}\nplease cite: {self.citation}\n"
            f"publisher's page: {self.home}{note}"
        )


@cache
def _facts(name: str) -> dict[str, Any]:
    facts: dict[str, Any]
    facts = yaml.safe_load(files("fopro_lab.data").joinpath(name).read_text(encoding="utf-8"))
    return facts


def medmnist_facts() -> dict[str, dict]:
    """Return, by short name, what MedMNIST 3.0.2 publishes on its sets with one label per image."""
    return _facts("medmnist.json")


def source_names() -> list[str]:
    """List the names of all sources, MedMNIST's in their smallest size."""
    return [*PLAIN_NAMES, *(f"medmnist:{name}" for name in medmnist_facts())]


def find_source(name: str) -> Source:
    """Return the source of a name, ``medmnist:NAME`` also with a size: ``medmnist:derma-224``."""
    if name.startswith("medmnist:"):
        return _find_medmnist(name.removeprefix("medmnist:"))
    if name not in PLAIN_NAMES:
        near = get_close_matches(name, [*PLAIN_NAMES, "medmnist:derma"], n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see `fopro data list`"
        raise InputError(
            f"source: expected {', '.join(PLAIN_NAMES)} or medmnist:NAME, got '{name}'; {hint}"
        )
    facts = dict(_facts("sources.yaml")[name])
    base, listed = facts.pop("base", ""), facts.pop("files")
    remote = [{"name": file, "url": base + file, **entry} for file, entry in listed.items()]
    return Source(name, tuple(RemoteFile(**entry) for entry in remote), **facts)


def _find_medmnist(rest: str) -> Source:
    short, dash, text = rest.partition("-")
    sets = medmnist_facts()
    size = int(text) if text.isdecimal() else 28
    if short not in sets or (dash and str(size) != text) or size not in MEDMNIST_SIZES:
        raise InputError(
            f"source: expected medmnist: with one of {', '.join(sets)}, and -64, -128 or -224 "
            f"for larger images, got 'medmnist:{rest}'"
        )
    fact, suffix = sets[short], "" if size == 28 else f"_{size}"
    archive = f"{short}mnist{suffix}.npz"
    pixels = sum(fact["images"]) * size * size * fact["channels"]
    parts = ("train", "val", "test")
    facts = dict(_facts("sources.yaml")["medmnist"])
    remote = RemoteFile(
        archive,
        f"{facts.pop('base')}{archive}?download=1",
        known=f"md5:{fact['md5'][str(size)]}",
        size=pixels,  # at most: it is compressed
        unpacked=pixels + 8 * sum(fact["images"]) + 100_000,  # labels and headers
        holds=tuple(f"{part}_{kind}.npy" for part in parts for kind in ("images", "labels")),
    )
    name = f"medmnist:{short}{suffix.replace('_', '-')}"
    return Source(name, (remote,), fact["licence"], **facts)


def published_hashes(name: str) -> dict[str, str]:
    """Return the published SHA-256 of a source's files, by their paths; those that have one."""
    return {f.name: f.known[7:] for f in find_source(name).files if f.known[:7] == "sha256:"}


def data_folder(out: Path | str | None = None) -> Path:
    """Return the folder of all sources: as given, ``$FOPRO_DATA`` or the user's own."""
    return Path(out or os.environ.get("FOPRO_DATA") or "~/.local/share/fopro_lab").expanduser()


def fetched_place(name: str) -> Path | None:
    """Return the folder of a source if all of it has been fetched, else None; opens no image."""
    source = find_source(name)
    place = data_folder() / source.folder
    return place if _is_complete(source, place) else None


def _is_complete(source: Source, place: Path) -> bool:
    return read_record(place)["complete"] and all(file.is_in(place) for file in source.files)


def read_record(place: Path) -> dict[str, Any]:
    """Return what is recorded in a folder; of an empty or damaged one, that nothing is there."""
    record = _read_json(place / RECORD)
    sound = isinstance(record.get("files"), dict) and isinstance(record.get("complete"), bool)
    return record if sound else {"complete": False, "files": {}}


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON mapping; an empty one if the file is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def note_complete(place: Path, source: Source) -> None:
    """Write licence and origin for people, then record that everything is there."""
    record = read_record(place)
    day = time.strftime("%Y-%m-%d")
    lines = [f"{source.name}, fetched {day}", "", source.description]
    lines += ["The publisher's page has the terms in full; they are the publisher's."]
    for name, facts in record["files"].items():
        lines += ["", name, *(f"  {key}: {value}" for key, value in facts.items())]
    with atomic_path(place / "SOURCE.txt") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = {"source": source.name, "complete": True, "date": day}
    write_json(place / RECORD, record | done)


def fetch(
    source: str | Source,
    *,
    out: Path | str | None = None,
    progress: bool = True,
    mirror: str = "",
) -> Path:
    """Fetch a source from its publisher, once.

    A fetch that was cut, killed or ran out of disk continues where it stopped. A second process
    that wants the same source waits for the first.

    Args:
        source: A name: ``isic2019``, ``hyperkvasir``, ``fopro-splits``, ``moco-v2``, or
            ``medmnist:NAME`` with ``-64``, ``-128`` or ``-224`` for larger images; or a source.
        out: Folder of all sources; default ``$FOPRO_DATA``, else ``~/.local/share/fopro_lab``.
        progress: Say on stderr what is fetched, and under which licence.
        mirror: Address that holds ``FOLDER/FILE`` for each file; default ``$FOPRO_MIRROR``, else
            the publishers' own. Hashes are checked all the same.

    Returns:
        The source's own folder in ``out``.
    """
    source = find_source(source) if isinstance(source, str) else source
    mirror = (mirror or os.environ.get("FOPRO_MIRROR", "")).rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise InputError(f"mirror: expected an address, http:// or https://, got '{mirror}'")
    place = data_folder(out) / source.folder
    if _is_complete(source, place):
        return place
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_name(f".{source.folder}.lock"))
        try:
            held = lock.acquire(timeout=1)
        except Timeout:
            _say(f"{source.name}: another process is fetching it, waiting", progress)
            held = lock.acquire()
        with held:
            if not _is_complete(source, place):  # unless that other process has fetched it
                _fetch_missing(source, place, progress, mirror)
    except OSError as error:
        if error.errno in FULL:
            way_out = "free some space, the same command goes on from there"
            raise WorkError(f"{place}: the disk is full; {way_out}") from error
        if error.errno in UNWRITABLE:
            raise WorkError(f"{place}: cannot be written; choose another with --out") from error
        raise
    return place


def _fetch_missing(source: Source, place: Path, progress: bool, mirror: str) -> None:
    downloads = place / DOWNLOADS
    downloads.mkdir(exist_ok=True)
    # What a killed process left: pooch's temporary files, and records that were being written.
    for stray in (*downloads.glob("tmp*"), *place.glob(".*.part")):
        stray.unlink()
    recorded = read_record(place)["files"]
    missing = [file for file in source.files if not (file.name in recorded and file.is_in(place))]
    coming = sum(file.size for file in missing)
    coming = max(coming - sum(path.stat().st_size for path in downloads.iterdir()), 0)
    need, free = coming + sum(f.unpacked for f in missing), shutil.disk_usage(place).free
    if need + SPARE > free:
        raise WorkError(
            f"{source.name}: needs {in_bytes(need)} of disk, {in_bytes(free)} are free in {place}; "
            "free some space or choose another folder with --out"
        )
    size = f"about {in_bytes(coming)} to come, " if coming else ""
    _say(f"{source.name}: {size}into {place}\n{source.description}", progress)
    for file in missing:
        url = f"{mirror}/{source.folder}/{quote(file.name)}" if mirror else file.url
        before = recorded.get(file.name, {}).get("sha256", "")
        facts = _fetch_file(file, url, place, before=before, progress=progress)
        recorded[file.name] = facts
        record = {"source": source.name, "complete": False, "files": recorded}
        write_json(place / RECORD, record)
    shutil.rmtree(downloads)  # archives go only now: until here a kill costs no second download
    if hasattr(os, "sync"):  # the record must not outlive the bytes when the power fails
        os.sync()
    note_complete(place, source)


def _fetch_file(
    file: RemoteFile, url: str, place: Path, *, before: str, progress: bool
) -> dict[str, Any]:
    """Download one file, compare its hash and put it, or what it holds, into place."""
    import pooch  # late: naming a source does without it

    pooch.get_logger().setLevel("WARNING")
    name = file.name.replace("/", "_")
    part = place / DOWNLOADS / f"{name}.part"
    downloader = ResumingDownloader(part, label=file.name, progress=progress)
    # Pooch puts a file into place when it is whole. The hash is compared here, since a publisher
    # may give its first digits alone.
    store = pooch.create(place / DOWNLOADS, "", registry={name: None}, urls={name: url})
    path = Path(store.fetch(name, downloader=downloader))
    known = file.known or (f"sha256:{before}" if before else "")
    kind, _, expected = (known or "sha256:").partition(":")
    digests = {each: pooch.file_hash(str(path), alg=each) for each in {"sha256", kind}}
    facts = {"address": url, "bytes": path.stat().st_size, "sha256": digests["sha256"]}
    try:
        if not digests[kind].startswith(expected.lower()):
            recorded = "" if file.known else f" as in {place / RECORD}"
            raise WorkError(
                f"{file.name}: expected {kind} {expected}{recorded}, got "
                f"{digests[kind][: len(expected)]}; the file was removed: fetch it again, and if "
                "it stays so, its publisher has changed it"
            )
        if file.unpacked:
            unpack_zip(path, place, largest=file.unpacked, holds=file.holds)
        else:
            (place / file.name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place / file.name)
    except WorkError:
        path.unlink()
        raise
    if known:
        return facts | {"checked against": known}
    _say(f"{file.name}: no published hash; recorded sha256 {facts['sha256']}", progress)
    return facts | {"checked against": "nothing: the publisher gives no hash"}


class _Broken(requests.ConnectionError):
    """An answer that is no use; another attempt may be."""


class ResumingDownloader:
    """Download to ``FILE.part`` and continue it next time; a downloader for pooch.

    A part is continued, by ``Range`` and ``If-Range``, if the address is the same and the server
    gave an ETag or a time of change for it. Otherwise the download starts over.
    """

    def __init__(self, part: Path, *, label: str, progress: bool = False) -> None:
        self.part, self.note = part, part.with_name(part.name + ".json")
        self.label, self.progress = label, progress

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        """Download ``url`` to ``output_file``; a WorkError says why it could not."""
        failures, best = 0, self._have()
        while True:
            try:
                self._attempt(url)
                break
            except NETWORK_ERRORS as error:
                text = str(error).lower()
                reasons = [reason for sign, reason in REASONS.items() if sign in text]
                reason = str(error) if isinstance(error, _Broken) else "the connection broke"
                reason = reasons[0] if reasons else reason
                failures = 1 if self._have() > best else failures + 1
                best = max(best, self._have())
                if failures >= ATTEMPTS:
                    raise WorkError(
                        f"{self.label}: {reason}, {failures} times in a row; "
                        f"{in_bytes(self._have())} are kept, the same command tries again; "
                        f"address {url} (--mirror gives another)"
                    ) from None
                _say(f"{self.label}: {reason}, trying again", self.progress)
                time.sleep(PAUSE * 2 ** (failures - 1))
            except requests.RequestException as error:
                raise WorkError(f"{self.label}: {url}: {error}") from None
        os.replace(self.part, output_file)
        self.note.unlink(missing_ok=True)

    def _attempt(self, url: str) -> None:
        """Ask for what is missing and append it."""
        known = _read_json(self.note)
        have = self._have() if known.get("url") == url and known["validator"] else 0
        if have and have == known["total"]:  # stopped after the last byte
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status, answer = response.status_code, response.headers
            if url.startswith("https://") and not response.url.startswith("https://"):
                raise WorkError(f"{self.label}: expected https, was sent on to {response.url}")
            if status in BUSY:
                raise _Broken(f"the server answers {status} {response.reason}")
            if status not in (200, 206, 416):
                raise WorkError(
                    f"{self.label}: the server answers {status} {response.reason} at {url}; if "
                    "its publisher has moved it, get it by hand or set FOPRO_MIRROR"
                )
            tag = answer.get("ETag", "")
            validator = "" if tag.startswith("W/") else tag  # a weak one means similar bytes
            validator = validator or answer.get("Last-Modified", "")
            total = known["total"] if have else int(answer.get("Content-Length", 0))
            span = f"bytes {have}-{total - 1}/{total}"
            same = answer.get("Content-Range") == span and validator in ("", known["validator"])
            if status == 200 or not same:
                # The part goes first: a new note must never lie beside old bytes.
                self.part.unlink(missing_ok=True)
                self.note.unlink(missing_ok=True)
                if status != 200:
                    raise _Broken("the file changed at the server")
                have, total = 0, int(answer.get("Content-Length", 0))
                write_json(self.note, {"url": url, "validator": validator, "total": total})
            blocks: Iterator[bytes] = response.iter_content(BLOCK)
            if self.progress:
                label = f"fetching {self.label}"
                blocks = show_progress(blocks, total=total, label=label, done=have, blocks=True)
            with open(self.part, "ab") as stream:
                for block in blocks:
                    stream.write(block)
        if not self._have() or (total and self._have() != total):
            raise _Broken(f"sent {self._have()} of the declared {total} bytes")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def unpack_zip(archive: Path, target: Path, *, largest: int, holds: Sequence[str]) -> None:
    """Unpack what a zip archive must hold into a folder; tar is not supported, no source is one.

    It is unpacked into a hidden folder, and moved into place when all of it is sound. A WorkError
    says what is wrong: nothing of the archive is kept.
    """
    temporary = target / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_members(opened.infolist(), largest)
            opened.extractall(temporary)  # checks sizes and checksums
        absent = [name for name in holds if not (temporary / name).exists()]
        if absent:
            raise ValueError(f"expected it to hold {', '.join(holds)}, found no {absent[0]}")
        for name in holds:
            if (target / name).is_dir():
                shutil.rmtree(target / name)
            os.replace(temporary / name, target / name)
    except (OSError, *DAMAGES) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's own; bz2 raises one without a number for damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = "" if isinstance(error, ValueError) else "damaged, or no zip archive: "
        raise WorkError(f"{archive.name}: {kind}{reason}; nothing of it was kept") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_members(members: Sequence[zipfile.ZipInfo], largest: int) -> None:
    """Refuse what no publisher's archive does, before a byte of it is unpacked."""
    names: set[str] = set()
    for info in members:
        name = info.orig_filename  # before zipfile cleans it
        path = PureWindowsPath(name)  # takes both slashes, and drives
        if path.anchor or ".." in path.parts or "\\" in name or "\0" in name:
            raise ValueError(f"member {name[:80]!r} leads out of the folder")
        if str(path).casefold() in names:  # some systems take A and a for one file
            raise ValueError(f"member {name!r} comes twice")
        names.add(str(path).casefold())
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"member {name!r} is a link or a device")
    if sum(info.file_size for info in members) > largest:
        raise ValueError(f"declares more than {largest} bytes")
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"holds more than {MOST_MEMBERS} files and folders")


def _say(text: str, progress: bool) -> None:
    if progress:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
