"""Figures of a teacher's frequencies: responses, class bands, heat maps, ladders, preferences."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.plots.style import (
    DASHED,
    GROUP_COLORS,
    add_footer,
    color_bar,
    color_group_labels,
    draw_plane,
    label_plane,
    legend_beside,
    need,
    new_axes,
    points_formatter,
    ring_axis,
    ring_centres,
    with_style,
    write_beside,
)

_DAMPED, _AMPLIFIED = ("#332288", "#0072B2", "#56B4E9"), ("#E69F00", "#D55E00", "#882255")
_CHANNELS = {"red": "#CC3311", "green": "#228833", "blue": "#4477AA"}
_MARKERS = "oD^sv<>P"
_PER_ENERGY = "Drift of features / energy changed"


@with_style
def plot_ring_response(
    table: pd.DataFrame, *, ax: Axes | None = None, normalised: bool = False
) -> Axes:
    """Draw how far features move when one frequency ring is scaled, one line per gain.

    Damping is dashed, amplifying solid.

    Args:
        table: Of ``probing.ring_response``; of channels one by one only "all" is drawn.
        normalised: Show the drift per relative energy changed, on a logarithmic axis.
        ax: Axes to draw into; None makes a figure.
    """
    value = "drift_per_energy" if normalised else "drift"
    need(table, "low", "high", "gain", value, "n")
    table = table[table["channel"] == "all"] if "channel" in table else table
    gains = sorted(table["gain"].unique())
    damped = [gain for gain in gains if gain < 1]
    looks = [{"color": _DAMPED[place % 3], "ls": DASHED} for place in range(len(damped))]
    looks += [{"color": _AMPLIFIED[place % 3]} for place in range(len(gains) - len(damped))]
    lines = [
        (gain_label(g), table[table["gain"] == g], k) for g, k in zip(gains, looks, strict=True)
    ]
    ax = _draw_lines(ax, table, lines, value)
    if normalised:
        ax.set(yscale="log", ylabel=_PER_ENERGY)
    else:
        ax.set_ylim(bottom=0)
        ax.set_ylabel("Drift of features, 1 - cos")
    ax.set_title("Ring response" + " for each unit of energy" * normalised)
    ax.legend(loc="upper right" if table["high"].max() <= 0.5 else "best")
    return ax


@with_style
def plot_channel_response(
    table: pd.DataFrame, *, gain: float = 0.0, ax: Axes | None = None
) -> Axes:
    """Draw the drift per energy of red, green and blue, scaled one by one, for one gain.

    Args:
        table: Of ``probing.ring_response`` with ``per_channel``.
        gain: Which.
        ax: Axes to draw into; None makes a figure.
    """
    need(table, "channel", "low", "high", "gain", "drift_per_energy", "n")
    table = table[table["channel"].isin(list(_CHANNELS)) & (table["gain"] == gain)]
    need(table, "channel")
    lines = [(c, table[table["channel"] == c], {"color": color}) for c, color in _CHANNELS.items()]
    ax = _draw_lines(ax, table, lines, "drift_per_energy")
    ax.set(yscale="log", ylabel=_PER_ENERGY)
    ax.set_title(f"Ring response of each colour, {gain_label(gain)}")
    ax.legend(loc="best")
    return ax


@with_style
def plot_teacher_responses(
    table: pd.DataFrame, *, gain: float = 0.0, ax: Axes | None = None
) -> Axes:
    """Overlay the shapes of several teachers' ring responses, for one gain.

    Each is relative to the teacher's geometric mean over the rings: 2 is twice its average ring.

    Args:
        table: ``responses`` of ``probing.compare_cards``.
        gain: Which.
        ax: Axes to draw into; None makes a figure.
    """
    need(table, "teacher", "low", "high", "gain", "relative", "relative_low", "relative_high")
    table = table[table["gain"] == gain]
    need(table, "n")
    lines = [
        (name, table[table["teacher"] == name], {"color": f"C{k % 8}", "marker": _MARKERS[k % 8]})
        for k, name in enumerate(dict.fromkeys(table["teacher"]))
    ]
    ax = _draw_lines(ax, table, lines, "relative")
    ax.axhline(1, color="#333333", linewidth=1, zorder=1)
    ax.set(yscale="log", ylabel="Drift / energy changed,\nrelative to the teacher's mean ring")
    ax.set_title(f"Preferences of teachers, ring {gain_label(gain)}")
    legend_beside(ax)
    return ax


def _draw_lines(
    ax: Axes | None,
    table: pd.DataFrame,
    lines: Sequence[tuple[str, pd.DataFrame, dict[str, Any]]],
    value: str,
) -> Axes:
    """Draw lines over the rings by label, rows and look, each with its interval if it has one."""
    ax = new_axes(ax)
    for label, rows, look in lines:
        own = rows.sort_values("low")
        x = ring_centres(own)
        ax.plot(x, own[value], label=label, markersize=4.5, **{"marker": "o", **look})
        if f"{value}_low" in own:
            band = (own[f"{value}_low"], own[f"{value}_high"])
            ax.fill_between(x, *band, color=look["color"], alpha=0.15, linewidth=0)
    ring_axis(ax, table["high"])
    add_footer(ax, table, f"n={table['n'].max():,} images", "bands: 95 % bootstrap intervals")
    return ax


def gain_label(gain: float) -> str:
    """Say what a gain does to a ring: 0 is 'removed'."""
    return "removed" if gain == 0 else rf"amplitude $\times$ {gain:g}"


@with_style
def plot_class_bands(
    table: pd.DataFrame, *, ax: Axes | None = None, gain: float | None = None
) -> Axes:
    """Draw the change of each class's recall when one frequency ring is scaled, as a heat map.

    A framed, bold number says that the 95 % interval excludes zero, a star that the change also
    survives the correction for all cells.

    Args:
        table: Of ``probing.class_band_matrix``.
        gain: Which gain; None takes the only one.
        ax: Axes to draw into; None makes a figure.
    """
    need(table, "scope", "name", "group", "low", "high", "gain", "change", "change_low")
    need(table, "change_high", "n")
    gains = sorted(table["gain"].unique())
    gain = gains[0] if gain is None and len(gains) == 1 else gain
    if gain not in gains:
        raise InputError(
            f"gain: expected one of {', '.join(map('{:g}'.format, gains))}, got {gain}"
        )
    table = table[table["gain"] == gain]
    lines, rings = list(dict.fromkeys(table["name"])), sorted(set(table["low"]))
    cells = table.pivot(index="name", columns="low", values="change").loc[lines, rings]
    bound = max(0.05, float(np.nanmax(np.abs(cells.to_numpy()), initial=0)))
    width, height = 1.9 + 0.62 * max(8, len(rings)), 1.7 + 0.34 * len(lines)
    ax = new_axes(ax, width=width, height=height)
    image = ax.imshow(100 * cells, cmap="RdBu", vmin=-100 * bound, vmax=100 * bound, aspect="auto")
    color_bar(ax, image, "Change of recall, points")
    for row in table[table["change"].notna()].to_dict("records"):
        x, y = rings.index(row["low"]), lines.index(row["name"])
        clear = row["change_low"] > 0 or row["change_high"] < 0
        text = f"{round(100 * row['change']):+d}".replace("+0", "0")
        text += "*" if row.get("survives", False) else ""
        color = "#222222" if clear else "#666666"
        color = "white" if abs(row["change"]) > 0.6 * bound else color
        weight = "bold" if clear else "normal"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color=color, fontweight=weight)
        if clear:
            look: dict[str, Any] = {"fill": False, "edgecolor": "#222222", "lw": 1.1, "zorder": 3}
            ax.add_patch(plt.Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, **look))
    first = table.drop_duplicates("name").set_index("name").loc[lines]
    ax.set_yticks(range(len(lines)), [f"{name}  n={first.loc[name, 'n']}" for name in lines])
    color_group_labels(ax, [group or name for name, group in first["group"].items()])
    classes = int((first["scope"] == "class").sum())
    if 0 < classes < len(lines):  # part the classes from their means
        ax.axhline(classes - 0.5, color="white", linewidth=5, zorder=1)
    edges = table.drop_duplicates("low").sort_values("low")[["low", "high"]].to_numpy()
    labels = [f"{low:.2f} to {high:.2f}" for low, high in edges]
    ax.set_xticks(range(len(labels)), labels, fontsize=8, rotation=30, ha="right")
    ax.set_xlabel("Frequency ring, cycles per pixel")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)
    what = "removed" if gain == 0 else f"scaled by {gain:g}"
    ax.set_title(f"Recall when a ring is {what}" + _classifier(table, ", by the "))
    notes = ["frame: zero outside the 95 % interval"]
    if "survives" in table:
        of = int(table.loc[table["scope"] == "class", "cells"].max())
        notes.append(f"*: survives Holm over {of} cells")
    add_footer(ax, table, *notes)
    return ax


def _classifier(table: pd.DataFrame, by: str) -> str:
    """Say by what the images were classified, nothing where the table does not."""
    return by + "/".join(table["classifier"].unique()) if "classifier" in table else ""


@with_style
def plot_teacher_bands(table: pd.DataFrame, *, gain: float = 0.0) -> Figure:
    """Draw the class x band matrices of several teachers in a row, with one scale of colours.

    Args:
        table: ``bands`` of ``probing.compare_cards``.
        gain: Which.
    """
    need(table, "teacher", "change", "gain", "low", "name")
    names = list(dict.fromkeys(table["teacher"]))
    width = 2.2 + 0.56 * max(8, table["low"].nunique())
    size = (width * len(names), 1.9 + 0.34 * table["name"].nunique())
    figure, grid = plt.subplots(1, len(names), squeeze=False, figsize=size)
    shown = table.loc[table["gain"] == gain, "change"].abs()
    bound = 100 * max(0.05, shown.max())  # NaN, of no row, is never the larger one
    for ax, name in zip(grid[0], names, strict=True):
        plot_class_bands(table[table["teacher"] == name], ax=ax, gain=gain)
        ax.images[0].set_clim(-bound, bound)
        ax.set_title(f"{name}: ring {gain_label(gain)}")
    return figure


@with_style
def plot_heat_map(
    plane: np.ndarray, table: pd.DataFrame, *, value: str = "drift", ax: Axes | None = None
) -> Axes:
    """Show a heat map over the whole plane of frequencies, zero frequency in the middle.

    Args:
        plane: ``(H, W)`` in ``fftshift`` order, of ``probing.heat_plane``; NaN is left white.
        table: Of ``probing.basis_heat_map``, of one classifier.
        value: What the plane holds: "drift" or "error".
        ax: Axes to draw into; None makes a figure.
    """
    need(table, "n", "size", "classifier", value)
    if plane.ndim != 2:
        raise ShapeError(f"plane: expected (H, W), got {tuple(plane.shape)}")
    first = table.iloc[0]
    notes = [f"n={first['n']} images", f"waves of norm {first['size']:g}, both signs"]
    label, what = "Drift of features, 1 - cos", "drift of features"
    if value == "error":
        notes.append(f"unchanged: {100 * first['clean_error']:.0f} % wrong")
        label, what = "Error rate", f"error rate of the {first['classifier']}"
    ax = new_axes(ax, width=5.4, height=4.4)
    colors = {"cmap": "magma", "vmin": np.nanmin(plane), "vmax": np.nanmax(plane)}
    image = draw_plane(ax, plane, down=True, **colors)
    label_plane(ax)
    color_bar(ax, image, label, width=0.045)
    ax.set_title(f"Fourier basis heat map, {what}")
    add_footer(ax, table, *notes)
    return ax


_ORDER = ("head", "medium", "tail", "all")
_MARKS = {"head": "o", "medium": "D", "tail": "^", "all": "s"}
_KINDS = {
    "untouched": "untouched",
    "phase": "own phase,\nmean amplitude",
    "phase-flat": "own phase,\nflat amplitude",
    "amplitude": "own amplitude,\nrandom phase",
}


def _group_rows(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, dict[str, str]]]:
    """Split the rows of groups and of all classes: name, rows, and how they are drawn."""
    found = []
    for name in _ORDER:
        own = table[(table["name"] == name) & (table["scope"] != "class")]
        if len(own):
            label = f"{'all classes' if name == 'all' else name}  n={own['n'].max():,}"
            color = GROUP_COLORS.get(name, GROUP_COLORS[""])
            found.append((name, own, {"color": color, "marker": _MARKS[name], "label": label}))
    return found


@with_style
def plot_ladder(table: pd.DataFrame) -> Figure:
    """Draw recalls of groups against the cut-off, low-pass and high-pass; dashed is untouched.

    ``table``: of ``probing.pass_ladder``, of one classifier.
    """
    need(table, "scope", "name", "kind", "cutoff", "recall", "recall_low", "recall_high", "n")
    kinds = [kind for kind in ("low-pass", "high-pass") if kind in set(table["kind"])]
    size = (4.6 * len(kinds), 3.7)
    figure, axes = plt.subplots(1, len(kinds), sharey=True, squeeze=False, figsize=size)
    for ax, kind in zip(axes[0], kinds, strict=True):
        for _, own, look in _group_rows(table[table["kind"] == kind].sort_values("cutoff")):
            ax.plot(own["cutoff"], own["recall"], **look)
            band = (own["recall_low"], own["recall_high"])
            ax.fill_between(own["cutoff"], *band, color=look["color"], alpha=0.12, linewidth=0)
            clean = own["clean_recall"].iloc[0]
            ax.axhline(clean, color=look["color"], linewidth=1, ls=DASHED, zorder=1)
        ax.set_title(f"{kind}: what is {'below' if kind == 'low-pass' else 'above'} is kept")
        ax.set(xlabel="Cut-off, cycles per pixel", xlim=(0, None), ylim=(0, 1))
        ax.yaxis.set_major_formatter(points_formatter())
    axes[0, 0].set_ylabel("Mean recall of classes, %")
    legend_beside(axes[0, -1])
    notes = (_classifier(table, "classified by the "), "dashed: untouched")
    add_footer(axes[0, 0], table, *notes, "bands: 95 % intervals")
    return figure


@with_style
def plot_phases(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the recall of each group on images with their phases or amplitudes alone.

    ``table``: of ``probing.phase_and_amplitude``, of one classifier.
    """
    need(table, "scope", "name", "kind", "recall", "recall_low", "recall_high", "n")
    kinds = [kind for kind in _KINDS if kind == "untouched" or kind in set(table["kind"])]
    ax = new_axes(ax, height=3.8)
    groups = _group_rows(table)
    for place, (_, own, look) in enumerate(groups):
        shift = 0.14 * (place - (len(groups) - 1) / 2)
        clean = own["clean_recall"].iloc[0]
        ax.plot(shift, clean, ls="", markerfacecolor="white", **look)  # type: ignore[arg-type]
        look["label"] = ""
        rows = own.set_index("kind")
        for x, kind in enumerate(kinds[1:], start=1):
            ends = [rows.loc[kind, "recall_low"], rows.loc[kind, "recall_high"]]
            ax.plot([x + shift] * 2, ends, color=look["color"], lw=1.6)
            ax.plot(x + shift, rows.loc[kind, "recall"], ls="", **look)  # type: ignore[arg-type]
    ax.set_xticks(range(len(kinds)), [_KINDS[kind] for kind in kinds])
    ax.grid(axis="x", visible=False)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(points_formatter())
    ax.set_ylabel("Mean recall of classes, %")
    ax.set_title("Phase or amplitude: which of them tells the classes apart")
    legend_beside(ax)
    notes = (_classifier(table, "classified by the "), "bars: 95 % intervals")
    add_footer(ax, table, *notes, "colour and brightness are kept")
    return ax


_TARGETS = {
    ("source", "all"): ("source", "#D55E00", "o", "-"),
    ("source", "each class"): ("source, within each class", "#D55E00", "o", (0, (2, 1.5))),
    ("class", "all"): ("class", "#0072B2", "^", "-"),
    ("class", "each source"): ("class, within each source", "#0072B2", "^", (0, (2, 1.5))),
}


@with_style
def plot_fingerprint(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far above chance each ring alone predicts the source and the class.

    From chance, 0, to perfect, 1, so that two and eight classes compare. The point at the right
    end is all rings together; a hollow mark is not above 95 % of permutations.

    ``table``: of ``probing.source_fingerprint``.
    """
    need(table, "target", "within", "ring", "low", "high", "accuracy", "accuracy_low")
    need(table, "accuracy_high", "chance", "permuted_high", "n")
    ax = new_axes(ax, height=4.2)
    top = float(table["high"].max())
    found = set(zip(table["target"], table["within"], strict=True))
    targets = [key for key in _TARGETS if key in found]
    for place, key in enumerate(targets):
        label, color, mark, style = _TARGETS[key]
        own = table[(table["target"] == key[0]) & (table["within"] == key[1])]
        rings, whole = own[own["ring"] >= 0].sort_values("ring"), own[own["ring"] < 0]
        x, end = ring_centres(rings), whole["low"] * 0 + top * (1.08 + 0.012 * place)
        label = f"{label}  n={own['n'].max():,}"
        ax.plot(x, _skill(rings, "accuracy"), mark, color=color, ls=style, ms=5, label=label)
        band = (_skill(rings, "accuracy_low"), _skill(rings, "accuracy_high"))
        ax.fill_between(x, *band, color=color, alpha=0.12, linewidth=0)
        limits = (_skill(whole, "accuracy_low"), _skill(whole, "accuracy_high"))
        ax.vlines(end, *limits, color=color, lw=1.4)
        for part, at in ((rings, x), (whole, end)):
            sure = part["accuracy"] > part["permuted_high"]
            for clear, face in ((sure, color), (~sure, "white")):
                value = _skill(part[clear], "accuracy")
                ax.plot(at[clear], value, mark, color=color, markerfacecolor=face, markersize=5)
    ax.axhline(0, color="#333333", linewidth=1, zorder=1)
    ax.axvline(1.03 * top, color="#BBBBBB", linewidth=0.8)
    ring_axis(ax, table["high"])
    ax.set_xlim(0, 1.15 * top)
    ticks = [tick / 10 for tick in range(8) if tick / 10 <= top]
    middle = top * (1.08 + 0.006 * (len(targets) - 1))
    ax.set_xticks([*ticks, middle], [*(f"{tick:g}" for tick in ticks), "all\nrings"])
    ax.set_ylim(min(-0.15, float(_skill(table, "accuracy_low").min())), 1.05)
    ax.set_ylabel("Balanced accuracy,\n0 is chance, 1 perfect")
    ax.set_title("What the energy of one ring predicts")
    legend_beside(ax)
    hollow = "hollow: not above 95 % of permutations"
    apart = "cross-validated, lesions kept apart"
    add_footer(ax, table, "bands: 95 % intervals", hollow, apart)
    return ax


def _skill(table: pd.DataFrame, column: str) -> pd.Series:
    return (table[column] - table["chance"]) / (1 - table["chance"])


@with_style
def plot_preferences(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far apart teachers' preferences are, filled, and one teacher's on other images.

    ``table``: of ``probing.preference_distances``, one row per pair.
    """
    need(table, "teacher", "other", "between", "within", "difference", "difference_low")
    need(table, "difference_high", "p", "n", "units")
    ax = new_axes(ax, width=8.2, height=1.9 + 0.42 * len(table))
    labels = []
    for place, row in enumerate(table.to_dict("records")):
        every = row["teacher"] == "all"
        labels.append("mean of all pairs" if every else f"{row['teacher']},\n{row['other']}")
        color = GROUP_COLORS[""] if every else "#0072B2"
        ends = [row["within"], row["between"]]
        ax.plot(ends, [place, place], color=color, alpha=0.35, lw=2, zorder=1)
        for x, face, whose in zip(ends, ("white", color), ("same", "other"), strict=True):
            label = None if place else f"{whose} teacher, other images"
            ax.plot(x, place, "o", color=color, markerfacecolor=face, label=label)
        interval = f"[{row['difference_low']:+.2f}, {row['difference_high']:+.2f}]"
        write_beside(ax, place, f"{row['difference']:+.2f} {interval}, p={row['p']:.3f}")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(0, 1.08 * float(table[["between", "within"]].max().max()))
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("Distance of preferences, root mean square of log ratios")
    ax.set_title("Teachers against measurements of one teacher")
    ax.figure.legend(loc="outside upper right", ncols=2)
    lesions = f"n={table['n'].max():,} images of {table['units'].max():,} lesions"
    add_footer(ax, table, lesions, "right: difference, 95 % interval")
    return ax


@with_style
def plot_control(table: pd.DataFrame, gains: pd.DataFrame, *, images: int) -> Figure:
    """Draw what each gain is worth behind a known low-pass, and the gains over the inverse filter.

    ``table``: of ``probing.control.control_table``; ``gains``: of ``gain_profiles``, of one split;
    ``images``: tested in a split.
    """
    need(table, "split", "input", "gain", "balanced_accuracy", "low", "high", "drift")
    need(gains, "gain", "frequency", "factor", "split")
    figure, (ax, side) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    keys = [("clean", "none"), *(("degraded", name) for name in _GAINS)]
    splits = list(dict.fromkeys(table["split"]))
    for number, (split, marker) in enumerate(zip(splits, "osD^vP" * len(splits), strict=False)):
        own = table[table["split"] == split].set_index(["input", "gain"])
        for place, key in enumerate(keys):
            x = place + 0.18 * (number - (len(splits) - 1) / 2)
            color = _GAINS[key[1]] if key[0] == "degraded" else "black"
            ax.plot([x, x], own.loc[key, ["low", "high"]].astype(float), color=color, lw=1.6)
            label = f"split {split}" if not place else ""
            ax.plot(x, own.loc[key, "balanced_accuracy"], marker, color=color, label=label)
    names = [name if given == "degraded" else "clean images" for given, name in keys]
    ax.set_xticks(range(len(keys)), names, rotation=30, ha="right")
    ax.grid(axis="x", visible=False)
    ax.yaxis.set_major_formatter(points_formatter())
    ax.set_ylabel("Balanced accuracy, %")
    ax.legend()
    ax.set_title("Linear probe behind a low-pass and each gain")
    add_footer(
        ax, table, f"n={images:,} test images in a split", "bars: 95 % intervals over lesions"
    )
    for name, own in gains.groupby("gain", sort=False):
        style = {"color": _GAINS[str(name)], "label": str(name)}
        side.plot(own["frequency"], own["factor"], lw=3 if name == "inverse" else 1.4, **style)
    side.set(xscale="log", yscale="log", ylabel="Gain of the amplitude")
    side.set_xlabel("Horizontal frequency, cycles per pixel")
    side.set_title(f"The gains of split {gains['split'].iloc[0]}")
    side.legend()
    return figure


_GAINS = {
    "none": "#777777",
    "inverse": "#000000",
    "reference": "#0072B2",
    "natural": "#56B4E9",
    "learned": "#D55E00",
    "random": "#CC79A7",
}
