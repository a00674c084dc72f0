"""The band explorer: sliders over frequency bands, and what they do to an image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.config import DataConfig, ExploreConfig, TeacherConfig
from fopro_lab.data import Pack, Split, prepare
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import load_runs
from fopro_lab.fourier import FourierPrompt, ring_gain
from fopro_lab.models import Teacher, load_from
from fopro_lab.plots import plot_images
from fopro_lab.plots.style import METHOD_COLORS
from fopro_lab.widgets.bands import (
    GAIN_STEP,
    MAX_GAIN,
    Bands,
    Change,
    ChangedImage,
    MovingFigure,
    Preset,
    SpectrumView,
    StillBox,
    load_prompt,
    png_bytes,
    preset_gains,
    preset_options,
    save_preset,
    style_frequency_axes,
)
from fopro_lab.widgets.networks import NetworkPanel, TeacherDrift, ValidationSample, load_students

MODES = {"Rings": "rings", "Bump": "bump", "Learned prompt": "prompt"}
CHANNELS = {"All": -1, "Red": 0, "Green": 1, "Blue": 2}
PRESETS = (*get_args(Preset), "learned prompt")
OpenedData = tuple[Pack, Split | None, Mapping[str, Any]]  # and options for presets
NO_PROMPT = "learned prompt: none is loaded; load one first"
# Beside the sliders as long as 480 px are left: who drags must see what the drag does.
BESIDE = {"flex": "1000 1 480px", "max_width": "800px", "min_width": "0"}
# Without the brightest yellow, on which a white outline would not be visible.
_COLORS = (np.array(colormaps["viridis"].colors)[:225] * 255).astype(np.uint8)  # type: ignore[attr-defined]


class Controls(widgets.VBox):
    """Everything that is moved by hand, with nothing behind it."""

    def __init__(
        self, edges: Sequence[float], *, datasets: Sequence[str], teachers: Sequence[str]
    ) -> None:
        rings = [(label, place) for place, label in enumerate(_ring_labels(edges))]
        self.sliders = [_slider(label, "band-slider") for label, _ in rings]
        self.dataset = _make(widgets.Dropdown, "Dataset", "choose-dataset", options=datasets)
        self.image = _make(widgets.Dropdown, "Image", "choose-image")
        self.teacher = _make(widgets.Dropdown, "Teacher", "choose-teacher", options=teachers)
        self.student = _make(widgets.Dropdown, "Student", "choose-student")
        self.ring = _make(widgets.Dropdown, "Ring of a preset", "choose-ring", options=rings)
        toggle = {"style": {"button_width": "auto", "description_width": "5.5em"}, "layout": {}}
        kind = widgets.ToggleButtons
        self.mode = _make(kind, "Bands by", "choose-mode", options=MODES, **toggle)
        self.channel = _make(kind, "Colours", "choose-channel", options=CHANNELS, **toggle)
        self.phase_lock = _make(
            widgets.Checkbox, "Phase lock (phases are kept)", "choose-phase-lock",
            value=True, indent=False, style={},
        )  # fmt: skip
        self.buttons = {name: _button(name, "preset", "1 1 8.5em") for name in PRESETS}
        narrow = {"max": 0.7, "step": 0.005, "readout_format": ".3f"}
        self.centre = _slider("Centre, cycles/px", "bump-centre", value=0.25, **narrow)
        self.width = _slider("Width, cycles/px", "bump-width", value=0.1, min=0.01, **narrow)
        self.height = _slider("Gain", "bump-slider")
        self.path = _text("Prompt file", "prompt.safetensors, or a preset's .yaml", "prompt-path")
        self.name = _text("Save preset as", "a name, such as low-rings", "preset-name")
        self.load, self.save = _button("Load", "load"), _button("Save", "save")
        self.bands = {
            "rings": widgets.VBox(self.sliders),
            "bump": widgets.VBox([self.centre, self.width, self.height]),
            "prompt": widgets.HTML("The prompt that was loaded, as it is."),
        }
        _show(self.dataset, len(datasets) > 1)
        _show(self.teacher, bool(teachers))
        self.show_mode()
        heading = widgets.HTML("<b>Gain of the amplitudes</b>, by frequency in cycles per pixel")
        presets = widgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        files = [widgets.HBox(pair) for pair in ((self.path, self.load), (self.name, self.save))]
        super().__init__(
            [self.dataset, self.image, self.teacher, self.student, self.mode, self.channel,
             self.phase_lock, heading, *self.bands.values(), self.ring, presets, *files],
            layout={"flex": "1 1 26em", "max_width": "30em", "min_width": "20em"},
        )  # fmt: skip

    def show_data(self, images: Sequence[tuple[str, int]], students: Sequence[str]) -> None:
        """Offer the images and students of a data set."""
        self.image.options = images
        self.student.options = [*((name, name) for name in students), ("none", "")]
        self.image.index = self.student.index = 0
        _show(self.student, bool(students))

    def show_mode(self) -> None:
        """Show the controls of the chosen mode, and hide the others."""
        for mode, box in self.bands.items():
            _show(box, mode == self.mode.value)


def _show(widget: widgets.DOMWidget, visible: bool) -> None:
    widget.layout.display = "" if visible else "none"


def _make(kind: type[widgets.DOMWidget], label: str, css: str, **traits: Any) -> Any:
    """Make a labelled widget with a CSS class, by which tests and style sheets find it."""
    given = {"style": {"description_width": "9em"}, "layout": {"width": "auto"}, **traits}
    return kind(description=label, **given).add_class(f"fopro-{css}")


def _slider(label: str, css: str, **traits: Any) -> widgets.FloatSlider:
    gain = {"value": 1.0, "min": 0.0, "max": MAX_GAIN, "step": GAIN_STEP, "readout_format": ".2f"}
    return _make(widgets.FloatSlider, label, css, **{**gain, **traits}).add_class("fopro-slider")


def _text(label: str, hint: str, css: str) -> widgets.Text:
    layout = {"flex": "1 1 0", "width": "auto", "min_width": "0"}
    return _make(widgets.Text, label, css, placeholder=hint, continuous_update=False, layout=layout)


def _button(label: str, css: str, flex: str = "0 0 5em") -> widgets.Button:
    return _make(widgets.Button, label, css, style={}, layout={"flex": flex, "width": "auto"})


def _ring_labels(edges: Sequence[float]) -> list[str]:
    return [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]


def _message(text: str) -> str:
    """Write what a button did, or why it did nothing; several lines are kept."""
    lines = "<br>".join(escape(text).splitlines())
    return f'<div role="status" style="min-height:3em">{lines}</div>'


def draw_images(view: ChangedImage, *, floor: float, ceiling: float) -> bytes:
    """Draw image before, after and log spectrum, coloured from floor to ceiling, as PNG bytes."""
    last = len(_COLORS) - 1
    share = (view.spectrum - floor) * (last / max(ceiling - floor, 1e-6))
    spectrum = _COLORS[share.clip(0, last).astype(np.uint8)]
    spectrum[view.outline] = 255
    factor = max(1, -(-224 // len(spectrum)))
    panels = [
        panel.repeat(factor, axis=0).repeat(factor, axis=1)
        for panel in (view.before, view.after, spectrum)
    ]
    gap = np.full((len(panels[0]), 8, 3), 255, np.uint8)
    return png_bytes(np.hstack([panels[0], gap, panels[1], gap, panels[2]]))


class ProfilePanel:
    """The contrast by frequency, before and after; the axes are those of a first view."""

    def __init__(self, view: ChangedImage, edges: list[float]) -> None:
        figure = Figure(figsize=(6.9, 2.3), dpi=100)
        ax = figure.add_axes((0.09, 0.22, 0.89, 0.74))
        top = max(float(view.contrast[0].max()), 1e-4)
        self._floor = top / 3000
        before, after = METHOD_COLORS["bsm"], METHOD_COLORS["fopro"]
        heights = self._heights(view.contrast[0])
        (self._line,) = ax.step(edges, heights, where="post", color=after, lw=2.2, label="after")
        ax.step(edges, heights, where="post", color=before, lw=1.4, ls="--", label="before")
        ax.set_yscale("log")
        ax.set_ylim(self._floor, top * 6)
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylabel("Contrast (of [0, 1])", fontsize=9)
        style_frequency_axes(ax)
        ax.minorticks_off()
        ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
        self._figure = MovingFigure(figure, [self._line])

    def draw(self, view: ChangedImage) -> bytes:
        """Move the line of the contrast after and return PNG bytes."""
        self._line.set_ydata(self._heights(view.contrast[1]))
        return self._figure.png()

    def _heights(self, contrast: np.ndarray) -> np.ndarray:
        """One height per edge, the last one twice; a removed ring lies on the floor."""
        return np.append(contrast, contrast[-1]).clip(self._floor)


class BandExplorer(StillBox):
    """Scale frequencies of an image by hand and watch image, spectrum, profile and networks.

    Image, spectrum and profile follow every move of a slider at once. Teacher and student follow
    a quarter of a second after the last one, from a thread beside the kernel, and are marked as
    updating until then; where no event loop runs, `flush` makes them answer.

    Bands are set by rings (a slider each), by one bump, or by a learned prompt as it is; presets
    set the rings. Without the phase lock, the phases of changed bands are scrambled (see `Change`),
    which no prompt can do. With all colours chosen, gain sliders show the mean of the channels.

    Without a front end, as in an executed notebook, a contact sheet is drawn instead: the image
    as it is, as set, and with one ring after the other removed and amplified.

    Args:
        pack: Images to choose from.
        teacher: Whose drift is shown, or several by title; None leaves it out.
        rings: Equally wide rings up to 0.5 cycles per pixel; the corners add one.
        rows: Which images; empty takes the first of every class.
        split: Whose validation images teacher and student see; None takes any.
        runs: Run folders of trained students, by name.
        prompt: A learned prompt, or its file, that the sliders start from.
        options: Options of the data that a saved preset keeps beside the prompt.
        teacher_options: The same by title of a teacher.
        presets_dir: Folder of the saved presets.
        dataset: Name of the data set.
        more_datasets: By name of a further data set, what opens it when it is first chosen and
            returns its pack, split and options; the bands stay as they are.

    Raises:
        InputError: If rows, a student or the prompt do not fit or cannot be read.
    """

    image: Tensor
    view: ChangedImage

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
    ) -> None:
        self.presets_dir, self._dataset = presets_dir, dataset
        self._teachers = {teacher.name: teacher} if isinstance(teacher, Teacher) else teacher or {}
        self._teacher_options = teacher_options or {}
        self._openers = {dataset: lambda: (pack, split, options or {})}
        self._openers = self._openers | dict(more_datasets or {}) | self._openers  # first: ours
        self._rows, self._runs = rows, runs or {}  # of the first data set alone
        self.bands = Bands(rings=rings, size=pack.size)
        self.networks = NetworkPanel()
        names, titles = list(self._openers), list(self._teachers)
        self.controls = Controls(self.edges, datasets=names, teachers=titles)
        self.sliders = self.controls.sliders
        self.images, self.profile = (
            widgets.Image(format="png", layout={"max_width": "100%"}) for _ in range(2)
        )
        self.readout, self.message = widgets.HTML(), widgets.HTML(_message(""))
        for name in ("images", "profile", "readout", "message"):
            getattr(self, name).add_class(f"fopro-{name}")
        title = widgets.HTML("Before, after, and log amplitude with the border of what is changed")
        right = [title, self.images, self.profile, self.readout, self.message, self.networks]
        both = [self.controls, widgets.VBox(right, layout=BESIDE)]
        row = widgets.HBox(both, layout={"flex_flow": "row wrap", "grid_gap": "0 14px"})
        super().__init__([row])
        self._paused = True
        if prompt:
            self._take(prompt if isinstance(prompt, FourierPrompt) else load_prompt(prompt))
        self._open(dataset)
        self._listen()

    @property
    def edges(self) -> list[float]:
        """Edges of the sliders' rings, cycles per pixel."""
        return self.bands.edges

    @property
    def gains(self) -> list[float]:
        """The sliders' values."""
        return [slider.value for slider in self.sliders]

    @property
    def teacher(self) -> Teacher:
        """The chosen teacher; an `InputError` where there is none."""
        return self._drift().teacher

    def apply(self, preset: str, *, ring: int) -> None:
        """Set the rings to a preset (see `preset_gains`) or to the ring means of the prompt."""
        with self._one_redraw():
            if preset != "learned prompt":
                gains = preset_gains(preset, ring=ring, rings=len(self.sliders))
                self.bands.gains[self._channels()] = gains
            elif self.bands.prompt is None:
                self._say(NO_PROMPT)
            else:
                self._take(self.bands.prompt)
            self.controls.mode.value = "rings"
            self._show_gains()

    def load(self, path: Path | str) -> bool:
        """Load a prompt or a preset; False, with a message, where it cannot be read."""
        try:
            prompt = load_prompt(path)
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
            prompt, folder = self.bands.as_prompt(), self.presets_dir
            self._say(save_preset(name, prompt, folder=folder, options=options))
        except (InputError, WorkError) as error:
            self._say(str(error))
            return False
        return True

    def flush(self) -> None:
        """Let teacher and student answer now, where they are pending."""
        self.networks.flush()

    def still(self) -> Figure:
        """Draw the contact sheet, with the teacher's drift and the student's change of recall."""
        now, side = self.bands.change(), self.bands.size
        changes = {"as it is": Change(torch.ones_like(now.gain))}
        if bool((now.gain != 1).any()):
            changes["as set"] = now
        for preset in ("remove", "amplify"):
            for ring, label in enumerate(_ring_labels(self.edges)):
                gains = torch.tensor([preset_gains(preset, ring=ring, rings=len(self.sliders))])
                gain = ring_gain(gains, self.edges, height=side, width=side)
                changes[f"{preset} {label}"] = Change(gain)
        images, titles, networks = [], [], self.networks
        for title, change in changes.items():
            images.append(self._spectrum.apply(change).after)
            if networks.teacher:
                title += f"\ndrift {self._drift().of_image(self.image, change):.4f}"
            if networks.student:
                gained = networks.students[networks.student].ask(self.image, change).change
                title += f"\nrecall {100 * gained:+.1f} points"
            titles.append(title)
        return plot_images(np.stack(images), titles, columns=5)

    def drift_over(self, images: Tensor, units: np.ndarray) -> dict[str, float]:
        """Measure the chosen teacher's mean drift under what is set; see `TeacherDrift.over`."""
        return self._drift().over(images, self.bands.change(), units)

    def _drift(self) -> TeacherDrift:
        if not self.networks.teacher:
            raise InputError("teacher: expected at least one, got none")
        return self.networks.teachers[self.networks.teacher]

    def _say(self, text: str) -> None:
        self.message.value = _message(text)

    def _channels(self) -> Any:
        chosen = self.controls.channel.value
        return slice(None) if chosen < 0 else chosen

    def _take(self, prompt: FourierPrompt) -> None:
        fit = self.bands.load(prompt)
        self._say(f"Prompt of the form {prompt.form} loaded. {fit}")
        self._show_gains()

    def _show_gains(self) -> None:
        """Let the gain sliders show the chosen channel, or the mean of all."""
        paused, self._paused = self._paused, True
        own = self.bands.gains[self._channels()].reshape(-1, len(self.sliders)).mean(axis=0)
        for slider, value in zip(self.sliders, own, strict=True):
            slider.value = round(float(value), 6)
        self.controls.height.value = float(np.mean(self.bands.heights[self._channels()]))
        self._paused = paused

    def _open(self, name: str) -> None:
        """Show another data set; where it does not open or fit, nothing has changed."""
        pack, split, options = self._openers[name]()
        rows, runs = (self._rows, self._runs) if name == next(iter(self._openers)) else ((), {})
        images, sample = _list_images(pack, rows), ValidationSample(pack, split)
        students, refused = load_students(runs, pack, sample, split)
        drifts = {t: TeacherDrift(each, sample, self.edges) for t, each in self._teachers.items()}
        self._openers[name] = lambda: (pack, split, options)  # kept open
        self._dataset, self.pack, self._options, self.bands.size = name, pack, options, pack.size
        self._paused = True
        self.controls.show_data(images, list(students))
        self._paused = False
        self.networks.watch(drifts, students, teacher=self.controls.teacher.value or "")
        if refused:
            count = f"{len(refused)} run{'s' if len(refused) > 1 else ''} left out; the first: "
            self.message.value += _message(count + refused[0])
        self._choose_image()

    def _choose_dataset(self, change: Any) -> None:
        name = change["new"]
        if name == self._dataset:  # back, after one that could not be opened
            return
        self._say(f"{name}: opening ...")
        try:
            self._open(name)
        except Exception as error:  # whatever it was, the name must be that of the images shown
            text = str(error) if isinstance(error, (InputError, WorkError)) else repr(error)
            self.controls.dataset.value = self._dataset
        else:
            text = ""
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
        for name, button in controls.buttons.items():
            button.on_click(lambda _, name=name: self.apply(name, ring=controls.ring.value))
        controls.load.on_click(lambda _: self.load(controls.path.value))
        controls.save.on_click(lambda _: self.save(controls.name.value.strip()))

    def _move_ring(self, place: int, change: Any) -> None:
        if not self._paused:
            self.bands.gains[self._channels(), place] = change["new"]
            self._redraw()

    def _move_bump(self, _: Any) -> None:
        if not self._paused:
            controls, bands = self.controls, self.bands
            bands.centre, bands.width = controls.centre.value, controls.width.value
            bands.heights[self._channels()] = controls.height.value
            bands.phase_lock = controls.phase_lock.value
            self._redraw()

    def _choose_mode(self, change: Any) -> None:
        if change["new"] == "prompt" and self.bands.prompt is None:
            self._say(NO_PROMPT)
            self.controls.mode.value = change["old"]
            return
        self.bands.mode = change["new"]
        self.controls.show_mode()
        self._redraw()

    def _choose_network(self, _: Any) -> None:
        self.networks.teacher = self.controls.teacher.value or ""
        self.networks.student = self.controls.student.value or ""
        self._redraw()

    def _choose_image(self, _: Any = None) -> None:
        """Take an image, and fix colours and axes by what it is unchanged."""
        if self._paused:
            return
        self.image, _label = self.pack[self.controls.image.value]
        self._spectrum = SpectrumView(self.image)
        plain = self._spectrum.apply(Bands(self.bands.rings, self.bands.size).change())
        self._limits = {"floor": plain.spectrum.min(), "ceiling": plain.spectrum.max()}
        self._profile = ProfilePanel(plain, self._spectrum.edges)
        self._redraw()

    def _redraw(self) -> None:
        if self._paused:
            return
        now = self.bands.change()
        self.view = view = self._spectrum.apply(now, rings=self.bands.mode == "rings")
        self.images.value = draw_images(view, **self._limits)
        self.profile.value = self._profile.draw(view)
        self.readout.value = (
            f'<div style="min-height:1.6em">Changed by {view.rms:.4f} RMS of [0, 1]; '
            f"{view.clipped:.1%} of the values leave it.</div>"
        )
        self.networks.ask(self.image, now)

    @contextmanager
    def _one_redraw(self) -> Iterator[None]:
        self._paused = True
        try:
            yield
        finally:
            self._paused = False
        self._redraw()


def _list_images(pack: Pack, rows: Sequence[int]) -> list[tuple[str, int]]:
    """Name the images to choose from by class and file; without rows, the first of each class."""
    chosen = list(rows) or [int(row) for row in np.unique(pack.labels, return_index=True)[1]]
    if not all(0 <= row < len(pack) for row in chosen) or len(chosen) > 200:  # no help if longer
        raise InputError(f"rows: expected up to 200, from 0 to {len(pack) - 1}, got {chosen[:5]}")
    names, ids = pack.dataset.class_names, pack.dataset.table["image"]
    return [(f"{names[pack.labels[row]]}, {ids.iloc[row]}", row) for row in chosen]


def open_explorer(config: ExploreConfig) -> BandExplorer:
    """Open a data set, its teachers and students in a band explorer, and others to choose from.

    Args:
        config: The student runs belong to the first data set; every other one is opened, with
            the same options, when it is chosen.

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

    def open_data(dataset: str) -> OpenedData:
        own = config.model_copy(update={"dataset": dataset})
        packed, split = prepare(own)
        return packed, split, preset_options(own, DataConfig)

    pack, split, options = open_data(config.dataset)
    explorer = BandExplorer(
        pack,
        teacher={title: load_from(each) for title, each in teachers.items()},
        teacher_options={t: preset_options(each, TeacherConfig) for t, each in teachers.items()},
        rings=config.rings, split=split, options=options, prompt=config.prompt_file,
        runs={run.name: run.path for run in runs},
        presets_dir=config.presets_dir, dataset=config.dataset,
        more_datasets={name: partial(open_data, name) for name in config.more_datasets},
    )  # fmt: skip
    explorer.controls.mode.value = "prompt" if config.prompt_file else "rings"
    return explorer
