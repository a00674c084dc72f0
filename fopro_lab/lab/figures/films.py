"""Figures of a prompt's way: its mask over the plane, and ring by ring, at several times."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fopro_lab.lab.figures.style import METHOD_COLORS, in_house_style, mark_corners

if TYPE_CHECKING:
    from fopro_lab.lab.films import Film

_TIMES = ("#56B4E9", "#0072B2", METHOD_COLORS["fopro"])  # first, middle, last


def bound_of(films: "Sequence[Film]") -> float:
    """Return the largest ``abs(log2 gain)`` of all masks, at least 0.1: where the colours end.

    Args:
        films: At least one.

    Returns:
        Octaves.

    Example:
        >>> from fopro_lab.lab.films import Film
        >>> bound_of([Film("a", [(1, 0)], np.full((1, 2, 2), 4.0), np.ones((1, 1)), np.zeros(2))])
        2.0
    """
    seen = [np.abs(np.log2(part)).max() for film in films for part in (film.planes, film.rings)]
    return max(0.1, float(max(seen)))


def draw_mask(ax: Axes, plane: np.ndarray, *, bound: float) -> AxesImage:
    """Draw a mask, zero frequency in the middle: blue damps, red amplifies, white is gain 1.

    Args:
        ax: Axes to draw into.
        plane: ``(H, W)``, gains above 0.
        bound: Octaves at which the colours end.

    Returns:
        The image; its data are octaves.

    Example:
        >>> draw_mask(Figure().subplots(), np.full((4, 4), 2.0), bound=1.0).get_array().max()
        np.float64(1.0)
    """
    extent = tuple(
        edge
        for size in (plane.shape[1], plane.shape[0])
        for edge in (-(size // 2 + 0.5) / size, (size - size // 2 - 0.5) / size)
    )
    image = ax.imshow(
        np.log2(plane), cmap="RdBu_r", vmin=-bound, vmax=bound, origin="lower", extent=extent
    )
    for radius in (0.25, 0.5):
        ax.add_patch(
            plt.Circle((0, 0), radius, fill=False, color="#555555", linewidth=0.7, ls=(0, (3, 3)))
        )
    ax.set_xticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.set_yticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.grid(visible=False)
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
    return image


def dress_rings(ax: Axes, edges: np.ndarray, *, bound: float) -> None:
    """Prepare axes for mean gains by ring: logarithmic about the identity, corners marked.

    Args:
        ax: Axes to draw into.
        edges: Of the rings, cycles per pixel.
        bound: Octaves up and down.

    Example:
        >>> ax = Figure().subplots()
        >>> dress_rings(ax, np.array([0, 0.5]), bound=1.0)
        >>> ax.get_yscale()
        'log'
    """
    mark_corners(ax, to=edges[-1])
    ax.axhline(1, color="#333333", linewidth=1, zorder=1)
    ax.set_yscale("log", base=2)
    ax.set_ylim(2 ** (-1.08 * bound), 2 ** (1.08 * bound))
    step = next(s for s in (0.05, 0.125, 0.25, 0.5, 1, 2, 4) if 2 * bound / s <= 8 or s == 4)
    octaves = np.arange(np.ceil(-bound / step), bound / step + 1e-9) * step
    ax.yaxis.set_major_locator(FixedLocator(list(2**octaves)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda gain, _: rf"$\times$ {gain:.2f}"))
    ax.set_xlim(edges[0], edges[-1])


def add_gain_bar(figure: Figure, image: AxesImage, axes: Sequence[Axes], *, bound: float) -> None:
    """Draw the colour scale of masks beside them.

    Example:
        >>> ax = Figure().subplots()
        >>> add_gain_bar(ax.figure, draw_mask(ax, np.ones((4, 4)), bound=1.0), [ax], bound=1.0)
        >>> ax.figure.axes[1].get_ylabel()
        'Gain of the amplitude'
    """
    ticks = np.linspace(-bound, bound, 5)
    bar = figure.colorbar(image, ax=list(axes), ticks=ticks, fraction=0.05, pad=0.02, aspect=22)
    bar.ax.set_yticklabels([rf"$\times$ {2**tick:.2f}" for tick in ticks])
    bar.set_label("Gain of the amplitude")
    bar.outline.set_visible(False)


def time_label(time: tuple[int, int]) -> str:
    """Name a time.

    Example:
        >>> time_label((2, 14))
        'exploration 2, step 14'
    """
    return f"exploration {time[0]}, step {time[1]}"


@in_house_style
def plot_films(films: "Sequence[Film]") -> Figure:
    """Draw the first, middle and last mask of each run, and their gain ring by ring.

    Args:
        films: A row each.

    Returns:
        The figure; one colour scale for all masks.

    Example:
        >>> from fopro_lab.lab.films import Film
        >>> film = Film("a", [(1, 0)], np.ones((1, 4, 4)), np.ones((1, 1)), np.array([0, 0.75]))
        >>> len(plot_films([film]).axes)
        5
    """
    bound, rows = bound_of(films), len(films)
    figure, axes = plt.subplots(
        rows, 4, figsize=(13.6, 0.6 + 3.2 * rows), squeeze=False, layout="constrained",
        width_ratios=(1, 1, 1, 1.35),
    )  # fmt: skip
    for line, film in zip(axes, films, strict=True):
        last = len(film.times) - 1
        for ax, place, color in zip(line, (0, last // 2, last), _TIMES, strict=False):
            image = draw_mask(ax, film.planes[place], bound=bound)
            ax.set_title(time_label(film.times[place]), loc="left", fontsize=9)
            ax.set_xlabel("Horizontal frequency, cycles/pixel")
            line[3].stairs(
                film.rings[place], film.edges, baseline=None, color=color, linewidth=2,
                label=f"{film.times[place][0]}, {film.times[place][1]}",
            )  # fmt: skip
        line[0].set_ylabel(f"{film.name}\nVertical frequency, cycles/pixel")
        dress_rings(line[3], film.edges, bound=bound)
        line[3].set_title("Mean gain of each ring", loc="left", fontsize=9)
        line[3].set_xlabel("Spatial frequency, cycles per pixel")
        line[3].legend(title="exploration, step", loc="best", fontsize=8, title_fontsize=8)
    add_gain_bar(figure, image, list(axes[:, 2]), bound=bound)
    return figure
