"""How far a run is: a bar in a terminal, a plain line now and then elsewhere."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from fopro_lab.config import TrainConfig
from fopro_lab.progress import progress

Item = TypeVar("Item")

LINE_SECONDS = 15.0  # a log gets at most one line in this time, beside those that end an epoch


@dataclass
class Teller:
    """Says on standard error how far a run is.

    Attributes:
        config: Of the run.
        verbose: False says nothing.
        begun: When it began, as of ``time.monotonic``.
        told: When the last line was written; none yet is long ago.
        ended: When the last line that ends an epoch was written.

    Example:
        >>> list(Teller(TrainConfig(), verbose=False).watch("abc", epoch=0, total=3, what="batch"))
        ['a', 'b', 'c']
    """

    config: TrainConfig
    verbose: bool = True
    begun: float = field(default_factory=time.monotonic)
    told: float = -math.inf
    ended: float = -math.inf

    def watch(
        self, items: Iterable[Item], *, epoch: int, total: int, what: str, done: int = 0
    ) -> Iterator[Item]:
        """Yield some work of an epoch and say how far it is.

        Args:
            items: The work.
            epoch: Counted from 0.
            total: Number of items, with those that were done before.
            what: What an item is, such as ``"batch"``.
            done: Items that were done before.
        """
        if self.verbose and sys.stderr.isatty():
            label = f"{self._run(epoch)}, {what}"
            yield from progress(items, total=total - done, label=label)
            return
        for number, item in enumerate(items, start=done + 1):
            yield item
            if self.verbose and number < total and self._quiet() >= LINE_SECONDS:
                self._write(f"{self._run(epoch)}, {what} {number} of {total}")

    def end_epoch(self, epoch: int, text: str, *, last: bool) -> None:
        """Say what an epoch came to: a short one is passed over, unless it is first or last.

        Args:
            epoch: Counted from 0.
            text: What it came to.
            last: Whether it ends the run.
        """
        long = time.monotonic() - self.ended > LINE_SECONDS
        if self.verbose and (last or long or sys.stderr.isatty()):
            self.ended = time.monotonic()
            self._write(f"{self._run(epoch)}, {text}")

    def _run(self, epoch: int) -> str:
        config = self.config
        return f"{config.method} seed {config.seed}: epoch {epoch + 1} of {config.epochs}"

    def _quiet(self) -> float:
        return time.monotonic() - max(self.begun, self.told)

    def _write(self, line: str) -> None:
        self.told = time.monotonic()
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
