"""Spectra that can be compared: windowed against border jumps, cut to a common band.

A picture ends abruptly, and its spectrum answers with energy in all rings. A Hann window takes the
jumps away. It is smooth, so windowing before or after an ideal resize is the same but for the
outermost two frequencies of the band.
"""

import torch
from torch import Tensor

from fopro_lab.errors import InputError
from fopro_lab.fourier.spectrum import check_images


def windowed(images: Tensor) -> Tensor:
    """Subtract each channel's mean under a Hann window, then multiply by the window.

    The window's mean square is 1, so that noise keeps its energy.

    Args:
        images: ``(B, C, H, W)``.

    Returns:
        ``(B, C, H, W)`` of mean zero.

    Raises:
        ShapeError: If ``images`` has no four axes.

    Example:
        >>> bool(windowed(torch.full((1, 1, 8, 8), 0.3)).abs().max() < 1e-6)
        True
    """
    check_images(images)
    window = _hann(images.shape[-2], images)[:, None] * _hann(images.shape[-1], images)
    mean = (images * window).sum(dim=(-2, -1), keepdim=True) / window.sum()
    return (images - mean) * window


def band_limited(images: Tensor, size: int) -> Tensor:
    """Resize ideally: keep the frequencies that a square of ``size`` pixels holds, drop the rest.

    The Nyquist row and column are dropped too: two mirrored waves share one number there. Where
    the picture is smaller than ``size``, the new frequencies are empty.

    Args:
        images: ``(B, C, H, W)``, periodic or windowed.
        size: Side of the result, pixels, 2 or more.

    Returns:
        ``(B, C, size, size)``, in the unit of ``images``.

    Raises:
        ShapeError: If ``images`` has no four axes.
        InputError: If ``size`` is below 2.

    Example:
        >>> wave = torch.cos(2 * torch.pi * torch.arange(32) / 32).expand(1, 1, 32, 32)
        >>> torch.allclose(band_limited(wave, 8), wave[..., ::4, ::4], atol=1e-6)
        True
    """
    check_images(images)
    if size < 2:
        raise InputError(f"size: expected 2 or more pixels, got {size}")
    height, width = images.shape[-2:]
    spectrum = torch.fft.rfft2(images, norm="forward")
    rows, columns = ((min(side, size) - 1) // 2 for side in (height, width))
    kept = spectrum.new_zeros((*images.shape[:-2], size, size // 2 + 1))
    kept[..., : rows + 1, : columns + 1] = spectrum[..., : rows + 1, : columns + 1]
    if rows:
        kept[..., -rows:, : columns + 1] = spectrum[..., -rows:, : columns + 1]
    return torch.fft.irfft2(kept, s=(size, size), norm="forward")


def _hann(size: int, like: Tensor) -> Tensor:
    """Sample Hann's window at pixel centres; its mean square is 3/8 whatever the size."""
    centres = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size
    return torch.sin(torch.pi * centres).square() / (3 / 8) ** 0.5
