"""Frequency bands set by hand: gains, saved presets, and how widgets draw them."""

import base64
import io
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError, WorkError
from fopro_lab.fourier import FourierPrompt, apply_gain, ring_edges, ring_gain, ring_masks
from fopro_lab.fourier.rings import bin_counts
from fopro_lab.io import write_file
from fopro_lab.options import Config, read_yaml

Preset = Literal["identity", "remove", "amplify", "low-pass", "high-pass"]
MAX_GAIN = 4.0  # of a slider
GAIN_STEP = 0.05  # of a slider; a gain that differs less from 1 leaves the phases alone
BUMP_EDGES = ring_edges(64)  # a bump is made of as many rings as a prompt may have
PROFILE_RINGS = 32  # of the radial profile, at most
THUMBNAIL = 96  # side of an image of the strip, pixels at most
CORNER = 0.5**0.5  # cycles per pixel; the highest frequency, of diagonal waves alone
MAX_LOG_GAIN = 12.0  # of a saved preset: a removed ring keeps six millionths of its amplitude


@dataclass(frozen=True, eq=False)
class Change:
    """Gains for amplitudes; without the phase lock, changed bands get the phases of noise."""

    gain: Tensor  # (1 or 3, H, W // 2 + 1), 0 or above
    phase_lock: bool = True

    @torch.inference_mode()
    def apply(self, images: Tensor) -> Tensor:
        """Change images ``(B, 3, H, W)`` in [0, 1]; they are not clipped."""
        if self.phase_lock:
            return apply_gain(images, self.gain)
        size, spectrum = (images.shape[2], images.shape[3]), torch.fft.rfft2(images.float())
        return torch.fft.irfft2(spectrum * _scrambled(self.gain, size), s=size)


def _scrambled(gain: Tensor, size: tuple[int, int]) -> Tensor:
    """Give a gain the phases of one fixed white noise where it is not about 1."""
    noise = torch.rand(size, generator=torch.Generator().manual_seed(0)) - 0.5
    phases = torch.sgn(torch.fft.rfft2(noise))  # of a real image, so the result is real, too
    phases[0, 0] = 1  # the mean keeps its sign
    return torch.where((gain - 1).abs() < 0.99 * GAIN_STEP, gain + 0j, gain * phases)


@dataclass(frozen=True, eq=False)
class ChangedImage:
    """An image before and after a change, and what the change did."""

    before: np.ndarray  # uint8 (H, W, 3)
    after: np.ndarray  # uint8 (H, W, 3), clipped for display; networks see it unclipped
    rms: float  # root mean square of the change, of [0, 1], before clipping
    clipped: float  # share of values that left [0, 1]
    spectrum: np.ndarray  # (H, W), log amplitude after, mean of the channels, DC in the middle
    contrast: np.ndarray  # (2, R), before and after: root of each ring's energy, channel mean
    gains: np.ndarray  # (R,), mean gain of each ring


class SpectrumView:
    """An image whose spectrum is kept, so that a new gain costs one inverse transform."""

    # NumPy, in one thread: for one image torch's threads cost more than they save while the teacher
    # computes beside them.
    def __init__(self, image: Tensor) -> None:
        if image.ndim != 3 or image.shape[0] != 3:
            raise ShapeError(f"image: expected (3, H, W), got {tuple(image.shape)}")
        self._pixels = image.float().numpy()
        self._before = _to_uint8(self._pixels)
        self.size = height, width = image.shape[1], image.shape[2]
        self.edges = ring_edges(min(PROFILE_RINGS, max(1, min(self.size) // 2)))
        self._spectrum = np.fft.rfft2(self._pixels)
        self._amplitude = np.abs(self._spectrum)
        weights = ring_masks(height, width, self.edges) * bin_counts(width)
        self._weights = weights.flatten(1).T.numpy() / (height * width) ** 2
        self._mean = self._weights / self._weights.sum(axis=0).clip(1e-12)
        self._contrast = self._measure(self._amplitude)

    def apply(self, change: Change) -> ChangedImage:
        """Change the image and measure it."""
        gain = change.gain.numpy()
        factor = gain if change.phase_lock else _scrambled(change.gain, self.size).numpy()
        after = np.fft.irfft2(self._spectrum * factor, s=self.size)
        amplitude = self._amplitude * gain
        log_amplitude = np.log(np.maximum(amplitude.mean(axis=0), 1e-6))
        # The other half, in `fft` order.
        mirrored = np.roll(log_amplitude[::-1], 1, axis=0)[:, (self.size[1] - 1) // 2 : 0 : -1]
        return ChangedImage(
            before=self._before,
            after=_to_uint8(after),
            rms=float(np.sqrt(np.mean((after - self._pixels) ** 2))),
            clipped=float((np.abs(after - 0.5) > 0.5 + 1e-5).mean()),  # rounding does not count
            spectrum=np.fft.fftshift(np.hstack([log_amplitude, mirrored])),
            contrast=np.stack([self._contrast, self._measure(amplitude)]),
            gains=gain.mean(axis=0).ravel() @ self._mean,
        )

    def _measure(self, amplitude: np.ndarray) -> np.ndarray:
        """Root of each ring's energy, mean of the channels (Parseval, as `ring_energy`)."""
        return np.sqrt(amplitude.reshape(3, -1) ** 2 @ self._weights).mean(axis=0)


class Strip:
    """Thumbnails of a few images; frequencies that a thumbnail cannot show are left out."""

    def __init__(self, images: Tensor) -> None:
        self._full = height, width = images.shape[2], images.shape[3]
        self._size = min(height, THUMBNAIL), min(width, THUMBNAIL)
        scale = math.prod(self._size) / (height * width)
        self._spectra = self._crop(torch.fft.rfft2(images.float())).numpy() * scale

    def apply(self, change: Change) -> np.ndarray:
        """Change all images and return them side by side, ``uint8 (h, N * w, 3)``."""
        gain = change.gain if change.phase_lock else _scrambled(change.gain, self._full)
        after = np.fft.irfft2(self._spectra * self._crop(gain).numpy(), s=self._size)
        return np.hstack([_to_uint8(image) for image in after])

    def _crop(self, plane: Tensor) -> Tensor:
        """Keep the low frequencies of a half spectrum ``(..., H, W // 2 + 1)``."""
        rows = torch.arange(self._size[0]) - self._size[0] // 2
        return plane[..., rows.roll(-(self._size[0] // 2)), : self._size[1] // 2 + 1]


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def preset_gains(name: str, *, ring: int, rings: int) -> list[float]:
    """Return a preset's gains; low-pass and high-pass keep the ring of this number, from 0."""
    if name not in get_args(Preset):
        known = ", ".join(f"'{preset}'" for preset in get_args(Preset))
        raise InputError(f"preset: expected one of {known}, got '{name}'")
    if not 0 <= ring < rings:
        raise InputError(f"ring: expected 0 to {rings - 1}, got {ring}")
    if name in ("low-pass", "high-pass"):
        sign = 1 if name == "low-pass" else -1
        return [float(sign * place <= sign * ring) for place in range(rings)]
    factor = {"identity": 1.0, "remove": 0.0, "amplify": 2.0}[name]
    return [factor if place == ring else 1.0 for place in range(rings)]


def ring_means(gain: Tensor, edges: Sequence[float], *, width: int) -> tuple[np.ndarray, float]:
    """Return geometric means `(C, R)` of a gain, and the share of its squared log they explain."""
    weights = (ring_masks(gain.shape[-2], width, edges) * bin_counts(width)).flatten(1)
    log_gain = gain.detach().double().clamp(min=1e-9).log().flatten(1)
    means = log_gain @ weights.T / weights.sum(1).clamp(min=1)
    whole = float((log_gain**2 @ weights.T).sum())
    explained = float((means**2 * weights.sum(1)).sum())
    return means.exp().numpy(), explained / whole if whole > 1e-12 else 1.0


def ring_prompt(gains: np.ndarray, *, size: int) -> FourierPrompt:
    """Make a prompt of the form ring with gains ``(C, R)``."""
    channels, rings = gains.shape
    how: Any = {"size": size, "max_log_gain": MAX_LOG_GAIN}
    prompt = FourierPrompt("ring", channels=channels, rings=rings - 1, **how)
    log_gains = np.log(np.maximum(gains, math.exp(-MAX_LOG_GAIN))) / MAX_LOG_GAIN
    with torch.no_grad():  # a prompt bounds the log gain by tanh
        prompt.cells.copy_(torch.from_numpy(np.arctanh(log_gains.clip(-1 + 1e-9, 1))))
    return prompt


@dataclass(eq=False)
class Bands:
    """The bands as the sliders set them, without any widget."""

    rings: int  # equally wide up to 0.5 cycles per pixel; the corners add one
    size: int  # side of the images, pixels
    mode: str = "rings"  # or bump, prompt
    centre: float = 0.25  # of the bump, cycles per pixel
    width: float = 0.1  # of the bump: full width at half of the change, cycles per pixel
    prompt: FourierPrompt | None = None  # the loaded one
    explained: float = 1.0  # share of its log gain (squares) that its means in the rings explain
    phase_lock: bool = True  # see Change
    gains: np.ndarray = field(init=False)  # (3, rings + 1), by channel
    heights: np.ndarray = field(init=False)  # (3,), the bump's gain at its centre, by channel

    def __post_init__(self) -> None:
        self.gains, self.heights = np.ones((3, self.rings + 1)), np.ones(3)

    @property
    def edges(self) -> list[float]:
        """Edges of the sliders' rings, cycles per pixel."""
        return ring_edges(self.rings)

    @torch.no_grad()
    def change(self) -> Change:
        """Return what acts now."""
        if self.mode == "prompt" and self.prompt is not None:
            return Change(self.prompt.mean_gain(size=(self.size, self.size)), self.phase_lock)
        gains, edges = self._ring_gains()
        gain = ring_gain(torch.from_numpy(gains).float(), edges, height=self.size, width=self.size)
        return Change(gain, self.phase_lock)

    def as_prompt(self) -> FourierPrompt:
        """Return what acts now as a prompt."""
        if not self.phase_lock:
            rule = "expected on, as a prompt scales amplitudes alone"
            raise InputError(f"phase lock: {rule}; got off")
        if self.mode == "prompt" and self.prompt is not None:
            return self.prompt
        return ring_prompt(self._ring_gains()[0], size=self.size)

    @torch.no_grad()
    def load(self, prompt: FourierPrompt) -> str:
        """Keep a prompt, set the ring gains to its ring means, and say how well they fit it."""
        self.prompt = prompt
        gain = prompt.mean_gain(size=(self.size, self.size))
        means, self.explained = ring_means(gain, self.edges, width=self.size)
        # Half a thousandth is below what a slider moves; a removed ring keeps six millionths.
        rounded = means.round(3)
        self.gains = np.broadcast_to(rounded.clip(0, MAX_GAIN), self.gains.shape).copy()
        fit = (
            f"Its mean in each ring explains {self.explained:.0%} of its log gain (squares, about "
            f"gain 1), to {GAIN_STEP:g} on sliders."
        )
        above = f" Gains above {MAX_GAIN:g} are shown as {MAX_GAIN:g}."
        return fit + above if rounded.max() > MAX_GAIN else fit

    def _ring_gains(self) -> tuple[np.ndarray, list[float]]:
        """Gains ``(3, R)`` in the modes rings and bump, one row if all are equal; their edges."""
        gains, edges = self.gains, self.edges
        if self.mode == "bump":
            edges = BUMP_EDGES
            # Each ring takes the value at its middle, the corners at 0.604.
            middles = np.array([(low + min(high, CORNER)) / 2 for low, high in pairwise(edges)])
            bump = 2.0 ** -((2 * (middles - self.centre) / self.width) ** 2)
            gains = 1 + np.outer(self.heights - 1, bump)
        return gains[:1] if (gains == gains[:1]).all() else gains, edges


def preset_options(config: Config, kind: type[Config]) -> dict[str, Any]:
    """List the options of a kind that are not defaults; existing paths become absolute."""
    names = set(kind.model_fields)
    options = config.model_dump(mode="json", exclude_defaults=True, include=names)
    for name in options.keys() & {"dataset", "image_dir", "split_files", "weights"}:
        path = Path(options[name]).expanduser()
        options[name] = str(path.resolve()) if path.exists() else options[name]
    return options


def save_preset(
    name: str, prompt: FourierPrompt, *, folder: Path | str, options: Mapping[str, Any]
) -> str:
    """Save a prompt as ``NAME.safetensors`` and the options that go with it as ``NAME.yaml``.

    Returns the paths and the commands that take them, a line each.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise InputError(f"name: expected letters, digits, _ . and -, got '{name}'")
    place = Path(folder).expanduser().resolve()
    preset, weights = place / f"{name}.yaml", place / f"{name}.safetensors"
    for path in (preset, weights):
        if path.exists():
            raise InputError(f"{path}: exists already and is left alone; choose another name")
    about = "# Bands saved in the explorer: a fixed prompt, with its data and teacher.\n"
    content = yaml.safe_dump({"prompt_file": str(weights), **options}, sort_keys=False)
    try:
        place.mkdir(parents=True, exist_ok=True)
        prompt.save(weights)
        write_file(preset, about + content)
    except (OSError, WorkError) as error:
        with suppress(OSError):
            weights.unlink()  # half a preset would block its name
        reason = getattr(error, "strerror", None) or error
        raise WorkError(f"{place}: cannot be written to ({reason})") from None
    report, train = ["report", "preset", "-f", str(preset)], ["train", "-f", str(preset)]
    return f"Saved: {preset}\nUse: fopro {shlex.join(report)}\nor: fopro {shlex.join(train)}"


def load_prompt(path: Path | str) -> FourierPrompt:
    """Load a saved prompt, or the one that a preset's YAML names."""
    text = str(path).strip()
    if not text:
        raise InputError("prompt: expected a path to a saved prompt or a preset, got none")
    if Path(text).suffix in (".yaml", ".yml"):
        named = read_yaml(Path(text).expanduser()).get("prompt_file")
        if not isinstance(named, str):
            raise InputError(f"{text}: expected a preset, with a prompt_file, got none")
        text = named
    prompt = FourierPrompt.load(Path(text).expanduser()).requires_grad_(False)
    if prompt.channels not in (1, 3):
        raise InputError(f"{text}: expected a prompt of 1 or 3 channels, got {prompt.channels}")
    return prompt


def png_bytes(pixels: np.ndarray) -> bytes:
    """Encode ``uint8 (H, W, 3)`` as PNG, compressed little so that a slider is not slowed down."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def figure_bytes(figure: Figure, *, dpi: int = 110) -> bytes:
    """Write a figure as PNG bytes and close it, else a notebook would show it once more."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    plt.close(figure)
    return stream.getvalue()


class StillBox(widgets.VBox):
    """A box of widgets that an executed notebook without a front end shows as a figure."""

    def still(self) -> Figure:
        """Draw the figure that takes the widget's place."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "image/png": base64.b64encode(figure_bytes(self.still())).decode()}
