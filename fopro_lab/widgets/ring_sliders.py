"""Sliders over frequency rings that need no kernel: they also work in a report's page."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from IPython.display import HTML
from torch import Tensor

from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_energy, ring_parts
from fopro_lab.models import Teacher
from fopro_lab.probing.ring_response import ring_drifts
from fopro_lab.reports.pages import SLIDERS, ring_sliders_script
from fopro_lab.widgets.bands import CORNER, MAX_GAIN

MEASURED = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, MAX_GAIN)  # gains at which a ring's drift is measured
LARGEST, MOST_BYTES = 128, 1_000_000  # pixels a side, bytes of all ring images


def ring_sliders(
    teacher: Teacher,
    images: Tensor,
    edges: Sequence[float],
    *,
    titles: Sequence[str],
    presets: Mapping[str, Sequence[float]] | None = None,
) -> HTML:
    """Make sliders over the rings of a few images that work in any browser, without a kernel.

    A prompted image is linear in its rings' gains, so the page sums ring images, each kept as 8 bit
    numbers with a scale of its own; images above 128 px are averaged down. Drift is measured
    beforehand, one ring at a time. They begin with the ring that moves the teacher most, doubled.

    Args:
        teacher: Whose drift is shown.
        images: ``(N, 3, H, W)`` in [0, 1]; of larger ones the first few are kept.
        edges: ``R + 1`` frequencies from 0 to 0.75, cycles per pixel, as in ``ring_masks``.
        titles: One per image; another number is an `InputError`.
        presets: Gains of the rings, by the name of a button.
    """
    if len(titles) != len(images):
        raise InputError(f"titles: expected one per image, {len(images)}, got {len(titles)}")
    factor = -(-images.shape[-1] // LARGEST)
    side = [length // factor for length in images.shape[-2:]]
    count = max(2, MOST_BYTES // (3 * (len(edges) - 1) * side[0] * side[1]))
    images = images[:count].float().cpu()
    parts = torch.stack(list(ring_parts(images, edges)), dim=1)  # (N, R, 3, H, W)
    smaller = torch.nn.functional.avg_pool2d(parts.flatten(0, 1), factor)
    parts = smaller.view(*parts.shape[:3], *side)
    steps = (parts.abs().amax(dim=(-2, -1)) / 127).clamp(min=1e-9)
    whole = (parts / steps[..., None, None]).round().to(torch.int8).numpy()
    contrast = ring_energy(images, edges).mean(dim=1).sqrt()
    drift = ring_drifts(teacher, images, edges, MEASURED).drift.clip(0)  # (R, G, N)
    start = np.ones(len(edges) - 1)
    start[drift[:, MEASURED.index(2.0)].mean(axis=-1).argmax()] = 2
    own = {name: np.round(gains, 2).tolist() for name, gains in (presets or {}).items()}
    rings = [f"{low:.3g} to {min(high, CORNER):.3g}" for low, high in pairwise(edges)]
    data: dict[str, Any] = {"height": side[0], "width": side[1], "teacher": teacher.name}
    data |= {"rings": rings, "most": MAX_GAIN, "measured": MEASURED}
    data |= {"start": start.tolist(), "presets": own}
    data["images"] = [
        {
            "title": str(title),
            "mean": images[k].mean(dim=(-2, -1)).tolist(),
            "steps": steps[k].flatten().tolist(),
            "parts": base64.b64encode(whole[k].tobytes()).decode(),
            "contrast": np.round(contrast[k].numpy(), 6).tolist(),
            "drift": np.round(drift[..., k], 6).tolist(),
        }
        for k, title in enumerate(titles[: len(images)])
    ]
    return HTML(
        f'<div class="fopro-rings" {SLIDERS} data-rings="{escape(json.dumps(data))}">'
        "<p>Sliders: they need a browser with scripts.</p></div>"
        f"{ring_sliders_script()}"
    )
