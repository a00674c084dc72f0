"""Figures of trained methods: histories, recalls, paired differences, priors and claims."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fopro_lab.evaluation import is_clear, method_label, with_interval
from fopro_lab.evaluation.bootstrap import resampled
from fopro_lab.evaluation.paper_tables import FOUND, rows_of
from fopro_lab.evaluation.prior_shift import PriorShift
from fopro_lab.evaluation.scores import GROUPS
from fopro_lab.plots import style

_ALL = "all classes"
_ROW = 0.21  # inches that a dot with its number takes
_FEW = 5  # methods that a legend names; more are named beside their numbers
_MEANS = ("balanced\naccuracy", "accuracy\nunder the prior", "calibration\nerror (ECE)")
_PRIORS = {-1.0: ", tail-heavy", 0.0: ", balanced", 1.0: ", as in training"}


@style.with_style
def plot_history(table: pd.DataFrame) -> Figure:
    """Draw loss and validation balanced accuracy over epochs, one line per method and seed.

    Methods of several runs have a thick line for their mean over thin ones of the runs.

    ``table``: histories of runs below each other, with ``method`` and ``seed``; ``kept`` is true of
    the epoch that was kept, which is marked. Without it, the best one on validation is.
    """
    style.need(table, "method seed epoch loss val_balanced_accuracy")
    table = table.reset_index(drop=True)  # histories below each other repeat their row numbers
    methods = style.method_order(table["method"])
    looks = {method: style.method_look(method) for method in methods}
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.5), sharex=True)
    colors = {"hue": "method", "hue_order": methods, "palette": [c for c, *_ in looks.values()]}
    several = table.groupby("method")["seed"].nunique().max() > 1
    runs = {"linewidth": 0.6, "alpha": 0.35} if several else {"linewidth": 1.4, "alpha": 0.85}
    for ax, value in zip(panels, ("loss", "val_balanced_accuracy"), strict=True):
        common = {"data": table, "x": "epoch", "y": value, "ax": ax, "legend": False, **colors}
        sns.lineplot(**common, **runs, units="seed", estimator=None)
        if several:
            sns.lineplot(**common, linewidth=1.8, errorbar=None)
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    best = table.groupby(["method", "seed"])["val_balanced_accuracy"].idxmax()
    rows, which = (table["kept"] == 1, "kept") if "kept" in table else (best, "best")
    for method, own in table.loc[rows].groupby("method"):
        color, marker, _ = looks[str(method)]
        points = {"color": color, "markeredgecolor": "white", "label": f"{which} epoch {method}"}
        panels[1].plot(own["epoch"], own["val_balanced_accuracy"], marker, **points)
    panels[0].set(ylabel="Training loss, nats", title="Loss")
    if 0 < 20 * table["loss"].min() < table["loss"].max():
        panels[0].set_yscale("log")
    panels[1].yaxis.set_major_formatter(style.points_formatter())
    panels[1].set(ylabel="Balanced accuracy, %", title=f"Validation, {which} epoch marked")
    _add_legend(figure, methods)
    style.add_footer(panels[0], table, "the losses of different methods differ in their terms")
    return figure


@style.with_style
def plot_class_recall(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw each class's recall with its 95 % interval, head to tail, one dot per method.

    k/n is written for a class of fewer than ten images.

    ``table``: of ``score``, or of ``score_runs`` for several methods.
    """
    style.need(table, "scope name group metric value low high n k interval")
    table = table[(table["scope"] == "class") & (table["metric"] == "recall")]
    style.need(table)
    table = table.sort_values("group", key=lambda group: group.map(GROUPS.index), kind="stable")
    classes = table.drop_duplicates("name").reset_index(drop=True)
    labels = [f"{row['name']}  n={row['n']}" for row in classes.to_dict("records")]
    names = list(classes["name"])
    ax = _draw_recalls(table, ax, "Recall of each class", names=names, labels=labels)
    style.color_group_labels(ax, list(classes["group"]))
    for group, rows in classes.groupby("group", sort=False):
        first, last = rows.index[0] - 0.5, rows.index[-1] + 0.5
        color = style.GROUP_COLORS[str(group)]
        ax.axhspan(first, last, color=color, alpha=0.05, zorder=0, linewidth=0)
        style.write_beside(ax, (first + last) / 2, str(group), color=color, fontweight="bold")
    return ax


@style.with_style
def plot_group_recall(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw head, medium and tail recall and balanced accuracy with intervals, a dot per method.

    ``table``: of ``score``, or of ``score_runs`` for several methods.
    """
    style.need(table, "scope name metric value low high n interval")
    table = _headline_rows(table)
    style.need(table)
    sizes = table.drop_duplicates("name").set_index("name")["n"]
    names = [name for name in (*GROUPS, _ALL) if name in sizes]
    labels = [f"{name}\nn={sizes[name]}" for name in names]
    ax = _draw_recalls(table, ax, "Mean class recall", names=names, labels=labels, numbers=True)
    style.color_group_labels(ax, names)
    for place in range(1, len(names)):
        ax.axhline(place - 0.5, color="#D5D5D5", linewidth=0.8)
    return ax


@style.with_style
def plot_comparison(
    table: pd.DataFrame, *, ax: Axes | None = None, scopes: Sequence[str] = ("overall", "group")
) -> Axes:
    """Draw differences to the baseline with their 95 % intervals; filled is one that excludes 0.

    A pale bar is the standard deviation of the difference over seeds.

    ``table``: of ``compare``; ``scopes``: "overall" (balanced accuracy), "group", "class".
    """
    style.need(table, "method baseline scope name group metric difference low high n seeds varies")
    methods = _ranked(table, "difference")
    of_classes = table[(table["scope"] == "class") & (table["metric"] == "recall")]
    table = pd.concat([_headline_rows(table), of_classes])
    table = table[table["scope"].isin(list(scopes))]
    style.need(table)
    first = table.drop_duplicates("name").set_index("name")
    heads = [name for name in (*GROUPS, _ALL) if name in first.index]
    names = [*heads, *first.index[first["scope"] == "class"]]
    labels = [f"{name}  n={first.loc[name, 'n']}" for name in names]
    height = 1.5 + _ROW * len(names) * (len(methods) + 0.6)
    ax = style.new_axes(ax, width=7.6 + style.room(labels), height=height)
    for method, row, y in _placed(table, names, methods):
        _draw_difference(ax, y, row, method, _name_beside(method, methods), filled=is_clear(row))
    style.label_rows(ax, labels)
    style.color_group_labels(ax, [first.loc[name, "group"] or name for name in names])
    _style_differences(ax)
    _add_legend(style.figure_of(ax), methods if len(methods) <= _FEW else [])
    ax.set_title(f"Against {style.method_look(str(table['baseline'].iloc[0]))[2]}, paired by image")
    seeds = ", ".join(str(n) for n in sorted(set(table["seeds"])))
    notes = f"95 % intervals over {' / '.join(dict.fromkeys(table['varies']))}, seeds: {seeds}"
    style.add_footer(ax, table, notes, "filled: zero excluded; pale: SD over seeds")
    return ax


def _ranked(table: pd.DataFrame, value: str) -> list[str]:
    """List few methods in their fixed order, many by balanced accuracy, the best first."""
    methods = style.method_order(table["method"]) if "method" in table else [""]
    if len(methods) > _FEW:
        whole = table[table["metric"] == "balanced_accuracy"].set_index("method")[value]
        methods.sort(key=lambda name: -whole.get(name, 0))
    return methods


def _headline_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Pick the recalls of groups and the balanced accuracy, called "all classes"."""
    groups = table[(table["scope"] == "group") & (table["metric"] == "recall")]
    return pd.concat([groups, table[table["metric"] == "balanced_accuracy"].assign(name=_ALL)])


def _placed(
    table: pd.DataFrame, names: Sequence[str], methods: Sequence[str]
) -> Iterator[tuple[str, dict[Any, Any], float]]:
    """Give every row of the table its height: methods side by side around their line."""
    step = 0.8 / len(methods)
    for row in table.to_dict("records"):
        method = str(row.get("method", ""))
        offset = step * (methods.index(method) - (len(methods) - 1) / 2)
        yield method, row, names.index(row["name"]) + offset


def _name_beside(method: str, methods: Sequence[str]) -> str:
    return f"   {style.method_look(method)[2]}" if len(methods) > _FEW else ""


def _draw_difference(
    ax: Axes, y: float, row: Mapping[Any, Any], method: str, about: str, *, filled: bool
) -> None:
    """Draw a difference, its interval and, where known, its SD over seeds; its number beside."""
    _draw_interval(ax, y, row, value="difference", method=method, filled=filled)
    if not np.isnan(spread := row.get("seed_sd", np.nan)):
        ends = [row["difference"] - spread, row["difference"] + spread]
        look: dict[str, Any] = {"linewidth": 7, "alpha": 0.22, "solid_capstyle": "butt"}
        ax.plot(ends, [y, y], color=style.method_look(method)[0], label="_SD over seeds", **look)
    number = with_interval(row["difference"], row["low"], row["high"], signed=True)
    style.write_beside(ax, y, number + about)


def _style_differences(ax: Axes) -> None:
    ax.axvline(0, color="#333333", linewidth=1.2, zorder=1)
    ax.margins(x=0.04)
    ax.xaxis.set_major_formatter(style.points_formatter(signed=True))
    ax.set_xlabel("Difference, percentage points")


def _draw_interval(
    ax: Axes, y: float, row: Mapping[Any, Any], *, value: str, method: str, filled: bool = True
) -> None:
    """Draw a value and its interval at a height, in the look of its method."""
    color, marker, _ = style.method_look(method)
    ax.plot([row["low"], row["high"]], [y, y], color=color, gid=f"interval {method}")
    look: dict[str, Any] = {"markerfacecolor": color if filled else "white", "zorder": 3}
    ax.plot(row[value], y, marker, color=color, markeredgecolor=color, **look)


def _draw_recalls(
    table: pd.DataFrame,
    ax: Axes | None,
    title: str,
    *,
    names: Sequence[str],
    labels: Sequence[str],
    numbers: bool = False,
) -> Axes:
    """Draw dots and intervals of recalls, with each number beside the axes if wanted."""
    methods = _ranked(table, "value")
    step = _ROW if numbers else 0.75 * _ROW  # dots alone need less room
    height = 1.5 + step * len(names) * max(1.6, len(methods) + 0.4)
    ax = style.new_axes(ax, width=7.6 + style.room(labels), height=height)
    for method, row, y in _placed(table, names, methods):
        _draw_interval(ax, y, row, value="value", method=method or "bsm")
        low, n = row["low"], row["n"]
        if numbers:
            counted = pd.isna(low) and pd.notna(row.get("k"))
            text = with_interval(row["value"], low, row["high"])
            text = f"{row['k']:.3g}/{n} (no interval)" if counted else text
            style.write_beside(ax, y, text + _name_beside(method, methods))
        elif 0 < n < 10:
            style.write_beside(ax, y, f"{row['k']:.3g}/{n}", offset=52)  # beside the group's name
    named = "method" in table and not (numbers and len(methods) > _FEW)
    ax.set_title(title)
    _add_legend(style.figure_of(ax), methods if named else [])
    style.label_rows(ax, labels)
    ax.set(xlim=(-0.02, 1.02), xlabel="Recall on test images, %")
    ax.xaxis.set_major_formatter(style.points_formatter())
    kinds = sorted(kind for kind in set(table["interval"]) if not kind.startswith("none"))
    how = f"95 % intervals: {', '.join(kinds) or 'none'}"
    units = {"group": "whole lesions or patients drawn", "image": "images drawn"}
    drawn = [units[u] for u in table["resampled"].unique()] if "resampled" in table else []
    seeds = sorted(set(table["seeds"])) if "seeds" in table else []
    averaged = f"mean of {'/'.join(map(str, seeds))} seeds" if max(seeds, default=1) > 1 else ""
    style.add_footer(ax, table, how, *drawn, averaged)
    return ax


@style.with_style
def plot_slopes(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw one line per method through its recalls of head, medium and tail.

    ``table``: of ``score_runs``.
    """
    style.need(table, "protocol method scope name metric value n")
    table = table[(table["scope"] == "group") & (table["metric"] == "recall")]
    style.need(table)
    names = [name for name in GROUPS if name in set(table["name"])]
    values = table.pivot(index=["protocol", "method"], columns="name", values="value")
    values = values[names].sort_values(names[-1])
    ax = style.new_axes(ax, width=7, height=max(4, 0.5 + 0.3 * len(values)))
    step = 0.055 * max(np.ptp(values.to_numpy()), 0.02)  # that labels are apart
    height = -np.inf
    for (_, method), row in values.iterrows():
        color, marker, label = style.method_look(method)
        ax.plot(range(len(names)), row, marker=marker, color=color, linewidth=1.4, label=label)
        height = max(height + step, row.iloc[-1])
        style.write_beside(ax, height, f"{label}  {100 * row.iloc[-1]:.1f}", color=color)
    sizes = table.groupby("name")["n"].max()
    ax.set_xticks(range(len(names)), [f"{name}, n={sizes[name]}" for name in names])
    ax.set(xlim=(-0.15, len(names) - 0.9), ylabel="Mean class recall, %", title="From head to tail")
    ax.yaxis.set_major_formatter(style.points_formatter())
    style.add_footer(ax, table, f"numbers: {names[-1]}; intervals are in the figure of groups")
    return ax


@style.with_style
def plot_cost(table: pd.DataFrame) -> Figure:
    """Draw accuracy beside its cost, a row per method, the best on top.

    ``table``: of ``summarise``, of one protocol.
    """
    shown = {
        "train_seconds": ("Training, minutes", 60),
        "parameters": ("Parameters, millions", 1e6),
    }
    style.need(table, f"method n balanced_accuracy tail {' '.join(shown)}")
    table = table.sort_values("balanced_accuracy", ascending=False, ignore_index=True)
    labels = [style.method_look(method)[2] for method in table["method"]]
    size = (8.4 + style.room(labels), 1.5 + 0.34 * len(table))
    ratios = {"width_ratios": (2, 1, 1)}
    figure, (levels, *costs) = plt.subplots(1, 3, figsize=size, sharey=True, gridspec_kw=ratios)
    for name, offset in (("balanced_accuracy", -0.12), ("tail", 0.16)):
        for y, row in enumerate(table.to_dict("records")):
            own = {"low": row[f"{name}_low"], "high": row[f"{name}_high"], name: row[name]}
            look = {"value": name, "method": row["method"], "filled": name != "tail"}
            _draw_interval(levels, y + offset, own, **look)
    levels.xaxis.set_major_formatter(style.points_formatter())
    levels.set_title(f"Balanced accuracy, n={table['n'].max()}; hollow: tail recall", fontsize=9)
    levels.set_xlabel("%, with 95 % interval")
    for ax, (name, (label, unit)) in zip(costs, shown.items(), strict=True):
        bars = ax.barh(table.index, table[name].fillna(0) / unit, height=0.6, color="#BBBBBB")
        texts = ["n/a" if pd.isna(value) else f"{value / unit:.3g}" for value in table[name]]
        ax.bar_label(bars, texts, padding=3, fontsize=8)
        ax.margins(x=0.3)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(label)
    style.label_rows(levels, labels)
    style.figure_title(figure, "Accuracy and cost")
    style.add_footer(levels, table, "time: of the processor, all epochs; on a GPU wall clock")
    return figure


@style.with_style
def plot_changes(table: pd.DataFrame, images: np.ndarray, maps: Sequence[Any] = ()) -> Figure:
    """Show each image, its log amplitudes, both students' attribution, and Grad-CAM if any.

    Takes what ``use.explain_changes`` returns.
    """
    style.need(table, "image class group method answered low high attribution")
    count, wide = len(images), [1, 1, 2.8, *[1] * len(maps)]
    size = (1.7 * sum(wide) + 0.6, 1.55 * count + 0.9)
    figure, axes = plt.subplots(count, len(wide), figsize=size, width_ratios=wide, squeeze=False)
    for place, (_, own) in enumerate(table.groupby("image", sort=False)):
        image, (first, plane, ax, *others), said = images[place], axes[place], list[str]()
        spectrum = np.fft.fftshift(np.fft.fft2(image.mean(axis=2) - image.mean()))
        style.draw_plane(plane, np.log1p(np.abs(spectrum)), down=True, cmap="magma")
        for number, (method, part) in enumerate(own.groupby("method", sort=False)):
            color, marker, label = style.method_look(str(method))
            look: dict[str, Any] = {"marker": marker, "markersize": 4, "label": label}
            style.ring_line(ax, part, "attribution", color=color, **look)
            said.append(f"{label} says {part['answered'].iloc[0]}")
            for panel, drawn in zip(others[number : number + 1], maps[number:], strict=False):
                look = {"cmap": "inferno", "alpha": 0.5, "extent": (0, 1, 1, 0), "zorder": 2}
                panel.imshow(drawn[place], vmin=0, vmax=1, **look)
                axes[-1, 3 + number].set_xlabel(f"Grad-CAM,\n{label}", fontsize=8)
        for panel in (first, *others):
            panel.imshow(image, extent=(0, 1, 1, 0))
        plane.set(xlabel="", ylabel="")
        for panel in (first, plane, *others):
            panel.set(xticks=[], yticks=[])
        ax.axhline(0, color="#333333", linewidth=1, zorder=1)
        style.ring_axis(ax, own["high"])
        ax.set(ylabel="Slope, logit", xlabel=ax.get_xlabel() if place == count - 1 else "")
        title = textwrap.fill(f"{own['class'].iloc[0]}: {', '.join(said)}", 60)
        ax.set_title(title, fontsize=8, color=style.GROUP_COLORS.get(own["group"].iloc[0]))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    style.figure_title(figure, "What changed, and where in frequency")
    about = f"n={count} images, chosen for their change: no interval"
    style.add_footer(ax, table, about, "slope of the true class's logit in the gain of each ring")
    return figure


@style.with_style
def plot_all_pairs(table: pd.DataFrame) -> Figure:
    """Draw who beats whom: each row's method minus each column's, the best on top.

    A bold number in a frame has a p-value, corrected over all pairs, below 0.05.

    ``table``: of ``compare_all``.
    """
    style.need(table, "method baseline scope name metric difference p_holm n seeds folds")
    mean = rows_of(table, "balanced_accuracy").groupby("method")["difference"].mean()
    methods = list(mean.sort_values(ascending=False).index)
    labels = [style.method_look(method)[2] for method in methods]
    side = 1.2 + 0.45 * len(methods)
    shown = _claimed(table)
    down = len(shown) if len(methods) > _FEW else 1  # side by side, many would be too small
    size = (2 / down * side + 1.4 + style.room(labels), down * (side + 0.9 + style.room(labels)))
    shape = (down, len(shown) // down)
    figure, panels = plt.subplots(*shape, figsize=size, sharey="row", squeeze=False)
    for ax, (title, rows) in zip(panels.flat, shown.items(), strict=True):
        own = rows.pivot(index="method", columns="baseline")
        square = {"index": methods, "columns": methods}
        cells, p = (own[name].reindex(**square) for name in ("difference", "p_holm"))
        most = max(float(np.nanmax(np.abs(cells.to_numpy()), initial=0)), 0.01)
        colors = {"cmap": "PuOr_r", "vmin": -1.3 * most, "vmax": 1.3 * most}
        style.draw_matrix(ax, cells, (100 * cells).map("{:+.1f}".format), p < 0.05, **colors)
        ax.set_xticks(range(len(methods)), labels, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(methods)), labels)
        ax.set_title(f"{title}, n={rows['n'].max()}")
    style.figure_title(figure, "Row minus column, percentage points")
    pairs = rows_of(table, "balanced_accuracy")["p_holm"].notna().sum() // 2
    trained = f"seeds: {table['seeds'].min()}, folds: {table['folds'].min()}"
    note = f"framed: p < 0.05 after Holm over {pairs} pairs; intervals are in the table of pairs"
    style.add_footer(panels[0, 0], table, trained, note)
    return figure


def _add_legend(figure: Figure, methods: Sequence[str]) -> None:
    """Name the methods, if any, above all axes."""
    looks = [style.method_look(method) for method in methods]
    handles = [Line2D([], [], color=c, marker=m, label=text) for c, m, text in looks]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=3)


def run_labels(shift: PriorShift) -> list[str]:
    """Name each run by method and seed, and by its folder where these occur twice."""
    labels = [f"{style.shown(method_label(r.method))}, seed {r.seed}" for r in shift.runs]
    return [
        label if labels.count(label) == 1 else f"{label} ({style.shown(run.name)})"
        for label, run in zip(labels, shift.runs, strict=True)
    ]


@style.with_style
def plot_priors(
    shift: PriorShift, *, strengths: Sequence[float] = (*_PRIORS,), adjust: bool = True
) -> Figure:
    """Draw recalls and means of all runs under priors, a row for each, with the classes' shares."""
    sizes, methods = shift.images.class_sizes(), [run.method for run in shift.runs]
    means = [_MEANS[0], f"{_MEANS[1]}\nn={len(shift.images.labels)}", _MEANS[2]]
    size = (9.5, 0.8 + (1.1 + 0.36 * max(len(sizes), 5)) * len(strengths))
    ratios: dict[str, Any] = {"width_ratios": (1.5, 1), "squeeze": False}
    figure, axes = plt.subplots(len(strengths), 2, figsize=size, **ratios)
    for levels, strength in zip(axes, strengths, strict=True):
        table = shift.table(strength, adjust=adjust)
        prior = dict(zip(shift.images.names, shift.prior(strength), strict=True))
        labels = [f"{style.shown(n)}, {prior[n]:.1%}, n={sizes[n]}" for n in shift.names]
        parts = table[table["metric"] == "recall"], table[table["metric"] != "recall"]
        for ax, part, names in zip(levels, parts, (labels, means), strict=True):
            for place, method in enumerate(methods):
                own, (color, marker, _) = part[part["run"] == place], style.method_look(method)
                twin = methods[:place].count(method) % 2  # hollow
                y = np.arange(len(own)) + 0.62 * ((place + 0.5) / len(methods) - 0.5)
                ax.hlines(y, own["low"], own["high"], color=color, lw=1.6)
                ax.plot(own["value"], y, marker, color=color, mfc="white" if twin else color)
            style.label_rows(ax, names)
            ax.set(xlim=(-0.02, 1.02), xlabel="% (95 % interval)")
            ax.xaxis.set_major_formatter(style.points_formatter())
        name = _PRIORS.get(round(strength, 3), "")
        levels[0].set_title(f"Recall at s = {round(strength, 3):+g}{name}")
    figure.legend(levels[0].lines, run_labels(shift), loc="outside upper left", ncols=3, fontsize=8)
    style.add_footer(axes[0, 0], pd.DataFrame(), prior_footer(shift, adjust=adjust))
    return figure


def prior_footer(shift: PriorShift, *, adjust: bool) -> str:
    """Say what the numbers rest on: protocol, priors of the probabilities, what is resampled."""
    of_kind = pd.Series([run.method for run in shift.runs]).groupby(shift.implicit).unique()
    held = "  ·  ".join(f"{kind} prior: {', '.join(names)}" for kind, names in of_kind.items())
    done = "scaled to the prior, where theirs is known" if adjust else "as stored"
    drawn = resampled(shift.images.labels, shift.images.units)
    unit = "lesions or patients" if drawn == "group" else "images"
    about = f"probabilities hold for the {held}; {done}"
    return f"{shift.runs[0].protocol}  ·  {about}  ·  resampled: {unit}"


def _claimed(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Pick, by the title of their panel, the rows of the numbers that findings are about."""
    return {title: rows for name, title in FOUND.items() if len(rows := rows_of(table, name))}


@style.with_style
def plot_claim(table: pd.DataFrame) -> Figure:
    """Draw what one method adds to another, for each teacher, overall and in the tail.

    A filled marker says that the p-value, corrected for the number of teachers, is below 0.05.

    ``table``: rows of one pair of methods of ``evaluation.compare_teachers``.
    """
    style.need(table, "teacher student method baseline scope name metric n seeds folds varies")
    style.need(table, "protocol method_value baseline_value difference low high p_holm")
    panels = _claimed(table)
    rows = table.drop_duplicates(["student", "teacher", "protocol"]).to_dict("records")
    size = (7.4 + style.room(table["teacher"]), 1.1 + len(panels) * (0.8 + 0.6 * len(rows)))
    figure, axes = plt.subplots(len(panels), 1, sharex=True, squeeze=False, figsize=size)
    students = ["" if r["student"] == "small" else f"\nstudent {r['student']}" for r in rows]
    labels = [f"{r['teacher']}{student}" for r, student in zip(rows, students, strict=True)]
    for ax, (title, part) in zip(axes[:, 0], panels.items(), strict=True):
        for place, row in enumerate(part.to_dict("records")):
            levels = f"{100 * row['baseline_value']:.1f} → {100 * row['method_value']:.1f} %"
            about, clear = f"\n{levels}, n={row['n']:,}", row["p_holm"] < 0.05
            _draw_difference(ax, place, row, str(row["method"]), about, filled=clear)
        style.label_rows(ax, labels)
        _style_differences(ax)
        ax.set_title(title)
        ax.label_outer()
    pair = (str(table[name].iloc[0]) for name in ("method", "baseline"))
    ours, theirs = (style.method_look(method)[2] for method in pair)
    style.figure_title(figure, f"{ours} against {theirs}, by teacher")
    trained = f"seeds: {table['seeds'].min()}, folds: {table['folds'].min()}"
    notes = f"95 % intervals over {' / '.join(dict.fromkeys(table['varies']))}, {trained}"
    style.add_footer(axes[-1, 0], table, notes, "filled: p < 0.05 after Holm; pale: SD over seeds")
    return figure
