"""Prompt viewer and run comparer: a prompt's mask history, and runs under another class prior."""

import html
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from fopro_lab.evaluation import Run, load_runs, with_interval
from fopro_lab.evaluation.prior_shift import PriorShift
from fopro_lab.evaluation.runs import Source, read_mask_histories
from fopro_lab.plots.prompts import plot_mask_history
from fopro_lab.plots.results import plot_priors, prior_footer, run_labels
from fopro_lab.plots.style import method_order
from fopro_lab.widgets.bands import StillBox, figure_bytes

DPI = 90
_MEANS = {"balanced_accuracy": "Balanced accuracy", "accuracy": "Accuracy", "ece": "ECE"}
FULL_WIDTH = {"max_width": "100%"}


class PromptViewer(StillBox):
    """Watch masks change during prompt training: a time slider, the plane, and the rings.

    Red amplifies, blue damps, white is gain 1; the scale is logarithmic and always the same. A run
    without a mask at the chosen time shows its last one before. The last mask of each round is the
    prompt that was kept, which need not be that of its last step. Without a front end, the first,
    middle and last mask of each run are drawn.

    Args:
        runs: A run folder, a folder of notebook 03 or a `Run`; or several of them, as a list or
            with titles as a mapping.

    Raises:
        InputError: If a run has no masks, or there is no run.
    """

    def __init__(self, runs: Source | Iterable[Source] | Mapping[str, Source]) -> None:
        self.histories = read_mask_histories(runs)
        self.times = sorted({time for history in self.histories for time in history.times})
        self.slider = widgets.SelectionSlider(
            options=[(f"{number}, {step}", (number, step)) for number, step in self.times],
            index=len(self.times) - 1, description="Prompt training, step",
            style={"description_width": "11em"}, layout={"width": "34em", **FULL_WIDTH},
        )  # fmt: skip
        self.slider.add_class("fopro-time-slider")
        self.image = widgets.Image(format="png", layout=FULL_WIDTH).add_class("fopro-masks")
        self._drawn: dict[tuple[int, int], bytes] = {}  # a second look is at once
        super().__init__([self.slider, self.image])
        self.add_class("fopro-prompt-viewer")
        self.slider.observe(self._redraw, "index")
        self._redraw()

    @property
    def time(self) -> tuple[int, int]:
        """Round of prompt training and step that are shown."""
        return self.times[self.slider.index]

    def still(self) -> Figure:
        """Draw first, middle and last mask of each run, and their gain ring by ring."""
        return plot_mask_history(self.histories)

    def _redraw(self, _: Any = None) -> None:
        if self.time not in self._drawn:
            figure = plot_mask_history(self.histories, time=self.time)
            self._drawn[self.time] = figure_bytes(figure, dpi=DPI)
        self.image.value = self._drawn[self.time]


class RunComparer(StillBox):
    """Compare runs side by side while the class shares of their test set move from tail to head.

    The slider's ``s`` gives the classes shares ``~ n_train ** s``: 1 as in training, 0 equal, -1
    inverted. No network runs again: see `PriorShift`; the line below the table says which shares
    the stored probabilities hold for. With the box unticked, predictions stay as they are stored.
    Without a front end, three priors are drawn in rows.

    Args:
        runs: Run folders, folders that hold some, or runs, all tested on the same images.
        resamples: Bootstrap resamples, drawn once.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If the runs were not tested on the same images, or there is none.
    """

    table: pd.DataFrame  # what is shown, see `PriorShift.table`

    def __init__(
        self, runs: str | Path | Iterable[str | Path | Run], *, resamples: int = 400, seed: int = 0
    ) -> None:
        given = [runs] if isinstance(runs, str | Path) else list(runs)
        nested = ([each] if isinstance(each, Run) else load_runs(each) for each in given)
        found = list(chain.from_iterable(nested))
        order = method_order([run.method for run in found])
        found.sort(key=lambda run: order.index(run.method))  # differences are to a baseline
        self.shift = PriorShift(found, resamples=resamples, seed=seed)
        self._labels = run_labels(self.shift)
        self.slider = widgets.FloatSlider(
            0.0, min=-1.0, max=1.0, step=0.1, readout_format="+.1f",
            description="Class shares s (-1 tail-heavy, 0 balanced, 1 as in training)",
            style={"description_width": "26em"}, layout={"width": "44em", **FULL_WIDTH},
        )  # fmt: skip
        about = "Scale the predictions to these shares"
        self.adjust = widgets.Checkbox(True, description=about, indent=False)
        self.image = widgets.Image(format="png", layout=FULL_WIDTH)
        self.readout = widgets.HTML()
        named = {"prior-slider": self.slider, "adjust": self.adjust, "recalls": self.image,
                 "readout": self.readout}  # fmt: skip
        for name, widget in named.items():
            widget.add_class(f"fopro-{name}")
        super().__init__(list(named.values()))
        self.add_class("fopro-run-comparer")
        for control in (self.slider, self.adjust):
            control.observe(self._redraw, "value")
        self._redraw()

    def still(self) -> Figure:
        """Draw all runs under a tail-heavy, the balanced and the training prior."""
        return plot_priors(self.shift, adjust=self.adjust.value)

    def _redraw(self, _: Any = None) -> None:
        strength, adjust = self.slider.value, self.adjust.value
        self.table = self.shift.table(strength, adjust=adjust)
        figure = plot_priors(self.shift, strengths=[strength], adjust=adjust)
        self.image.value = figure_bytes(figure, dpi=DPI)
        self.readout.value = self._readout()

    def _readout(self) -> str:
        """Write means and calibration error as an HTML table, with paired differences."""
        rows: dict[str, dict[str, str]] = {label: {} for label in self._labels}
        for row in self.table[self.table["metric"] != "recall"].to_dict("records"):
            own, name = rows[self._labels[row["run"]]], _MEANS[row["metric"]]
            own[f"{name}, %"] = with_interval(row["value"], row["low"], row["high"])
            ends = (row[f"difference{end}"] for end in ("", "_low", "_high"))
            apart = with_interval(*ends, signed=True) if row["run"] else ""
            own[f"{name} minus the first, points"] = apart
        table = pd.DataFrame(rows).T.rename(lambda label: label.replace(r"\$", "$"))  # no figure
        footer = html.escape(prior_footer(self.shift, adjust=self.adjust.value))
        shown = f"n {len(self.shift.images.labels)}  ·  {footer}"
        return f"{table.to_html(border=0)}<small>{shown}</small>"
