"""What rings and gains must be before anything is measured."""

from collections.abc import Sequence

from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_masks


def check_gains(gains: Sequence[float]) -> None:
    """Refuse gains of rings that are none, negative or not finite.

    Raises:
        InputError: If so.

    Example:
        >>> check_gains([-1.0])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: gains: expected one or more finite factors of 0 or above,
        got [-1.0]
    """
    if len(gains) == 0 or not all(0 <= gain < float("inf") for gain in gains):
        raise InputError(
            f"gains: expected one or more finite factors of 0 or above, got {list(gains)}"
        )


def check_rings(edges: Sequence[float], *, height: int, width: int) -> None:
    """Refuse edges that do not increase, and rings that hold no frequency of such a picture.

    Raises:
        InputError: If so; names the first empty ring.

    Example:
        >>> check_rings([0, 0.01, 0.75], height=16, width=16)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: edges: expected a frequency in every ring, got none in ring 0
        (0 to 0.01 cycles per pixel) of pictures of 16 x 16 px; use fewer rings or larger pictures
    """
    filled = ring_masks(height, width, edges).flatten(1).any(dim=1).tolist()
    if not all(filled):
        ring = filled.index(False)
        raise InputError(
            f"edges: expected a frequency in every ring, got none in ring {ring} "
            f"({edges[ring]:g} to {edges[ring + 1]:g} cycles per pixel) of pictures of "
            f"{height} x {width} px; use fewer rings or larger pictures"
        )
