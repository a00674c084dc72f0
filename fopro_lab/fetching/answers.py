"""What a server says of a file, kept beside the part of it that is here."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from fopro_lab.files import write_json


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
