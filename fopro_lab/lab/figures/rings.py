"""Figures of probes: what a teacher answers to, and which rings each class's recall hangs on."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from fopro_lab.errors import InputError
from fopro_lab.lab.figures.style import (
    GROUP_COLORS,
    add_footer,
    in_house_style,
    mark_corners,
    need,
    new_axes,
    ring_centres,
)

_DAMPED, _AMPLIFIED = ("#332288", "#0072B2", "#56B4E9"), ("#E69F00", "#D55E00", "#882255")
_CHANNELS = {"red": "#CC3311", "green": "#228833", "blue": "#4477AA"}


@in_house_style
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
    add_footer(ax, table, f"n={table['n'].max():,} pictures", "bands: 95 % bootstrap intervals")
    return ax


@in_house_style
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
    add_footer(ax, table, f"n={table['n'].max():,} pictures", "bands: 95 % bootstrap intervals")
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


@in_house_style
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
    reader = ", by the " + "/".join(table["reader"].unique()) if "reader" in table else ""
    what = "removed" if gain == 0 else f"scaled by {gain:g}"
    ax.set_title(f"Recall when a ring is {what}{reader}")
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
