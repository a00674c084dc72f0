"""Random changes of a batch: drawn for every picture on its own, applied to all at once.

Geometry is one affine resampling, colour one matrix and one offset a picture.
"""

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError

Augmentation = Literal["none", "flips", "published"]

SCALE = (0.95, 1.20)
SHIFT = 0.05  # of the width, to either side
ROTATION = 45.0  # degrees, to either side
JITTER = 0.25  # of brightness, contrast and saturation, to either side of 1
HUE = 0.01  # of a turn, to either side
GREY = (0.2989, 0.587, 0.114)  # weights of the channels, ITU-R 601-2 as in torchvision


class Augmentations(NamedTuple):
    """What happens to each of ``B`` pictures; plain tensors on the CPU.

    Attributes:
        affine: ``(B, 2, 3)``, from the result's to the picture's coordinates, in pixels from
            the centre, x before y, with shifts as a share of the width and height.
        colour: ``(B, 3, 3)`` matrix on RGB, brightness, saturation and hue.
        contrast: ``(B,)`` factor about the picture's mean grey.
    """

    affine: Tensor
    colour: Tensor
    contrast: Tensor

    def rows(self, rows: slice) -> "Augmentations":
        """Return those of some of the pictures."""
        return Augmentations(*(part[rows] for part in self))


def sample_augmentations(
    count: int, *, kind: Augmentation, generator: torch.Generator
) -> Augmentations:
    """Draw what happens to each picture.

    ``"published"``: one of scale 0.95 to 1.2, shift up to 5 % in x, rotation up to 45 degrees;
    brightness, contrast and saturation 0.75 to 1.25, hue 0.01 of a turn; both flips.
    ``"flips"``: both flips. ``"none"``: nothing.

    Args:
        count: Number of pictures.
        kind: The recipe.
        generator: On the CPU.

    Returns:
        Augmentations of ``count`` pictures.

    Raises:
        InputError: For an unknown kind.

    Source: release of FoPro-KD's distillation half (``_data_transforms_skin``).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> sample_augmentations(2, kind="flips", generator=generator).contrast
        tensor([1., 1.])
    """
    check_kind(kind)
    draw = torch.rand(count, 10, generator=generator, dtype=torch.float64)
    even = 2 * draw - 1  # -1 to 1
    nothing = torch.zeros(count, dtype=torch.float64)
    scale, shift, angle = nothing + 1, nothing, nothing
    factors, hue = torch.ones(count, 3, dtype=torch.float64), nothing
    flip = nothing[:, None].expand(-1, 2) + 1
    if kind != "none":
        flip = torch.where(draw[:, :2] < 0.5, -1.0, 1.0).double()
    if kind == "published":
        which = (draw[:, 2] * 3).long()
        low, high = SCALE
        scale = torch.where(which == 0, low + (high - low) * draw[:, 3], 1.0)
        shift = torch.where(which == 1, SHIFT * even[:, 4], 0.0)
        angle = torch.where(which == 2, torch.pi / 180 * ROTATION * even[:, 5], 0.0)
        factors = 1 + JITTER * even[:, 6:9]
        hue = HUE * even[:, 9]
    affine = affine_matrices(scale=scale, shift=shift, angle=angle, flip=flip)
    colour = colour_matrices(brightness=factors[:, 0], saturation=factors[:, 1], hue=hue)
    return Augmentations(affine.float(), colour.float(), factors[:, 2].float())


def apply_augmentations(images: Tensor, augmentations: Augmentations) -> Tensor:
    """Change each picture as drawn: geometry, bilinear with black outside, then colour.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        augmentations: Of ``B`` pictures.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].

    Raises:
        ShapeError: If the shapes do not fit.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> drawn = sample_augmentations(2, kind="none", generator=generator)
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(apply_augmentations(x, drawn), x, atol=1e-6)
        True
    """
    count = len(augmentations.contrast)
    if images.ndim != 4 or images.shape[:2] != (count, 3):
        raise ShapeError(f"images: expected ({count}, 3, H, W), got {tuple(images.shape)}")
    affine, colour, contrast = (part.to(images.device, images.dtype) for part in augmentations)
    height, width = images.shape[2:]
    # grid_sample's coordinates reach from -1 to 1: a pixel is 2 / W wide and 2 / H high.
    half = torch.tensor([width / 2, height / 2], dtype=images.dtype, device=images.device)
    turn = affine[:, :, :2] * half[None, None, :] / half[None, :, None]
    theta = torch.cat([turn, 2 * affine[:, :, 2:]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    tinted = torch.einsum("bij,bjhw->bihw", colour, moved)
    weights = torch.tensor(GREY, dtype=images.dtype, device=images.device)
    grey = torch.einsum("c,bchw->b", weights, tinted) / (height * width)
    offset = (1 - contrast) * grey
    return (contrast[:, None, None, None] * tinted + offset[:, None, None, None]).clamp(0, 1)


def augment_batch(images: Tensor, *, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw and apply in one call; see `sample_augmentations` for the recipes.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], on any device.
        kind: ``"none"``, ``"flips"`` or ``"published"``.
        generator: On the CPU, whatever the device of the pictures.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].

    Raises:
        InputError: For an unknown kind.
        ShapeError: If ``images`` has another shape.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> augment_batch(x, kind="published", generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
    """
    check_kind(kind)
    if kind == "none":
        return images
    drawn = sample_augmentations(len(images), kind=kind, generator=generator)
    return apply_augmentations(images, drawn)


def affine_matrices(*, scale: Tensor, shift: Tensor, angle: Tensor, flip: Tensor) -> Tensor:
    """Build the matrices from the result's to the picture's coordinates.

    Args:
        scale: ``(B,)`` above 0; 2 doubles the picture.
        shift: ``(B,)`` share of the width by which the picture moves to the right.
        angle: ``(B,)`` radians; positive turns the picture clockwise.
        flip: ``(B, 2)``, -1 or 1, of x and of y, done last.

    Returns:
        ``(B, 2, 3)``, as in `Augmentations`.

    Example:
        >>> one, none = torch.ones(1), torch.zeros(1)
        >>> flip = torch.tensor([[-1.0, 1.0]])
        >>> affine_matrices(scale=one, shift=none, angle=none, flip=flip)[0, 0, :2].tolist()
        [-1.0, 0.0]
    """
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    turn = torch.stack([cosine, sine, -sine, cosine], dim=1).reshape(-1, 2, 2)
    moved = torch.stack([-shift, torch.zeros_like(shift)], dim=1)[:, :, None]
    return torch.cat([turn * flip[:, None, :], moved], dim=2)


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
    turn = same + torch.sin(angle) * across + (1 - torch.cos(angle)) * across @ across
    strength = saturation[:, None, None]
    return brightness[:, None, None] * ((strength * same + (1 - strength) * grey) @ turn)


def check_kind(kind: str) -> None:
    """Refuse an unknown recipe.

    Raises:
        InputError: With the known ones.

    Example:
        >>> check_kind("mixup")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: augment: expected one of none, flips, published, got 'mixup'
    """
    kinds = get_args(Augmentation)
    if kind not in kinds:
        raise InputError(f"augment: expected one of {', '.join(kinds)}, got '{kind}'")
