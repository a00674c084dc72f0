"""The method of a run: its loss, distillation and prompt, by name or the user's own code.

Each is a function whose arguments say what it takes out of `GIVES`, or a class of `nn.Module`: of a
distillation it is built with the widths of student and teacher and trained with the student.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fopro_lab.config import TrainConfig, is_called, unused_options
from fopro_lab.errors import InputError
from fopro_lab.models.teacher import load_called
from fopro_lab.training.losses import DISTILLATIONS, LOSSES

ALWAYS = ("labels", "class_counts", "train_counts", "epoch", "epochs")  # epochs count from 0
GIVES = {
    "loss": ("logits", *ALWAYS),
    "distillation": ("student_features", "logits", "projection", "features", "teacher_logits",
                     "temperature", *ALWAYS),
    "prompt": ("images", "generator", "epoch", "epochs"),
}  # fmt: skip
KNOWN: dict[str, Mapping[str, Any]] = {"loss": LOSSES, "distillation": DISTILLATIONS, "prompt": {}}
# Arguments that are options: of the package's own functions alone.
OPTIONS = {"logit-adjustment": {"tau": "logit_tau"}, "focal": {"gamma": "focal_gamma"},
           "class-balanced": {"beta": "effective_beta"}, "ldam-drw": {"beta": "effective_beta"},
           "dkd": {"alpha": "dkd_alpha", "beta": "dkd_beta"}}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """One of the three, and the names of what it takes."""

    kind: str
    name: str
    function: Callable[..., Any]
    takes: tuple[str, ...]

    def __call__(self, gives: Mapping[str, Any], *, module: nn.Module | None = None) -> Tensor:
        """Call it, or the module that was built of it, with what it takes."""
        call, given = module or self.function, {name: gives[name] for name in self.takes}
        if isinstance(call, nn.Module):  # its buffers go where the tensors are
            call.to(next(each.device for each in given.values() if isinstance(each, Tensor)))
        constants: Any = call if isinstance(call, nn.Module) and not module else nn.Identity()
        before = [(id(each), each._version) for each in constants.buffers()]
        with blamed([self], "called"):
            value = call(**given)
        if is_called(self.name):
            self._check(value, given.get("images") if self.kind == "prompt" else None)
            if before != [(id(each), each._version) for each in constants.buffers()]:
                raise InputError(f"{self.kind} {self.name}: expected buffers that it leaves alone")
        return value

    def _check(self, value: Any, images: Tensor | None) -> None:
        wanted, got, is_tensor = "", f"a {type(value).__name__}", isinstance(value, Tensor)
        got = f"shape {tuple(value.shape)}, {value.dtype}" if is_tensor else got
        if images is not None:
            rule = f"shape {tuple(images.shape)}, {images.dtype}"
            wanted = f"a tensor of {rule}" if got != rule else ""
        elif not is_tensor or value.ndim:
            wanted = "a tensor that is one number"
        elif torch.is_grad_enabled() and not value.requires_grad:
            # A distillation may be switched off in some epochs.
            wanted = "a value with a gradient" if self.kind == "loss" or value else ""
            got = "one without"
        if wanted:
            raise InputError(f"{self.kind} {self.name}: expected {wanted}, got {got}")

    def build(self, **sizes: int) -> nn.Module:
        """Build the module of a class."""
        with blamed([self], f"built with {', '.join(sizes) or 'no arguments'}"):
            return self.function(**sizes)


@contextmanager
def blamed(parts: Iterable[Part], how: str) -> Iterator[None]:
    """Turn an error into one line that names the user's own code, where some of these are."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        own = [f"{part.kind} {part.name}" for part in parts if is_called(part.name)]
        if not own or re.search("deterministic|CUDA|NCCL|gloo", str(error)):
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{' or '.join(own)}: cannot be {how} ({what})") from error


def find_method(
    config: TrainConfig, **objects: Callable[..., Any] | None
) -> tuple[TrainConfig, dict[str, Part]]:
    """Find the parts that a config names, by kind; a learned prompt is no function, and not there.

    ``objects`` are the user's, by kind, in place of the config's; it then names them.
    """
    names, parts = dict[str, str](), dict[str, Part]()
    for kind, name in config.parts._asdict().items():
        found: Any = objects.get(kind)
        if found is not None:
            name = names[kind] = f"{found.__module__}:{getattr(found, '__qualname__', '')}"
            if not is_called(name):
                problem = "expected a function, or a class of nn.Module, with a name in its file"
                raise InputError(f"{kind}: {problem}, got {found!r:.80}")
        found = found or KNOWN[kind].get(name)
        if found is not None or is_called(name):
            parts[kind] = _part(kind, name, found or load_called(name, kind), config)
    config = config.model_copy(update=names) if names else config
    takes = {name for part in parts.values() for name in part.takes}
    for line in unused_options(config, takes=takes):
        raise InputError(line)
    return config, parts


def _part(kind: str, name: str, function: Any, config: TrainConfig) -> Part:
    is_module = inspect.isclass(function) and issubclass(function, nn.Module)
    if not (is_module or inspect.isfunction(function)):
        rule = "expected a function or a class of nn.Module"
        raise InputError(f"{kind} {name}: {rule}, got {function!r:.80}")
    arguments = inspect.signature(function.forward if is_module else function).parameters
    takes = tuple(each for each in arguments if each in GIVES[kind])
    for each in [*arguments.values()][is_module:]:
        if each.default is each.empty and each.name not in takes and each.kind != each.VAR_KEYWORD:
            known = ", ".join(GIVES[kind])
            raise InputError(f"{kind} {name}: takes {each.name}; it can be given {known}")
    if is_module and kind != "distillation":
        function = Part(kind, name, function, ()).build()
        if [*function.parameters()]:
            rule = "expected no parameters, for only a distillation's are trained"
            raise InputError(f"{kind} {name}: {rule}; keep constants as buffers")
    options = {own: getattr(config, each) for own, each in OPTIONS.get(name, {}).items()}
    return Part(kind, name, partial(function, **options) if options else function, takes)


def own_hashes(method: Mapping[str, Part]) -> dict[str, str]:
    """Hash the files of the user's own parts, or their own text in a notebook or a script."""
    hashes = {}
    for part in (part for part in method.values() if is_called(part.name)):
        own: Any = type(part.function) if isinstance(part.function, nn.Module) else part.function
        file = getattr(inspect.getmodule(own), "__file__", None) or ""
        in_file = file and own.__module__ != "__main__"
        try:
            text = Path(file).read_text() if in_file else inspect.getsource(own)
        except (OSError, TypeError):
            problem = "its source cannot be read; put it in a file"
            raise InputError(f"{part.kind} {part.name}: {problem}") from None
        hashes[f"{part.kind}_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return hashes
