"""Draws of a whole batch, of which several processes take their stretches."""

from typing import NamedTuple

import torch
from torch import Tensor


class Share(NamedTuple):
    """Which stretch of a batch some pictures are.

    A batch that is shared out must draw the numbers that it draws undivided: each process draws
    those of all, which is little, and keeps those of its own pictures.

    Attributes:
        start: Place of the first picture in the batch.
        stop: One past the place of the last.
        whole: Pictures of the batch.

    Example:
        >>> parts = [Share(0, 1, 3), Share(1, 3, 3)]
        >>> drawn = [p.randn(2, generator=torch.Generator().manual_seed(0)) for p in parts]
        >>> whole = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(torch.cat(drawn), whole)
        True
    """

    start: int
    stop: int
    whole: int

    def randn(
        self, *shape: int, generator: torch.Generator | None, device: torch.device | None = None
    ) -> Tensor:
        """Draw standard normal numbers for the whole batch and return this stretch of them.

        Args:
            shape: Of one picture's numbers.
            generator: Their source; None is torch's global one.
            device: Where to draw; None is where the generator is.

        Returns:
            ``(stop - start, *shape)``.
        """
        if generator is not None:
            device = generator.device
        drawn = torch.randn(self.whole, *shape, generator=generator, device=device)
        return drawn[self.start : self.stop]
