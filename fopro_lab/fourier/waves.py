"""A smooth basis for gains: few waves along the octaves, three directions, one contrast a channel.

A coarse map has hundreds of cells, each learnt from its own bins alone, and most of them far above
the frequencies where pictures have their energy. Here 54 numbers tell a gain: cosines over the
octaves of radial frequency, times what tells horizontal from vertical and axes from diagonals,
times the mean of the channels and their contrasts (luminance and two colours).
"""

import math

import torch
from torch import Tensor

from fopro_lab.fourier.spectrum import cached_grid, frequencies

DIRECTIONS = 3  # 1, cos 2t, cos 4t: even in both frequencies, so mirrored bins agree by themselves
OCTAVES_FROM = 1 / 32  # cycles per pixel; below it the scale is linear, above it in octaves


def waves_shape(channels: int, waves: int) -> tuple[int, int, int]:
    """Return the shape of the coefficients of one gain.

    Example:
        >>> waves_shape(3, 6)
        (3, 6, 3)
    """
    return channels, waves, DIRECTIONS


def sum_of_waves(coefficients: Tensor, *, height: int, width: int) -> Tensor:
    """Add up the basis at each bin of a picture's half spectrum.

    Args:
        coefficients: ``(..., C, waves, 3)``.
        height: Rows of the picture, pixels.
        width: Columns of the picture, pixels.

    Returns:
        ``(..., C, height, width // 2 + 1)``, real and without a bound.

    Example:
        >>> flat = torch.zeros(1, 2, 3)
        >>> flat[0, 0, 0] = 0.5  # the first wave is constant
        >>> sum_of_waves(flat, height=4, width=4).unique().tolist()
        [0.5]
    """
    channels, waves = coefficients.shape[-3:-1]
    place, kind = coefficients.device, coefficients.dtype
    basis = _basis(height, width, waves, place, kind)
    mixed = _contrasts(channels, place, kind) @ coefficients.flatten(-2)
    return (mixed @ basis.flatten(1)).unflatten(-1, basis.shape[1:])


@cached_grid
def _basis(height: int, width: int, waves: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Waves over octaves times directions, ``(waves * 3, height, width // 2 + 1)``."""
    down = frequencies(height)[:, None]
    across = frequencies(width)[: width // 2 + 1].abs()[None, :]
    radius = torch.hypot(down, across)
    octaves = torch.log1p(radius / OCTAVES_FROM) / math.log1p(math.sqrt(0.5) / OCTAVES_FROM)
    number = torch.arange(waves, dtype=torch.float64)[:, None, None]
    along = torch.cos(math.pi * number * octaves)
    # cos 2t without an angle, whose gradient and value at DC would be undefined
    turned = (across**2 - down**2) / radius.square().clamp(min=1e-12)
    around = torch.stack([torch.ones_like(turned), turned, 2 * turned**2 - 1])
    return (along[:, None] * around).flatten(0, 1).to(device, dtype)


@cached_grid
def _contrasts(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Columns: the mean of the channels, then their contrasts; each cosine has the same power.

    For three channels these are luminance, red against blue, and green against both.
    """
    number = torch.arange(channels, dtype=torch.float64)
    matrix = torch.cos(math.pi * (number[:, None] + 0.5) * number / channels)
    matrix[:, 1:] *= math.sqrt(2)
    return matrix.to(device, dtype)
