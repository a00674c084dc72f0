"""Figure of the pipeline audit: what each step did to each frequency ring."""

import textwrap
from collections.abc import Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.plots.style import (
    GROUP_COLORS,
    add_footer,
    mark_corners,
    need,
    new_axes,
    ring_centres,
    with_style,
)

SPLIT_COLORS = {"train": "#4D6A8A", "val": "#A9BBCC", "test": "#E0A458"}


@with_style
def plot_class_counts(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the number of images of each class and split, the number at each bar.

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
    ax.set_title("Images of each class")
    ax.set_xlabel("Images (logarithmic axis)")
    ax.set_ylabel("")
    ax.legend(loc="lower right", title=None)
    add_footer(ax, table, "n at each bar, counted: no interval")
    return ax


@with_style
def plot_images(
    images: np.ndarray, titles: Sequence[str], *, columns: int = 8, title: str = ""
) -> Figure:
    """Show images in a grid, each under its title.

    Args:
        images: ``(N, H, W, 3)``, ``uint8``.
        titles: N short texts.
        columns: Images in a row.
        title: Of the whole figure.

    Returns:
        The figure.

    Raises:
        ShapeError: If the images have another shape or type.
        InputError: If there is not one title an image.

    Example:
        >>> len(plot_images(np.zeros((3, 8, 8, 3), np.uint8), ["a", "b", "c"]).axes)
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


@with_style
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
    add_footer(ax, table, "means over n images, without interval")
    return ax


# Told apart by shape and lightness too: a tick, a dot, a triangle, a cross.
LEVEL_LOOKS = {
    "ok": ("#009E73", "$\u2713$"),
    "note": ("#0072B2", "o"),
    "warn": ("#997700", "^"),
    "fail": ("#BB3311", "X"),
}
TIE_LOOKS = {
    "group": ("#882255", "same lesion or patient"),
    "lookalike": ("#44AA99", "near-duplicate"),
    "copy": ("#332288", "copy"),
}
PART_NAMES = {"test": "Test", "val": "Validation"}
_WRAP = 96  # characters of a verdict in a line


@with_style
def plot_data_report(counts: pd.DataFrame, findings: pd.DataFrame) -> Figure:
    """Draw the images of each class and part, and below them a verdict a line.

    Args:
        counts: As of `plot_class_counts`.
        findings: Columns ``level`` (ok, note, warn, fail), ``what``, ``verdict``.

    Returns:
        The figure: axes of the counts, axes of the verdicts.

    Raises:
        InputError: If a column or the rows are missing, or a level is unknown.

    Example:
        >>> counts = pd.DataFrame({"class": ["nv"], "split": ["train"], "n": [9]})
        >>> lines = pd.DataFrame({"level": ["ok"], "what": ["reading"], "verdict": ["all of 9"]})
        >>> [text.get_text() for text in plot_data_report(counts, lines).axes[1].texts]
        ['reading', 'all of 9']
    """
    need(counts, "class", "split", "n")
    need(findings, "level", "what", "verdict")
    strange = set(findings["level"]) - LEVEL_LOOKS.keys()
    if strange:
        known = ", ".join(LEVEL_LOOKS)
        raise InputError(f"level: expected one of {known}, got {sorted(strange)}")
    told = [textwrap.wrap(verdict, _WRAP) for verdict in findings["verdict"]]
    lines = sum(map(len, told)) + 0.45 * len(told)
    above = 1.3 + 0.22 * counts["class"].nunique() * counts["split"].nunique()
    heights = [above, 0.35 + 0.17 * lines]
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(8.4, sum(heights)), height_ratios=heights, layout="constrained"
    )
    plot_class_counts(counts, ax=upper)
    y = 0.0
    for finding, wrapped in zip(findings.itertuples(index=False), told, strict=True):
        color, marker = LEVEL_LOOKS[finding.level]
        lower.plot(0.012, y, marker=marker, color=color, markersize=6.5, clip_on=False)
        lower.text(0.035, y, finding.what, color=color, fontweight="bold", va="center", fontsize=9)
        text = "\n".join(wrapped)
        first = y + 0.5  # a block of text hangs from its first line
        lower.text(0.16, first - 0.92, text, va="top", fontsize=9, linespacing=1.25)
        y += len(wrapped) + 0.45
    lower.set(xlim=(0, 1), ylim=(y - 0.4, -0.8))
    lower.axis("off")
    lower.set_title("What the doctor found", y=1.0)
    return figure


@with_style
def plot_leakage(table: pd.DataFrame) -> Figure:
    """Draw the share of each class's images that are tied to one in training.

    Test images that training has seen flatter the result; those of validation choose the epoch.

    Args:
        table: Of the doctor's ties: ``part``, ``other``, ``class``, ``n``, ``group``, ``copy``,
            ``lookalike`` (images).

    Returns:
        The figure; a panel for test and one for validation, as far as they are there, in each a
        bar a class and kind of tie that occurs, with k/n.

    Raises:
        InputError: If a column, or the rows against train, are missing.

    Example:
        >>> figure = plot_leakage(pd.DataFrame({"part": ["test"], "other": "train", "class": "nv",
        ...     "n": 10, "group": 4, "copy": 0, "lookalike": 0}))
        >>> figure.axes[0].texts[0].get_text()
        '4/10'
    """
    need(table, "part", "other", "class", "n", *TIE_LOOKS)
    tied = table[(table["other"] == "train") & table["part"].isin(PART_NAMES)]
    if tied.empty:
        raise InputError("table: expected rows of test or val against train, got none")
    ties = [tie for tie in TIE_LOOKS if tied[tie].any()] or ["group"]
    parts = [part for part in PART_NAMES if (tied["part"] == part).any()]
    classes = tied["class"].nunique()
    figure, axes = plt.subplots(
        1, len(parts), figsize=(2.2 + 3.6 * len(parts), 1.6 + (0.12 + 0.2 * len(ties)) * classes),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, part in zip(axes.flat, parts, strict=True):
        _draw_ties(ax, tied[tied["part"] == part], ties)
        ax.set_title(f"{PART_NAMES[part]} images", fontsize=10)
    figure.suptitle("Images that training has seen", fontsize=11.5, fontweight="bold",
                    x=0.01, ha="left")  # fmt: skip
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    add_footer(axes[0, 0], table, "k/n at each bar, counted: no interval")
    return figure


def _draw_ties(ax: Axes, own: pd.DataFrame, ties: Sequence[str]) -> None:
    bar = 0.8 / len(ties)
    for place, tie in enumerate(ties):
        color, label = TIE_LOOKS[tie]
        y = np.arange(len(own)) + (place - (len(ties) - 1) / 2) * bar
        share = 100 * own[tie] / own["n"].clip(lower=1)
        ax.barh(y, share, height=0.92 * bar, color=color, label=label)
        for height, width, k, n in zip(y, share, own[tie], own["n"], strict=True):
            ax.annotate(f"{k:,}/{n:,}", (width, height), (4, 0), textcoords="offset points",
                        va="center", fontsize=8, color="#444444")  # fmt: skip
    ax.set_yticks(range(len(own)), ["all classes" if c == "all" else c for c in own["class"]])
    ax.set_ylim(len(own) - 0.4, -0.6)
    ax.set_xlim(0, 125)  # room for k/n behind a bar of 100
    ax.set_xticks(range(0, 101, 20))
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("Tied to a training image, per cent")


@with_style
def plot_pairs(
    first: np.ndarray, second: np.ndarray, titles: Sequence[str], *, columns: int = 4
) -> Figure:
    """Show pairs of images side by side in a grid, each under its title.

    Args:
        first: ``(N, H, W, 3)``, ``uint8``.
        second: As many of the same size.
        titles: N short texts.
        columns: Pairs in a row.

    Returns:
        The figure, one pair of axes a pair.

    Raises:
        ShapeError: If the images have another shape or type.
        InputError: If there is no pair, or not one title a pair.

    Example:
        >>> images = np.zeros((3, 8, 8, 3), np.uint8)
        >>> len(plot_pairs(images, images, ["a", "b", "c"]).axes)
        6
    """
    right = first.ndim == 4 and first.shape[-1] == 3 and first.dtype == np.uint8
    if not right or second.shape != first.shape or second.dtype != first.dtype:
        raise ShapeError(
            f"first, second: expected (N, H, W, 3) of uint8, both alike, got {first.shape} of "
            f"{first.dtype} and {second.shape} of {second.dtype}"
        )
    if not len(first) or len(titles) != len(first):
        raise InputError(f"titles: expected one for each pair, got {len(titles)} for {len(first)}")
    across = min(columns, len(first))
    rows = -(-len(first) // across)
    figure = plt.figure(figsize=(2.15 * across, 1.4 * rows), layout="constrained")
    cells = figure.subfigures(rows, across, squeeze=False, wspace=0.02).flat
    for cell, left, other, title in zip(cells, first, second, titles, strict=False):
        cell.suptitle(title, fontsize=8)
        for ax, image in zip(cell.subplots(1, 2), (left, other), strict=True):
            ax.imshow(image)
            ax.axis("off")
    return figure


@with_style
def plot_class_sources(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw from which source each class comes, as a heat map of shares with the images.

    Args:
        table: Column ``class``, and a column a source with the number of images.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; colour is the share of the class, the number its images.

    Raises:
        InputError: If the column or the rows are missing, or there is no source.

    Example:
        >>> ax = plot_class_sources(pd.DataFrame({"class": ["nv"], "a": [3], "b": [1]}))
        >>> [text.get_text() for text in ax.texts]
        ['3', '1']
    """
    need(table, "class")
    cells = table.set_index("class")
    if not len(cells.columns):
        raise InputError("table: expected a column for at least one source, got class alone")
    shares = cells.div(cells.sum(axis=1).clip(lower=1), axis=0)
    width, height = 2.6 + 0.85 * len(cells.columns), max(3.2, 1.6 + 0.34 * len(cells))
    ax = new_axes(ax, width=max(5.0, width), height=height)
    image = ax.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.02, 0, 0.03, 1)))
    bar.set_label("Share of the class, per cent")
    bar.outline.set_visible(False)
    for (y, x), n in np.ndenumerate(cells.to_numpy()):
        color = "white" if shares.iat[y, x] > 0.6 else "#333333"
        ax.text(x, y, f"{n:,}", ha="center", va="center", fontsize=8.5, color=color)
    ax.set_yticks(range(len(cells)), [f"{c}  n={n:,}" for c, n in cells.sum(axis=1).items()])
    labels = [f"{textwrap.shorten(str(s), 22, placeholder='...')}" for s in cells.columns]
    ax.set_xticks(range(len(labels)), labels, fontsize=8.5, rotation=25, ha="right")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)
    ax.set_xlabel("Source")
    ax.set_title("Images of each class by source")
    add_footer(ax, pd.DataFrame(), "n in each cell, counted: no interval")
    return ax


FACTORS = (0.125, 0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 2.8, 4, 8)
DRAFTED = 4  # times the size: a JPEG from there on is shrunk while it is decoded
MARKERS = "osD^vPX*"


@with_style
def plot_pipeline(table: pd.DataFrame, *, source: str = "all") -> Figure:
    """Draw what each step did to the amplitude of each ring, one panel a stage.

    Args:
        table: Of ``auditing.audit_pipeline``: ``stage``, ``step``, ``reference``, ``size``,
            ``source``, ``low``, ``high`` (cycles per pixel), ``log_ratio`` (natural), ``n``,
            ``interval_low``, ``interval_high``.
        source: Whose images.

    Returns:
        The figure; all panels share the logarithmic axis of factors.

    Raises:
        InputError: If a column, or rows of the source, are missing.

    Example:
        >>> figure = plot_pipeline(pd.DataFrame({"stage": "resize", "step": "box", "size": 32,
        ...     "reference": "ideal band limit", "source": "all", "low": [0.0, 0.25],
        ...     "high": [0.25, 0.5], "log_ratio": [0.0, -0.7], "n": 9,
        ...     "interval_low": [0.0, -0.8], "interval_high": [0.0, -0.6]}))
        >>> figure.axes[0].get_title('left'), figure.axes[0].lines[-1].get_ydata().tolist()
        ('Resize at 32 px', [0.0, -0.7])
    """
    need(table, "stage", "step", "reference", "size", "source", "low", "high", "log_ratio", "n")
    need(table, "interval_low", "interval_high")
    own = table[table["source"] == source]
    if own.empty:
        known = ", ".join(map(str, table["source"].unique()))
        raise InputError(f"source: expected one of {known}, got '{source}'")
    stages = list(dict.fromkeys(own["stage"]))
    columns = min(len(stages), 2 if len(stages) == 4 else 3)
    rows = -(-len(stages) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(4.6, 3.7 * columns), 3.3 * rows + 0.4),
        sharex=True, sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, stage in zip(axes.flat, stages, strict=False):
        _draw_stage(ax, own[own["stage"] == stage])
    for ax in axes.flat[len(stages) :]:
        ax.axis("off")
    values = own[["log_ratio", "interval_low", "interval_high"]]
    reach = max(0.4, float(np.nanmax(np.abs(values.to_numpy()), initial=0)))
    low, high = np.nanmin(values, initial=-0.4), np.nanmax(values, initial=0.25)
    first = axes[0, 0]
    first.set_ylim(low - 0.45 * (high - low) - 0.02, high + 0.06 * reach)
    first.yaxis.set_major_locator(FixedLocator([float(np.log(factor)) for factor in FACTORS]))
    first.yaxis.set_minor_locator(NullLocator())
    first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"\u00d7 {np.exp(value):.2g}"))
    for ax in axes[:, 0]:
        ax.set_ylabel("Amplitude against the reference")
    for ax in axes[-1]:
        ax.set_xlabel("Spatial frequency, cycles per pixel")
    whose = "all sources" if source == "all" else f"source {source}"
    figure.suptitle(f"What the pipeline did to each frequency ring: {whose}", fontsize=11.5,
                    fontweight="bold", x=0.01, ha="left")  # fmt: skip
    add_footer(first, own, f"n={own['n'].max():,} images", "bands: 95 % intervals of the mean")
    return figure


def _draw_stage(ax: Axes, table: pd.DataFrame) -> None:
    mark_corners(ax, to=table["high"].max())
    ax.axhline(0, color="#333333", linewidth=1, zorder=1)
    for place, step in enumerate(dict.fromkeys(table["step"])):
        own = table[table["step"] == step].sort_values("low")
        x = ring_centres(own)
        color = f"C{place % 8}"
        style = "-" if place % 2 == 0 else (0, (4, 1.5))
        ax.fill_between(
            x, own["interval_low"], own["interval_high"], color=color, alpha=0.18, linewidth=0
        )
        ax.plot(x, own["log_ratio"], marker=MARKERS[place % 8], markersize=4, linewidth=1.5,
                color=color, linestyle=style, label=step)  # fmt: skip
    ax.set_xlim(0, table["high"].max())
    first = table.iloc[0]
    ax.set_title(f"{first['stage'].capitalize()} at {first['size']} px", fontsize=10)
    if first["stage"] == "decode" and not table["log_ratio"].fillna(0).any():
        # All lines lie at 1 since nothing was done, not since drafts do no harm.
        least = DRAFTED * first["size"]
        ax.annotate(f"no image was drafted:\nnone is a JPEG of {least} px or more",
                    (0.5, 0), (0, 9), xycoords=ax.get_yaxis_transform(),
                    textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    ax.legend(loc="lower left", fontsize=7.5, handlelength=2.6, labelspacing=0.25, ncols=2,
              columnspacing=1.2, title=f"against: {first['reference']}", title_fontsize=7.5,
              alignment="left")  # fmt: skip
