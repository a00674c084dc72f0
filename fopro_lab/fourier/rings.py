"""Frequency rings of the half spectrum, in cycles per pixel: masks, gains, energies, parts.

Ring ``k`` is ``(edges[k], edges[k + 1]]``. DC is in no ring, and the corners beyond 0.5 cycles per
pixel, where only diagonal waves reach, are a ring of their own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, wraps
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from fopro_lab.arguments import wrong
from fopro_lab.errors import InputError, ShapeError

Device = torch.device | str | None
Grid = TypeVar("Grid")  # a tensor, or a tuple of them
CORNER = 0.75  # cycles per pixel; above sqrt(0.5), the frequency of the half plane's corner


def cached_grid(build: Callable[..., Grid]) -> Callable[..., Grid]:
    """Keep the last 32 constants that ``build`` made, by its hashable arguments."""
    kept = lru_cache(maxsize=32)(build)

    @wraps(build)
    def grid(*arguments: Any) -> Grid:
        if torch.compiler.is_compiling():
            return build(*arguments)  # a traced tensor holds no values to keep
        with torch.inference_mode(False):  # a training step may use what an evaluation made
            return kept(*arguments)

    return grid


def frequencies(count: int) -> Tensor:
    """Return the signed frequency of each of ``count`` samples, float64, in ``fft`` order."""
    index = torch.arange(count, dtype=torch.float64)
    # torch.fft.fftfreq multiplies by 1 / count: its 3 / 10 does not lie on a ring edge of 0.3.
    return torch.where(index * 2 < count, index, index - count) / count


def radial_frequency(height: int, width: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the radial frequency ``sqrt(fu^2 + fv^2)`` of each bin, ``(height, width // 2 + 1)``.

    In cycles per pixel, from 0 to ``sqrt(0.5)``, for images of 1 or more pixels a side.
    """
    if height < 1 or width < 1:
        raise ShapeError(f"height, width: expected 1 or more pixels, got ({height}, {width})")
    rows, columns = frequencies(height), frequencies(width)
    return torch.hypot(rows[:, None], columns[: width // 2 + 1]).to(dtype)


def bin_counts(width: int) -> Tensor:
    """Count the frequencies that each half spectrum column stands for, ``(width // 2 + 1,)``."""
    counts = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    counts[[0, -1] if width % 2 == 0 else [0]] = 1
    return counts


def at_least_single(values: Tensor) -> Tensor:
    """Return half precision as single precision: half precision FFTs want sides of 2 ** n."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def check_images(images: Tensor, *, channels: int = 0) -> None:
    """Raise an `InputError` unless ``images`` is a real batch ``(B, C, H, W)``; 0 is any C."""
    if not isinstance(images, Tensor):
        raise wrong("images", "a torch tensor (B, C, H, W)", images, "Tensor")
    shape = tuple(images.shape)
    if images.ndim != 4 or (channels and shape[1] != channels):
        ways = {3: "; images[None] is a batch of one"} if images.ndim == 3 else {}
        if images.ndim == 4:
            ways = {shape[3]: "; images.permute(0, 3, 1, 2) has the channels second"}
            ways |= {3 * shape[1]: "; images.expand(-1, 3, -1, -1) repeats grey as colour"}
        way_out = ways.get(3, "")
        raise ShapeError(f"images: expected (B, {channels or 'C'}, H, W), got {shape}{way_out}")
    if not images.is_floating_point():
        way_out = "; images / 255" if images.dtype == torch.uint8 else ""
        raise InputError(f"images: expected a real floating type, got {images.dtype}{way_out}")


def check_pixels(
    images: Tensor, *, slack: float = 1e-3, changed: bool = False, finite: bool = True
) -> None:
    """Raise an `InputError` unless ``images`` are ``(B, 3, H, W)`` in [0, 1], up to ``slack``.

    If they may have been ``changed`` by a gain, only the mean of each channel is looked at, which a
    gain keeps; ``finite=False`` leaves NaN to who looks at the result. A GPU has to be waited for.
    """
    check_images(images, channels=3)
    if torch.compiler.is_compiling() or not images.numel():
        return
    values = images.detach()
    if changed:
        values = values.mean(dim=(2, 3), dtype=torch.float32)
    low, high = (float(bound) for bound in torch.aminmax(values))  # NaN if one is NaN
    if (finite and low != low) or low < -slack or high > 1 + slack:
        way_out = "divide by 255?" if high > 4 else "normalise inside the teacher, or clamp(0, 1)"
        got = f"{low:g} to {high:g}{' as means of channels' * changed}"
        raise InputError(f"images: expected values in [0, 1], got {got}; {way_out}")


def checked_edges(edges: Sequence[float]) -> tuple[float, ...]:
    """Return ring edges as a tuple; an `InputError` unless they rise from 0 or more on."""
    if not hasattr(edges, "__len__") or isinstance(edges, str):
        raise wrong("edges", "a list", edges, "Sequence")
    checked = tuple(float(edge) for edge in edges)
    rising = all(low < high for low, high in pairwise(checked))
    if len(checked) < 2 or not rising or checked[0] < 0 or not math.isfinite(checked[-1]):
        rule = "expected two or more increasing frequencies from 0 on, in cycles per pixel"
        raise InputError(f"edges: {rule}, got {list(checked)}")
    return checked


def ring_edges(count: int) -> list[float]:
    """Return edges of ``count`` (1 or more) equally wide rings up to 0.5, and of the corners' ring.

    They are ``count + 2`` frequencies, cycles per pixel, from 0 to 0.75.
    """
    if count < 1:
        raise InputError(f"count: expected 1 or more rings, got {count}")
    return [0.5 * ring / count for ring in range(count + 1)] + [CORNER]


def ring_masks(height: int, width: int, edges: Sequence[float], *, device: Device = None) -> Tensor:
    """Mark the bins of each frequency ring ``(edges[k], edges[k + 1]]`` of an image.

    ``edges`` are ``R + 1`` increasing frequencies from 0 on, cycles per pixel; the result is
    boolean, ``(R, height, width // 2 + 1)``. DC is in no ring; edges from 0 to 0.75 partition the
    rest. A ring narrower than a bin may be empty.
    """
    index = _ring_index(height, width, checked_edges(edges), torch.device(device or "cpu"))
    return index == torch.arange(1, len(edges), device=index.device)[:, None, None]


def ring_gain(gains: Tensor, edges: Sequence[float], *, height: int, width: int) -> Tensor:
    """Spread one gain per ring, ``(..., R)``, over the half spectrum of an image.

    ``edges`` are ``R + 1`` frequencies as in `ring_masks`; the result, constant within a ring and 1
    at DC and outside the rings, is ``(..., height, width // 2 + 1)`` and differentiable.
    """
    checked = checked_edges(edges)
    if gains.shape[-1:] != (len(edges) - 1,):
        raise ShapeError(f"gains: expected (..., {len(edges) - 1}), got {tuple(gains.shape)}")
    one = torch.ones_like(gains[..., :1])
    index = _ring_index(height, width, checked, gains.device)
    return torch.cat([one, gains, one], dim=-1)[..., index]


def ring_energy(images: Tensor, edges: Sequence[float]) -> Tensor:
    """Return how much of the variance of each image ``(B, C, H, W)`` lies in each ring (Parseval).

    The result is ``(B, C, R)``, in the squared unit of ``images``, single precision or better. Over
    edges from 0 to 0.75, see `ring_masks`, the rings sum to the variance; DC is left out.
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
    """Yield the part of each image ``(B, C, H, W)`` that lies in each ring (see `ring_masks`).

    The ``R`` parts ``(B, C, H, W)`` have mean zero, and the unit and type of ``images``;
    ``images + (gain - 1) * part`` is the image with that ring scaled by ``gain``.
    """
    check_images(images)
    height, width = images.shape[-2:]
    masks = ring_masks(height, width, edges, device=images.device)
    spectrum = torch.fft.rfft2(at_least_single(images))
    for mask in masks:
        yield torch.fft.irfft2(spectrum * mask, s=(height, width)).to(images.dtype)


@cached_grid
def _ring_index(height: int, width: int, edges: tuple[float, ...], device: torch.device) -> Tensor:
    """Number each bin's ring from 1 on; 0 is DC or below the rings, ``R + 1`` is above them."""
    radius = radial_frequency(height, width, dtype=torch.float64)
    return torch.bucketize(radius, torch.tensor(edges, dtype=torch.float64)).to(device)


@cached_grid
def _ring_weights(
    height: int, width: int, edges: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Count how many frequencies of each ring a bin represents, ``(H * (W // 2 + 1), R)``."""
    counts = bin_counts(width).to(device, dtype)
    return (ring_masks(height, width, edges, device=device) * counts).flatten(1).T.contiguous()
