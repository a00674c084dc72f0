"""The prompt viewer: a learned mask over its exploration, several runs side by side."""

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from fopro_lab.lab.figures.films import plot_films
from fopro_lab.lab.films import Source, films_of
from fopro_lab.lab.widgets.film_panel import FilmPanel

PACE = 400  # milliseconds a mask while it plays


class PromptViewer(widgets.VBox):
    """Watch masks move while they are explored: a time slider, the plane, and the rings.

    Red amplifies, blue damps, white is gain 1; the scale is logarithmic and the same at all times
    and for all runs. A run that was not looked at just then shows its last mask before. The last
    mask of an exploration is the prompt that was kept, which need not be that of the last step.
    Where there is no front end, first, middle and last mask of each run take the widget's place.

    Args:
        runs: A run folder, a `Run`, or a table (see `fopro_lab.lab.films.film_of`); or several,
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
        self.films = films_of(runs)
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
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self.slider.add_class("fopro-time-slider")
        self.picture.add_class("fopro-masks")
        widgets.jslink((self.play, "value"), (self.slider, "index"))
        super().__init__(
            [widgets.HBox([self.play, self.slider], layout={"flex_flow": "row wrap"}), self.picture]
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
        return plot_films(self.films)

    def _redraw(self, _: Any = None) -> None:
        self.picture.value = self._panel.draw(self.time)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the still everywhere else."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stream, still = io.BytesIO(), self.still()
        still.savefig(stream, format="png", dpi=110)
        plt.close(still)  # else a notebook would show it once more
        return {**bundle, "image/png": base64.b64encode(stream.getvalue()).decode()}
