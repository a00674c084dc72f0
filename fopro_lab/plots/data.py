"""Figures of a data set: classes, images, near-duplicates, sources, spectra, and the pipeline."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.plots import style

SPLIT_COLORS = {"train": "#4D6A8A", "val": "#A9BBCC", "test": "#E0A458"}
_MARKERS = "osD^vPX*"
_SMALL = {"fontsize": 7.5, "title_fontsize": 7.5, "labelspacing": 0.25, "columnspacing": 1.2}


@style.with_style
def plot_class_counts(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the number of images of each class and split, the number at each bar.

    ``table``: columns ``class``, ``split`` ("train", "val", "test"), ``n``; ``group`` colours the
    class names by head, medium and tail.
    """
    style.need(table, "class split n")
    splits = [split for split in SPLIT_COLORS if split in set(table["split"])]
    counts = table[table["split"] == splits[0]].set_index("class")["n"]
    classes = list(counts.sort_values(ascending=False, kind="stable").index)
    height = 1.3 + 0.22 * len(classes) * max(1.6, len(splits))
    ax = style.new_axes(ax, width=7 + style.room(classes), height=height)
    look = {"palette": SPLIT_COLORS, "saturation": 1, "order": classes, "hue_order": splits}
    sns.barplot(table, x="n", y="class", hue="split", ax=ax, **look)
    for bars in ax.containers:
        ax.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8, color="#444444")  # type: ignore[arg-type]
    ax.set(xscale="log", xlim=(0.8, 2.2 * table["n"].max()))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    style.label_rows(ax, classes)
    if "group" in table:
        groups = table.drop_duplicates("class").set_index("class")["group"]
        style.color_group_labels(ax, list(groups[classes]))
    ax.set(title="Images of each class", xlabel="Images (logarithmic axis)", ylabel="")
    ax.legend(loc="lower right", title=None)
    style.add_footer(ax, table, "n at each bar, counted: no interval")
    return ax


@style.with_style
def plot_images(images: np.ndarray, titles: Sequence[str], *, columns: int = 8) -> Figure:
    """Show images ``(N, H, W, 3)``, ``uint8``, in a grid of so many columns, each under its title.

    Pairs are shown as images twice as wide.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
        got = f"{images.shape} of {images.dtype}"
        raise ShapeError(f"images: expected (N, H, W, 3) of uint8, N at least 1, got {got}")
    if len(titles) != len(images):
        raise InputError(f"titles: expected one for each of {len(images)}, got {len(titles)}")
    width = max(0.85, 7.6 / max(min(columns, len(images)), 5))
    width *= max(1, images.shape[2] / images.shape[1])
    height = width * images.shape[1] / images.shape[2] + 0.24
    figure, axes = style.panels(len(images), columns=columns, wide=width, tall=height)
    fits = int(16 * width)  # columns at this size of letters
    for ax, image, text in zip(axes, images, titles, strict=True):
        ax.imshow(image)
        text = "\n".join(style.shown(line, fits) for line in str(text).split("\n"))
        ax.set_title(text, fontsize=8, fontweight="normal", loc="center", pad=3)
        ax.axis("off")
    return figure


@style.with_style
def plot_spectra(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    scope: Literal["class", "source"] = "class",
    value: Literal["log_amplitude", "difference"] = "log_amplitude",
) -> Axes:
    """Draw the mean log amplitude of each frequency ring, one line per class or source.

    ``table``: of ``probing.mean_spectra``. ``value`` is the amplitude itself, or its difference
    from the mean over classes or sources.
    """
    style.need(table, f"scope name low high {value} n")
    table = table[table["scope"] == scope]
    if table.empty:
        raise InputError(f"table: expected rows of scope '{scope}', got none")
    names = list(dict.fromkeys(table["name"]))
    ax = style.new_axes(ax, width=7 + style.room(names))
    colors = sns.color_palette("viridis", len(names)) if len(names) > 8 else sns.color_palette()
    for place, name in enumerate(names):
        own = table[table["name"] == name]
        look = {"color": colors[place], "linestyle": style.DASHED if place % 2 else "-"}
        style.ring_line(ax, own, value, label=f"{name}  n={own['n'].iloc[0]:,}", **look)
    if value == "difference":
        ax.axhline(0, color="#333333", linewidth=1, zorder=1)
    style.ring_axis(ax, table["high"])
    mean = "Difference from the mean" if value == "difference" else "Mean"
    ax.set_ylabel(f"{mean} log amplitude\n(natural, intensity in [0, 1])")
    ax.set_title(f"Mean spectra by {scope}")
    style.legend_beside(ax)
    style.add_footer(ax, table, "means over n images, without interval")
    return ax


@style.with_style
def plot_pipeline(table: pd.DataFrame, *, source: str = "all") -> Figure:
    """Draw what each step did to the amplitude of each ring, one panel per stage.

    ``table``: of ``checks.audit_pipeline``; ``source``: whose images.
    """
    style.need(table, "stage step reference size source low high log_ratio n")
    style.need(table, "interval_low interval_high")
    own = table[table["source"] == source]
    if own.empty:
        known = ", ".join(map(str, table["source"].unique()))
        raise InputError(f"source: expected one of {known}, got '{source}'")
    stages = list(dict.fromkeys(own["stage"]))
    columns = min(len(stages), 2 if len(stages) == 4 else 3)
    size: dict[str, Any] = {"columns": columns, "wide": max(4.6 / columns, 3.7), "tall": 3.4}
    figure, axes = style.panels(len(stages), **size, sharex=True, sharey=True)
    logs = {"log_ratio": "ratio", "interval_low": "ratio_low", "interval_high": "ratio_high"}
    own = own.assign(**{ratio: np.exp(own[log]) for log, ratio in logs.items()})
    bound = max(0.5, own[[*logs]].abs().max().max() / np.log(2))  # octaves
    for place, (ax, stage) in enumerate(zip(axes, stages, strict=True)):
        part = own[own["stage"] == stage]
        for n, step in enumerate(dict.fromkeys(part["step"])):
            look: dict[str, Any] = {"color": f"C{n % 8}", "marker": _MARKERS[n % 8]}
            look |= {"markersize": 4, "linewidth": 1.5, "ls": style.DASHED if n % 2 else "-"}
            style.ring_line(ax, part[part["step"] == step], "ratio", label=step, **look)
        style.gain_axes(ax, part["high"], bound=bound)
        first = part.iloc[0]
        ax.set_title(f"{first['stage'].capitalize()} at {first['size']} px", fontsize=10)
        title = f"against: {first['reference']}"
        look = {"ncols": 2, "handlelength": 2.6, "alignment": "left", **_SMALL}
        ax.legend(loc="upper left", title=title, **look)
        ax.set_ylabel("Amplitude against the reference" * (place % columns == 0))
        if place + columns < len(stages):
            ax.set_xlabel("")
    whose = "all sources" if source == "all" else f"source {source}"
    style.figure_title(figure, f"What the pipeline did to each frequency ring: {whose}")
    images = f"n={own['n'].max():,} images"
    style.add_footer(axes[0], own, images, "bands: 95 % intervals of the mean")
    return figure
