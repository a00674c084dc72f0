"""Figures of what a reader needs: the ladder of cut-offs, and phases against amplitudes."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fopro_lab.lab.figures.style import (
    GROUP_COLORS,
    add_footer,
    in_house_style,
    need,
    new_axes,
    points_formatter,
)

_ORDER = ("head", "medium", "tail", "all")
_MARKS = {"head": "o", "medium": "D", "tail": "^", "all": "s"}
_KINDS = {
    "untouched": "untouched",
    "phase": "own phase,\nmean amplitude",
    "phase-flat": "own phase,\nflat amplitude",
    "amplitude": "own amplitude,\nrandom phase",
}


@in_house_style
def plot_ladder(table: pd.DataFrame) -> Figure:
    """Draw the recall of each group against the cut-off, low-pass and high-pass side by side.

    Args:
        table: Of ``probing.pass_ladder``, of one reader.

    Returns:
        The figure. Dashed: the same pictures untouched.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> figure = plot_ladder(pd.DataFrame({"scope": "overall", "name": "all", "n": 9,
        ...     "kind": "low-pass", "cutoff": [0.1, 0.2], "recall": [0.3, 0.5],
        ...     "recall_low": 0.2, "recall_high": 0.6, "clean_recall": 0.5}))
        >>> figure.axes[0].get_title(loc="left")
        'low-pass: what is below is kept'
    """
    need(table, "scope", "name", "kind", "cutoff", "recall", "recall_low", "recall_high", "n")
    table = table[table["scope"] != "class"]
    kinds = [kind for kind in ("low-pass", "high-pass") if kind in set(table["kind"])]
    names = [name for name in _ORDER if name in set(table["name"])]
    figure, axes = plt.subplots(
        1, len(kinds), sharey=True, squeeze=False, figsize=(4.6 * len(kinds), 3.7)
    )
    grid = axes[0]
    for ax, kind in zip(grid, kinds, strict=True):
        for name in names:
            own = table[(table["name"] == name) & (table["kind"] == kind)].sort_values("cutoff")
            color = GROUP_COLORS.get(name, GROUP_COLORS[""])
            label = f"{'all classes' if name == 'all' else name}  n={own['n'].max():,}"
            ax.plot(own["cutoff"], own["recall"], marker=_MARKS[name], color=color, label=label)
            band = (own["recall_low"], own["recall_high"])
            ax.fill_between(own["cutoff"], *band, color=color, alpha=0.12, linewidth=0)
            clean = own["clean_recall"].iloc[0]
            ax.axhline(clean, color=color, linewidth=1, ls=(0, (4, 2)), zorder=1)
        kept = "below" if kind == "low-pass" else "above"
        ax.set_title(f"{kind}: what is {kept} is kept")
        ax.set_xlabel("Cut-off, cycles per pixel")
        ax.set_xlim(0, None)
        ax.set_ylim(0, 1)
        ax.yaxis.set_major_formatter(points_formatter())
    grid[0].set_ylabel("Mean recall of classes, %")
    grid[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
    reader = f"read by the {table['reader'].iloc[0]}" if "reader" in table else ""
    add_footer(grid[0], table, reader, "dashed: untouched", "bands: 95 % intervals")
    return figure


@in_house_style
def plot_phases(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the recall of each group on pictures with their phases or amplitudes alone.

    Args:
        table: Of ``probing.phase_and_amplitude``, of one reader.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; untouched pictures first.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_phases(pd.DataFrame({"scope": "overall", "name": "all", "n": 9,
        ...     "kind": ["phase"], "recall": 0.3, "recall_low": 0.2, "recall_high": 0.6,
        ...     "clean_recall": 0.5}))
        >>> [tick.get_text() for tick in ax.get_xticklabels()][0]
        'untouched'
    """
    need(table, "scope", "name", "kind", "recall", "recall_low", "recall_high", "n")
    table = table[table["scope"] != "class"]
    kinds = [kind for kind in _KINDS if kind == "untouched" or kind in set(table["kind"])]
    names = [name for name in _ORDER if name in set(table["name"])]
    ax = new_axes(ax, height=3.8)
    for place, name in enumerate(names):
        own = table[table["name"] == name].set_index("kind")
        color = GROUP_COLORS.get(name, GROUP_COLORS[""])
        shift = 0.14 * (place - (len(names) - 1) / 2)
        label = f"{'all classes' if name == 'all' else name}  n={own['n'].max():,}"
        clean = own["clean_recall"].iloc[0]
        ax.plot(shift, clean, _MARKS[name], color=color, markerfacecolor="white", label=label)
        for x, kind in enumerate(kinds[1:], start=1):
            row = own.loc[kind]
            ax.plot([x + shift] * 2, [row["recall_low"], row["recall_high"]], color=color, lw=1.6)
            ax.plot(x + shift, row["recall"], _MARKS[name], color=color)
    ax.set_xticks(range(len(kinds)), [_KINDS[kind] for kind in kinds])
    ax.grid(axis="x", visible=False)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(points_formatter())
    ax.set_ylabel("Mean recall of classes, %")
    ax.set_title("Phase or amplitude: what the classes are read from")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    reader = f"read by the {table['reader'].iloc[0]}" if "reader" in table else ""
    add_footer(ax, table, reader, "bars: 95 % intervals", "colour and brightness are kept")
    return ax
