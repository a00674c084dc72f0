"""What all figures share: house style, fixed colours, footers, checks, and saving as PNG."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fopro_lab.errors import InputError
from fopro_lab.evaluation import METHOD_LABELS
from fopro_lab.evaluation import with_interval as with_interval
from fopro_lab.io import atomic_path

P = ParamSpec("P")
Drawn = TypeVar("Drawn")

STYLE = Path(__file__).parent / "fopro.mplstyle"

# Okabe & Ito's colours, told apart by readers with any colour vision; markers repeat the message.
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


def with_style(plot: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """Draw under the house style and leave the reader's own settings alone.

    Args:
        plot: A function that draws.

    Returns:
        The same function under the style.

    Example:
        >>> with_style(lambda: plt.rcParams["axes.titlelocation"])()
        'left'
    """

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
    """Write a figure as PNG, whole or not at all, the same bytes for the same figure.

    Args:
        figure: The figure, or axes in it.
        path: Target, ending in ``.png``.

    Returns:
        The path.

    Raises:
        InputError: If the path ends otherwise.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> save_figure(Figure(), "figure.pdf")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: figure.pdf: expected a name that ends in .png
    """
    if Path(path).suffix != ".png":
        raise InputError(f"{path}: expected a name that ends in .png")
    whole = figure if isinstance(figure, Figure) else figure.get_figure(root=True)
    assert isinstance(whole, Figure)
    with plt.style.context(STYLE), atomic_path(path) as temporary:
        # The layout of square axes settles in its second pass; the first would clip labels.
        whole.draw_without_rendering()
        # No program name and version inside: they would change the bytes with every update.
        whole.savefig(temporary, format="png", dpi=170, metadata={"Software": None})
    return Path(path)


def need(table: pd.DataFrame, *columns: str) -> None:
    """Refuse a table without rows or without a column that the figure reads.

    Example:
        >>> need(pd.DataFrame({"class": ["nv"]}), "class", "n")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: table: expected a column 'n', got class
    """
    for column in columns:
        if column not in table:
            got = ", ".join(map(str, table.columns)) or "no columns"
            raise InputError(f"table: expected a column '{column}', got {got}")
    if table.empty:
        raise InputError("table: expected at least one row, got none")


def new_axes(ax: Axes | None, *, width: float = 7.0, height: float = 4.0) -> Axes:
    """Return the given axes, or those of a new figure.

    Args:
        ax: Axes to draw into, or None.
        width: Of a new figure, inches.
        height: Of a new figure, inches.

    Example:
        >>> with_style(new_axes)(None, width=3.0).figure.get_size_inches().tolist()
        [3.0, 4.0]
    """
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def add_footer(ax: Axes, table: pd.DataFrame, *notes: str) -> None:
    """Write the protocol of a table, and notes, small below the figure.

    Args:
        ax: Any axes of the figure.
        table: Its column ``protocol`` is told where it has one.
        notes: Short further remarks.

    Example:
        >>> ax = Figure().subplots()
        >>> add_footer(ax, pd.DataFrame({"protocol": ["toy"]}), "95 % intervals")
        >>> ax.figure.get_supxlabel()
        'toy  ·  95 % intervals'
    """
    protocols = list(table["protocol"].unique()) if "protocol" in table else []
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    said = [part for part in figure.get_supxlabel().split("  ·  ") if part]
    lines = dict.fromkeys([*said, *map(str, protocols), *notes])  # each once, in order
    if lines:
        figure.supxlabel("  ·  ".join(lines), fontsize=7, color="#777777", x=0.995, ha="right")


def ring_centres(table: pd.DataFrame) -> pd.Series:
    """Return the middle of each row's frequency ring, cycles per pixel.

    Example:
        >>> ring_centres(pd.DataFrame({"low": [0.0], "high": [0.5]})).tolist()
        [0.25]
    """
    return (table["low"] + table["high"]) / 2


def mark_corners(ax: Axes, *, to: float) -> None:
    """Shade the frequencies above 0.5 cycles per pixel, which only diagonals have.

    Args:
        ax: Axes whose x is a frequency in cycles per pixel.
        to: Highest frequency shown.

    Example:
        >>> ax = Figure().subplots()
        >>> mark_corners(ax, to=0.75)
        >>> ax.texts[0].get_text()
        'corners'
    """
    if to > 0.5:
        ax.axvspan(0.5, to, color="#F3F3F3", zorder=0, linewidth=0)
        ax.annotate(
            "corners",
            (0.5, 1),
            (4, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=7.5,
            color="#777777",
        )


def points_formatter(*, signed: bool = False) -> FuncFormatter:
    """Format a share as percentage points: 0.1 becomes 10, or +10.

    Example:
        >>> points_formatter(signed=True)(0.1, 0), points_formatter(signed=True)(0.0, 0)
        ('+10', '0')
    """
    form = "{:+g}" if signed else "{:g}"
    return FuncFormatter(
        lambda share, _: form.format(round(100 * share, 6)).removesuffix("+0") or "0"
    )


def method_order(methods: Sequence[str]) -> list[str]:
    """List the known methods in their fixed order, then others as they come.

    Example:
        >>> method_order(["mine", "fopro", "ce", "fopro"])
        ['ce', 'fopro', 'mine']
    """
    found = list(dict.fromkeys(methods))
    return [m for m in METHOD_COLORS if m in found] + [m for m in found if m not in METHOD_COLORS]


def method_look(method: str) -> tuple[str, str, str]:
    """Return colour, marker and label of a method; an unknown one is black.

    Example:
        >>> method_look("fopro")
        ('#D55E00', '^', 'FoPro-KD')
    """
    return (
        METHOD_COLORS.get(method, "#111111"),
        METHOD_MARKERS.get(method, "P"),
        METHOD_LABELS.get(method, method),
    )
