"""Figures of a prompt's way: its mask over the plane, and ring by ring, at several times."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.plots.style import (
    METHOD_COLORS,
    add_footer,
    mark_corners,
    method_look,
    method_order,
    need,
    new_axes,
    with_style,
)

if TYPE_CHECKING:
    from fopro_lab.evaluation.runs import MaskHistory


@with_style
def plot_gain(gain: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Show a prompt's gain over the whole plane of frequencies, zero frequency in the middle.

    Args:
        gain: Positive factors ``(H, W // 2 + 1)`` or ``(C, H, W // 2 + 1)`` in ``rfft2`` order,
            W = H or odd; of several channels the geometric mean is shown.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes, in cycles per pixel; blue damps, red amplifies, the scale is log2 about 1. In
        column 0 (and W / 2) mirrored rows show the mean of their gains, as they act.

    Raises:
        ShapeError: If the array has another number of axes.
        InputError: If a gain is not above zero.

    Example:
        >>> ax = plot_gain(np.ones((8, 5)))
        >>> ax.images[0].get_array().shape
        (8, 8)
    """
    gain = np.asarray(gain)
    if gain.ndim not in (2, 3):
        raise ShapeError(
            f"gain: expected (H, W // 2 + 1) or (C, H, W // 2 + 1), got {tuple(gain.shape)}"
        )
    if not (np.isfinite(gain) & (gain > 0)).all():
        raise InputError(f"gain: expected finite factors above 0, got {np.min(gain):g}")
    half = gain if gain.ndim == 2 else np.exp(np.log(gain).mean(axis=0))
    plane = np.fft.fftshift(_whole_plane(half))
    height, width = plane.shape
    bound = max(0.1, float(np.abs(np.log2(plane)).max()))
    extent = tuple(
        edge
        for size in (width, height)
        for edge in (-(size // 2 + 0.5) / size, (size - size // 2 - 0.5) / size)
    )
    ax = new_axes(ax, width=5.2, height=4.4)
    image = ax.imshow(
        np.log2(plane), cmap="RdBu_r", vmin=-bound, vmax=bound, origin="lower", extent=extent
    )
    ticks = np.linspace(-bound, bound, 5)
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.04, 0, 0.045, 1)), ticks=ticks)
    bar.ax.set_yticklabels([rf"$\times$ {2**tick:.2f}" for tick in ticks])
    bar.set_label("Gain of the amplitude, logarithmic")
    bar.outline.set_visible(False)
    for radius in (0.25, 0.5):
        ring = plt.Circle(
            (0, 0), radius, fill=False, color="#555555", linewidth=0.7, ls=(0, (3, 3))
        )
        ax.add_patch(ring)
    ax.set_xticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.set_yticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.grid(visible=False)
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
    ax.set_xlabel("Horizontal frequency, cycles per pixel")
    ax.set_ylabel("Vertical frequency, cycles per pixel")
    channels = f", mean of {len(gain)} channels" if gain.ndim == 3 and len(gain) > 1 else ""
    ax.set_title(f"Gain of the prompt{channels}")
    return ax


@with_style
def plot_radial_gain(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw a prompt's mean gain in each frequency ring, with its spread.

    Args:
        table: Columns ``low``, ``high`` (cycles per pixel), ``gain``, ``gain_low``, ``gain_high``
            (spread within the ring or over prompts); with ``method`` one line each.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; y is logarithmic about 1.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_radial_gain(pd.DataFrame({"low": [0.0], "high": [0.5], "gain": [1.5],
        ...     "gain_low": [1.2], "gain_high": [1.8]}))
        >>> ax.get_yscale()
        'log'
    """
    need(table, "low", "high", "gain", "gain_low", "gain_high")
    ax = new_axes(ax)
    mark_corners(ax, to=table["high"].max())
    keyed = table if "method" in table else table.assign(method="fopro")
    methods = method_order(keyed["method"])
    for method in methods:
        own = keyed[keyed["method"] == method].sort_values("low")
        color, _, label = method_look(method)
        edges = [*own["low"], own["high"].iloc[-1]]
        ax.stairs(own["gain"], edges, baseline=None, color=color, linewidth=2, label=label)
        low, high = ([*own[c], own[c].iloc[-1]] for c in ("gain_low", "gain_high"))
        ax.fill_between(edges, low, high, step="post", color=color, alpha=0.15, linewidth=0)
    ax.axhline(1, color="#333333", linewidth=1, zorder=1)
    ax.set_yscale("log", base=2)
    bound = max(1.1, table["gain_high"].max(), 1 / table["gain_low"].min()) ** 1.1
    ax.set_ylim(1 / bound, bound)
    step = 0.5 if bound > 1.6 else 0.125  # of an octave
    octaves = np.arange(np.ceil(-np.log2(bound) / step), np.log2(bound) / step) * step
    ax.yaxis.set_major_locator(FixedLocator(list(2**octaves)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda gain, _: rf"$\times$ {gain:.2f}"))
    ax.set_xlim(0, table["high"].max())
    ax.set_xlabel("Spatial frequency, cycles per pixel")
    ax.set_ylabel("Gain of the amplitude, logarithmic")
    ax.set_title("Gain by frequency ring")
    if len(methods) > 1:
        ax.legend(loc="best")
    add_footer(ax, table, "bands: spread of the gain")
    return ax


@with_style
def plot_class_gains(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show what each class asks for: its gain in each ring.

    Args:
        table: Of ``training.class_gains``: ``class_name``, ``low``, ``high`` (cycles per pixel),
            ``gain``.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes, a row a class in the order of the table; blue damps, red amplifies, the scale is
        log2 about 1.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_class_gains(pd.DataFrame({"class_name": ["a", "b"], "low": [0.0, 0.0],
        ...     "high": [0.5, 0.5], "gain": [2.0, 0.5]}))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['a', 'b']
    """
    need(table, "class_name", "low", "high", "gain")
    names = list(dict.fromkeys(table["class_name"]))
    plane = table.pivot(index="class_name", columns="low", values="gain").loc[names]
    octaves = np.log2(plane.to_numpy())
    bound = max(0.1, float(np.abs(octaves).max()))
    ax = new_axes(ax, width=6.4, height=max(2.9, 0.8 + 0.32 * len(names)))
    image = ax.imshow(octaves, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
    edges = [*sorted(table["low"].unique()), table["high"].max()]
    ax.set_xticks(np.arange(len(edges)) - 0.5, [f"{edge:.3g}" for edge in edges])
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False)
    ticks = np.linspace(-bound, bound, 5)
    bar = ax.figure.colorbar(image, ax=ax, ticks=ticks)
    bar.ax.set_yticklabels([rf"$\times$ {2**tick:.2f}" for tick in ticks])
    bar.set_label("Gain of the amplitude, logarithmic")
    bar.outline.set_visible(False)
    ax.set_xlabel("Spatial frequency, cycles per pixel; the last ring is the corners")
    ax.set_title("What each class asks for")
    add_footer(ax, table, "one exploration a class: no interval")
    return ax


def _whole_plane(half: np.ndarray) -> np.ndarray:
    """Mirror ``(H, W // 2 + 1)`` into ``(H, W)``: the gain at -f is the gain at f."""
    height, columns = half.shape
    width = height if height // 2 + 1 == columns else 2 * columns - 1
    mirror = -np.arange(height) % height
    acting = half.copy()
    own = [0, width // 2] if width % 2 == 0 else [0]  # columns that are their own mirror image
    acting[:, own] = (half[:, own] + half[mirror][:, own]) / 2
    rest = acting[mirror][:, 1 : width - columns + 1][:, ::-1]
    return np.concatenate([acting, rest], axis=1)


_TIMES = ("#56B4E9", "#0072B2", METHOD_COLORS["fopro"])  # first, middle, last


def octave_bound(films: "Sequence[MaskHistory]") -> float:
    """Return the largest ``abs(log2 gain)`` of all masks, at least 0.1: where the colours end.

    Args:
        films: At least one.

    Returns:
        Octaves.

    Example:
        >>> from fopro_lab.evaluation.runs import MaskHistory
        >>> planes, rings = np.full((1, 2, 2), 4.0), np.ones((1, 1))
        >>> octave_bound([MaskHistory("a", [(1, 0)], planes, rings, np.zeros(2))])
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


def style_ring_axes(ax: Axes, edges: np.ndarray, *, bound: float) -> None:
    """Prepare axes for mean gains by ring: logarithmic about the identity, corners marked.

    Args:
        ax: Axes to draw into.
        edges: Of the rings, cycles per pixel.
        bound: Octaves up and down.

    Example:
        >>> ax = Figure().subplots()
        >>> style_ring_axes(ax, np.array([0, 0.5]), bound=1.0)
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


@with_style
def plot_mask_history(films: "Sequence[MaskHistory]") -> Figure:
    """Draw the first, middle and last mask of each run, and their gain ring by ring.

    Args:
        films: A row each.

    Returns:
        The figure; one colour scale for all masks.

    Example:
        >>> from fopro_lab.evaluation.runs import MaskHistory
        >>> planes, edges = np.ones((1, 4, 4)), np.array([0, 0.75])
        >>> film = MaskHistory("a", [(1, 0)], planes, np.ones((1, 1)), edges)
        >>> len(plot_mask_history([film]).axes)
        5
    """
    bound, rows = octave_bound(films), len(films)
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
        style_ring_axes(line[3], film.edges, bound=bound)
        line[3].set_title("Mean gain of each ring", loc="left", fontsize=9)
        line[3].set_xlabel("Spatial frequency, cycles per pixel")
        line[3].legend(title="exploration, step", loc="best", fontsize=8, title_fontsize=8)
    add_gain_bar(figure, image, list(axes[:, 2]), bound=bound)
    return figure
