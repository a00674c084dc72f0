"""Rings: the half spectrum divided by radial frequency, in cycles per pixel.

Ring ``k`` is ``(edges[k], edges[k + 1]]``. DC is in no ring, and the corners beyond 0.5 cycles per
pixel, where only diagonal waves reach, are a ring of their own.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.spectrum import (
    at_least_single,
    cached_grid,
    check_images,
    radial_frequency,
)

CORNER = 0.75  # cycles per pixel; above sqrt(0.5), the frequency of the half plane's corner


def ring_edges(count: int) -> list[float]:
    """Return edges of ``count`` equally wide rings up to 0.5, and of the ring of the corners.

    Args:
        count: Rings between 0 and 0.5 cycles per pixel, at least 1.

    Returns:
        ``count + 2`` edges, cycles per pixel, from 0 to 0.75.

    Raises:
        InputError: If ``count`` is below 1.

    Example:
        >>> ring_edges(4)
        [0.0, 0.125, 0.25, 0.375, 0.5, 0.75]
    """
    if count < 1:
        raise InputError(f"count: expected 1 or more rings, got {count}")
    return [0.5 * ring / count for ring in range(count + 1)] + [CORNER]


def ring_masks(
    height: int,
    width: int,
    edges: Sequence[float],
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Mark the bins of each frequency ring ``(edges[k], edges[k + 1]]``.

    Args:
        height: Rows of the picture, pixels.
        width: Columns of the picture, pixels.
        edges: ``R + 1`` increasing frequencies from 0 on, cycles per pixel.
        device: Where the tensor lives.

    Returns:
        Boolean ``(R, height, width // 2 + 1)``. DC is in no ring; edges from 0 to 0.75 partition
        the rest. A ring narrower than a bin may be empty.

    Raises:
        InputError: If the edges do not increase, start below 0 or are fewer than two.

    Example:
        >>> ring_masks(4, 4, [0, 0.25, 0.75]).sum(dim=(1, 2)).tolist()
        [3, 8]
    """
    index = _ring_index(height, width, checked_edges(edges), torch.device(device or "cpu"))
    rings = torch.arange(1, len(edges), device=index.device)
    return index == rings[:, None, None]


def ring_gain(gains: Tensor, edges: Sequence[float], *, height: int, width: int) -> Tensor:
    """Spread one gain per ring over the half spectrum, constant within a ring.

    Args:
        gains: ``(..., R)``, dimensionless, non-negative.
        edges: ``R + 1`` edges as in `ring_masks`, cycles per pixel.
        height: Rows of the picture, pixels.
        width: Columns of the picture, pixels.

    Returns:
        ``(..., height, width // 2 + 1)``, 1 at DC and outside the rings, differentiable.

    Raises:
        ShapeError: If ``gains`` does not hold one gain per ring.
        InputError: If the edges are wrong.

    Example:
        >>> ring_gain(torch.tensor([2.0, 3.0]), [0, 0.25, 0.75], height=2, width=4)[0].tolist()
        [1.0, 2.0, 3.0]
    """
    checked = checked_edges(edges)
    if gains.shape[-1:] != (len(edges) - 1,):
        raise ShapeError(f"gains: expected (..., {len(edges) - 1}), got {tuple(gains.shape)}")
    index = _ring_index(height, width, checked, gains.device)
    one = torch.ones_like(gains[..., :1])
    return torch.cat([one, gains, one], dim=-1)[..., index]


def ring_energy(images: Tensor, edges: Sequence[float]) -> Tensor:
    """Return how much of each picture's variance lies in each ring (Parseval).

    Columns other than 0 and ``W / 2`` stand for two frequencies and count twice. Over a partition
    (edges from 0 to 0.75) the rings sum to the variance over the pixels; DC is left out.

    Args:
        images: Real batch, ``(B, C, H, W)``.
        edges: ``R + 1`` edges as in `ring_masks`, cycles per pixel.

    Returns:
        ``(B, C, R)``, in the squared unit of ``images``, single precision or better.

    Raises:
        ShapeError: If ``images`` has no four axes.
        InputError: If the edges or the type are wrong.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> total = ring_energy(x, [0, 0.25, 0.75]).sum(dim=2)
        >>> torch.allclose(total, x.var(dim=(2, 3), correction=0))
        True
    """
    check_images(images)
    checked = checked_edges(edges)
    height, width = images.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):
        spectrum = torch.fft.rfft2(at_least_single(images), norm="forward")
        power = spectrum.real.square() + spectrum.imag.square()
        weights = _ring_weights(height, width, checked, images.device, power.dtype)
        return power.flatten(-2) @ weights


def ring_parts(images: Tensor, edges: Sequence[float]) -> Iterator[Tensor]:
    """Yield the part of each picture that lies in each ring, from one forward transform.

    ``images + (gain - 1) * part`` is the picture with that ring scaled by ``gain``.

    Args:
        images: Real batch, ``(B, C, H, W)``.
        edges: ``R + 1`` edges as in `ring_masks`, cycles per pixel.

    Yields:
        ``R`` batches ``(B, C, H, W)`` of mean zero, in the unit and type of ``images``.

    Raises:
        ShapeError: If ``images`` has no four axes.
        InputError: If the edges or the type are wrong.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> parts = sum(ring_parts(x, [0, 0.25, 0.75]))
        >>> torch.allclose(parts + x.mean(dim=(2, 3), keepdim=True), x, atol=1e-6)
        True
    """
    check_images(images)
    height, width = images.shape[-2:]
    masks = ring_masks(height, width, edges, device=images.device)
    spectrum = torch.fft.rfft2(at_least_single(images))
    for mask in masks:
        yield torch.fft.irfft2(spectrum * mask, s=(height, width)).to(images.dtype)


def checked_edges(edges: Sequence[float]) -> tuple[float, ...]:
    """Return ring edges as a tuple, or say what is wrong with them.

    Raises:
        InputError: If the edges do not increase, start below 0 or are fewer than two.

    Example:
        >>> checked_edges([0.5, 0.25])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: edges: expected two or more increasing frequencies from 0 on,
        in cycles per pixel, got [0.5, 0.25]
    """
    checked = tuple(float(edge) for edge in edges)
    increasing = all(low < high for low, high in pairwise(checked))
    if len(checked) < 2 or not increasing or checked[0] < 0 or not math.isfinite(checked[-1]):
        raise InputError(
            "edges: expected two or more increasing frequencies from 0 on, in cycles per pixel, "
            f"got {list(checked)}"
        )
    return checked


@cached_grid
def _ring_index(height: int, width: int, edges: tuple[float, ...], device: torch.device) -> Tensor:
    """Number each bin's ring from 1 on; 0 is DC or below the rings, ``R + 1`` is above them."""
    radius = radial_frequency(height, width, dtype=torch.float64)
    return torch.bucketize(radius, torch.tensor(edges, dtype=torch.float64)).to(device)


@cached_grid
def _ring_weights(
    height: int, width: int, edges: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Count how many frequencies of each ring a bin stands for, ``(H * (W // 2 + 1), R)``."""
    twice = torch.full((width // 2 + 1,), 2.0, dtype=dtype, device=device)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    masks = ring_masks(height, width, edges, device=device)
    return (masks * twice).flatten(1).T.contiguous()
