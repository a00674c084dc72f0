"""The Fourier prompt: learned gains over frequency, as a module that turns images into images."""

import hashlib
import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
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
    ring_gain,
)
from fopro_lab.io import Summary, kind_of, write_file

Form = Literal["generator", "shared", "ring", "radial"]
HIDDEN = 64  # width of the generator's hidden layer
DIRECTIONS = 3  # 1, cos 2t, cos 4t: even in both frequencies, so mirrored bins agree by themselves
OCTAVES_FROM = 1 / 32  # cycles per pixel; below it the scale is linear, above it in octaves
VERSION = "1"  # of the saved file
LARGEST = 1e6  # number in a file: all are bounded by tanh where they are used


class Share(NamedTuple):
    """The part of a batch that one process holds: rows ``start`` to ``stop`` of ``whole``."""

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
    """Draw standard normal numbers ``(count, *shape)``, on the generator's device if it has one."""
    where: dict[str, Any] = {"device": device}
    if generator is not None:  # an exported prompt takes neither a generator nor a slice
        where = {"device": generator.device, "generator": generator}
    if share is None:
        return torch.randn(count, *shape, **where)
    # Drawn for the whole batch, so that each image gets the noise it would get in one process.
    return torch.randn(share.whole, *shape, **where)[share.start : share.stop]


class FourierPrompt(Summary, nn.Module):
    """Gains over frequency, one per image: an ordinary module that turns images into images.

    ``ring`` has one gain per ring and channel: what sliders move. ``shared`` is one map,
    ``rows x (rows // 2 + 1)`` over cycles per pixel, read bilinearly: any place has its own gain.
    ``radial`` is a sum of few smooth waves over octaves, directions and colours: a tenth of the
    numbers, each learned from many bins. ``generator`` makes maps of noise: many prompts at once.
    The gain shown is the gain that acts, and a new prompt is the identity.

    Args:
        form: One of the four above.
        channels: Channels of the images; 1 gives all channels the same gain.
        size: Side, or height and width, of the images meant by default, pixels.
        max_log_gain: Bound of ``abs(log G)``, natural logarithm, above 0; holds up to rounding.
        rows: Rows of the coarse map, 2 to 256.
        rings: Equally wide rings up to 0.5 cycles per pixel, 1 to 64; the corners add one.
        waves: Cosines over the octaves, 1 to 64.
        noise: Width of the generator's standard normal noise, 1 to 512.
        seed: Seed of the generator's first layer; torch's global generator is not touched.
    """

    _shown = ("form", "channels", "size", "max_log_gain")

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
        sides = list(size) if isinstance(size, tuple | list) else [size, size]
        self.settings: dict[str, Any] = {"form": form, "channels": channels, "size": sides}
        self.settings |= {"max_log_gain": max_log_gain, "rows": rows, "rings": rings}
        self.settings |= {"waves": waves, "noise": noise, "seed": seed}
        _check_settings(self.settings)
        self.form, self.channels, self.noise = form, channels, noise
        self.size: tuple[int, int] = tuple(self.settings["size"])
        self.max_log_gain = float(max_log_gain)
        self.edges = ring_edges(rings)
        # Of the numbers that one gain is read from: a gain per ring, coefficients, or a map.
        shapes = {"ring": (rings + 1,), "radial": (waves, DIRECTIONS)}
        self.shape: tuple[int, ...] = (channels, *shapes.get(form, (rows, rows // 2 + 1)))
        if form == "generator":  # one hidden layer, from noise to cells; 0 for any noise at first
            first = nn.utils.skip_init(nn.Linear, noise, HIDDEN)
            last = nn.utils.skip_init(nn.Linear, HIDDEN, math.prod(self.shape))
            nn.init.kaiming_normal_(first.weight, generator=torch.Generator().manual_seed(seed))
            for zero in (first.bias, last.weight, last.bias):
                nn.init.zeros_(zero)
            layers = {"first": first, "silu": nn.SiLU(), "last": last}
            self.network: Any = nn.Sequential(OrderedDict(layers))
        else:
            self.cells = nn.Parameter(torch.zeros(self.shape))

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Prompt real images ``(B, C, H, W)`` or ``(C, H, W)`` of any size; see `gain`.

        The result has their shape, unit and type; it may leave [0, 1], since it is not clipped.
        """
        if isinstance(images, Tensor) and images.ndim == 3:
            return self(images.unsqueeze(0), generator).squeeze(0)
        return scale_spectrum(images, self.gain(images, generator))

    def gain(
        self, images: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Tensor:
        """Return the gain of each image ``(B, C, H, W)``: ``(B, C, H, W // 2 + 1)``, 1 at DC.

        Their values do not matter; ``generator`` is the source of the noise of the form of this
        name (None: torch's global one), ``share`` the part of a batch that the images are.
        """
        check_images(images)
        if self.channels not in (1, images.shape[1]):
            got = tuple(images.shape)
            raise ShapeError(f"images: expected {self.channels} channels, got {got}")
        size = (images.shape[2], images.shape[3])
        count = images.shape[0]  # len(images) would be a constant of an exported prompt
        if self.form == "generator":
            place = self.network.first.weight.device
            noise = draw(count, self.noise, generator=generator, device=place, share=share)
            return self.spread(self._generated(noise), size=size)
        return self.mean_gain(size=size).expand(count, -1, -1, -1)

    def mean_gain(self, *, size: tuple[int, int] | None = None) -> Tensor:
        """Return one gain ``(C, H, W // 2 + 1)``: the gain itself, or the middle of many.

        Of ``generator`` it is the geometric mean over 256 fixed noises. ``size`` is height and
        width, by default the prompt's.
        """
        if self.form == "generator":
            noise = draw(256, self.noise, generator=torch.Generator().manual_seed(0))
            return self._read(self._bounded(self._generated(noise)).mean(dim=0), size)
        return self.spread(self.cells, size=size)

    def spread(self, cells: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Turn the numbers behind a gain, ``(..., *shape)``, into ``(..., C, H, W // 2 + 1)``."""
        return self._read(self._bounded(at_least_single(cells)), size)

    @torch.no_grad()
    def shrink_(self, factor: float) -> None:
        """Move the prompt towards the identity: 1 leaves it, 0 makes every gain 1."""
        if self.form == "generator":
            self.network.last.weight.mul_(factor)
            self.network.last.bias.mul_(factor)
        else:
            self.cells.mul_(factor)

    def save(self, path: Path | str) -> None:
        """Write parameters and settings to one safetensors file, atomically."""
        metadata = {"fopro_lab.prompt": VERSION, "settings": json.dumps(self.settings)}
        state = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        metadata["sha256"] = checksum(state, settings=metadata["settings"])
        content = save(state, metadata)
        end = 8 + int.from_bytes(content[:8], "little")
        # safetensors writes metadata in any order, and equal prompts are to be equal files.
        header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
        header += b" " * (-len(header) % 8)
        write_file(path, len(header).to_bytes(8, "little") + header + content[end:])

    @classmethod
    def load(cls, path: Path | str) -> "FourierPrompt":
        """Read a prompt that `save` wrote, on the CPU; nothing in the file is executed."""
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file")
        try:
            with safe_open(path, framework="pt") as stream:
                metadata = stream.metadata() or {}
                state = {name: stream.get_tensor(name) for name in stream.keys()}
        except (SafetensorError, OSError):
            raise InputError(f"{path}: expected a safetensors file, got {kind_of(path)}") from None
        if (version := metadata.get("fopro_lab.prompt")) != VERSION:
            got = "other tensors" if version is None else f"version {version}"
            raise InputError(f"{path}: expected a Fourier prompt of version {VERSION}, got {got}")
        try:
            prompt = cls(**json.loads(metadata.get("settings", "")))
            dtype = next((value.dtype for value in state.values()), torch.float32)
            numbers = [value for value in state.values() if value.dtype != torch.bool]
            bad = any(v.is_complex() or not bool((v.abs() <= LARGEST).all()) for v in numbers)
            if not bad:
                prompt.to(dtype).load_state_dict(state)
                bad = not bool(prompt.mean_gain(size=(8, 8)).isfinite().all())
        except (TypeError, RuntimeError, ValueError) as error:  # ValueError: no JSON
            ours = isinstance(error, InputError)
            got = str(error) if ours else "settings or tensors that do not fit"
            raise InputError(f"{path}: expected a saved Fourier prompt, got {got}") from None
        # Files of 0.1 have none, and some early ones of 0.2 that of the tensors alone.
        sums = [checksum(state), checksum(state, settings=metadata["settings"])]
        if bad or (metadata.get("sha256") not in sums and len(metadata) > 2):
            rule = f"expected finite numbers up to {LARGEST:g}, as they were saved"
            raise InputError(f"{path}: {rule}, got others; copy it again, or train a prompt again")
        return prompt

    def _generated(self, noise: Tensor) -> Tensor:
        """Turn noise ``(B, noise)`` into cells ``(B, *shape)``."""
        weight = self.network.first.weight
        with torch.autocast(weight.device.type, enabled=False):
            return self.network(noise.to(weight.device, weight.dtype)).unflatten(1, self.shape)

    def _bounded(self, cells: Tensor) -> Tensor:
        """Bound cells that are gains themselves; waves are bounded after they are added up."""
        if self.form == "radial":
            return cells
        return self.max_log_gain * torch.tanh(at_least_single(cells))

    def _read(self, cells: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Read bounded cells at each bin of the half spectrum."""
        height, width = size or self.size
        with torch.autocast(cells.device.type, enabled=False):
            if self.form == "ring":
                return ring_gain(cells.exp(), self.edges, height=height, width=width)
            if self.form == "radial":
                waves = sum_of_waves(at_least_single(cells), height=height, width=width)
                log_gain = self.max_log_gain * torch.tanh(waves)
            else:
                log_gain = resample(mirror(cells), height=height, width=width)
            log_gain[..., 0, 0] = 0
            return log_gain.exp()


def checksum(state: dict[str, Tensor], *, settings: str = "") -> str:
    """Hash settings, and names and bytes of tensors."""
    digest = hashlib.sha256(settings.encode())
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_settings(settings: dict[str, Any]) -> None:
    """Raise an `InputError` for the first setting out of its range."""
    size = settings["size"]
    if len(size) != 2 or not all(type(side) is int and 1 <= side <= 4096 for side in size):
        raise InputError(f"size: expected a side or (height, width) in pixels, got {size}")
    bound = settings["max_log_gain"]  # 12: of a saved preset, which may remove a ring
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound <= 12:
        raise InputError(f"max_log_gain: expected a number above 0, at most 12, got {bound!r}")
    limits = {"channels": (1, 4096), "rows": (2, 256), "rings": (1, 64), "waves": (1, 64)}
    for name, (low, high) in (limits | {"noise": (1, 512), "seed": (0, 2**63 - 1)}).items():
        value = settings[name]
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"{name}: expected a whole number {low} to {high}, got {value!r}")


def mirror(coarse: Tensor) -> Tensor:
    """Give mirrored rows of the first and last column, one frequency each pair, their mean."""
    opposite = coarse.flip(-2).roll(1, -2)
    half = torch.zeros(coarse.shape[-1], dtype=coarse.dtype, device=coarse.device)
    half[0] = half[-1] = 0.5
    return torch.lerp(coarse, opposite, half)


def resample(coarse: Tensor, *, height: int, width: int) -> Tensor:
    """Read maps ``(..., rows, rows // 2 + 1)`` bilinearly: ``(..., height, width // 2 + 1)``."""
    rows = coarse.shape[-2]
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


def sum_of_waves(coefficients: Tensor, *, height: int, width: int) -> Tensor:
    """Add up the waves ``(..., C, waves, 3)`` at each bin: ``(..., C, height, width // 2 + 1)``."""
    channels, waves = coefficients.shape[-3:-1]
    place, kind = coefficients.device, coefficients.dtype
    basis = _basis(height, width, waves, place, kind)
    mixed = _contrasts(channels, place, kind) @ coefficients.flatten(-2)
    return (mixed @ basis.flatten(1)).unflatten(-1, basis.shape[1:])


def octave(frequency: Tensor) -> Tensor:
    """Place of frequencies, cycles per pixel, on the scale of the waves: 0 at DC, 1 in a corner."""
    return torch.log1p(frequency / OCTAVES_FROM) / math.log1p(math.sqrt(0.5) / OCTAVES_FROM)


@cached_grid
def _basis(height: int, width: int, waves: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Waves over octaves times directions, ``(waves * 3, height, width // 2 + 1)``."""
    down, across = frequencies(height)[:, None], frequencies(width)[: width // 2 + 1]
    radius = torch.hypot(down, across)
    number = torch.arange(waves, dtype=torch.float64)[:, None, None]
    along = torch.cos(math.pi * number * octave(radius))
    # cos 2t without an angle, whose gradient and value at DC would be undefined
    turned = (across**2 - down**2) / radius.square().clamp(min=1e-12)
    around = torch.stack([torch.ones_like(turned), turned, 2 * turned**2 - 1])
    return (along[:, None] * around).flatten(0, 1).to(device, dtype)


@cached_grid
def _contrasts(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Columns of equal power: luminance, red against blue, and green against both."""
    number = torch.arange(channels, dtype=torch.float64)
    matrix = torch.cos(math.pi * (number[:, None] + 0.5) * number / channels)
    matrix[:, 1:] *= math.sqrt(2)
    return matrix.to(device, dtype)


@torch.no_grad()
def random_gain_like(
    prompt: FourierPrompt, gain: Tensor, generator: torch.Generator, *, size: tuple[int, int]
) -> Tensor:
    """Move a prompt's gains to other frequencies: the control of a learned prompt.

    A random prompt of the same form decides where: its frequencies, from the lowest value to the
    highest, get the gains that the learned prompt's have in that order. Every channel of every
    image keeps exactly its gains; only their place differs, alike for all channels, and the result
    is as smooth (or as ringed) as the form is.

    ``gain`` is what the learned prompt gives some images of ``size``, ``(B, C, H, W // 2 + 1)``;
    the result has its shape, 1 at DC, mirrored rows that agree, and no gradient. One seed of the
    ``generator`` is one arrangement, for batches of any size.
    """
    if gain.ndim != 4 or gain.shape[-2:] != (size[0], size[1] // 2 + 1):
        half = f"(B, C, {size[0]}, {size[1] // 2 + 1})"
        raise ShapeError(f"gain: expected {half}, got {tuple(gain.shape)}")
    bins, mirrors = _pairs(*size, gain.device)
    cells = draw(1, *prompt.shape, generator=generator)
    place = next(prompt.parameters()).device
    target = _ranked(prompt.spread(cells.to(place), size=size).to(gain), bins)
    source = _ranked(prompt.mean_gain(size=size)[None].to(gain), bins)
    flat = gain.flatten(-2)
    index = target[:, None, :].expand(len(gain), gain.shape[1], -1)
    moved = flat.scatter(2, index, flat.gather(2, source[:, None, :].expand_as(index)))
    return moved[..., mirrors].reshape(gain.shape)


def _ranked(gain: Tensor, bins: Tensor) -> Tensor:
    """Order bins by the mean log gain of the channels, ``(B, N)``; equal ones keep their order."""
    log_gain = gain.log().mean(dim=1).flatten(-2)
    return bins[log_gain[:, bins].argsort(dim=1, stable=True)]


@cached_grid
def _pairs(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Number one bin of each pair of opposite frequencies, rising, without DC; and all bins' own.

    The second, ``(H * (W // 2 + 1),)``, is each bin's number or that of its mirror, if it counts.
    """
    rows, columns = torch.arange(height)[:, None], torch.arange(width // 2 + 1)
    own = (columns == 0) | (2 * columns == width)  # in which both of a pair lie
    mirrored = torch.where(own & (2 * rows > height), (height - rows) % height, rows)
    mirrors = (mirrored * len(columns) + columns).flatten()
    lowest_first = radial_frequency(height, width).flatten().argsort(stable=True)
    counts = (mirrors == torch.arange(len(mirrors)))[lowest_first] & (lowest_first != 0)
    return lowest_first[counts].to(device), mirrors.to(device)
