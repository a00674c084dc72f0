"""Figures of a Fourier prompt: its mask over the plane, ring by ring, and during its training.

Blue damps, red amplifies, white is gain 1; scales are log2 about 1.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.runs import MaskHistory
from fopro_lab.plots import style

_GAIN = "Gain of the amplitude, logarithmic"
_TIMES = ("#56B4E9", "#0072B2", style.METHOD_COLORS["fopro"])  # first, middle, last
_TERMS = {
    "statistics": "Distance from natural statistics", "task": "Task loss of a linear head, nats",
    "spectrum": "Distance from the reference spectrum", "identity": "Mean (log gain)²",
    "disagreement": "Minus student-teacher distance", "total": "Weighted sum",
    "log_gain": "Mean |log gain|", "drift": "Drift of the teacher, mean 1 - cos",
    "val_balanced_accuracy": "Balanced accuracy, held out"}  # fmt: skip
# A check on held-out images is drawn beside the term that it checks.
_CHECKED = {"val_task": "task", "val_total": "total", "val_drift": "drift"}


@style.with_style
def plot_gain(gain: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Show a prompt's gain over the whole plane of frequencies, zero frequency in the middle.

    In column 0 (and W / 2) mirrored rows show the mean of their gains, as they act.

    ``gain``: positive factors ``(H, W // 2 + 1)`` or ``(C, H, W // 2 + 1)`` in ``rfft2`` order,
    W = H or odd; of several channels the geometric mean is shown.
    """
    gain = np.asarray(gain)
    if gain.ndim not in (2, 3):
        raise ShapeError(f"gain: expected (H, W // 2 + 1) or (C, H, W // 2 + 1), got {gain.shape}")
    if not (np.isfinite(gain) & (gain > 0)).all():
        raise InputError(f"gain: expected finite factors above 0, got {np.min(gain):g}")
    half = gain if gain.ndim == 2 else np.exp(np.log(gain).mean(axis=0))
    height, columns = half.shape
    size = (height, height if height // 2 + 1 == columns else 2 * columns - 1)
    # Mirrored by way of an image: the gain at -f is the gain at f.
    plane = np.fft.fftshift(np.fft.fft2(np.fft.irfft2(half, s=size)).real)
    bound = _octaves(plane)
    ax = style.new_axes(ax, width=5.2, height=4.4)
    image = style.draw_plane(ax, np.log2(plane), cmap="RdBu_r", vmin=-bound, vmax=bound)
    _label_gains(style.color_bar(ax, image, _GAIN, width=0.045), bound)
    channels = f", mean of {len(gain)} channels" if gain.ndim == 3 and len(gain) > 1 else ""
    ax.set_title(f"Gain of the prompt{channels}")
    return ax


@style.with_style
def plot_radial_gain(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw a prompt's mean gain in each frequency ring, with its spread.

    ``table``: columns ``low``, ``high`` (cycles per pixel), ``gain``, ``gain_low``, ``gain_high``
    (spread within the ring).
    """
    style.need(table, "low high gain gain_low gain_high")
    ax = style.new_axes(ax)
    own, color = table.sort_values("low"), style.METHOD_COLORS["fopro"]
    edges = [*own["low"], own["high"].iloc[-1]]
    ax.stairs(own["gain"], edges, baseline=None, color=color, linewidth=2)
    low, high = ([*own[c], own[c].iloc[-1]] for c in ("gain_low", "gain_high"))
    ax.fill_between(edges, low, high, step="post", color=color, alpha=0.15, linewidth=0)
    largest = max(1.1, table["gain_high"].max(), 1 / table["gain_low"].min())
    style.gain_axes(ax, table["high"], bound=float(np.log2(largest)))
    ax.set(ylabel=_GAIN, title="Gain by frequency ring")
    style.add_footer(ax, table, "bands: spread of the gain")
    return ax


@style.with_style
def plot_prompt_training(table: pd.DataFrame) -> Figure:
    """Draw every term of a prompt training over its steps, one panel per term.

    ``table``: of `explore`: ``step``, then one column per term; ``val_...`` are checks on held-out
    images, NaN where there was none, ``kept`` marks the best prompt.
    """
    style.need(table, "step")
    numbers = [str(column) for column in table.select_dtypes("number")]
    terms = [name for name in numbers if name not in ("step", "kept", *_CHECKED)]
    checks = {term: name for name, term in _CHECKED.items() if name in numbers}
    terms += [term for term in checks if term not in terms]
    if not terms:
        raise InputError("table: expected a column for at least one term, got only 'step'")
    across = min(3, len(terms))
    wide = max(4.2 / across, 3.2)
    figure, panels = style.panels(len(terms), columns=3, wide=wide, tall=2.25, sharex=True)
    for place, (ax, term) in enumerate(zip(panels, terms, strict=True)):
        if term in table and not term.startswith("val_"):
            ax.plot(table["step"], table[term], color=style.METHOD_COLORS["fopro"])
        check = term if term.startswith("val_") else checks.get(term, "")
        if check:
            own = table[table[check].notna()]
            look: dict[str, Any] = {"color": "#0072B2", "marker": "o"}
            ax.plot(own["step"], own[check], markersize=4, ls=":", lw=1, **look)
            if "kept" in own:
                best = own[own["kept"] == 1]
                ax.plot(best["step"], best[check], ls="", markersize=9, fillstyle="none", **look)
        ax.set_title(_TERMS.get(term, term), fontsize=9.5)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        if place + across >= len(terms):
            ax.set_xlabel("Prompt training step")
            ax.tick_params(labelbottom=True)
    note = "points: held-out images; ringed: the best prompt" if checks else ""
    style.add_footer(panels[0], table, note)
    return figure


@style.with_style
def plot_mask_history(
    histories: Sequence[MaskHistory], *, time: Sequence[int] | None = None
) -> Figure:
    """Draw masks of each run in a row, and their gain ring by ring: first, middle and last one.

    With a ``time``, round and step, those of it alone, and the last gain by ring, dashed.
    """
    if not histories:
        raise InputError("histories: expected one or more, got none")
    rows, columns = len(histories), 3 if time is None else 1
    bound = max(_octaves(part) for each in histories for part in (each.planes, each.rings))
    size, widths = (5.6 + 1.8 * columns, 0.6 + 2.6 * rows), [*[1] * columns, 1.35]
    figure, axes = plt.subplots(rows, columns + 1, figsize=size, squeeze=False, width_ratios=widths)
    for (*masks, beside), history in zip(axes, histories, strict=True):
        last = len(history.times) - 1
        places = (0, last // 2, last) if time is None else (history.at((time[0], time[1])),)
        for ax, place, color in zip(masks, places, _TIMES[-columns:], strict=True):
            octaves = np.log2(history.planes[place])
            image = style.draw_plane(ax, octaves, cmap="RdBu_r", vmin=-bound, vmax=bound)
            number, step = history.times[place]
            ax.set_title(f"training {number}, step {step}", fontsize=9)
            ax.set(xlabel="Horizontal, cycles per pixel", ylabel="")
            ax.tick_params(labelleft=ax is masks[0])
            look = {"color": color, "linewidth": 2, "label": f"{number}, {step}"}
            beside.stairs(history.rings[place], history.edges, baseline=None, **look)
        if time is not None:
            look = {"color": "#555555", "ls": "--", "label": "last"}
            beside.stairs(history.rings[last], history.edges, baseline=None, **look)
        _label_gains(style.color_bar(masks[-1], image, "Gain of the amplitude", width=0.045), bound)
        masks[0].set_ylabel(f"{style.shown(history.name)}\nvertical, cycles per pixel")
        style.gain_axes(beside, history.edges, bound=bound)
        beside.set_title("Mean gain of each ring", fontsize=9)
        beside.legend(title="training, step", loc="best", fontsize=8, title_fontsize=8)
    return figure


def _octaves(gains: np.ndarray) -> float:
    return max(0.1, float(np.abs(np.log2(gains)).max()))


def _label_gains(ax: Axes, bound: float) -> None:
    ticks = np.linspace(-bound, bound, 5)
    ax.set_yticks(ticks, [rf"$\times$ {2**tick:.2f}" for tick in ticks])
