"""The data set of a band explorer, chosen by hand; the bands stay as they are."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.config import Config, DataConfig, TeacherConfig
from fopro_lab.data import Pack, Split, prepare
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import load_runs
from fopro_lab.fourier import FourierPrompt, ring_edges, ring_gain
from fopro_lab.models import Teacher, load_from
from fopro_lab.plots import plot_images
from fopro_lab.widgets.bands import (
    STEP,
    BandLens,
    BandView,
    Preset,
    ProfilePanel,
    bump_gains,
    differing_knobs,
    image_panel,
    preset_gains,
    read_prompt_file,
    ring_labels,
    ring_means,
    ring_prompt,
    short_entry,
    teacher_of,
    told_pin,
    write_pin,
)
from fopro_lab.widgets.networks import (
    AskedStudent,
    AskedTeacher,
    Change,
    Followers,
    SmallSet,
    read_students,
    told_image,
    told_message,
    told_refused,
)

MOST = 4.0  # largest gain of a slider
MODES = {"Rings": "rings", "Bump": "bump", "Learned prompt": "prompt"}
CHANNELS = {"All": -1, "Red": 0, "Green": 1, "Blue": 2}
LEARNED = "learned prompt"
IMAGES = 200  # a chooser with more is no help
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
        images: Label and row of each image.
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
        images: Sequence[tuple[str, int]],
        *,
        teachers: Sequence[str],
        students: Sequence[str],
    ) -> None:
        self.sliders = [_gain(label, "fopro-band-slider") for label in labels]
        self.image = _choice("Image", images)
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
        named = ("image", "teacher", "student", "ring", "mode", "channel", "phase_lock", "load")
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
        chosen = [self.image]
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


def named_images(pack: Pack, rows: Sequence[int] = ()) -> list[tuple[str, int]]:
    """Name the images to choose from, by class and file.

    Args:
        pack: Whose images they are.
        rows: Which ones, up to 200; none are the first of each class.

    Returns:
        Label and row of each.

    Raises:
        InputError: If a row is not there, or there are too many.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> named_images(pack(open_dataset("phantom", images=24), 16), [0])
        [('disc, disc-00000-0', 0)]
    """
    chosen = list(rows) or [int(row) for row in np.unique(pack.labels, return_index=True)[1]]
    if not all(0 <= row < len(pack) for row in chosen) or len(chosen) > IMAGES:
        raise InputError(
            f"rows: expected up to {IMAGES}, from 0 to {len(pack) - 1}, got {chosen[:5]}"
        )
    names, ids = pack.dataset.class_names, pack.dataset.table["image"]
    return [(f"{names[pack.labels[row]]}, {ids.iloc[row]}", row) for row in chosen]


FINE = 64  # rings up to 0.5 cycles per pixel that a bump is made of, as many as a prompt may have


@dataclass(eq=False)
class BandState:
    """What the controls mean, without any widget.

    Attributes:
        rings: Equally wide rings up to 0.5 cycles per pixel; the corners add one.
        size: Side of the images, pixels.
        mode: ``rings``, ``bump`` or ``prompt``.
        gains: ``(3, rings + 1)``, by channel.
        heights: ``(3,)``, the bump's gain at its centre, by channel.
        centre: Of the bump, cycles per pixel.
        width: Its full width at half of the change, cycles per pixel.
        prompt: The one that was loaded.
        phase_lock: See `scale_bands`.

    Example:
        >>> state = BandState(rings=2, size=8)
        >>> state.gains[:, 0] = 2.0
        >>> state.change().gain[0, 0, 1].item()
        2.0
    """

    rings: int
    size: int
    mode: str = "rings"
    centre: float = 0.25
    width: float = 0.1
    prompt: FourierPrompt | None = None
    phase_lock: bool = True
    gains: np.ndarray = field(init=False)
    heights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.gains, self.heights = np.ones((3, self.rings + 1)), np.ones(3)

    @property
    def edges(self) -> list[float]:
        """Of the rings of the sliders, cycles per pixel."""
        return ring_edges(self.rings)

    def radial(self) -> np.ndarray:
        """Gains of rings ``(3, R)`` that act in the modes rings and bump."""
        if self.mode == "rings":
            return self.gains
        edges = ring_edges(FINE)
        return np.array(
            [bump_gains(h, centre=self.centre, width=self.width, edges=edges) for h in self.heights]
        )

    def change(self, image: Tensor | None = None) -> Change:
        """Return what acts now.

        Args:
            image: ``(3, H, W)``, for a prompt whose gain depends on the image.
        """
        size = (self.size, self.size)
        if self.mode == "prompt" and self.prompt is not None:
            prompt = self.prompt
            if prompt.form == "image" and image is not None:
                with torch.no_grad():
                    return Change(prompt.gain(image[None])[0], prompt, self.phase_lock)
            with torch.no_grad():
                return Change(prompt.mean_gain(size=size), None, self.phase_lock)
        gains = self.radial()
        rows = gains[:1] if (gains == gains[:1]).all() else gains
        gain = ring_gain(
            torch.from_numpy(rows).float(),
            ring_edges(gains.shape[1] - 1),
            height=self.size,
            width=self.size,
        )
        return Change(gain, None, self.phase_lock)

    def pinned(self) -> FourierPrompt:
        """Return what acts now as a prompt.

        Raises:
            InputError: If phases are let loose, which no prompt does.
        """
        if not self.phase_lock:
            raise InputError(
                "phase lock: expected on, since a prompt scales amplitudes alone; got off"
            )
        if self.mode == "prompt" and self.prompt is not None:
            return self.prompt
        return ring_prompt(self.radial(), size=self.size)

    def take(self, prompt: FourierPrompt) -> str:
        """Keep a prompt, and set the rings' gains to its ring means.

        Returns:
            What the rings tell of it, in words.
        """
        self.prompt = prompt
        with torch.no_grad():
            gain = prompt.mean_gain(size=(self.size, self.size))
        means, told = ring_means(gain, self.edges, width=self.size)
        # Half a thousandth is below what a slider moves; a removed ring is six millionths.
        rounded = means.round(3)
        self.gains = np.broadcast_to(rounded.clip(0, MOST), self.gains.shape).copy()
        over = f" Gains above {MOST:g} stand at {MOST:g}." if rounded.max() > MOST else ""
        return (
            f"The sliders take its mean in each ring, which explains {told:.0%} of its "
            f"log gain (squares, about gain 1).{over}"
        )

    def take_over(self, other: "BandState") -> None:
        """Take all but the size from another one.

        Raises:
            InputError: If that has another number of rings.
        """
        if other.rings != self.rings:
            raise InputError(f"rings: expected {self.rings}, got {other.rings}")
        self.mode, self.phase_lock, self.prompt = other.mode, other.phase_lock, other.prompt
        self.centre, self.width = other.centre, other.width
        self.gains, self.heights = other.gains.copy(), other.heights.copy()


def contact_sheet(
    image: Tensor,
    state: BandState,
    now: Change,
    *,
    networks: tuple[AskedTeacher | None, AskedStudent | None] = (None, None),
) -> Figure:
    """Draw an image as it is, as set, and with each ring removed, then amplified.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        state: Whose rings.
        now: What is set; left out where it changes nothing.
        networks: A teacher, whose drift of this image stands above each, and a student, whose
            change of mean recall on its small set does, in points; None leaves one out.

    Returns:
        The figure.

    Example:
        >>> state = BandState(rings=1, size=16)
        >>> image = torch.rand(3, 16, 16)
        >>> len(contact_sheet(image, state, state.change()).axes)
        5
    """
    lens, images, titles = BandLens(image), [], []
    teacher, student = networks
    for name, change in _changes(state, now):
        view = lens.look(change.gain, phase_lock=change.phase_lock)
        lines = [name]
        if teacher is not None:
            lines.append(f"drift {teacher.drift(image, change):.4f}")
        if student is not None:
            points = 100 * student.ask(image, change).change
            lines.append(f"recall {points:+.1f} points")
        images.append(view.after)
        titles.append("\n".join(lines))
    return plot_images(np.stack(images), titles, columns=5)


def as_base64(figure: Figure) -> str:
    """Turn a figure into the text of a PNG, as a notebook's output holds it, and close it.

    Example:
        >>> as_base64(Figure(figsize=(1, 1)))[:8]
        'iVBORw0K'
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    plt.close(figure)  # else a notebook would show it once more
    return base64.b64encode(stream.getvalue()).decode()


def _changes(state: BandState, now: Change) -> Iterator[tuple[str, Change]]:
    count, size = state.rings + 1, state.size
    yield "as it is", Change(torch.ones_like(now.gain))
    if bool((now.gain != 1).any()):
        yield "as set", now
    for preset in ("remove", "amplify"):
        for ring, label in enumerate(ring_labels(state.edges)):
            gains = torch.tensor([preset_gains(preset, ring=ring, rings=count)])
            gain = ring_gain(gains, state.edges, height=size, width=size)
            yield f"{preset} {label}", Change(gain)


class BandExplorer(widgets.VBox):
    """Scale frequencies of an image by hand and watch image, spectrum, profile and networks.

    Image, spectrum and profile follow each tick of a slider at once. Teacher and student follow
    a quarter of a second after the last one, from one thread beside the kernel, and are marked as
    updating until then; where no event loop runs, `flush` makes them answer.

    Bands are set by rings (a slider each), by one bump (centre, width and gain), or by a learned
    prompt as it is; presets set the rings. Phase lock on, gains change amplitudes alone; off, the
    bands that are changed get other phases, too (see `scale_bands`), which no prompt can hold.
    With one colour chosen, gain sliders move that channel alone; with all, they show the mean of
    the channels and move all of them.

    Where there is no front end, as in an executed notebook or its page, a still takes its place:
    the image as it is, as set, and with one ring after the other removed and amplified.

    Args:
        pack: Images to choose from.
        teacher: Whose drift is shown, or several by name; None leaves it out.
        rings: Equally wide rings up to 0.5 cycles per pixel; the corners add one.
        rows: Which images; empty takes the first of every class.
        split: Whose validation images teacher and student are asked on; None takes any.
        runs: Run folders of trained students, by name.
        prompt: A learned prompt, or its file, that the sliders start from.
        configs: Of data and teacher: what a pin keeps beside the prompt.
        pins: Folder of the pins.

    Attributes:
        controls, state: All that is moved, and where the bands stand.
        view: What is shown now.
        followers: Teacher and student.

    Raises:
        InputError: If rows, a student or the prompt do not fit or cannot be read.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> explorer = BandExplorer(pack(open_dataset("phantom", images=24), 16), rings=2)
        >>> explorer.sliders[0].value = 0.0
        >>> explorer.gains
        [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        pack: Pack,
        *,
        teacher: Teacher | Mapping[str, Teacher] | None = None,
        rings: int = 8,
        rows: Sequence[int] = (),
        split: Split | None = None,
        runs: Mapping[str, Path | str] | None = None,
        prompt: FourierPrompt | Path | str | None = None,
        configs: Sequence[Config] = (),
        pins: Path | str = "pins",
    ) -> None:
        images = named_images(pack, rows)
        self.pack, self.pins, self.knobs = pack, pins, differing_knobs(configs)
        self.state = BandState(rings=rings, size=pack.size)
        teachers = {teacher.name: teacher} if isinstance(teacher, Teacher) else dict(teacher or {})
        small = SmallSet(pack, split)
        asked = {name: AskedTeacher(t, small, self.edges) for name, t in teachers.items()}
        students, refused = read_students(runs or {}, pack, small, split)
        self.controls = Controls(
            ring_labels(self.edges), images, teachers=list(asked), students=list(students)
        )
        self.sliders, self.image = self.controls.sliders, self.controls.image
        self.followers = Followers(asked, students)
        self.images = widgets.Image(format="png", layout={"max_width": "100%"})
        self.profile = widgets.Image(format="png", layout={"max_width": "100%"})
        self.readout, self.message = widgets.HTML(), widgets.HTML(told_refused(refused))
        self.view: BandView
        self._held = False
        if prompt:
            self._take(prompt if isinstance(prompt, FourierPrompt) else read_prompt_file(prompt))
            self.message.value += told_refused(refused) if refused else ""
        super().__init__(self._arranged())
        self._listen()
        self._choose_image()

    @property
    def edges(self) -> list[float]:
        """Of the sliders' rings, cycles per pixel."""
        return self.state.edges

    @property
    def gains(self) -> list[float]:
        """The sliders' values."""
        return [slider.value for slider in self.sliders]

    @property
    def teacher(self) -> Teacher:
        """The teacher that is chosen; an `InputError` where there is none."""
        return self.followers.needed_teacher().teacher

    def apply(self, preset: str, *, ring: int) -> None:
        """Set the rings to a preset, with one redraw, and the mode to rings.

        Args:
            preset: See `preset_gains`; or ``learned prompt``, the ring means of the loaded one.
            ring: Which ring it is about, from 0.
        """
        with self._one_redraw():
            if preset == LEARNED:
                if self.state.prompt is not None:
                    self._take(self.state.prompt)
                else:
                    self._say_no_prompt()
            else:
                values = preset_gains(preset, ring=ring, rings=len(self.sliders))
                self.state.gains[self._channels()] = values
            self.controls.mode.value = "rings"
            self._show_gains()

    def load(self, path: Path | str) -> bool:
        """Load a prompt or a pin; False, with a message, where it cannot be read.

        Sliders take its ring means; the mode `prompt` shows all of it.
        """
        try:
            prompt = read_prompt_file(path)
        except InputError as error:
            self.message.value = told_message(str(error))
            return False
        with self._one_redraw():
            self._take(prompt)
        return True

    def take_over(self, bands: BandState) -> None:
        """Set all bands as they stand in another explorer with as many rings."""
        with self._one_redraw():
            self.state.take_over(bands)
            self.controls.show(bands.mode, bands.centre, bands.width, lock=bands.phase_lock)
            self._show_gains()

    def pin(self, name: str) -> bool:
        """Write what acts now as a prompt and a file of knobs; nothing is overwritten.

        Returns:
            Whether it was; the message says what to do with it, or why not.
        """
        knobs = self.followers.name_teacher(self.knobs)
        try:
            pin = write_pin(name, self.state.pinned(), folder=self.pins, knobs=knobs)
        except (InputError, WorkError) as error:
            self.message.value = told_message(str(error))
            return False
        self.message.value = told_message(told_pin(pin))
        return True

    def flush(self) -> None:
        """Let teacher and student answer now, where they are pending."""
        self.followers.flush()

    def still(self) -> Figure:
        """Draw the contact sheet, with the teacher's drift and the student's change of recall."""
        networks = (self.followers.teacher_now, self.followers.student_now)
        return contact_sheet(
            self.image, self.state, self.state.change(self.image), networks=networks
        )

    def drift_over(self, images: Tensor, units: np.ndarray) -> dict[str, float]:
        """Measure the chosen teacher's mean drift under what is set; see `AskedTeacher`."""
        asked = self.followers.needed_teacher()
        return asked.drift_over(images, self.state.change(self.image), units)

    def _channels(self) -> Any:
        chosen = self.controls.channel.value
        return slice(None) if chosen < 0 else chosen

    def _take(self, prompt: FourierPrompt) -> None:
        told = self.state.take(prompt)
        self.message.value = told_message(f"Prompt of the form {prompt.form} loaded. {told}")
        self._show_gains()

    def _say_no_prompt(self) -> None:
        self.message.value = told_message("learned prompt: load one first, none is there")

    def _show_gains(self) -> None:
        """Let the gain sliders show the chosen channel, or the mean of all."""
        held, self._held = self._held, True
        own = self.state.gains[self._channels()].reshape(-1, len(self.sliders)).mean(axis=0)
        for slider, value in zip(self.sliders, own, strict=True):
            slider.value = round(float(value), 6)
        self.controls.height.value = float(np.mean(self.state.heights[self._channels()]))
        self._held = held

    def _listen(self) -> None:
        controls = self.controls
        self.image.observe(self._choose_image, "value")
        for place, slider in enumerate(self.sliders):
            slider.observe(partial(self._move, place), "value")
        for control in (controls.centre, controls.width, controls.height, controls.phase_lock):
            control.observe(self._move_bump, "value")
        controls.mode.observe(self._choose_mode, "value")
        controls.channel.observe(lambda _: self._show_gains(), "value")
        controls.teacher.observe(self._choose_network, "value")
        controls.student.observe(self._choose_network, "value")
        for name, button in controls.buttons.items():
            button.on_click(lambda _, name=name: self.apply(name, ring=controls.ring.value))
        controls.load.on_click(lambda _: self.load(controls.path.value.strip()))
        controls.pin.on_click(lambda _: self.pin(controls.name.value.strip()))

    def _move(self, place: int, change: Any) -> None:
        if not self._held:
            self.state.gains[self._channels(), place] = change["new"]
            self._redraw()

    def _move_bump(self, _: Any) -> None:
        if not self._held:
            controls = self.controls
            self.state.centre, self.state.width = controls.centre.value, controls.width.value
            self.state.heights[self._channels()] = controls.height.value
            self.state.phase_lock = controls.phase_lock.value
            self._redraw()

    def _choose_mode(self, change: Any) -> None:
        if change["new"] == "prompt" and self.state.prompt is None:
            self._say_no_prompt()
            self.controls.mode.value = change["old"]
            return
        self.state.mode = change["new"]
        self.controls.show_mode()
        self._redraw()

    def _choose_network(self, _: Any) -> None:
        self.followers.choose(self.controls.teacher.value, self.controls.student.value)
        self._redraw()

    def _choose_image(self, _: Any = None) -> None:
        """Take the image, and fix the colours and axes by what it is untouched."""
        self.image, _label = self.pack[self.image.value]
        self._lens = BandLens(self.image)
        plain = self._lens.look(BandState(self.state.rings, self.state.size).change().gain)
        self._limits = {"floor": plain.spectrum.min(), "ceiling": plain.spectrum.max()}
        self._profile = ProfilePanel(plain)
        self._redraw()

    def _redraw(self) -> None:
        if self._held:
            return
        now = self.state.change(self.image)
        steps = self.state.mode == "rings"
        self.view = self._lens.look(now.gain, phase_lock=now.phase_lock, steps=steps)
        self.images.value = image_panel(self.view, **self._limits)
        self.profile.value = self._profile.draw(self.view)
        self.readout.value = told_image(self.view)
        self.followers.ask(self.image, now)

    @contextmanager
    def _one_redraw(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._redraw()

    def _arranged(self) -> list[widgets.Widget]:
        names = widgets.HTML("Before, after, and log amplitude with the border of what is changed")
        for name in ("images", "profile", "readout", "message"):
            getattr(self, name).add_class(f"fopro-{name}")
        shown = [names, self.images, self.profile, self.readout, self.message]
        right = widgets.VBox([*shown, self.followers.box], layout=BESIDE)
        return [widgets.HBox([self.controls.arranged(), right], layout=ROW)]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the still everywhere else."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "image/png": as_base64(self.still())}


def open_explorer(
    config: DataConfig,
    asked: TeacherConfig,
    *,
    more_datasets: Sequence[str] = (),
    more_teachers: Sequence[str] = (),
    runs: Path | str = "",
    prompt: Path | str = "",
    **given: Any,
) -> "DatasetChooser":
    """Open a data set, its teachers and students in a band explorer; others to choose from.

    Args:
        config: Of the data set, and with another name of the others.
        asked: Of the teacher.
        more_datasets: Names, folders or CSVs; each is opened when it is chosen.
        more_teachers: Entries ``NAME``, or ``NAME=FILE`` with the file of its weights.
        runs: A run folder, or one that holds some; students of the first data set.
        prompt: A saved prompt, or a pin; the sliders start as it is.
        given: Further arguments of `BandExplorer`.

    Raises:
        InputError: If something is not there or does not fit.

    Example:
        >>> config = DataConfig(images=24, image_size=16)
        >>> chooser = open_explorer(config, TeacherConfig(), rings=2)
        >>> chooser.explorer.controls.teacher.value
        'builtin'
    """
    first = {asked.teacher: load_from(asked)}
    teachers = first | {entry: load_from(teacher_of(entry)) for entry in more_teachers}

    def explore(own: DataConfig, **more: Any) -> BandExplorer:
        packed, split = prepare(own)
        configs = [own, asked]
        return BandExplorer(packed, teacher=teachers, split=split, configs=configs, **given, **more)

    students = {run.name: run.path for run in load_runs(runs)} if str(runs) else {}
    explorer = explore(config, prompt=prompt, runs=students)
    explorer.controls.mode.value = "prompt" if str(prompt) else "rings"
    others = {
        name: partial(explore, config.model_copy(update={"dataset": name}))
        for name in more_datasets
    }
    return DatasetChooser(explorer, name=config.dataset, others=others)


class DatasetChooser(widgets.VBox):
    """Band explorers of several data sets, of which one is shown.

    Args:
        explorer: Shown first.
        name: Of its data set.
        others: By name of a data set, what builds its explorer, with as many rings. It is called
            when the data set is first chosen; what it made is kept.

    Attributes:
        explorer: The one that is shown.
        dataset, message: The choice, and what is said of it.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> def build(number):
        ...     return BandExplorer(pack(open_dataset("phantom", images=number), 16), rings=2)
        >>> chooser = DatasetChooser(build(24), name="a", others={"b": lambda: build(32)})
        >>> chooser.explorer.sliders[0].value = 0.0
        >>> chooser.dataset.value = "b"
        >>> len(chooser.explorer.pack), chooser.explorer.gains
        (32, [0.0, 1.0, 1.0])
    """

    def __init__(
        self,
        explorer: BandExplorer,
        *,
        name: str,
        others: Mapping[str, Callable[[], BandExplorer]],
    ) -> None:
        self.explorer = explorer
        self._explorers, self._builders = {name: explorer}, dict(others)
        self.dataset = widgets.Dropdown(
            options=[name, *others], description="Dataset", style=LABEL, layout={"width": "27em"}
        )
        self.dataset.add_class("fopro-choose-dataset")
        self.message = widgets.HTML()
        super().__init__()
        self._show()
        self.dataset.observe(self._choose, "value")

    def _choose(self, change: Any) -> None:
        name = change["new"]
        if self._explorers.get(name) is self.explorer:  # back, after one that could not be opened
            return
        try:
            if name not in self._explorers:
                self.message.value = told_message(f"{name}: opening ...")
                self._explorers[name] = self._builders[name]()
            self._explorers[name].take_over(self.explorer.state)
            _choose_alike(self._explorers[name].controls, self.explorer.controls)
        except Exception as error:  # whatever it was, the name shown is that of the images shown
            told = error if isinstance(error, (InputError, WorkError)) else repr(error)
            self.message.value = told_message(str(told))
            self.dataset.value = change["old"]
            return
        self.explorer, self.message.value = self._explorers[name], ""
        self._show()

    def _show(self) -> None:
        choice = [widgets.HBox([self.dataset, self.message])] if self._builders else []
        self.children = [*choice, self.explorer]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the explorer's still everywhere else."""
        own = super()._repr_mimebundle_(**kwargs) or {}
        return {**self.explorer._repr_mimebundle_(**kwargs), **own}


def _choose_alike(here: Controls, there: Controls) -> None:
    """Choose the colour and, where it is among the choices, the teacher that is chosen there."""
    here.channel.value = there.channel.value
    if there.teacher.value in [value for _, value in here.teacher.options]:
        here.teacher.value = there.teacher.value
