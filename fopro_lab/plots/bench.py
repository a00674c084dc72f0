"""Figures of benchmarks: ratios to a reference, with the spread over rounds."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fopro_lab.plots.style import add_footer, need, new_axes, with_style

_BAR, _SPREAD, _GOAL = "#0072B2", "#333333", "#D55E00"


@with_style
def plot_ratios(
    table: pd.DataFrame, *, facts: Mapping[str, Any] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how many times as fast each variant is as the first one, on a logarithmic axis.

    Args:
        table: Of ``compare_rounds``; its first row is the reference.
        facts: Of ``machine_facts``, for the footer.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; a bar reaches to the median ratio, its whisker spans the rounds' quartiles, a
        bar across is the goal.

    Raises:
        InputError: If a column is missing.

    Example:
        >>> table = pd.DataFrame({"variant": ["slow", "fast"], "ratio": [1.0, 4.0],
        ...     "low": [1.0, 3.5], "high": [1.0, 4.5], "goal": [None, 3.0], "rounds": [9, 9]})
        >>> plot_ratios(table).get_xscale()
        'log'
    """
    need(table, "variant", "ratio", "low", "high", "goal", "rounds")
    ax = new_axes(ax, width=8.0, height=1.3 + 0.42 * len(table))
    places = range(len(table))
    ax.barh(places, table["ratio"] - 1, left=1, height=0.55, color=_BAR)
    for place, row in zip(places, table.itertuples(index=False), strict=True):
        ax.plot([row.low, row.high], [place, place], color=_SPREAD, linewidth=1.5)
        if pd.notna(row.goal):
            ax.plot([row.goal] * 2, [place - 0.38, place + 0.38], color=_GOAL, linewidth=2.5)
        # In a column of their own: beside the bars they would stand in the way of the goals.
        told = f" {row.ratio:.3g}" if place else " 1 (reference)"
        ax.text(1, place, told, va="center", transform=ax.get_yaxis_transform())
    ax.set_xscale("log")
    highest = max(table["high"].max(), table["goal"].max() if table["goal"].notna().any() else 1, 1)
    ax.set_xlim(min(0.5, 0.8 * table["low"].min()), 1.3 * highest)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(places, table["variant"])
    ax.invert_yaxis()
    ax.axvline(1, color=_SPREAD, linewidth=0.8)
    ax.set_title("Speed against the reference")
    ax.set_xlabel(f"times as fast as {table['variant'].iloc[0]}")
    notes = [f"median and quartiles of {table['rounds'].iloc[0]} rounds", "orange: goal"]
    if facts:
        notes.append(f"{facts['processor']}, {facts['cores']} cores, {facts['date']}")
    add_footer(ax, table, *notes)
    return ax
