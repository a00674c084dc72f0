"""The band explorer: sliders over frequency bands, and what they do to an image."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from html import escape
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import Any, get_args

import ipywidgets as widgets
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.config import DataConfig, ExploreConfig, TeacherConfig
from fopro_lab.data import Pack, Split, batches, prepare
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Run, load_runs
from fopro_lab.evaluation.scores import class_groups, groups_from
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import Teacher, load_from
from fopro_lab.plots import plot_images
from fopro_lab.training import TrainedRun
from fopro_lab.widgets import bands, networks
from fopro_lab.widgets.panels import Panel

MODES = {"Rings": "rings", "Bump": "bump", "Learned prompt": "prompt"}
CHANNELS = {"All": -1, "Red": 0, "Green": 1, "Blue": 2}
LABELS = {"identity": "Reset", "learned prompt": "Set the rings to its means"}  # of buttons
PRESETS = (*get_args(bands.Preset), "learned prompt")
# Pack, split, options for presets, and head, medium or tail for each class.
OpenedData = tuple[Pack, Split | None, Mapping[str, Any], Mapping[str, str]]
WHOLE = " It acts as learned, by direction too; moving a slider goes on from its ring means."
BY_HAND = "Changed by hand, from the ring means of the loaded prompt."
NO_PROMPT = "learned prompt: none is loaded; load one first"
RADIAL = 0.95  # share of a prompt's log gain that rings explain, from which sliders stand for it
CHOICES, STRIP = 160, 8  # images to choose from, and of the strip, at most
# Options of data that may differ from a run's: where files lie, and what changes no image.
MAY_DIFFER = {"dataset", "image_dir", "split_files", "group_rule"}
_COLORS = (np.array(colormaps["viridis"].colors) * 255).astype(np.uint8)  # type: ignore[attr-defined]


class Controls:
    """Everything that is moved by hand, with nothing behind it, and the boxes that hold it."""

    def __init__(
        self, edges: Sequence[float], *, datasets: Sequence[str], teachers: Sequence[str]
    ) -> None:
        rings = [(label, place) for place, label in enumerate(_ring_labels(edges))]
        upright = {"orientation": "vertical", "readout": len(rings) < 14}
        self.sliders = [_slider(label, "band-slider", **upright) for label, _ in rings]
        for slider, (low, high) in zip(self.sliders, pairwise(edges), strict=True):
            width = min(high, bands.CORNER) - low
            slider.layout.flex = f"{1000 * width:.0f} 1 0"  # as wide as its ring
            slider.tooltip = f"{slider.description} cycles per pixel"
        self.dataset = _choice("Dataset", "choose-dataset", options=datasets)
        self.image = _choice("Image", "choose-image")
        self.teacher = _choice("Teacher", "choose-teacher", options=teachers)
        self.student = _choice("Classes by", "choose-student")
        self.ring = _choice("Ring", "choose-ring", options=rings)
        toggles = partial(_make, widgets.ToggleButtons, style={"button_width": "auto"})
        self.mode = toggles("Bands by", "choose-mode", options=MODES)
        self.channel = toggles("Colours", "choose-channel", options=CHANNELS)
        self.phase_lock = _make(
            widgets.Checkbox, "Phase lock (phases are kept)", "choose-phase-lock",
            value=True, indent=False, style={},
        )  # fmt: skip
        self.buttons = {name: _button(LABELS.get(name, name), "preset") for name in PRESETS}
        narrow = {"max": 0.7, "step": 0.005, "readout_format": ".3f"}
        self.centre = _slider("Centre, cycles/px", "bump-centre", value=0.25, **narrow)
        self.width = _slider("Width, cycles/px", "bump-width", value=0.1, min=0.01, **narrow)
        self.height = _slider("Gain", "bump-slider")
        self.path = _text("Prompt file", "prompt-path", placeholder="a prompt, or a preset's .yaml")
        self.name = _text("Save as", "preset-name", placeholder="a name, such as low-rings")
        self.load, self.save = _button("Load", "load"), _button("Save", "save")
        self.next = _button("Next image", "next")
        self.worst = _button("Which band hurts this class most?", "worst")
        self.bands = {
            "rings": widgets.HBox(self.sliders).add_class("fopro-sliders"),
            "bump": widgets.VBox([self.centre, self.width, self.height]),
        }
        _show(self.dataset, len(datasets) > 1)
        _show(self.teacher, bool(teachers))
        self.show_mode()
        reset, *presets, learned = self.buttons.values()
        self.top = _row(self.dataset, self.image, self.next, self.teacher, self.student)
        self.below = _row(reset, self.ring, *presets, self.name, self.save)
        more = [_row(self.mode, self.channel, self.phase_lock), _row(self.path, self.load, learned)]
        self.more = widgets.Accordion(
            [widgets.VBox(more)], titles=["Bump, learned prompt, single colours, phases"]
        ).add_class("fopro-more")

    def show_data(self, images: Sequence[tuple[str, int]], students: Sequence[str]) -> None:
        """Offer the images and classifiers of a data set."""
        self.image.options = images
        self.student.options = [*((name, name) for name in students), ("none", "")]
        self.image.index = self.student.index = 0
        _show(self.student, bool(students))
        _show(self.worst, bool(students))

    def show_mode(self) -> None:
        """Show the controls of the chosen mode alone; those of a prompt are the rings'."""
        for mode, box in self.bands.items():
            _show(box, (mode == "bump") == (self.mode.value == "bump"))


def _show(widget: widgets.DOMWidget, visible: bool) -> None:
    widget.layout.display = "" if visible else "none"


def _row(*children: widgets.Widget) -> widgets.HBox:
    return widgets.HBox(children).add_class("fopro-row")


def _make(kind: type[widgets.DOMWidget], label: str, css: str, **traits: Any) -> Any:
    """Make a labelled widget with a CSS class, by which tests and style sheets find it."""
    given = {"style": {"description_width": "auto"}, "layout": {"width": "auto"}, **traits}
    return kind(description=label, **given).add_class(f"fopro-{css}")


_choice = partial(_make, widgets.Dropdown)
_button = partial(_make, widgets.Button, style={})
_text = partial(_make, widgets.Text, continuous_update=False)


def _slider(label: str, css: str, **traits: Any) -> widgets.FloatSlider:
    gain = {"value": 1.0, "max": bands.MAX_GAIN, "step": bands.GAIN_STEP, "readout_format": ".2f"}
    return _make(widgets.FloatSlider, label, css, **{**gain, **traits}).add_class("fopro-slider")


def _ring_labels(edges: Sequence[float]) -> list[str]:
    return [f"{low:.3g} to {min(high, bands.CORNER):.3g}" for low, high in pairwise(edges)]


def _message(text: str) -> str:
    """Write what a button did, or why it did nothing; several lines are kept."""
    lines = "<br>".join(escape(text).splitlines())
    return f'<div role="status">{lines}</div>'


def _left_out(reasons: Sequence[str]) -> str:
    """Write how many runs are not offered, and why the first of them is not."""
    count = f"{len(reasons)} run{'s' if len(reasons) > 1 else ''} left out; the first: "
    return _message(count + reasons[0]) if reasons else ""


class BandExplorer(bands.StillBox):
    """Scale frequencies of an image by hand and watch image, spectrum, profile and networks.

    Teacher and classifier follow a quarter of a second after the last move, from threads beside the
    kernel; where no event loop runs, `flush` makes them answer. The classifier is a trained student
    or, with a split, a linear probe of a teacher on a few training images.

    Bands are set by rings (a slider each, or dragged on the spectrum), by one bump, or by a learned
    prompt as it is. Without the phase lock, the phases of changed bands are scrambled (`Change`),
    which no prompt can do. With all colours chosen, sliders show the mean of the channels. Without
    a front end, as in an executed notebook, a contact sheet is drawn instead.

    Args:
        pack: Images to choose from.
        teacher: Whose drift is shown, or several by title; None leaves it out.
        rings: Equally wide rings up to 0.5 cycles per pixel; the corners add one.
        rows: Which images; empty takes some of every class, of validation where there is a split.
        split: Whose validation images teacher and student see; None takes any.
        runs: Run folders of trained students, by name.
        prompt: A learned prompt, or its file, that the sliders start from.
        options: Options of the data that a saved preset keeps beside the prompt.
        teacher_options: The same by title of a teacher.
        presets_dir: Folder of the saved presets.
        dataset: Name of the data set.
        more_datasets: By name of a further data set, what opens it when it is first chosen and
            returns its pack, split, options and groups; the bands stay as they are.
        groups: Head, medium or tail for each class; None takes thirds by rank.

    Raises:
        InputError: If rows, a student or the prompt do not fit or cannot be read.
    """

    image: Tensor
    view: bands.ChangedImage

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
        options: Mapping[str, Any] | None = None,
        teacher_options: Mapping[str, Mapping[str, Any]] | None = None,
        presets_dir: Path | str = "presets",
        dataset: str = "",
        more_datasets: Mapping[str, Callable[[], OpenedData]] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        self.presets_dir, self._dataset = presets_dir, dataset
        self._teachers = {teacher.name: teacher} if isinstance(teacher, Teacher) else teacher or {}
        self._teacher_options = teacher_options or {}
        self._openers = {dataset: lambda: (pack, split, options or {}, groups or {})}
        self._openers = self._openers | dict(more_datasets or {}) | self._openers  # first: ours
        self._rows, self._runs = rows, runs or {}  # of the first data set alone
        self.bands = bands.Bands(rings=rings, size=pack.size)
        self.edges = self.bands.edges  # of the sliders' rings, cycles per pixel
        self.images, self.strip, self.equaliser = map(Panel, ("images", "strip", "equaliser"))
        self.networks = networks.Networks(self.equaliser, tell=self._tell_worst)
        names, titles = list(self._openers), list(self._teachers)
        self.controls = controls = Controls(self.edges, datasets=names, teachers=titles)
        self.sliders = controls.sliders
        self.readout, self.message = widgets.HTML(), widgets.HTML(_message(""))
        self.readout.add_class("fopro-readout")
        self.message.add_class("fopro-message")
        equaliser = widgets.Box([self.equaliser, *controls.bands.values()])
        equaliser.add_class("fopro-equaliser-box")
        said = widgets.VBox([self.readout, controls.worst, self.message]).add_class("fopro-said")
        panels = [self.images, equaliser, self.strip, self.networks.drift, self.networks.classes]
        grid = widgets.Box([*panels, said]).add_class("fopro-grid")
        super().__init__([controls.top, grid, controls.below, controls.more])
        self.add_class("fopro-explorer")
        self._paused, self._left = True, ""  # what is said of runs that are left out
        self._set_aside: np.ndarray | None = None  # gains by hand, while a whole prompt acts
        if prompt:
            self._take(prompt if isinstance(prompt, FourierPrompt) else bands.load_prompt(prompt))
        self._open(dataset)
        self._listen()

    @property
    def gains(self) -> list[float]:
        """The sliders' values."""
        return [slider.value for slider in self.sliders]

    def apply(self, preset: str, *, ring: int) -> None:
        """Set the rings to a preset (see `preset_gains`) or to the ring means of the prompt."""
        self._set_aside = None
        with self._one_redraw():
            if preset != "learned prompt":
                gains = bands.preset_gains(preset, ring=ring, rings=len(self.sliders))
                self.bands.gains[self._channels()] = gains
            elif prompt := self.bands.prompt:
                self._take(prompt)
            else:
                self._say(NO_PROMPT)
            self.controls.mode.value = "rings"
            self._show_gains()

    def load(self, path: Path | str) -> bool:
        """Load a prompt or a preset; False, with a message, where it cannot be read."""
        try:
            prompt = bands.load_prompt(path)
        except InputError as error:
            self._say(str(error))
            return False
        with self._one_redraw():
            self._take(prompt)
        return True

    def save(self, name: str) -> bool:
        """Save what acts now as a preset, overwriting nothing; False where it cannot be saved."""
        options = {**self._options, **self._teacher_options.get(self.networks.teacher, {})}
        try:
            how: Any = {"folder": self.presets_dir, "options": options}
            self._say(bands.save_preset(name, self.bands.as_prompt(), **how))
        except (InputError, WorkError) as error:
            self._say(str(error))
            return False
        return True

    def amplify_strongest(self) -> None:
        """Amplify the ring whose removal moves the chosen teacher most."""
        with suppress(InputError):  # such as an empty ring; the panel of the drift says it
            ring = int(self._drift().response["drift"].argmax())
            self.controls.ring.value = ring
            self.apply("amplify", ring=ring)

    def ask_worst_band(self) -> None:
        """Find the band that hurts the class of the image most, set it, and say what it does."""
        if not self.networks.student:
            self._say("classes by: expected a student or a linear probe, got none")
            return
        self._label = int(self.pack.labels[self.controls.image.value])
        self._say(f"{self.pack.dataset.class_names[self._label]}: trying every ring ...")
        self.networks.ask_worst(self._label, self.edges)

    def _tell_worst(self, answer: networks.WorstBand | Exception) -> None:
        if isinstance(answer, Exception):
            self._say(str(answer) or type(answer).__name__)
            return
        self.controls.ring.value = answer.ring
        self.apply("amplify" if answer.gain else "remove", ring=answer.ring)
        name = self.pack.dataset.class_names[self._label]
        (before, after), (sure, unsure) = answer.found, answer.probability
        how = "hurts most" if unsure < sure else "helps least, as no band hurts"
        if before == after and abs(unsure - sure) < 0.01:
            how = "changes most, yet hardly anything"
        self._say(
            f"{name}: {'doubling' if answer.gain else 'removing'} "
            f"{_ring_labels(self.edges)[answer.ring]} cycles per pixel {how}: {before} to {after} "
            f"of {answer.n} images found, probability {sure:.2f} to {unsure:.2f}."
        )

    def flush(self) -> None:
        """Let teacher and student answer now, where they are pending."""
        self.networks.flush()

    def still(self) -> Figure:
        """Draw the contact sheet: the image as it is, as set, and with each ring changed."""
        changes = {"as it is": bands.Bands(self.bands.rings, self.bands.size).change()}
        changes["as set"] = self.bands.change()
        for preset in ("remove", "amplify"):
            for ring, label in enumerate(_ring_labels(self.edges)):
                own = bands.Bands(self.bands.rings, self.bands.size)
                own.gains[:] = bands.preset_gains(preset, ring=ring, rings=len(self.sliders))
                changes[f"{preset} {label}"] = own.change()
        images = [self._spectrum.apply(change).after for change in changes.values()]
        return plot_images(np.stack(images), list(changes), columns=5)

    @property
    def teacher(self) -> Teacher:
        """The chosen teacher; an `InputError` where there is none."""
        return self._drift().teacher

    def drift_over(self, images: Tensor, units: np.ndarray) -> dict[str, float]:
        """Measure the chosen teacher's mean drift under what is set; see `TeacherDrift.over`."""
        return self._drift().over(images, self.bands.change(), units)

    def _drift(self) -> networks.TeacherDrift:
        if not self.networks.teacher:
            raise InputError("teacher: expected at least one, got none")
        return self.networks.teachers[self.networks.teacher]

    def _say(self, text: str) -> None:
        self.message.value = _message(text) + self._left

    def leave_out(self, reasons: Sequence[str]) -> None:
        """Say below every message how many runs are not offered, and why the first is not."""
        self._left += _left_out(reasons)
        self.message.value += _left_out(reasons)

    def _channels(self) -> Any:
        chosen = self.controls.channel.value
        return slice(None) if chosen < 0 else chosen

    def _take(self, prompt: FourierPrompt, how: str = "") -> None:
        fit, self._set_aside = self.bands.load(prompt), None
        self._say(f"Prompt loaded (form {prompt.form}). {fit}{how}")
        self._show_gains()

    def _show_gains(self) -> None:
        """Let the gain sliders show the chosen channel, or the mean of all."""
        paused, self._paused = self._paused, True
        own = self.bands.gains[self._channels()].reshape(-1, len(self.sliders)).mean(axis=0)
        for slider, value in zip(self.sliders, own, strict=True):  # a browser sends others back
            slider.value = round(round(float(value) / bands.GAIN_STEP) * bands.GAIN_STEP, 2)
        self.controls.height.value = float(np.mean(self.bands.heights[self._channels()]))
        self._paused = paused

    def _open(self, name: str) -> None:
        """Show another data set; where it does not open or fit, nothing has changed."""
        pack, split, options, groups = self._openers[name]()
        rows, runs = (self._rows, self._runs) if name == next(iter(self._openers)) else ((), {})
        if not groups and len(names := pack.dataset.class_names) > 1:
            known = pack.labels if split is None else pack.labels[split.train]
            counts = np.bincount(known, minlength=len(names)).tolist()
            groups = class_groups(dict(zip(names, counts, strict=True)))
        images, tail = _list_images(pack, rows, split=split, groups=groups)
        sample = networks.ValidationSample(pack, split)
        students, refused = networks.load_students(runs, pack, sample, split)
        if split is not None:
            for title, each in self._teachers.items():
                load = partial(networks.fit_probe, each, pack, split)
                students[f"linear probe of {title}"] = networks.StudentRecall(load, sample)
        watch = partial(networks.TeacherDrift, sample=sample, edges=self.edges)
        drifts = {title: watch(each) for title, each in self._teachers.items()}
        self._openers[name] = lambda: (pack, split, options, groups)  # kept open
        self._dataset, self.pack, self._options, self.bands.size = name, pack, options, pack.size
        self._tail = tail
        self._paused = True
        self.controls.show_data(images, list(students))
        self._paused = False
        shown = self.networks
        shown.teachers, shown.students, shown.groups = drifts, students, groups
        shown.teacher = self.controls.teacher.value or ""
        shown.student = self.controls.student.value
        if tail:
            self._strip = bands.Strip(next(batches(pack, np.array(tail), batch_size=len(tail)))[0])
        trained = () if split is None else split.train
        labels = [pack.dataset.class_names[pack.labels[row]] for row in tail]
        labels = [n + ", training" * (row in trained) for n, row in zip(labels, tail, strict=True)]
        self.strip.fixed, self.strip.moving = {"names": labels}, {}
        self._left = ""
        self.leave_out(refused)
        self._choose_image()

    def _choose_dataset(self, change: Any) -> None:
        name = change["new"]
        if name == self._dataset:  # back, after one that could not be opened
            return
        self._say(f"{name}: opening ...")
        text = ""
        try:
            self._open(name)
        except Exception as error:  # whatever it was, the name must be that of the images shown
            text = str(error) if isinstance(error, (InputError, WorkError)) else repr(error)
            self.controls.dataset.value = self._dataset
        self._say(text)

    def _listen(self) -> None:
        controls = self.controls
        controls.dataset.observe(self._choose_dataset, "value")
        controls.image.observe(self._choose_image, "value")
        for place, slider in enumerate(self.sliders):
            slider.observe(partial(self._move_ring, place), "value")
        for control in (controls.centre, controls.width, controls.height, controls.phase_lock):
            control.observe(self._move_bump, "value")
        controls.mode.observe(self._choose_mode, "value")
        controls.channel.observe(lambda _: self._show_gains(), "value")
        for control in (controls.teacher, controls.student):
            control.observe(self._choose_network, "value")
        self.images.observe(self._drag_ring, "move")
        self.strip.observe(self._choose_thumbnail, "move")
        controls.next.on_click(self._next_image)
        controls.worst.on_click(lambda _: self.ask_worst_band())
        for name, button in controls.buttons.items():
            button.on_click(lambda _, name=name: self._press(name))
        controls.load.on_click(lambda _: self.load(controls.path.value))
        controls.save.on_click(lambda _: self.save(controls.name.value.strip()))

    def _press(self, preset: str) -> None:
        self._say("")  # what was said of a prompt holds no longer
        self.apply(preset, ring=self.controls.ring.value)

    def _move_ring(self, place: int, change: Any) -> None:
        if not self._paused:
            self.bands.gains[self._channels(), place] = change["new"]
            self.controls.ring.value = place
            if self.bands.prompt and "Prompt loaded" in self.message.value:
                self._say(BY_HAND)
            self._set_aside = None
            with self._one_redraw():
                self.controls.mode.value = "rings"  # from a whole prompt, on from its ring means

    def _drag_ring(self, change: Any) -> None:
        """Follow a ring that is dragged on the spectrum."""
        place, gain, _ = change["new"]
        self.sliders[int(place)].value = gain

    def _choose_thumbnail(self, change: Any) -> None:
        self.controls.image.value = self._tail[int(change["new"][0])]

    def _next_image(self, _: Any) -> None:
        image = self.controls.image
        image.index = (image.index + 1) % len(image.options)

    def _move_bump(self, _: Any) -> None:
        if not self._paused:
            controls, now = self.controls, self.bands
            now.centre, now.width = controls.centre.value, controls.width.value
            now.heights[self._channels()] = controls.height.value
            now.phase_lock = controls.phase_lock.value
            self._redraw()

    def _choose_mode(self, change: Any) -> None:
        if change["new"] == "prompt" and self.bands.prompt is None:
            self._say(NO_PROMPT)
            self.controls.mode.value = change["old"]
            return
        self.bands.mode = change["new"]
        if self.bands.prompt and change["new"] == "prompt":
            by_hand = self.bands.gains.copy()
            self._take(self.bands.prompt, WHOLE)
            self._set_aside = by_hand  # comes back with its mode
        elif change["old"] == "prompt" and self._set_aside is not None:
            self.bands.gains = self._set_aside
            self._say("")
            self._show_gains()
        self.controls.show_mode()
        self._redraw()

    def _choose_network(self, _: Any = None) -> None:
        self.networks.teacher = self.controls.teacher.value or ""
        self.networks.student = self.controls.student.value or ""
        self._redraw()

    def _choose_image(self, _: Any = None) -> None:
        """Take an image, and fix colours and axes by what it is unchanged."""
        if self._paused:
            return
        self.image, _label = self.pack[self.controls.image.value]
        self._spectrum = bands.SpectrumView(self.image)
        plain = self._spectrum.apply(bands.Bands(self.bands.rings, self.bands.size).change())
        self._floor, self._range = plain.spectrum.min(), max(np.ptp(plain.spectrum), 1e-6)
        axes = {"edges": self._spectrum.edges, "rings": self.edges, "size": self.bands.size}
        self.images.fixed = {**axes, "before": bands.png_bytes(plain.before)}
        contrast = plain.contrast[0].tolist()
        self.equaliser.fixed = {**self.equaliser.fixed, **axes, "contrast": contrast}
        self._redraw()

    def _redraw(self) -> None:
        if self._paused:
            return
        now = self.bands.change()
        self.view = view = self._spectrum.apply(now)
        moved = {"gains": view.gains.tolist(), "mode": self.bands.mode}
        share = (view.spectrum - self._floor) / self._range
        colours = bands.png_bytes(_COLORS[(255 * share).clip(0, 255).astype(np.uint8)])
        drawn = {"after": bands.png_bytes(view.after), "sliders": self.gains}
        self.images.moving = {**moved, **drawn, "spectrum": colours}
        self.equaliser.moving = {**moved, "contrast": view.contrast[1].tolist()}
        if self._tail:
            row, after = self.controls.image.value, bands.png_bytes(self._strip.apply(now))
            chosen = self._tail.index(row) if row in self._tail else -1
            self.strip.moving = {"after": after, "chosen": chosen}
        left = f"{view.clipped:.1%} of the values leave it."
        self.readout.value = f"Changed by {view.rms:.4f} RMS of [0, 1]; {left}"
        self.networks.ask(self.image, now)

    @contextmanager
    def _one_redraw(self) -> Iterator[None]:
        self._paused = True
        try:
            yield
        finally:
            self._paused = False
        self._redraw()


def _list_images(
    pack: Pack, rows: Sequence[int], *, split: Split | None, groups: Mapping[str, str]
) -> tuple[list[tuple[str, int]], list[int]]:
    """Name the images to choose from by class and file, and pick those of tail classes to show.

    Without rows, some validation images of each class, those of the tail first; a tail class that
    has few is filled up from training, and so named.
    """
    if not all(0 <= row < len(pack) for row in rows) or len(rows) > 200:  # no help if longer
        raise InputError(f"rows: expected up to 200, from 0 to {len(pack) - 1}, got {rows[:5]}")
    names, ids, labels = pack.dataset.class_names, pack.dataset.table["image"], pack.labels
    rare = [place for place, name in enumerate(names) if groups.get(name) == "tail"]
    parts = [np.arange(len(pack))] if split is None else [split.val, split.train]
    chosen = list(rows)
    for label in () if rows else sorted(range(len(names)), key=lambda label: label not in rare):
        first, *others = ([int(row) for row in part if labels[row] == label] for part in parts)
        fill = [row for part in others for row in part] if label in rare else []
        chosen += first[: max(1, CHOICES // len(names))] + fill[: max(0, STRIP - len(first))]
    own = [[row for row in chosen if labels[row] == label] for label in rare]
    tail = [row for row in chain(*zip_longest(*own)) if row is not None][:STRIP]
    trained = set() if split is None else {*split.train.tolist()}

    def title(row: int) -> str:
        mark = ", a training image" if row in trained else ""
        return f"{names[labels[row]]}, {ids.iloc[row]}{mark}"

    return [(title(row), row) for row in chosen], tail


def run_options(path: Path | str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Take data, split, teacher and prompt of a run folder; given options are put on top.

    Raises:
        InputError: If it is no finished run, or a given option is one by which it does not fit.
    """
    runs = load_runs(path)
    if len(runs) != 1:
        way_out = f"name one of them, or use --set student_run={path}"
        raise InputError(f"{path}: expected one run, got {len(runs)}; {way_out}")
    names, prompt = {*DataConfig.model_fields, *TeacherConfig.model_fields}, "prompt.safetensors"
    values = {name: value for name, value in _options_of(runs[0]).items() if name in names}
    if (file := runs[0].path / prompt).is_file():
        values["prompt_file"] = str(file)
    return {**values, "student_run": str(runs[0].path), **given}


def _options_of(run: Run) -> dict[str, Any]:
    return TrainedRun.read(run.path).train_config.model_dump(mode="json")


def _difference(run: Run, config: ExploreConfig) -> str:
    """Name the first option by which a run was trained on other images, or nothing."""
    now, then = config.model_dump(mode="json"), _options_of(run)
    for name in [n for n in DataConfig.model_fields if n not in MAY_DIFFER and now[n] != then[n]]:
        trained = f"{run.path} was trained with {then[name]!r}, got {now[name]!r}"
        return f"{name}: {trained}; use --set {name}={then[name]}, or another run"
    return ""


def open_explorer(config: ExploreConfig) -> BandExplorer:
    """Build an explorer that shows its prompt or, amplified, the ring that its teacher hears most.

    A radial prompt sets the sliders; another is shown whole. Args: see `build_explorer`.
    """
    explorer = build_explorer(config)
    if explorer.bands.explained < RADIAL:
        explorer.controls.mode.value = "prompt"
    elif not config.prompt_file:
        explorer.amplify_strongest()
    return explorer


def build_explorer(config: ExploreConfig, *, checked: str = "") -> BandExplorer:
    """Open a data set, its teachers and students in a band explorer, and others to choose from.

    Args:
        config: The student runs belong to the first data set; every other one is opened, with
            the same options, when it is chosen.
        checked: Line for stderr once the runs are known to fit, before what takes long.

    Raises:
        InputError: If something is missing or does not fit.
    """
    teachers: dict[str, TeacherConfig] = {config.teacher: config}
    for entry in config.more_teachers:
        name, _, weights = entry.partition("=")
        other = TeacherConfig.from_mapping({"teacher": name, "weights": weights})
        title = f"{name}, {Path(weights).name}" if weights else name
        teachers[entry if title in teachers else title] = other
    runs = load_runs(config.student_run) if config.student_run else []
    differences = [_difference(run, config) for run in runs]
    if runs and all(differences):
        raise InputError(differences[0])
    sys.stderr.write(checked)

    def open_data(dataset: str) -> OpenedData:
        own = config.model_copy(update={"dataset": dataset})
        packed, split = prepare(own)
        counts, names = split.class_counts(packed.dataset), packed.dataset.class_names
        return packed, split, bands.preset_options(own, DataConfig), groups_from(own, names, counts)

    fitting = [run for run, different in zip(runs, differences, strict=True) if not different]
    names = [run.name for run in fitting]
    pack, split, options, groups = open_data(config.dataset)
    explorer = BandExplorer(
        pack,
        teacher={title: load_from(each) for title, each in teachers.items()},
        teacher_options={t: bands.preset_options(c, TeacherConfig) for t, c in teachers.items()},
        rings=config.rings, split=split, options=options, prompt=config.prompt_file, groups=groups,
        runs={r.name if names.count(r.name) == 1 else str(r.path): r.path for r in fitting},
        presets_dir=config.presets_dir, dataset=config.dataset,
        more_datasets={name: partial(open_data, name) for name in config.more_datasets},
    )  # fmt: skip
    explorer.leave_out([*filter(None, differences)])
    return explorer
