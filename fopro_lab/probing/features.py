"""Pictures of a pack into features of a frozen teacher, batch by batch."""

from collections.abc import Iterable
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fopro_lab.data import Pack, batches


class Encoder(Protocol):
    """What probing asks of a teacher: features of pictures in [0, 1], a name and a card."""

    name: str
    card: dict[str, Any]

    def encode(self, images: Tensor) -> Tensor:
        """Turn ``(B, 3, H, W)`` into ``(B, D)``."""
        ...

    def parameters(self) -> Iterable[Tensor]:
        """Give the weights; they tell the device."""
        ...

    def buffers(self) -> Iterable[Tensor]:
        """Give the buffers; they tell the device where there are no weights."""
        ...


def teacher_device(teacher: Encoder) -> torch.device:
    """Return the device of the teacher's weights or buffers, the CPU if it has none.

    Example:
        >>> teacher_device(torch.nn.Identity())
        device(type='cpu')
    """
    first = next(chain(teacher.parameters(), teacher.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def encode_rows(
    teacher: Encoder, pack: Pack, *, rows: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """Encode pictures of a pack.

    Args:
        teacher: The frozen network.
        pack: The pictures.
        rows: Which, in this order; at least one.
        batch_size: Pictures a pass.

    Returns:
        Features ``(n, D)``, ``float32``.

    Raises:
        InputError: If a row is not in the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> encode_rows(teacher, packed, rows=np.arange(3)).shape
        (3, 12)
    """
    device = teacher_device(teacher)
    with torch.inference_mode():
        features = [
            teacher.encode(images).float().cpu()
            for images, _ in batches(pack, rows, batch_size=batch_size, device=device)
        ]
    return torch.cat(features).numpy()
