"""The band explorer: a slider a frequency ring, and at once what it does to picture and teacher."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fopro_lab.data import Pack
from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_edges
from fopro_lab.lab.bands import BandView, Preset, preset_gains, view_bands
from fopro_lab.lab.figures import plot_pictures
from fopro_lab.lab.panels import ProfilePanel, picture_panel, ring_labels
from fopro_lab.models import Teacher

MOST = 4.0  # largest gain of a slider
PICTURES = 200  # a chooser with more is no help


class BandExplorer(widgets.VBox):
    """Scale frequency rings of a picture by hand and watch picture, spectrum, profile and teacher.

    Where there is no front end, as in an executed notebook or its page, a still takes its place:
    the picture with one ring after the other removed and amplified.

    Args:
        pack: Pictures to choose from.
        teacher: Whose drift is shown; None leaves it out.
        rings: Equally wide rings up to 0.5 cycles per pixel; the corners add one.
        rows: Which pictures; empty takes the first of every class.

    Attributes:
        sliders: One a ring: its gain, 0 to 4, 1 at the start.
        picture: Chooser of the row.
        ring: Chooser of the ring that a preset is about.
        view: What is shown now.

    Raises:
        InputError: If a row is not in the pack, or there are too few or too many.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> explorer = BandExplorer(pack(open_dataset("phantom", pictures=24), 16), rings=2)
        >>> explorer.sliders[0].value = 0.0
        >>> explorer.view.profile["gain"].tolist()
        [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        pack: Pack,
        *,
        teacher: Teacher | None = None,
        rings: int = 8,
        rows: Sequence[int] = (),
    ) -> None:
        chosen = list(rows) or _first_of_each_class(pack)
        if not all(0 <= row < len(pack) for row in chosen) or len(chosen) > PICTURES:
            raise InputError(
                f"rows: expected up to {PICTURES}, from 0 to {len(pack) - 1}, got {chosen[:5]}"
            )
        self.pack, self.teacher, self.edges = pack, teacher, ring_edges(rings)
        self._held = False
        names, ids = pack.dataset.class_names, pack.dataset.table["image"]
        labels = ring_labels(self.edges)
        self.sliders = [
            widgets.FloatSlider(
                1.0, min=0.0, max=MOST, step=0.05, description=label, readout_format=".2f",
                style={"description_width": "7.5em"}, layout={"width": "25em"},
            )
            for label in labels
        ]  # fmt: skip
        self.picture = widgets.Dropdown(
            options=[(f"{names[pack.labels[row]]}, {ids.iloc[row]}", row) for row in chosen],
            description="Picture",
        )
        self.ring = widgets.Dropdown(
            options=[(label, place) for place, label in enumerate(labels)], description="Ring"
        )
        self.buttons = {name: widgets.Button(description=name) for name in get_args(Preset)}
        self.pictures = widgets.Image(format="png", layout={"max_width": "100%"})
        self.profile = widgets.Image(format="png", layout={"max_width": "100%"})
        self.readout = widgets.HTML()
        self.view: BandView
        super().__init__(self._arranged())
        self.picture.observe(self._choose_picture, "value")
        for slider in self.sliders:
            slider.observe(self._redraw, "value")
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self.apply(name, ring=self.ring.value))
        self._choose_picture()

    @property
    def gains(self) -> list[float]:
        """The sliders' values."""
        return [slider.value for slider in self.sliders]

    def apply(self, preset: str, *, ring: int) -> None:
        """Set all sliders to a preset, with one redraw.

        Args:
            preset: See `fopro_lab.lab.bands.preset_gains`.
            ring: Which ring it is about, from 0.
        """
        values = preset_gains(preset, ring=ring, rings=len(self.sliders))
        with self._one_redraw():
            for slider, value in zip(self.sliders, values, strict=True):
                slider.value = value

    def still(self) -> Figure:
        """Draw the picture with each ring removed, then amplified, and the teacher's drift."""
        image, _ = self.pack[self.picture.value]
        labels = ring_labels(self.edges)
        views = [("as it is", self._look(image, [1.0] * len(labels)))]
        for preset in ("remove", "amplify"):
            for ring, label in enumerate(labels):
                gains = preset_gains(preset, ring=ring, rings=len(labels))
                views.append((f"{preset} {label}", self._look(image, gains)))
        titles = [
            name if view.drift is None else f"{name}\ndrift {max(view.drift, 0):.4f}"
            for name, view in views
        ]
        return plot_pictures(np.stack([view.after for _, view in views]), titles, columns=5)

    def _look(self, image: Any, gains: Sequence[float]) -> BandView:
        return view_bands(image, gains, edges=self.edges, teacher=self.teacher)

    def _choose_picture(self, _: Any = None) -> None:
        """Take the picture, and fix the colours and axes by what it is untouched."""
        self.image, _label = self.pack[self.picture.value]
        plain = self._look(self.image, [1.0] * len(self.sliders))
        self._limits = {"floor": plain.spectrum.min(), "ceiling": plain.spectrum.max()}
        self._profile = ProfilePanel(plain)
        self._redraw()

    def _redraw(self, _: Any = None) -> None:
        if self._held:
            return
        self.view = self._look(self.image, self.gains)
        self.pictures.value = picture_panel(self.view, **self._limits)
        self.profile.value = self._profile.draw(self.view)
        drift = (
            "" if self.view.drift is None else f"Teacher drift {self.view.drift:.4f} (1 - cos). "
        )
        self.readout.value = f"{drift}{self.view.clipped:.1%} of the values leave [0, 1]."

    @contextmanager
    def _one_redraw(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._redraw()

    def _arranged(self) -> list[widgets.Widget]:
        heading = widgets.HTML("<b>Gain of each ring</b>, by frequency in cycles per pixel")
        names = widgets.HTML("Before, after, and log amplitude with the edges of changed rings")
        presets = widgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        left = widgets.VBox([self.picture, heading, *self.sliders, self.ring, presets],
                            layout={"max_width": "27em"})  # fmt: skip
        right = widgets.VBox([names, self.pictures, self.profile, self.readout])
        return [widgets.HBox([left, right], layout={"flex_flow": "row wrap"})]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the still everywhere else."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stream, still = io.BytesIO(), self.still()
        still.savefig(stream, format="png", dpi=110)
        plt.close(still)  # else a notebook would show it once more
        return {**bundle, "image/png": base64.b64encode(stream.getvalue()).decode()}


def _first_of_each_class(pack: Pack) -> list[int]:
    labels = pack.labels
    return [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
