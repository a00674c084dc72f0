"""The run comparer: runs side by side, and what a test set of other class shares would say."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fopro_lab.evaluation import Run, load_runs
from fopro_lab.evaluation.prior_shift import PriorShift
from fopro_lab.evaluation.runs import MaskHistory, Source, read_mask_histories
from fopro_lab.plots.prompts import (
    add_gain_bar,
    draw_mask,
    octave_bound,
    plot_mask_history,
    style_ring_axes,
    time_label,
)
from fopro_lab.plots.results import PriorRows, plot_priors, prior_axes, prior_footer, run_labels
from fopro_lab.plots.style import METHOD_COLORS, STYLE, method_order, with_interval

NOW, LAST = METHOD_COLORS["fopro"], "#555555"
DPI = 90


class FilmPanel:
    """Masks and ring gains of some films, drawn into one figure again and again.

    Axes, labels and the last mask's ring gains are drawn once; a tick draws what moves, and the
    colours mean the same at every time.

    Args:
        films: A column each.

    Example:
        >>> planes, edges = np.ones((1, 4, 4)), np.array([0, 0.75])
        >>> film = MaskHistory("a", [(1, 0)], planes, np.ones((1, 1)), edges)
        >>> FilmPanel([film]).draw((1, 0))[1:4]
        b'PNG'
    """

    def __init__(self, films: Sequence[MaskHistory]) -> None:
        self.films = films
        bound = octave_bound(films)
        with plt.style.context(STYLE):
            self.figure = Figure(
                figsize=(1.3 + 3.4 * len(films), 6.2), dpi=DPI, layout="constrained"
            )
            self.canvas = FigureCanvasAgg(self.figure)
            upper, lower = self.figure.subplots(
                2, len(films), squeeze=False, height_ratios=(1.6, 1)
            )
            self.images = [
                draw_mask(ax, film.planes[-1], bound=bound)
                for ax, film in zip(upper, films, strict=True)
            ]
            self.titles = [
                ax.set_title(time_label(film.times[-1]), loc="left", fontsize=9)
                for ax, film in zip(upper, films, strict=True)
            ]
            self.lines = [self._rings(ax, f, bound) for ax, f in zip(lower, films, strict=True)]
            for ax, film in zip(upper, films, strict=True):
                what = "" if film.whole else " (ring means)"
                ax.set_xlabel(f"Horizontal frequency, cycles per pixel\n{film.name}{what}")
            upper[0].set_ylabel("Vertical frequency,\ncycles per pixel")
            lower[0].set_ylabel("Mean gain of the ring")
            add_gain_bar(self.figure, self.images[0], list(upper), bound=bound)
            circles = [patch for ax in upper for patch in ax.patches]  # above their mask
            self._moving = [*self.images, *circles, *self.titles, *self.lines]
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")
            for artist in self._moving:
                artist.set_animated(True)
            self.canvas.draw()
            self._still = self.canvas.copy_from_bbox(self.figure.bbox)

    def _rings(self, ax: Axes, film: MaskHistory, bound: float) -> Line2D:
        style_ring_axes(ax, film.edges, bound=bound)
        ax.stairs(film.rings[-1], film.edges, baseline=None, color=LAST, ls="--", label="last")
        (line,) = ax.step(
            film.edges, _steps(film.rings[-1]), where="post", color=NOW, linewidth=2, label="now"
        )
        ax.set_xlabel("Spatial frequency, cycles per pixel")
        ax.legend(loc="best", fontsize=8, ncols=2)
        return line

    def draw(self, time: tuple[int, int]) -> bytes:
        """Return the figure as PNG bytes.

        Args:
            time: Exploration and step; each film shows its mask of then.
        """
        for film, image, title, line in zip(
            self.films, self.images, self.titles, self.lines, strict=True
        ):
            place = film.at(time)
            image.set_data(np.log2(film.planes[place]))
            title.set_text(time_label(film.times[place]))
            line.set_ydata(_steps(film.rings[place]))
        self.canvas.restore_region(self._still)
        with plt.style.context(STYLE):
            for artist in self._moving:
                artist.axes.draw_artist(artist)
        stream = io.BytesIO()
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3]
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
        return stream.getvalue()


def _steps(heights: np.ndarray) -> np.ndarray:
    """One height an edge, the last repeated."""
    return np.append(heights, heights[-1])


PACE = 400  # milliseconds a mask while it plays


class PromptViewer(widgets.VBox):
    """Watch masks move while they are explored: a time slider, the plane, and the rings.

    Red amplifies, blue damps, white is gain 1; the scale is logarithmic and the same at all times
    and for all runs. A run that was not looked at just then shows its last mask before. The last
    mask of an exploration is the prompt that was kept, which need not be that of the last step.
    Where there is no front end, first, middle and last mask of each run take the widget's place.

    Args:
        runs: A run folder, a `Run`, or a table (see `read_mask_history`); or several,
            as a list or with titles as a mapping.

    Attributes:
        films: What is shown.
        times: Exploration and step of each place of the slider.
        slider: Chooses the time.

    Raises:
        InputError: If a run has no masks, or there is no run.

    Example:
        >>> import pandas as pd
        >>> viewer = PromptViewer(pd.DataFrame({"exploration": 1, "step": [0, 4], "low": 0.0,
        ...                                     "high": 0.75, "gain": [1.0, 1.5]}))
        >>> viewer.slider.index = 0
        >>> viewer.time
        (1, 0)
    """

    def __init__(self, runs: Source | Iterable[Source] | Mapping[str, Source]) -> None:
        self.films = read_mask_histories(runs)
        self.times = sorted({time for film in self.films for time in film.times})
        self._panel = FilmPanel(self.films)
        last = len(self.times) - 1
        self.slider = widgets.SelectionSlider(
            options=[(f"{number}, {step}", (number, step)) for number, step in self.times],
            index=last,
            description="Exploration, step",
            style={"description_width": "9em"},
            layout={"width": "34em", "max_width": "100%"},
        )
        self.play = widgets.Play(
            min=0, max=last, value=0, interval=PACE, description="Play", show_repeat=False
        )
        self.image = widgets.Image(format="png", layout={"max_width": "100%"})
        self.slider.add_class("fopro-time-slider")
        self.image.add_class("fopro-masks")
        widgets.jslink((self.play, "value"), (self.slider, "index"))
        super().__init__(
            [widgets.HBox([self.play, self.slider], layout={"flex_flow": "row wrap"}), self.image]
        )
        self.add_class("fopro-prompt-viewer")
        self.slider.observe(self._redraw, "index")
        self._redraw()

    @property
    def time(self) -> tuple[int, int]:
        """Exploration and step that are shown."""
        return self.times[self.slider.index]

    def still(self) -> Figure:
        """Draw first, middle and last mask of each run, and their gain ring by ring."""
        return plot_mask_history(self.films)

    def _redraw(self, _: Any = None) -> None:
        self.image.value = self._panel.draw(self.time)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the still everywhere else."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stream, still = io.BytesIO(), self.still()
        still.savefig(stream, format="png", dpi=110)
        plt.close(still)  # else a notebook would show it once more
        return {**bundle, "image/png": base64.b64encode(stream.getvalue()).decode()}


RUN_COMPARER_DPI = 90
SHOWN = ("Balanced accuracy", "Accuracy", "ECE")  # in the order of the table


class RunComparer(widgets.VBox):
    """Lay runs side by side, and move the class shares of their test set from tail to head.

    The slider's ``s`` gives the classes shares ``~ n_train ** s``: 1 as in training, 0 equal,
    -1 turned round. Nothing is inferred anew: test images are weighed, and stored probabilities
    are scaled by new over old share (Saerens et al., 2002). They hold for the training shares
    where cross-entropy trained them, for equal ones where the balanced softmax did; the line
    below the table says which. Without the tick the predictions stay as they are stored.
    Intervals are of lesions or patients drawn as a whole within each class, the same draws for all
    runs; differences to the first run are paired. Where there is no front end, three priors side
    by side take the widget's place.

    Args:
        runs: Run folders, folders that hold some, or runs, all tested on the same images.
        resamples: Of the bootstrap, drawn once.
        seed: Of the bootstrap.

    Attributes:
        shift: What is measured.
        slider: The prior's ``s``.
        adjust: Whether predictions are scaled to the prior.
        table: What is shown, see `PriorShift.table`.

    Raises:
        InputError: If the runs were not tested on the same images, or there is none.

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
            self.figure = Figure(figsize=(11.2, height), dpi=RUN_COMPARER_DPI, layout="constrained")
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
        self.image = widgets.Image(format="png", layout={"max_width": "100%"})
        self.readout = widgets.HTML()
        for widget, name in (
            (self.slider, "fopro-prior-slider"),
            (self.adjust, "fopro-adjust"),
            (self.image, "fopro-recalls"),
            (self.readout, "fopro-readout"),
        ):
            widget.add_class(name)
        super().__init__([self.slider, self.adjust, self.image, self.readout])
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
        self.image.value = stream.getvalue()
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
        rests = html.escape(prior_footer(self.shift, adjust=self.adjust.value))
        return (
            f"<table><tr><th>Run</th>{heads}</tr>{''.join(lines)}</table>"
            f"<small>n {len(self.shift.images.labels)}  ·  {rests}</small>"
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
