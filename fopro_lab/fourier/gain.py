"""Gains on the amplitudes of real images, with a gradient that costs two FFTs at most."""

from typing import Any

import torch
from torch import Tensor

from fopro_lab.fourier.rings import at_least_single, check_gain, check_images


def apply_gain(images: Tensor, gain: Tensor) -> Tensor:
    """Scale every Fourier amplitude by ``gain`` and leave every phase alone.

    With a gain of 1 the result differs from ``images`` by the rounding of two FFTs only. Half
    precision images are transformed in single precision, also under autocast.

    Args:
        images: Real batch, ``(B, C, H, W)``, in any intensity unit.
        gain: Non-negative factor, dimensionless, broadcastable to ``(B, C, H, W // 2 + 1)``, in
            ``rfft2`` order (column ``k`` is ``k / W`` cycles per pixel). In column 0, and
            ``W / 2`` for even ``W``, mirrored rows share the mean of their two gains.

    Returns:
        Batch ``(B, C, H, W)`` in the unit and type of ``images``, differentiable in both inputs.

    Raises:
        ShapeError: If ``images`` has no four axes or ``gain`` does not broadcast.
        InputError: If one of them is not of a real floating type, or a gain is negative, infinite
            or NaN.

    Source: amplitude/phase split of Yang & Soatto, CVPR 2020, arXiv:2004.05498.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(apply_gain(x, torch.ones(3, 8, 5)), x, atol=1e-6)
        True
    """
    check_images(images)
    check_gain(images, gain)
    return scale_spectrum(images, gain)


def scale_spectrum(images: Tensor, gain: Tensor) -> Tensor:
    """Do what `apply_gain` does, without looking at the gain's values.

    What a prompt makes is right by construction; to look would make a GPU wait for Python.

    Args:
        images: As in `apply_gain`.
        gain: As in `apply_gain`.

    Returns:
        As `apply_gain`.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(scale_spectrum(x, torch.ones(3, 8, 5)), x, atol=1e-6)
        True
    """
    with torch.autocast(images.device.type, enabled=False):
        pixels = at_least_single(images)
        gain = gain.to(pixels.dtype)
        learns = torch.is_grad_enabled() and (pixels.requires_grad or gain.requires_grad)
        if not learns:
            scaled = _back(torch.fft.rfft2(pixels).mul_(gain), pixels)
        elif torch.compiler.is_compiling() or not pixels.requires_grad:
            scaled = _back(torch.fft.rfft2(pixels) * gain, pixels)
        else:
            scaled = _ScaleSpectrum.apply(pixels, gain)[0]
        return scaled.to(images.dtype)


def _back(spectrum: Tensor, like: Tensor) -> Tensor:
    return torch.fft.irfft2(spectrum, s=(like.shape[-2], like.shape[-1]))


class _ScaleSpectrum(torch.autograd.Function):
    """``irfft2(G * rfft2(x))`` with the gradient worked out.

    To scale real amplitudes is a symmetric operator, so the gradient of the images is the same
    operator on the gradient above; that of the gain is the product of both spectra. torch's own
    way back to the images is a full complex FFT instead; where they need no gradient, it is as
    good.
    """

    @staticmethod
    def forward(images: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        spectrum = torch.fft.rfft2(images)
        return _back(spectrum * gain, images), spectrum

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        images, gain = inputs
        spectrum = output[1]
        ctx.mark_non_differentiable(spectrum)
        ctx.set_materialize_grads(False)
        ctx.width = images.shape[-1]
        ctx.save_for_backward(images, gain, spectrum if ctx.needs_input_grad[1] else None)

    @staticmethod
    def backward(ctx: Any, above: Tensor | None, _: Any) -> tuple[Tensor | None, Tensor | None]:
        if above is None:
            return None, None
        images, gain, spectrum = ctx.saved_tensors
        into = torch.fft.rfft2(above)
        of_images = of_gain = None
        if ctx.needs_input_grad[1]:
            if torch.is_grad_enabled():  # a second derivative is asked for
                spectrum = torch.fft.rfft2(images)
            of_gain = _paired(spectrum, into, gain) / above[0, 0].numel()
            # Every column but 0 and W / 2 stands for two frequencies.
            of_gain[..., 1 : (ctx.width + 1) // 2] *= 2
            of_gain = of_gain.sum_to_size(gain.shape)
        if ctx.needs_input_grad[0]:
            # In place: at 224 pixels fresh memory costs more than the product.
            scaled = into * gain if torch.is_grad_enabled() else into.mul_(gain)
            of_images = _back(scaled, above)
        return of_images, of_gain


def _paired(first: Tensor, second: Tensor, gain: Tensor) -> Tensor:
    """Real part of ``conj(first) * second``, summed over the batch if one gain serves it."""
    if gain.ndim < 4 or gain.shape[0] == 1:
        product = torch.view_as_real(first) * torch.view_as_real(second)
        return product.sum(dim=0, keepdim=True).sum(dim=-1)
    return torch.addcmul(first.real * second.real, first.imag, second.imag)
