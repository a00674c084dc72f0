"""The forms of a prompt: where its numbers come from, and how they are read as a gain."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.fourier.maps import coarse_shape
from fopro_lab.fourier.partition import ring_edges, ring_energy
from fopro_lab.fourier.waves import waves_shape

Form = Literal["generator", "shared", "ring", "radial", "image"]
HIDDEN = 64  # width of the hidden layer of a form with a network
DARK = 1e-8  # energy added to each ring before its logarithm: a black picture has one, too


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
        width: Of its input: the noise, or the rings of a picture's spectrum.
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
    """A picture's log amplitude in each ring and channel, in units of what pictures show.

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
        """Take mean and spread from some pictures, such as the first batch of an exploration."""
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
