"""The half spectrum of real pictures: its frequencies, and what may be asked of it.

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


def check_gain(images: Tensor, gain: Tensor) -> None:
    """Refuse a gain that does not fit the pictures, or is no amplitude's factor.

    Raises:
        ShapeError: If it does not broadcast to the half spectrum.
        InputError: If it is not of a real floating type, or is negative, infinite or NaN.

    Example:
        >>> check_gain(torch.zeros(1, 3, 4, 4), torch.full((4, 3), -1.0))
        Traceback (most recent call last):
        fopro_lab.errors.InputError: gain: expected finite factors of 0 or more, got -1 to -1
    """
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
    if torch.compiler.is_compiling() or not gain.numel():
        return  # a traced tensor has no values
    low, high = (float(bound) for bound in torch.aminmax(gain.detach()))  # NaN if one is NaN
    if not 0 <= low <= high < float("inf"):
        raise InputError(f"gain: expected finite factors of 0 or more, got {low:g} to {high:g}")
