"""What all figures share: the style, fixed colours, footers, common axes, and saving as PNG."""

import operator
import re
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar
from unicodedata import east_asian_width

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from fopro_lab.arguments import checked
from fopro_lab.errors import InputError, printable
from fopro_lab.evaluation import method_label
from fopro_lab.io import atomic_path, say_once

P = ParamSpec("P")
Drawn = TypeVar("Drawn")

STYLE = Path(__file__).parent / "fopro.mplstyle"

# Okabe & Ito's colours, distinguishable with any colour vision; markers repeat the message.
METHOD_COLORS = {"ce": "#666666", "bsm": "#0072B2", "ekd": "#009E73",
                 "fopro": "#D55E00", "random": "#CC79A7"}  # fmt: skip
# Often drawn together, so no two of these look alike.
_OFTEN = ["logit-adjustment", "focal", "class-balanced", "ldam", "ldam-drw",
          *(f"bsm+{term}" for term in ("kd", "dkd", "fitnet", "rkd", "sp")),
          *map("ce+{}".format, ("logit-adjustment", "tau-norm", "crt", "lws", "tta"))]  # fmt: skip
METHOD_MARKERS = {"ce": "s", "bsm": "o", "ekd": "D", "fopro": "^", "random": "v"}
# Paul Tol's high-contrast scheme: differs in lightness too, so it survives grey printing.
GROUP_COLORS = {"head": "#004488", "medium": "#B8860B", "tail": "#BB5566", "": "#333333"}
DASHED = (0, (4, 1.5))
# Fonts of the usual systems for what DejaVu Sans has not.
_OTHERS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "SimHei",
           "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "WenQuanYi Micro Hei",
           "Yu Gothic", "Malgun Gothic", "Arial Unicode MS")  # fmt: skip
LONGEST = 40  # columns of a name in a figure


@cache
def style() -> list[Any]:
    """Return the style and the fonts that are installed."""
    fonts = [name for name in ("DejaVu Sans", *_OTHERS) if name in get_font_names()]
    return [STYLE, {"font.family": fonts}]


def _widths(text: str) -> list[int]:
    return [1 + (east_asian_width(letter) in "WF") for letter in text]


def shown(text: str, longest: int = LONGEST) -> str:
    """Write a user's text for a figure: a ``$`` begins no formula, a long text loses its middle."""
    text = printable(text, but="\n").replace(r"\$", "$")
    wide = _widths(text)
    if max(wide, default=1) > 1 and not set(_OTHERS) & set(style()[1]["font.family"]):
        missing = "no font here has Chinese, Japanese or Korean letters"
        say_once(f"figures: {missing}; add Noto Sans CJK")
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
    if sum(wide) > longest:
        ends, place = np.cumsum(wide), np.searchsorted
        head = int(place(ends, longest // 2 - 1, side="right"))
        tail = int(place(ends, ends[-1] - (longest - 1) // 2))
        text = f"{text[:head].rstrip()}…{text[tail + 1 :].lstrip()}"
    return text.replace("$", r"\$")


def _shown(value: Any) -> Any:
    """Make every text of a plot's argument one to be `shown`; names that differ stay different."""
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    if not isinstance(value, pd.DataFrame):
        return shown(value) if isinstance(value, str) else value
    columns = [name for name in value.select_dtypes(exclude="number") if name != "protocol"]
    cells = (cell for name in columns for cell in value[name])
    names: dict[str, str] = {}
    for text in dict.fromkeys(each for each in (*value.columns, *cells) if isinstance(each, str)):
        short, taken = shown(text), list(names.values())
        names[text] = short if short not in taken else f"{short} ({len(taken)})"
    for name in columns if any(map(operator.ne, names, names.values())) else ():
        texts = [names[cell] if isinstance(cell, str) else cell for cell in value[name]]
        value = value.assign(**{name: texts})
    return value.rename(columns=names)


def with_style(plot: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """Make a function draw under the style and leave the reader's own settings alone."""
    drawing = checked(plot)

    @wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Drawn:
        with plt.style.context(style()):
            drawn = drawing(*map(_shown, args), **{k: _shown(v) for k, v in kwargs.items()})
            interactive = plt.isinteractive()
        # A notebook's backend switches this on with the first figure; the context would put it
        # back, and the notebook would never show a second one.
        matplotlib.interactive(interactive)
        return drawn

    return styled


def save_figure(figure: Figure | Axes, path: Path | str) -> Path:
    """Write a figure, or the one of some axes, as PNG: the same bytes for the same figure.

    A path that does not end in ``.png`` is an `InputError`. If the file cannot be written, there is
    none, and a `WorkError`.
    """
    if Path(path).suffix != ".png":
        raise InputError(f"{path}: expected a name that ends in .png")
    whole = figure if isinstance(figure, Figure) else figure_of(figure)
    with plt.style.context(style()), atomic_path(path) as temporary:
        # The layout of square axes settles in its second pass; the first would clip labels.
        whole.draw_without_rendering()
        # No program name and version inside: they would change the bytes with every update.
        whole.savefig(temporary, format="png", dpi=170, metadata={"Software": None})
    return Path(path)


def need(table: pd.DataFrame, columns: str = "") -> None:
    """Refuse a table without rows, or without one of the columns, words, that the figure reads."""
    for column in columns.split():
        if column not in table:
            got = ", ".join(map(str, table.columns)) or "no columns"
            raise InputError(f"table: expected a column '{column}', got {got}")
    if table.empty:
        raise InputError("table: expected at least one row, got none")


def new_axes(ax: Axes | None, *, width: float = 7.0, height: float = 4.0) -> Axes:
    """Return the given axes, or those of a new figure of some size in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def room(labels: Iterable[str]) -> float:
    """Return the inches by which labels beside the axes make a figure wider: 12 letters do not."""
    lines = (line for label in labels for line in str(label).split("\n"))
    return 0.08 * max([0, *(sum(_widths(line)) - 12 for line in lines)])


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that axes are in."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def add_footer(ax: Axes, table: pd.DataFrame, *notes: str) -> None:
    """Write a table's protocol, where it has one, and notes small below the figure of the axes."""
    figure = figure_of(ax)
    protocols = map(str, table["protocol"].unique()) if "protocol" in table else ()
    written = re.split(r"\s+·\s+", figure.get_supxlabel().replace("\n", " "))
    texts = [*written, *(shown(text, 10**6) for text in (*protocols, *notes))]
    if footer := "  ·  ".join(dict.fromkeys(filter(None, texts))):  # each once
        footer = textwrap.fill(footer, int(18 * figure.get_figwidth()))
        figure.supxlabel(footer, fontsize=7, color="#777777", x=0.995, ha="right")


def figure_title(figure: Figure, text: str) -> None:
    """Write the title of a figure of several axes, at the left as those of single axes are."""
    figure.suptitle(text, fontsize=11.5, fontweight="bold", x=0.01, ha="left")


def label_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Name the rows of an axis that counts downwards."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def log_axis(ax: Axes, which: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic, with plain numbers."""
    ax.set(**{f"{which}scale": "log"})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def legend_beside(ax: Axes) -> None:
    """Put the legend right of the axes, where it hides nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def write_beside(ax: Axes, y: float, text: str, *, offset: float = 7, **look: Any) -> None:
    """Write a number at the height ``y``, ``offset`` points right of the axes."""
    usual: dict[str, Any] = {"va": "center", "fontsize": 8, "color": "#444444"}
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate(text, (1, y), (offset, 0), annotation_clip=False, **at, **usual | look)


def color_group_labels(ax: Axes, groups: Sequence[str]) -> None:
    """Colour the labels of the y axis by head, medium and tail, one group per label."""
    for tick, group in zip(ax.get_yticklabels(), groups, strict=True):
        tick.set_color(GROUP_COLORS.get(group, GROUP_COLORS[""]))


def color_bar(ax: Axes, image: AxesImage, label: str, *, width: float = 0.03) -> Axes:
    """Draw the colour scale of an image right of its axes; return the scale's own axes."""
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, width, 1)))
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar.ax


def draw_matrix(
    ax: Axes, cells: pd.DataFrame, texts: pd.DataFrame, clear: pd.DataFrame, **colors: Any
) -> AxesImage:
    """Draw a table's numbers in colours about 0 and write them; what is clear bold and framed."""
    image = ax.imshow(cells, aspect="auto", **colors)
    for y, x in zip(*np.nonzero(cells.notna().to_numpy()), strict=True):
        color = "white" if abs(cells.iloc[y, x]) > 0.6 * image.get_clim()[1] else "#222222"
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
        frame = {"facecolor": "none", "edgecolor": color, "pad": 2}
        look |= {"weight": "bold", "bbox": frame} if clear.iloc[y, x] else {}
        ax.text(x, y, texts.iloc[y, x], **look)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)
    return image


def ring_line(ax: Axes, rows: pd.DataFrame, value: str, *, color: Any, **look: Any) -> None:
    """Draw a column over the frequency rings, with a band from ``_low`` to ``_high`` if any."""
    own, ends = rows.sort_values("low"), [f"{value}_low", f"{value}_high"]
    x = (own["low"] + own["high"]) / 2
    ax.plot(x, own[value], color=color, **look)
    if set(ends) <= set(own):
        ax.fill_between(x, *own[ends].to_numpy().T, color=color, alpha=0.15, linewidth=0)


def ring_axis(ax: Axes, edges: Sequence[float] | pd.Series | np.ndarray) -> None:
    """Prepare an x axis of radial frequencies up to the last edge; shade those of diagonals."""
    top = float(np.max(edges))
    ax.set(xlim=(0, top), xlabel="Spatial frequency, cycles per pixel")
    if top > 0.5:
        ax.axvspan(0.5, top, color="#F3F3F3", zorder=0, linewidth=0)
        look: dict[str, Any] = {"va": "top", "fontsize": 7.5, "color": "#777777"}
        at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        ax.annotate("corners", (0.5, 1), (4, -3), **at, **look)


def gain_axes(ax: Axes, edges: Sequence[float] | np.ndarray, *, bound: float) -> None:
    """Prepare axes for gains by ring: logarithmic, ``bound`` octaves about 1."""
    ring_axis(ax, edges)
    ax.axhline(1, color="#333333", linewidth=1, zorder=1)
    ax.set_yscale("log", base=2)
    ax.set_ylim(2 ** (-1.08 * bound), 2 ** (1.08 * bound))
    step = next(s for s in (0.05, 0.125, 0.25, 0.5, 1, 2, 4) if 2 * bound / s <= 8 or s == 4)
    octaves = np.arange(np.ceil(-bound / step), bound / step + 1e-9) * step
    ax.yaxis.set_major_locator(FixedLocator(list(2**octaves)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(r"$\times$ {x:.2f}")


def panels(
    count: int, *, columns: int, wide: float, tall: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Make so many panels, of a width and height in inches, in rows of ``columns``."""
    across = min(columns, count)
    down = -(-count // across)
    size = (wide * across, tall * down)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, **shared)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, list(axes.flat[:count])


def draw_plane(ax: Axes, plane: np.ndarray, *, down: bool = False, **colors: Any) -> AxesImage:
    """Draw a plane of frequencies in ``fftshift`` order, with circles at 0.25 and 0.5 cycles/pixel.

    With ``down`` rows count downwards, as in an image, so that a wave runs as it is seen there.
    """
    ends = [(-(side // 2 + 0.5) / side, (side - side // 2 - 0.5) / side) for side in plane.shape]
    (bottom, top), (left, right) = ends
    if down:
        plane, bottom, top = plane[::-1], -top, -bottom
    image = ax.imshow(plane, origin="lower", extent=(left, right, bottom, top), **colors)
    for radius in (0.25, 0.5):
        ring = plt.Circle((0, 0), radius, fill=False, lw=0.7, ls=(0, (3, 3)))
        ring.set_edgecolor("#BBBBBB" if down else "#555555")
        ax.add_patch(ring)
    ax.set(xticks=[-0.5, -0.25, 0, 0.25, 0.5], yticks=[-0.5, -0.25, 0, 0.25, 0.5])
    ax.set(xlim=(left, right), ylim=(bottom, top), ylabel="Vertical frequency, cycles per pixel")
    ax.set_xlabel("Horizontal frequency, cycles per pixel")
    ax.grid(visible=False)
    return image


def points_formatter(*, signed: bool = False) -> FuncFormatter:
    """Format a share as percentage points: 0.1 becomes 10, or +10."""

    def write(share: float, _: Any) -> str:
        points = round(100 * share, 6) or 0.0
        return f"{points:+g}" if signed and points else f"{points:g}"

    return FuncFormatter(write)


def method_order(methods: Sequence[str]) -> list[str]:
    """List the known methods in their fixed order, then others as they come."""
    return sorted(set(methods), key=[*METHOD_COLORS, *methods].index)


def method_look(method: str) -> tuple[str, str, str]:
    """Return colour, marker and label of a method; one that is no preset has those of its name."""
    number = _OFTEN.index(method) if method in _OFTEN else zlib.crc32(method.encode())
    hue, light = 5 * number % 12, 0.65 if number // 12 % 2 else 0.45
    color = METHOD_COLORS.get(method) or sns.husl_palette(12, l=light).as_hex()[hue]
    marker = METHOD_MARKERS.get(method, "Pp*X<>hd"[(number + number // 24) % 8])
    return color, marker, method_label(method)
