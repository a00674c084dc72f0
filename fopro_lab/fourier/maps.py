"""Coarse maps over frequency, and how they are read at the size of a picture.

A coarse map is the half spectrum of a ``rows x rows`` picture, so it lives in cycles per pixel:
row ``i`` is the vertical frequency ``i / rows`` (it wraps, as frequencies do), column ``j`` the
horizontal one, from 0 to 0.5. What is learnt at 64 pixels so means the same at 112.
"""

import torch
from torch import Tensor

from fopro_lab.errors import ShapeError
from fopro_lab.fourier.spectrum import cached_grid, frequencies


def coarse_shape(rows: int) -> tuple[int, int]:
    """Return rows and columns of a coarse map.

    Example:
        >>> coarse_shape(16)
        (16, 9)
    """
    return rows, rows // 2 + 1


def mirror(coarse: Tensor) -> Tensor:
    """Give mirrored rows of the first and last column the mean of their two values.

    There a real picture's two frequencies are one, so a map that differs would not act as it shows.

    Args:
        coarse: Coarse maps, ``(..., rows, rows // 2 + 1)``.

    Returns:
        Maps of the same shape; the other columns are untouched.

    Example:
        >>> mirror(torch.tensor([[1.0, 1.0], [2.0, 0.0], [4.0, 0.0]])).tolist()
        [[1.0, 1.0], [3.0, 0.0], [3.0, 0.0]]
    """
    opposite = coarse.flip(-2).roll(1, -2)
    half = torch.zeros(coarse.shape[-1], dtype=coarse.dtype, device=coarse.device)
    half[0] = half[-1] = 0.5
    return torch.lerp(coarse, opposite, half)


def resample(coarse: Tensor, *, height: int, width: int) -> Tensor:
    """Read coarse maps at each bin of a picture's half spectrum, bilinear in frequency.

    Every value is a weighted mean of four coarse ones, so no bound of theirs is left.

    Args:
        coarse: Coarse maps, ``(..., rows, rows // 2 + 1)``.
        height: Rows of the picture, pixels.
        width: Columns of the picture, pixels.

    Returns:
        ``(..., height, width // 2 + 1)`` in ``rfft2`` order, in the unit of ``coarse``.

    Raises:
        ShapeError: If the last two axes are not those of a coarse map of 2 rows or more.

    Example:
        >>> coarse = torch.arange(4.0).expand(6, 4)  # 0 at 0, 3 at 0.5 cycles per pixel
        >>> resample(coarse, height=1, width=4).tolist()
        [[0.0, 1.5, 3.0]]
    """
    rows = coarse.shape[-2] if coarse.ndim > 1 else 0
    if rows < 2 or coarse.shape[-1] != rows // 2 + 1:
        raise ShapeError(f"coarse: expected (..., R, R // 2 + 1), got {tuple(coarse.shape)}")
    down = _row_weights(height, rows, coarse.device, coarse.dtype)
    across = _column_weights(width, rows // 2 + 1, coarse.device, coarse.dtype)
    return down @ coarse @ across.T


@cached_grid
def _row_weights(height: int, rows: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weight of each coarse row in each row of the picture's spectrum, ``(height, rows)``."""
    distance = frequencies(height)[:, None] * rows - torch.arange(rows, dtype=torch.float64)
    around = (distance + rows / 2) % rows - rows / 2
    return (1 - around.abs()).clamp(min=0).to(device, dtype)


@cached_grid
def _column_weights(width: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weight of each coarse column in each one of the spectrum, ``(width // 2 + 1, columns)``."""
    place = frequencies(width)[: width // 2 + 1].abs() * 2 * (columns - 1)
    distance = place[:, None] - torch.arange(columns, dtype=torch.float64)
    return (1 - distance.abs()).clamp(min=0).to(device, dtype)
