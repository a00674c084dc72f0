"""The half spectrum of real pictures: its frequencies, and gains on its amplitudes.

Pictures are ``(B, C, H, W)``; a half spectrum is ``(..., H, W // 2 + 1)`` in ``rfft2`` order: row
``i`` is ``i / H`` cycles per pixel (minus one from the half on), column ``j`` is ``j / W``.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError


def cached_grid(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the last 32 constant tensors that ``build`` made, for hashable arguments.

    They are made outside inference mode, so that a later training step may use what an earlier
    evaluation made, and never remembered while torch traces, when they are not real tensors.

    Example:
        >>> count = cached_grid(lambda n: torch.arange(n))
        >>> count(3) is count(3)
        True
    """
    remembered = lru_cache(maxsize=32)(build)

    @wraps(build)
    def grid(*arguments: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return build(*arguments)
        with torch.inference_mode(False):
            return remembered(*arguments)

    return grid


def frequencies(count: int, *, device: torch.device | str | None = None) -> Tensor:
    """Return the signed frequency of each of ``count`` samples in ``fft`` order.

    They are divided, not multiplied by ``1 / count`` as in ``torch.fft.fftfreq``, so that 3 / 10 is
    0.3 and lies on a ring edge of 0.3.

    Args:
        count: Number of samples, at least 1.
        device: Where the tensor lives.

    Returns:
        ``(count,)``, cycles per pixel, in [-0.5, 0.5), float64.

    Example:
        >>> frequencies(4).tolist()
        [0.0, 0.25, -0.5, -0.25]
    """
    index = torch.arange(count, device=device, dtype=torch.float64)
    return torch.where(index * 2 < count, index, index - count) / count


def radial_frequency(
    height: int,
    width: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the radial frequency ``sqrt(fu^2 + fv^2)`` of each bin of a half spectrum.

    Args:
        height: Rows of the picture, pixels, at least 1.
        width: Columns of the picture, pixels, at least 1.
        device: Where the tensor lives.
        dtype: Floating type of the result.

    Returns:
        ``(height, width // 2 + 1)``, cycles per pixel, in [0, sqrt(0.5)].

    Raises:
        ShapeError: If a side is below 1.

    Example:
        >>> radial_frequency(4, 4)[:, 0].tolist()
        [0.0, 0.25, 0.5, 0.25]
    """
    if height < 1 or width < 1:
        raise ShapeError(f"height, width: expected 1 or more pixels, got ({height}, {width})")
    rows = frequencies(height, device=device)
    columns = frequencies(width, device=device)[: width // 2 + 1]
    return torch.hypot(rows[:, None], columns[None, :]).to(dtype)


def apply_gain(images: Tensor, gain: Tensor) -> Tensor:
    """Scale every Fourier amplitude by ``gain`` and leave every phase alone.

    With a gain of 1 the result differs from ``images`` by the rounding of two FFTs only. Half
    precision pictures are transformed in single precision, also under autocast.

    Args:
        images: Real batch, ``(B, C, H, W)``, in any intensity unit.
        gain: Non-negative factor, dimensionless, broadcastable to ``(B, C, H, W // 2 + 1)``, in
            ``rfft2`` order (column ``k`` is ``k / W`` cycles per pixel). In column 0, and
            ``W / 2`` for even ``W``, mirrored rows share the mean of their two gains.

    Returns:
        Batch ``(B, C, H, W)`` in the unit and type of ``images``, differentiable in both inputs.

    Raises:
        ShapeError: If ``images`` has no four axes or ``gain`` does not broadcast.
        InputError: If one of them is not of a real floating type.

    Source: amplitude/phase split of Yang & Soatto, CVPR 2020, arXiv:2004.05498.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(apply_gain(x, torch.ones(3, 8, 5)), x, atol=1e-6)
        True
    """
    check_images(images)
    *leading, height, width = images.shape
    half = (*leading, height, width // 2 + 1)
    fits = gain.ndim <= 4 and all(
        side in (1, full) for side, full in zip(gain.shape[::-1], half[::-1], strict=False)
    )
    if not fits:
        raise ShapeError(
            f"gain: expected (B, C, H, W // 2 + 1) = {half} or what broadcasts to it, "
            f"got {tuple(gain.shape)}"
        )
    if not gain.is_floating_point():
        raise InputError(f"gain: expected a real floating type, got {gain.dtype}")
    with torch.autocast(images.device.type, enabled=False):
        pixels = at_least_single(images)
        spectrum = torch.fft.rfft2(pixels) * gain.to(pixels.dtype)
        return torch.fft.irfft2(spectrum, s=(height, width)).to(images.dtype)


def at_least_single(values: Tensor) -> Tensor:
    """Return half precision values in single precision and all others as they are.

    Half precision FFTs want sides that are powers of two, and bfloat16 has none.

    Example:
        >>> at_least_single(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def check_images(images: Tensor) -> None:
    """Refuse what is not a real batch of pictures.

    Raises:
        ShapeError: If there are not four axes.
        InputError: If the type is not a real floating one.

    Example:
        >>> check_images(torch.zeros(1, 3, 4, 4))
    """
    if images.ndim != 4:
        raise ShapeError(f"images: expected (B, C, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"images: expected a real floating type, got {images.dtype}")
