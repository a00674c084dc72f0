"""What the explorer shows, as PNG bytes: fast enough to follow a slider."""

import io
from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fopro_lab.lab.bands import BandView
from fopro_lab.lab.figures import METHOD_COLORS

SIDE = 224  # pixels a panel has at least; smaller pictures are enlarged by a whole factor
GAP = 8
BEFORE, AFTER = METHOD_COLORS["bsm"], METHOD_COLORS["fopro"]
_SPECTRUM = (np.array(colormaps["viridis"].colors) * 255).astype(np.uint8)  # type: ignore[attr-defined]


def picture_panel(view: BandView, *, floor: float, ceiling: float) -> bytes:
    """Draw picture before, picture after, and its spectrum, side by side.

    The edges of changed rings are drawn white into the spectrum.

    Args:
        view: What to show.
        floor: Log amplitude of the darkest colour; kept while sliders move, so that nothing
            flickers.
        ceiling: Log amplitude of the brightest.

    Returns:
        PNG bytes.

    Example:
        >>> import torch
        >>> from fopro_lab.lab.bands import view_bands
        >>> view = view_bands(torch.rand(3, 16, 16), [1.0, 0.0], edges=[0, 0.25, 0.75])
        >>> picture_panel(view, floor=-4.0, ceiling=4.0)[1:4]
        b'PNG'
    """
    share = (view.spectrum - floor) / max(ceiling - floor, 1e-6)
    spectrum = _SPECTRUM[(share.clip(0, 1) * 255).astype(np.intp)]
    spectrum[_changed_edges(view)] = 255
    factor = max(1, -(-SIDE // view.before.shape[0]))
    panels = [np.kron(x, np.ones((factor, factor, 1), np.uint8))
              for x in (view.before, view.after, spectrum)]  # fmt: skip
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    return _png(np.hstack([panels[0], gap, panels[1], gap, panels[2]]))


def _changed_edges(view: BandView) -> np.ndarray:
    """Mark the bins of the shifted plane where a changed ring ends, ``(H, W)`` boolean."""
    height, width = view.spectrum.shape
    rows = np.fft.fftshift(np.fft.fftfreq(height))[:, None]
    columns = np.fft.fftshift(np.fft.fftfreq(width))[None, :]
    edges = [*view.profile["low"], view.profile["high"].iloc[-1]]
    ring = np.digitize(np.hypot(rows, columns), edges, right=True)
    changed = np.concatenate([[False], view.profile["gain"] != 1, [False]])[ring]
    border = np.zeros((height, width), bool)
    for axis in (0, 1):
        near = np.roll(ring, 1, axis)
        border |= (ring != near) & (changed | np.roll(changed, 1, axis))
    return border


class ProfilePanel:
    """The contrast of each ring before and after, drawn into one figure again and again.

    Args:
        view: A first view; its rings and its contrast set the axes.

    Example:
        >>> import torch
        >>> from fopro_lab.lab.bands import view_bands
        >>> view = view_bands(torch.rand(3, 16, 16), [1.0, 0.0], edges=[0, 0.25, 0.75])
        >>> ProfilePanel(view).draw(view)[1:4]
        b'PNG'
    """

    def __init__(self, view: BandView) -> None:
        self.figure = Figure(figsize=(6.9, 2.3), dpi=100)
        self.canvas = FigureCanvasAgg(self.figure)
        ax = self.figure.add_axes((0.09, 0.22, 0.89, 0.74))
        edges = [*view.profile["low"], view.profile["high"].iloc[-1]]
        top = max(float(view.profile["before"].max()), 1e-4)
        self.floor = top / 3000
        before = self._steps(view.profile["before"])
        (self.after,) = ax.step(edges, before, where="post", color=AFTER, lw=2.2, label="after")
        ax.step(edges, before, where="post", color=BEFORE, lw=1.4, ls="--", label="before")
        ax.set_yscale("log")
        ax.set_ylim(self.floor, top * 6)
        ax.set_xlim(edges[0], edges[-1])
        ax.set_xlabel("Spatial frequency, cycles per pixel", fontsize=9)
        ax.set_ylabel("Contrast of the ring", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.minorticks_off()
        ax.grid(color="#E6E6E6")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")

    def draw(self, view: BandView) -> bytes:
        """Move the line of the contrast after, and return the figure as PNG bytes."""
        self.after.set_ydata(self._steps(view.profile["after"]))
        self.canvas.draw()
        return _png(np.asarray(self.canvas.buffer_rgba())[..., :3])

    def _steps(self, values: np.ndarray) -> np.ndarray:
        """One height an edge, the last repeated; a removed ring lies on the floor."""
        heights = np.maximum(np.asarray(values, dtype=float), self.floor)
        return np.append(heights, heights[-1])


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
