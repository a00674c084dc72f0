"""Figures of the split doctor: counts with verdicts, leaks, classes against sources."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.lab.figures.dataset import plot_class_counts
from fopro_lab.lab.figures.style import add_footer, in_house_style, need, new_axes

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


@in_house_style
def plot_checkup(counts: pd.DataFrame, findings: pd.DataFrame) -> Figure:
    """Draw the pictures of each class and part, and below them a verdict a line.

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
        >>> [text.get_text() for text in plot_checkup(counts, lines).axes[1].texts]
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


@in_house_style
def plot_leaks(table: pd.DataFrame) -> Figure:
    """Draw the share of each class's pictures that are tied to one in training.

    Test pictures that training has seen flatter the result; those of validation choose the epoch.

    Args:
        table: Of the doctor's ties: ``part``, ``other``, ``class``, ``n``, ``group``, ``copy``,
            ``lookalike`` (pictures).

    Returns:
        The figure; a panel for test and one for validation, as far as they are there, in each a
        bar a class and kind of tie that occurs, with k/n.

    Raises:
        InputError: If a column, or the rows against train, are missing.

    Example:
        >>> figure = plot_leaks(pd.DataFrame({"part": ["test"], "other": "train", "class": "nv",
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
        ax.set_title(f"{PART_NAMES[part]} pictures", fontsize=10)
    figure.suptitle("Pictures that training has seen", fontsize=11.5, fontweight="bold",
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
    ax.set_xlabel("Tied to a training picture, per cent")


@in_house_style
def plot_pairs(
    first: np.ndarray, second: np.ndarray, titles: Sequence[str], *, columns: int = 4
) -> Figure:
    """Show pairs of pictures side by side in a grid, each under its title.

    Args:
        first: ``(N, H, W, 3)``, ``uint8``.
        second: As many of the same size.
        titles: N short texts.
        columns: Pairs in a row.

    Returns:
        The figure, one pair of axes a pair.

    Raises:
        ShapeError: If the pictures have another shape or type.
        InputError: If there is no pair, or not one title a pair.

    Example:
        >>> pictures = np.zeros((3, 8, 8, 3), np.uint8)
        >>> len(plot_pairs(pictures, pictures, ["a", "b", "c"]).axes)
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


@in_house_style
def plot_class_sources(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw from which source each class comes, as a heat map of shares with the pictures.

    Args:
        table: Column ``class``, and a column a source with the number of pictures.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; colour is the share of the class, the number its pictures.

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
    ax.set_title("Pictures of each class by source")
    add_footer(ax, pd.DataFrame(), "n in each cell, counted: no interval")
    return ax
