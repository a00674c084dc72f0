"""VPTTA's prompt before the teacher: a gain on each image's lowest frequencies, fitted to it alone.

Chen et al., Each Test Image Deserves A Specific Prompt, CVPR 2024, arXiv:2311.18363; what is theirs
and what is a reconstruction stands in docs/method.md.
"""

import torch
from torch import Tensor

from fopro_lab.fourier.gain import scale_spectrum
from fopro_lab.models import Teacher
from fopro_lab.training.statistics import Reference, watched

BLOCK = 5  # side of the block, bins: as in the source's images of 512 px, up to 2 cycles per image


def adapt_images(
    images: Tensor,
    *,
    teacher: Teacher,
    reference: Reference,
    steps: int,
    learning_rate: float,
    max_log_gain: float,
) -> Tensor:
    """Fit a gain to each image ``(B, 3, H, W)`` in [0, 1], by steps of Adam, and apply it.

    The result is not clipped and has no gradient; an image's does not depend on the batch.
    """
    half = BLOCK // 2 + 1
    # What inference mode made could not take part in a gradient.
    with torch.inference_mode(False), torch.enable_grad():
        images = images.clone()
        count, channels, height, width = images.shape
        cells = images.new_zeros((count, channels, BLOCK, half), requires_grad=True)
        rows = torch.arange(-(BLOCK // 2), half, device=images.device) % height

        def prompted() -> Tensor:
            log_gain = images.new_zeros((count, channels, height, width // 2 + 1))
            log_gain[:, :, rows, :half] = max_log_gain * cells.tanh()
            return scale_spectrum(images, log_gain.exp())

        optimiser = torch.optim.Adam([cells], lr=learning_rate)
        for _ in range(steps):
            with watched(teacher, reference.layers, per_image=True) as measured:
                teacher.encode(prompted())
            optimiser.zero_grad()
            (len(images) * reference.distance(measured)).backward()  # a sum: each has its own
            optimiser.step()
        return prompted().detach()
