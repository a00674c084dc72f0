"""Reading ahead: while a GPU computes, the next batches are read into memory it can fetch from."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Read], *, depth: int = 2
) -> Iterator[Read]:
    """Yield what is read for each item, in order, some items ahead of who takes them.

    Args:
        items: What to read; taken in this thread.
        read: Reads an item, in a thread of its own, one after the other.
        depth: Items ahead, 1 or more.

    Raises:
        Exception: What reading an item raised, where that item's turn is.

    Example:
        >>> list(read_ahead([1, 2, 3], str))
        ['1', '2', '3']
    """
    waiting: list[Future[Read]] = []
    stream = iter(items)
    with ThreadPoolExecutor(max_workers=1) as reader:
        try:
            waiting += [reader.submit(read, item) for item in islice(stream, depth)]
            while waiting:
                done = waiting.pop(0).result()
                waiting += [reader.submit(read, item) for item in islice(stream, 1)]
                yield done
        finally:  # who took enough does not wait for what nobody wants
            for pending in waiting:
                pending.cancel()
