"""Random changes of a batch: drawn for every picture on its own, applied to all at once.

Two modes take the same draws. ``"exact"`` does the operations of the published recipe one by one,
as torchvision does them. ``"fused"`` does one bilinear warp and one colour matrix.

How far fused is from exact under the same published draws, mean and largest difference of a
value, in grey levels of 255:

===============  =======================  ====================  ===========================
pictures         geometry alone           colours alone         both
===============  =======================  ====================  ===========================
phantom, 64 px   1.86, largest 131        0.75, largest 26      2.23, largest 145
HAM10000, 224    0.69, largest 127        0.64, largest 23      1.11, largest 152
===============  =======================  ====================  ===========================

Geometry differs at edges, where exact takes the nearest pixel and fused the mean of four: most of
all at the border of the picture, against black. Colours differ by the hue, turned about the grey
axis, and where exact cuts what is too bright before the next operation.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fopro_lab.data.jitter import ColourChange, apply_matrices, colour_change, jitter
from fopro_lab.data.pixels import chunk_size
from fopro_lab.data.warp import (
    fetch,
    fetch_bilinear,
    frame_index,
    framed_planes,
    inverse_affine,
    nearest_index,
    source_lines,
    source_positions,
)
from fopro_lab.errors import InputError, ShapeError

Augmentation = Literal["none", "flips", "published"]
AugmentMode = Literal["fused", "exact"]

SCALE = (0.95, 1.20)
SHIFT = 0.05  # of the width, to either side
ROTATION = 45.0  # degrees, to either side
JITTER = 0.25  # of brightness, contrast and saturation, to either side of 1
HUE = 0.01  # of a turn, to either side


class Augmentations(NamedTuple):
    """What happens to each of ``B`` pictures; plain tensors on the CPU, for both modes.

    Attributes:
        scale: ``(B,)``; 2 doubles the picture.
        shift: ``(B,)`` share of the width by which it moves to the right, in whole pixels.
        angle: ``(B,)`` degrees; positive turns it clockwise.
        flip: ``(B, 2)``, -1 or 1, of x and of y, done last.
        factors: ``(B, 4)``: brightness, contrast, saturation, and hue as a share of a turn.
        order: ``(B, 4)``, which of the four colour operations is done first, and so on.
    """

    scale: Tensor
    shift: Tensor
    angle: Tensor
    flip: Tensor
    factors: Tensor
    order: Tensor

    def rows(self, rows: slice | Tensor) -> "Augmentations":
        """Return those of some of the pictures."""
        return Augmentations(*(part[rows] for part in self))


def sample_augmentations(
    count: int, *, kind: Augmentation, generator: torch.Generator
) -> Augmentations:
    """Draw what happens to each picture.

    ``"published"``: one of scale 0.95 to 1.2, shift up to 5 % in x, rotation up to 45 degrees;
    brightness, contrast and saturation 0.75 to 1.25, hue 0.01 of a turn, in random order; both
    flips. ``"flips"``: both flips. ``"none"``: nothing.

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
        >>> sample_augmentations(2, kind="flips", generator=generator).angle
        tensor([0., 0.], dtype=torch.float64)
    """
    check_kind(kind)
    draw = torch.rand(count, 10, generator=generator, dtype=torch.float64)
    order = torch.rand(count, 4, generator=generator).argsort(dim=1)
    even = 2 * draw - 1  # -1 to 1
    nothing = torch.zeros(count, dtype=torch.float64)
    scale, shift, angle = nothing + 1, nothing, nothing
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64).expand(count, 4)
    flip = torch.ones(count, 2, dtype=torch.float64)
    if kind != "none":
        flip = torch.where(draw[:, :2] < 0.5, -1.0, 1.0).double()
    if kind == "published":
        which = (draw[:, 2] * 3).long()
        low, high = SCALE
        scale = torch.where(which == 0, low + (high - low) * draw[:, 3], 1.0)
        shift = torch.where(which == 1, SHIFT * even[:, 4], 0.0)
        angle = torch.where(which == 2, ROTATION * even[:, 5], 0.0)
        # Drawn as brightness, saturation, contrast, hue.
        strength = torch.tensor([JITTER, JITTER, JITTER, HUE], dtype=torch.float64)
        factors = factors + strength * even[:, [6, 8, 7, 9]]
    return Augmentations(scale, shift, angle, flip, factors, order)


def apply_augmentations(
    images: Tensor, augmentations: Augmentations, *, mode: AugmentMode = "fused"
) -> Tensor:
    """Change each picture as drawn: geometry, black outside, then colour.

    No gradient flows.

    Args:
        images: ``uint8 (B, H, W, 3)``, or floating ``(B, 3, H, W)`` in [0, 1], on any device.
        augmentations: Of ``B`` pictures.
        mode: ``"fused"``, or ``"exact"`` as torchvision's operations.

    Returns:
        ``(B, 3, H, W)`` in [0, 1], single precision or that of ``images``.

    Raises:
        InputError: For an unknown mode, or images neither of 8 bits nor floating.
        ShapeError: If the shapes do not fit.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> drawn = sample_augmentations(2, kind="none", generator=generator)
        >>> x = torch.rand(2, 3, 8, 8)
        >>> torch.allclose(apply_augmentations(x, drawn), x, atol=1e-6)
        True
    """
    check_mode(mode)
    count = len(augmentations.scale)
    pixels = images.dtype == torch.uint8
    if not pixels and not images.is_floating_point():
        raise InputError(f"images: expected uint8 or a floating type, got {images.dtype}")
    expected, channels = ("H, W, 3", 3) if pixels else ("3, H, W", 1)
    if images.ndim != 4 or (len(images), images.shape[channels]) != (count, 3):
        raise ShapeError(f"images: expected ({count}, {expected}), got {tuple(images.shape)}")
    height, width = images.shape[1:3] if pixels else images.shape[2:]
    result = torch.empty(
        (count, 3, height, width),
        dtype=torch.float32 if pixels else images.dtype,
        device=images.device,
    )
    # Autocast would compute positions and colours to three digits.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        work = _Work(augmentations, images, (height, width))
        step = chunk_size(images)
        planes: Tensor | None = None
        for start in range(0, count, step):
            part = slice(start, start + step)
            planes = framed_planes(images[part], out=planes)
            (work.fused if mode == "fused" else work.exact)(planes, part, result[part].flatten(2))
    return result


def augment_batch(
    images: Tensor,
    *,
    kind: Augmentation,
    generator: torch.Generator,
    mode: AugmentMode = "fused",
) -> Tensor:
    """Draw and apply in one call; see `sample_augmentations` for the recipes.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], on any device.
        kind: ``"none"``, ``"flips"`` or ``"published"``.
        generator: On the CPU, whatever the device of the pictures.
        mode: As in `apply_augmentations`.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].

    Raises:
        InputError: For an unknown kind or mode.
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
    return apply_augmentations(images, drawn, mode=mode)


class _Work:
    """The draws of a batch as tensors on its device, and the work on a part of the batch."""

    def __init__(self, drawn: Augmentations, images: Tensor, size: tuple[int, int]) -> None:
        pixels = images.dtype == torch.uint8
        kind = torch.float32 if pixels else images.dtype
        self.top = 255.0 if pixels else 1.0
        shift = (drawn.shift * size[1]).round()
        moves = torch.stack([drawn.scale, shift, drawn.angle], dim=1).tolist()
        rows = [inverse_affine(scale=scale, shift=by, angle=angle) for scale, by, angle in moves]
        self.affine = torch.tensor(rows, dtype=kind, device=images.device).view(-1, 2, 3)
        self.whole = [scale == 1 and angle == 0 for scale, _, angle in moves]
        self.flip, self.order = drawn.flip, drawn.order
        self.factors = drawn.factors.to(images.device, kind)
        # In double precision a sine rounds to the same float in any batch.
        change = colour_change(drawn.factors, top=self.top)
        self.change = ColourChange(*(part.to(images.device, kind) for part in change))
        self.columns, self.rows = source_lines(
            self.affine, drawn.flip.to(images.device, kind), size=size
        )

    def fused(self, planes: Tensor, part: slice, out: Tensor) -> None:
        positions = source_positions(self.columns[:, part], self.rows[:, part])
        moved = fetch_bilinear(planes, positions, whole=all(self.whole[part]))
        apply_matrices(moved, ColourChange(*(each[part] for each in self.change)), out=out)

    def exact(self, planes: Tensor, part: slice, out: Tensor) -> None:
        if all(self.whole[part]):
            positions = source_positions(self.columns[:, part], self.rows[:, part])
            index = frame_index(positions.int(), planes)
        else:
            index = nearest_index(self.affine[part], self.flip[part], planes=planes)
        moved = fetch(planes, index)
        jitter(moved, factors=self.factors[part], order=self.order[part], top=self.top)
        torch.div(moved.transpose(0, 1), self.top, out=out)


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


def check_mode(mode: str) -> None:
    """Refuse an unknown mode.

    Raises:
        InputError: With the known ones.

    Example:
        >>> check_mode("fast")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: augment_mode: expected one of fused, exact, got 'fast'
    """
    modes = get_args(AugmentMode)
    if mode not in modes:
        raise InputError(f"augment_mode: expected one of {', '.join(modes)}, got '{mode}'")
