"""Figure of the pipeline audit: what each step did to each frequency ring."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fopro_lab.errors import InputError
from fopro_lab.lab.figures.style import add_footer, in_house_style, mark_corners, need, ring_centres

FACTORS = (0.125, 0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 2.8, 4, 8)
DRAFTED = 4  # times the size: a JPEG from there on is shrunk while it is decoded
MARKERS = "osD^vPX*"


@in_house_style
def plot_pipeline(table: pd.DataFrame, *, source: str = "all") -> Figure:
    """Draw what each step did to the amplitude of each ring, one panel a stage.

    Args:
        table: Of ``auditing.audit_pipeline``: ``stage``, ``step``, ``reference``, ``size``,
            ``source``, ``low``, ``high`` (cycles per pixel), ``log_ratio`` (natural), ``n``,
            ``interval_low``, ``interval_high``.
        source: Whose pictures.

    Returns:
        The figure; all panels share the logarithmic axis of factors.

    Raises:
        InputError: If a column, or rows of the source, are missing.

    Example:
        >>> figure = plot_pipeline(pd.DataFrame({"stage": "resize", "step": "box", "size": 32,
        ...     "reference": "ideal band limit", "source": "all", "low": [0.0, 0.25],
        ...     "high": [0.25, 0.5], "log_ratio": [0.0, -0.7], "n": 9,
        ...     "interval_low": [0.0, -0.8], "interval_high": [0.0, -0.6]}))
        >>> figure.axes[0].get_title('left'), figure.axes[0].lines[-1].get_ydata().tolist()
        ('Resize at 32 px', [0.0, -0.7])
    """
    need(table, "stage", "step", "reference", "size", "source", "low", "high", "log_ratio", "n")
    need(table, "interval_low", "interval_high")
    own = table[table["source"] == source]
    if own.empty:
        known = ", ".join(map(str, table["source"].unique()))
        raise InputError(f"source: expected one of {known}, got '{source}'")
    stages = list(dict.fromkeys(own["stage"]))
    columns = min(len(stages), 2 if len(stages) == 4 else 3)
    rows = -(-len(stages) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(4.6, 3.7 * columns), 3.3 * rows + 0.4),
        sharex=True, sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, stage in zip(axes.flat, stages, strict=False):
        _draw_stage(ax, own[own["stage"] == stage])
    for ax in axes.flat[len(stages) :]:
        ax.axis("off")
    values = own[["log_ratio", "interval_low", "interval_high"]]
    reach = max(0.4, float(np.nanmax(np.abs(values.to_numpy()), initial=0)))
    low, high = np.nanmin(values, initial=-0.4), np.nanmax(values, initial=0.25)
    first = axes[0, 0]
    first.set_ylim(low - 0.45 * (high - low) - 0.02, high + 0.06 * reach)
    first.yaxis.set_major_locator(FixedLocator([float(np.log(factor)) for factor in FACTORS]))
    first.yaxis.set_minor_locator(NullLocator())
    first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"\u00d7 {np.exp(value):.2g}"))
    for ax in axes[:, 0]:
        ax.set_ylabel("Amplitude against the reference")
    for ax in axes[-1]:
        ax.set_xlabel("Spatial frequency, cycles per pixel")
    whose = "all sources" if source == "all" else f"source {source}"
    figure.suptitle(f"What the pipeline did to each frequency ring: {whose}", fontsize=11.5,
                    fontweight="bold", x=0.01, ha="left")  # fmt: skip
    add_footer(first, own, f"n={own['n'].max():,} pictures", "bands: 95 % intervals of the mean")
    return figure


def _draw_stage(ax: Axes, table: pd.DataFrame) -> None:
    mark_corners(ax, to=table["high"].max())
    ax.axhline(0, color="#333333", linewidth=1, zorder=1)
    for place, step in enumerate(dict.fromkeys(table["step"])):
        own = table[table["step"] == step].sort_values("low")
        x = ring_centres(own)
        color = f"C{place % 8}"
        style = "-" if place % 2 == 0 else (0, (4, 1.5))
        ax.fill_between(
            x, own["interval_low"], own["interval_high"], color=color, alpha=0.18, linewidth=0
        )
        ax.plot(x, own["log_ratio"], marker=MARKERS[place % 8], markersize=4, linewidth=1.5,
                color=color, linestyle=style, label=step)  # fmt: skip
    ax.set_xlim(0, table["high"].max())
    first = table.iloc[0]
    ax.set_title(f"{first['stage'].capitalize()} at {first['size']} px", fontsize=10)
    if first["stage"] == "decode" and not table["log_ratio"].fillna(0).any():
        # All lines lie at 1 since nothing was done, not since drafts do no harm.
        least = DRAFTED * first["size"]
        ax.annotate(f"no picture was drafted:\nnone is a JPEG of {least} px or more",
                    (0.5, 0), (0, 9), xycoords=ax.get_yaxis_transform(),
                    textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    ax.legend(loc="lower left", fontsize=7.5, handlelength=2.6, labelspacing=0.25, ncols=2,
              columnspacing=1.2, title=f"against: {first['reference']}", title_fontsize=7.5,
              alignment="left")  # fmt: skip
