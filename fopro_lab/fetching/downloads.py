"""One file over HTTP: it goes on where it was cut, and a changed file is never glued together."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import requests

from fopro_lab.errors import WorkError
from fopro_lab.fetching.answers import Answer, answer_of, goes_on, read_answer
from fopro_lab.fetching.disk import check_disk, disk_told
from fopro_lab.progress import byte_progress, in_bytes

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
