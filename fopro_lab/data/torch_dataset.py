"""A pack as PyTorch's own kind of data set, for loops that know nothing of this package."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fopro_lab.data.packed import Pack
from fopro_lab.data.rows import check_rows
from fopro_lab.errors import InputError


class TorchPack(Dataset[tuple[Any, int]]):
    """Some rows of a pack, map-style.

    A process that a loader spawns gets a pack above 64 MiB, a memory map, as the name of its
    file; a smaller one, which is held in memory, is copied to it. A process that it forks shares
    the pixels of both.

    Args:
        packed: The pictures.
        rows: Row numbers; None is all.
        transform: Applied to each picture, a tensor ``(3, H, W)``.
        pixels: ``float`` in [0, 1], or ``uint8`` as stored.

    Attributes:
        targets: Label of each item, ``int64 (N,)``, as samplers look for it.
        classes: Class names in the order of the labels.

    Raises:
        InputError: If the rows are not row numbers of the pack, or ``pixels`` is neither.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> picture, label = TorchPack(packed, [23], pixels="uint8")[0]
        >>> picture.dtype, picture.shape, label
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
        picture: Any = torch.from_numpy(self.packed.images[row].copy()).permute(2, 0, 1)
        picture = picture.contiguous() if self.pixels == "uint8" else picture.float() / 255
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, int(self.packed.labels[row])
