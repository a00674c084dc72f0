"""Gains on amplitudes: against amplitude and phase taken apart, and against bare FFTs."""

from collections.abc import Callable
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from benchmarks.side_by_side import side_by_side
from benchmarks.timing import Variant
from fopro_lab.fourier import apply_gain

Gradients = Literal["none", "gain", "both"]
Work = Callable[[], tuple[Tensor, ...]]

PLAIN = "fft2, abs and angle, polar, ifft2"
OURS = "apply_gain"
EACH = "apply_gain, a gain an image"
SHORT = "irfft2(rfft2 x gain), plain autograd"
BARE = "rfft2 and irfft2, bare"
BARE_BACK = f"{BARE}, and torch's way back"
BARE_FOUR = "rfft2, irfft2 and both again, bare"
OF_IMAGES = f"{OURS}, gradient of images"
OF_BOTH = f"{OURS}, gradient of images and gain"
PLAIN_GOALS = {OURS: 5.0, EACH: 5.0}  # a learned prompt has a gain an image
BARE_GOALS = dict.fromkeys((OURS, OF_IMAGES, OF_BOTH), 1 / 1.3)


def scale_plainly(images: Tensor, gain: Tensor) -> Tensor:
    """Scale amplitudes as one would first write it: take them and the phases, put them back.

    Args:
        images: ``(B, C, H, W)``.
        gain: Of the whole spectrum, ``(C, H, W)``.

    Returns:
        ``(B, C, H, W)``; its gradient is NaN where an amplitude is 0.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(scale_plainly(x, torch.ones(3, 8, 8)), x, atol=1e-5)
        True
    """
    spectrum = torch.fft.fft2(images)
    return torch.fft.ifft2(torch.polar(spectrum.abs() * gain, spectrum.angle())).real


def scale_shortly(images: Tensor, gain: Tensor) -> Tensor:
    """Scale amplitudes in one line, and leave the gradient to torch.

    Args:
        images: ``(B, C, H, W)``.
        gain: Of the half spectrum, ``(C, H, W // 2 + 1)``.

    Returns:
        ``(B, C, H, W)``.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(scale_shortly(x, torch.ones(3, 8, 5)), x, atol=1e-6)
        True
    """
    size = (images.shape[-2], images.shape[-1])
    return torch.fft.irfft2(torch.fft.rfft2(images) * gain, s=size)


def whole_gain(gain: Tensor, *, width: int) -> Tensor:
    """Mirror a gain of the half spectrum into the half that real images have for free.

    Args:
        gain: ``(..., H, width // 2 + 1)``.
        width: Of the images, pixels.

    Returns:
        ``(..., H, width)``.

    Example:
        >>> whole_gain(torch.tensor([[1.0, 2.0, 3.0]]), width=4).tolist()
        [[1.0, 2.0, 3.0, 2.0]]
    """
    height = gain.shape[-2]
    rows = -torch.arange(height, device=gain.device) % height
    columns = torch.arange((width - 1) // 2, 0, -1, device=gain.device)
    return torch.cat([gain, gain[..., rows, :][..., columns]], dim=-1)


def gain_work(images: Tensor, gain: Tensor, *, gradients: Gradients) -> dict[str, Work]:
    """Lay out the ways to scale amplitudes by one gain for all images.

    Args:
        images: ``(B, C, H, W)``.
        gain: ``(C, H, W // 2 + 1)``.
        gradients: Of nothing; of the gain; of gain and images.

    Returns:
        By name, the reference first: each gives the scaled images and the gradients asked for,
        that of the gain in the shape that this way has it: whole, half, and half for each
        image.
    """
    whole = whole_gain(gain, width=images.shape[-1])
    each = gain.expand(len(images), *gain.shape).contiguous()
    return {
        PLAIN: _work(scale_plainly, images, whole, gradients),
        # Looked up when called, so that a test can put something slower in its place.
        OURS: _work(lambda x, g: apply_gain(x, g), images, gain, gradients),
        EACH: _work(lambda x, g: apply_gain(x, g), images, each, gradients),
        SHORT: _work(scale_shortly, images, gain, gradients),
    }


def bare_work(images: Tensor) -> dict[str, Work]:
    """Lay out two bare FFTs and a gain of 1 on images: the result is the images.

    Example:
        >>> work = bare_work(torch.rand(2, 3, 8, 8))
        >>> torch.allclose(work[OURS]()[0], work[BARE]()[0], atol=1e-6)
        True
    """
    return {
        BARE: lambda: (_there_and_back(images),),
        OURS: _work(lambda x, g: apply_gain(x, g), images, _ones(images), "none"),
    }


def bare_backward_work(images: Tensor) -> dict[str, Work]:
    """Lay out the same with the gradient; of bare FFTs there is one to the images alone."""
    shared = images.detach().requires_grad_()
    above, ones = _above(images), _ones(images)

    def bare() -> tuple[Tensor, ...]:
        out = _there_and_back(shared)
        return (out.detach(), *torch.autograd.grad(out, [shared], above))

    def four() -> tuple[Tensor, ...]:
        return _there_and_back(images), _there_and_back(above)

    def images_alone() -> tuple[Tensor, ...]:
        out = apply_gain(shared, ones)
        return (out.detach(), *torch.autograd.grad(out, [shared], above))

    both = _work(lambda x, g: apply_gain(x, g), images, ones, "both")
    return {
        BARE_BACK: bare,
        BARE_FOUR: four,
        OF_IMAGES: images_alone,
        OF_BOTH: both,
    }


def bench_gain(
    *, rounds: int, size: int, batch: int, device: torch.device | str
) -> dict[str, pd.DataFrame]:
    """Time `apply_gain` on one thread or one GPU.

    Args:
        rounds: That count, at least 3.
        size: Side of the images, pixels.
        batch: Images.
        device: Where to compute.

    Returns:
        Tables of `compare_rounds`, images a second: ``gain`` (forward), ``gain_backward`` (with
        the gradient of gain and images), ``gain_alone`` (with that of the gain), ``bare`` and
        ``bare_backward``.

    Example:
        >>> tables = bench_gain(rounds=3, size=8, batch=2, device="cpu")
        >>> tables["gain"]["goal"].tolist()
        [nan, 5.0, 5.0, nan]
    """
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=chance).to(device)
    gain = (0.5 + torch.rand(3, size, size // 2 + 1, generator=chance)).to(device)
    asked: dict[str, tuple[dict[str, Work], dict[str, float]]] = {
        "gain": (gain_work(images, gain, gradients="none"), PLAIN_GOALS),
        "gain_backward": (gain_work(images, gain, gradients="both"), PLAIN_GOALS),
        "gain_alone": (gain_work(images, gain, gradients="gain"), PLAIN_GOALS),
        "bare": (bare_work(images), BARE_GOALS),
        "bare_backward": (bare_backward_work(images), BARE_GOALS),
    }
    return {
        key: side_by_side(
            [
                Variant(name, _counted(run, batch), goals.get(name, 0.0))
                for name, run in work.items()
            ],
            rounds=rounds,
            label=key,
            device=device,
        )
        for key, (work, goals) in asked.items()
    }


def _counted(work: Work, batch: int) -> Callable[[], int]:
    def run() -> int:
        work()
        return batch

    return run


def _work(
    scale: Callable[[Tensor, Tensor], Tensor], images: Tensor, gain: Tensor, gradients: Gradients
) -> Work:
    """Run a way to scale, and back through it if gradients are asked for."""
    if gradients == "none":
        return lambda: (scale(images, gain),)
    gain = gain.detach().requires_grad_()
    if gradients == "both":
        images = images.detach().requires_grad_()
    asked = [part for part in (gain, images) if part.requires_grad]
    above = _above(images)

    def run() -> tuple[Tensor, ...]:
        out = scale(images, gain)
        return (out.detach(), *torch.autograd.grad(out, asked, above))

    return run


def _there_and_back(images: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(images), s=(images.shape[-2], images.shape[-1]))


def _ones(images: Tensor) -> Tensor:
    *_, channels, height, width = images.shape
    return torch.ones(channels, height, width // 2 + 1, device=images.device, dtype=images.dtype)


def _above(images: Tensor) -> Tensor:
    """Make up the gradient that comes from above."""
    chance = torch.Generator().manual_seed(1)
    return torch.randn(images.shape, generator=chance, dtype=images.dtype).to(images.device)
