"""A prompt's gain, told ring by ring."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from torch import Tensor

from fopro_lab.errors import ShapeError
from fopro_lab.fourier import ring_masks


def radial_gain(gain: Tensor, edges: Sequence[float], *, width: int) -> pd.DataFrame:
    """Average gains over each frequency ring, geometrically.

    Every bin of the half spectrum counts once, of every channel and every prompt.

    Args:
        gain: ``(..., H, width // 2 + 1)``, above 0, as of ``FourierPrompt.sample_gain`` (the
            spread is then one over prompts, too) or ``FourierPrompt.mean_gain``.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        width: Columns of the picture, pixels; the half spectrum does not tell.

    Returns:
        A row a ring: ``ring``, ``low``, ``high`` (cycles per pixel), ``gain`` (geometric mean),
        ``gain_low``, ``gain_high`` (one standard deviation of the log gain below and above; a
        spread, not an interval of confidence). A ring narrower than a bin has NaN.

    Raises:
        ShapeError: If the last axis does not fit ``width``.
        InputError: If the edges are wrong.

    Example:
        >>> from fopro_lab.fourier import FourierPrompt
        >>> prompt = FourierPrompt("shared", size=8)
        >>> radial_gain(prompt.mean_gain(), [0, 0.5, 0.75], width=8)["gain"].tolist()
        [1.0, 1.0]
    """
    if gain.ndim < 2 or gain.shape[-1] != width // 2 + 1:
        raise ShapeError(f"gain: expected (..., H, {width // 2 + 1}), got {tuple(gain.shape)}")
    log_gain = gain.detach().double().log().cpu().numpy()
    masks = ring_masks(gain.shape[-2], width, edges).numpy()
    rows = []
    for ring, (low, high) in enumerate(pairwise(edges)):
        values = log_gain[..., masks[ring]]
        mean, spread = (values.mean(), values.std()) if values.size else (np.nan, np.nan)
        rows.append(
            {
                "ring": ring,
                "low": float(low),
                "high": float(high),
                "gain": np.exp(mean),
                "gain_low": np.exp(mean - spread),
                "gain_high": np.exp(mean + spread),
            }
        )
    return pd.DataFrame(rows)
