"""Images that cost nothing, and processes that die at a chosen line."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable

import numpy as np

from fopro_lab.data import Dataset
from fopro_lab.errors import InputError

ROOMS = ("packing.py", "pack_writing.py", "decode_chunks.py", "journal.py", "files.py")


def noise(dataset: Dataset, *, unreadable: tuple[int, ...] = ()) -> Dataset:
    """Give each row known pixels that cost nothing, and let some rows be unreadable."""
    object.__setattr__(dataset, "reader", Noise(tuple(range(len(dataset))), unreadable))
    return dataset


class Noise:
    def __init__(self, rows: tuple[int, ...], unreadable: tuple[int, ...]) -> None:
        self.rows, self.unreadable = rows, unreadable

    def __call__(self, row: int, size: int) -> np.ndarray:
        if self.rows[row] in self.unreadable:
            raise InputError(f"{self.rows[row]}: cannot be decoded")
        rng = np.random.default_rng(self.rows[row])
        return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)

    def take(self, rows: np.ndarray) -> "Noise":
        return Noise(tuple(self.rows[row] for row in rows), self.unreadable)


def in_child(work: Callable[[], object]) -> int:
    """Do some work in a forked process and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(timeout=60)
    assert process.exitcode is not None
    return process.exitcode


def killed_after(lines: int, work: Callable[[], object]) -> Callable[[], None]:
    """Let ``work`` die by SIGKILL when that many lines of the packing were executed."""

    def traced() -> None:
        left = lines

        def trace(frame, event, value):
            nonlocal left
            if os.path.basename(frame.f_code.co_filename) not in ROOMS:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()

    return traced
