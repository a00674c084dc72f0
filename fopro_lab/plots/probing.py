"""Figures of several teachers side by side: their preferences, and how far apart these are."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.plots.style import (
    GROUP_COLORS,
    add_footer,
    mark_corners,
    need,
    new_axes,
    points_formatter,
    ring_centres,
    with_style,
)

_DAMPED, _AMPLIFIED = ("#332288", "#0072B2", "#56B4E9"), ("#E69F00", "#D55E00", "#882255")
_CHANNELS = {"red": "#CC3311", "green": "#228833", "blue": "#4477AA"}


@with_style
def plot_ring_response(
    table: pd.DataFrame, *, ax: Axes | None = None, normalised: bool = False
) -> Axes:
    """Draw how far features move when one frequency ring is scaled, one line a gain.

    Args:
        table: Of ``probing.ring_response``; of channels one by one only "all" is drawn.
        ax: Axes to draw into; None makes a figure.
        normalised: Show the drift per relative energy changed, on a logarithmic axis, instead of
            the drift itself.

    Returns:
        The axes; x is the middle of the ring. Damping is dashed, amplifying solid.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_ring_response(pd.DataFrame({"low": [0.0, 0.25], "high": [0.25, 0.5],
        ...     "gain": 0.0, "drift": [0.2, 0.1], "drift_low": [0.1, 0.1],
        ...     "drift_high": [0.3, 0.2], "n": 64}))
        >>> ax.lines[0].get_label()
        'removed'
    """
    value = "drift_per_energy" if normalised else "drift"
    need(table, "low", "high", "gain", value, "n")
    table = table[table["channel"] == "all"] if "channel" in table else table
    ax = new_axes(ax)
    mark_corners(ax, to=table["high"].max())
    gains = sorted(table["gain"].unique())
    damped = [gain for gain in gains if gain < 1]
    for gain in gains:
        own = table[table["gain"] == gain].sort_values("low")
        down = gain < 1
        place = damped.index(gain) if down else gains.index(gain) - len(damped)
        color = (_DAMPED if down else _AMPLIFIED)[place % 3]
        _draw_line(ax, own, value, color=color, label=gain_label(gain), dashed=down, banded=True)
    ax.set_xlim(0, table["high"].max())
    ax.set_xlabel("Spatial frequency, cycles per pixel")
    if normalised:
        ax.set_yscale("log")
        ax.set_ylabel("Drift of features / energy changed")
        ax.set_title("Ring response for each unit of energy")
    else:
        ax.set_ylim(bottom=0)
        ax.set_ylabel("Drift of features, 1 - cos")
        ax.set_title("Ring response")
    ax.legend(loc="upper right" if table["high"].max() <= 0.5 else "best")
    add_footer(ax, table, f"n={table['n'].max():,} images", "bands: 95 % bootstrap intervals")
    return ax


@with_style
def plot_channel_response(
    table: pd.DataFrame, *, gain: float = 0.0, ax: Axes | None = None
) -> Axes:
    """Draw the ring response of red, green and blue, scaled one by one, for one gain.

    Args:
        table: Of ``probing.ring_response`` with ``per_channel``.
        gain: Which.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; y is the drift per energy, logarithmic.

    Raises:
        InputError: If a column or the rows of that gain are missing.

    Example:
        >>> ax = plot_channel_response(pd.DataFrame({"channel": ["red", "red"], "low": [0, 0.25],
        ...     "high": [0.25, 0.5], "gain": 0.0, "drift_per_energy": [2.0, 1.0], "n": 64}))
        >>> ax.lines[0].get_label()
        'red'
    """
    need(table, "channel", "low", "high", "gain", "drift_per_energy", "n")
    table = table[table["channel"].isin(list(_CHANNELS)) & (table["gain"] == gain)]
    need(table, "channel")
    ax = new_axes(ax)
    mark_corners(ax, to=table["high"].max())
    for channel, color in _CHANNELS.items():
        own = table[table["channel"] == channel].sort_values("low")
        if len(own):
            _draw_line(
                ax, own, "drift_per_energy", color=color, label=channel, dashed=False, banded=True
            )
    ax.set_yscale("log")
    ax.set_xlim(0, table["high"].max())
    ax.set_xlabel("Spatial frequency, cycles per pixel")
    ax.set_ylabel("Drift of features / energy changed")
    ax.set_title(f"Ring response of each colour, {gain_label(gain)}")
    ax.legend(loc="best")
    add_footer(ax, table, f"n={table['n'].max():,} images", "bands: 95 % bootstrap intervals")
    return ax


def gain_label(gain: float) -> str:
    """Say what a gain does to a ring.

    Example:
        >>> gain_label(0.0)
        'removed'
    """
    return "removed" if gain == 0 else rf"amplitude $\times$ {gain:g}"


def _draw_line(
    ax: Axes,
    own: pd.DataFrame,
    value: str,
    *,
    color: str,
    label: str,
    dashed: bool,
    banded: bool,
) -> None:
    """Draw one line over the rings, with its interval where the table has one."""
    x = ring_centres(own)
    style = (0, (4, 1.5)) if dashed else "-"
    ax.plot(x, own[value], marker="o", markersize=4.5, color=color, ls=style, label=label)
    low, high = f"{value}_low", f"{value}_high"
    if banded and low in own and high in own:
        ax.fill_between(x, own[low], own[high], color=color, alpha=0.15, linewidth=0)


@with_style
def plot_class_bands(
    table: pd.DataFrame, *, ax: Axes | None = None, gain: float | None = None
) -> Axes:
    """Draw the change of each class's recall when one frequency ring is scaled, as a heat map.

    Args:
        table: Of ``probing.class_band_matrix``.
        ax: Axes to draw into; None makes a figure.
        gain: Which gain; None takes the only one.

    Returns:
        The axes. A framed, bold number says that the 95 % interval leaves zero out, a star that
        the change also survives the correction for all cells.

    Raises:
        InputError: If a column is missing, or ``gain`` is not in the table.

    Example:
        >>> ax = plot_class_bands(pd.DataFrame({"scope": "class", "name": ["nv"], "group": "head",
        ...     "low": [0.0], "high": [0.5], "gain": [0.0], "change": [-0.1],
        ...     "change_low": [-0.2], "change_high": [-0.05], "n": [100]}))
        >>> ax.texts[0].get_text(), ax.texts[0].get_fontweight()
        ('-10', 'bold')
    """
    need(table, "scope", "name", "group", "low", "high", "gain", "change", "change_low")
    need(table, "change_high", "n")
    gains = sorted(table["gain"].unique())
    if gain is None and len(gains) == 1:
        gain = gains[0]
    if gain not in gains:
        told = ", ".join(f"{each:g}" for each in gains)
        raise InputError(f"gain: expected one of {told}, got {gain}")
    table = table[table["gain"] == gain]
    lines, rings = list(dict.fromkeys(table["name"])), sorted(set(table["low"]))
    cells = table.pivot(index="name", columns="low", values="change").loc[lines, rings]
    bound = max(0.05, float(np.nanmax(np.abs(cells.to_numpy()), initial=0)))
    size = {"width": 1.9 + 0.62 * max(8, len(rings)), "height": 1.7 + 0.34 * len(lines)}
    ax = new_axes(ax, **size)
    image = ax.imshow(100 * cells, cmap="RdBu", vmin=-100 * bound, vmax=100 * bound, aspect="auto")
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.02, 0, 0.025, 1)))
    bar.set_label("Change of recall, points")
    bar.outline.set_visible(False)
    for _, row in table.iterrows():
        if pd.isna(row["change"]):
            continue
        x, y = rings.index(row["low"]), lines.index(row["name"])
        clear = row["change_low"] > 0 or row["change_high"] < 0
        text = f"{round(100 * row['change']):+d}".replace("+0", "0")
        text += "*" if row.get("survives", False) else ""
        dark = abs(row["change"]) > 0.6 * bound
        weight = "bold" if clear else "normal"
        color = "white" if dark else "#222222" if clear else "#666666"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color=color, fontweight=weight)
        if clear:
            frame = plt.Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, lw=1.1, zorder=3)
            frame.set_edgecolor("#222222")
            ax.add_patch(frame)
    _label_class_bands(ax, table, lines)
    who = "classifier" in table
    classifier = ", by the " + "/".join(table["classifier"].unique()) if who else ""
    what = "removed" if gain == 0 else f"scaled by {gain:g}"
    ax.set_title(f"Recall when a ring is {what}{classifier}")
    notes = ["frame: zero outside the 95 % interval"]
    if "survives" in table:
        of = int(table.loc[table["scope"] == "class", "cells"].max())
        notes.append(f"*: survives Holm over {of} cells")
    add_footer(ax, table, *notes)
    return ax


def _label_class_bands(ax: Axes, table: pd.DataFrame, lines: list[str]) -> None:
    """Name the rows with n, the columns with their edges, and part classes from means."""
    first = table.drop_duplicates("name").set_index("name")
    ax.set_yticks(range(len(lines)), [f"{name}  n={first.loc[name, 'n']}" for name in lines])
    for tick, name in zip(ax.get_yticklabels(), lines, strict=True):
        group = first.loc[name, "group"] or name
        tick.set_color(GROUP_COLORS.get(str(group), "#333333"))
    classes = int((first["scope"] == "class").sum())
    if 0 < classes < len(lines):
        ax.axhline(classes - 0.5, color="white", linewidth=5, zorder=1)
    edges = table.drop_duplicates("low").sort_values("low")
    labels = [
        f"{low:.2f} to {high:.2f}" for low, high in zip(edges["low"], edges["high"], strict=True)
    ]
    ax.set_xticks(range(len(labels)), labels, fontsize=8, rotation=30, ha="right")
    ax.set_xlabel("Frequency ring, cycles per pixel")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)


@with_style
def plot_heat_map(
    plane: np.ndarray,
    *,
    title: str = "Fourier basis heat map",
    label: str = "Drift of features, 1 - cos",
    notes: tuple[str, ...] = (),
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show a value over the whole plane of frequencies, zero frequency in the middle.

    Args:
        plane: ``(H, W)`` in ``fftshift`` order, as ``probing.heat_plane`` lays it out; NaN is
            left white.
        title: Of the figure.
        label: Of the colour bar, with the unit.
        notes: For the footer.
        limits: Of the colours; None takes the plane's own.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes, in cycles per pixel.

    Raises:
        ShapeError: If the array has another number of axes.

    Example:
        >>> ax = plot_heat_map(np.eye(8))
        >>> ax.get_xlabel()
        'Horizontal frequency, cycles per pixel'
    """
    if plane.ndim != 2:
        raise ShapeError(f"plane: expected (H, W), got {tuple(plane.shape)}")
    height, width = plane.shape
    extent = tuple(
        edge
        for size in (width, height)
        for edge in (-(size // 2 + 0.5) / size, (size - size // 2 - 0.5) / size)
    )
    low, high = limits or (float(np.nanmin(plane)), float(np.nanmax(plane)))
    ax = new_axes(ax, width=5.4, height=4.4)
    # Rows count downwards, as in the image, so that a diagonal wave runs as it is seen there.
    image = ax.imshow(
        plane[::-1], cmap="magma", vmin=low, vmax=high, origin="lower",
        extent=(extent[0], extent[1], -extent[3], -extent[2]),
    )  # fmt: skip
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.04, 0, 0.045, 1)))
    bar.set_label(label)
    bar.outline.set_visible(False)
    for radius in (0.25, 0.5):
        ring = plt.Circle((0, 0), radius, fill=False, color="#FFFFFF", lw=0.7, ls=(0, (3, 3)))
        ring.set_alpha(0.7)
        ax.add_patch(ring)
    ax.set_xticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.set_yticks([-0.5, -0.25, 0, 0.25, 0.5])
    ax.grid(visible=False)
    ax.set_xlim(extent[0], extent[1])
    ax.set_ylim(-extent[3], -extent[2])
    ax.set_xlabel("Horizontal frequency, cycles per pixel")
    ax.set_ylabel("Vertical frequency, cycles per pixel")
    ax.set_title(title)
    add_footer(ax, pd.DataFrame(), *notes)
    return ax


def heat_map_texts(table: pd.DataFrame, *, value: str = "drift") -> dict[str, Any]:
    """Return title, label and notes of `plot_heat_map` for one classifier's "drift" or "error".

    Args:
        table: Of ``probing.basis_heat_map``, with a column ``classifier``.
        value: "drift" or "error".

    Example:
        >>> table = pd.DataFrame({"classifier": ["probe"], "n": 9, "size": 4.0, "clean_error": 0.5})
        >>> heat_map_texts(table, value="error")["title"]
        'Fourier basis heat map, error rate of the probe'
    """
    first = table.iloc[0]
    notes = [f"n={first['n']} images", f"waves of norm {first['size']:g}, both signs"]
    label, what = "Drift of features, 1 - cos", "drift of features"
    if value == "error":
        notes.append(f"unchanged: {100 * first['clean_error']:.0f} % wrong")
        label, what = "Error rate", f"error rate of the {first['classifier']}"
    return {"title": f"Fourier basis heat map, {what}", "label": label, "notes": tuple(notes)}


_ORDER = ("head", "medium", "tail", "all")
_MARKS = {"head": "o", "medium": "D", "tail": "^", "all": "s"}
_KINDS = {
    "untouched": "untouched",
    "phase": "own phase,\nmean amplitude",
    "phase-flat": "own phase,\nflat amplitude",
    "amplitude": "own amplitude,\nrandom phase",
}


@with_style
def plot_ladder(table: pd.DataFrame) -> Figure:
    """Draw the recall of each group against the cut-off, low-pass and high-pass side by side.

    Args:
        table: Of ``probing.pass_ladder``, of one classifier.

    Returns:
        The figure. Dashed: the same images untouched.

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
    who = f"classes by the {table['classifier'].iloc[0]}" if "classifier" in table else ""
    add_footer(grid[0], table, who, "dashed: untouched", "bands: 95 % intervals")
    return figure


@with_style
def plot_phases(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the recall of each group on images with their phases or amplitudes alone.

    Args:
        table: Of ``probing.phase_and_amplitude``, of one classifier.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; untouched images first.

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
    who = f"classes by the {table['classifier'].iloc[0]}" if "classifier" in table else ""
    add_footer(ax, table, who, "bars: 95 % intervals", "colour and brightness are kept")
    return ax


ASKED = {
    ("source", "all"): ("source", "#D55E00", "o", "-"),
    ("source", "each class"): ("source, within each class", "#D55E00", "o", (0, (2, 1.5))),
    ("class", "all"): ("class", "#0072B2", "^", "-"),
    ("class", "each source"): ("class, within each source", "#0072B2", "^", (0, (2, 1.5))),
}


@with_style
def plot_fingerprint(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far above chance each ring alone tells the source and the class.

    Args:
        table: Of ``probing.source_fingerprint``.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The axes; y runs from chance, 0, to perfect, 1, so that two and eight classes compare. The
        point at the right end is all rings together; a hollow mark is not above 95 % of
        permutations.

    Raises:
        InputError: If a column or the rows are missing.

    Example:
        >>> ax = plot_fingerprint(pd.DataFrame({"target": "class", "within": "all",
        ...     "ring": [0, 1, -1], "low": [0, 0.25, 0], "high": [0.25, 0.5, 0.5],
        ...     "accuracy": 0.75, "accuracy_low": 0.6, "accuracy_high": 0.9, "chance": 0.5,
        ...     "permuted_high": 0.6, "n": 90}))
        >>> ax.lines[0].get_ydata().tolist()
        [0.5, 0.5]
    """
    need(table, "target", "within", "ring", "low", "high", "accuracy", "accuracy_low")
    need(table, "accuracy_high", "chance", "permuted_high", "n")
    ax = new_axes(ax, height=4.2)
    top = float(table["high"].max())
    mark_corners(ax, to=top)
    end = 1.08 * top
    found = set(zip(table["target"], table["within"], strict=True))
    asked = [key for key in ASKED if key in found]
    for place, key in enumerate(asked):
        label, color, mark, style = ASKED[key]
        own = table[(table["target"] == key[0]) & (table["within"] == key[1])]
        rings = own[own["ring"] >= 0].sort_values("ring")
        whole = own[own["ring"] < 0]
        x = ring_centres(rings)
        label = f"{label}  n={own['n'].max():,}"
        ax.plot(x, _skill(rings, "accuracy"), mark, color=color, ls=style, ms=5, label=label)
        band = [_skill(rings, f"accuracy_{side}") for side in ("low", "high")]
        ax.fill_between(x, *band, color=color, alpha=0.12, linewidth=0)
        for part, at in ((rings, x), (whole, whole["low"] * 0 + end + 0.012 * top * place)):
            sure = part["accuracy"] > part["permuted_high"]
            for clear, face in ((sure, color), (~sure, "white")):
                value = _skill(part[clear], "accuracy")
                ax.plot(at[clear], value, mark, color=color, markerfacecolor=face, markersize=5)
        ax.vlines(
            [end + 0.012 * top * place] * len(whole),
            _skill(whole, "accuracy_low"),
            _skill(whole, "accuracy_high"),
            color=color,
            lw=1.4,
        )
    ax.axhline(0, color="#333333", linewidth=1, zorder=1)
    ax.axvline(1.03 * top, color="#BBBBBB", linewidth=0.8)
    ax.set_xlim(0, 1.15 * top)
    ticks = [tick / 10 for tick in range(8) if tick / 10 <= top]
    middle = end + 0.006 * top * (len(asked) - 1)
    ax.set_xticks([*ticks, middle], [*(f"{tick:g}" for tick in ticks), "all\nrings"])
    ax.set_ylim(min(-0.15, float(_skill(table, "accuracy_low").min())), 1.05)
    ax.set_xlabel("Spatial frequency of the ring, cycles per pixel")
    ax.set_ylabel("Balanced accuracy,\n0 is chance, 1 perfect")
    ax.set_title("What one ring's energy tells")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    add_footer(
        ax, table, "bands: 95 % intervals", "hollow: not above 95 % of permutations",
        "cross-validated, lesions kept apart",
    )  # fmt: skip
    return ax


def _skill(table: pd.DataFrame, column: str) -> pd.Series:
    return (table[column] - table["chance"]) / (1 - table["chance"])


_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#666666", "#8C6D31")
_MARKERS = "oD^sv<>P"


@with_style
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
    add_footer(ax, table, f"n={table['n'].max():,} images", "bands: 95 % bootstrap intervals")
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


@with_style
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


@with_style
def plot_preferences(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far apart teachers' preferences are, beside one teacher on other images.

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
                label="same teacher, other images" if first else None)  # fmt: skip
        ax.plot(row.between, place, "o", color=color,
                label="other teacher, other images" if first else None)  # fmt: skip
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
        ax, table, f"n={table['n'].max():,} images of {table['units'].max():,} lesions",
        "right: difference, 95 % interval",
    )  # fmt: skip
    return ax
