"""A source by name: downloaded, checked, unpacked and noted; done already, it returns at once."""

import errno
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from stat import S_IFMT, S_ISDIR, S_ISREG
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import requests
from filelock import FileLock, Timeout

from fopro_lab.errors import InputError, WorkError
from fopro_lab.io import UNWRITABLE, atomic_path, byte_progress, in_bytes, write_json

HERE = files("fopro_lab.data")
ISIC2019 = "https://isic-challenge-data.s3.amazonaws.com/2019/"
FOPRO = (
    "https://raw.githubusercontent.com/xmed-lab/FoPro-KD/"
    "fd66cae333007e3113dfefcefea49827e1634aae/data/ham2019/"
)
KVASIR_SPLITS = (
    "https://raw.githubusercontent.com/simula/hyper-kvasir/"
    "49c0d0f915b57ac0b6cb18b49776ffa61c5512e3/official_splits/"
)
MEDMNIST = "https://zenodo.org/records/10519652/files/"
SIZES = (28, 64, 128, 224)
KINDS = ("images", "labels")
PLAIN_NAMES = ("isic2019", "hyperkvasir", "fopro-splits", "moco-v2")


@dataclass(frozen=True)
class RemoteFile:
    """One file at a publisher.

    Attributes:
        name: Path below the source's folder; of an archive, its file name.
        url: Its address.
        known: Published hash, ``sha256:...`` or ``md5:...``, whole or its first digits; empty
            where the publisher gives none.
        size: Bytes, about, for the check of free disk; 0 where unknown.
        unpacked: Of an archive: most bytes that it may unpack to; 0 is no archive.
        members: Of an archive: most files and folders that it may hold.
        holds: Of an archive: what must lie in the source's folder when it is unpacked.

    Example:
        >>> RemoteFile("a.csv", "https://example.org/a.csv").known
        ''
    """

    name: str
    url: str
    known: str = ""
    size: int = 0
    unpacked: int = 0
    members: int = 0
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a name stands for.

    Attributes:
        name: As the user writes it.
        files: What is downloaded.
        licence: The terms, in words.
        citation: The works to cite.
        home: The publisher's page.
        note: What else one should know.

    Example:
        >>> find_source("moco-v2").folder, find_source("medmnist:derma").folder
        ('moco-v2', 'medmnist-derma')
    """

    name: str
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    home: str
    note: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder in which it lies."""
        return self.name.replace(":", "-")

    @property
    def size(self) -> int:
        """Bytes to download, about, as far as they are known."""
        return sum(file.size for file in self.files)

    @property
    def places(self) -> tuple[str, ...]:
        """What must lie in the folder when all is there."""
        return tuple(place for file in self.files for place in file.holds or (file.name,))


def source_names() -> list[str]:
    """List the names, MedMNIST's in their smallest size.

    Example:
        >>> source_names()[:5]
        ['isic2019', 'hyperkvasir', 'fopro-splits', 'moco-v2', 'medmnist:path']
    """
    return [*PLAIN_NAMES, *(f"medmnist:{name}" for name in medmnist_facts())]


def find_source(name: str) -> Source:
    """Return the source of a name.

    Args:
        name: One of `source_names`; MedMNIST's also with a size, ``medmnist:derma-224``.

    Returns:
        The source.

    Raises:
        InputError: For an unknown name, with those that are near.

    Example:
        >>> find_source("medmnist:derma-64").files[0].url
        'https://zenodo.org/records/10519652/files/dermamnist_64.npz?download=1'
        >>> find_source("isic2018")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: source: expected isic2019, hyperkvasir, ... got 'isic2018'; ...
    """
    kind, _, rest = name.partition(":")
    if kind == "medmnist":
        return _medmnist(rest)
    makers = {
        "isic2019": _isic2019,
        "hyperkvasir": _hyperkvasir,
        "fopro-splits": _fopro_splits,
        "moco-v2": _moco,
    }
    if name not in makers:
        near = get_close_matches(name, [*PLAIN_NAMES, "medmnist:derma"], n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see `fopro data list`"
        raise InputError(
            f"source: expected {', '.join(PLAIN_NAMES)} or medmnist:NAME, got '{name}'; {hint}"
        )
    return makers[name]()


def published_hashes(name: str) -> dict[str, str]:
    """Return the SHA-256 of a source's files, of those whose publisher's bytes are pinned.

    Args:
        name: As of `find_source`.

    Returns:
        By path below the source's folder, 64 hexadecimal digits each.

    Example:
        >>> published_hashes("hyperkvasir")["official_splits/2_fold_split.csv"][:8]
        'e9bc264d'
    """
    return {f.name: f.known[7:] for f in find_source(name).files if f.known[:7] == "sha256:"}


def medmnist_facts() -> dict[str, dict]:
    """Return what MedMNIST's package (3.0.2) publishes on its 2-D sets of one label an image.

    Returns:
        By short name: channels, images (train, val, test), licence, md5 by size, classes.

    Example:
        >>> medmnist_facts()["derma"]["images"]
        [7007, 1003, 2005]
    """
    facts: dict[str, dict] = json.loads((HERE / "medmnist.json").read_text(encoding="utf-8"))
    return facts


def _isic2019() -> Source:
    stem = "ISIC_2019_Training_"
    archive = RemoteFile(
        *(f"{stem}Input.zip", f"{ISIC2019}{stem}Input.zip"),
        size=9_771_618_190,
        unpacked=10_500_000_000,  # JPEGs: the zip saves next to nothing
        members=26_000,
        holds=(f"{stem}Input",),
    )
    tables = tuple(
        RemoteFile(f"{stem}{table}.csv", f"{ISIC2019}{stem}{table}.csv", size=1_300_000)
        for table in ("GroundTruth", "Metadata")
    )
    return Source(
        "isic2019",
        (*tables, archive),
        licence="CC BY-NC 4.0",
        citation=(
            "Tschandl P., Rosendahl C., Kittler H.: The HAM10000 dataset. Sci. Data 5, 180161 "
            "(2018). Codella N. C. F. et al.: Skin Lesion Analysis Toward Melanoma Detection, "
            "ISBI 2017 challenge, arXiv:1710.05006. Combalia M. et al.: BCN20000: Dermoscopic "
            "Lesions in the Wild, arXiv:1908.02288."
        ),
        home="https://challenge.isic-archive.com/data/#2019",
    )


def _hyperkvasir() -> Source:
    archive = RemoteFile(
        "hyper-kvasir-labeled-images.zip",
        "https://datasets.simula.no/downloads/hyper-kvasir/hyper-kvasir-labeled-images.zip",
        size=3_928_814_344,
        unpacked=4_500_000_000,
        members=12_000,
        holds=("labeled-images",),
    )
    hashes = {
        2: "e9bc264da8dd4ce5ebd6654080eb9ec8a00fd28c3d03a75a2c80b1eb5a096c06",
        5: "0230b465bdf73c23e949c74e1d4d68c4905a758195ea6b69b10f32c71a3be426",
    }
    splits = tuple(
        RemoteFile(
            f"official_splits/{folds}_fold_split.csv",
            f"{KVASIR_SPLITS}{folds}_fold_split.csv",
            known=f"sha256:{digest}",
            size=621_410,
        )
        for folds, digest in hashes.items()
    )
    return Source(
        "hyperkvasir",
        (*splits, archive),
        licence="CC BY 4.0",
        citation=(
            "Borgli H. et al.: HyperKvasir, a comprehensive multi-class image and video dataset "
            "for gastrointestinal endoscopy. Sci. Data 7, 283 (2020), "
            "doi 10.1038/s41597-020-00622-y."
        ),
        home="https://datasets.simula.no/hyper-kvasir/",
        note="the labelled images alone, and the official splits",
    )


def _fopro_splits() -> Source:
    lines = (HERE / "fopro_splits.sha256").read_text(encoding="ascii").splitlines()
    return Source(
        "fopro-splits",
        tuple(
            RemoteFile(name, FOPRO + name, known=f"sha256:{digest}", size=140_000)
            for digest, name in (line.split() for line in lines)
        ),
        licence="none stated; published for comparison with the paper, which asks to be cited",
        citation=(
            "Elbatel M., Marti R., Li X.: FoPro-KD: Fourier Prompted Effective Knowledge "
            "Distillation for Long-Tailed Medical Image Recognition. IEEE TMI 43(3), 954-965 "
            "(2024), doi 10.1109/TMI.2023.3327428. Elbatel M. et al.: Federated Model "
            "Aggregation via Self-supervised Priors. MICCAI 2023 Workshops, 334-346."
        ),
        home="https://github.com/xmed-lab/FoPro-KD",
        note="the 45 split files of ISIC-2019-LT, no images",
    )


def _moco() -> Source:
    name = "moco_v2_800ep_pretrain.pth.tar"
    url = f"https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/{name}"
    return Source(
        "moco-v2",
        (RemoteFile(name, url, known="md5:a04e12f8"),),
        licence="CC BY-NC 4.0",
        citation="Chen X. et al.: Improved Baselines with Momentum Contrastive Learning, "
        "arXiv:2003.04297 (2020).",
        home="https://github.com/facebookresearch/moco",
        note="ResNet-50, 800 epochs: the teacher moco-v2-resnet50",
    )


def _medmnist(rest: str) -> Source:
    short, dash, text = rest.partition("-")
    facts = medmnist_facts()
    size = int(text) if text.isdecimal() else 28
    if short not in facts or (dash and str(size) != text) or size not in SIZES:
        raise InputError(
            f"source: expected medmnist: with one of {', '.join(facts)}, and -64, -128 or -224 "
            f"for larger images, got 'medmnist:{rest}'"
        )
    fact = facts[short]
    pixels = sum(fact["images"]) * size * size * fact["channels"]
    stem = f"{short}mnist" + ("" if size == 28 else f"_{size}")
    parts = [f"{part}_{kind}.npy" for part in ("train", "val", "test") for kind in KINDS]
    archive = RemoteFile(
        f"{stem}.npz",
        f"{MEDMNIST}{stem}.npz?download=1",
        known=f"md5:{fact['md5'][str(size)]}",
        size=pixels,  # at most: it is compressed
        unpacked=pixels + 8 * sum(fact["images"]) + 100_000,  # labels and headers
        members=16,
        holds=tuple(parts),
    )
    return Source(
        f"medmnist:{short}" + ("" if size == 28 else f"-{size}"),
        (archive,),
        licence=fact["licence"],
        citation=(
            "Yang J. et al.: MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D "
            "biomedical image classification. Sci. Data 10, 41 (2023), "
            "doi 10.1038/s41597-022-01721-8; and the work behind this set, named on its page."
        ),
        home="https://medmnist.com",
    )


RECORD = "fetched.json"


def read_record(place: Path) -> dict[str, Any]:
    """Return what is noted in a folder, or what an empty one would hold.

    Example:
        >>> read_record(Path("nowhere"))
        {'complete': False, 'files': {}}
    """
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        if isinstance(record["files"], dict) and isinstance(record["complete"], bool):
            return dict(record)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"complete": False, "files": {}}


def is_complete(source: Source, place: Path) -> bool:
    """Say whether all of a source was fetched and still lies there; looks at no image.

    Example:
        >>> from fopro_lab.data.fetch import find_source
        >>> is_complete(find_source("moco-v2"), Path("nowhere"))
        False
    """
    return read_record(place)["complete"] and all((place / name).exists() for name in source.places)


def note_file(place: Path, source: Source, name: str, facts: dict[str, Any]) -> None:
    """Note that a file is whole and in place.

    Args:
        place: The source's folder.
        source: What is fetched.
        name: Of the file.
        facts: Address, bytes, sha256, and against what it was checked.
    """
    record = read_record(place)
    files = record["files"] | {name: facts}
    write_json(place / RECORD, {"source": source.name, "complete": False, "files": files})


def note_complete(place: Path, source: Source) -> None:
    """Write licence and origin for people, then note that all is there."""
    record = read_record(place)
    day = time.strftime("%Y-%m-%d")
    with atomic_path(place / "LICENCE.txt") as temporary:
        temporary.write_text(_licence(source), encoding="utf-8")
    with atomic_path(place / "SOURCE.txt") as temporary:
        temporary.write_text(_origin(source, record["files"], day), encoding="utf-8")
    write_json(place / RECORD, record | {"complete": True, "date": day})


def described(source: Source) -> str:
    """Return licence, citation and home of a source as lines.

    Example:
        >>> from fopro_lab.data.fetch import find_source
        >>> described(find_source("hyperkvasir")).splitlines()[0]
        'licence: CC BY 4.0'
    """
    note = f"\nnote: {source.note}" if source.note else ""
    return (
        f"licence: {source.licence}\nplease cite: {source.citation}\n"
        f"publisher's page: {source.home}{note}"
    )


def _licence(source: Source) -> str:
    return (
        f"{source.name}\n\n{described(source)}\n\n"
        "The publisher's page has the terms in full; they are the publisher's, not this "
        "package's.\n"
    )


def _origin(source: Source, files: dict[str, dict[str, Any]], day: str) -> str:
    lines = [f"{source.name}, fetched {day}", "", described(source)]
    for name, facts in files.items():
        lines += ["", name, *(f"  {key}: {value}" for key, value in facts.items())]
    return "\n".join(lines) + "\n"


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


@dataclass(frozen=True)
class Answer:
    """What was said of a file.

    Attributes:
        url: Where it was asked for.
        validator: Strong ETag or time of change; the same one stands for the same bytes.
        total: Bytes of the whole file; 0 where nothing was said, -1 where it makes no sense.
        checked: Whether the whole file is here and its length was found true.

    Example:
        >>> Answer("https://example.org/a.zip", total=3).validator
        ''
    """

    url: str
    validator: str = ""
    total: int = 0
    checked: bool = False

    def write(self, note: Path) -> None:
        """Keep it beside the part."""
        write_json(note, asdict(self))


def read_answer(note: Path) -> Answer:
    """Return what was kept, or an empty answer.

    Example:
        >>> read_answer(Path("nowhere.json"))
        Answer(url='', validator='', total=0, checked=False)
    """
    try:
        return Answer(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Answer("")


def answer_of(response: requests.Response, url: str) -> Answer:
    """Read the headers of an answer.

    Args:
        response: With status 200 or 206.
        url: As it was asked for, before any redirect.

    Returns:
        What they say.
    """
    tag = response.headers.get("ETag", "")
    strong = "" if tag.startswith("W/") else tag  # a weak one stands for similar bytes
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else 0
    if response.status_code == 206:
        total = content_range(response)[1]
    return Answer(url, strong or response.headers.get("Last-Modified", ""), total)


def content_range(response: requests.Response) -> tuple[int, int]:
    """Return start and total of ``Content-Range: bytes start-end/total``; -1 where it is wrong."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not (first.isdecimal() and total.isdecimal()):
        return -1, -1
    return int(first), int(total)


def goes_on(response: requests.Response, *, before: Answer, start: int) -> bool:
    """Say whether an answer goes on with the very file of which ``start`` bytes are here."""
    if response.status_code != 206 or content_range(response)[0] != start:
        return False
    now = answer_of(response, before.url)
    return now.total == before.total and now.validator in ("", before.validator)


BLOCK = 1 << 16
LONGEST_PAUSE = 60.0  # seconds, whatever the server asks for
WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)
NETWORK_ERRORS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class Patience(NamedTuple):
    """How long a download waits, in seconds, and how often it tries again.

    Attributes:
        connect: For the server to answer the call.
        read: For the next bytes.
        attempts: In a row that bring nothing new.
        pause: Before the second attempt; it doubles, up to a minute.
        slow: Least bytes a second over ``read`` seconds.

    Example:
        >>> Patience().attempts
        5
    """

    connect: float = 15.0
    read: float = 60.0
    attempts: int = 5
    pause: float = 1.0
    slow: float = 100.0


class _Cut(Exception):
    """The download stopped early; another attempt may go on, after ``wait`` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class ResumingDownloader:
    """Download to a stable ``.part`` file and go on with it next time; called by pooch.

    Args:
        part: The file that grows; a note beside it keeps what the server said of it.
        label: For messages, e.g. the file's name.
        reserve: Bytes of free disk that are needed besides, to unpack.
        progress: Say how far it is.
        patience: Time-outs and attempts.
        plain: Allow http; otherwise the address and every redirect must be https.
        proven: Whether a published hash will tell a short file; otherwise the server is asked
            whether there is more behind the declared end.

    Example:
        >>> ResumingDownloader(Path("a.zip.part"), label="a.zip").note.name
        'a.zip.part.json'
    """

    def __init__(
        self,
        part: Path,
        *,
        label: str,
        reserve: int = 0,
        progress: bool = False,
        patience: Patience | None = None,
        plain: bool = False,
        proven: bool = False,
    ) -> None:
        self.part, self.note = part, part.with_name(part.name + ".json")
        self.label, self.reserve, self.progress = label, reserve, progress
        self.patience, self.plain, self.proven = patience or Patience(), plain, proven
        self.told, self.resumable = Answer(""), True

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        """Download ``url`` and leave the whole file at ``output_file`` too.

        Raises:
            WorkError: If the server is gone, refuses, stalls or lies, or the disk is full.
        """
        with disk_told(self.part.parent, kept=self._kept), requests.Session() as session:
            self._download(session, url)
            _share(self.part, output_file)

    def discard(self) -> None:
        """Remove what was downloaded."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _download(self, session: requests.Session, url: str) -> None:
        failures, best, pause = 0, self._have(), self.patience.pause
        while not self._is_whole(url):
            try:
                self._attempt(session, url)
            except (_Cut, *NETWORK_ERRORS) as error:
                gained = self._have() > best
                best = max(best, self._have())
                failures = 1 if gained else failures + 1
                pause = self.patience.pause if gained else min(2 * pause, LONGEST_PAUSE)
                if failures >= self.patience.attempts:
                    raise WorkError(
                        f"{self.label}: {_reason(error)}, {failures} times in a row; "
                        f"{self._kept()}; address {url} (--mirror gives another)"
                    ) from None
                if self.progress:
                    sys.stderr.write(f"{self.label}: {_reason(error)}, trying again\n")
                time.sleep(max(pause, min(getattr(error, "wait", 0.0), LONGEST_PAUSE)))
            except requests.RequestException as error:
                raise WorkError(f"{self.label}: {url}: {error}") from None

    def _attempt(self, session: requests.Session, url: str) -> None:
        """Ask for what is missing and write it."""
        before = read_answer(self.note)
        known = before.url == url and before.validator and before.total
        start = self._have() if known else 0
        if 0 < start == before.total:  # stopped after the last byte
            self.told = before
            return self._check_length(session, url)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": before.validator}
        with self._get(session, url, headers) as response:
            self._refuse(response, url)
            if start and not goes_on(response, before=before, start=start):
                if response.status_code == 206:  # of another file, or of another place in it
                    self.discard()
                    raise _Cut("the file changed at the server")
                start = 0  # the whole file once more: no ranges here, or another file
                self.resumable = False
            self.told = answer_of(response, url)
            check_disk(
                self.part.parent, max(self.told.total - start, 0) + self.reserve, label=self.label
            )
            if not start:
                self.discard()  # first: a new note must never stand beside old bytes
            self.told.write(self.note)
            with open(self.part, "ab" if start else "wb") as stream:
                for block in self._blocks(response, start):
                    stream.write(block)
        return self._check_length(session, url)

    def _check_length(self, session: requests.Session, url: str) -> None:
        """Compare what came with what was declared."""
        have, total = self._have(), self.told.total
        if not have:
            raise _Cut("the server sends nothing")
        if have < total:
            raise _Cut(f"sent {have} of the declared {total} bytes")
        if have > total > 0 or total < 0 or self._more_behind(session, url):
            self.discard()
            raise _Cut(f"declared {total} bytes, but holds more")
        # Where nothing was declared, the end of the answer is the end of the file.
        self.told = replace(self.told, total=have, checked=True)
        self.told.write(self.note)

    def _blocks(self, response: requests.Response, start: int) -> Iterator[bytes]:
        """Yield what comes; a connection that drips is cut like one that stands still."""
        # urllib3 2 gives what has come; older ones wait for the whole block.
        read = getattr(response.raw, "read1", response.raw.read)

        def incoming() -> Iterator[bytes]:
            since, got = time.monotonic(), 0
            while True:
                try:
                    block = read(BLOCK)
                except Exception as error:  # urllib3's and the socket's own kinds
                    raise _Cut(_reason(error)) from None
                if not block:
                    return
                yield block
                got += len(block)
                seconds = time.monotonic() - since
                if seconds > self.patience.read:
                    if got < self.patience.slow * seconds:
                        raise _Cut("the server stalls")
                    since, got = time.monotonic(), 0

        if not self.progress:
            return incoming()
        total = max(self.told.total, 0)
        return byte_progress(incoming(), done=start, total=total, label=f"fetching {self.label}")

    def _more_behind(self, session: requests.Session, url: str) -> bool:
        """Ask for what lies behind the declared end, where no hash would tell."""
        if self.proven or not self.told.total:
            return False
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={self._have()}-"}
        try:
            with self._get(session, url, headers) as response:
                return response.status_code == 206 and bool(response.raw.read(1))
        except Exception:  # no answer is no evidence
            return False

    def _get(
        self, session: requests.Session, url: str, headers: dict[str, str]
    ) -> requests.Response:
        timeout = (self.patience.connect, self.patience.read)
        return session.get(url, headers=headers, stream=True, timeout=timeout)

    def _refuse(self, response: requests.Response, url: str) -> None:
        for passed in (*response.history, response):
            if not self.plain and not passed.url.startswith("https://"):
                raise WorkError(f"{self.label}: expected https, was sent on to {passed.url}")
        if response.status_code == 416:  # nothing behind what is here: it is another file now
            self.discard()
            raise _Cut("the server holds less than it declared")
        if response.status_code in WORTH_A_RETRY:
            asked = response.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdecimal() else 0.0
            raise _Cut(f"the server answers {response.status_code} {response.reason}", wait)
        if response.status_code not in (200, 206):
            raise WorkError(
                f"{self.label}: the server answers {response.status_code} {response.reason} at "
                f"{url}; if its publisher has moved it, get it by hand or set FOPRO_MIRROR"
            )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise WorkError(
                f"{self.label}: the server compresses the file, which was not asked for"
            )

    def _is_whole(self, url: str) -> bool:
        told = read_answer(self.note)
        return told.checked and told.url == url and told.total == self._have()

    def _have(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def _kept(self) -> str:
        have = self._have()
        if not (have and self.resumable and read_answer(self.note).validator):
            return "the same command tries again"
        return f"{in_bytes(have)} are kept, the same command goes on from there"


def _share(part: Path, output_file: str) -> None:
    """Give pooch the file without a copy; the part stays until pooch has put it into place."""
    os.unlink(output_file)
    try:
        os.link(part, output_file)
    except OSError:  # a file system without hard links
        os.replace(part, output_file)


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, _Cut):
        return text
    if isinstance(error, requests.Timeout) or "timed out" in text.lower():
        return "the server stalls"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate cannot be trusted"
    if "NameResolutionError" in text:
        return "no connection, the server's name is not known here"
    if "NewConnectionError" in text or "ProxyError" in text:
        return "no connection, the server or a proxy refuses it"
    return "the connection broke"


ARCHIVES_BLOCK = 1 << 20
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
        ...         opened.writestr("images/1.txt", "one")
        ...     unpack(archive, Path(folder) / "out", largest=10, members=2)
        ['images']
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
        fopro_lab.data.fetch.UnsafeArchive: member '../b.jpg' leads out of the folder
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
            while block := stream.read(ARCHIVES_BLOCK):
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
    most = largest + members * HEADERS + ARCHIVES_BLOCK
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


DOWNLOADS = ".downloads"


def fetch(
    name: str, *, out: Path | str | None = None, progress: bool = True, mirror: str = ""
) -> Path:
    """Bring a source from its publisher, once.

    A fetch that was cut, killed or ran out of disk goes on where it stopped. A second process
    that wants the same waits for the first.

    Args:
        name: ``isic2019``, ``hyperkvasir``, ``fopro-splits``, ``moco-v2``, or ``medmnist:NAME``
            with ``-64``, ``-128`` or ``-224`` for larger images.
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
