"""The two ways a command can fail: each message names thing, rule, value and way out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# What would move a terminal's cursor, colour it, or turn the order of letters.
CONTROL = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"


def printable(text: object, *, but: str = "") -> str:
    """Write control codes, ``but`` some, and halves of letters as their escapes."""
    escape = lambda found: found[0].encode("unicode_escape").decode()  # noqa: E731
    return re.sub(f"[{CONTROL}]", lambda m: m[0] if m[0] in but else escape(m), str(text))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


class _Said(Exception):
    """An error whose message is one line of printable text, in which long values are shortened."""

    def __init__(self, message: object = "") -> None:
        line = re.sub(r"\S{400,}", lambda found: _short(found[0], 100), printable(message))
        super().__init__(_short(line, 2000))


class InputError(_Said, ValueError):
    """The user's input was wrong: a path, a column, a value, a file. The command exits with 2."""


class ShapeError(InputError):
    """A tensor or array of the wrong shape."""


class WorkError(_Said, RuntimeError):
    """The input was right and the work failed: disk full, a notebook's red cell. Exits with 1."""


@contextmanager
def said_of(where: str) -> Iterator[None]:
    """Say where a wrong input stands."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
