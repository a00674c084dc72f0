"""Gains on the Fourier amplitudes of real images; phases stay."""

from collections.abc import Callable

import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.rings import at_least_single, check_images

MOST = 5.0  # exponent of a gain that is matched in drift


def apply_gain(images: Tensor, gain: Tensor) -> Tensor:
    """Scale every Fourier amplitude by ``gain`` and keep every phase.

    Half precision images are transformed in single precision, also under autocast.

    Args:
        images: Real batch, ``(B, C, H, W)``, in any intensity unit.
        gain: Non-negative factor, broadcastable to ``(B, C, H, W // 2 + 1)``, in ``rfft2`` order
            (column ``k`` is ``k / W`` cycles per pixel). In columns 0 and ``W / 2`` mirrored rows
            share the mean of their two gains.

    Returns:
        Batch ``(B, C, H, W)`` in the unit and type of ``images``, differentiable in both inputs.

    Raises:
        InputError: If a shape or type does not fit, or a gain is negative or not finite.

    Source: amplitude/phase split of Yang & Soatto, CVPR 2020, arXiv:2004.05498.

    Examples:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(apply_gain(x, torch.ones(3, 8, 5)), x, atol=1e-6)
        True
    """
    check_images(images)
    check_gain(images, gain)
    return scale_spectrum(images, gain)


def scale_spectrum(images: Tensor, gain: Tensor) -> Tensor:
    """Apply a gain that is valid by construction: to look at its values would make a GPU wait."""
    with torch.autocast(images.device.type, enabled=False):
        pixels = at_least_single(images)
        spectrum, gain = torch.fft.rfft2(pixels), gain.to(pixels.dtype)
        learns = torch.is_grad_enabled() and (pixels.requires_grad or gain.requires_grad)
        # In place unless a gradient needs the spectrum: fresh memory costs more than the product.
        spectrum = spectrum * gain if learns else spectrum.mul_(gain)
        return torch.fft.irfft2(spectrum, s=(images.shape[-2], images.shape[-1])).to(images.dtype)


def match_strength(drift_of: Callable[[float], float], wanted: float) -> float:
    """Find by bisection the exponent of a gain with a wanted drift; 5 if none has so much.

    ``drift_of`` measures, for an exponent, a drift that grows with it and is 0 at 0.
    """
    if drift_of(MOST) < wanted:
        return MOST
    low, high = 0.0, MOST
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if drift_of(middle) < wanted else (low, middle)
    return (low + high) / 2


def check_gain(images: Tensor, gain: Tensor) -> None:
    """Raise an error unless ``gain`` fits the images and holds factors of amplitudes."""
    half = (*images.shape[:-1], images.shape[-1] // 2 + 1)
    pairs = zip(gain.shape[::-1], half[::-1], strict=False)
    if gain.ndim > 4 or not all(side in (1, full) for side, full in pairs):
        rule = f"expected (B, C, H, W // 2 + 1) = {half} or broadcastable to it"
        raise ShapeError(f"gain: {rule}, got {tuple(gain.shape)}")
    if not gain.is_floating_point():
        raise InputError(f"gain: expected a real floating type, got {gain.dtype}")
    if torch.compiler.is_compiling() or not gain.numel():
        return  # a traced tensor has no values
    low, high = (float(bound) for bound in torch.aminmax(gain.detach()))  # NaN if one is NaN
    if not 0 <= low <= high < float("inf"):
        raise InputError(f"gain: expected finite factors of 0 or more, got {low:g} to {high:g}")
