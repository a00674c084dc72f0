"""How models/builtin/natural.safetensors was measured: colours and spectrum of natural images."""

import torch
from torch import Tensor

from fopro_lab.fourier import ring_energy

RINGS = 16  # up to 0.5 cycles per pixel; the corners add one


def measure_natural(images: Tensor) -> dict[str, Tensor]:
    """Measure colours between and within natural images ``(N, 3, S, S)``, and energy by ring.

    Returns:
        ``mean (3,)``, ``between`` and ``within`` ``(3, 3)``, ``energy (3, rings)``, ``edges``.
    """
    means = images.mean(dim=(2, 3))
    rest = (images - means[:, :, None, None]).permute(1, 0, 2, 3).flatten(1)
    edges = [0.5 * ring / RINGS for ring in range(RINGS + 1)] + [0.75]
    return {
        "mean": means.mean(dim=0),
        "between": torch.cov(means.T),
        "within": torch.cov(rest),
        "energy": ring_energy(images, edges).mean(dim=0),
        "edges": torch.tensor(edges),
    }
