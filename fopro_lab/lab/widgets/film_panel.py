"""Masks at one time as PNG bytes: fast enough to follow a slider."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fopro_lab.lab.figures.films import (
    add_gain_bar,
    bound_of,
    draw_mask,
    dress_rings,
    time_label,
)
from fopro_lab.lab.figures.style import METHOD_COLORS, STYLE
from fopro_lab.lab.films import Film

NOW, LAST = METHOD_COLORS["fopro"], "#555555"
DPI = 90


class FilmPanel:
    """Masks and ring gains of some films, drawn into one figure again and again.

    Axes, labels and the last mask's ring gains are drawn once; a tick draws what moves, and the
    colours mean the same at every time.

    Args:
        films: A column each.

    Example:
        >>> film = Film("a", [(1, 0)], np.ones((1, 4, 4)), np.ones((1, 1)), np.array([0, 0.75]))
        >>> FilmPanel([film]).draw((1, 0))[1:4]
        b'PNG'
    """

    def __init__(self, films: Sequence[Film]) -> None:
        self.films = films
        bound = bound_of(films)
        with plt.style.context(STYLE):
            self.figure = Figure(
                figsize=(1.3 + 3.4 * len(films), 6.2), dpi=DPI, layout="constrained"
            )
            self.canvas = FigureCanvasAgg(self.figure)
            upper, lower = self.figure.subplots(
                2, len(films), squeeze=False, height_ratios=(1.6, 1)
            )
            self.images = [
                draw_mask(ax, film.planes[-1], bound=bound)
                for ax, film in zip(upper, films, strict=True)
            ]
            self.titles = [
                ax.set_title(time_label(film.times[-1]), loc="left", fontsize=9)
                for ax, film in zip(upper, films, strict=True)
            ]
            self.lines = [self._rings(ax, f, bound) for ax, f in zip(lower, films, strict=True)]
            for ax, film in zip(upper, films, strict=True):
                what = "" if film.whole else " (ring means)"
                ax.set_xlabel(f"Horizontal frequency, cycles per pixel\n{film.name}{what}")
            upper[0].set_ylabel("Vertical frequency,\ncycles per pixel")
            lower[0].set_ylabel("Mean gain of the ring")
            add_gain_bar(self.figure, self.images[0], list(upper), bound=bound)
            circles = [patch for ax in upper for patch in ax.patches]  # above their mask
            self._moving = [*self.images, *circles, *self.titles, *self.lines]
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")
            for artist in self._moving:
                artist.set_animated(True)
            self.canvas.draw()
            self._still = self.canvas.copy_from_bbox(self.figure.bbox)

    def _rings(self, ax: Axes, film: Film, bound: float) -> Line2D:
        dress_rings(ax, film.edges, bound=bound)
        ax.stairs(film.rings[-1], film.edges, baseline=None, color=LAST, ls="--", label="last")
        (line,) = ax.step(
            film.edges, _steps(film.rings[-1]), where="post", color=NOW, linewidth=2, label="now"
        )
        ax.set_xlabel("Spatial frequency, cycles per pixel")
        ax.legend(loc="best", fontsize=8, ncols=2)
        return line

    def draw(self, time: tuple[int, int]) -> bytes:
        """Return the figure as PNG bytes.

        Args:
            time: Exploration and step; each film shows its mask of then.
        """
        for film, image, title, line in zip(
            self.films, self.images, self.titles, self.lines, strict=True
        ):
            place = film.at(time)
            image.set_data(np.log2(film.planes[place]))
            title.set_text(time_label(film.times[place]))
            line.set_ydata(_steps(film.rings[place]))
        self.canvas.restore_region(self._still)
        with plt.style.context(STYLE):
            for artist in self._moving:
                artist.axes.draw_artist(artist)
        stream = io.BytesIO()
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3]
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
        return stream.getvalue()


def _steps(heights: np.ndarray) -> np.ndarray:
    """One height an edge, the last repeated."""
    return np.append(heights, heights[-1])
