"""The same frozen teacher, faster: batch norms folded, lower precision, compiled."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fopro_lab.models.teachers import Teacher

# Largest change of a feature by folding, in units of the largest feature. float64 rounds at 1e-16
# a layer; a norm that belongs to another layer changes features in their first digits.
FOLDING_BOUND = 1e-9
SIDE = 48  # pixels, of the picture that traces a teacher of free size


def quick_teacher(
    teacher: Teacher,
    *,
    fold: bool = True,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    tell: Callable[[str], object] = lambda line: None,
) -> Teacher:
    """Copy a teacher into a form that only encodes, and does that fast.

    Args:
        teacher: Left as it is. What measures batch norms still needs it.
        fold: Put each batch norm into the convolution before it, where there is one.
        dtype: Of weights and arithmetic behind the normalisation; features are float32 again.
        compiled: Compile the network, at the first batch of each shape; torch keeps what it
            compiled for later runs.
        tell: Told in a line what could not be done; the teacher then works without it.

    Returns:
        A frozen teacher without head; its card is the given one's.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> teacher = load_teacher("builtin")
        >>> quick = quick_teacher(teacher)
        >>> len(teacher.batch_norms()) > 0, len(quick.batch_norms())
        (True, 0)
    """
    folds = fold and bool(teacher.batch_norms())
    quick = _folded(teacher, tell) if folds else copy.deepcopy(teacher)
    quick.head = None
    body: nn.Module = quick.body.to(dtype)
    if compiled:
        body = _Compiled(body, tell)
    quick.body = _In(body, dtype) if dtype != torch.float32 else body
    return quick


class _In(nn.Module):
    """Computes in another precision, and gives float32 back."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def forward(self, images: Tensor) -> Tensor:
        # Autocast would cast every weight again at each call: it keeps only what is trained.
        with torch.autocast(images.device.type, enabled=False):
            return self.body(images.to(self.dtype)).float()


class _Compiled(nn.Module):
    """Runs a network compiled, and plainly for good once that has failed."""

    def __init__(self, body: nn.Module, tell: Callable[[str], object]) -> None:
        super().__init__()
        self.body, self.tell = body, tell
        self.faster: Callable[[Tensor], Tensor] | None = torch.compile(body)

    def forward(self, images: Tensor) -> Tensor:
        if self.faster is not None:
            try:
                return self.faster(images)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a missing compiler, or anything that it stumbles over
                self.faster = None
                reason = str(error).strip().splitlines() or [type(error).__name__]
                self.tell(f"teacher: not compiled ({reason[0][:120]}); going on without")
        return self.body(images)


def _folded(teacher: Teacher, tell: Callable[[str], object]) -> Teacher:
    """Fold what can be folded, and keep it only if the features are those of before.

    In float64 and on the CPU, where nothing but a wrong fold changes a feature by much, whatever
    the teacher's device rounds to; the folded weights are rounded once.
    """
    plain = copy.deepcopy(teacher).to("cpu", torch.float64)
    side = plain.input_size if plain.resize else min(plain.input_size, SIDE)
    # A generator of its own: nobody else's random numbers may depend on whether a teacher folds.
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, side, side, generator=noise, dtype=torch.float64)
    names = {layer: name for name, layer in plain.body.named_modules()}
    try:
        with torch.no_grad():
            pairs = _pairs(plain, images)
            features = plain.encode(images)
            folded = copy.deepcopy(plain)
            for convolution, norm in pairs:
                _fold_pair(folded.body, names[convolution], names[norm])
            changed = (folded.encode(images) - features).abs().max() / features.abs().max()
    except (RuntimeError, TypeError) as error:  # a network that computes in float32 alone
        tell(f"teacher: batch norms not folded ({str(error).splitlines()[0][:120]})")
        return copy.deepcopy(teacher)
    if not changed <= FOLDING_BOUND:
        tell(f"teacher: batch norms not folded (features would change by {float(changed):.1g})")
        return copy.deepcopy(teacher)
    return folded.to(teacher.mean.device, torch.float32)


def _pairs(teacher: Teacher, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Find each batch norm that alone reads a convolution, by watching one pass.

    A pass shows what a traced graph would, for networks, too, that cannot be traced.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is held: else its id is free again
    calls: Counter[nn.Module] = Counter()
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch_convolution(layer: Any, inputs: Any, output: Tensor) -> None:
        calls[layer] += 1
        made[id(output)] = (layer, output)

    def watch_norm(layer: Any, inputs: Any, output: Tensor) -> None:
        calls[layer] += 1
        before = made.get(id(inputs[0]))
        if before is not None and _activation(layer) is not None:
            pairs.append((before[0], layer))

    watched = [
        layer.register_forward_hook(
            watch_convolution if isinstance(layer, nn.Conv2d) else watch_norm
        )
        for layer in teacher.body.modules()
        if _linear(layer) or isinstance(layer, nn.BatchNorm2d)
    ]
    try:
        teacher.encode(images)
    finally:
        for hook in watched:
            hook.remove()
    once = Counter(layer for pair in pairs for layer in pair)
    return [pair for pair in pairs if all(calls[layer] == once[layer] == 1 for layer in pair)]


def _linear(layer: nn.Module) -> bool:
    """Tell whether a layer is a convolution by its weight as it stands, and no relative of one."""
    return type(layer) is nn.Conv2d or type(layer).__name__ == "Conv2dSame"  # timm's, padded


def _activation(norm: nn.BatchNorm2d) -> nn.Module | None:
    """What is left of a norm that is folded away; None for a kind that is not known."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d":  # timm's, which holds dropout and activation
        return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))
    return None


def _fold_pair(body: nn.Module, convolution_name: str, norm_name: str) -> None:
    convolution: Any = body.get_submodule(convolution_name)
    norm: Any = body.get_submodule(norm_name)
    if norm.running_mean is None:
        return
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    told = (weight.detach().contiguous(memory_format=torch.channels_last), bias.detach())
    convolution.weight, convolution.bias = (nn.Parameter(v, requires_grad=False) for v in told)
    body.set_submodule(norm_name, _activation(norm) or nn.Identity())
