"""One picture with every frequency ring scaled by hand: what the sliders of the explorer show."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import apply_gain, ring_energy, ring_gain
from fopro_lab.models import Teacher

Preset = Literal["identity", "remove", "amplify", "low-pass", "high-pass"]
AMPLIFIED = 2.0
FLOOR = 1e-6  # amplitude of a bin that has none, so that it has a logarithm


@dataclass(frozen=True, eq=False)
class BandView:
    """A picture before and after its rings were scaled.

    Attributes:
        before: ``uint8 (H, W, 3)``.
        after: ``uint8 (H, W, 3)``, clipped for the eye; the teacher sees it unclipped.
        clipped: Share of values that left [0, 1].
        spectrum: ``(H, W)``, natural logarithm of the amplitude after, mean of the channels,
            zero frequency in the middle.
        profile: A row a ring: ``low``, ``high`` (cycles per pixel), ``gain``, ``before``,
            ``after`` (contrast: root of the ring's energy, mean of the channels, in grey levels
            of [0, 1]).
        drift: Cosine distance that the teacher's features moved; None without a teacher.
    """

    before: np.ndarray
    after: np.ndarray
    clipped: float
    spectrum: np.ndarray
    profile: pd.DataFrame
    drift: float | None


@torch.inference_mode()
def view_bands(
    image: Tensor,
    gains: Sequence[float],
    *,
    edges: Sequence[float],
    teacher: Teacher | None = None,
) -> BandView:
    """Scale each frequency ring of a picture and look at it from every side.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        gains: One factor of the amplitudes a ring, 0 or above; 1 leaves it alone.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        teacher: Whose drift is measured.

    Returns:
        All that there is to show.

    Raises:
        ShapeError: If ``image`` is no colour picture, or there is not one gain a ring.

    Example:
        >>> view = view_bands(torch.rand(3, 16, 16), [1.0, 0.0], edges=[0, 0.25, 0.75])
        >>> float(view.profile["after"][1]) < 1e-6
        True
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ShapeError(f"image: expected (3, H, W), got {tuple(image.shape)}")
    before = image[None].float()
    height, width = image.shape[1:]
    gain = ring_gain(torch.tensor(gains, dtype=torch.float32), edges, height=height, width=width)
    after = apply_gain(before, gain)
    contrast = [ring_energy(x, edges)[0].clamp(min=0).sqrt().mean(0) for x in (before, after)]
    profile = pd.DataFrame(pairwise(edges), columns=["low", "high"]).assign(
        gain=list(gains), before=contrast[0].numpy(), after=contrast[1].numpy()
    )
    amplitude = torch.fft.fft2(after[0]).abs().mean(0).clamp(min=FLOOR)
    drift = None
    if teacher is not None:
        features = teacher.encode(torch.cat([before, after])).double()
        drift = float(1 - torch.cosine_similarity(features[0], features[1], dim=0))
    return BandView(
        before=_to_pixels(before),
        after=_to_pixels(after),
        clipped=float(((after < 0) | (after > 1)).float().mean()),
        spectrum=torch.fft.fftshift(amplitude.log()).numpy(),
        profile=profile,
        drift=drift,
    )


def _to_pixels(images: Tensor) -> np.ndarray:
    return (images[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def preset_gains(name: str, *, ring: int, rings: int) -> list[float]:
    """Return the gains of a preset.

    Args:
        name: ``identity``; ``remove`` or ``amplify`` (twice) one ring; ``low-pass`` keeps that
            ring and all below, ``high-pass`` that ring and all above.
        ring: Which, from 0.
        rings: How many there are.

    Raises:
        InputError: For another name, or a ring that there is not.

    Example:
        >>> preset_gains("low-pass", ring=1, rings=4)
        [1.0, 1.0, 0.0, 0.0]
    """
    if name not in get_args(Preset):
        known = ", ".join(f"'{preset}'" for preset in get_args(Preset))
        raise InputError(f"preset: expected one of {known}, got '{name}'")
    if not 0 <= ring < rings:
        raise InputError(f"ring: expected 0 to {rings - 1}, got {ring}")
    places = range(rings)
    if name == "low-pass":
        return [float(place <= ring) for place in places]
    if name == "high-pass":
        return [float(place >= ring) for place in places]
    factor = {"identity": 1.0, "remove": 0.0, "amplify": AMPLIFIED}[name]
    return [factor if place == ring else 1.0 for place in places]
