"""Fetch data sets, splits and weights from their publishers: download, check, unpack, record."""

import os
import re
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from lzma import LZMAError
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from fopro_lab.errors import InputError, WorkError
from fopro_lab.io import disk_errors, in_bytes, one_writer, read_json, write_file, write_json
from fopro_lab.io import progress as show_progress
from fopro_lab.options import nearest, read_yaml

PLAIN_NAMES = ("isic2019", "hyperkvasir", "fopro-splits", "monica-splits", "moco-v2")
RECORD = "fetched.json"  # what has been fetched into a folder
DOWNLOADS = ".downloads"
SPARE = 50_000_000  # bytes of disk that stay free
TIMEOUT = (15.0, 60.0)  # seconds, for the connection and for the next bytes
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE = 1.0  # seconds before the second attempt; doubled after each
BLOCK = 1 << 15  # bytes
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which another attempt is worth it
DAMAGES = (EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, LZMAError)


@dataclass(frozen=True)
class RemoteFile:
    """One file at a publisher, a zip archive if ``unpacked`` is above 0."""

    name: str  # path below the source's folder; of an archive, its file name
    url: str
    known: str = ""  # published hash, "sha256:..." or "md5:...", whole or its first digits
    size: int = 0  # bytes, about; 0 where unknown
    unpacked: int = 0  # most bytes that an archive may unpack to
    holds: tuple[str, ...] = ()  # files and folders that an archive must bring

    def is_in(self, place: Path) -> bool:
        """Tell whether the file, or what it holds, lies in a folder."""
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
        lines = [f"licence: {self.licence}", f"please cite: {self.citation}"]
        lines += [f"publisher's page: {self.home}", f"note: {self.note}"]
        return "\n".join(lines if self.note else lines[:-1])


@cache
def _facts(name: str) -> dict[str, Any]:
    return read_yaml(Path(__file__).with_name(name))


def medmnist_facts() -> dict[str, dict]:
    """Return, by short name, what MedMNIST 3.0.2 publishes on its sets with one label per image."""
    return _facts("medmnist.json")  # YAML holds JSON


def source_names() -> list[str]:
    """List the names of all sources, MedMNIST's in their smallest size."""
    return [*PLAIN_NAMES, *(f"medmnist:{name}" for name in medmnist_facts())]


def find_source(name: str) -> Source:
    """Return the source of a name, ``medmnist:NAME`` also with a size: ``medmnist:derma-224``."""
    if name.startswith("medmnist:"):
        return _find_medmnist(name.removeprefix("medmnist:"))
    if name not in PLAIN_NAMES:
        hint = nearest(name, [*PLAIN_NAMES, "medmnist:NAME"])
        raise InputError(f"source: expected one that `fopro data list` shows, got '{name}'; {hint}")
    facts = dict(_facts("sources.yaml")[name])
    base, listed = facts.pop("base", ""), facts.pop("files")
    remote = [{"name": file, "url": base + file, **entry} for file, entry in listed.items()]
    return Source(name, tuple(RemoteFile(**entry) for entry in remote), **facts)


def _find_medmnist(rest: str) -> Source:
    sets = medmnist_facts()
    found = re.fullmatch(r"([a-z]+)(?:-(28|64|128|224))?", rest)
    if not found or found[1] not in sets:
        rule = f"medmnist: with one of {', '.join(sets)}, and -64, -128 or -224 for larger images"
        raise InputError(f"source: expected {rule}, got 'medmnist:{rest}'")
    short, size = found[1], int(found[2] or 28)  # pixels
    fact = sets[short]
    suffix = "" if size == 28 else f"_{size}"
    archive, images = f"{short}mnist{suffix}.npz", sum(fact["images"])
    pixels = images * size * size * fact["channels"]
    facts = dict(_facts("sources.yaml")["medmnist"])
    remote = RemoteFile(
        archive,
        f"{facts.pop('base')}{archive}?download=1",
        known=f"md5:{fact['md5'][str(size)]}",
        size=pixels,  # at most: it is compressed
        unpacked=pixels + 8 * images + 100_000,  # labels and headers
        holds=tuple(f"{p}_{k}.npy" for p in ("train", "val", "test") for k in ("images", "labels")),
    )
    name = f"medmnist:{short}{suffix.replace('_', '-')}"
    return Source(name, (remote,), fact["licence"], **facts)


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
    found: Any = None
    with suppress(OSError, ValueError):
        found = read_json(place / RECORD)
    return {"complete": False, "files": {}} | (found if isinstance(found, dict) else {})


def note_complete(place: Path, source: Source) -> None:
    """Write licence and origin for people, then record that everything is there."""
    record, day = read_record(place), time.strftime("%Y-%m-%d")
    lines = [f"{source.name}, fetched {day}", "", source.description]
    lines.append("The publisher's page has the terms in full; they are the publisher's.")
    for name, facts in record["files"].items():
        lines += ["", name, *(f"  {key}: {value}" for key, value in facts.items())]
    write_file(place / "SOURCE.txt", "\n".join(lines) + "\n")
    write_json(place / RECORD, record | {"source": source.name, "complete": True, "date": day})


def fetch(
    source: str | Source, *, out: Path | str | None = None, progress: bool = True, mirror: str = ""
) -> Path:
    """Fetch a source from its publisher, once, and return its folder in ``out``.

    An interrupted fetch continues where it stopped; a second process waits for the first. ``out``
    is the folder of all sources, ``$FOPRO_DATA`` or ``~/.local/share/fopro_lab`` by default.
    ``mirror``, by default ``$FOPRO_MIRROR``, is an address that holds ``FOLDER/FILE`` for each
    file; hashes are checked all the same. A WorkError says what network, disk or bytes did wrong.
    """
    source = find_source(source) if isinstance(source, str) else source
    mirror = (mirror or os.environ.get("FOPRO_MIRROR", "")).rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise InputError(f"mirror: expected an address, http:// or https://, got '{mirror}'")
    place = data_folder(out) / source.folder
    if _is_complete(source, place):
        return place
    with disk_errors(place), one_writer(place, talk=progress, doing="fetching it"):
        if not _is_complete(source, place):  # unless another process has fetched it meanwhile
            _fetch_missing(source, place, progress, mirror)
    return place


def _fetch_missing(source: Source, place: Path, progress: bool, mirror: str) -> None:
    downloads = place / DOWNLOADS
    downloads.mkdir(parents=True, exist_ok=True)
    # What a killed process left: pooch's temporary files, and records that were being written.
    for stray in (*downloads.glob("tmp*"), *place.glob(".*.part")):
        stray.unlink()
    recorded = read_record(place)["files"]
    missing = [file for file in source.files if not (file.name in recorded and file.is_in(place))]
    here = sum(path.stat().st_size for path in downloads.iterdir())
    coming = max(sum(file.size for file in missing) - here, 0)
    need, free = coming + sum(f.unpacked for f in missing), shutil.disk_usage(place).free
    if need + SPARE > free:
        has = f"needs {in_bytes(need)} of disk, {in_bytes(free)} are free in {place}"
        raise WorkError(f"{source.name}: {has}; free some or choose another folder with --out")
    size = f"about {in_bytes(coming)} to come, " if coming else ""
    _say(f"{source.name}: {size}into {place}\n{source.description}", progress)
    for file in missing:
        url = f"{mirror}/{source.folder}/{quote(file.name)}" if mirror else file.url
        before = recorded.get(file.name, {}).get("sha256", "")
        recorded[file.name] = _fetch_file(file, url, place, before=before, progress=progress)
        write_json(place / RECORD, {"source": source.name, "complete": False, "files": recorded})
    shutil.rmtree(downloads)  # archives go only now: until here a kill costs no second download
    note_complete(place, source)


def _fetch_file(
    file: RemoteFile, url: str, place: Path, *, before: str, progress: bool
) -> dict[str, Any]:
    """Download one file, compare its hash and put it, or what it holds, into place."""
    import pooch  # late: naming a source does without it

    pooch.get_logger().setLevel("WARNING")
    known = file.known or (f"sha256:{before}" if before else "")
    name = file.name.replace("/", "_")
    part = place / DOWNLOADS / f"{name}.part"
    if not (known or file.unpacked):  # a part of another version would not be noticed
        part.unlink(missing_ok=True)
    downloader = ResumingDownloader(part, label=file.name, progress=progress)
    # Pooch puts a file into place when it is whole. The hash is compared here, since a publisher
    # may give its first digits alone.
    store = pooch.create(place / DOWNLOADS, "", registry={name: None}, urls={name: url})
    path = Path(store.fetch(name, downloader=downloader))
    kind, _, expected = (known or "sha256:").partition(":")
    digests = {each: pooch.file_hash(str(path), alg=each) for each in {"sha256", kind}}
    facts = {"address": url, "bytes": path.stat().st_size, "sha256": digests["sha256"]}
    try:
        if not digests[kind].startswith(expected.lower()):
            recorded = "" if file.known else f" as in {place / RECORD}"
            got = f"{digests[kind][: len(expected)]}; the file was removed: fetch it again"
            raise WorkError(f"{file.name}: expected {kind} {expected}{recorded}, got {got}")
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


class ResumingDownloader:
    """Download to ``FILE.part`` and continue it next time; a downloader for pooch.

    Where the file changed meanwhile, its hash or the archive's checksums tell afterwards.
    """

    def __init__(self, part: Path, *, label: str, progress: bool = False) -> None:
        self.part, self.label, self.progress = part, label, progress

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        """Download ``url`` to ``output_file``; a WorkError says why it could not."""
        failures = 0
        while True:
            before = self._have()
            try:
                self._attempt(url, before)
                break
            except requests.RequestException as error:
                failures = failures + 1 if self._have() <= before else 1
                status = getattr(error.response, "status_code", 503)
                reason = str(error).rpartition(": ")[2].rstrip(".'\")>")  # the innermost one
                if failures >= ATTEMPTS or status not in BUSY:
                    kept = f"{in_bytes(self._have())} are kept, the same command tries again"
                    why = f"{reason}, {failures} times in a row; {kept}"
                    way_out = f"address {url} (--mirror gives another)"
                    raise WorkError(f"{self.label}: {why}; {way_out}") from None
                _say(f"{self.label}: {reason}, trying again", self.progress)
                time.sleep(PAUSE * 2 ** (failures - 1))
        os.replace(self.part, output_file)

    def _attempt(self, url: str, have: int) -> None:
        """Ask for what is missing and append it."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if url.startswith("https://") and not response.url.startswith("https://"):
                raise WorkError(f"{self.label}: expected https, was sent on to {response.url}")
            if response.status_code == 416:  # stopped after the last byte
                return
            response.raise_for_status()
            have = have if response.status_code == 206 else 0
            blocks: Iterator[bytes] = response.iter_content(BLOCK)
            if self.progress:
                total = have + int(response.headers.get("Content-Length", 0))
                label = f"fetching {self.label}"
                blocks = show_progress(blocks, total=total, label=label, done=have, blocks=True)
            with open(self.part, "ab" if have else "wb") as stream:
                for block in blocks:
                    stream.write(block)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def unpack_zip(archive: Path, target: Path, *, largest: int, holds: Sequence[str]) -> None:
    """Unpack what a zip archive must hold into a folder, or nothing of it; tar is not supported."""
    temporary = target / f".{archive.name}.unpacking"  # moved into place when all of it is sound
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            if sum(info.file_size for info in opened.infolist()) > largest:
                raise ValueError(f"declares more than {largest} bytes")
            # This checks sizes and checksums, leads no name out of the folder and makes no links.
            opened.extractall(temporary)
        if not all((temporary / name).exists() for name in holds):
            raise ValueError(f"expected it to hold {', '.join(holds)}")
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


def _say(text: str, progress: bool) -> None:
    if progress:
        sys.stderr.write(text + "\n")
