"""What all figures share: the style, fixed colours, footers, common axes, and saving as PNG."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter

from fopro_lab.errors import InputError
from fopro_lab.evaluation import METHOD_LABELS, with_interval
from fopro_lab.io import atomic_path

__all__ = ["with_interval"]  # widgets take it from here, beside the figures' other texts
P = ParamSpec("P")
Drawn = TypeVar("Drawn")

STYLE = Path(__file__).parent / "fopro.mplstyle"

# Okabe & Ito's colours, distinguishable with any colour vision; markers repeat the message.
METHOD_COLORS = {
    "ce": "#666666",
    "bsm": "#0072B2",
    "ekd": "#009E73",
    "fopro": "#D55E00",
    "random": "#CC79A7",
}
METHOD_MARKERS = {"ce": "s", "bsm": "o", "ekd": "D", "fopro": "^", "random": "v"}
# Paul Tol's high-contrast scheme: differs in lightness too, so it survives grey printing.
GROUP_COLORS = {"head": "#004488", "medium": "#B8860B", "tail": "#BB5566", "": "#333333"}
DASHED = (0, (4, 1.5))


def with_style(plot: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """Make a function draw under the style and leave the reader's own settings alone."""

    @wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Drawn:
        with plt.style.context(STYLE):
            drawn = plot(*args, **kwargs)
            interactive = plt.isinteractive()
        # A notebook's backend switches this on with the first figure; the context would put it
        # back, and the notebook would never show a second one.
        matplotlib.interactive(interactive)
        return drawn

    return styled


def save_figure(figure: Figure | Axes, path: Path | str) -> Path:
    """Write a figure, or the one of some axes, as PNG: the same bytes for the same figure.

    Raises:
        InputError: If the path does not end in ``.png``.
        WorkError: If the file cannot be written; then there is none.
    """
    if Path(path).suffix != ".png":
        raise InputError(f"{path}: expected a name that ends in .png")
    whole = figure if isinstance(figure, Figure) else figure_of(figure)
    with plt.style.context(STYLE), atomic_path(path) as temporary:
        # The layout of square axes settles in its second pass; the first would clip labels.
        whole.draw_without_rendering()
        # No program name and version inside: they would change the bytes with every update.
        whole.savefig(temporary, format="png", dpi=170, metadata={"Software": None})
    return Path(path)


def need(table: pd.DataFrame, *columns: str) -> None:
    """Refuse a table without rows or without a column that the figure reads."""
    for column in columns:
        if column not in table:
            got = ", ".join(map(str, table.columns)) or "no columns"
            raise InputError(f"table: expected a column '{column}', got {got}")
    if table.empty:
        raise InputError("table: expected at least one row, got none")


def new_axes(ax: Axes | None, *, width: float = 7.0, height: float = 4.0) -> Axes:
    """Return the given axes, or those of a new figure of some size in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that axes are in."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def add_footer(ax: Axes, table: pd.DataFrame, *notes: str) -> None:
    """Write a table's protocol, where it has one, and notes small below the figure of the axes."""
    protocols = list(table["protocol"].unique()) if "protocol" in table else []
    written = [part for part in figure_of(ax).get_supxlabel().split("  ·  ") if part]
    lines = dict.fromkeys([*written, *map(str, protocols), *filter(None, notes)])  # each once
    if lines:
        footer = "  ·  ".join(lines)
        figure_of(ax).supxlabel(footer, fontsize=7, color="#777777", x=0.995, ha="right")


def figure_title(figure: Figure, text: str) -> None:
    """Write the title of a figure of several axes, at the left as those of single axes are."""
    figure.suptitle(text, fontsize=11.5, fontweight="bold", x=0.01, ha="left")


def legend_beside(ax: Axes) -> None:
    """Put the legend right of the axes, where it hides nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def write_beside(ax: Axes, y: float, text: str, *, offset: float = 7) -> None:
    """Write a number at the height ``y``, ``offset`` points right of the axes."""
    look: dict[str, Any] = {"va": "center", "fontsize": 8, "color": "#444444"}
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate(text, (1, y), (offset, 0), annotation_clip=False, **at, **look)


def color_group_labels(ax: Axes, groups: Sequence[str]) -> None:
    """Colour the labels of the y axis by head, medium and tail, one group per label."""
    for tick, group in zip(ax.get_yticklabels(), groups, strict=True):
        tick.set_color(GROUP_COLORS.get(group, GROUP_COLORS[""]))


def color_bar(
    ax: Axes, image: AxesImage, label: str, *, width: float = 0.03, **settings: Any
) -> Axes:
    """Draw the colour scale of an image right of its axes; return the scale's own axes."""
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, width, 1)), **settings)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar.ax


def ring_centres(table: pd.DataFrame) -> pd.Series:
    """Return the middle of each row's frequency ring, cycles per pixel."""
    return (table["low"] + table["high"]) / 2


def ring_axis(ax: Axes, edges: Sequence[float] | pd.Series | np.ndarray) -> None:
    """Prepare an x axis of radial frequencies up to the last edge; shade those of diagonals."""
    top = float(np.max(edges))
    ax.set(xlim=(0, top), xlabel="Spatial frequency, cycles per pixel")
    if top > 0.5:
        ax.axvspan(0.5, top, color="#F3F3F3", zorder=0, linewidth=0)
        look: dict[str, Any] = {"va": "top", "fontsize": 7.5, "color": "#777777"}
        at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        ax.annotate("corners", (0.5, 1), (4, -3), **at, **look)


def draw_plane(ax: Axes, plane: np.ndarray, *, down: bool = False, **colors: Any) -> AxesImage:
    """Draw a plane of frequencies in ``fftshift`` order, with circles at 0.25 and 0.5 cycles/pixel.

    With ``down`` rows count downwards, as in an image, so that a wave runs as it is seen there.
    """
    left, right, bottom, top = (
        edge
        for size in (plane.shape[1], plane.shape[0])
        for edge in (-(size // 2 + 0.5) / size, (size - size // 2 - 0.5) / size)
    )
    if down:
        plane, bottom, top = plane[::-1], -top, -bottom
    image = ax.imshow(plane, origin="lower", extent=(left, right, bottom, top), **colors)
    for radius in (0.25, 0.5):
        ring = plt.Circle((0, 0), radius, fill=False, lw=0.7, ls=(0, (3, 3)))
        ring.set_edgecolor("#BBBBBB" if down else "#555555")
        ax.add_patch(ring)
    ax.set(xticks=[-0.5, -0.25, 0, 0.25, 0.5], yticks=[-0.5, -0.25, 0, 0.25, 0.5])
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.grid(visible=False)
    return image


def label_plane(ax: Axes) -> None:
    """Label axes over the plane of frequencies."""
    ax.set_xlabel("Horizontal frequency, cycles per pixel")
    ax.set_ylabel("Vertical frequency, cycles per pixel")


def points_formatter(*, signed: bool = False) -> FuncFormatter:
    """Format a share as percentage points: 0.1 becomes 10, or +10."""
    form = "{:+g}" if signed else "{:g}"
    return FuncFormatter(
        lambda share, _: form.format(round(100 * share, 6)).removesuffix("+0") or "0"
    )


def method_order(methods: Sequence[str]) -> list[str]:
    """List the known methods in their fixed order, then others as they come."""
    found = list(dict.fromkeys(methods))
    return [m for m in METHOD_COLORS if m in found] + [m for m in found if m not in METHOD_COLORS]


def method_look(method: str) -> tuple[str, str, str]:
    """Return colour, marker and label of a method; an unknown one is black."""
    return (
        METHOD_COLORS.get(method, "#111111"),
        METHOD_MARKERS.get(method, "P"),
        METHOD_LABELS.get(method, method),
    )
