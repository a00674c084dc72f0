"""The band explorer: move frequencies of a picture, and see at once what that does."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.config import Config
from fopro_lab.data import Pack, Split
from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.lab.bands import BandLens, BandView, preset_gains
from fopro_lab.lab.panels import ProfilePanel, picture_panel, ring_labels
from fopro_lab.lab.widgets.answers import AskedTeacher, SmallSet, read_students
from fopro_lab.lab.widgets.band_state import BandState
from fopro_lab.lab.widgets.controls import BESIDE, LEARNED, ROW, Controls, named_pictures
from fopro_lab.lab.widgets.followers import Followers
from fopro_lab.lab.widgets.pins import differing_knobs, read_prompt_file, told_pin, write_pin
from fopro_lab.lab.widgets.readouts import told_message, told_picture, told_refused
from fopro_lab.lab.widgets.stills import as_base64, contact_sheet
from fopro_lab.models import Teacher


class BandExplorer(widgets.VBox):
    """Scale frequencies of a picture by hand and watch picture, spectrum, profile and networks.

    Picture, spectrum and profile follow each tick of a slider at once. Teacher and student follow
    a quarter of a second after the last one, from one thread beside the kernel, and are marked as
    updating until then; where no event loop runs, `flush` makes them answer.

    Bands are set by rings (a slider each), by one bump (centre, width and gain), or by a learned
    prompt as it is; presets set the rings. Phase lock on, gains change amplitudes alone; off, the
    bands that are changed get other phases, too (see `scale_bands`), which no prompt can hold.
    With one colour chosen, gain sliders move that channel alone; with all, they show the mean of
    the channels and move all of them.

    Where there is no front end, as in an executed notebook or its page, a still takes its place:
    the picture as it is, as set, and with one ring after the other removed and amplified.

    Args:
        pack: Pictures to choose from.
        teacher: Whose drift is shown, or several by name; None leaves it out.
        rings: Equally wide rings up to 0.5 cycles per pixel; the corners add one.
        rows: Which pictures; empty takes the first of every class.
        split: Whose validation pictures teacher and student are asked on; None takes any.
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
        >>> explorer = BandExplorer(pack(open_dataset("phantom", pictures=24), 16), rings=2)
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
        pictures = named_pictures(pack, rows)
        self.pack, self.pins, self.knobs = pack, pins, differing_knobs(configs)
        self.state = BandState(rings=rings, size=pack.size)
        teachers = {teacher.name: teacher} if isinstance(teacher, Teacher) else dict(teacher or {})
        small = SmallSet(pack, split)
        asked = {name: AskedTeacher(t, small, self.edges) for name, t in teachers.items()}
        students, refused = read_students(runs or {}, pack, small, split)
        self.controls = Controls(
            ring_labels(self.edges), pictures, teachers=list(asked), students=list(students)
        )
        self.sliders, self.picture = self.controls.sliders, self.controls.picture
        self.followers = Followers(asked, students)
        self.pictures = widgets.Image(format="png", layout={"max_width": "100%"})
        self.profile = widgets.Image(format="png", layout={"max_width": "100%"})
        self.readout, self.message = widgets.HTML(), widgets.HTML(told_refused(refused))
        self.view: BandView
        self._held = False
        if prompt:
            self._take(prompt if isinstance(prompt, FourierPrompt) else read_prompt_file(prompt))
            self.message.value += told_refused(refused) if refused else ""
        super().__init__(self._arranged())
        self._listen()
        self._choose_picture()

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
        self.picture.observe(self._choose_picture, "value")
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

    def _choose_picture(self, _: Any = None) -> None:
        """Take the picture, and fix the colours and axes by what it is untouched."""
        self.image, _label = self.pack[self.picture.value]
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
        self.pictures.value = picture_panel(self.view, **self._limits)
        self.profile.value = self._profile.draw(self.view)
        self.readout.value = told_picture(self.view)
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
        for name in ("pictures", "profile", "readout", "message"):
            getattr(self, name).add_class(f"fopro-{name}")
        shown = [names, self.pictures, self.profile, self.readout, self.message]
        right = widgets.VBox([*shown, self.followers.box], layout=BESIDE)
        return [widgets.HBox([self.controls.arranged(), right], layout=ROW)]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Show the widget where there is a front end, and the still everywhere else."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "image/png": as_base64(self.still())}
