"""All that an exact resume needs, in a file that is whole or absent; the one before is kept."""

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fopro_lab.errors import InputError
from fopro_lab.files import atomic_path

FILE = "checkpoint/last.pt"
PREVIOUS = "checkpoint/previous.pt"
NEXT = "checkpoint/next.pt"
DAMAGED = "checkpoint/damaged.pt"
MARK = b"fopro checkpoint, sha256 "
DIGITS = 64  # of the hash that stands behind the mark, before a line's end


def save_checkpoint(run_dir: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state; the state before is kept beside it as ``previous.pt``.

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
    content = buffer.getbuffer()
    with atomic_path(run_dir / NEXT) as temporary, open(temporary, "wb") as stream:
        stream.write(MARK + hashlib.sha256(content).hexdigest().encode() + b"\n")
        stream.write(content)
    # Whole and on the disk. Killed between these two lines, a run goes on from the previous one.
    if (run_dir / FILE).exists():
        os.replace(run_dir / FILE, run_dir / PREVIOUS)
    os.replace(run_dir / NEXT, run_dir / FILE)


def load_checkpoint(
    run_dir: Path, *, tell: Callable[[str], object] | None = None
) -> dict[str, Any] | None:
    """Read the last state of a run that is whole; a damaged one is put aside and passed over.

    Args:
        run_dir: The run's folder.
        tell: Told in a line what was passed over.

    Returns:
        The state, on the CPU, or None if none was ever written.

    Raises:
        InputError: If all that is there is damaged; it never runs code.
    """
    for name in (FILE, PREVIOUS):
        path = run_dir / name
        if not path.exists():
            continue
        try:
            state = _read(path)
        except Exception:  # a damaged byte can lead the unpickler to almost any of them
            if name == FILE and (run_dir / PREVIOUS).exists():
                continue
            raise InputError(
                f"{path}: damaged checkpoint; remove {run_dir} to start this run afresh"
            ) from None
        if name == PREVIOUS and (run_dir / FILE).exists():
            os.replace(run_dir / FILE, run_dir / DAMAGED)  # else it would become the previous one
            if tell is not None:
                tell(f"{run_dir / FILE}: damaged checkpoint, put aside; going on from the one "
                     "before")  # fmt: skip
        return state
    return None


def forget_previous(run_dir: Path) -> None:
    """Remove what only a run that is not done needs beside its last checkpoint."""
    for name in (PREVIOUS, NEXT, DAMAGED):
        (run_dir / name).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    start = len(MARK) + DIGITS + 1
    if content.startswith(MARK):
        told = content[len(MARK) : start - 1].decode("ascii")
        content = content[start:]
        if hashlib.sha256(content).hexdigest() != told:
            raise ValueError("the content is not what was written")
    # Without the mark it is one of before there were marks, or nothing that torch can read.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict to the CPU in plain layout, so that later steps do not change it.

    Example:
        >>> on_cpu({"a": torch.ones(1)})
        {'a': tensor([1.])}
    """
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
