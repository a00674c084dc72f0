"""The ways to a small picture that the audit compares."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F

from fopro_lab.config import Interpolation
from fopro_lab.data import Dataset, Pack
from fopro_lab.data.decoding import resize_square, with_rules
from fopro_lab.errors import InputError

BAD_EXAMPLE = "bilinear, no antialias"


def full_picture(dataset: Dataset, row: int) -> np.ndarray:
    """Return a picture at its own size, as the data set's reader tells it.

    Files are decoded exactly, arrays given as they lie there, phantoms as they are drawn.

    Args:
        dataset: Readable pictures.
        row: Which.

    Returns:
        ``uint8 (H, W, 3)``, RGB.

    Raises:
        InputError: If the reader knows no own size.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> full_picture(open_dataset("phantom", pictures=24), 0).shape
        (64, 64, 3)
    """
    if not hasattr(dataset.reader, "native"):
        raise InputError(
            f"{dataset.name}: expected a reader with a method native(row), which returns the "
            "picture at its own size; without it no resize can be audited"
        )
    full: np.ndarray = dataset.reader.native(row)
    return full


def resized_side(packed: Pack, row: int) -> int:
    """Return the size at which a resize is worth looking at: the pack's, or 3/8 of the picture.

    At a half, bilinear points fall between two pixels and average them as a box does, so that the
    bad example would be none.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 64, progress=False)
        >>> resized_side(packed, 0)  # drawn at 64 pixels: nothing to resize
        24
    """
    side = min(full_picture(packed.dataset, row).shape[:2])
    return packed.size if side > packed.size else max(8, 3 * side // 8)


def resize_steps(full: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Resize with each interpolation, and without antialiasing as a bad example.

    Args:
        full: ``uint8 (H, W, 3)``.
        size: Side of the results, pixels.

    Returns:
        ``uint8 (size, size, 3)`` of each way.

    Example:
        >>> list(resize_steps(np.zeros((9, 9, 3), np.uint8), 4))
        ['box', 'bilinear', 'bicubic', 'lanczos', 'bilinear, no antialias']
    """
    steps = {
        name: resize_square(full, size=size, interpolation=name) for name in get_args(Interpolation)
    }
    pixels = torch.from_numpy(full.copy()).permute(2, 0, 1)[None].float()
    points = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    steps[BAD_EXAMPLE] = points[0].permute(1, 2, 0).round().byte().numpy()
    return steps


def decode_steps(
    dataset: Dataset, row: int, size: int, *, exact: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Decode a JPEG shrunk by the decoder, with each interpolation of the rest.

    Args:
        dataset: Readable pictures.
        row: Which.
        size: Side of the results, pixels.
        exact: Of `resize_steps`, for the same picture.

    Returns:
        For each interpolation the exact and the drafted ``uint8 (size, size, 3)``; nothing for
        pictures without a file.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> decode_steps(open_dataset("phantom", pictures=24), 0, 16, exact={})
        {}
    """
    if not dataset.table["path"].iloc[row]:
        return {}
    steps = {}
    for name in get_args(Interpolation):
        reader = with_rules(dataset.reader, decoder="draft", interpolation=name)
        steps[f"draft, then {name}"] = exact[name], reader(row, size)
    return steps
