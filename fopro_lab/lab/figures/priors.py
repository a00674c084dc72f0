"""Figures of runs under a prior: class recalls, means, calibration, and the shares themselves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fopro_lab.lab.figures.style import in_house_style, method_look, points_formatter

if TYPE_CHECKING:
    from fopro_lab.evaluation.prior_tables import PriorShift

WHOLE = {
    "balanced_accuracy": "balanced\naccuracy",
    "accuracy": "accuracy\nunder the prior",
    "ece": "calibration\nerror (ECE)",
}
SPREAD = 0.62  # of the runs of one row
SHARES = "#999999"


def run_labels(shift: "PriorShift") -> list[str]:
    """Name each run by method and seed, and by its folder where these come twice.

    Args:
        shift: With the runs.

    Returns:
        A label a run.
    """
    labels = [f"{method_look(run.method)[2]}, seed {run.seed}" for run in shift.runs]
    return [
        label if labels.count(label) == 1 else f"{label} ({run.name})"
        for label, run in zip(labels, shift.runs, strict=True)
    ]


def prior_name(strength: float) -> str:
    """Name a prior.

    Example:
        >>> prior_name(-1), prior_name(0), prior_name(0.5)
        ('tail-heavy (-1.0)', 'balanced (0)', 'head-heavy (+0.5)')
    """
    if not strength:
        return "balanced (0)"
    return f"{'head' if strength > 0 else 'tail'}-heavy ({strength:+.1f})"


class PriorRows:
    """Points with intervals of some runs on three axes, which can be moved without a new figure.

    Args:
        axes: For the class recalls, the means and calibration, and the classes' shares.
        shift: With the runs.
    """

    def __init__(self, axes: Sequence[Axes], shift: "PriorShift") -> None:
        self.shift, self.axes = shift, axes
        sizes = shift.pictures.class_sizes()
        classes = [f"{name}  n={sizes[name]}" for name in shift.names]
        total = f"\nn={len(shift.pictures.labels)}"
        whole = [f"{label}{total if name == 'accuracy' else ''}" for name, label in WHOLE.items()]
        self.points: list[tuple[Line2D, LineCollection]] = []
        for ax, names in zip(axes[:2], (classes, whole), strict=True):
            self.points += [self._point(ax, place) for place in range(len(shift.runs))]
            _rows(ax, names)
            ax.set_xlim(-0.02, 1.02)
            ax.xaxis.set_major_formatter(points_formatter())
        axes[0].set_xlabel("Recall, % (95 % interval)")
        axes[1].set_xlabel("% (95 % interval)")
        (self.shares,) = axes[2].plot([], [], "o", color=SHARES, markersize=6)
        _rows(axes[2], [str(name) for name in shift.names])
        axes[2].set_xscale("log")
        axes[2].set_xlim(min(shift.prior(1.0).min(), shift.prior(-1.0).min()) * 70, 150)
        axes[2].set_xlabel("Share of the class in the test set, %")
        axes[2].tick_params(axis="y", labelsize=7)

    def artists(self) -> list[Any]:
        """List what moves."""
        return [*(artist for pair in self.points for artist in reversed(pair)), self.shares]

    def move(self, table: pd.DataFrame, strength: float) -> None:
        """Move all points.

        Args:
            table: Of `PriorShift.table`.
            strength: Of the prior.
        """
        runs = len(self.shift.runs)
        numbers = table[["value", "low", "high"]].to_numpy()
        of_class, of_run = (table["metric"] == "recall").to_numpy(), table["run"].to_numpy()
        for number, (line, bars) in enumerate(self.points):
            part = numbers[(of_run == number % runs) & (of_class == (number < runs))]
            rows = np.arange(len(part)) + self._offset(number % runs)
            line.set_data(part[:, 0], rows)
            bars.set_segments(list(np.stack([part[:, 1:], np.stack([rows, rows], axis=1)], axis=2)))
        shares = self.shift.prior(strength)[np.argsort(-self.shift.counts, kind="stable")]
        self.shares.set_data(100 * shares, np.arange(len(shares)))

    def _point(self, ax: Axes, place: int) -> tuple[Line2D, LineCollection]:
        run = self.shift.runs[place]
        color, marker, _ = method_look(run.method)
        twins = [each for each in self.shift.runs[:place] if each.method == run.method]
        face = "white" if len(twins) % 2 else color
        (line,) = ax.plot(
            [], [], marker, color=color, markerfacecolor=face, markersize=6,
            label=run_labels(self.shift)[place],
        )  # fmt: skip
        bars = LineCollection([], colors=color, linewidths=1.6)
        ax.add_collection(bars, autolim=False)
        return line, bars

    def _offset(self, place: int) -> float:
        count = len(self.shift.runs)
        return SPREAD * (place - (count - 1) / 2) / max(count, 2)


def prior_axes(figure: Figure) -> list[Axes]:
    """Lay out the three axes of `PriorRows`.

    Example:
        >>> len(prior_axes(Figure()))
        3
    """
    grid = figure.add_gridspec(2, 2, width_ratios=(1.35, 1), height_ratios=(1.25, 1))
    return [figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1])]


@in_house_style
def plot_priors(shift: "PriorShift", *, adjust: bool = True) -> Figure:
    """Draw all runs under a tail-heavy, a balanced and a head-heavy prior.

    Args:
        shift: With the runs.
        adjust: As of `PriorShift.table`.

    Returns:
        The figure: a column a prior, class recalls above, means and calibration below.

    Example:
        >>> from types import SimpleNamespace
        >>> from fopro_lab.evaluation.prior_tables import PriorShift
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": "", "source": "", "split": "test",
        ...     "label": [0, 1], "logit_nv": [1.0, 0.0], "logit_df": [0.0, 1.0]})
        >>> run = SimpleNamespace(name="a", method="ce", seed=0, protocol="p", predictions=table,
        ...     config={"method": "ce"}, manifest={"class_counts": [9, 1]},
        ...     groups={"nv": "head", "df": "tail"})
        >>> len(plot_priors(PriorShift([run], resamples=10)).axes)
        9
    """
    rows = len(shift.names)
    figure, axes = plt.subplots(
        3, 3, figsize=(13, 4.8 + 0.36 * rows), layout="constrained", squeeze=False,
        height_ratios=(max(rows, 4), 4, 4),
    )  # fmt: skip
    for column, strength in enumerate((-1.0, 0.0, 1.0)):
        drawn = PriorRows(list(axes[:, column]), shift)
        drawn.move(shift.table(strength, adjust=adjust), strength)
        axes[0, column].set_title(prior_name(strength), loc="left")
    figure.legend(
        handles=[line for line, _ in drawn.points[: len(shift.runs)]],
        loc="outside upper left", ncols=4, fontsize=8,
    )  # fmt: skip
    figure.supxlabel(told(shift, adjust=adjust), fontsize=7, color="#777777", x=0.995, ha="right")
    return figure


def told(shift: "PriorShift", *, adjust: bool) -> str:
    """Say what the numbers rest on: protocol, resamples and the priors of the probabilities.

    Args:
        shift: With the runs.
        adjust: As of `PriorShift.table`.

    Returns:
        One line.
    """
    kinds = sorted(set(shift.implicit))
    held = "  ·  ".join(
        f"{kind} prior: "
        + ", ".join(
            dict.fromkeys(
                run.method
                for run, own in zip(shift.runs, shift.implicit, strict=True)
                if own == kind
            )
        )
        for kind in kinds
    )
    done = "scaled to the prior, where theirs is known" if adjust else "as stored"
    unit = "lesions or patients" if shift.pictures.resampled == "group" else "pictures"
    return (
        f"{shift.runs[0].protocol}  ·  probabilities hold for the {held}; {done}  ·  "
        f"resampled: {unit}"
    )


def _rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
