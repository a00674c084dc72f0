"""Drawing for widgets: PNG bytes, figures of which only some artists move, and stills."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


def png_bytes(pixels: np.ndarray) -> bytes:
    """Encode ``uint8 (H, W, 3)`` as PNG, compressed little so that a slider is not slowed down."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


class MovingFigure:
    """A figure whose background is drawn once; an update draws the moving artists alone.

    Args:
        figure: Complete, with every artist in it.
        moving: What changes from now on, in drawing order.
    """

    def __init__(self, figure: Figure, moving: Sequence[Artist]) -> None:
        self.figure, self.moving = figure, moving
        self._canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # else the layout would follow what moves
        for artist in moving:
            artist.set_animated(True)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(figure.bbox)

    def png(self) -> bytes:
        """Draw the moving artists over the background and return PNG bytes."""
        self._canvas.restore_region(self._background)
        for artist in self.moving:
            if artist.axes is not None:
                artist.axes.draw_artist(artist)
        return png_bytes(np.asarray(self._canvas.buffer_rgba())[..., :3])


def figure_png(figure: Figure) -> bytes:
    """Draw a whole figure and return PNG bytes of its own size."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return png_bytes(np.asarray(canvas.buffer_rgba())[..., :3])


def style_frequency_axes(ax: Axes) -> None:
    """Give a small panel over radial frequency its label, grid and text sizes."""
    ax.set_xlabel("Spatial frequency, cycles per pixel", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(color="#E6E6E6")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


class StillBox(widgets.VBox):
    """A box of widgets that an executed notebook without a front end shows as a figure."""

    def still(self) -> Figure:
        """Draw the figure that takes the widget's place."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stream, still = io.BytesIO(), self.still()
        still.savefig(stream, format="png", dpi=110)
        plt.close(still)  # else a notebook would show it once more
        return {**bundle, "image/png": base64.b64encode(stream.getvalue()).decode()}
