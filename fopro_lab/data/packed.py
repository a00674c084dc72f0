"""What packing gives: all pictures of a data set at one size, as an array."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.pack_files import map_pixels

if TYPE_CHECKING:
    from torch import Tensor

    from fopro_lab.data.torch_dataset import TorchPack


class _Mapped(NamedTuple):
    """A memory map on its way to another process: the file's name instead of its pixels."""

    path: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pack:
    """All pictures at one size; row ``i`` is row ``i`` of ``dataset``.

    Up to 64 MiB the pictures are held in memory; above, they are a memory map, of which the
    system holds as much as there is room for, so that a set larger than memory works. Another
    process gets a map's file name and maps it again, and a copy of pictures held in memory.

    Attributes:
        images: ``uint8 (N, size, size, 3)``, RGB, read-only.
        labels: ``int64 (N,)``.
        size: Side, pixels.
        dataset: What was packed, without the pictures that were left out.
        left_out: Ids of unreadable pictures and the reason, empty unless asked for.
        path: The file, or None for a pack that was made in memory.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> image, label = packed[0]
        >>> len(packed), image.shape, label
        (24, torch.Size([3, 16, 16]), 0)
    """

    images: np.ndarray
    labels: np.ndarray
    size: int
    dataset: Dataset
    left_out: dict[str, str]
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        import torch  # late: packing alone does without it

        pixels = torch.from_numpy(self.images[row].copy())
        return pixels.permute(2, 0, 1).float() / 255, int(self.labels[row])

    def for_torch(
        self,
        rows: np.typing.ArrayLike | None = None,
        *,
        transform: Callable[[Tensor], Any] | None = None,
        pixels: Literal["float", "uint8"] = "float",
    ) -> TorchPack:
        """Return some rows as a ``torch.utils.data.Dataset``, for anybody's loop.

        Args:
            rows: Row numbers, for example ``split.train``; None is all.
            transform: Applied to each picture, a tensor ``(3, H, W)``.
            pixels: ``float`` in [0, 1], or ``uint8`` as stored.

        Returns:
            A map-style data set of ``(picture, label)``; any ``DataLoader`` takes it.

        Raises:
            InputError: If the rows are not row numbers of the pack.

        Example:
            >>> from fopro_lab.data import open_dataset, pack
            >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
            >>> len(packed.for_torch([3, 5, 8]))
            3
        """
        from fopro_lab.data.torch_dataset import TorchPack  # late: it imports torch

        return TorchPack(self, rows, transform=transform, pixels=pixels)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if isinstance(getattr(self.images, "base", None), mmap.mmap):  # whole, no part of a map
            state["images"] = _Mapped(str(self.images.filename), self.images.shape)  # type: ignore[attr-defined]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["images"], _Mapped):
            state = state | {"images": map_pixels(*state["images"])}
        self.__dict__.update(state)
