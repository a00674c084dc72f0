"""Filling a network from a file: every tensor of its body comes from there, or none does."""

import contextlib
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.models.checkpoint import Weights

State = dict[str, Tensor]
Translate = Callable[[State, nn.Module], Mapping[str, Any]]  # as timm's filters of checkpoints
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

    Args:
        network: Changed in place, unless an error is raised.
        weights: What `read_weights` gives.
        head: Layers of a classifier that is not used: need not be in the file, nor fit.
        translate: Brings a published layout into the network's names; may resample positions.

    Returns:
        ``weights``, ``sha256``, ``keys_expected``, ``keys_matched``, ``coverage``; and where they
        apply ``prefix``, ``resampled``, ``left_out`` and ``not_run``, lists of text.

    Raises:
        InputError: If a tensor of the body is missing or has another shape, or if a layer of the
            network has tensors in the file that it has no place for.
    """
    unused = tuple(f"{name}." for name in head) + AUXILIARY
    own = {
        name: value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
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
        lists = {
            "missing": missing,
            "of another shape": [f"{n} {best.shape(n)} for {tuple(body[n].shape)}" for n in wrong],
            "without a place in the network": foreign if fitting else list(best.source),
        }
        reasons = "; ".join(f"{what}: {_some(names)}" for what, names in lists.items() if names)
        raise InputError(
            f"weights: {weights.path}: {fitting} of {len(body)} tensors fit; {reasons}; "
            "is it this architecture?"
        )
    taken = {n: best.found[n] for n in own if n in body or _same(best.found.get(n), own[n])}
    network.load_state_dict(taken, strict=False)
    more += [name for name in best.found if name in own and name not in taken]
    outside = [name for name in weights.state if not name.startswith(best.prefix)]
    notes: dict[str, Any] = {
        "prefix": best.prefix,
        "beside": [f.prefix for f in fits if f is not best and f.fitting == best.fitting],
        "resampled": [
            f"{n} {best.shape(n)} to {tuple(body[n].shape)}" for n in body if best.resampled(n)
        ],
        "left_out": _grouped(more, "") + _grouped(outside, best.prefix),
        "not_run": list(weights.skipped),
    }
    notes = {name: value for name, value in notes.items() if value}
    if said := [f"{n.replace('_', ' ')} {_some(v)}" for n, v in notes.items() if n != "prefix"]:
        took = f"took {best.prefix}*; " if best.prefix else ""
        sys.stderr.write(f"weights: {weights.path}: {took}{'; '.join(said)}\n")
    return {
        "weights": weights.path.name,
        "sha256": weights.sha256,
        "keys_expected": len(body),
        "keys_matched": len(body),
        "coverage": 1.0,
        **notes,
    }


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
    fits = []
    for aliases, state in [(plain, weights.state), *((plain, s) for s in spelled),
                           (numbered, weights.state)]:  # fmt: skip
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
    # Integers in the place of floats are quantised: their scale is somewhere else.
    return value.is_floating_point() == own.is_floating_point() and (
        value.dtype.itemsize > 1 or not own.is_floating_point()
    )


def _grouped(names: Iterable[str], prefix: str) -> list[str]:
    """Join names that part from the prefix at the same place, with their count."""
    taken = prefix.split(".")
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        common = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, taken, strict=False))
        )
        counts[".".join(parts[: common + 1])] += 1
    return [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
