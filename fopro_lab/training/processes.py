"""What the processes of one run do together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier.shares import Share
from fopro_lab.training.peers import Peers

Result = TypeVar("Result")


@dataclass(eq=False)
class Processes:
    """Who takes part in a run, and what they do together.

    Every process must call the same methods in the same order, `first` alone excepted.

    Attributes:
        rank: This process, from 0.
        world_size: How many there are.
        device: Of this process.
        peers: Who is heard when one fails; None for one process.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    peers: Peers | None = None
    waits: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let all raise what one raises, and a lost process end the run; see `Peers.heard`."""
        with self.peers.heard() if self.peers is not None else nullcontext():
            yield

    def share(self, count: int) -> Share:
        """Say which stretch of some pictures is this process's.

        Example:
            >>> [Processes(rank, 2).share(5)[:2] for rank in (0, 1)]
            [(0, 2), (2, 5)]
        """
        start, stop = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return Share(start, stop, count)

    def first_does(self, work: Callable[[], Result]) -> Result:
        """Let the first process do something and all know its result.

        Args:
            work: What the others do not do; its result must be one that can be pickled.

        Returns:
            The first's result, on every process.

        Raises:
            InputError: On every process, if the first raised it.
            WorkError: As well.
        """
        if not self.many:
            return work()
        result, error = None, None
        if self.first:
            try:
                result = work()
            except (InputError, WorkError) as failed:
                error = failed
        kind = None if error is None else "input" if isinstance(error, InputError) else "work"
        kind, text, result = self._from_first((kind, str(error), result))
        if error is not None:
            raise error
        if kind is not None:
            raise (InputError if kind == "input" else WorkError)(text)
        return result

    def first_then_others(self, work: Callable[[], Result]) -> Result:
        """Let the first do something, for hours if need be, and then the others the same.

        All go on when all have done it: what they then do together has a limit of time.

        Args:
            work: What is quickly done again where the first has left its result, such as packing
                into a cache that all can read; with a cache of its own, a machine may take as
                long as the first.

        Returns:
            Of each process its own.
        """
        if self.peers is None:
            return work()
        self.waits += 1
        done = [f"wait {self.waits} of {rank}" for rank in range(self.world_size)]
        if not self.first:
            self.peers.wait_for(done[0])
        result = work()
        self.peers.say(done[self.rank])
        for key in done:
            self.peers.wait_for(key)
        return result

    def agree(self, facts: dict[str, Any]) -> None:
        """Refuse to go on where a process has other data or knobs than the first.

        Args:
            facts: What must be the same, each by its name.

        Raises:
            InputError: On the process that differs, and so on all.
        """
        if not self.many:
            return
        theirs = self._from_first(facts)
        for name, value in facts.items():
            if value != theirs[name]:
                raise InputError(
                    f"process {self.rank + 1} of {self.world_size}: its {name} is not that of the "
                    "first; each machine needs the same command, data and weights"
                )

    def mean(self, values: Tensor) -> Tensor:
        """Average a small tensor over the processes: the same bits on all, nothing is read."""
        if not self.many:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.world_size

    def joined(self, part: np.ndarray, count: int) -> np.ndarray:
        """Join the rows that the processes made of their stretches, exactly and in order.

        Args:
            part: ``(n, ...)``, of the stretch that `share` names.
            count: Rows of all.

        Returns:
            ``(count, ...)``, the same on every process.
        """
        if not self.many:
            return part
        lengths = [Processes(rank, self.world_size).share(count) for rank in range(self.world_size)]
        sizes = [length.stop - length.start for length in lengths]
        own = torch.zeros(max(sizes), *part.shape[1:], dtype=torch.from_numpy(part).dtype)
        own[: len(part)] = torch.from_numpy(part)  # gathered are tensors of one shape
        own = own.to(self.device)
        parts = [torch.empty_like(own) for _ in sizes]
        dist.all_gather(parts, own)
        rows = [rows[:size].cpu() for rows, size in zip(parts, sizes, strict=True)]
        return torch.cat(rows).numpy()

    @torch.no_grad()
    def alike(self, *networks: nn.Module | None) -> None:
        """Give every process the first's weights and buffers."""
        if not self.many:
            return
        for network in networks:
            for value in network.state_dict().values() if network is not None else ():
                sent = value.to(torch.uint8) if value.dtype == torch.bool else value
                sent = sent.clone(memory_format=torch.contiguous_format)
                dist.broadcast(sent, 0)
                value.copy_(sent)

    def _from_first(self, content: Any) -> Any:
        box = [content if self.first else None]
        dist.broadcast_object_list(box, 0)
        return box[0]
