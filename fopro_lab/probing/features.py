"""Pictures into features of a frozen teacher, batch by batch, checked and in a chosen precision."""

from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from fopro_lab.data import Pack, batches
from fopro_lab.errors import InputError

Precision = Literal["32-true", "bf16-mixed"]


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


def encode(teacher: Encoder, images: Tensor, *, precision: Precision = "32-true") -> Tensor:
    """Ask a teacher for features, and say in one line what is wrong if it gives none.

    Args:
        teacher: The frozen network.
        images: ``(B, 3, H, W)`` in [0, 1], on its device.
        precision: ``"bf16-mixed"`` runs the network under bfloat16 autocast. Its rounding alone
            moves features by a cosine distance of about 1e-5; see `ring_response`.

    Returns:
        Features ``(B, D)``, single precision or better.

    Raises:
        InputError: If the teacher cannot take pictures of this size, or returns no tensor, maps
            instead of vectors, or numbers that are not finite.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> encode(load_teacher("builtin"), torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 256])
    """
    try:
        with torch.autocast(
            images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed"
        ):
            features: Any = teacher.encode(images)
    except (torch.OutOfMemoryError, InputError):
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InputError(_refusal(teacher, images, error)) from error
    if not isinstance(features, Tensor):
        raise InputError(
            f"teacher {teacher.name}: expected features (B, D), got {type(features).__name__}; "
            "wrap it so that it returns one tensor"
        )
    if features.ndim != 2 or len(features) != len(images):
        raise InputError(
            f"teacher {teacher.name}: expected features ({len(images)}, D), one vector a picture, "
            f"got {tuple(features.shape)}; pool its maps or tokens"
        )
    if not torch.isfinite(features).all():
        raise InputError(f"teacher {teacher.name}: expected finite features, got NaN or infinity")
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def encode_rows(
    teacher: Encoder,
    pack: Pack,
    *,
    rows: np.ndarray,
    batch_size: int = 64,
    precision: Precision = "32-true",
) -> np.ndarray:
    """Encode pictures of a pack.

    Args:
        teacher: The frozen network.
        pack: The pictures.
        rows: Which, in this order; at least one.
        batch_size: Pictures a pass.
        precision: As in `encode`.

    Returns:
        Features ``(n, D)``, ``float32``.

    Raises:
        InputError: If a row is not in the pack, or as in `encode`.

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
            encode(teacher, images, precision=precision).float().cpu()
            for images, _ in batches(pack, rows, batch_size=batch_size, device=device)
        ]
    return torch.cat(features).numpy()


def _refusal(teacher: Encoder, images: Tensor, error: Exception) -> str:
    """Say why a network took no picture: mostly they are smaller than its patch."""
    height, width = images.shape[-2:]
    way_out = "give larger pictures, or let the teacher resize (teacher_size, resize=True)"
    patch = _patch_side(teacher)
    if patch > min(height, width):
        return (
            f"teacher {teacher.name}: expected pictures no smaller than its patch of {patch} px, "
            f"got {height} x {width}; {way_out}"
        )
    told = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"teacher {teacher.name}: cannot encode pictures of {height} x {width} px ({told[0]}); "
        f"{way_out}"
    )


def _patch_side(teacher: Encoder) -> int:
    """Find the side of the patches that a transformer cuts a picture into; 0 if it has none."""
    modules = teacher.modules() if isinstance(teacher, torch.nn.Module) else ()
    for module in modules:
        side = getattr(module, "patch_size", 0)
        side = max(side) if isinstance(side, (tuple, list)) else side
        if isinstance(side, int) and side > 1:
            return side
    return 0
