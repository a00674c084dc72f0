"""What the numbers say of the claims, in sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fopro_lab.errors import InputError
from fopro_lab.plots.style import (
    GROUP_COLORS,
    add_footer,
    method_look,
    method_order,
    need,
    new_axes,
    points_formatter,
    with_interval,
    with_style,
)

if TYPE_CHECKING:
    from fopro_lab.evaluation.prior_shift import PriorShift


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
# A check on held-out images is drawn beside the term that drives the prompt.
_CHECKED = {"val_task": "task", "val_total": "total", "val_drift": "drift"}


@with_style
def plot_prompt_training(table: pd.DataFrame) -> Figure:
    """Draw every term of an exploration over its steps, one panel a term.

    Args:
        table: Of ``training.explore``: ``step``, then one column a term; ``val_...`` are checks on
            held-out images, NaN where there was none, ``kept`` marks the prompt that was kept.

    Returns:
        The figure; terms have different units, so no panel shares its y axis. Checks are points
        beside their term, a ring around the kept one.

    Raises:
        InputError: If there is no step or no term.

    Example:
        >>> table = pd.DataFrame({"step": [0, 1], "task": [2.0, 1.0], "log_gain": [0.0, 0.1]})
        >>> [ax.get_title(loc="left") for ax in plot_prompt_training(table).axes]
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
    told = "points: held-out images; ringed: the prompt that was kept" if checks else ""
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


@with_style
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


_GROUPS = ("head", "medium", "tail")
_ALL = "all classes"
_ROW = 0.21  # inches a dot with its number takes


@with_style
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


@with_style
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


@with_style
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
        ...     "varies": ["images and seeds"], "interval": ["bootstrap"]}))
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
    _set_title(ax, f"Against {baseline}, paired by image")
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
    ax.set_xlabel("Recall on test images, %")
    kinds = sorted(set(table["interval"]) - {"bootstrap", "none"})
    how = f"95 % intervals: bootstrap{''.join(f', {kind}' for kind in kinds)}"
    units = {"group": "whole lesions or patients drawn", "image": "images drawn"}
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


WHOLE = {
    "balanced_accuracy": "balanced\naccuracy",
    "accuracy": "accuracy\nunder the prior",
    "ece": "calibration\nerror (ECE)",
}
SPREAD = 0.62  # of the runs of one row
SHARES = "#999999"


def run_labels(shift: "PriorShift") -> list[str]:
    """Name each run by method and seed, and by its folder where these come twice.

    Args:
        shift: With the runs.

    Returns:
        A label a run.
    """
    labels = [f"{method_look(run.method)[2]}, seed {run.seed}" for run in shift.runs]
    return [
        label if labels.count(label) == 1 else f"{label} ({run.name})"
        for label, run in zip(labels, shift.runs, strict=True)
    ]


def prior_name(strength: float) -> str:
    """Name a prior.

    Example:
        >>> prior_name(-1), prior_name(0), prior_name(0.5)
        ('tail-heavy (-1.0)', 'balanced (0)', 'head-heavy (+0.5)')
    """
    if not strength:
        return "balanced (0)"
    return f"{'head' if strength > 0 else 'tail'}-heavy ({strength:+.1f})"


class PriorRows:
    """Points with intervals of some runs on three axes, which can be moved without a new figure.

    Args:
        axes: For the class recalls, the means and calibration, and the classes' shares.
        shift: With the runs.
    """

    def __init__(self, axes: Sequence[Axes], shift: "PriorShift") -> None:
        self.shift, self.axes = shift, axes
        sizes = shift.images.class_sizes()
        classes = [f"{name}  n={sizes[name]}" for name in shift.names]
        total = f"\nn={len(shift.images.labels)}"
        whole = [f"{label}{total if name == 'accuracy' else ''}" for name, label in WHOLE.items()]
        self.points: list[tuple[Line2D, LineCollection]] = []
        for ax, names in zip(axes[:2], (classes, whole), strict=True):
            self.points += [self._point(ax, place) for place in range(len(shift.runs))]
            _rows(ax, names)
            ax.set_xlim(-0.02, 1.02)
            ax.xaxis.set_major_formatter(points_formatter())
        axes[0].set_xlabel("Recall, % (95 % interval)")
        axes[1].set_xlabel("% (95 % interval)")
        (self.shares,) = axes[2].plot([], [], "o", color=SHARES, markersize=6)
        _rows(axes[2], [str(name) for name in shift.names])
        axes[2].set_xscale("log")
        axes[2].set_xlim(min(shift.prior(1.0).min(), shift.prior(-1.0).min()) * 70, 150)
        axes[2].set_xlabel("Share of the class in the test set, %")
        axes[2].tick_params(axis="y", labelsize=7)

    def artists(self) -> list[Any]:
        """List what moves."""
        return [*(artist for pair in self.points for artist in reversed(pair)), self.shares]

    def move(self, table: pd.DataFrame, strength: float) -> None:
        """Move all points.

        Args:
            table: Of `PriorShift.table`.
            strength: Of the prior.
        """
        runs = len(self.shift.runs)
        numbers = table[["value", "low", "high"]].to_numpy()
        of_class, of_run = (table["metric"] == "recall").to_numpy(), table["run"].to_numpy()
        for number, (line, bars) in enumerate(self.points):
            part = numbers[(of_run == number % runs) & (of_class == (number < runs))]
            rows = np.arange(len(part)) + self._offset(number % runs)
            line.set_data(part[:, 0], rows)
            bars.set_segments(list(np.stack([part[:, 1:], np.stack([rows, rows], axis=1)], axis=2)))
        shares = self.shift.prior(strength)[np.argsort(-self.shift.counts, kind="stable")]
        self.shares.set_data(100 * shares, np.arange(len(shares)))

    def _point(self, ax: Axes, place: int) -> tuple[Line2D, LineCollection]:
        run = self.shift.runs[place]
        color, marker, _ = method_look(run.method)
        twins = [each for each in self.shift.runs[:place] if each.method == run.method]
        face = "white" if len(twins) % 2 else color
        (line,) = ax.plot(
            [], [], marker, color=color, markerfacecolor=face, markersize=6,
            label=run_labels(self.shift)[place],
        )  # fmt: skip
        bars = LineCollection([], colors=color, linewidths=1.6)
        ax.add_collection(bars, autolim=False)
        return line, bars

    def _offset(self, place: int) -> float:
        count = len(self.shift.runs)
        return SPREAD * (place - (count - 1) / 2) / max(count, 2)


def prior_axes(figure: Figure) -> list[Axes]:
    """Lay out the three axes of `PriorRows`.

    Example:
        >>> len(prior_axes(Figure()))
        3
    """
    grid = figure.add_gridspec(2, 2, width_ratios=(1.35, 1), height_ratios=(1.25, 1))
    return [figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1])]


@with_style
def plot_priors(shift: "PriorShift", *, adjust: bool = True) -> Figure:
    """Draw all runs under a tail-heavy, a balanced and a head-heavy prior.

    Args:
        shift: With the runs.
        adjust: As of `PriorShift.table`.

    Returns:
        The figure: a column a prior, class recalls above, means and calibration below.

    Example:
        >>> from types import SimpleNamespace
        >>> from fopro_lab.evaluation.prior_shift import PriorShift
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...     "label": [0, 1], "logit_nv": [1.0, 0.0], "logit_df": [0.0, 1.0]})
        >>> run = SimpleNamespace(name="a", method="ce", seed=0, protocol="p", predictions=table,
        ...     config={"method": "ce"}, manifest={"class_counts": [9, 1]},
        ...     groups={"nv": "head", "df": "tail"})
        >>> len(plot_priors(PriorShift([run], resamples=10)).axes)
        9
    """
    rows = len(shift.names)
    figure, axes = plt.subplots(
        3, 3, figsize=(13, 4.8 + 0.36 * rows), layout="constrained", squeeze=False,
        height_ratios=(max(rows, 4), 4, 4),
    )  # fmt: skip
    for column, strength in enumerate((-1.0, 0.0, 1.0)):
        drawn = PriorRows(list(axes[:, column]), shift)
        drawn.move(shift.table(strength, adjust=adjust), strength)
        axes[0, column].set_title(prior_name(strength), loc="left")
    figure.legend(
        handles=[line for line, _ in drawn.points[: len(shift.runs)]],
        loc="outside upper left", ncols=4, fontsize=8,
    )  # fmt: skip
    figure.supxlabel(
        prior_footer(shift, adjust=adjust), fontsize=7, color="#777777", x=0.995, ha="right"
    )
    return figure


def prior_footer(shift: "PriorShift", *, adjust: bool) -> str:
    """Say what the numbers rest on: protocol, resamples and the priors of the probabilities.

    Args:
        shift: With the runs.
        adjust: As of `PriorShift.table`.

    Returns:
        One line.
    """
    kinds = sorted(set(shift.implicit))
    held = "  ·  ".join(
        f"{kind} prior: "
        + ", ".join(
            dict.fromkeys(
                run.method
                for run, own in zip(shift.runs, shift.implicit, strict=True)
                if own == kind
            )
        )
        for kind in kinds
    )
    done = "scaled to the prior, where theirs is known" if adjust else "as stored"
    unit = "lesions or patients" if shift.images.resampled == "group" else "images"
    return (
        f"{shift.runs[0].protocol}  ·  probabilities hold for the {held}; {done}  ·  "
        f"resampled: {unit}"
    )


def _rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


_NUMBERS = {  # title of a panel: scope, name and metric of the table
    "Balanced accuracy": ("overall", "all", "balanced_accuracy"),
    "Tail recall": ("group", "tail", "recall"),
}
_CLEAR = 0.05  # level of the corrected p-value


@with_style
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
        ...     "folds": 3, "varies": "images and seeds", "protocol": "toy/fold1+2+3"}))
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


_CLAIMS_CLEAR = 0.05  # level of the corrected p-value
_SAID = {("overall", "balanced_accuracy"): "balanced accuracy", ("group", "recall"): "tail recall"}


def claim_findings(claims: pd.DataFrame, distances: pd.DataFrame) -> list[str]:
    """Say of each pair and teacher what was found, hits and misses alike.

    Args:
        claims: Of ``evaluation.compare_teachers``.
        distances: Of ``probing.preference_distances``; empty if one teacher was asked.

    Returns:
        Sentences.

    Example:
        >>> claims = pd.DataFrame({"method": ["ekd"], "baseline": "bsm", "teacher": "builtin",
        ...     "student": "small", "scope": "overall", "name": "all", "metric":
        ...     "balanced_accuracy", "difference": 0.02, "low": -0.01, "high": 0.05,
        ...     "p_holm": 0.4})
        >>> print(claim_findings(claims, pd.DataFrame())[0])
        ekd against bsm, student small, balanced accuracy: higher for 0 of 1 teachers, lower for 0,
        undecided for 1: builtin +2.0 [-1.0, +5.0].
    """
    told = []
    kinds = claims[["scope", "metric"]].apply(tuple, axis=1)
    headline = claims[kinds.isin(list(_SAID)) & claims["name"].isin(["all", "tail"])]
    families = ["method", "baseline", "student", "scope", "metric"]
    for (method, baseline, student, scope, metric), rows in headline.groupby(families, sort=False):
        clear = rows["p_holm"] < _CLAIMS_CLEAR
        up, down = (int((clear & (rows["difference"] * sign > 0)).sum()) for sign in (1, -1))
        each = "; ".join(_told(row) for row in rows.to_dict("records"))
        told.append(
            f"{method} against {baseline}, student {student}, {_SAID[scope, metric]}: higher for "
            f"{up} of {len(rows)} teachers, lower for {down}, undecided for "
            f"{len(rows) - up - down}: {each}."
        )
    if len(distances):
        pairs = distances[distances["teacher"] != "all"]
        apart = int((pairs["p_holm"] < _CLAIMS_CLEAR).sum())
        told.append(
            f"Preferences differ, by more than two measurements of one teacher on other lesions "
            f"do, for {apart} of {len(pairs)} pairs of teachers."
        )
    return told


def _told(row: dict) -> str:
    value, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "low", "high"))
    return f"{row['teacher']} {value} [{low}, {high}]"
