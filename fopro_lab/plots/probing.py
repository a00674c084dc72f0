"""Figures of a teacher's frequencies: responses, class bands, heat maps, preferences."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.plots import style

_DAMPED, _AMPLIFIED = ("#332288", "#0072B2", "#56B4E9"), ("#E69F00", "#D55E00", "#882255")
_MARKERS = "oD^sv<>P"
_SEVERITIES = {  # what a degradation's number is
    "low-pass": "Cutoff, cycles per pixel",
    "sharpening": "Strength",
    "contrast": "Factor of amplitudes",
    "noise": "Standard deviation",
}
_GAINS = {"none": "#777777", "inverse": "#000000", "reference": "#0072B2",
          "natural": "#56B4E9", "learned": "#D55E00", "contrast": "#A68A00",
          "random": "#CC79A7"}  # fmt: skip


@style.with_style
def plot_ring_response(
    table: pd.DataFrame, *, ax: Axes | None = None, normalised: bool = False
) -> Axes:
    """Draw how far features move when one frequency ring is scaled, one line per gain.

    Damping is dashed, amplifying solid. ``table``: of ``probing.ring_response``; ``normalised``
    takes the drift per relative energy changed.
    """
    value = "drift_per_energy" if normalised else "drift"
    style.need(table, f"low high gain {value} n")
    gains = sorted(table["gain"].unique())
    damped = [gain for gain in gains if gain < 1]
    looks = [{"color": _DAMPED[place % 3], "ls": style.DASHED} for place in range(len(damped))]
    looks += [{"color": _AMPLIFIED[place % 3]} for place in range(len(gains) - len(damped))]
    parts = [(gain_label(gain), table[table["gain"] == gain]) for gain in gains]
    ax = _draw_rings(style.new_axes(ax), parts, value, looks)
    if normalised:
        style.log_axis(ax)
        ax.set_ylabel("Drift of features / energy changed")
    else:
        ax.set(ylim=(0, None), ylabel="Drift of features, 1 - cos")
    ax.set_title("Ring response" + " for each unit of energy" * normalised)
    ax.legend(loc="upper right" if table["high"].max() <= 0.5 else "best")
    return ax


@style.with_style
def plot_teacher_responses(
    table: pd.DataFrame, *, gain: float = 0.0, ax: Axes | None = None
) -> Axes:
    """Overlay the shapes of several teachers' ring responses, for one gain.

    Each is relative to the teacher's geometric mean over the rings: 2 is twice its average ring.

    ``table``: ``responses`` of ``probing.compare_cards``.
    """
    style.need(table, "teacher low high gain relative relative_low relative_high n")
    table = table[table["gain"] == gain]
    style.need(table)
    names = list(dict.fromkeys(table["teacher"]))
    parts = [(name, table[table["teacher"] == name]) for name in names]
    looks = [{"color": f"C{k % 8}", "marker": _MARKERS[k % 8]} for k in range(len(names))]
    ax = _draw_rings(style.new_axes(ax, width=7 + style.room(names)), parts, "relative", looks)
    ax.axhline(1, color="#333333", linewidth=1, zorder=1)
    style.log_axis(ax)
    ax.set_ylabel("Drift / energy changed,\nrelative to the teacher's mean ring")
    ax.set_title(f"Preferences of teachers, ring {gain_label(gain)}")
    style.legend_beside(ax)
    return ax


@style.with_style
def plot_teacher_glyphs(table: pd.DataFrame, *, gain: float = 0.0) -> Figure:
    """Draw each teacher's preference as one small disc of frequency rings, in a fixed scale.

    Colour is the drift per energy changed relative to the teacher's geometric mean over the rings,
    from an eighth to eight times, in every figure alike.

    ``table``: of ``probing.ring_response`` with a column ``teacher``, or ``responses`` of
    ``probing.compare_cards``.
    """
    value = "relative" if "relative" in table else "drift_per_energy"
    style.need(table, f"teacher low high gain {value}")
    table = table[table["gain"] == gain]
    style.need(table)
    teachers = list(table.groupby("teacher", sort=False))
    figure, axes = style.panels(len(teachers), columns=len(teachers), wide=1.75, tall=2.0)
    radius = np.hypot(*np.mgrid[-0.5:0.5:129j, -0.5:0.5:129j])
    for ax, (name, own) in zip(axes, teachers, strict=True):
        own = own.sort_values("low")
        octaves = np.log2(own[value].to_numpy().clip(1e-12))
        ring = np.searchsorted(own["high"], radius).clip(max=len(own) - 1)
        image = ax.imshow((octaves - octaves.mean())[ring], cmap="PuOr_r", vmin=-3, vmax=3)
        ax.set_title(textwrap.fill(str(name), 20), fontsize=9, loc="center")
        ax.axis("off")
    bar = figure.colorbar(image, ax=axes, ticks=[-3, 0, 3], shrink=0.8)
    bar.ax.set_yticklabels(["1/8", "mean", "8 x"], fontsize=8)
    return figure


def _draw_rings(
    ax: Axes, parts: Sequence[tuple[str, pd.DataFrame]], value: str, looks: Sequence[dict[str, Any]]
) -> Axes:
    """Draw a line over the rings for each label and rows, in its look."""
    for (label, rows), look in zip(parts, looks, strict=True):
        style.ring_line(ax, rows, value, label=label, markersize=4.5, **{"marker": "o", **look})
    table = pd.concat([rows for _, rows in parts])
    style.ring_axis(ax, table["high"])
    style.add_footer(ax, table, f"n={table['n'].max():,} images", "bands: 95 % bootstrap intervals")
    return ax


def gain_label(gain: float) -> str:
    """Say what a gain does to a ring: 0 is 'removed'."""
    return "removed" if gain == 0 else rf"amplitude $\times$ {gain:g}"


@style.with_style
def plot_class_bands(
    table: pd.DataFrame, *, ax: Axes | None = None, gain: float | None = None
) -> Axes:
    """Draw the change of each class's recall when one frequency ring is scaled, as a heat map.

    A framed, bold number says that the 95 % interval excludes zero, a star that the change also
    survives the correction for all cells.

    ``table``: of ``probing.class_band_matrix``; a ``gain`` of None takes the only one.
    """
    style.need(table, "scope name group low high gain change change_low change_high n")
    gains = sorted(table["gain"].unique())
    gain = gains[0] if gain is None and len(gains) == 1 else gain
    if gain not in gains:
        known = ", ".join(map("{:g}".format, gains))
        raise InputError(f"gain: expected one of {known}, got {gain}")
    table = table[table["gain"] == gain]
    lines = list(dict.fromkeys(table["name"]))
    wide = table.pivot(index="name", columns="low").loc[lines]  # rings by frequency
    cells, clear = 100 * wide["change"], (wide["change_low"] > 0) | (wide["change_high"] < 0)
    texts = cells.map("{:+.0f}".format).replace({"+0": "0", "-0": "0"})
    texts += np.where(wide["survives"].eq(True), "*", "") if "survives" in table else ""
    bound = max(5, float(np.nanmax(np.abs(cells.to_numpy()), initial=0)))
    width = 1.9 + 0.62 * max(8, cells.shape[1]) + style.room(lines)
    ax = style.new_axes(ax, width=width, height=max(3.2, 1.7 + 0.34 * len(lines)))
    image = style.draw_matrix(ax, cells, texts, clear, cmap="RdBu", vmin=-bound, vmax=bound)
    style.color_bar(ax, image, "Change of recall, points")
    first = table.drop_duplicates("name").set_index("name").loc[lines]
    ax.set_yticks(range(len(lines)), [f"{name}  n={first.loc[name, 'n']}" for name in lines])
    style.color_group_labels(ax, [group or name for name, group in first["group"].items()])
    classes = int((first["scope"] == "class").sum())
    if 0 < classes < len(lines):  # part the classes from their means
        ax.axhline(classes - 0.5, color="white", linewidth=5, zorder=1)
    edges = table.drop_duplicates("low").sort_values("low")[["low", "high"]].to_numpy()
    labels = [f"{low:.2f} to {min(high, 0.5**0.5):.2f}" for low, high in edges]  # the corner
    ax.set_xticks(range(len(labels)), labels, fontsize=8, rotation=30, ha="right")
    ax.set_xlabel("Frequency ring, cycles per pixel")
    by = f", by the {'/'.join(table['classifier'].unique())}" if "classifier" in table else ""
    ax.set_title(f"Recall, ring {gain_label(float(gain or 0))}" + by)
    notes = ["frame: zero outside the 95 % interval"]
    if "survives" in table:
        of = int(table.loc[table["scope"] == "class", "cells"].max())
        notes.append(f"*: survives Holm over {of} cells")
    style.add_footer(ax, table, *notes)
    return ax


@style.with_style
def plot_heat_map(
    plane: np.ndarray, table: pd.DataFrame, *, value: str = "drift", ax: Axes | None = None
) -> Axes:
    """Show a heat map over the whole plane of frequencies, zero frequency in the middle.

    ``plane``: ``(H, W)`` in ``fftshift`` order, of ``probing.heat_plane``; NaN is left white.
    ``table``: of ``probing.basis_heat_map``, of one classifier; ``value``: "drift" or "error".
    """
    style.need(table, f"n size classifier {value}")
    if plane.ndim != 2:
        raise ShapeError(f"plane: expected (H, W), got {tuple(plane.shape)}")
    first = table.iloc[0]
    notes = [f"n={first['n']} images", f"waves of norm {first['size']:g}, both signs"]
    label, what = "Drift of features, 1 - cos", "drift of features"
    if value == "error":
        notes.append(f"unchanged: {100 * first['clean_error']:.0f} % wrong")
        label, what = "Error rate", f"error rate of the {first['classifier']}"
    ax = style.new_axes(ax, width=5.4, height=4.4)
    style.color_bar(ax, style.draw_plane(ax, plane, down=True, cmap="magma"), label, width=0.045)
    ax.set_title(f"Fourier basis heat map, {what}")
    style.add_footer(ax, table, *notes)
    return ax


@style.with_style
def plot_preferences(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far apart teachers' preferences are, filled, and one teacher's on other images.

    ``table``: of ``probing.preference_distances``, one row per pair.
    """
    style.need(table, "teacher other between within difference difference_low difference_high")
    style.need(table, "p_holm n units")
    width = 8.2 + style.room(table["teacher"])
    ax = style.new_axes(ax, width=width, height=1.9 + 0.42 * len(table))
    for place, row in enumerate(table.to_dict("records")):
        color, ends = "#0072B2", [row["within"], row["between"]]
        ax.plot(ends, [place, place], color=color, alpha=0.35, lw=2, zorder=1)
        for x, face, whose in zip(ends, ("white", color), ("same", "other"), strict=True):
            label = None if place else f"{whose} teacher, other images"
            ax.plot(x, place, "o", color=color, markerfacecolor=face, label=label)
        interval = f"[{row['difference_low']:+.2f}, {row['difference_high']:+.2f}]"
        style.write_beside(ax, place, f"{row['difference']:+.2f} {interval}, p={row['p_holm']:.3f}")
    style.label_rows(ax, [*(table["teacher"] + ",\n" + table["other"])])
    ax.set_xlim(0, 1.08 * float(table[["between", "within"]].max().max()))
    ax.set_xlabel("Distance of preferences, root mean square of log ratios")
    ax.set_title("Teachers against measurements of one teacher")
    ax.figure.legend(loc="outside upper right", ncols=2)
    n, units = table["n"].max(), table["units"].max()
    lesions = f"n={n:,} images" + f" of {units:,} lesions or patients" * bool(units < n)
    style.add_footer(ax, table, lesions, "right: difference, 95 % interval, p after Holm")
    return ax


@style.with_style
def plot_gain_benefits(table: pd.DataFrame, *, images: int) -> Figure:
    """Draw what gains are worth under each degradation, from mild to severe.

    ``table``: of ``probing.control.gain_benefits``, of several conditions below each other;
    ``images``: tested.
    """
    style.need(table, "kind severity gain difference low high")
    kinds = list(dict.fromkeys(table["kind"]))
    counts = [table.loc[table["kind"] == kind, "severity"].nunique() for kind in kinds]
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(2.6 + 1.1 * sum(counts), 3.6), sharey=True, squeeze=False,
        width_ratios=[count + 0.6 for count in counts],
    )  # fmt: skip
    names = [name for name in _GAINS if name in set(table["gain"])]
    for ax, kind in zip(axes[0], kinds, strict=True):
        own = table[table["kind"] == kind]
        severities = list(dict.fromkeys(own["severity"]))
        for number, name in enumerate(names):
            rows = own[own["gain"] == name].set_index("severity").loc[severities]
            x = np.arange(len(rows)) + 0.16 * (number - (len(names) - 1) / 2)
            ax.vlines(x, rows["low"], rows["high"], color=_GAINS[name], lw=1.6)
            ax.plot(x, rows["difference"], _MARKERS[number], color=_GAINS[name], label=name)
        ax.axhline(0, color="#333333", lw=1.2, zorder=1)
        texts = [""] if kind == "clean" else [f"{severity:g}" for severity in severities]
        ax.set_xticks(range(len(severities)), texts)
        ax.set_xlim(-0.6, len(severities) - 0.4)
        ax.grid(axis="x", visible=False)
        ax.set(title=kind, xlabel=_SEVERITIES.get(kind, ""))
    axes[0, 0].yaxis.set_major_formatter(style.points_formatter(signed=True))
    axes[0, 0].set_ylabel("Over no gain, percentage points")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    style.figure_title(figure, "Balanced accuracy of a linear probe")
    about = f"severity grows to the right  ·  n={images:,} test images"
    style.add_footer(axes[0, 0], table, about, "bars: 95 % intervals")
    return figure


@style.with_style
def plot_control(table: pd.DataFrame, gains: pd.DataFrame, *, images: int) -> Figure:
    """Draw what each gain is worth behind a known low-pass, and the gains over the inverse filter.

    ``table``: of ``probing.control.control_table``; ``gains``: of ``gain_profiles``, of one split;
    ``images``: tested in a split.
    """
    style.need(table, "split input gain balanced_accuracy low high drift")
    style.need(gains, "gain draw frequency factor split")
    figure, (ax, side) = plt.subplots(1, 2, figsize=(11, 4))
    keys = [("clean", "none"), *(("degraded", name) for name in _GAINS)]
    splits = list(dict.fromkeys(table["split"]))
    for number, split in enumerate(splits):
        own = table[table["split"] == split].set_index(["input", "gain"])
        for place, (given, name) in enumerate(keys):
            row = own.loc[given, name]
            x = place + 0.18 * (number - (len(splits) - 1) / 2)
            color = _GAINS[name] if given == "degraded" else "#009E73"
            ax.plot([x, x], [row["low"], row["high"]], color=color, lw=1.6)
            ax.plot(x, row["balanced_accuracy"], _MARKERS[number % 8], color=color)
        ax.plot([], [], _MARKERS[number % 8], color="#333333", label=f"split {split}")
    names = [name if given == "degraded" else "clean images" for given, name in keys]
    ax.set_xticks(range(len(keys)), names, rotation=30, ha="right")
    ax.grid(axis="x", visible=False)
    ax.yaxis.set_major_formatter(style.points_formatter())
    ax.set_ylabel("Balanced accuracy, %")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.3), ncols=len(splits))
    ax.set_title("Linear probe behind a low-pass and each gain")
    style.add_footer(ax, table, f"n={images:,} test images in a split", "bars: 95 % intervals")
    for (name, draw), own in gains.groupby(["gain", "draw"], sort=False):
        look: dict[str, Any] = {"color": _GAINS[str(name)], "label": "" if draw else str(name)}
        look["lw"] = 3 if name == "inverse" else 1.4 if name != "random" else 0.8
        side.plot(own["frequency"], own["factor"], **look)
    style.log_axis(side)
    style.log_axis(side, "x")
    side.set(xlabel="Horizontal frequency, cycles per pixel", ylabel="Gain of the amplitude")
    side.set_title(f"The gains of split {gains['split'].iloc[0]}")
    side.legend(loc="upper left", bbox_to_anchor=(0, -0.25), ncols=3)
    return figure
