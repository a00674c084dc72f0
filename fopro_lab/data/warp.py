"""The geometry of an augmentation: where each pixel comes from, and fetching it.

Pictures lie here as planes, ``(3, B, H + 3, W + 3)``: channel by channel, in a black frame of one
pixel before and two after. So a pixel outside is fetched like one inside, and a whole chunk of
pictures by one index. Fetching by index is three times as fast on a CPU as ``grid_sample``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BEFORE, AFTER = 1, 2  # black pixels around a plane


def framed_planes(images: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Lay pictures out as framed planes.

    Args:
        images: ``uint8 (B, H, W, 3)``, or floating ``(B, 3, H, W)``.
        out: Planes of as many pictures of the same size, to be filled again.

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
    """Build the matrix from the result's to the picture's coordinates, in pixels from the centre.

    The arithmetic is that of torchvision, step by step, so that nearest neighbours are the same.

    Args:
        scale: Above 0; 2 doubles the picture.
        shift: Pixels by which the picture moves to the right.
        angle: Degrees; positive turns the picture clockwise.

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
        size: Height and width of the pictures.

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
    """Let each picture of a chunk begin where the one before ends."""
    count, area = planes.shape[1], planes.shape[2] * planes.shape[3]
    if count > 1:
        starts = torch.arange(0, count * area, area, dtype=index.dtype, device=index.device)
        index = index + starts[:, None, None]
    return index.flatten()
