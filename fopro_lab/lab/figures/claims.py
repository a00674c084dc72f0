"""Figures of the claims: one pair of methods, teacher by teacher."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fopro_lab.lab.figures.style import (
    add_footer,
    in_house_style,
    method_look,
    need,
    points_formatter,
    with_interval,
)

_NUMBERS = {  # title of a panel: scope, name and metric of the table
    "Balanced accuracy": ("overall", "all", "balanced_accuracy"),
    "Tail recall": ("group", "tail", "recall"),
}
_CLEAR = 0.05  # level of the corrected p-value


@in_house_style
def plot_claim(table: pd.DataFrame) -> Figure:
    """Draw what one method adds to another, for each teacher, overall and in the tail.

    Args:
        table: Rows of one pair of methods of ``evaluation.compare_teachers``.

    Returns:
        The figure: one panel for balanced accuracy and one for tail recall, a row a teacher;
        x is the difference in percentage points with its 95 % interval. A filled marker says that
        the p-value, corrected for the number of teachers, is below 0.05.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> figure = plot_claim(pd.DataFrame({"teacher": ["builtin"], "student": "small",
        ...     "method": "ekd", "baseline": "bsm", "scope": ["overall"], "name": ["all"],
        ...     "metric": ["balanced_accuracy"], "method_value": 0.43, "baseline_value": 0.41,
        ...     "difference": 0.02, "low": 0.01, "high": 0.03, "p_holm": 0.01, "n": 90, "seeds": 3,
        ...     "folds": 3, "varies": "pictures and seeds", "protocol": "toy/fold1+2+3"}))
        >>> figure.axes[0].texts[0].get_text()
        '+2.0 [+1.0, +3.0]'
    """
    need(table, "teacher", "student", "method", "baseline", "scope", "name", "metric", "n")
    need(table, "method_value", "baseline_value", "difference", "low", "high", "p_holm")
    need(table, "seeds", "folds", "varies", "protocol")
    keys = table[["scope", "name", "metric"]].apply(tuple, axis=1)
    panels = {title: table[keys == key] for title, key in _NUMBERS.items() if (keys == key).any()}
    rows = table.drop_duplicates(["student", "teacher", "protocol"])
    labels = [_label(row.teacher, row.student) for row in rows.itertuples()]
    figure, axes = plt.subplots(
        1, len(panels), sharey=True, squeeze=False, figsize=(10.5, 1.9 + 0.6 * len(rows))
    )
    for ax, (title, part) in zip(axes[0], panels.items(), strict=True):
        _draw_panel(ax, part, title)
    axes[0][0].set_yticks(range(len(labels)), labels)
    axes[0][0].set_ylim(len(labels) - 0.4, -0.7)
    ours, theirs = (method_look(str(table[name].iloc[0]))[2] for name in ("method", "baseline"))
    figure.suptitle(f"{ours} against {theirs}, by teacher", x=0.01, ha="left", fontweight="bold")
    trained = f"seeds: {table['seeds'].min()}, folds: {table['folds'].min()}"
    notes = f"95 % intervals over {' / '.join(dict.fromkeys(table['varies']))}, {trained}"
    protocols = "  ·  ".join(map(str, table["protocol"].unique()))
    add_footer(axes[0][0], table[["n"]], f"{protocols}\n{notes}", "filled: p < 0.05 after Holm")
    return figure


def _draw_panel(ax: Axes, part: pd.DataFrame, title: str) -> None:
    for place, row in enumerate(part.to_dict("records")):
        color, marker, _ = method_look(str(row["method"]))
        face = color if row["p_holm"] < _CLEAR else "white"
        ax.plot([row["low"], row["high"]], [place, place], color=color)
        ax.plot(row["difference"], place, marker, color=color, markerfacecolor=face, zorder=3)
        told = with_interval(row["difference"], row["low"], row["high"], signed=True)
        _write(ax, told, row["difference"], place - 0.16, above=True)
        levels = f"{100 * row['baseline_value']:.1f} → {100 * row['method_value']:.1f} %"
        _write(ax, f"{levels}, n={row['n']:,}", row["difference"], place + 0.14, above=False)
    ax.axvline(0, color="#333333", linewidth=1.2, zorder=1)
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    ax.xaxis.set_major_formatter(points_formatter(signed=True))
    ax.set_title(title)
    ax.set_xlabel("Difference, percentage points")


def _write(ax: Axes, text: str, x: float, y: float, *, above: bool) -> None:
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="bottom" if above else "top",
        fontsize=8.5 if above else 7.5,
        color="#222222" if above else "#666666",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        zorder=2,
    )


def _label(teacher: str, student: str) -> str:
    return teacher if student == "small" else f"{teacher}\nstudent {student}"
