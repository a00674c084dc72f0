"""The control of a learned prompt: the same gains, in another place."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.gain import scale_spectrum
from fopro_lab.fourier.rings import (
    at_least_single,
    cached_grid,
    check_images,
    frequencies,
    radial_frequency,
    ring_edges,
    ring_energy,
    ring_gain,
)
from fopro_lab.io import atomic_path


class Share(NamedTuple):
    """Which stretch of a batch some images are.

    Attributes:
        start: Place of the first image in the batch.
        stop: One past the place of the last.
        whole: Images of the batch.
    """

    start: int
    stop: int
    whole: int


def draw(
    count: int,
    *shape: int,
    generator: torch.Generator | None,
    device: torch.device | None = None,
    share: Share | None = None,
) -> Tensor:
    """Draw standard normal numbers for some images.

    A batch that is shared out must draw what it draws undivided: each process draws the numbers of
    all images, which are few, and keeps those of its own.

    Args:
        count: Number of images.
        shape: Of one image's numbers.
        generator: Their source; None is torch's global one.
        device: Where to draw; a generator's own goes before.
        share: Stretch of a batch that the images are; None is all of it.

    Returns:
        ``(count, *shape)``.

    Example:
        >>> parts = [(1, Share(0, 1, 3)), (2, Share(1, 3, 3))]
        >>> drawn = [
        ...     draw(n, 2, generator=torch.Generator().manual_seed(0), share=part)
        ...     for n, part in parts]
        >>> whole = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(torch.cat(drawn), whole)
        True
    """
    # An exported prompt keeps its batch free only without a slice, and without naming no generator.
    where: dict[str, Any] = {"device": device}
    if generator is not None:
        where = {"device": generator.device, "generator": generator}
    if share is None:
        return torch.randn(count, *shape, **where)
    return torch.randn(share.whole, *shape, **where)[share.start : share.stop]


def coarse_shape(rows: int) -> tuple[int, int]:
    """Return rows and columns of a coarse map.

    Example:
        >>> coarse_shape(16)
        (16, 9)
    """
    return rows, rows // 2 + 1


def mirror(coarse: Tensor) -> Tensor:
    """Give mirrored rows of the first and last column the mean of their two values.

    There a real image's two frequencies are one, so a map that differs would not act as it shows.

    Args:
        coarse: Coarse maps, ``(..., rows, rows // 2 + 1)``.

    Returns:
        Maps of the same shape; the other columns are untouched.

    Example:
        >>> mirror(torch.tensor([[1.0, 1.0], [2.0, 0.0], [4.0, 0.0]])).tolist()
        [[1.0, 1.0], [3.0, 0.0], [3.0, 0.0]]
    """
    opposite = coarse.flip(-2).roll(1, -2)
    half = torch.zeros(coarse.shape[-1], dtype=coarse.dtype, device=coarse.device)
    half[0] = half[-1] = 0.5
    return torch.lerp(coarse, opposite, half)


def resample(coarse: Tensor, *, height: int, width: int) -> Tensor:
    """Read coarse maps at each bin of an image's half spectrum, bilinear in frequency.

    Every value is a weighted mean of four coarse ones, so no bound of theirs is left.

    Args:
        coarse: Coarse maps, ``(..., rows, rows // 2 + 1)``.
        height: Rows of the image, pixels.
        width: Columns of the image, pixels.

    Returns:
        ``(..., height, width // 2 + 1)`` in ``rfft2`` order, in the unit of ``coarse``.

    Raises:
        ShapeError: If the last two axes are not those of a coarse map of 2 rows or more.

    Example:
        >>> coarse = torch.arange(4.0).expand(6, 4)  # 0 at 0, 3 at 0.5 cycles per pixel
        >>> resample(coarse, height=1, width=4).tolist()
        [[0.0, 1.5, 3.0]]
    """
    rows = coarse.shape[-2] if coarse.ndim > 1 else 0
    if rows < 2 or coarse.shape[-1] != rows // 2 + 1:
        raise ShapeError(f"coarse: expected (..., R, R // 2 + 1), got {tuple(coarse.shape)}")
    down = _row_weights(height, rows, coarse.device, coarse.dtype)
    across = _column_weights(width, rows // 2 + 1, coarse.device, coarse.dtype)
    return down @ coarse @ across.T


@cached_grid
def _row_weights(height: int, rows: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weight of each coarse row in each row of the image's spectrum, ``(height, rows)``."""
    distance = frequencies(height)[:, None] * rows - torch.arange(rows, dtype=torch.float64)
    around = (distance + rows / 2) % rows - rows / 2
    return (1 - around.abs()).clamp(min=0).to(device, dtype)


@cached_grid
def _column_weights(width: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weight of each coarse column in each one of the spectrum, ``(width // 2 + 1, columns)``."""
    place = frequencies(width)[: width // 2 + 1].abs() * 2 * (columns - 1)
    distance = place[:, None] - torch.arange(columns, dtype=torch.float64)
    return (1 - distance.abs()).clamp(min=0).to(device, dtype)


DIRECTIONS = 3  # 1, cos 2t, cos 4t: even in both frequencies, so mirrored bins agree by themselves
OCTAVES_FROM = 1 / 32  # cycles per pixel; below it the scale is linear, above it in octaves


def waves_shape(channels: int, waves: int) -> tuple[int, int, int]:
    """Return the shape of the coefficients of one gain.

    Example:
        >>> waves_shape(3, 6)
        (3, 6, 3)
    """
    return channels, waves, DIRECTIONS


def sum_of_waves(coefficients: Tensor, *, height: int, width: int) -> Tensor:
    """Add up the basis at each bin of an image's half spectrum.

    Args:
        coefficients: ``(..., C, waves, 3)``.
        height: Rows of the image, pixels.
        width: Columns of the image, pixels.

    Returns:
        ``(..., C, height, width // 2 + 1)``, real and without a bound.

    Example:
        >>> flat = torch.zeros(1, 2, 3)
        >>> flat[0, 0, 0] = 0.5  # the first wave is constant
        >>> sum_of_waves(flat, height=4, width=4).unique().tolist()
        [0.5]
    """
    channels, waves = coefficients.shape[-3:-1]
    place, kind = coefficients.device, coefficients.dtype
    basis = _basis(height, width, waves, place, kind)
    mixed = _contrasts(channels, place, kind) @ coefficients.flatten(-2)
    return (mixed @ basis.flatten(1)).unflatten(-1, basis.shape[1:])


@cached_grid
def _basis(height: int, width: int, waves: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Waves over octaves times directions, ``(waves * 3, height, width // 2 + 1)``."""
    down = frequencies(height)[:, None]
    across = frequencies(width)[: width // 2 + 1].abs()[None, :]
    radius = torch.hypot(down, across)
    octaves = torch.log1p(radius / OCTAVES_FROM) / math.log1p(math.sqrt(0.5) / OCTAVES_FROM)
    number = torch.arange(waves, dtype=torch.float64)[:, None, None]
    along = torch.cos(math.pi * number * octaves)
    # cos 2t without an angle, whose gradient and value at DC would be undefined
    turned = (across**2 - down**2) / radius.square().clamp(min=1e-12)
    around = torch.stack([torch.ones_like(turned), turned, 2 * turned**2 - 1])
    return (along[:, None] * around).flatten(0, 1).to(device, dtype)


@cached_grid
def _contrasts(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Columns: the mean of the channels, then their contrasts; each cosine has the same power.

    For three channels these are luminance, red against blue, and green against both.
    """
    number = torch.arange(channels, dtype=torch.float64)
    matrix = torch.cos(math.pi * (number[:, None] + 0.5) * number / channels)
    matrix[:, 1:] *= math.sqrt(2)
    return matrix.to(device, dtype)


Form = Literal["generator", "shared", "ring", "radial", "image"]
HIDDEN = 64  # width of the hidden layer of a form with a network
DARK = 1e-8  # energy added to each ring before its logarithm: a black image has one, too


def cells_shape(settings: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of the numbers that one gain is read from.

    Example:
        >>> cells_shape({"form": "ring", "channels": 3, "rings": 8})
        (3, 9)
    """
    form, channels = settings["form"], settings["channels"]
    if form == "ring":
        return channels, settings["rings"] + 1
    if form in ("radial", "image"):
        return waves_shape(channels, settings["waves"])
    return channels, *coarse_shape(settings["rows"])


class CellNetwork(nn.Module):
    """A network with one hidden layer that starts at 0 for any input.

    Args:
        width: Of its input: the noise, or the rings of an image's spectrum.
        shape: Of one gain's cells.
        seed: Of the first layer; torch's global generator is not touched.

    Example:
        >>> CellNetwork(4, shape=(3, 9), seed=0)(torch.rand(2, 4)).shape
        torch.Size([2, 3, 9])
    """

    def __init__(self, width: int, *, shape: tuple[int, ...], seed: int) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.utils.skip_init(nn.Linear, width, HIDDEN)
        self.last = nn.utils.skip_init(nn.Linear, HIDDEN, int(torch.Size(shape).numel()))
        source = torch.Generator().manual_seed(seed)
        nn.init.kaiming_normal_(self.first.weight, generator=source)
        for zero in (self.first.bias, self.last.weight, self.last.bias):
            nn.init.zeros_(zero)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, width)`` to cells ``(B, *shape)``, outside of autocast."""
        weight = self.first.weight
        with torch.autocast(weight.device.type, enabled=False):
            inputs = inputs.to(weight.device, weight.dtype)
            return self.last(nn.functional.silu(self.first(inputs))).unflatten(1, self.shape)


class LogSpectrum(nn.Module):
    """An image's log amplitude in each ring and channel, in units of what images show.

    Args:
        channels: C.
        rings: Up to 0.5 cycles per pixel; the corners add one.

    Example:
        >>> LogSpectrum(3, rings=4)(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 15])
    """

    mean: Tensor
    spread: Tensor
    seen: Tensor

    def __init__(self, channels: int, *, rings: int) -> None:
        super().__init__()
        self.edges = ring_edges(rings)
        self.register_buffer("mean", torch.full((channels * (rings + 1),), -3.0))
        self.register_buffer("spread", torch.ones(channels * (rings + 1)))
        self.register_buffer("seen", torch.tensor(False))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C * (rings + 1))``."""
        measured = self._measured(images)
        return (measured - self.mean.to(measured)) / self.spread.to(measured)

    @torch.no_grad()
    def observe(self, images: Tensor) -> None:
        """Take mean and spread from some images, such as the first batch of an exploration."""
        measured = self._measured(images)
        spread, mean = torch.std_mean(measured, dim=0, correction=0)
        self.mean.copy_(mean)
        self.spread.copy_(spread.clamp(min=0.1))  # a ring without frequency has none
        self.seen.fill_(True)

    def _measured(self, images: Tensor) -> Tensor:
        return 0.5 * (ring_energy(images, self.edges).flatten(1) + DARK).log()


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse settings that make no prompt.

    Raises:
        InputError: For the first one out of its range.

    Example:
        >>> check_settings({"form": "rings"})
        Traceback (most recent call last):
        fopro_lab.errors.InputError: form: expected one of 'generator', 'shared', 'ring', 'radial',
        'image', got 'rings'
    """
    if settings["form"] not in get_args(Form):
        known = ", ".join(repr(form) for form in get_args(Form))
        raise InputError(f"form: expected one of {known}, got {settings['form']!r}")
    size = settings["size"]
    if len(size) != 2 or not all(type(side) is int and side >= 1 for side in size):
        raise InputError(f"size: expected a side or (height, width) in pixels, got {size}")
    bound = settings["max_log_gain"]
    if not isinstance(bound, int | float) or not 0 < bound < float("inf"):
        raise InputError(f"max_log_gain: expected a number above 0, got {bound!r}")
    limits = {
        "channels": (1, 4096),
        "rows": (2, 256),
        "rings": (1, 64),
        "waves": (1, 64),
        "noise": (1, 512),
        "seed": (0, 2**63 - 1),
    }
    for name, (low, high) in limits.items():
        value = settings[name]
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"{name}: expected a whole number {low} to {high}, got {value!r}")


NOISES = 256  # fixed noises whose geometric mean is shown as a generator's gain


class FourierPrompt(nn.Module):
    """Gains over frequency, one per image: an ordinary module that turns images into images.

    ``ring`` has one gain a ring and channel: what sliders move. ``shared`` is one map,
    ``rows x (rows // 2 + 1)`` over cycles per pixel, read bilinearly: any place has its own gain.
    ``radial`` is a sum of few smooth waves over octaves, directions and colours: a tenth of the
    numbers, each learnt from many bins. ``generator`` makes maps of noise: many prompts at once.
    ``image`` makes the waves of ``radial`` of the image's own spectrum: each image gets what
    it lacks. Maps are mirrored in the columns where a real image has one frequency for two bins,
    so the gain shown is the gain acted. The bound of ``log G`` holds, up to rounding, for any
    parameters that do not overflow.

    Args:
        form: ``generator``, ``shared``, ``ring``, ``radial`` or ``image``.
        channels: Channels of the images; 1 gives all channels the same gain (not ``image``).
        size: Side, or height and width, of the images meant by default, pixels.
        max_log_gain: Bound ``s`` of ``abs(log G)``, natural logarithm, above 0.
        rows: Rows of the coarse map, 2 to 256.
        rings: Equally wide rings up to 0.5 cycles per pixel, 1 to 64; the corners add one.
        waves: Cosines over the octaves, 1 to 64.
        noise: Width of the generator's standard normal noise, 1 to 512.
        seed: Seed of a network's first layer; torch's global generator is not touched.

    Raises:
        InputError: If a value is out of its range.

    Example:
        >>> prompt = FourierPrompt("shared", size=8)
        >>> prompt.mean_gain().shape, prompt.mean_gain().unique().tolist()
        (torch.Size([3, 8, 5]), [1.0])
    """

    def __init__(
        self,
        form: Form = "generator",
        *,
        channels: int = 3,
        size: int | tuple[int, int] = 64,
        max_log_gain: float = 0.7,
        rows: int = 16,
        rings: int = 8,
        waves: int = 6,
        noise: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "form": form,
            "channels": channels,
            "size": list(size) if isinstance(size, tuple | list) else [size, size],
            "max_log_gain": max_log_gain,
            "rows": rows,
            "rings": rings,
            "waves": waves,
            "noise": noise,
            "seed": seed,
        }
        check_settings(self.settings)
        self.form = form
        self.channels = channels
        self.size: tuple[int, int] = tuple(self.settings["size"])
        self.max_log_gain = float(max_log_gain)
        self.edges = ring_edges(rings)
        self.noise = noise
        self.shape = cells_shape(self.settings)
        if form == "generator":
            self.network = CellNetwork(noise, shape=self.shape, seed=seed)
        elif form == "image":
            self.spectrum = LogSpectrum(channels, rings=rings)
            self.network = CellNetwork(channels * (rings + 1), shape=self.shape, seed=seed)
        else:
            self.cells = nn.Parameter(torch.zeros(self.shape))

    def gain(
        self, images: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Tensor:
        """Return the gain of each image.

        Args:
            images: Real batch, ``(B, C, H, W)``; the form ``image`` looks at them, every other
                form at their number and size alone.
            generator: Source of the generator's noise, on any device; None is torch's global one.
                The other forms draw nothing.
            share: Stretch of a batch that ``images`` are; None is all of it.

        Returns:
            ``(B, C, H, W // 2 + 1)``, dimensionless, 1 at DC, differentiable.

        Example:
            >>> FourierPrompt("image")(torch.rand(2, 3, 8, 8)).shape
            torch.Size([2, 3, 8, 8])
        """
        check_images(images)
        size = (images.shape[2], images.shape[3])
        one_for_all = self.channels == 1 and self.form != "image"
        if images.shape[1] != self.channels and not one_for_all:
            raise ShapeError(
                f"images: expected {self.channels} channels, got {tuple(images.shape)}"
            )
        if self.form == "image":
            return self.spread(self.network(self.spectrum(images)), size=size)
        # len(images) would be a constant of an exported prompt
        return self.sample_gain(images.shape[0], generator, size=size, share=share)

    def sample_gain(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        *,
        size: tuple[int, int] | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """Draw one gain for each image of a batch, where the images do not matter.

        Args:
            batch: Number of images.
            generator: As in `gain`.
            size: Height and width of the images, pixels; None is the prompt's own.
            share: As in `gain`.

        Returns:
            ``(batch, C, H, W // 2 + 1)``, dimensionless, 1 at DC, differentiable.

        Raises:
            InputError: For the form ``image``, whose gain depends on the image.

        Example:
            >>> FourierPrompt("generator", size=8).sample_gain(4).shape
            torch.Size([4, 3, 8, 5])
        """
        if self.form == "image":
            raise InputError("form 'image': its gain depends on the image; use gain(images)")
        if self.form != "generator":
            gain = self.mean_gain(size=size)
            return gain.expand(batch, *gain.shape)
        place = self.network.first.weight.device
        noise = draw(batch, self.noise, generator=generator, device=place, share=share)
        return self.spread(self.network(noise), size=size)

    def mean_gain(self, *, size: tuple[int, int] | None = None) -> Tensor:
        """Return one gain: the gain itself, or the middle of those of a form with a network.

        Args:
            size: Height and width of the images, pixels; None is the prompt's own.

        Returns:
            ``(C, H, W // 2 + 1)``, dimensionless, 1 at DC, differentiable. Of ``generator`` the
            geometric mean over 256 fixed noises, of ``image`` the gain of an image with the mean
            spectrum of those that it was explored on.

        Example:
            >>> FourierPrompt("ring", size=(8, 6), channels=1).mean_gain().shape
            torch.Size([1, 8, 4])
        """
        if self.form == "generator":
            fixed = torch.Generator().manual_seed(0)
            cells = self.network(torch.randn(NOISES, self.noise, generator=fixed))
            return self._read(self._bounded(cells).mean(dim=0), size)
        if self.form == "image":
            return self.spread(
                self.network(torch.zeros_like(self.spectrum.mean)[None])[0], size=size
            )
        return self.spread(self.cells, size=size)

    def spread(self, cells: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Turn the numbers behind a gain, of any size, into the gain over a half spectrum.

        Args:
            cells: ``(..., *shape)``, as the parameter ``cells`` or a network's output.
            size: Height and width of the images, pixels; None is the prompt's own.

        Returns:
            ``(..., C, H, W // 2 + 1)``, dimensionless, 1 at DC.

        Example:
            >>> prompt = FourierPrompt("ring", rings=1, size=4, channels=1)
            >>> prompt.spread(torch.tensor([[-99.0, 0.0]])).unique().round(decimals=3).tolist()
            [0.497..., 1.0]
        """
        return self._read(self._bounded(at_least_single(cells)), size)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Prompt images of any size.

        Args:
            images: Real, ``(B, C, H, W)``, or one image ``(C, H, W)`` as in a transform.
            generator: As in `gain`.

        Returns:
            The same shape, unit and type; it may leave [0, 1], since it is not clipped.

        Example:
            >>> FourierPrompt("shared", size=8)(torch.rand(2, 3, 12, 10)).shape
            torch.Size([2, 3, 12, 10])
        """
        if images.ndim == 3:
            return self(images.unsqueeze(0), generator).squeeze(0)
        return scale_spectrum(images, self.gain(images, generator))

    def observe(self, images: Tensor) -> None:
        """Let the form ``image`` see, once, what spectra images have; others need none.

        Args:
            images: Some images, ``(B, C, H, W)``, such as the first batch of an exploration.
        """
        if self.form == "image" and not self.spectrum.seen:
            self.spectrum.observe(images)

    @torch.no_grad()
    def shrink_(self, factor: float) -> None:
        """Move the prompt towards the identity: 1 leaves it, 0 makes every gain 1.

        Args:
            factor: 0 to 1, on what the bound is put on.
        """
        if self.form in ("generator", "image"):
            self.network.last.weight.mul_(factor)
            self.network.last.bias.mul_(factor)
        else:
            self.cells.mul_(factor)

    def save(self, path: Path | str) -> None:
        """Write parameters and settings to one safetensors file, atomically.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     FourierPrompt("ring", rings=4).save(f"{folder}/prompt.safetensors")
            ...     FourierPrompt.load(f"{folder}/prompt.safetensors").form
            'ring'
        """
        write_prompt(path, self.state_dict(), self.settings)

    @classmethod
    def load(cls, path: Path | str) -> "FourierPrompt":
        """Read a prompt that `save` wrote; nothing in the file is executed.

        Args:
            path: The file.

        Returns:
            The prompt, on the CPU, with the settings it was saved with.

        Raises:
            InputError: If the file is missing, is not a saved prompt or does not fit together.

        Example:
            >>> FourierPrompt.load("nowhere.safetensors")
            Traceback (most recent call last):
            fopro_lab.errors.InputError: nowhere.safetensors: no such file
        """
        return build_prompt(cls, path)

    def _bounded(self, cells: Tensor) -> Tensor:
        """Bound cells that are gains themselves; waves are bounded after they are added up."""
        if self.form in ("radial", "image"):
            return cells
        return self.max_log_gain * torch.tanh(at_least_single(cells))

    def _read(self, cells: Tensor, size: tuple[int, int] | None) -> Tensor:
        height, width = size or self.size
        with torch.autocast(cells.device.type, enabled=False):
            if self.form == "ring":
                return ring_gain(cells.exp(), self.edges, height=height, width=width)
            if self.form in ("radial", "image"):
                waves = sum_of_waves(at_least_single(cells), height=height, width=width)
                log_gain = self.max_log_gain * torch.tanh(waves)
            else:
                log_gain = resample(mirror(cells), height=height, width=width)
            log_gain[..., 0, 0] = 0
            return log_gain.exp()


VERSION = "1"
Prompt = TypeVar("Prompt", bound=nn.Module)


def write_prompt(
    path: Path | str, state: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write parameters and settings, atomically.

    Args:
        path: Target file.
        state: Parameters by name, on any device.
        settings: What rebuilds the prompt, as JSON can hold it.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_prompt(f"{folder}/a.safetensors", {"cells": torch.zeros(2)}, {"rows": 4})
        ...     read_prompt(f"{folder}/a.safetensors")
        ({'cells': tensor([0., 0.])}, {'rows': 4})
    """
    metadata = {"fopro_lab.prompt": VERSION, "settings": json.dumps(dict(settings))}
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def read_prompt(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_prompt` wrote.

    Args:
        path: The file.

    Returns:
        Parameters by name, on the CPU, and the settings.

    Raises:
        InputError: If the file is missing, is not safetensors, or is not a prompt of this version.

    Example:
        >>> read_prompt("nowhere.safetensors")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.safetensors: no such file
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: expected a safetensors file ({error})") from None
    version = metadata.get("fopro_lab.prompt")
    if version is None:
        raise InputError(f"{path}: expected a saved Fourier prompt, got other tensors")
    if version != VERSION:
        raise InputError(f"{path}: expected prompt version {VERSION}, got {version}")
    try:
        settings = json.loads(metadata.get("settings", ""))
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected the prompt's settings as JSON metadata")
    return state, settings


def build_prompt(kind: type[Prompt], path: Path | str) -> Prompt:
    """Rebuild a saved prompt; see `FourierPrompt.load`.

    Args:
        kind: Class that takes the stored settings.
        path: The file.

    Returns:
        The prompt, on the CPU, in the type it was stored in.

    Raises:
        InputError: If the file does not hold one, or its settings and tensors do not fit.
    """
    state, settings = read_prompt(path)
    # Written before the networks had names of their own.
    names = {"network.0.": "network.first.", "network.2.": "network.last."}
    for old, new in names.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    try:
        prompt = kind(**settings)
        dtype = next((value.dtype for value in state.values()), torch.float32)
        prompt.to(dtype).load_state_dict(state)
    except (TypeError, RuntimeError, InputError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: expected a saved Fourier prompt, got {reason}") from None
    return prompt


@torch.no_grad()
def random_gain_like(
    prompt: FourierPrompt,
    gain: Tensor,
    generator: torch.Generator,
    *,
    size: tuple[int, int],
    per_image: bool = False,
    share: Share | None = None,
) -> Tensor:
    """Move a prompt's gains to other frequencies.

    A random prompt of the same form says where: its frequencies, from the lowest value to the
    highest, get the gains that the learned prompt's have in that order. So it is a permutation of
    frequencies, alike for all channels, as smooth (or as ringed) as the form is. Every channel of
    every image keeps exactly its gains, and images keep what their gains have in common. What
    differs from the learned prompt is the place alone.

    Args:
        prompt: The learned prompt; it gets no gradient.
        gain: What it gives some images, ``(B, C, H, W // 2 + 1)``, as of ``prompt.gain``.
        generator: Source of the random prompt. Seeded alike, the arrangement is the same one, for
            every batch and at any size.
        size: Height and width of the images, pixels.
        per_image: Draw an arrangement for each image; averaged over images, little is left.
        share: Stretch of a batch that the images are; None is all of it.

    Returns:
        ``(B, C, H, W // 2 + 1)``, dimensionless, 1 at DC, equal in mirrored rows of column 0 and
        ``W / 2``.

    Example:
        >>> prompt = FourierPrompt("shared", size=8)
        >>> gain, places = prompt.sample_gain(2), torch.Generator().manual_seed(0)
        >>> random_gain_like(prompt, gain, places, size=(8, 8)).unique().tolist()
        [1.0]
    """
    bins, mirrors = _pairs(*size)
    bins, mirrors = bins.to(gain.device), mirrors.to(gain.device)
    count, share = (len(gain), share) if per_image else (1, None)
    cells = draw(count, *prompt.shape, generator=generator, share=share)
    place = next(prompt.parameters()).device
    target = _ranked(prompt.spread(cells.to(place), size=size).to(gain), bins)
    source = _ranked(prompt.mean_gain(size=size)[None].to(gain), bins)
    flat = gain.flatten(-2)
    moved = flat.clone()
    index = target[:, None, :].expand(len(gain), gain.shape[1], -1)
    moved.scatter_(2, index, flat.gather(2, source[:, None, :].expand_as(index)))
    return moved[..., mirrors].reshape(gain.shape)


def _ranked(gain: Tensor, bins: Tensor) -> Tensor:
    """Order bins by the mean log gain of the channels, ``(B, N)``; equal ones keep their order."""
    log_gain = gain.log().mean(dim=1).flatten(-2)
    return bins[log_gain[:, bins].argsort(dim=1, stable=True)]


def _pairs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """List one bin of each pair of opposite frequencies, and for every bin the one that counts.

    Returns:
        Flat numbers of the bins ``(N,)``, DC left out, from the lowest frequency to the highest;
        and for each bin of the half spectrum ``(H * (W // 2 + 1),)`` its own or its mirror's.
    """
    columns = width // 2 + 1
    rows, number = torch.arange(height)[:, None], torch.arange(columns)[None, :]
    own = (number == 0) | (2 * number == width)  # columns in which both of a pair lie
    mirrored = torch.where(own & (2 * rows > height), (height - rows) % height, rows)
    mirrors = (mirrored * columns + number).flatten()
    lowest_first = radial_frequency(height, width).flatten().argsort(stable=True)
    counts = (mirrors == torch.arange(len(mirrors)))[lowest_first] & (lowest_first != 0)
    return lowest_first[counts], mirrors
