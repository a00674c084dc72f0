"""A prompt's file: safetensors with the settings as metadata, nothing to execute."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.files import atomic_path

VERSION = "1"
Prompt = TypeVar("Prompt", bound=nn.Module)


def write_prompt(
    path: Path | str, state: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write parameters and settings, atomically.

    Args:
        path: Target file.
        state: Parameters by name, on any device.
        settings: What rebuilds the prompt, as JSON can hold it.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_prompt(f"{folder}/a.safetensors", {"cells": torch.zeros(2)}, {"rows": 4})
        ...     read_prompt(f"{folder}/a.safetensors")
        ({'cells': tensor([0., 0.])}, {'rows': 4})
    """
    metadata = {"fopro_lab.prompt": VERSION, "settings": json.dumps(dict(settings))}
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def read_prompt(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_prompt` wrote.

    Args:
        path: The file.

    Returns:
        Parameters by name, on the CPU, and the settings.

    Raises:
        InputError: If the file is missing, is not safetensors, or is not a prompt of this version.

    Example:
        >>> read_prompt("nowhere.safetensors")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.safetensors: no such file
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: expected a safetensors file ({error})") from None
    version = metadata.get("fopro_lab.prompt")
    if version is None:
        raise InputError(f"{path}: expected a saved Fourier prompt, got other tensors")
    if version != VERSION:
        raise InputError(f"{path}: expected prompt version {VERSION}, got {version}")
    try:
        settings = json.loads(metadata.get("settings", ""))
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected the prompt's settings as JSON metadata")
    return state, settings


def build_prompt(kind: type[Prompt], path: Path | str) -> Prompt:
    """Rebuild a saved prompt; see `FourierPrompt.load`.

    Args:
        kind: Class that takes the stored settings.
        path: The file.

    Returns:
        The prompt, on the CPU, in the type it was stored in.

    Raises:
        InputError: If the file does not hold one, or its settings and tensors do not fit.
    """
    state, settings = read_prompt(path)
    # Written before the networks had names of their own.
    names = {"network.0.": "network.first.", "network.2.": "network.last."}
    for old, new in names.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    try:
        prompt = kind(**settings)
        dtype = next((value.dtype for value in state.values()), torch.float32)
        prompt.to(dtype).load_state_dict(state)
    except (TypeError, RuntimeError, InputError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: expected a saved Fourier prompt, got {reason}") from None
    return prompt
