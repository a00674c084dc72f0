"""The augmentations that the audit compares: each operation alone, then the whole recipe."""

from collections.abc import Iterator
from typing import get_args

import torch
from torch import Tensor

from fopro_lab.data.augment import (
    HUE,
    JITTER,
    ROTATION,
    SCALE,
    SHIFT,
    Augmentations,
    AugmentMode,
    apply_augmentations,
    sample_augmentations,
)

RECIPE = "published recipe"


def augment_steps(pixels: Tensor, *, seed: int) -> Iterator[tuple[AugmentMode, str, Tensor]]:
    """Apply each operation of the published recipe alone, then the whole recipe, in each mode.

    Args:
        pixels: ``uint8 (B, H, W, 3)``, as a pack holds them.
        seed: Of all draws; each operation has the range it has in the recipe.

    Yields:
        Mode, name of the step, and the changed pictures ``(B, 3, H, W)`` in [0, 1].

    Example:
        >>> pixels = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
        >>> [step for mode, step, _ in augment_steps(pixels, seed=0) if mode == "exact"]
        ['flips', 'scale', 'shift', 'rotation', 'colour jitter', 'published recipe']
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = draw_alone(len(pixels), generator)
    drawn[RECIPE] = sample_augmentations(len(pixels), kind="published", generator=generator)
    for mode in get_args(AugmentMode):
        for step, augmentations in drawn.items():
            yield mode, step, apply_augmentations(pixels, augmentations, mode=mode)


def draw_alone(count: int, generator: torch.Generator) -> dict[str, Augmentations]:
    """Draw each operation with its published range while the others do nothing.

    Example:
        >>> drawn = draw_alone(3, torch.Generator().manual_seed(0))
        >>> drawn["scale"].angle.tolist(), bool((drawn["scale"].scale == 1).any())
        ([0.0, 0.0, 0.0], False)
    """
    draw = torch.rand(count, 6, generator=generator, dtype=torch.float64)
    even = 2 * draw - 1
    nothing = sample_augmentations(count, kind="none", generator=generator)
    strength = torch.tensor([JITTER, JITTER, JITTER, HUE], dtype=torch.float64)
    low, high = SCALE
    return {
        "flips": nothing._replace(flip=torch.where(draw[:, :2] < 0.5, -1.0, 1.0).double()),
        "scale": nothing._replace(scale=low + (high - low) * draw[:, 0]),
        "shift": nothing._replace(shift=SHIFT * even[:, 0]),
        "rotation": nothing._replace(angle=ROTATION * even[:, 0]),
        "colour jitter": nothing._replace(factors=nothing.factors + strength * even[:, 2:]),
    }
