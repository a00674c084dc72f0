"""Figures of the verdict: recall by class and by group, and differences to a baseline."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fopro_lab.errors import InputError
from fopro_lab.lab.figures.style import (
    GROUP_COLORS,
    add_footer,
    in_house_style,
    method_look,
    method_order,
    need,
    new_axes,
    points_formatter,
    with_interval,
)

_GROUPS = ("head", "medium", "tail")
_ALL = "all classes"
_ROW = 0.21  # inches a dot with its number takes


@in_house_style
def plot_class_recall(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw each class's recall with its 95 % interval, head to tail, one dot a method.

    Args:
        table: Of ``score``, or of ``score_runs`` for several methods.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; y runs over classes, x is recall in per cent.

    Raises:
        InputError: If a column or the class rows are missing.

    Example:
        >>> ax = plot_class_recall(pd.DataFrame({"scope": ["class"], "name": ["nv"],
        ...     "group": ["head"], "metric": ["recall"], "value": [0.5], "low": [0.4],
        ...     "high": [0.6], "n": [100], "k": [50.0], "interval": ["bootstrap"]}))
        >>> ax.get_yticklabels()[0].get_text()
        'nv  n=100'
    """
    need(table, "scope", "name", "group", "metric", "value", "low", "high", "n", "k", "interval")
    table = table[(table["scope"] == "class") & (table["metric"] == "recall")]
    need(table)
    rank = table["group"].map({group: place for place, group in enumerate(_GROUPS)})
    table = table.assign(rank=rank).sort_values("rank", kind="stable")
    classes = table.drop_duplicates("name")
    ax = _recall_axes(table, ax, lines=list(classes["name"]))
    ax.set_yticks(
        range(len(classes)),
        [f"{name}  n={n}" for name, n in zip(classes["name"], classes["n"], strict=True)],
    )
    for tick, group in zip(ax.get_yticklabels(), classes["group"], strict=True):
        tick.set_color(GROUP_COLORS[group])
    places = classes["group"].reset_index(drop=True)
    for group, rows in places.groupby(places, sort=False):
        first, last = rows.index[0] - 0.5, rows.index[-1] + 0.5
        color = GROUP_COLORS[str(group)]
        ax.axhspan(first, last, color=color, alpha=0.05, zorder=0, linewidth=0)
        ax.annotate(
            str(group),
            (1, (first + last) / 2),
            (5, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            rotation=270,
            va="center",
            color=color,
            fontweight="bold",
        )
    _set_title(ax, "Recall of each class")
    return ax


@in_house_style
def plot_group_recall(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw head, medium and tail recall and balanced accuracy with intervals, one dot a method.

    Args:
        table: Of ``score``, or of ``score_runs`` for several methods.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; y runs over groups, x is the mean class recall in per cent.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_group_recall(pd.DataFrame({"scope": ["group"], "name": ["tail"],
        ...     "metric": ["recall"], "value": [0.5], "low": [0.4], "high": [0.6], "n": [30],
        ...     "interval": ["bootstrap"]}))
        >>> ax.texts[0].get_text()
        '50 [40, 60]'
    """
    need(table, "scope", "name", "metric", "value", "low", "high", "n", "interval")
    table = _headline_rows(table)
    names = [name for name in (*_GROUPS, _ALL) if name in set(table["name"])]
    ax = _recall_axes(table, ax, lines=names, told=True)
    sizes = table.drop_duplicates("name").set_index("name")["n"]
    ax.set_yticks(range(len(names)), [f"{name}\nn={sizes[name]}" for name in names])
    for tick, name in zip(ax.get_yticklabels(), names, strict=True):
        tick.set_color(GROUP_COLORS.get(name, "#333333"))
    for place in range(1, len(names)):
        ax.axhline(place - 0.5, color="#D5D5D5", linewidth=0.8)
    _set_title(ax, "Mean class recall")
    return ax


@in_house_style
def plot_comparison(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    scopes: Sequence[str] = ("overall", "group"),
) -> Axes:
    """Draw differences to the baseline with their 95 % intervals and the line of no difference.

    Args:
        table: Of ``compare``.
        ax: Axes to draw into; None makes a figure.
        scopes: Which rows: "overall" (balanced accuracy), "group", "class".

    Returns:
        The axes; x is the difference in percentage points. A filled marker says that the
        interval leaves zero out.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_comparison(pd.DataFrame({"method": ["ekd"], "baseline": ["bsm"],
        ...     "scope": ["group"], "name": ["tail"], "group": [""], "metric": ["recall"],
        ...     "difference": [0.02], "low": [0.01], "high": [0.03], "n": [30], "seeds": [2],
        ...     "varies": ["pictures and seeds"], "interval": ["bootstrap"]}))
        >>> ax.texts[0].get_text()
        '+2.0 [+1.0, +3.0]'
    """
    columns = ("method", "baseline", "scope", "name", "group", "metric", "difference", "low")
    need(table, *columns, "high", "n", "seeds", "varies", "interval")
    parts = [_headline_rows(table, required=False)]
    parts.append(table[(table["scope"] == "class") & (table["metric"] == "recall")])
    table = pd.concat(parts)
    table = table[table["scope"].isin(list(scopes))]
    need(table)
    heads = [name for name in (*_GROUPS, _ALL) if name in set(table["name"])]
    ranked = table[table["scope"] == "class"]
    names = [*heads, *(name for name in dict.fromkeys(ranked["name"]))]
    methods = method_order(table["method"])
    ax = new_axes(ax, width=7.6, height=1.5 + _ROW * len(names) * (len(methods) + 0.6))
    for method, row, y in _placed(table, names, methods):
        color, marker, _ = method_look(method)
        clear = row["low"] > 0 or row["high"] < 0
        ax.plot([row["low"], row["high"]], [y, y], color=color, gid=f"interval {method}")
        face = color if clear else "white"
        ax.plot(row["difference"], y, marker, color=color, markerfacecolor=face, zorder=3)
        _tell(ax, y, with_interval(row["difference"], row["low"], row["high"], signed=True))
    ax.axvline(0, color="#333333", linewidth=1.2, zorder=1)
    _frame(ax, names, methods)
    sizes = table.drop_duplicates("name").set_index("name")["n"]
    ax.set_yticks(range(len(names)), [f"{name}  n={sizes[name]}" for name in names])
    groups = table.drop_duplicates("name").set_index("name")["group"]
    for tick, name in zip(ax.get_yticklabels(), names, strict=True):
        tick.set_color(GROUP_COLORS.get(name, GROUP_COLORS.get(groups[name], "#333333")))
    ax.margins(x=0.04)
    ax.xaxis.set_major_formatter(points_formatter(signed=True))
    baseline = method_look(str(table["baseline"].iloc[0]))[2]
    ax.set_xlabel("Difference in recall, percentage points")
    seeds = ", ".join(str(n) for n in sorted(set(table["seeds"])))
    _set_title(ax, f"Against {baseline}, paired by picture")
    notes = f"95 % intervals over {' / '.join(dict.fromkeys(table['varies']))}, seeds: {seeds}"
    add_footer(ax, table, notes, "filled: zero left out")
    return ax


def _headline_rows(table: pd.DataFrame, *, required: bool = True) -> pd.DataFrame:
    """Pick the recalls of groups and the balanced accuracy, called "all classes"."""
    groups = table[(table["scope"] == "group") & (table["metric"] == "recall")]
    whole = table[table["metric"] == "balanced_accuracy"].assign(name=_ALL)
    if required and groups.empty and whole.empty:
        raise InputError("table: expected rows of scope 'group' or the balanced accuracy, got none")
    return pd.concat([groups, whole])


def _placed(
    table: pd.DataFrame, names: Sequence[str], methods: Sequence[str]
) -> list[tuple[str, pd.Series, float]]:
    """Give every row of the table its height: methods side by side around their line."""
    keyed = table.assign(method=table["method"] if "method" in table else "")
    step = 0.8 / len(methods)
    offsets = (np.arange(len(methods)) - (len(methods) - 1) / 2) * step
    return [
        (str(row["method"]), row, names.index(row["name"]) + offsets[methods.index(row["method"])])
        for _, row in keyed.iterrows()
    ]


def _recall_axes(
    table: pd.DataFrame, ax: Axes | None, *, lines: Sequence[str], told: bool = False
) -> Axes:
    """Draw dots and intervals of recalls; ``told`` writes each number beside the axes."""
    methods = method_order(table["method"]) if "method" in table else [""]
    row = _ROW if told else 0.75 * _ROW  # dots alone may stand closer
    ax = new_axes(ax, width=7.6, height=1.5 + row * len(lines) * max(1.6, len(methods) + 0.4))
    for method, row, y in _placed(table, lines, methods):
        color, marker, _ = method_look(method) if method else (*method_look("bsm")[:2], "")
        ax.plot([row["low"], row["high"]], [y, y], color=color, gid=f"interval {method}")
        ax.plot(row["value"], y, marker, color=color, markeredgecolor="white", zorder=3)
        if told:
            _tell(ax, y, with_interval(row["value"], row["low"], row["high"]))
        elif 0 < row["n"] < 10:
            _tell(ax, y, f"{row['k']:.3g}/{row['n']}", offset=26)  # beside the group's name
    _frame(ax, lines, methods)
    ax.set_xlim(-0.02, 1.02)
    ax.xaxis.set_major_formatter(points_formatter())
    ax.set_xlabel("Recall on test pictures, %")
    kinds = sorted(set(table["interval"]) - {"bootstrap", "none"})
    how = f"95 % intervals: bootstrap{''.join(f', {kind}' for kind in kinds)}"
    units = {"group": "whole lesions or patients drawn", "image": "pictures drawn"}
    drawn = [units[u] for u in table["resampled"].unique()] if "resampled" in table else []
    seeds = sorted(set(table["seeds"])) if "seeds" in table else []
    told_seeds = [f"mean of {'/'.join(map(str, seeds))} seeds"] if max(seeds, default=1) > 1 else []
    add_footer(ax, table, how, *drawn, *told_seeds)
    return ax


def _tell(ax: Axes, y: float, text: str, *, offset: float = 7) -> None:
    """Write a number at the height ``y``, ``offset`` points right of the axes."""
    ax.annotate(
        text,
        (1, y),
        (offset, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        ha="left",
        fontsize=8,
        color="#444444",
    )


def _frame(ax: Axes, lines: Sequence[str], methods: Sequence[str]) -> None:
    """Set the height, the grid, and a legend above the axes where methods differ."""
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    if methods == [""]:
        return
    looks = [method_look(method) for method in methods]
    handles = [Line2D([], [], color=c, marker=m, label=text) for c, m, text in looks]
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.995),
        ncols=len(handles),
        borderaxespad=0,
        columnspacing=1.2,
        handlelength=1.4,
    )


def _set_title(ax: Axes, text: str) -> None:
    """Set the title, above the legend where there is one."""
    ax.set_title(text, pad=26 if ax.get_legend() else 9)
