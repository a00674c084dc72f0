"""What of an unfinished pack is done: a line a chunk, written after its pixels."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fopro_lab.files import atomic_path


@dataclass(frozen=True)
class Chunk:
    """Some pictures in a row that were decoded together.

    Attributes:
        crc: CRC-32 over the pixels of the readable pictures, in order.
        unreadable: Row numbers of the others, and why.

    Example:
        >>> Chunk.from_mapping(Chunk(7, {3: "cut"}).as_mapping()) == Chunk(7, {3: "cut"})
        True
    """

    crc: int
    unreadable: dict[int, str]

    def as_mapping(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"crc": self.crc, "unreadable": {str(k): v for k, v in self.unreadable.items()}}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Chunk":
        """Build it from what `as_mapping` returned."""
        unreadable = {int(row): str(reason) for row, reason in values["unreadable"].items()}
        return cls(int(values["crc"]), unreadable)


class Journal:
    """The list of finished chunks beside a pack in the making.

    Each line carries its own checksum: what a kill or a power cut tore is not believed, nor what
    follows it. The journal claims, the pixels decide: who reads it compares each chunk with the
    file, so the two need not reach the disk in order.

    Args:
        path: The file, one that exists or shall.
        head: What the chunks belong to; a journal of something else is not read.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "a.journal"
        >>> Journal(path, {"rows": 9}).start({})
        >>> with Journal(path, {"rows": 9}) as journal:
        ...     journal.add(0, Chunk(7, {}))
        >>> Journal(path, {"rows": 9}).read(), Journal(path, {"rows": 8}).read()
        ({0: Chunk(crc=7, unreadable={})}, {})
        >>> folder.cleanup()
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.head = dict(head)

    def read(self) -> dict[int, Chunk]:
        """Return the chunks by number; none if there is no journal of this head."""
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        entries = []
        for line in lines:
            entry = _parse(line)
            if entry is None:
                break
            entries.append(entry)
        if not entries or entries[0] != self.head:
            return {}
        return {int(entry["chunk"]): Chunk.from_mapping(entry) for entry in entries[1:]}

    def start(self, chunks: Mapping[int, Chunk]) -> None:
        """Write the head and the chunks that are kept, in place of what was there."""
        entries = [self.head, *({"chunk": n, **c.as_mapping()} for n, c in chunks.items())]
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(b"".join(map(_line, entries)))

    def add(self, number: int, chunk: Chunk) -> None:
        """Note that a chunk's pixels are written; inside ``with``."""
        self._stream.write(_line({"chunk": number, **chunk.as_mapping()}))
        self._stream.flush()

    def __enter__(self) -> "Journal":
        self._stream = open(self.path, "ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()


def _line(entry: Mapping[str, Any]) -> bytes:
    body = json.dumps(entry).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> dict[str, Any] | None:
    check, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(body):
        return None
    entry: dict[str, Any] = json.loads(body)
    return entry
