"""Weights from files: read without executing anything, and matched key by key."""

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.io import sha256_file

MINIMAL_COVERAGE = 0.99
# What published checkpoints wrap a state dict in, and put before its names.
CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "net")
PREFIXES = ("", "module.", "model.", "backbone.", "encoder.", "module.encoder_q.", "module.model.")


@dataclass(frozen=True)
class Weights:
    """A state dict from a file, its text metadata, and the file's SHA-256."""

    state: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str
    path: Path


def read_weights(path: Path | str) -> Weights:
    """Read a safetensors file, or unwrap a published pickle under ``weights_only=True``."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"weights: {path}: no such file")
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "pt") as opened:
                metadata = opened.metadata() or {}
            state = load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"weights: {path}: damaged safetensors file ({error})") from None
    else:
        state = _read_pickle(path)
    return Weights(state, metadata, sha256_file(path), path)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle's protocol: an error follows or none
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text advises to switch the protection off, so it is not passed on.
        if "GLOBAL" in str(error):
            raise InputError(
                f"weights: {path}: expected tensors alone, got a pickle that asks to run code, "
                "which is never done; ask its publisher for safetensors"
            ) from None
        raise InputError(f"weights: {path}: damaged, or not written by torch.save") from None
    except Exception as error:  # a damaged byte leads the unpickler to almost any of them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"weights: {path}: not a readable torch file ({reason})") from None
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise InputError(
            f"weights: {path}: expected a state dict of tensors, got {type(content).__name__}"
        )
    return dict(content)


def load_matching(
    network: nn.Module, weights: Weights, *, ignore: tuple[str, ...] = ()
) -> dict[str, float | int | str]:
    """Load what fits, by name and shape, and give a card; refuse the file of another network.

    Names that begin with one of ``ignore``, such as an unused head, need not be in the file.
    """
    own = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith(ignore) and not name.endswith("num_batches_tracked")
    }

    def matched(prefix: str) -> dict[str, Tensor]:
        found = {name: weights.state.get(prefix + name) for name in own}
        return {k: v for k, v in found.items() if v is not None and v.shape == own[k].shape}

    prefix = max(PREFIXES, key=lambda candidate: len(matched(candidate)))
    fitting = matched(prefix)
    coverage = len(fitting) / max(len(own), 1)
    if coverage < MINIMAL_COVERAGE:
        missing = [name for name in own if name not in fitting]
        known = {prefix + name for name in own}
        foreign = [name for name in weights.state if name not in known]
        raise InputError(
            f"weights: {weights.path}: {len(fitting)} of {len(own)} keys fit ({coverage:.0%}, "
            f"expected {MINIMAL_COVERAGE:.0%} or more); missing or of another shape: "
            f"{_some(missing)}; only in the file: {_some(foreign)}; is it this architecture?"
        )
    network.load_state_dict(fitting, strict=False)
    return {
        "weights": weights.path.name,
        "sha256": weights.sha256,
        "keys_expected": len(own),
        "keys_matched": len(fitting),
        "coverage": coverage,
    }


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
