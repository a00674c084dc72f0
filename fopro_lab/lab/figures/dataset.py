"""Figures of a data set: how many pictures, what they look like, how strong each frequency is."""

from collections.abc import Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.lab.figures.style import (
    GROUP_COLORS,
    add_footer,
    in_house_style,
    mark_corners,
    need,
    new_axes,
    ring_centres,
)

SPLIT_COLORS = {"train": "#4D6A8A", "val": "#A9BBCC", "test": "#E0A458"}


@in_house_style
def plot_class_counts(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the number of pictures of each class and split, the number at each bar.

    Args:
        table: Columns ``class``, ``split`` ("train", "val", "test"), ``n``; ``group`` colours the
            class names by head, medium and tail.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; x is logarithmic.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_class_counts(pd.DataFrame({"class": ["nv"], "split": ["train"], "n": [9]}))
        >>> ax.texts[0].get_text()
        '9'
    """
    need(table, "class", "split", "n")
    splits = [split for split in SPLIT_COLORS if split in set(table["split"])]
    counts = table[table["split"] == splits[0]].set_index("class")["n"]
    classes = list(counts.sort_values(ascending=False, kind="stable").index)
    ax = new_axes(ax, height=1.3 + 0.22 * len(classes) * max(1.6, len(splits)))
    sns.barplot(
        table,
        x="n",
        y="class",
        hue="split",
        order=classes,
        hue_order=splits,
        palette=SPLIT_COLORS,
        saturation=1,
        ax=ax,
    )
    for bars in ax.containers:
        assert isinstance(bars, BarContainer)
        ax.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8, color="#444444")
    ax.set_xscale("log")
    ax.set_xlim(0.8, 2.2 * table["n"].max())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    if "group" in table:
        groups = table.drop_duplicates("class").set_index("class")["group"]
        for tick, name in zip(ax.get_yticklabels(), classes, strict=True):
            tick.set_color(GROUP_COLORS[groups[name]])
    ax.set_title("Pictures of each class")
    ax.set_xlabel("Pictures (logarithmic axis)")
    ax.set_ylabel("")
    ax.legend(loc="lower right", title=None)
    add_footer(ax, table, "n at each bar, counted: no interval")
    return ax


@in_house_style
def plot_pictures(
    images: np.ndarray, titles: Sequence[str], *, columns: int = 8, title: str = ""
) -> Figure:
    """Show pictures in a grid, each under its title.

    Args:
        images: ``(N, H, W, 3)``, ``uint8``.
        titles: N short texts.
        columns: Pictures in a row.
        title: Of the whole figure.

    Returns:
        The figure.

    Raises:
        ShapeError: If the pictures have another shape or type.
        InputError: If there is not one title a picture.

    Example:
        >>> len(plot_pictures(np.zeros((3, 8, 8, 3), np.uint8), ["a", "b", "c"]).axes)
        3
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
        raise ShapeError(
            f"images: expected (N, H, W, 3) of uint8, N at least 1, got {images.shape} of "
            f"{images.dtype}"
        )
    if len(titles) != len(images):
        raise InputError(f"titles: expected one for each of {len(images)}, got {len(titles)}")
    across = min(columns, len(images))
    rows = -(-len(images) // across)
    side = max(0.85, 7.6 / max(across, 5))
    figure = plt.figure(figsize=(side * across, (side + 0.24) * rows + (0.3 if title else 0)))
    for place, (image, text) in enumerate(zip(images, titles, strict=True)):
        ax = figure.add_subplot(rows, across, place + 1)
        ax.imshow(image)
        ax.set_title(text, fontsize=8, fontweight="normal", loc="center", pad=3)
        ax.axis("off")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return figure


@in_house_style
def plot_spectra(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    scope: Literal["class", "source"] = "class",
    value: Literal["log_amplitude", "difference"] = "log_amplitude",
) -> Axes:
    """Draw the mean log amplitude of each frequency ring, one line a class or source.

    Args:
        table: Of ``probing.mean_spectra``: ``scope``, ``name``, ``low``, ``high`` (cycles per
            pixel), ``log_amplitude``, ``difference``, ``n``.
        ax: Axes to draw into; None makes a figure.
        scope: Whose lines.
        value: The amplitude itself, or its difference from the mean over classes or sources.

    Returns:
        The axes; x is the middle of the ring.

    Raises:
        InputError: If a column or the rows of the scope are missing.

    Example:
        >>> ax = plot_spectra(pd.DataFrame({"scope": "class", "name": ["nv", "nv"],
        ...     "low": [0.0, 0.25], "high": [0.25, 0.5], "log_amplitude": [-1.0, -3.0], "n": 7}))
        >>> ax.lines[0].get_xdata().tolist()
        [0.125, 0.375]
    """
    need(table, "scope", "name", "low", "high", value, "n")
    table = table[table["scope"] == scope]
    if table.empty:
        raise InputError(f"table: expected rows of scope '{scope}', got none")
    ax = new_axes(ax)
    names = list(dict.fromkeys(table["name"]))
    look = sns.color_palette("viridis", len(names)) if len(names) > 8 else sns.color_palette()
    mark_corners(ax, to=table["high"].max())
    for place, name in enumerate(names):
        own = table[table["name"] == name]
        dash = "-" if place % 2 == 0 else (0, (4, 1.5))
        label = f"{name}  n={own['n'].iloc[0]:,}"
        ax.plot(ring_centres(own), own[value], color=look[place], linestyle=dash, label=label)
    if value == "difference":
        ax.axhline(0, color="#333333", linewidth=1, zorder=1)
    ax.set_xlim(0, table["high"].max())
    ax.set_xlabel("Spatial frequency, cycles per pixel")
    mean = "Difference from the mean" if value == "difference" else "Mean"
    ax.set_ylabel(f"{mean} log amplitude\n(natural, intensity in [0, 1])")
    ax.set_title(f"Mean spectra by {scope}")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    add_footer(ax, table, "means over n pictures, without interval")
    return ax
