"""The explorer's controls: what they are called, their limits and how they lie."""

from collections.abc import Sequence
from typing import get_args

import ipywidgets as widgets
import numpy as np

from fopro_lab.data import Pack
from fopro_lab.errors import InputError
from fopro_lab.lab.bands import STEP, Preset
from fopro_lab.lab.widgets.pins import short_entry

MOST = 4.0  # largest gain of a slider
MODES = {"Rings": "rings", "Bump": "bump", "Learned prompt": "prompt"}
CHANNELS = {"All": -1, "Red": 0, "Green": 1, "Blue": 2}
LEARNED = "learned prompt"
PICTURES = 200  # a chooser with more is no help
# Beside the sliders as long as 480 px are left: who drags must see what the drag does.
BESIDE = {"flex": "1000 1 480px", "max_width": "800px", "min_width": "0"}
ROW = {"flex_flow": "row wrap", "grid_gap": "0 14px"}
LABEL = {"description_width": "9em"}
_FILLING = {"flex": "1 1 0", "width": "auto", "min_width": "0"}
_BUTTON = {"flex": "0 0 5em", "width": "auto"}
_WIDE = {"width": "auto"}  # of the column, which is as wide as the page lets it be


class Controls:
    """All that is moved by hand, with nothing behind it.

    Args:
        labels: Of the rings, a slider each.
        pictures: Label and row of each picture.
        teachers: Entries, as `teacher_of` reads them; the first is asked first.
        students: Names; the first is asked first.

    Example:
        >>> controls = Controls(["0 to 0.5", "0.5 to 0.75"], [("a", 0)], teachers=[], students=[])
        >>> [slider.value for slider in controls.sliders]
        [1.0, 1.0]
    """

    def __init__(
        self,
        labels: Sequence[str],
        pictures: Sequence[tuple[str, int]],
        *,
        teachers: Sequence[str],
        students: Sequence[str],
    ) -> None:
        self.sliders = [_gain(label, "fopro-band-slider") for label in labels]
        self.picture = _choice("Picture", pictures)
        self.teacher = _choice("Teacher", [(short_entry(entry), entry) for entry in teachers])
        self.student = _choice("Student", [*((name, name) for name in students), ("none", "")])
        self.ring = _choice("Ring of a preset", [(label, n) for n, label in enumerate(labels)])
        self.mode = _toggle("Bands by", MODES)
        self.channel = _toggle("Colours", CHANNELS)
        self.phase_lock = widgets.Checkbox(
            True, description="Phase lock (phases are kept)", indent=False, layout=_WIDE
        )
        self.buttons = {
            name: widgets.Button(description=name, layout={"width": "auto", "flex": "1 1 8.5em"})
            for name in [*get_args(Preset), LEARNED]
        }
        self.centre = _slider("Centre, cycles/px", 0.25, 0.0, 0.7, 0.005, ".3f")
        self.width = _slider("Width, cycles/px", 0.1, 0.01, 0.7, 0.005, ".3f")
        self.height = _gain("Gain", "fopro-bump-slider")
        self.path = _text("Prompt file", "prompt.safetensors, or a pin's .yaml")
        self.load = widgets.Button(description="Load", layout=_BUTTON)
        self.name = _text("Name of the pin", "a name, such as low-rings")
        self.pin = widgets.Button(description="Pin", layout=_BUTTON)
        for control, name in self._named().items():
            control.add_class(f"fopro-{name}")
        self.bands = {
            "rings": widgets.VBox(self.sliders),
            "bump": widgets.VBox([self.centre, self.width, self.height]),
            "prompt": widgets.HTML("The prompt that was loaded, as it is."),
        }
        self.show_mode()

    def _named(self) -> dict[widgets.DOMWidget, str]:
        presets = {button: "preset" for button in self.buttons.values()}
        named = ("picture", "teacher", "student", "ring", "mode", "channel", "phase_lock", "load")
        own = {getattr(self, name): f"choose-{name.replace('_', '-')}" for name in named}
        return {**own, **presets, self.pin: "pin", self.name: "pin-name", self.path: "prompt-path"}

    def show_mode(self) -> None:
        """Show the controls of the mode that is chosen, and hide the others."""
        for mode, box in self.bands.items():
            box.layout.display = "" if mode == self.mode.value else "none"

    def show(self, mode: str, centre: float, width: float, *, lock: bool) -> None:
        """Let the controls stand at what is given."""
        self.centre.value, self.width.value = centre, width
        self.phase_lock.value, self.mode.value = lock, mode

    def arranged(self) -> widgets.VBox:
        """Lay the controls out below each other; what has no choice is left out."""
        chosen = [self.picture]
        chosen += [self.teacher] if self.teacher.options else []
        chosen += [self.student] if len(self.student.options) > 1 else []
        heading = widgets.HTML("<b>Gain of the amplitudes</b>, by frequency in cycles per pixel")
        presets = widgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        rows = [
            *chosen, self.mode, self.channel, self.phase_lock, heading, *self.bands.values(),
            self.ring, presets,
            *(widgets.HBox(pair) for pair in ((self.path, self.load), (self.name, self.pin))),
        ]  # fmt: skip
        return widgets.VBox(
            rows, layout={"flex": "1 1 26em", "max_width": "30em", "min_width": "20em"}
        )


def _slider(
    name: str, value: float, low: float, high: float, step: float, form: str
) -> widgets.FloatSlider:
    slider = widgets.FloatSlider(
        value, min=low, max=high, step=step, description=name, readout_format=form,
        style=LABEL, layout=_WIDE,
    )  # fmt: skip
    slider.add_class("fopro-slider")
    return slider


def _gain(name: str, kind: str) -> widgets.FloatSlider:
    slider = _slider(name, 1.0, 0.0, MOST, STEP, ".2f")
    slider.add_class(kind)
    return slider


def _choice(name: str, options: Sequence[tuple[str, object]]) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, description=name, style=LABEL, layout=_WIDE)


def _toggle(name: str, options: dict) -> widgets.ToggleButtons:
    style = {"button_width": "auto", "description_width": "5.5em"}
    return widgets.ToggleButtons(options=options, description=name, style=style)


def _text(name: str, hint: str) -> widgets.Text:
    return widgets.Text(
        description=name, placeholder=hint, style=LABEL, layout=_FILLING,
        continuous_update=False,
    )  # fmt: skip


def named_pictures(pack: Pack, rows: Sequence[int] = ()) -> list[tuple[str, int]]:
    """Name the pictures to choose from, by class and file.

    Args:
        pack: Whose pictures they are.
        rows: Which ones, up to 200; none are the first of each class.

    Returns:
        Label and row of each.

    Raises:
        InputError: If a row is not there, or there are too many.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> named_pictures(pack(open_dataset("phantom", pictures=24), 16), [0])
        [('disc, disc-00000-0', 0)]
    """
    chosen = list(rows) or [int(row) for row in np.unique(pack.labels, return_index=True)[1]]
    if not all(0 <= row < len(pack) for row in chosen) or len(chosen) > PICTURES:
        raise InputError(
            f"rows: expected up to {PICTURES}, from 0 to {len(pack) - 1}, got {chosen[:5]}"
        )
    names, ids = pack.dataset.class_names, pack.dataset.table["image"]
    return [(f"{names[pack.labels[row]]}, {ids.iloc[row]}", row) for row in chosen]
