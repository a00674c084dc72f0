"""What the explorer shows, as PNG bytes: fast enough to follow a slider."""

import io
from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fopro_lab.lab.bands import BandView
from fopro_lab.lab.figures import METHOD_COLORS

SIDE = 224  # pixels a panel has at least; smaller pictures are enlarged by a whole factor
GAP = 8
BEFORE, AFTER = METHOD_COLORS["bsm"], METHOD_COLORS["fopro"]
# Without the brightest yellow, on which a white outline would not be seen.
_SPECTRUM = (np.array(colormaps["viridis"].colors)[:225] * 255).astype(np.uint8)  # type: ignore[attr-defined]


def picture_panel(view: BandView, *, floor: float, ceiling: float) -> bytes:
    """Draw picture before, picture after, and its spectrum, side by side.

    The border of what is changed is drawn white into the spectrum.

    Args:
        view: What to show.
        floor: Log amplitude of the darkest colour; kept while sliders move, so that nothing
            flickers.
        ceiling: Log amplitude of the brightest.

    Returns:
        PNG bytes.

    Example:
        >>> import torch
        >>> from fopro_lab.lab.bands import BandLens
        >>> view = BandLens(torch.rand(3, 16, 16)).look(torch.ones(1, 16, 9))
        >>> picture_panel(view, floor=-4.0, ceiling=4.0)[1:4]
        b'PNG'
    """
    last = len(_SPECTRUM) - 1
    share = (view.spectrum - floor) * (last / max(ceiling - floor, 1e-6))
    spectrum = _SPECTRUM[share.clip(0, last).astype(np.uint8)]
    spectrum[view.outline] = 255
    height, width = view.before.shape[:2]
    factor = max(1, -(-SIDE // height))
    tall, wide = height * factor, width * factor
    whole = np.full((tall, 3 * wide + 2 * GAP, 3), 255, np.uint8)
    for place, panel in enumerate((view.before, view.after, spectrum)):
        start = place * (wide + GAP)
        large = panel if factor == 1 else panel.repeat(factor, axis=0).repeat(factor, axis=1)
        whole[:, start : start + wide] = large
    return _png(whole)


class ProfilePanel:
    """The contrast by frequency before and after: axes drawn once, then one line a tick.

    Args:
        view: A first view; its rings and its contrast set the axes.

    Example:
        >>> import torch
        >>> from fopro_lab.lab.bands import BandLens
        >>> view = BandLens(torch.rand(3, 16, 16)).look(torch.ones(1, 16, 9))
        >>> ProfilePanel(view).draw(view)[1:4]
        b'PNG'
    """

    def __init__(self, view: BandView) -> None:
        self.figure = Figure(figsize=(6.9, 2.3), dpi=100)
        self.canvas = FigureCanvasAgg(self.figure)
        ax = self.figure.add_axes((0.09, 0.22, 0.89, 0.74))
        edges = view.edges
        top = max(float(view.contrast[0].max()), 1e-4)
        self.floor = top / 3000
        before = self._steps(view.contrast[0])
        (self.after,) = ax.step(edges, before, where="post", color=AFTER, lw=2.2, label="after")
        ax.step(edges, before, where="post", color=BEFORE, lw=1.4, ls="--", label="before")
        ax.set_yscale("log")
        ax.set_ylim(self.floor, top * 6)
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylabel("Contrast (of [0, 1])", fontsize=9)
        tidy_axes(ax)
        ax.minorticks_off()
        ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
        self.after.set_animated(True)  # left out of what is drawn once
        self.canvas.draw()
        self._empty = self.canvas.copy_from_bbox(self.figure.bbox)

    def draw(self, view: BandView) -> bytes:
        """Move the line of the contrast after, and return the figure as PNG bytes."""
        self.after.set_ydata(self._steps(view.contrast[1]))
        self.canvas.restore_region(self._empty)
        self.figure.axes[0].draw_artist(self.after)
        return _png(np.asarray(self.canvas.buffer_rgba())[..., :3])

    def _steps(self, values: np.ndarray) -> np.ndarray:
        """One height an edge, the last repeated; a removed ring lies on the floor."""
        heights = np.maximum(np.asarray(values, dtype=float), self.floor)
        return np.append(heights, heights[-1])


def tidy_axes(ax: Axes) -> None:
    """Give the axes of a small panel over frequency its label, grid and text sizes.

    Example:
        >>> ax = Figure().subplots()
        >>> tidy_axes(ax)
        >>> ax.get_xlabel()
        'Spatial frequency, cycles per pixel'
    """
    ax.set_xlabel("Spatial frequency, cycles per pixel", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(color="#E6E6E6")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def figure_png(canvas: FigureCanvasAgg) -> bytes:
    """Draw a figure anew and return it as PNG bytes.

    Example:
        >>> figure_png(FigureCanvasAgg(Figure(figsize=(1, 1))))[1:4]
        b'PNG'
    """
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def ring_labels(edges: list[float]) -> list[str]:
    """Name rings by their frequencies.

    Example:
        >>> ring_labels([0, 0.25, 0.5, 0.75])
        ['0 to 0.25', '0.25 to 0.5', '0.5 to 0.75']
    """
    return [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
