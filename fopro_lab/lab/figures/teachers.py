"""Figures of several teachers side by side: their preferences, and how far apart these are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fopro_lab.errors import InputError
from fopro_lab.lab.figures.rings import gain_label, plot_class_bands
from fopro_lab.lab.figures.style import (
    add_footer,
    in_house_style,
    mark_corners,
    need,
    new_axes,
    ring_centres,
)

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#666666", "#8C6D31")
_MARKERS = "oD^sv<>P"


@in_house_style
def plot_teacher_responses(
    table: pd.DataFrame, *, gain: float = 0.0, ax: Axes | None = None
) -> Axes:
    """Overlay the shapes of several teachers' ring responses, for one gain.

    Args:
        table: ``responses`` of ``probing.compare_cards``.
        gain: Which.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; y is the drift per energy relative to each teacher's geometric mean over the
        rings, logarithmic: 2 is twice as much as its average ring.

    Raises:
        InputError: If a column is missing, or no row has that gain.

    Example:
        >>> ax = plot_teacher_responses(pd.DataFrame({"teacher": "a", "low": [0, 0.25],
        ...     "high": [0.25, 0.5], "gain": 0.0, "relative": [0.5, 2.0], "relative_low": 0.4,
        ...     "relative_high": 2.5, "n": 64}))
        >>> ax.lines[1].get_label()
        'a'
    """
    need(table, "teacher", "low", "high", "gain", "relative", "relative_low", "relative_high")
    table = table[table["gain"] == gain]
    need(table, "n")
    ax = new_axes(ax)
    mark_corners(ax, to=table["high"].max())
    ax.axhline(1, color="#333333", linewidth=1, zorder=1)
    for place, name in enumerate(dict.fromkeys(table["teacher"])):
        own = table[table["teacher"] == name].sort_values("low")
        x, color = ring_centres(own), _COLORS[place % 8]
        ax.plot(x, own["relative"], color=color, marker=_MARKERS[place % 8], ms=5, label=name)
        band = (own["relative_low"], own["relative_high"])
        ax.fill_between(x, *band, color=color, alpha=0.15, linewidth=0)
    ax.set_yscale("log")
    ax.set_xlim(0, table["high"].max())
    ax.set_xlabel("Spatial frequency, cycles per pixel")
    ax.set_ylabel("Drift / energy changed,\nrelative to the teacher's mean ring")
    ax.set_title(f"Preferences of teachers, ring {gain_label(gain)}")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    add_footer(ax, table, f"n={table['n'].max():,} pictures", "bands: 95 % bootstrap intervals")
    return ax


def plot_teacher_bands(table: pd.DataFrame, *, gain: float = 0.0) -> Figure:
    """Draw the class x band matrices of several teachers in a row, with one scale of colours.

    Args:
        table: ``bands`` of ``probing.compare_cards``.
        gain: Which.

    Returns:
        The figure, a panel a teacher.

    Raises:
        InputError: If a column is missing, or ``gain`` is not in the table.

    Example:
        >>> one = pd.DataFrame({"teacher": "a", "scope": "class", "name": ["nv"], "group": "head",
        ...     "low": [0.0], "high": [0.5], "gain": [0.0], "change": [-0.1],
        ...     "change_low": [-0.2], "change_high": [-0.05], "n": [100]})
        >>> len(plot_teacher_bands(pd.concat([one, one.assign(teacher="b")])).axes) >= 2
        True
    """
    need(table, "teacher", "change", "gain", "low", "name")
    chosen = table[table["gain"] == gain]
    if chosen.empty:
        told = ", ".join(f"{each:g}" for each in sorted(table["gain"].unique()))
        raise InputError(f"gain: expected one of {told}, got {gain}")
    names = list(dict.fromkeys(chosen["teacher"]))
    lines, rings = chosen["name"].nunique(), chosen["low"].nunique()
    return _panels(chosen, names, gain, width=2.2 + 0.56 * max(8, rings), height=1.9 + 0.34 * lines)


@in_house_style
def _panels(
    table: pd.DataFrame, names: list[str], gain: float, *, width: float, height: float
) -> Figure:
    figure, grid = plt.subplots(1, len(names), squeeze=False, figsize=(width * len(names), height))
    bound = 100 * max(0.05, float(np.nanmax(np.abs(table["change"]))))
    for ax, name in zip(grid[0], names, strict=True):
        plot_class_bands(table[table["teacher"] == name], ax=ax, gain=gain)
        ax.images[0].set_clim(-bound, bound)
        ax.set_title(f"{name}: ring {gain_label(gain)}")
    return figure


@in_house_style
def plot_preferences(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far apart teachers' preferences are, beside one teacher on other pictures.

    Args:
        table: Of ``probing.preference_distances``.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; a row a pair: filled between the teachers, hollow within them, and in words the
        difference with its interval.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_preferences(pd.DataFrame({"teacher": ["a"], "other": "b", "between": 0.9,
        ...     "within": 0.1, "difference": 0.8, "difference_low": 0.7, "difference_high": 0.9,
        ...     "p": 0.01, "n": 64, "units": 60}))
        >>> ax.get_yticklabels()[0].get_text()
        'a, b'
    """
    need(table, "teacher", "other", "between", "within", "difference", "difference_low")
    need(table, "difference_high", "p", "n", "units")
    ax = new_axes(ax, width=8.2, height=1.9 + 0.42 * len(table))
    labels = []
    for place, row in enumerate(table.itertuples()):
        every = row.teacher == "all"
        labels.append("mean of all pairs" if every else f"{row.teacher}, {row.other}")
        color = "#333333" if every else "#0072B2"
        ax.plot([row.within, row.between], [place, place], color=color, alpha=0.35, lw=2, zorder=1)
        first = place == 0
        ax.plot(row.within, place, "o", color=color, markerfacecolor="white",
                label="same teacher, other pictures" if first else None)  # fmt: skip
        ax.plot(row.between, place, "o", color=color,
                label="other teacher, other pictures" if first else None)  # fmt: skip
        told = (
            f"{row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}], "
            f"p={row.p:.3f}"
        )
        ax.annotate(told, (1.02, place), xycoords=("axes fraction", "data"), va="center",
                    fontsize=8.5, annotation_clip=False)  # fmt: skip
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(0, 1.08 * float(table[["between", "within"]].max().max()))
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("Distance of preferences, root mean square of log ratios")
    ax.set_title("Teachers against measurements of one teacher")
    ax.figure.legend(loc="outside upper right", ncols=2)
    add_footer(
        ax, table, f"n={table['n'].max():,} pictures of {table['units'].max():,} lesions",
        "right: difference, 95 % interval",
    )  # fmt: skip
    return ax
