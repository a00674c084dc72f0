"""Weights from files: tensors of every usual layout, and a network filled with all it needs.

Files are recognised by their first bytes, and nothing in them is ever run. Every tensor of a
network's body comes from the file, or none does.
"""

import contextlib
import io
import pickle
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fopro_lab.errors import InputError, said_of
from fopro_lab.io import kind_of, quiet, read_json, regular, sha256_file, some

State = dict[str, Tensor]
Translate = Callable[[State, nn.Module], Mapping[str, Any]]  # as timm's filters of checkpoints
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
# What a folder's JSON says of images, as timm and as transformers call it.
SAID = {"mean": "mean image_mean", "std": "std image_std", "crop_pct": "crop_pct",
        "input_size": "input_size crop_size size image_size", "global_pool": "global_pool",
        "interpolation": "interpolation resample", "model_args": "model_args",
        "architecture": "architecture architectures"}  # fmt: skip
FILTERS: dict[Any, str] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
HARMLESS = {"img_size", "in_chans", "num_classes", "global_pool"}  # known from the tensors
MODULE_PARTS = ("_parameters", "_buffers", "_modules")  # where a pickled nn.Module has its tensors
# Put between the names of a network by what compiles, shards or checkpoints it.
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
MOST_TENSORS, MOST_NESTED, MOST_STUBS = 1_000_000, 20, 500
# Blocks in chunks (DINOv2) and norms with a dot (the first DenseNets) have other names.
SPELLINGS = (
    (re.compile(r"\bblocks\.\d+\.(\d+)\."), r"blocks.\1."),
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)"), r"\1"),
)
# Of several copies, an average of weights or the teacher is what its publisher evaluates.
EVALUATED = re.compile(r"(?:^|[._])(?:ema|teacher|swa|averaged)(?=[._]|$)", re.IGNORECASE)
HELPERS = re.compile(r"(?:^|[._])(?:student|momentum|target|key|k|raw)(?=[._]|$)", re.IGNORECASE)
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.", "aux_classifier.")  # heads of the training alone
# Tensors beside the layers that features do not depend on.
UNUSED = re.compile(r"(mask_token|queue\w*|logit_\w+|decoder_\w+|\w*mean|\w*std|center)$")
LEARNT = ("weight", "bias", "gamma", "gamma_1", "gamma_2")
POSITIONS = re.compile(r"pos|rel_|relative")  # what may be resampled to another image size
MOST_TRIED = 12


@dataclass(frozen=True)
class Weights:
    """All tensors of a file by their path in it, what it says about images, and its SHA-256."""

    state: State
    metadata: dict[str, str]
    sha256: str
    path: Path
    skipped: tuple[str, ...] = ()  # classes and functions of a pickle that were not run


def read_weights(path: Path | str) -> Weights:
    """Read safetensors, a file of torch.save, or a folder of timm or Hugging Face with one.

    Nested dictionaries and pickled modules become one dictionary, their names joined by dots. Of
    a pickle only tensors and containers are built; the rest becomes inert stubs.
    """
    path, metadata = Path(path).expanduser(), dict[str, str]()
    if path.is_dir():
        path, metadata = in_folder(path)
    skipped: set[str] = set()
    with said_of(f"weights: {path}"):
        if not path.is_file():
            raise InputError("no such file")
        with open(path, "rb") as opened:
            start = opened.read(512)
            opened.seek(0)
            try:
                if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
                    with safetensors.safe_open(path, "pt") as file:
                        metadata |= file.metadata() or {}
                    content: Any = load_file(path)
                elif start[257:262] == b"ustar" or unpacked_size(opened) > path.stat().st_size:
                    raise ValueError("a tar archive, or compressed, which torch.save does not do")
                else:
                    content = _read_pickle(opened, skipped)
            except Exception as error:  # a damaged byte leads an unpickler to almost any of them
                # torch's own text advises to switch the protection off, so it is not passed on.
                code = re.search(r"GLOBAL (\S+) whose module \S+ is blocked", str(error))
                got = f"{kind_of(path)}{f', that would call {code[1]}' if code else ''}"
                way_out = "copy or download it again, or save its state_dict with one of the two"
                rule = f"expected safetensors or a file of torch.save, got {got}"
                raise InputError(f"{rule}; {way_out}") from None
        state = {WRAPPERS.sub("", name): value for name, value in _tensors(content)}
        if not state:
            raise InputError(f"expected a state dict of tensors, got {type(content).__name__}")
    return Weights(state, metadata, sha256_file(path), path, tuple(sorted(skipped)))


def unpacked_size(opened: IO[bytes]) -> int:
    """Add up what the files in a zip archive unpack to; 0 of another file."""
    if not zipfile.is_zipfile(opened):
        return 0
    return sum(each.file_size for each in zipfile.ZipFile(opened).infolist())


def read_state(path: Path) -> State:
    """Read a file of tensors that this package wrote, all of them finite."""
    with said_of(str(path)):
        try:
            state = load_file(regular(path))
        except (OSError, safetensors.SafetensorError):
            raise InputError("gone or damaged: expected a file of safetensors") from None
        for name, value in state.items():
            if value.is_complex() or not torch.isfinite(value.float()).all():
                raise InputError(f"{name}: expected finite real numbers, got some that are not")
        return state


def fill(module: nn.Module, state: Mapping[str, Tensor], *, of: Path | str) -> None:
    """Fill a module from a state dict; one whose names or shapes are others is refused."""
    kinds = (module.state_dict(), state)
    own, theirs = ({name: value.shape for name, value in each.items()} for each in kinds)
    if odd := sorted(n for n in own.keys() | theirs.keys() if own.get(n) != theirs.get(n)):
        raise InputError(f"{of}: is of another network: {some(odd)} do not fit")
    module.load_state_dict(state)


def in_folder(folder: Path) -> tuple[Path, dict[str, str]]:
    """Find the weights in a folder of timm or Hugging Face, and what its JSON says of images."""
    found = [folder / name for name in FOLDER_FILES if (folder / name).is_file()][:1]
    found = found or sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(f"weights: {folder}: expected {FOLDER_FILES[0]} in it, got {names}")
    said: dict[str, Any] = {}
    for file in (folder / "preprocessor_config.json", folder / "config.json"):
        try:
            content = read_json(file) if file.is_file() else {}
            said |= content | content.get("pretrained_cfg", {})
        except (ValueError, TypeError, AttributeError):
            raise InputError(f"weights: {file}: not a JSON object") from None
    rules = {}
    for rule, names in SAID.items():
        value = next((said[n] for n in names.split() if said.get(n) is not None), None)
        if rule == "input_size" and isinstance(value, Mapping):
            value = value.get("height", value.get("shortest_edge"))
        if rule == "interpolation":
            value = FILTERS.get(value, value)
        if rule == "model_args":
            value = [name for name in value or () if name not in HARMLESS] or None
        if value is not None:
            rules[rule] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return found[0], rules


def _read_pickle(opened: IO[bytes], skipped: set[str]) -> Any:
    """Read by torch's own restricted unpickler, to which inert stubs stand for other classes."""
    stubs: dict[str, type] = {}
    while True:
        opened.seek(0)
        known: list[Any] = [(stub, name) for name, stub in stubs.items()]
        try:
            # Quiet about the protocol: an error follows, or none.
            with quiet(), torch.serialization.safe_globals(known):
                return torch.load(opened, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            unknown = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            name = unknown[1] if unknown else ""
            name = name if "." in name else f"builtins.{name}"
            if not unknown or name in stubs or len(stubs) >= MOST_STUBS:
                raise
            stubs[name] = type(name.rpartition(".")[2], (_Inert,), {})
            if not name.startswith(("torch", "collections")):
                skipped.add(name)


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """List tensors with the path to each, but for those of optimisers."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen = 0
    while waiting:
        path, value = waiting.pop()
        seen += 1
        if seen > MOST_TENSORS or len(path) > MOST_NESTED:
            raise InputError(f"has over {MOST_TENSORS} parts, or {MOST_NESTED} levels")
        if isinstance(value, Tensor):
            yield ".".join(path), value.detach()
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

    def __new__(cls, *args: Any, **options: Any) -> "_Inert":
        return dict.__new__(cls)

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):  # of a module: it has tensors
            self.update(state)


@dataclass(frozen=True, eq=False)
class _Fit:
    """What a file holds for a network under one prefix, in the network's own names."""

    prefix: str
    source: State  # under the prefix, as the file has it
    found: State  # the same, translated
    body: State  # of the network

    @cached_property
    def fitting(self) -> int:
        """Count the tensors of the body that can be taken."""
        return sum(self.fits(name, value) for name, value in self.body.items())

    @property
    def order(self) -> tuple[int, int, int]:
        """Sort by what fits; among copies by what is evaluated, then by the shorter prefix."""
        rank = bool(EVALUATED.search(self.prefix)) - bool(HELPERS.search(self.prefix))
        return (self.fitting, rank, -len(self.prefix))

    def resampled(self, name: str) -> bool:
        """Tell whether translating made other numbers, not a view, of a tensor of this name."""
        old, new = self.source.get(name), self.found[name]
        return old is not None and old.numel() != new.numel() and not _stored(old) & _stored(new)

    def fits(self, name: str, own: Tensor) -> bool:
        """Tell whether a tensor is there in the network's shape, which only positions get late."""
        found = self.found.get(name)
        return _same(found, own) and (bool(POSITIONS.search(name)) or not self.resampled(name))

    def shape(self, name: str) -> str:
        """Give the shape that a tensor has in the file, and what else is odd about it."""
        value = self.source[name] if name in self.source else self.found[name]
        whole = "" if value.is_floating_point() else f" {str(value.dtype).removeprefix('torch.')}"
        return f"{tuple(value.shape)}{whole}"

    def dropped(self) -> list[str]:
        """List what the translation left out, and did not merge into another tensor."""
        kept, old = _stored(*self.found.values()), _stored(*self.source.values())
        merged = {_block(name) for name, value in self.found.items() if not _stored(value) & old}
        return [
            name
            for name, value in self.source.items()
            if name not in self.found and value.is_floating_point() and value.any()
            if not _stored(value) & kept and _block(name) not in merged
        ]

    def changes_features(self, name: str, layers: set[str]) -> bool:
        """Tell whether a tensor without a place belongs to a layer, or to the tokens."""
        first, _, rest = name.partition(".")
        if rest:
            return first in layers and (name in self.found or rest.endswith(LEARNT))
        value = self.found[name] if name in self.found else self.source[name]
        return value.numel() > 1 and not UNUSED.match(name)


def _stored(*values: Tensor) -> set[int]:
    """Give where the numbers of tensors are in memory: a view has those of its origin."""
    return {value.untyped_storage().data_ptr() for value in values}


def _block(name: str) -> str:
    return ".".join(name.split(".")[:2])


def load_matching(
    network: nn.Module,
    weights: Weights,
    *,
    head: tuple[str, ...] = (),
    translate: Translate | None = None,
) -> dict[str, Any]:
    """Fill a network from a file under whatever prefix it has there, and give a card.

    ``head`` names layers of a classifier that is not used: they need not be in the file, nor fit.
    ``translate`` brings a published layout into the network's names, and may resample positions.
    The network stays as it is if a tensor of its body is missing or of another shape, or if the
    file has tensors of its layers that it has no place for: an `InputError` names them.
    """
    where = f"weights: {weights.path}"
    unused = tuple(f"{name}." for name in head) + AUXILIARY
    own = {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    body = {name: value for name, value in own.items() if not name.startswith(unused)}
    fits = _fits(network, weights, body, translate)
    best = max(fits, key=lambda fit: fit.order)
    missing = [name for name in body if name not in best.found]
    wrong = [name for name in body if name in best.found and not best.fits(name, body[name])]
    layers = {name for name, _ in network.named_children()}
    more = [n for n in best.found if n not in own and not n.endswith("num_batches_tracked")]
    more += best.dropped()
    foreign = [n for n in more if not n.startswith(unused) and best.changes_features(n, layers)]
    if missing or wrong or foreign:
        fitting = len(body) - len(missing) - len(wrong)
        wrong = [f"{name} {best.shape(name)} for {tuple(body[name].shape)}" for name in wrong]
        lists = {"missing": missing, "of another shape": wrong}
        lists["without a place in the network"] = foreign if fitting else list(best.source)
        reasons = "; ".join(f"{what}: {some(names)}" for what, names in lists.items() if names)
        fit = f"{fitting} of {len(body)} tensors fit"
        raise InputError(f"{where}: {fit}; {reasons}; is it this architecture?")
    taken = {n: best.found[n] for n in own if n in body or _same(best.found.get(n), own[n])}
    if bad := [n for n, value in taken.items() if not _sound(n, value.to(own[n].dtype))]:
        what = "numbers that are not finite, or a negative variance"
        way_out = "save it in float32 again if half precision overflowed, else copy it again"
        problem = f"{len(bad)} of {len(taken)} tensors have {what}: {some(bad)}"
        raise InputError(f"{where}: {problem}; {way_out}")
    network.load_state_dict(taken, strict=False)
    more += [name for name in best.found if name in own and name not in taken]
    cut = [name for name in more if name.startswith(unused)]
    outside = [name for name in weights.state if not name.startswith(best.prefix)]
    changed = [f"{n} {best.shape(n)} to {tuple(body[n].shape)}" for n in body if best.resampled(n)]
    notes = {
        "beside": [f.prefix for f in fits if f is not best and f.fitting == best.fitting],
        "resampled": changed,
        "left_out": _grouped([n for n in more if n not in cut], "")
        + _grouped(outside, best.prefix),
        "not_run": list(weights.skipped),
    }
    notes = {name: value for name, value in notes.items() if value}
    if said := [f"{name.replace('_', ' ')} {some(value)}" for name, value in notes.items()]:
        took = f"took {best.prefix}*; " if best.prefix else ""
        sys.stderr.write(f"{where}: {took}{'; '.join(said)}\n")
    card: dict[str, Any] = {"weights": weights.path.name, "sha256": weights.sha256}
    card |= {"keys_expected": len(body), "keys_matched": len(body), "coverage": 1.0}
    card |= {"head_left_out": _grouped(cut, "")} if cut else {}
    return card | ({"prefix": best.prefix} if best.prefix else {}) | notes


def _fits(
    network: nn.Module, weights: Weights, body: State, translate: Translate | None
) -> list[_Fit]:
    """Try the file under each prefix, and in each spelling, that may be the network's."""
    plain = {name: name for name in body}
    numbered: dict[str, str] = {}  # nn.Sequential(*network.children()) has numbers for names
    for number, (child, _) in enumerate(network.named_children()):
        inner = (name for name in body if name.startswith(f"{child}."))
        numbered |= {name.replace(child, str(number), 1): name for name in inner}
    spelled = [{p.sub(text, n): v for n, v in weights.state.items()} for p, text in SPELLINGS]
    ways = [(plain, state) for state in (weights.state, *spelled)] + [(numbered, weights.state)]
    fits = []
    for aliases, state in ways:
        for prefix in _prefixes(state, aliases, wide=translate is not None):
            short = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            source = {aliases.get(name, name): value for name, value in short.items()}
            fits.append(_Fit(prefix, source, _translated(source, network, translate), body))
        if any(fit.fitting == len(body) for fit in fits):
            break
    return fits


def _prefixes(names: Iterable[str], own: Collection[str], *, wide: bool) -> list[str]:
    """List what most names have before one of the network's; if wide, what most begin with."""
    matched: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    for name in names:
        for cut in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            begun[name[:cut]] += 1
            matched[name[:cut]] += name[cut:] in own
    most = max(matched.values())
    found = [prefix for prefix, count in matched.items() if count == most > 0]
    if wide and most < len(own):
        found += [prefix for prefix, count in begun.most_common(MOST_TRIED) if count > 1]
    return list(dict.fromkeys([*found[:MOST_TRIED], ""]))


def _translated(source: State, network: nn.Module, translate: Translate | None) -> State:
    """Bring a layout that timm knows into the network's names; any other stays as it is."""
    if translate is None:
        return source
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some of the filters print
            found = translate(dict(source), network)
    except Exception:  # each filter fails in its own way on what it was not written for
        return source
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _same(value: Tensor | None, own: Tensor) -> bool:
    """Tell whether a tensor of a file can be taken as it is, but for the precision of floats."""
    if value is None or value.shape != own.shape:
        return False
    floats = own.is_floating_point()
    # Integers in the place of floats are quantised: their scale is somewhere else.
    return value.is_floating_point() == floats and (value.dtype.itemsize > 1 or not floats)


def _sound(name: str, value: Tensor) -> bool:
    """Tell whether a tensor can be a network's: batch norm hides an infinite variance as 0."""
    negative = name.endswith("running_var") and bool((value < 0).any())
    return bool(torch.isfinite(value).all()) and not negative


def _grouped(names: Iterable[str], prefix: str) -> list[str]:
    """Join names that part from the prefix at the same place, with their count."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        pairs = zip(parts, prefix.split("."), strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        counts[".".join(parts[: common + 1])] += 1
    return [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
