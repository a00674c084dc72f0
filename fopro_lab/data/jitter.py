"""The colours of an augmentation: one matrix a picture, or the four published operations.

The operations work on planes, ``(3, B, N)``, in place; ``top`` is white, 1 or 255.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # weights of the channels, ITU-R 601-2 as in torchvision
OPERATIONS = ("brightness", "contrast", "saturation", "hue")  # numbered as in a drawn order


def colour_matrices(*, brightness: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Build the matrices on RGB.

    The hue is turned about the grey axis, which is linear; a turn in HSV is not. At the
    published 0.01 of a turn the two go the same way and differ by 0.01 at most on mild colours.

    Args:
        brightness: ``(B,)`` factor.
        saturation: ``(B,)`` factor; 0 is grey.
        hue: ``(B,)`` share of a turn, from red to yellow.

    Returns:
        ``(B, 3, 3)``.

    Example:
        >>> one = torch.ones(1)
        >>> grey = colour_matrices(brightness=one, saturation=0 * one, hue=0 * one)[0]
        >>> torch.allclose(grey, torch.tensor([[0.2989, 0.587, 0.114]]).expand(3, 3), atol=1e-3)
        True
    """
    same = torch.eye(3).to(hue)
    grey = hue.new_tensor(GREY).expand(3, 3) / sum(GREY)
    # Rodrigues' formula about (1, 1, 1) / sqrt(3).
    across = hue.new_tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    angle = (2 * torch.pi * hue)[:, None, None]
    turn = same + torch.sin(angle) * across + (1 - torch.cos(angle)) * _product(across, across)
    strength = saturation[:, None, None]
    return brightness[:, None, None] * _product(strength * same + (1 - strength) * grey, turn)


class ColourChange(NamedTuple):
    """What `apply_matrices` needs of ``B`` pictures.

    Attributes:
        matrix: ``(B, 3, 3)``, all changes in one, and from the pixels' unit to [0, 1].
        offset: ``(B, 3)``, share of each channel's mean that is added to all channels.
    """

    matrix: Tensor
    offset: Tensor


def colour_change(factors: Tensor, *, top: float) -> ColourChange:
    """Put the four operations into one matrix and one offset a picture.

    Args:
        factors: ``(B, 4)``: brightness, contrast, saturation, and hue as a share of a turn.
        top: White, 1 or 255.

    Returns:
        Matrices and offsets.

    Example:
        >>> nothing = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
        >>> torch.allclose(colour_change(nothing, top=1).matrix[0], torch.eye(3), atol=1e-6)
        True
    """
    brightness, contrast, saturation, hue = factors.T
    matrix = colour_matrices(brightness=brightness, saturation=saturation, hue=hue) / top
    offset = (1 - contrast)[:, None] * _product(matrix.new_tensor([GREY]), matrix)[:, 0]
    return ColourChange(contrast[:, None, None] * matrix, offset)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply ``(..., R, 3)`` by ``(..., 3, 3)``, to the same bits in a batch of any size.

    On some processors the size of the batch chooses the kernel behind ``@``, and so the rounding.
    """
    first, second, third = (left[..., k, None] * right[..., k, None, :] for k in range(3))
    return first + second + third


def apply_matrices(planes: Tensor, change: ColourChange, *, out: Tensor) -> Tensor:
    """Change colours by a matrix, contrast about each picture's mean grey included, and clamp.

    Args:
        planes: ``(3, B, N)``.
        change: Of ``B`` pictures.
        out: ``(B, 3, N)``, filled with the result.

    Returns:
        ``out``, in [0, 1].

    Example:
        >>> planes, out = torch.full((3, 1, 2), 51.0), torch.empty(1, 3, 2)
        >>> change = colour_change(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), top=255)
        >>> apply_matrices(planes, change, out=out)
        tensor([[[0.2000, 0.2000], [0.2000, 0.2000], [0.2000, 0.2000]]])
    """
    grey = (change.offset * planes.mean(dim=2).T).sum(dim=1)
    torch.bmm(change.matrix, planes.transpose(0, 1), out=out)
    return out.add_(grey[:, None, None]).clamp_(0, 1)


def jitter(planes: Tensor, *, factors: Tensor, order: Tensor, top: float) -> Tensor:
    """Apply the four operations to each picture in its own order, clamping after each.

    Args:
        planes: ``(3, B, N)``; changed in place.
        factors: ``(B, 4)``: brightness, contrast, saturation, and hue as a share of a turn.
        order: ``(B, 4)`` on the CPU; row ``b`` names picture ``b``'s operations, first to last.
        top: White, 1 or 255.

    Returns:
        ``planes``.

    Source: torchvision's ColorJitter, on floating pictures.

    Example:
        >>> twice = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
        >>> jitter(torch.full((3, 1, 2), 0.3), factors=twice, order=torch.arange(4)[None], top=1)
        tensor([[[0.6000, 0.6000]], [[0.6000, 0.6000]], [[0.6000, 0.6000]]])
    """
    changes = (_brightness, _contrast, _saturation, _hue)
    for step in order.T.tolist():
        for number, change in enumerate(changes):
            rows = [row for row, chosen in enumerate(step) if chosen == number]
            if len(rows) == len(step):
                change(planes, factors[:, number, None], top)
            elif rows:  # several pictures in a chunk: those that are at this operation now
                part = planes[:, rows]
                change(part, factors[rows, number, None], top)
                planes[:, rows] = part
    return planes


def _brightness(planes: Tensor, factor: Tensor, top: float) -> None:
    planes.mul_(factor).clamp_(0, top)


def _contrast(planes: Tensor, factor: Tensor, top: float) -> None:
    grey = planes.new_tensor(GREY) @ planes.mean(dim=2)
    planes.mul_(factor).add_((1 - factor) * grey[:, None]).clamp_(0, top)


def _saturation(planes: Tensor, factor: Tensor, top: float) -> None:
    red, green, blue = planes
    grey = (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    planes.mul_(factor).add_(grey.mul_(1 - factor)).clamp_(0, top)


def _hue(planes: Tensor, turn: Tensor, top: float) -> None:
    """Turn the hue by up to a sixth of a turn, as in HSV but without going there.

    Around the circle of hues a channel runs along a trapezoid: it rests at the highest value for
    two sixths, falls for one, rests at the lowest for two, and rises for one. On a rest the
    difference of the other two channels tells how far it has come, on a slope that difference is
    at its bound. So the part of the turn that falls on a slope is what of the difference lies
    beyond ``rest``, and the result is clamped to where the slope ends.
    """
    red, green, blue = planes
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    rest = (high - low).mul_(1 - 6 * turn.abs())
    back = -rest
    sign = turn.sign()
    slopes = []
    for first, second in ((green, blue), (blue, red), (red, green)):
        difference = first - second
        slopes.append(torch.clamp(difference, back, rest).sub_(difference).mul_(sign))
    for channel, slope in zip(planes, slopes, strict=True):
        torch.clamp(channel.add_(slope), low, high, out=channel)
