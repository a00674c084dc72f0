"""Random changes of a batch: drawn for every image on its own, applied to all at once.

Two modes take the same draws. ``"exact"`` does the operations of the published recipe one by one,
as torchvision does them. ``"fused"`` does one bilinear warp and one colour matrix.

How far fused is from exact under the same published draws, mean and largest difference of a
value, in grey levels of 255:

===============  =======================  ====================  ===========================
images         geometry alone           colours alone         both
===============  =======================  ====================  ===========================
phantom, 64 px   1.86, largest 131        0.75, largest 26      2.23, largest 145
HAM10000, 224    0.69, largest 127        0.64, largest 23      1.11, largest 152
===============  =======================  ====================  ===========================

Geometry differs at edges, where exact takes the nearest pixel and fused the mean of four: most of
all at the border of the image, against black. Colours differ by the hue, turned about the grey
axis, and where exact cuts what is too bright before the next operation.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from fopro_lab.data.dataset import check_rows
from fopro_lab.data.pack import Pack
from fopro_lab.errors import InputError, ShapeError


class TorchPack(Dataset[tuple[Any, int]]):
    """Some rows of a pack, map-style.

    A process that a loader spawns gets a pack above 64 MiB, a memory map, as the name of its
    file; a smaller one, which is held in memory, is copied to it. A process that it forks shares
    the pixels of both.

    Args:
        packed: The images.
        rows: Row numbers; None is all.
        transform: Applied to each image, a tensor ``(3, H, W)``.
        pixels: ``float`` in [0, 1], or ``uint8`` as stored.

    Attributes:
        targets: Label of each item, ``int64 (N,)``, as samplers look for it.
        classes: Class names in the order of the labels.

    Raises:
        InputError: If the rows are not row numbers of the pack, or ``pixels`` is neither.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> image, label = TorchPack(packed, [23], pixels="uint8")[0]
        >>> image.dtype, image.shape, label
        (torch.uint8, torch.Size([3, 16, 16]), 7)
    """

    def __init__(
        self,
        packed: Pack,
        rows: "np.typing.ArrayLike | None" = None,
        *,
        transform: Callable[[Tensor], Any] | None = None,
        pixels: Literal["float", "uint8"] = "float",
    ) -> None:
        chosen = np.arange(len(packed)) if rows is None else rows
        if pixels not in ("float", "uint8"):
            raise InputError(f"pixels: expected one of 'float', 'uint8', got '{pixels}'")
        self.packed = packed
        self.rows = check_rows(chosen, count=len(packed))
        self.transform = transform
        self.pixels = pixels
        self.targets = packed.labels[self.rows]
        self.classes = list(packed.dataset.class_names)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = int(self.rows[index])
        image: Any = torch.from_numpy(self.packed.images[row].copy()).permute(2, 0, 1)
        image = image.contiguous() if self.pixels == "uint8" else image.float() / 255
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self.packed.labels[row])


def read_pixels(pack: Pack, rows: np.typing.ArrayLike) -> Tensor:
    """Read images as they lie in the pack.

    Args:
        pack: The images.
        rows: Row numbers, ``(B,)``.

    Returns:
        ``uint8 (B, size, size, 3)``, a copy, on the CPU.

    Raises:
        InputError: If the rows are not row numbers of the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> read_pixels(packed, [3, 1]).shape
        torch.Size([2, 16, 16, 3])
    """
    return torch.from_numpy(np.asarray(pack.images[check_rows(rows, count=len(pack))]))


def float_images(pixels: Tensor) -> Tensor:
    """Turn 8-bit images into images in [0, 1], nothing else.

    Args:
        pixels: ``uint8 (B, H, W, 3)``, on any device.

    Returns:
        ``(B, 3, H, W)``, single precision: each value is the pixel's over 255, to the bit.

    Example:
        >>> float_images(torch.full((1, 2, 2, 3), 51, dtype=torch.uint8))[0, 0, 0].tolist()
        [0.20000000298023224, 0.20000000298023224]
    """
    count, height, width, _ = pixels.shape
    result = torch.empty((count, 3, height, width), device=pixels.device)
    step = chunk_size(pixels)
    for start in range(0, count, step):
        part = slice(start, start + step)
        torch.div(pixels[part].permute(0, 3, 1, 2).contiguous(), 255, out=result[part])
    return result


def chunk_size(images: Tensor) -> int:
    """Return how many images are worked on at a time.

    On a CPU one, whose planes stay in the cache through all steps; on a GPU all of a batch, since
    there a step costs the same for one image as for many.

    Example:
        >>> chunk_size(torch.rand(32, 3, 8, 8))
        1
    """
    return 1 if images.device.type == "cpu" else max(len(images), 1)


BEFORE, AFTER = 1, 2  # black pixels around a plane


def framed_planes(images: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Lay images out as framed planes.

    Args:
        images: ``uint8 (B, H, W, 3)``, or floating ``(B, 3, H, W)``.
        out: Planes of as many images of the same size, to be filled again.

    Returns:
        ``(3, B, H + 3, W + 3)``, single precision or that of ``images``, in the unit of ``images``.

    Example:
        >>> framed_planes(torch.ones(2, 3, 4, 5)).sum(dim=(0, 2, 3)).tolist()
        [60.0, 60.0]
    """
    if images.dtype == torch.uint8:
        source = images.permute(3, 0, 1, 2)
        source = source.contiguous()  # eight bits are cheaper to sort than floats
    else:
        source = images.transpose(0, 1)
    count, height, width = source.shape[1:]
    if out is None:
        kind = images.dtype if images.is_floating_point() else torch.float32
        frame = (3, count, height + BEFORE + AFTER, width + BEFORE + AFTER)
        out = torch.zeros(frame, dtype=kind, device=images.device)
    out[:, :, BEFORE:-AFTER, BEFORE:-AFTER] = source
    return out


def inverse_affine(*, scale: float, shift: float, angle: float) -> list[float]:
    """Build the matrix from the result's to the image's coordinates, in pixels from the centre.

    The arithmetic is that of torchvision, step by step, so that nearest neighbours are the same.

    Args:
        scale: Above 0; 2 doubles the image.
        shift: Pixels by which the image moves to the right.
        angle: Degrees; positive turns the image clockwise.

    Returns:
        Six numbers, two rows of three, x before y.

    Example:
        >>> inverse_affine(scale=2.0, shift=3.0, angle=0.0)
        [0.5, 0.0, -1.5, -0.0, 0.5, 0.0]
    """
    turn = math.radians(angle)
    cosine, sine = math.cos(turn) / scale, math.sin(turn) / scale
    return [cosine, sine, -cosine * shift, -sine, cosine, sine * shift]


def source_lines(affine: Tensor, flip: Tensor, *, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Find where each pixel of the result comes from: its position is a sum of two lines.

    Args:
        affine: ``(B, 2, 3)``, see `inverse_affine`.
        flip: ``(B, 2)``, -1 or 1, of x and of y, done last.
        size: Height and width of the images.

    Returns:
        What a column adds, ``(2, B, 1, W)``, and what a row adds, ``(2, B, H, 1)``; x before y,
        in pixels of the frame.

    Example:
        >>> still, flip = torch.eye(2, 3)[None], torch.tensor([[-1.0, 1.0]])
        >>> columns, rows = source_lines(still, flip, size=(1, 3))
        >>> (columns + rows)[0].flatten().tolist()
        [3.0, 2.0, 1.0]
    """
    height, width = size
    half = [(width - 1) / 2, (height - 1) / 2]
    across = torch.arange(width).to(affine) - half[0]
    down = torch.arange(height).to(affine) - half[1]
    turn = (affine[:, :, :2] * flip[:, None, :]).transpose(0, 1)  # (2, B, 2)
    moved = affine[:, :, 2].T + affine.new_tensor(half)[:, None] + BEFORE
    columns = turn[:, :, 0, None] * across + moved[:, :, None]
    rows = turn[:, :, 1, None] * down
    return columns[:, :, None, :], rows[:, :, :, None]


def source_positions(columns: Tensor, rows: Tensor) -> Tensor:
    """Add up the two lines; what lies outside is moved onto the frame.

    Args:
        columns: ``(2, B, 1, W)``, see `source_lines`.
        rows: ``(2, B, H, 1)``.

    Returns:
        ``(2, B, H, W)``, x from 0 to W + 1 before y from 0 to H + 1.

    Example:
        >>> far = torch.full((2, 1, 1, 1), 9.0)
        >>> source_positions(far, -2 * far).flatten().tolist()
        [0.0, 0.0]
    """
    positions = columns + rows
    positions[0].clamp_(0, columns.shape[3] + BEFORE)
    positions[1].clamp_(0, rows.shape[2] + BEFORE)
    return positions


def fetch_bilinear(planes: Tensor, positions: Tensor, *, whole: bool) -> Tensor:
    """Fetch each pixel as the mean of its four neighbours, weighted by how near they are.

    Args:
        planes: ``(3, B, H + 3, W + 3)``.
        positions: ``(2, B, H, W)``, see `source_positions`.
        whole: All positions are whole pixels: one neighbour has all the weight.

    Returns:
        ``(3, B, H * W)``.

    Example:
        >>> planes = framed_planes(torch.tensor([[0.0, 4.0]]).expand(1, 3, 1, 2))
        >>> halfway = torch.tensor([1.5, 1.0]).view(2, 1, 1, 1)
        >>> fetch_bilinear(planes, halfway, whole=False).flatten().tolist()
        [2.0, 2.0, 2.0]
    """
    index = frame_index(positions.int(), planes)
    if whole:
        return fetch(planes, index)
    right, down = positions.frac_().flatten(1)
    line = planes.shape[3]
    result = planes.new_empty(3, len(index))
    for plane, target in zip(planes.flatten(1), result, strict=True):
        corners = (plane[start:].index_select(0, index) for start in (0, 1, line, line + 1))
        upper = torch.lerp(next(corners), next(corners), right)
        lower = torch.lerp(next(corners), next(corners), right)
        torch.lerp(upper, lower, down, out=target)
    return result.view(3, planes.shape[1], -1)


def fetch(planes: Tensor, index: Tensor) -> Tensor:
    """Fetch pixels by their place in the framed planes.

    Args:
        planes: ``(3, B, H + 3, W + 3)``.
        index: ``(B * H * W,)``, see `frame_index`.

    Returns:
        ``(3, B, H * W)``.

    Example:
        >>> planes = framed_planes(torch.ones(1, 3, 2, 2))
        >>> fetch(planes, torch.tensor([0, 6])).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    """
    found = [plane.index_select(0, index) for plane in planes.flatten(1)]
    return torch.stack(found).view(3, planes.shape[1], -1)


def frame_index(positions: Tensor, planes: Tensor) -> Tensor:
    """Number whole positions as they lie in the flattened planes of a chunk.

    Args:
        positions: ``int32 (2, B, H, W)``, x before y, in the frame's coordinates.
        planes: ``(3, B, H + 3, W + 3)``.

    Returns:
        ``int32 (B * H * W,)``.

    Example:
        >>> planes = torch.zeros(3, 2, 5, 5)
        >>> frame_index(torch.ones(2, 2, 1, 1, dtype=torch.int32), planes).tolist()
        [6, 31]
    """
    index = torch.add(positions[0], positions[1], alpha=planes.shape[3])
    return _of_chunk(index, planes)


def nearest_index(affine: Tensor, flip: Tensor, *, planes: Tensor) -> Tensor:
    """Number the nearest neighbour of each pixel, to the same rounding as torchvision.

    The grid is computed by the same operations in the same order and rounded by the same
    function, which here picks the pixel's number. At a tie the last bit decides.

    Args:
        affine: ``(B, 2, 3)``, see `inverse_affine`.
        flip: ``(B, 2)``, -1 or 1, of x and of y, done last.
        planes: ``(3, B, H + 3, W + 3)``.

    Returns:
        ``int32 (B * H * W,)``; what lies outside is number 0, in the black frame.

    Example:
        >>> still, flip = torch.eye(2, 3)[None], torch.tensor([[-1.0, 1.0]])
        >>> nearest_index(still, flip, planes=torch.zeros(3, 1, 4, 6)).tolist()
        [9, 8, 7]
    """
    count = planes.shape[1]
    height, width = (side - BEFORE - AFTER for side in planes.shape[2:])
    numbers = torch.arange(planes.shape[2] * planes.shape[3]).to(planes).view(planes.shape[2:])
    numbers = numbers[BEFORE:-AFTER, BEFORE:-AFTER].expand(count, 1, height, width)
    places = planes.new_ones(height, width, 3)
    for part, steps in ((0, width), (1, height)):
        line = torch.linspace((1 - steps) * 0.5, (steps - 1) * 0.5, steps, device=planes.device)
        places[:, :, part] = line if part == 0 else line[:, None]
    theta = affine.transpose(1, 2) / affine.new_tensor([0.5 * width, 0.5 * height])
    grid = places.view(1, -1, 3).expand(count, -1, -1).bmm(theta).view(count, height, width, 2)
    index = F.grid_sample(numbers, grid, mode="nearest", align_corners=False).int()[:, 0]
    ways = flip.tolist()
    for axis in (0, 1):  # x, then y
        turned = [number for number, way in enumerate(ways) if way[axis] < 0]
        if len(turned) == count:
            index = index.flip(2 - axis)
        elif turned:
            index[turned] = index[turned].flip(2 - axis)
    return _of_chunk(index, planes)


def _of_chunk(index: Tensor, planes: Tensor) -> Tensor:
    """Let each image of a chunk begin where the one before ends."""
    count, area = planes.shape[1], planes.shape[2] * planes.shape[3]
    if count > 1:
        starts = torch.arange(0, count * area, area, dtype=index.dtype, device=index.device)
        index = index + starts[:, None, None]
    return index.flatten()


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
    """What `apply_matrices` needs of ``B`` images.

    Attributes:
        matrix: ``(B, 3, 3)``, all changes in one, and from the pixels' unit to [0, 1].
        offset: ``(B, 3)``, share of each channel's mean that is added to all channels.
    """

    matrix: Tensor
    offset: Tensor


def colour_change(factors: Tensor, *, top: float) -> ColourChange:
    """Put the four operations into one matrix and one offset an image.

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
    """Change colours by a matrix, contrast about each image's mean grey included, and clamp.

    Args:
        planes: ``(3, B, N)``.
        change: Of ``B`` images.
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
    """Apply the four operations to each image in its own order, clamping after each.

    Args:
        planes: ``(3, B, N)``; changed in place.
        factors: ``(B, 4)``: brightness, contrast, saturation, and hue as a share of a turn.
        order: ``(B, 4)`` on the CPU; row ``b`` names image ``b``'s operations, first to last.
        top: White, 1 or 255.

    Returns:
        ``planes``.

    Source: torchvision's ColorJitter, on floating images.

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
            elif rows:  # several images in a chunk: those that are at this operation now
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


class PairedBatch(NamedTuple):
    """A batch and its partners.

    Attributes:
        images: ``(B, 3, H, W)``.
        labels: ``(B,)``.
        partners: ``(B, 3, H, W)``, drawn class-balanced.
        partner_labels: ``(B,)``.
        weights: ``(B,)``, share of the partner in each mixture.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor
    partner_labels: Tensor
    weights: Tensor


def sample_weights(count: int, *, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw the partners' shares from Beta(alpha, 1), of mean ``alpha / (1 + alpha)``.

    Args:
        count: Number of images.
        alpha: Above 0; at 0.1 to 0.2, as published, most partners have next to no share.
        generator: On the CPU.

    Returns:
        ``(count,)`` in [0, 1].

    Raises:
        InputError: If ``alpha`` is not above 0.

    Source: Galdran et al., Balanced-MixUp for Highly Imbalanced Medical Image Classification,
        MICCAI 2021, which draws one share a batch; here each image has its own.

    Example:
        >>> weights = sample_weights(4000, alpha=0.25, generator=torch.Generator().manual_seed(0))
        >>> round(float(weights.mean()), 1)
        0.2
    """
    if not alpha > 0:
        raise InputError(f"alpha: expected above 0, got {alpha}")
    # The distribution function is x ** alpha, so its inverse of a uniform number is Beta.
    drawn = torch.rand(count, generator=generator, dtype=torch.float64)
    return (drawn ** (1 / alpha)).float()


def mix(pair: PairedBatch, *, classes: int) -> tuple[Tensor, Tensor]:
    """Mix each image with its partner, and their labels in the same shares.

    The cross-entropy of the mixed label is the same mixture of two cross-entropies.

    Args:
        pair: What is mixed.
        classes: K.

    Returns:
        Images ``(B, 3, H, W)``, and shares of the classes ``(B, K)``.

    Example:
        >>> black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> pair = PairedBatch(
        ...     black, torch.tensor([0]), white, torch.tensor([1]), torch.tensor([0.25]))
        >>> images, labels = mix(pair, classes=3)
        >>> float(images.mean()), labels.tolist()
        (0.25, [[0.75, 0.25, 0.0]])
    """
    images = torch.lerp(pair.images, pair.partners, pair.weights[:, None, None, None])
    own, other = (
        F.one_hot(labels, classes).to(pair.weights) for labels in (pair.labels, pair.partner_labels)
    )
    return images, torch.lerp(own, other, pair.weights[:, None])


Augmentation = Literal["none", "flips", "published"]
AugmentMode = Literal["fused", "exact"]

SCALE = (0.95, 1.20)
SHIFT = 0.05  # of the width, to either side
ROTATION = 45.0  # degrees, to either side
JITTER = 0.25  # of brightness, contrast and saturation, to either side of 1
HUE = 0.01  # of a turn, to either side


class Augmentations(NamedTuple):
    """What happens to each of ``B`` images; plain tensors on the CPU, for both modes.

    Attributes:
        scale: ``(B,)``; 2 doubles the image.
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
        """Return those of some of the images."""
        return Augmentations(*(part[rows] for part in self))


def sample_augmentations(
    count: int, *, kind: Augmentation, generator: torch.Generator
) -> Augmentations:
    """Draw what happens to each image.

    ``"published"``: one of scale 0.95 to 1.2, shift up to 5 % in x, rotation up to 45 degrees;
    brightness, contrast and saturation 0.75 to 1.25, hue 0.01 of a turn, in random order; both
    flips. ``"flips"``: both flips. ``"none"``: nothing.

    Args:
        count: Number of images.
        kind: The recipe.
        generator: On the CPU.

    Returns:
        Augmentations of ``count`` images.

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
    """Change each image as drawn: geometry, black outside, then colour.

    No gradient flows.

    Args:
        images: ``uint8 (B, H, W, 3)``, or floating ``(B, 3, H, W)`` in [0, 1], on any device.
        augmentations: Of ``B`` images.
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
        generator: On the CPU, whatever the device of the images.
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
