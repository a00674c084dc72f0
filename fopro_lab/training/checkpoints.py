"""All that an exact resume needs, in one file that is whole or absent."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fopro_lab.errors import InputError
from fopro_lab.files import atomic_path

FILE = "checkpoint/last.pt"


def save_checkpoint(run_dir: Path, state: Mapping[str, Any]) -> None:
    """Write the state after a finished epoch, in place of the one before.

    Args:
        run_dir: The run's folder.
        state: Tensors, numbers, texts, lists and dicts of them.

    Raises:
        WorkError: If the disk is full; the state before is still whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder), {"epoch": 3})
        ...     load_checkpoint(Path(folder))
        {'epoch': 3}
    """
    # torch.save reports a full disk as a RuntimeError without errno, so it writes to memory first.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with atomic_path(run_dir / FILE) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    """Read the state of the last finished epoch.

    Args:
        run_dir: The run's folder.

    Returns:
        The state, on the CPU, or None if no epoch was finished.

    Raises:
        InputError: If the file is damaged; it never runs code.
    """
    path = run_dir / FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged byte can lead the unpickler to almost any of them
        raise InputError(
            f"{path}: damaged checkpoint; remove {run_dir} to start this run afresh"
        ) from None


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict to the CPU in plain layout, so that later steps do not change it.

    Example:
        >>> on_cpu({"a": torch.ones(1)})
        {'a': tensor([1.])}
    """
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
