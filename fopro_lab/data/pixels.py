"""8-bit pictures: read from a pack, and made float."""

import numpy as np
import torch
from torch import Tensor

from fopro_lab.data.packing import Pack
from fopro_lab.data.rows import check_rows


def read_pixels(pack: Pack, rows: np.typing.ArrayLike) -> Tensor:
    """Read pictures as they lie in the pack.

    Args:
        pack: The pictures.
        rows: Row numbers, ``(B,)``.

    Returns:
        ``uint8 (B, size, size, 3)``, a copy, on the CPU.

    Raises:
        InputError: If the rows are not row numbers of the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> read_pixels(packed, [3, 1]).shape
        torch.Size([2, 16, 16, 3])
    """
    return torch.from_numpy(np.asarray(pack.images[check_rows(rows, count=len(pack))]))


def float_images(pixels: Tensor) -> Tensor:
    """Turn 8-bit pictures into images in [0, 1], nothing else.

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
    """Return how many pictures are worked on at a time.

    On a CPU one, whose planes stay in the cache through all steps; on a GPU all of a batch, since
    there a step costs the same for one picture as for many.

    Example:
        >>> chunk_size(torch.rand(32, 3, 8, 8))
        1
    """
    return 1 if images.device.type == "cpu" else max(len(images), 1)
