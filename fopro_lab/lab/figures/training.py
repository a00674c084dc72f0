"""Figures of training: how exploration drove the prompt, how the students learnt."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fopro_lab.errors import InputError
from fopro_lab.lab.figures.style import (
    add_footer,
    in_house_style,
    method_look,
    method_order,
    need,
    points_formatter,
)

_TERMS = {
    "statistics": "Distance from natural statistics",
    "confidence": "Entropy of the teacher's head, nats",
    "task": "Task loss of a linear head, nats",
    "disagreement": "Minus student-teacher distance",
    "identity": "Mean (log gain)²",
    "total": "Weighted sum",
    "log_gain": "Mean |log gain|",
    "drift": "Drift of the teacher, mean 1 - cos",
    "val_balanced_accuracy": "Balanced accuracy, held out",
}
_DRIVING = ("statistics", "confidence", "task", "disagreement", "identity")
# A check on held-out pictures is drawn beside the term that drives the prompt.
_CHECKED = {"val_task": "task", "val_total": "total", "val_drift": "drift"}


@in_house_style
def plot_exploration(table: pd.DataFrame) -> Figure:
    """Draw every term of an exploration over its steps, one panel a term.

    Args:
        table: Of ``training.explore``: ``step``, then one column a term; ``val_...`` are checks on
            held-out pictures, NaN where there was none, ``kept`` marks the prompt that was kept.

    Returns:
        The figure; terms have different units, so no panel shares its y axis. Checks are points
        beside their term, a ring around the kept one.

    Raises:
        InputError: If there is no step or no term.

    Example:
        >>> table = pd.DataFrame({"step": [0, 1], "task": [2.0, 1.0], "log_gain": [0.0, 0.1]})
        >>> [ax.get_title(loc="left") for ax in plot_exploration(table).axes]
        ['Task loss of a linear head, nats', 'Mean |log gain|']
    """
    need(table, "step")
    terms = _panels(table)
    if not terms:
        raise InputError("table: expected a column for at least one term, got only 'step'")
    across = min(3, len(terms))
    rows = -(-len(terms) // across)
    size = (max(4.2, 2.9 * across), 2.1 * rows + 0.5)
    figure, panels = plt.subplots(rows, across, figsize=size, squeeze=False, sharex=True)
    checks = {term: name for name, term in _CHECKED.items() if name in table}
    for ax, term in zip(panels.flat, terms, strict=False):
        color = "#D55E00" if term in _DRIVING else "#333333"
        if term in table and not term.startswith("val_"):
            ax.plot(table["step"], table[term], color=color)
        name = term if term.startswith("val_") else checks.get(term, "")
        if name:
            _plot_checks(ax, table, name)
        ax.set_title(_TERMS.get(term, term), fontsize=9.5)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    for ax in panels.flat[len(terms) :]:
        ax.remove()
    for place, ax in enumerate(panels.flat[: len(terms)]):
        if place + across >= len(terms):
            ax.set_xlabel("Prompt step")
            ax.tick_params(labelbottom=True)
    told = "points: held-out pictures; ringed: the prompt that was kept" if checks else ""
    add_footer(panels.flat[0], table, *([told] if told else []))
    return figure


def _panels(table: pd.DataFrame) -> list[str]:
    """List the terms to draw: a check has the panel of its term, or one of its own."""
    numbers = [str(c) for c in table if pd.api.types.is_numeric_dtype(table[c])]
    terms = [name for name in numbers if name not in ("step", "kept", *_CHECKED)]
    missing = [term for name, term in _CHECKED.items() if name in numbers and term not in terms]
    return [*terms, *missing]


def _plot_checks(ax: Axes, table: pd.DataFrame, name: str) -> None:
    checked = table[table[name].notna()]
    ax.plot(checked["step"], checked[name], "o", color="#0072B2", markersize=4, ls=":", lw=1)
    if "kept" in checked:
        kept = checked[checked["kept"] == 1]
        ax.plot(kept["step"], kept[name], "o", color="#0072B2", markersize=9, fillstyle="none")


@in_house_style
def plot_history(table: pd.DataFrame) -> Figure:
    """Draw loss and validation balanced accuracy over epochs, one line a method and seed.

    Args:
        table: Histories of runs below each other: ``method``, ``seed``, ``epoch``, ``loss``,
            ``val_balanced_accuracy``.

    Returns:
        The figure: the loss left, the accuracy right, its best epoch marked.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> table = pd.DataFrame({"method": "ekd", "seed": 0, "epoch": [1, 2],
        ...                       "loss": [2.0, 1.0], "val_balanced_accuracy": [0.3, 0.4]})
        >>> plot_history(table).axes[1].get_ylabel()
        'Balanced accuracy, %'
    """
    need(table, "method", "seed", "epoch", "loss", "val_balanced_accuracy")
    table = table.reset_index(drop=True)  # histories below each other repeat their row numbers
    methods = method_order(table["method"])
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.5), sharex=True)
    looks = {method: method_look(method) for method in methods}
    for ax, value in zip(panels, ("loss", "val_balanced_accuracy"), strict=True):
        sns.lineplot(
            table,
            x="epoch",
            y=value,
            hue="method",
            hue_order=methods,
            palette=[looks[method][0] for method in methods],
            units="seed",
            estimator=None,
            linewidth=1.4,
            alpha=0.85,
            legend=False,
            ax=ax,
        )
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    best = table.loc[table.groupby(["method", "seed"])["val_balanced_accuracy"].idxmax()]
    for method, own in best.groupby("method"):
        color, marker, _ = looks[str(method)]
        panels[1].plot(
            own["epoch"],
            own["val_balanced_accuracy"],
            marker,
            color=color,
            markeredgecolor="white",
            label=f"best epoch {method}",
        )
    panels[0].set_ylabel("Training loss, nats")
    panels[0].set_title("Loss")
    panels[1].set_ylabel("Balanced accuracy, %")
    panels[1].yaxis.set_major_formatter(points_formatter())
    panels[1].set_title("Validation, best epoch marked")
    handles = [
        plt.Line2D([], [], color=color, marker=marker, label=label)
        for color, marker, label in looks.values()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    add_footer(panels[0], table, "the losses of different methods differ in their terms")
    return figure
