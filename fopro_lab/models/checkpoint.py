"""Tensors from files of weights, recognised by their first bytes; nothing in them is ever run."""

import io
import json
import pickle
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from fopro_lab.errors import InputError
from fopro_lab.io import sha256_file

SAVE = "save its state_dict with torch.save or safetensors"
# What else people have under the name of weights: first bytes, what it is, the way out.
OTHERS = (
    (b"version https://git-lfs", "a git-lfs pointer without its content", "run `git lfs pull`"),
    (b"\x89HDF\r\n", "an HDF5 file of Keras", "convert it to PyTorch first"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"BZh", "a bzip2 archive", "unpack it"),
    (b"\x93NUMPY", "a numpy array", SAVE),
    (b"{", "a text in JSON", "give the file of weights itself"),
)
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
HARMLESS = ("img_size", "in_chans", "num_classes", "global_pool")  # known from the tensors
MODULE_PARTS = ("_parameters", "_buffers", "_modules")  # where a pickled nn.Module has its tensors
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Put between the names of a network by what compiles, shards or checkpoints it.
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
MOST_TENSORS, MOST_NESTED = 1_000_000, 20


@dataclass(frozen=True)
class Weights:
    """All tensors of a file by their path in it, what it says about images, and its SHA-256."""

    state: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str
    path: Path
    skipped: tuple[str, ...] = ()  # classes and functions of a pickle that were not run


def read_weights(path: Path | str) -> Weights:
    """Read safetensors, a file of torch.save, or a folder of timm or Hugging Face with one.

    Nested dictionaries and pickled modules become one dictionary, their names joined by dots. Of
    a pickle only tensors and containers are built; the rest becomes inert stubs.

    Raises:
        InputError: If there is no such file, or it holds something else or is damaged.
    """
    metadata: dict[str, str] = {}
    path = Path(path).expanduser()
    if path.is_dir():
        path, metadata = in_folder(path)
    if not path.is_file():
        raise InputError(f"weights: {path}: no such file")
    with open(path, "rb") as opened:
        start = opened.read(512)
    skipped: tuple[str, ...] = ()
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < path.stat().st_size:
        try:
            with safetensors.safe_open(path, "pt") as content:
                metadata |= content.metadata() or {}
            state = load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"weights: {path}: damaged safetensors file ({error})") from None
    else:
        _refuse_others(path, start)
        state, skipped = _read_pickle(path)
    state = {WRAPPERS.sub("", name): value for name, value in state.items()}
    return Weights(state, metadata, sha256_file(path), path, skipped)


def in_folder(folder: Path) -> tuple[Path, dict[str, str]]:
    """Find the weights in a folder of timm or Hugging Face, and what its JSON says of images."""
    found = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    found = found or sorted(folder.glob("*.safetensors"))
    if not found or (len(found) > 1 and found[0].name not in FOLDER_FILES):
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(f"weights: {folder}: expected {FOLDER_FILES[0]} in it, got {names}")
    said: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "config.json"):
        if (folder / name).is_file():
            try:
                content = json.loads((folder / name).read_text(encoding="utf-8"))
                said |= content | content.get("pretrained_cfg", {})
            except (ValueError, TypeError, AttributeError):
                raise InputError(f"weights: {folder / name}: not a JSON object") from None
    # The transformers library has other words for the same, and numbers for Pillow's filters.
    size = said.get("crop_size", said.get("size", said.get("image_size")))
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge"))
    filters = {2: "bilinear", 3: "bicubic"}
    found_rules = {
        "mean": said.get("mean", said.get("image_mean")),
        "std": said.get("std", said.get("image_std")),
        "input_size": said.get("input_size", size),
        "interpolation": said.get("interpolation", filters.get(said.get("resample", 0))),
        "crop_pct": said.get("crop_pct"),
        "global_pool": said.get("global_pool"),
        "architecture": said.get("architecture", said.get("architectures")),
        "model_args": [k for k in said.get("model_args") or () if k not in HARMLESS] or None,
    }
    rules = {key: _as_text(value) for key, value in found_rules.items() if value is not None}
    return found[0], rules


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, dict)) else str(value)


def _refuse_others(path: Path, start: bytes) -> None:
    """Name what is no checkpoint of PyTorch by its first bytes, with the way out."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind, way_out = "", ""
    if not start:
        kind, way_out = "an empty file", "fetch it again"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        kind, way_out = "a web page", "fetch the file itself, not the page about it"
    elif path.suffix.lower() == ".onnx" or (start[0] == 8 and start[2:3] in (b"\x12", b"\x1a")):
        kind, way_out = "an ONNX graph", f"load the network in PyTorch and {SAVE}"
    elif start[257:262] == b"ustar":
        kind, way_out = "a tar archive", "unpack it; if torch.save wrote it before 2018, save again"
    elif start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            raise InputError(f"weights: {path}: damaged or cut short; fetch it again") from None
        if any(name.endswith("/constants.pkl") for name in names):
            kind, way_out = "a TorchScript program", f"torch.jit.load it yourself and {SAVE}"
        elif names and all(name.endswith(".npy") for name in names):
            kind, way_out = "an archive of numpy arrays", SAVE
        elif not any(name.endswith("data.pkl") for name in names):
            kind, way_out = "a zip archive", "unpack it"
    else:
        for first, what, way in OTHERS:
            if start.startswith(first):
                kind, way_out = what, way
    if kind:
        raise InputError(f"weights: {path}: expected tensors of PyTorch, got {kind}; {way_out}")


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read by torch's own restricted unpickler, and by the inert one what that refuses."""
    skipped: set[str] = set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle's protocol: an error follows or none
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # torch's own text advises to switch the protection off, so it is not passed on.
        try:
            content = _read_inert(path, skipped)
        except Exception:  # a damaged byte leads an unpickler to almost any of them
            raise InputError(f"weights: {path}: damaged, or not written by torch.save") from None
    try:
        state = dict(_tensors(content))
    except (RecursionError, ValueError) as error:
        raise InputError(f"weights: {path}: too deeply nested ({error})") from None
    if not state:
        kind = type(content).__name__
        raise InputError(f"weights: {path}: expected a state dict of tensors, got {kind}")
    return state, tuple(sorted(skipped))


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """List tensors with the path to each, but for those of optimisers."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen = 0
    while waiting:
        path, value = waiting.pop()
        seen += 1
        if seen > MOST_TENSORS or len(path) > MOST_NESTED:
            raise ValueError(f"over {MOST_TENSORS} parts, or {MOST_NESTED} levels")
        tensor = value.tensor if isinstance(value, _Inert) else value
        if isinstance(tensor, Tensor):
            yield ".".join(path), tensor.detach()
        elif isinstance(value, Mapping | list | tuple):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            inner = [
                (path if key in MODULE_PARTS else (*path, str(key)), part)
                for key, part in items
                if path or not str(key).startswith("optimizer")
            ]
            waiting += reversed(inner)


class _Inert(dict[Any, Any]):
    """Stands for any class or function of a pickle: takes everything and does nothing."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    tensor: Tensor | None = None

    def __new__(cls, *args: Any, **options: Any) -> "_Inert":
        return dict.__new__(cls)

    def __init__(self, *args: Any, **options: Any) -> None:
        if args and isinstance(args[0], list | dict):  # old pickles give a dictionary its items
            with suppress(TypeError, ValueError):
                self.update(args[0])

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict) and type(self).__name__ != "OrderedDict":
            self.update(state)

    def append(self, *values: Any) -> None:
        """Ignore what a list, a deque or a set would keep."""

    extend = add = append


class _View(_Inert):
    """A tensor: a storage, which comes as a tuple of one, and its offset, shape and strides."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> None:
        self.tensor = storage[0].as_strided(shape, stride, offset)  # refuses what is out of bounds


class _Same(_Inert):
    """A parameter, which is its tensor."""

    def __init__(self, data: Any, *rest: Any) -> None:
        self.tensor = data.tensor


class _Typed(_Inert):
    """A tensor of a class of its own: rebuilt as a plain one."""

    def __init__(self, rebuild: Any, kind: Any, args: Any, *rest: Any) -> None:
        self.tensor = rebuild(*args).tensor


REBUILT = {
    "_rebuild_tensor": _View, "_rebuild_tensor_v2": _View, "_rebuild_parameter": _Same,
    "_rebuild_parameter_with_state": _Same, "_rebuild_from_type_v2": _Typed,
}  # fmt: skip


class _InertUnpickler(pickle._Unpickler):
    """Builds inert stubs for every global, and tensors from the storages that ``stored`` gives.

    The unpickler in Python: the one in C takes as much memory as a damaged file says.
    """

    def __init__(
        self, opened: IO[bytes], stored: Callable[[str, int], Tensor], skipped: set[str]
    ) -> None:
        super().__init__(opened, encoding="latin1")
        self.stored, self.skipped = stored, skipped
        self.storages: dict[str, tuple[Tensor]] = {}

    def find_class(self, module: str, name: str) -> Any:
        # A class of its own each time: whatever a pickle does to it ends with the pickle.
        if not module.startswith(("torch", "collections")):
            self.skipped.add(f"{module}.{name}")
        return type(name, (REBUILT.get(name, _Inert),), {"__module__": module})

    def persistent_load(self, saved_id: Any) -> Any:
        kind, storage, *rest = saved_id
        if kind == "module":  # a class with its source, as torch pickled them before 2020
            return storage
        key, _, count, view = (*rest, None)[:4]
        if view is not None:
            raise pickle.UnpicklingError("part of a storage")
        dtype = DTYPES[storage.__name__]
        if key not in self.storages:
            self.storages[key] = (self.stored(key, count * dtype.itemsize).view(dtype),)
        return self.storages[key]


def _read_inert(path: Path, skipped: set[str]) -> Any:
    """Read a zip or an older file of torch.save without building anything but tensors."""
    if not zipfile.is_zipfile(path):
        return _read_old(path, skipped)
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed")
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        root = pickled.removesuffix("data.pkl")

        def stored(key: str, size: int) -> Tensor:
            content = bytearray(archive.read(f"{root}data/{key}"))
            return torch.frombuffer(content or bytearray(1), dtype=torch.uint8)[:size]

        if f"{root}byteorder" in archive.namelist():
            assert archive.read(f"{root}byteorder") == sys.byteorder.encode()
        return _InertUnpickler(io.BytesIO(archive.read(pickled)), stored, skipped).load()


def _read_old(path: Path, skipped: set[str]) -> Any:
    """Read a file of torch.save before version 1.6: pickles, and then the storages one by one."""
    storages: dict[str, Tensor] = {}
    left = path.stat().st_size

    def stored(key: str, size: int) -> Tensor:
        nonlocal left
        left -= size
        if left < 0 or size < 0:  # before memory is taken for what the file cannot hold
            raise ValueError("larger than the file")
        storages[key] = torch.empty(size, dtype=torch.uint8)
        return storages[key]

    opened = io.BytesIO(path.read_bytes())

    def load() -> Any:
        return _InertUnpickler(opened, stored, skipped).load()

    if load() != LEGACY_MAGIC:
        raise ValueError("not of torch.save")
    _, _, content, keys = (load() for _ in range(4))
    for key in keys:
        opened.read(8)  # how many numbers follow, which the pickle has said
        stored_bytes = bytearray(opened.read(len(storages[key])))
        if len(stored_bytes) != len(storages[key]):
            raise ValueError("cut short")
        if stored_bytes:
            storages[key].copy_(torch.frombuffer(stored_bytes, dtype=torch.uint8))
    return content
