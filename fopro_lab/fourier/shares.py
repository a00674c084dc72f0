"""Draws of a whole batch, of which several processes take their stretches."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Share(NamedTuple):
    """Which stretch of a batch some pictures are.

    Attributes:
        start: Place of the first picture in the batch.
        stop: One past the place of the last.
        whole: Pictures of the batch.
    """

    start: int
    stop: int
    whole: int


def draw(
    count: int,
    *shape: int,
    generator: torch.Generator | None,
    device: torch.device | None = None,
    share: Share | None = None,
) -> Tensor:
    """Draw standard normal numbers for some pictures.

    A batch that is shared out must draw what it draws undivided: each process draws the numbers of
    all pictures, which are few, and keeps those of its own.

    Args:
        count: Number of pictures.
        shape: Of one picture's numbers.
        generator: Their source; None is torch's global one.
        device: Where to draw; a generator's own goes before.
        share: Stretch of a batch that the pictures are; None is all of it.

    Returns:
        ``(count, *shape)``.

    Example:
        >>> parts = [(1, Share(0, 1, 3)), (2, Share(1, 3, 3))]
        >>> drawn = [
        ...     draw(n, 2, generator=torch.Generator().manual_seed(0), share=part)
        ...     for n, part in parts]
        >>> whole = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(torch.cat(drawn), whole)
        True
    """
    # An exported prompt keeps its batch free only without a slice, and without naming no generator.
    where: dict[str, Any] = {"device": device}
    if generator is not None:
        where = {"device": generator.device, "generator": generator}
    if share is None:
        return torch.randn(count, *shape, **where)
    return torch.randn(share.whole, *shape, **where)[share.start : share.stop]
