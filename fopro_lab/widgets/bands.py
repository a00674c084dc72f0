"""Pins: what sliders stand at, as files that training and reports take; and the way back."""

import io
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import yaml
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fopro_lab.config import Config, TeacherConfig
from fopro_lab.errors import InputError, ShapeError, WorkError
from fopro_lab.fourier import FourierPrompt, apply_gain, radial_frequency, ring_edges, ring_masks
from fopro_lab.io import atomic_path
from fopro_lab.plots import METHOD_COLORS
from fopro_lab.reports.plan import CHECKOUT

Preset = Literal["identity", "remove", "amplify", "low-pass", "high-pass"]
AMPLIFIED = 2.0
FLOOR = 1e-6  # amplitude of a bin that has none, so that it has a logarithm
FINE = 32  # rings of the profile up to 0.5 cycles per pixel, at most
SEED = 0  # of the phases where they are not locked
STEP = 0.05  # a slider's; a gain that differs less from 1 leaves phases alone


@dataclass(frozen=True, eq=False)
class BandView:
    """An image before and after its frequencies were scaled.

    Attributes:
        before: ``uint8 (H, W, 3)``.
        after: ``uint8 (H, W, 3)``, clipped for the eye; teacher and student see it unclipped.
        moved: Root of the mean squared change, of [0, 1], before clipping.
        clipped: Share of values that left [0, 1].
        spectrum: ``(H, W)``, natural logarithm of the amplitude after, mean of the channels,
            zero frequency in the middle.
        outline: ``bool (H, W)``, the border of what is changed, in the plane of ``spectrum``.
        edges: ``R + 1`` edges of the profile's rings, cycles per pixel.
        contrast: ``(2, R)``, before and after: root of the ring's energy, mean of the channels,
            in grey levels of [0, 1].
    """

    before: np.ndarray
    after: np.ndarray
    moved: float
    clipped: float
    spectrum: np.ndarray
    outline: np.ndarray
    edges: list[float]
    contrast: np.ndarray


class BandLens:
    """An image whose spectrum is kept, so that a new gain costs one inverse transform.

    It is NumPy's, in one thread: for one image torch's threads cost more than they bring where
    something else computes as well, such as the teacher behind the explorer.

    Args:
        image: ``(3, H, W)`` in [0, 1].

    Raises:
        ShapeError: If it is no colour image.

    Example:
        >>> lens = BandLens(torch.rand(3, 16, 16))
        >>> view = lens.look(torch.zeros(1, 16, 9))
        >>> view.after.shape, float(view.contrast[1].max())
        ((16, 16, 3), 0.0)
    """

    def __init__(self, image: Tensor) -> None:
        if image.ndim != 3 or image.shape[0] != 3:
            raise ShapeError(f"image: expected (3, H, W), got {tuple(image.shape)}")
        self.size: tuple[int, int] = (image.shape[1], image.shape[2])
        pixels = image.float().numpy()
        self._image, self.before = pixels, _to_pixels(pixels)
        self.spectrum = np.fft.rfft2(pixels)
        self.amplitude = np.abs(self.spectrum)
        self.edges = ring_edges(min(FINE, max(1, min(self.size) // 2)))
        self._plane = _plane(*self.size)
        self._rings, self._weights = _rings(*self.size, self.edges)
        self._contrast = self._measure(self.amplitude)

    def look(self, gain: Tensor, *, phase_lock: bool = True, steps: bool = True) -> BandView:
        """Scale the amplitudes and look at the image from every side.

        Args:
            gain: ``(1 or 3, H, W // 2 + 1)``, 0 or above, as in `apply_gain`.
            phase_lock: See `scale_bands`.
            steps: Whether the gain is one of rings: each border between two of them that differ
                is outlined. Otherwise the places are that have half of the largest change or more.

        Returns:
            All that there is to show.
        """
        own = gain.numpy()
        factor = own if phase_lock else _loosened(gain, self.size).numpy()
        after = np.fft.irfft2(self.spectrum * factor, s=self.size)
        amplitude = self.amplitude * own
        logarithm = np.log(np.maximum(amplitude.mean(axis=0), FLOOR))
        return BandView(
            before=self.before,
            after=_to_pixels(after),
            moved=float(np.sqrt(np.mean((after - self._image) ** 2))),
            clipped=float(((after < 0) | (after > 1)).mean()),
            spectrum=logarithm.ravel()[self._plane],
            outline=self._outline(own, steps),
            edges=self.edges,
            contrast=np.stack([self._contrast, self._measure(amplitude)]),
        )

    def _measure(self, amplitude: np.ndarray) -> np.ndarray:
        """Root of each ring's energy, mean of the channels (Parseval, as `ring_energy`)."""
        energy = [
            np.bincount(self._rings, (channel.ravel() ** 2) * self._weights, len(self.edges) + 1)
            for channel in amplitude
        ]
        return np.sqrt(energy)[:, 1:-1].mean(axis=0)

    def _outline(self, gain: np.ndarray, steps: bool) -> np.ndarray:
        if not steps:
            change = np.abs(gain - 1).max(axis=0)
            gain = (change >= max(change.max() / 2, 1e-3))[None]
        border = np.zeros(self.size, bool)
        for channel in gain:
            plane = channel.ravel()[self._plane]
            middle = tuple(side // 2 for side in self.size)
            plane[middle] = plane[middle[0], middle[1] - 1]  # DC belongs to no ring
            border[1:] |= plane[1:] != plane[:-1]
            border[:, 1:] |= plane[:, 1:] != plane[:, :-1]
        return border


@torch.inference_mode()
def scale_bands(images: Tensor, gain: Tensor, *, phase_lock: bool = True) -> Tensor:
    """Scale the amplitudes of some images, with phases locked or let loose.

    Phase lock on: gains change amplitudes alone, and every phase stays, as in a Fourier prompt.
    Off: where the gain differs from 1 by 0.05 or more, phases are scrambled as well: those of one
    fixed white noise are added, alike for all colours. So the bands that are touched keep the
    energy that the gain leaves them and lose what they drew; all others stay.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        gain: ``(1 or 3, H, W // 2 + 1)``, or one an image, 0 or above.
        phase_lock: Whether phases stay.

    Returns:
        ``(B, 3, H, W)``, not clipped.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> loose = scale_bands(x, torch.full((1, 8, 5), 1.0), phase_lock=False)
        >>> torch.allclose(loose, x, atol=1e-6)
        True
    """
    if phase_lock:
        return apply_gain(images, gain)
    size = (images.shape[2], images.shape[3])
    return torch.fft.irfft2(torch.fft.rfft2(images.float()) * _loosened(gain, size), s=size)


def _loosened(gain: Tensor, size: tuple[int, int]) -> Tensor:
    """Give a gain the phases of one fixed white noise where it is not about 1."""
    noise = torch.rand(size, generator=torch.Generator().manual_seed(SEED)) - 0.5
    other = torch.sgn(torch.fft.rfft2(noise))  # of a real image, so the result is one, too
    other[0, 0] = 1  # the mean keeps its sign
    return torch.where((gain - 1).abs() < 0.99 * STEP, gain + 0j, gain * other)


def _rings(height: int, width: int, edges: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Number each flat bin's ring from 1 on, and weigh it by the frequencies it stands for."""
    radius = radial_frequency(height, width, dtype=torch.float64)
    ring = torch.bucketize(radius, torch.tensor(edges, dtype=torch.float64)).flatten()
    return ring.numpy(), _counted(height, width).flatten().numpy() / (height * width) ** 2


def _counted(height: int, width: int) -> Tensor:
    """Count how many frequencies each bin of a half spectrum stands for, ``(H, W // 2 + 1)``."""
    twice = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    twice[[0, -1] if width % 2 == 0 else [0]] = 1
    return twice.expand(height, -1)


def _plane(height: int, width: int) -> np.ndarray:
    """Number, for each place of the shifted plane ``(H, W)``, its bin of the flat half spectrum."""
    columns = width // 2 + 1
    rows, own = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    mirrored = own >= columns
    rows = np.where(mirrored, -rows % height, rows)
    own = np.where(mirrored, width - own, own)
    return np.fft.fftshift(rows * columns + own)


def _to_pixels(image: np.ndarray) -> np.ndarray:
    grey = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(grey.transpose(1, 2, 0))


def preset_gains(name: str, *, ring: int, rings: int) -> list[float]:
    """Return the gains of a preset.

    Args:
        name: ``identity``; ``remove`` or ``amplify`` (twice) one ring; ``low-pass`` keeps that
            ring and all below, ``high-pass`` that ring and all above.
        ring: Which, from 0.
        rings: How many there are.

    Raises:
        InputError: For another name, or a ring that there is not.

    Example:
        >>> preset_gains("low-pass", ring=1, rings=4)
        [1.0, 1.0, 0.0, 0.0]
    """
    if name not in get_args(Preset):
        known = ", ".join(f"'{preset}'" for preset in get_args(Preset))
        raise InputError(f"preset: expected one of {known}, got '{name}'")
    if not 0 <= ring < rings:
        raise InputError(f"ring: expected 0 to {rings - 1}, got {ring}")
    places = range(rings)
    if name == "low-pass":
        return [float(place <= ring) for place in places]
    if name == "high-pass":
        return [float(place >= ring) for place in places]
    factor = {"identity": 1.0, "remove": 0.0, "amplify": AMPLIFIED}[name]
    return [factor if place == ring else 1.0 for place in places]


def bump_gains(gain: float, *, centre: float, width: float, edges: Sequence[float]) -> list[float]:
    """Return the gains of rings under one smooth bump over radial frequency.

    Args:
        gain: At the centre, 0 or above; far away it is 1.
        centre: Cycles per pixel.
        width: Full width at half of the change, cycles per pixel, above 0.
        edges: Of the rings; each takes the value at its middle, that of the corners at 0.604.

    Example:
        >>> bump_gains(3.0, centre=0.125, width=0.25, edges=[0, 0.25, 0.5])
        [3.0, 1.125]
    """
    middles = [(low + min(high, 0.5**0.5)) / 2 for low, high in pairwise(edges)]
    return [1 + (gain - 1) * 2.0 ** -((2 * (x - centre) / width) ** 2) for x in middles]


def ring_means(gain: Tensor, edges: Sequence[float], *, width: int) -> tuple[np.ndarray, float]:
    """Read a gain's mean in each ring, and how much of the gain these means tell.

    Args:
        gain: ``(C, H, W // 2 + 1)``, above 0.
        edges: Of the rings, cycles per pixel.
        width: W, pixels.

    Returns:
        Geometric means ``(C, R)``, 1 where a ring holds no frequency; and the share of the log
        gain's squares that they explain, 0 to 1, 1 for a gain that is 1 everywhere.

    Example:
        >>> means, explained = ring_means(torch.full((1, 8, 5), 2.0), [0, 0.25, 0.75], width=8)
        >>> means.round(3).tolist(), round(explained, 3)
        ([[2.0, 2.0]], 1.0)
    """
    height = gain.shape[-2]
    masks = ring_masks(height, width, edges).flatten(1)
    weights = masks * _counted(height, width).flatten()
    log_gain = gain.detach().double().clamp(min=1e-9).log().flatten(1)
    means = log_gain @ weights.T / weights.sum(1).clamp(min=1)
    whole = float((log_gain**2 @ weights.T).sum())
    told = float((means**2 * weights.sum(1)).sum())
    return means.exp().numpy(), told / whole if whole > 1e-12 else 1.0


SIDE = 224  # pixels a panel has at least; smaller images are enlarged by a whole factor
GAP = 8
BEFORE, AFTER = METHOD_COLORS["bsm"], METHOD_COLORS["fopro"]
# Without the brightest yellow, on which a white outline would not be seen.
_SPECTRUM = (np.array(colormaps["viridis"].colors)[:225] * 255).astype(np.uint8)  # type: ignore[attr-defined]


def image_panel(view: BandView, *, floor: float, ceiling: float) -> bytes:
    """Draw image before, image after, and its spectrum, side by side.

    The border of what is changed is drawn white into the spectrum.

    Args:
        view: What to show.
        floor: Log amplitude of the darkest colour; kept while sliders move, so that nothing
            flickers.
        ceiling: Log amplitude of the brightest.

    Returns:
        PNG bytes.

    Example:
        >>> import torch
        >>> from fopro_lab.widgets.bands import BandLens
        >>> view = BandLens(torch.rand(3, 16, 16)).look(torch.ones(1, 16, 9))
        >>> image_panel(view, floor=-4.0, ceiling=4.0)[1:4]
        b'PNG'
    """
    last = len(_SPECTRUM) - 1
    share = (view.spectrum - floor) * (last / max(ceiling - floor, 1e-6))
    spectrum = _SPECTRUM[share.clip(0, last).astype(np.uint8)]
    spectrum[view.outline] = 255
    height, width = view.before.shape[:2]
    factor = max(1, -(-SIDE // height))
    tall, wide = height * factor, width * factor
    whole = np.full((tall, 3 * wide + 2 * GAP, 3), 255, np.uint8)
    for place, panel in enumerate((view.before, view.after, spectrum)):
        start = place * (wide + GAP)
        large = panel if factor == 1 else panel.repeat(factor, axis=0).repeat(factor, axis=1)
        whole[:, start : start + wide] = large
    return _png(whole)


class ProfilePanel:
    """The contrast by frequency before and after: axes drawn once, then one line a tick.

    Args:
        view: A first view; its rings and its contrast set the axes.

    Example:
        >>> import torch
        >>> from fopro_lab.widgets.bands import BandLens
        >>> view = BandLens(torch.rand(3, 16, 16)).look(torch.ones(1, 16, 9))
        >>> ProfilePanel(view).draw(view)[1:4]
        b'PNG'
    """

    def __init__(self, view: BandView) -> None:
        self.figure = Figure(figsize=(6.9, 2.3), dpi=100)
        self.canvas = FigureCanvasAgg(self.figure)
        ax = self.figure.add_axes((0.09, 0.22, 0.89, 0.74))
        edges = view.edges
        top = max(float(view.contrast[0].max()), 1e-4)
        self.floor = top / 3000
        before = self._steps(view.contrast[0])
        (self.after,) = ax.step(edges, before, where="post", color=AFTER, lw=2.2, label="after")
        ax.step(edges, before, where="post", color=BEFORE, lw=1.4, ls="--", label="before")
        ax.set_yscale("log")
        ax.set_ylim(self.floor, top * 6)
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylabel("Contrast (of [0, 1])", fontsize=9)
        tidy_axes(ax)
        ax.minorticks_off()
        ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
        self.after.set_animated(True)  # left out of what is drawn once
        self.canvas.draw()
        self._empty = self.canvas.copy_from_bbox(self.figure.bbox)

    def draw(self, view: BandView) -> bytes:
        """Move the line of the contrast after, and return the figure as PNG bytes."""
        self.after.set_ydata(self._steps(view.contrast[1]))
        self.canvas.restore_region(self._empty)
        self.figure.axes[0].draw_artist(self.after)
        return _png(np.asarray(self.canvas.buffer_rgba())[..., :3])

    def _steps(self, values: np.ndarray) -> np.ndarray:
        """One height an edge, the last repeated; a removed ring lies on the floor."""
        heights = np.maximum(np.asarray(values, dtype=float), self.floor)
        return np.append(heights, heights[-1])


def tidy_axes(ax: Axes) -> None:
    """Give the axes of a small panel over frequency its label, grid and text sizes.

    Example:
        >>> ax = Figure().subplots()
        >>> tidy_axes(ax)
        >>> ax.get_xlabel()
        'Spatial frequency, cycles per pixel'
    """
    ax.set_xlabel("Spatial frequency, cycles per pixel", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(color="#E6E6E6")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def figure_png(canvas: FigureCanvasAgg) -> bytes:
    """Draw a figure anew and return it as PNG bytes.

    Example:
        >>> figure_png(FigureCanvasAgg(Figure(figsize=(1, 1))))[1:4]
        b'PNG'
    """
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def ring_labels(edges: list[float]) -> list[str]:
    """Name rings by their frequencies.

    Example:
        >>> ring_labels([0, 0.25, 0.5, 0.75])
        ['0 to 0.25', '0.25 to 0.5', '0.5 to 0.75']
    """
    return [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


BOUND = 12.0  # of |log gain|: a ring that is removed keeps six millionths of its amplitude
PLAN = "reports/plans/pinned.yaml"
_PATHS = ("dataset", "split_files", "weights")
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class Pin(NamedTuple):
    """The two files of a pin."""

    knobs: Path
    prompt: Path


def ring_prompt(gains: np.ndarray, *, size: int) -> FourierPrompt:
    """Make a prompt of the form ring with given gains.

    Args:
        gains: ``(3, R + 1)``: of R equally wide rings up to 0.5 cycles per pixel and of the
            corners; three alike channels are kept as one.
        size: Side of the images, pixels.

    Example:
        >>> prompt = ring_prompt(np.array([[2.0, 0.0]] * 3), size=8)
        >>> prompt.channels, prompt.mean_gain()[0, 0, 1].item()
        (1, 2.0)
    """
    alike = bool((gains == gains[:1]).all())
    prompt = FourierPrompt(
        "ring",
        channels=1 if alike else 3,
        rings=gains.shape[1] - 1,
        size=size,
        max_log_gain=BOUND,
    )
    logarithms = np.log(np.maximum(gains, math.exp(-BOUND))) / BOUND
    cells = np.arctanh(logarithms.clip(-1 + 1e-9, 1))
    with torch.no_grad():
        prompt.cells.copy_(torch.from_numpy(cells[:1] if alike else cells))
    return prompt


def differing_knobs(configs: Sequence[Config]) -> dict[str, Any]:
    """List the knobs that differ from their defaults; paths that are here become absolute.

    Example:
        >>> from fopro_lab.config import DataConfig
        >>> differing_knobs([DataConfig(images=160)])
        {'images': 160}
    """
    knobs: dict[str, Any] = {}
    for config in configs:
        knobs |= config.model_dump(mode="json", exclude_defaults=True)
    for name in _PATHS:
        path = Path(str(knobs.get(name, ""))).expanduser()
        if knobs.get(name) and path.exists():
            knobs[name] = str(path.resolve())
    return knobs


def write_pin(
    name: str, prompt: FourierPrompt, *, folder: Path | str, knobs: Mapping[str, Any]
) -> Pin:
    """Write a prompt and the knobs that use it; nothing is overwritten.

    Args:
        name: Of both files: letters, digits, ``_``, ``.`` and ``-``.
        prompt: What is pinned.
        folder: Where they go; made if it is not there.
        knobs: Data and teacher, as `differing_knobs` gives them.

    Returns:
        Both paths: ``NAME.yaml``, which `fopro train -f` takes, and ``NAME.safetensors``.

    Raises:
        InputError: If the name is none for a file, or one of the files is there already.
        WorkError: If the folder cannot be written to.

    Example:
        >>> write_pin("a/b", FourierPrompt("ring"), folder="pins", knobs={})
        Traceback (most recent call last):
        fopro_lab.errors.InputError: name: expected letters, digits, _ . and -, got 'a/b'
    """
    if not re.fullmatch(_NAME, name):
        raise InputError(f"name: expected letters, digits, _ . and -, got '{name}'")
    place = Path(folder).expanduser()
    pin = Pin(place / f"{name}.yaml", place / f"{name}.safetensors")
    for path in pin:
        if path.exists():
            raise InputError(f"{path}: is there already and is left alone; choose another name")
    values = {"prompt_file": str(pin.prompt.resolve()), **knobs}
    about = "# Bands pinned in the explorer: a fixed prompt, with its data and teacher.\n"
    text = about + yaml.safe_dump(values, sort_keys=False)
    try:
        place.mkdir(parents=True, exist_ok=True)
        prompt.save(pin.prompt)
        with atomic_path(pin.knobs) as temporary:
            temporary.write_text(text, "utf-8")
    except (OSError, WorkError) as error:
        with suppress(OSError):
            pin.prompt.unlink()  # half a pin would block its name
        reason = getattr(error, "strerror", None) or error
        raise WorkError(f"{place}: may not be written ({reason})") from None
    return pin


def teacher_of(entry: str) -> TeacherConfig:
    """Read a teacher's entry in a list: ``NAME``, or ``NAME=FILE`` with its file of weights.

    Example:
        >>> teacher_of("cifar-resnet20=weights/r20.th").weights
        'weights/r20.th'
    """
    name, _, weights = entry.partition("=")
    return TeacherConfig.from_mapping({"teacher": name, "weights": weights})


def short_entry(entry: str) -> str:
    """Name a teacher by its entry, without the folder of its weights.

    Example:
        >>> short_entry("cifar-resnet20=weights/r20.th"), short_entry("builtin")
        ('cifar-resnet20, r20.th', 'builtin')
    """
    name, _, weights = entry.partition("=")
    return f"{name}, {Path(weights).name}" if weights else name


def knobs_of_teacher(knobs: Mapping[str, Any], entry: str) -> dict[str, Any]:
    """Let knobs name another teacher, by its entry alone.

    Example:
        >>> knobs_of_teacher({"images": 160, "teacher": "a", "weights": "a.pth"}, "b=b.pth")
        {'images': 160, 'teacher': 'b', 'weights': 'b.pth'}
    """
    others = {key: knob for key, knob in knobs.items() if key not in TeacherConfig.model_fields}
    return {**others, **differing_knobs([teacher_of(entry)]), "teacher": teacher_of(entry).teacher}


def pin_commands(pin: Pin) -> tuple[str, str]:
    """Return the commands that use a pin, to be started in the folder above its own.

    Example:
        >>> pin_commands(Pin(Path("pins/a.yaml"), Path("pins/a.safetensors")))[1]
        'fopro train -f pins/a.yaml'
    """
    told = shlex.quote(f"{pin.knobs.resolve().parent.name}/{pin.knobs.name}")
    here = (pin.knobs.resolve().parents[1] / PLAN).is_file() or not (CHECKOUT / PLAN).is_file()
    plan = PLAN if here else shlex.quote(str(CHECKOUT / PLAN))
    return f"fopro report {plan} -f {told}", f"fopro train -f {told}"


def told_pin(pin: Pin) -> str:
    """Say what was written, and how it is used.

    Example:
        >>> told_pin(Pin(Path("pins/a.yaml"), Path("pins/a.safetensors"))).splitlines()[0]
        'Written: pins/a.yaml and a.safetensors.'
    """
    report, train = pin_commands(pin)
    home = pin.knobs.resolve().parents[1]
    return f"Written: {pin.knobs} and {pin.prompt.name}.\nIn {home}: {report}\nor: {train}"


def read_prompt_file(path: Path | str) -> FourierPrompt:
    """Read a saved prompt, or the one that a pin's YAML names.

    Raises:
        InputError: If there is no such file, or none that holds a prompt of 1 or 3 channels.

    Example:
        >>> read_prompt_file("nowhere.safetensors")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.safetensors: no such file
    """
    from fopro_lab.config import read_yaml

    text = str(path).strip()
    if not text:
        raise InputError("prompt: expected a path to a saved prompt or a pin, got none")
    if Path(text).suffix in (".yaml", ".yml"):
        named = read_yaml(Path(text).expanduser()).get("prompt_file")
        if not isinstance(named, str):
            raise InputError(f"{text}: expected a pin, with a prompt_file, got none")
        text = named
    prompt = FourierPrompt.load(Path(text).expanduser()).requires_grad_(False)
    if prompt.channels not in (1, 3):
        raise InputError(f"{text}: expected a prompt of 1 or 3 channels, got {prompt.channels}")
    return prompt
