"""The run comparer: runs side by side, and what a test set of other class shares would say."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fopro_lab.evaluation import Run, load_runs
from fopro_lab.evaluation.prior_tables import PriorShift
from fopro_lab.lab.figures.priors import PriorRows, plot_priors, prior_axes, run_labels, told
from fopro_lab.lab.figures.style import STYLE, method_order, with_interval

DPI = 90
SHOWN = ("Balanced accuracy", "Accuracy", "ECE")  # in the order of the table


class RunComparer(widgets.VBox):
    """Lay runs side by side, and move the class shares of their test set from tail to head.

    The slider's ``s`` gives the classes shares ``~ n_train ** s``: 1 as in training, 0 equal,
    -1 turned round. Nothing is inferred anew: test pictures are weighed, and stored probabilities
    are scaled by new over old share (Saerens et al., 2002). They hold for the training shares
    where cross-entropy trained them, for equal ones where the balanced softmax did; the line
    below the table says which. Without the tick the predictions stay as they are stored.
    Intervals are of lesions or patients drawn as a whole within each class, the same draws for all
    runs; differences to the first run are paired. Where there is no front end, three priors side
    by side take the widget's place.

    Args:
        runs: Run folders, folders that hold some, or runs, all tested on the same pictures.
        resamples: Of the bootstrap, drawn once.
        seed: Of the bootstrap.

    Attributes:
        shift: What is measured.
        slider: The prior's ``s``.
        adjust: Whether predictions are scaled to the prior.
        table: What is shown, see `PriorShift.table`.

    Raises:
        InputError: If the runs were not tested on the same pictures, or there is none.

    Example:
        >>> RunComparer("nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere: no such folder
    """

    def __init__(
        self,
        runs: str | Path | Iterable[str | Path | Run],
        *,
        resamples: int = 400,
        seed: int = 0,
    ) -> None:
        self.shift = PriorShift(_runs(runs), resamples=resamples, seed=seed)
        self._labels = run_labels(self.shift)
        with plt.style.context(STYLE):
            height = max(5.4, 2.2 + 0.36 * len(self.shift.names))
            self.figure = Figure(figsize=(11.2, height), dpi=DPI, layout="constrained")
            self._canvas = FigureCanvasAgg(self.figure)
            self._drawn = PriorRows(prior_axes(self.figure), self.shift)
            self.figure.legend(
                handles=[line for line, _ in self._drawn.points[: len(self._labels)]],
                loc="outside upper left", ncols=4, fontsize=8,
            )  # fmt: skip
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")
            for artist in self._drawn.artists():
                artist.set_animated(True)
            self._canvas.draw()
            self._still = self._canvas.copy_from_bbox(self.figure.bbox)
        self.slider = widgets.FloatSlider(
            0.0, min=-1.0, max=1.0, step=0.1, readout_format="+.1f",
            description="Class shares s (-1 tail-heavy, 0 balanced, 1 as in training)",
            style={"description_width": "26em"}, layout={"width": "44em", "max_width": "100%"},
        )  # fmt: skip
        self.adjust = widgets.Checkbox(
            True, description="Scale the predictions to these shares", indent=False
        )
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self.readout = widgets.HTML()
        for widget, name in (
            (self.slider, "fopro-prior-slider"),
            (self.adjust, "fopro-adjust"),
            (self.picture, "fopro-recalls"),
            (self.readout, "fopro-readout"),
        ):
            widget.add_class(name)
        super().__init__([self.slider, self.adjust, self.picture, self.readout])
        self.add_class("fopro-run-comparer")
        self.table: pd.DataFrame
        for control in (self.slider, self.adjust):
            control.observe(self._redraw, "value")
        self._redraw()

    def still(self) -> Figure:
        """Draw all runs under a tail-heavy, the balanced and the training prior."""
        return plot_priors(self.shift, adjust=self.adjust.value)

    def _redraw(self, _: Any = None) -> None:
        self.table = self.shift.table(self.slider.value, adjust=self.adjust.value)
        self._drawn.move(self.table, self.slider.value)
        self._canvas.restore_region(self._still)
        for artist in self._drawn.artists():
            artist.axes.draw_artist(artist)
        stream = io.BytesIO()
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3]
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
        self.picture.value = stream.getvalue()
        self.readout.value = self._told()

    def _told(self) -> str:
        """Write the means and the calibration error as a table, with paired differences."""
        lines = []
        means = self.table[self.table["metric"] != "recall"].to_dict("records")
        for place, label in enumerate(self._labels):
            cells = [html.escape(label)]
            for row in (each for each in means if each["run"] == place):
                cells.append(with_interval(row["value"], row["low"], row["high"]))
                ends = (row["difference"], row["difference_low"], row["difference_high"])
                cells.append(with_interval(*ends, signed=True) if place else "")
            lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        heads = "".join(f"<th>{name}, %</th><th>minus the first, points</th>" for name in SHOWN)
        rests = html.escape(told(self.shift, adjust=self.adjust.value))
        return (
            f"<table><tr><th>Run</th>{heads}</tr>{''.join(lines)}</table>"
            f"<small>n {len(self.shift.pictures.labels)}  ·  {rests}</small>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the still everywhere else."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stream, still = io.BytesIO(), self.still()
        still.savefig(stream, format="png", dpi=110)
        plt.close(still)  # else a notebook would show it once more
        return {**bundle, "image/png": base64.b64encode(stream.getvalue()).decode()}


def _runs(runs: str | Path | Iterable[str | Path | Run]) -> Sequence[Run]:
    """Find the runs, baselines first: differences are to the first."""
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    found: list[Run] = []
    for each in given:
        found += [each] if isinstance(each, Run) else load_runs(each)
    order = method_order([run.method for run in found])
    return sorted(found, key=lambda run: order.index(run.method))
