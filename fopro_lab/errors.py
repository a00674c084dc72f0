"""The two ways a command can fail: each message names thing, rule, value and way out."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """The user's input was wrong: a path, a column, a value, a file. The command exits with 2."""


class ShapeError(InputError):
    """A tensor or array of the wrong shape."""


class WorkError(RuntimeError):
    """The input was right and the work failed: disk full, a notebook's red cell. Exits with 1."""


@contextmanager
def said_of(where: str) -> Iterator[None]:
    """Say where a wrong input stands."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
