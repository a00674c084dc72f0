"""The figure of a source's fingerprint: which ring tells the source, and which the class."""

import pandas as pd
from matplotlib.axes import Axes

from fopro_lab.lab.figures.style import (
    add_footer,
    in_house_style,
    mark_corners,
    need,
    new_axes,
    ring_centres,
)

ASKED = {
    ("source", "all"): ("source", "#D55E00", "o", "-"),
    ("source", "each class"): ("source, within each class", "#D55E00", "o", (0, (2, 1.5))),
    ("class", "all"): ("class", "#0072B2", "^", "-"),
    ("class", "each source"): ("class, within each source", "#0072B2", "^", (0, (2, 1.5))),
}


@in_house_style
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
