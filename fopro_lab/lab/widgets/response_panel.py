"""The teacher's ring response as a small picture, with a marker for what is changed now."""

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.fourier import radial_frequency
from fopro_lab.lab.panels import AFTER, BEFORE, figure_png, tidy_axes


class ResponsePanel:
    """One figure, drawn again with each answer.

    Example:
        >>> ResponsePanel().draw(None, where=0.2, drift=0.1)[1:4]
        b'PNG'
    """

    def __init__(self) -> None:
        self.figure = Figure(figsize=(4.6, 2.3), dpi=100)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0.14, 0.22, 0.83, 0.7))

    def draw(self, response: pd.DataFrame | None, *, where: float | None, drift: float) -> bytes:
        """Draw the mean drift by the ring that is removed, and the one of now.

        Args:
            response: As of `ring_response`, of gain 0; None leaves it out.
            where: Middle of what is changed, cycles per pixel; None where nothing is.
            drift: Mean over the same pictures, cosine distance.

        Returns:
            PNG bytes.
        """
        ax = self.axes
        ax.clear()
        top, number = drift, 0
        if response is not None:
            edges = [*response["low"], response["high"].iloc[-1]]
            top, number = max(top, float(response["drift"].max())), int(response["n"].iloc[0])
            ax.stairs(response["drift"], edges, color=BEFORE, lw=1.8, label="this ring removed")
        if where is not None:
            ax.plot([where], [drift], "D", color=AFTER, ms=8, mec="white", label="changed now")
        ax.set_xlim(0, 0.75)
        ax.set_ylim(0, max(top, 1e-3) * 1.45)
        told = f", mean of {number}" if number else ""
        ax.set_ylabel(f"Drift, 1 - cos{told}", fontsize=8)
        tidy_axes(ax)
        ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
        return figure_png(self.canvas)


def middle_of(gain: Tensor, *, width: int) -> float | None:
    """Return the mean frequency of what a gain changes, weighted by the change.

    Args:
        gain: ``(1 or 3, H, W // 2 + 1)``.
        width: W, pixels.

    Returns:
        Cycles per pixel; None if nothing is changed.

    Example:
        >>> import torch
        >>> middle_of(torch.ones(1, 8, 5), width=8) is None
        True
    """
    change = np.abs(gain.detach().numpy() - 1).mean(axis=0)
    if change.max() < 1e-4:
        return None
    radius = radial_frequency(gain.shape[-2], width).numpy()
    return float((radius * change).sum() / change.sum())
