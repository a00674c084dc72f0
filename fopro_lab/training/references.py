"""What a teacher expects of natural pictures: statistics inside it, and where they come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.spectrum import at_least_single
from fopro_lab.models import Teacher
from fopro_lab.training.natural_pictures import natural_pictures

PICTURES = 128  # stand for natural ones where a teacher kept no statistics of them
BATCH = 32
# Of a layer's mean variance; a channel that natural pictures hardly move would decide alone.
FLOOR = 1e-3


class Moments(NamedTuple):
    """Mean and variance of each channel of one layer, ``(C,)`` each."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """What is expected of every channel at some layers.

    Attributes:
        source: What it was measured on, for cards.
        layers: Whose input is meant; the teacher's body itself stands for its features.
        expected: Moments, one a layer.
        floors: Added to the variance of each layer, as a batch norm does.
    """

    source: str
    layers: tuple[nn.Module, ...]
    expected: tuple[Moments, ...]
    floors: tuple[Tensor | float, ...]

    def distance(self, measured: list[Moments]) -> Tensor:
        """Tell how far a batch's channel statistics are from what is expected.

        Per channel the squared 2-Wasserstein distance of two normal distributions in units of the
        expected variance, ``(m - M)^2 / V + (sqrt(v / V) - 1)^2``; mean over channels, then layers.

        Args:
            measured: From `watched`, after one ``encode``.

        Returns:
            Scalar, 0 or more, dimensionless.

        Source: DeepInversion's feature prior (Yin et al., CVPR 2020, eq. 4), normalised per channel
            so that no wide or deep layer decides alone.

        Example:
            >>> expected = Moments(torch.zeros(1), torch.ones(1))
            >>> reference = Reference("toy", (nn.Identity(),), (expected,), (0.0,))
            >>> float(reference.distance([Moments(torch.tensor([2.0]), torch.tensor([4.0]))]))
            5.0
        """
        distances = []
        for found, expected, floor in zip(measured, self.expected, self.floors, strict=True):
            scale = expected.variance + floor
            # the floor is in both roots: a dead channel has no spread, and a finite gradient
            spread = ((found.variance + floor) / scale).sqrt() - 1
            distances.append(((found.mean - expected.mean) ** 2 / scale + spread**2).mean())
        return torch.stack(distances).mean()


@contextmanager
def watched(teacher: Teacher, layers: tuple[nn.Module, ...]) -> Iterator[list[Moments]]:
    """Collect the moments of what goes into some layers while a teacher encodes one batch.

    Args:
        teacher: Whose layers they are.
        layers: Of the teacher; its body itself stands for what comes out of it.

    Yields:
        A list that the next `encode` fills, a pair a layer in the order of the pass.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> teacher = load_teacher("builtin")
        >>> with watched(teacher, (teacher.body,)) as measured:
        ...     _ = teacher.encode(torch.rand(2, 3, 32, 32))
        >>> measured[0].mean.shape
        torch.Size([256])
    """
    measured: list[Moments] = []

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        measured.append(_moments(inputs[0], _channel_axis(layer)))

    def after(_: nn.Module, __: tuple[Tensor, ...], features: Tensor) -> None:
        measured.append(_moments(features, 1))

    handles = [
        layer.register_forward_hook(after)
        if layer is teacher.body
        else layer.register_forward_pre_hook(before)
        for layer in layers
    ]
    try:
        yield measured
    finally:
        for handle in handles:
            handle.remove()


def reference_of(teacher: Teacher, *, natural: str = "", size: int = 64) -> Reference:
    """Find out what a teacher expects of natural pictures.

    Batch norms kept it while the teacher was trained. A teacher without them (a ViT) is shown
    natural pictures, and the statistics of the tokens before each layer norm are taken, or those
    of its features where it has no such layer either.

    Args:
        teacher: Frozen.
        natural: Folder or zip of natural pictures; empty generates some, see
            `fopro_lab.training.natural_pictures`. Not read for a teacher with batch norms.
        size: Side of the natural pictures, pixels: that of those which will be compared.

    Returns:
        The reference; its ``source`` belongs on every card that shows a distance.

    Raises:
        InputError: If there are no natural pictures in ``natural``.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> reference_of(load_teacher("builtin")).source
        'running statistics of its 12 batch norms'
    """
    norms = teacher.batch_norms()
    if norms:
        expected, floors = [], []
        for norm in norms:
            assert norm.running_mean is not None and norm.running_var is not None
            expected.append(Moments(norm.running_mean, norm.running_var))
            floors.append(norm.eps)
        source = f"running statistics of its {len(norms)} batch norms"
        return Reference(source, tuple(norms), tuple(expected), tuple(floors))
    layers: tuple[nn.Module, ...] = tuple(teacher.layer_norms()) or (teacher.body,)
    images, origin = natural_pictures(PICTURES, size=size, folder=natural)
    sums: list[list[Moments]] = []
    with torch.no_grad(), watched(teacher, layers) as measured:
        for part in images.to(teacher.mean.device).split(BATCH):
            teacher.encode(part)
            sums.append(list(measured))
            measured.clear()
    taken = tuple(_pooled(parts) for parts in zip(*sums, strict=True))
    where = f"inputs of its {len(layers)} layer norms" if teacher.layer_norms() else "its features"
    return Reference(
        f"{where} on {origin}", layers, taken, tuple(FLOOR * each.variance.mean() for each in taken)
    )


@torch.no_grad()
def natural_distance(
    teacher: Teacher,
    images: Tensor,
    *,
    prompt: FourierPrompt | None = None,
    reference: Reference | None = None,
) -> float:
    """Measure how far pictures are from what the teacher expects of natural ones.

    Args:
        teacher: Frozen.
        images: ``(B, 3, H, W)`` in [0, 1], all in one batch.
        prompt: Put before the teacher; its noise is drawn from a fixed seed.
        reference: Of `reference_of`; None takes it anew.

    Returns:
        See `Reference.distance`.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> natural_distance(load_teacher("builtin"), torch.rand(4, 3, 32, 32)) > 0
        True
    """
    reference = reference or reference_of(teacher, size=images.shape[-1])
    if prompt is not None:
        images = prompt(images, torch.Generator().manual_seed(0))
    with watched(teacher, reference.layers) as measured:
        teacher.encode(images)
    return float(reference.distance(measured))


def _channel_axis(layer: nn.Module) -> int:
    """Tell where a layer's channels are: first in maps, last in tokens."""
    maps = isinstance(layer, nn.BatchNorm2d) or type(layer).__name__.endswith("2d")
    return 1 if maps else -1


def _moments(values: Tensor, axis: int) -> Moments:
    axis %= values.ndim
    others = [other for other in range(values.ndim) if other != axis]
    variance, mean = torch.var_mean(at_least_single(values), dim=others, correction=0)
    return Moments(mean, variance)


def _pooled(parts: tuple[Moments, ...]) -> Moments:
    """Put together the moments of equally large parts."""
    means = torch.stack([part.mean for part in parts])
    inner = torch.stack([part.variance for part in parts]).mean(dim=0)
    return Moments(means.mean(dim=0), inner + means.var(dim=0, correction=0))
