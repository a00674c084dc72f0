"""The Fourier prompt: learned gains on the amplitudes of a teacher's input.

Reconstructed, not published: the paper's authors did not release their generator. The gain is
``G = exp(s * tanh(m))``, so it is real, positive and within ``exp(-s)`` and ``exp(s)``; DC keeps
gain 1, so colour and brightness stay; every form starts at ``G = 1`` with a gradient that is not 0.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fopro_lab.errors import InputError
from fopro_lab.fourier.maps import coarse_shape, mirror, resample
from fopro_lab.fourier.partition import ring_edges, ring_gain
from fopro_lab.fourier.spectrum import apply_gain, at_least_single, check_images
from fopro_lab.fourier.storage import read_prompt, write_prompt

Form = Literal["generator", "shared", "ring"]
HIDDEN = 64  # width of the generator's hidden layer
NOISES = 256  # fixed noises whose geometric mean is shown as a generator's gain


class FourierPrompt(nn.Module):
    """Gains over frequency, one per picture, in one of three forms.

    ``generator`` turns noise into a map (a distribution of prompts), ``shared`` is one learned map,
    ``ring`` one gain per frequency ring and channel. Maps are coarse, ``rows x (rows // 2 + 1)``
    over cycles per pixel, and read bilinearly at the size of the picture. They are mirrored in the
    columns where a real picture has one frequency for two bins, so the gain shown is the gain
    acted. The bound of ``log G`` holds, up to rounding, for any parameters that do not overflow.

    Args:
        form: ``generator``, ``shared`` or ``ring``.
        channels: Channels of the pictures; 1 gives all channels the same gain.
        size: Side, or height and width, of the pictures meant by default, pixels.
        max_log_gain: Bound ``s`` of ``abs(log G)``, natural logarithm, above 0.
        rows: Rows of the coarse map, 2 to 256.
        rings: Equally wide rings up to 0.5 cycles per pixel, 1 to 64; the corners add one.
        noise: Width of the generator's standard normal noise, 1 to 512.
        seed: Seed of the generator's first layer; torch's global generator is not touched.

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
            "noise": noise,
            "seed": seed,
        }
        _check_settings(self.settings)
        self.form = form
        self.channels = channels
        self.size: tuple[int, int] = tuple(self.settings["size"])
        self.max_log_gain = float(max_log_gain)
        self.rows = rows
        self.edges = ring_edges(rings)
        if form == "ring":
            self.cells = nn.Parameter(torch.zeros(channels, rings + 1))
        elif form == "shared":
            self.cells = nn.Parameter(torch.zeros(channels, *coarse_shape(rows)))
        else:
            self.network = _generator(noise, channels * rows * (rows // 2 + 1), seed=seed)
            self.noise = noise

    def sample_log_cells(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the log gains of the coarse cells, ``s * tanh(m)``, before they are mirrored.

        Args:
            batch: Number of pictures.
            generator: Source of the noise, on any device; None is torch's global one. The forms
                ``shared`` and ``ring`` draw nothing.

        Returns:
            ``(batch, C, rows, rows // 2 + 1)``, or ``(batch, C, rings + 1)`` for ``ring``.

        Example:
            >>> FourierPrompt("ring", rings=4).sample_log_cells(2).shape
            torch.Size([2, 3, 5])
        """
        if self.form != "generator":
            return self._log_cells(self.cells).expand(batch, *self.cells.shape)
        place = generator.device if generator is not None else None
        return self._generated(torch.randn(batch, self.noise, generator=generator, device=place))

    def sample_gain(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Draw one gain map for each picture of a batch.

        Args:
            batch: Number of pictures.
            generator: Source of the noise, as in `sample_log_cells`.
            size: Height and width of the pictures, pixels; None is the prompt's own.

        Returns:
            ``(batch, C, H, W // 2 + 1)``, dimensionless, 1 at DC, differentiable.

        Example:
            >>> prompt = FourierPrompt("generator", size=8)
            >>> prompt.sample_gain(4, torch.Generator().manual_seed(0)).shape
            torch.Size([4, 3, 8, 5])
        """
        if self.form != "generator":
            gain = self.mean_gain(size=size)
            return gain.expand(batch, *gain.shape)
        return self.spread(self.sample_log_cells(batch, generator), size=size)

    def mean_gain(self, *, size: tuple[int, int] | None = None) -> Tensor:
        """Return the gain itself, or a generator's geometric mean over 256 fixed noises.

        Args:
            size: Height and width of the pictures, pixels; None is the prompt's own.

        Returns:
            ``(C, H, W // 2 + 1)``, dimensionless, 1 at DC, differentiable.

        Example:
            >>> FourierPrompt("ring", size=(8, 6), channels=1).mean_gain().shape
            torch.Size([1, 8, 4])
        """
        if self.form != "generator":
            return self.spread(self._log_cells(self.cells), size=size)
        fixed = torch.Generator().manual_seed(0)
        cells = self._generated(torch.randn(NOISES, self.noise, generator=fixed)).mean(dim=0)
        return self.spread(cells, size=size)

    def spread(self, log_cells: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Turn log gains of the coarse cells into gains over a picture's half spectrum.

        Args:
            log_cells: As `sample_log_cells` returns them; the leading axes are free.
            size: Height and width of the pictures, pixels; None is the prompt's own.

        Returns:
            ``(..., C, H, W // 2 + 1)``, dimensionless, 1 at DC.

        Example:
            >>> prompt = FourierPrompt("ring", rings=1, size=4, channels=1)
            >>> prompt.spread(torch.tensor([[1.0, 0.0]])).log()[0, :, 0].tolist()
            [0.0, 1.0, 1.0, 1.0]
        """
        height, width = size or self.size
        with torch.autocast(log_cells.device.type, enabled=False):
            if self.form == "ring":
                return ring_gain(log_cells.exp(), self.edges, height=height, width=width)
            log_gain = resample(mirror(log_cells), height=height, width=width)
            log_gain[..., 0, 0] = 0
            return log_gain.exp()

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Prompt a batch of pictures of any size: one gain map a picture.

        Args:
            images: Real batch, ``(B, C, H, W)``.
            generator: Source of the noise, as in `sample_log_cells`.

        Returns:
            Batch of the same shape, unit and type; it may leave [0, 1], since it is not clipped.

        Example:
            >>> FourierPrompt("shared", size=8)(torch.rand(2, 3, 12, 10)).shape
            torch.Size([2, 3, 12, 10])
        """
        check_images(images)
        size = (images.shape[2], images.shape[3])
        if self.form != "generator":
            return apply_gain(images, self.mean_gain(size=size))
        return apply_gain(images, self.sample_gain(len(images), generator, size=size))

    def save(self, path: Path | str) -> None:
        """Write parameters and settings to one safetensors file, atomically.

        Args:
            path: Target file.

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
        state, settings = read_prompt(path)
        try:
            prompt = cls(**settings)
            dtype = next((value.dtype for value in state.values()), torch.float32)
            prompt.to(dtype).load_state_dict(state)
        except (TypeError, RuntimeError, InputError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: expected a saved Fourier prompt, got {reason}") from None
        return prompt

    def _generated(self, noise: Tensor) -> Tensor:
        weight = next(self.network.parameters())
        with torch.autocast(weight.device.type, enabled=False):
            flat = self.network(noise.to(weight.device, weight.dtype))
        return self._log_cells(flat.unflatten(1, (self.channels, *coarse_shape(self.rows))))

    def _log_cells(self, raw: Tensor) -> Tensor:
        return self.max_log_gain * torch.tanh(at_least_single(raw))


def _generator(noise: int, cells: int, *, seed: int) -> nn.Sequential:
    """Build the network from noise to cells; its last layer is 0, so it starts at gain 1."""
    first = nn.utils.skip_init(nn.Linear, noise, HIDDEN)
    last = nn.utils.skip_init(nn.Linear, HIDDEN, cells)
    source = torch.Generator().manual_seed(seed)
    nn.init.kaiming_normal_(first.weight, generator=source)
    for zero in (first.bias, last.weight, last.bias):
        nn.init.zeros_(zero)
    return nn.Sequential(first, nn.SiLU(), last)


def _check_settings(settings: dict[str, Any]) -> None:
    if settings["form"] not in get_args(Form):
        raise InputError(
            f"form: expected one of 'generator', 'shared', 'ring', got {settings['form']!r}"
        )
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
        "noise": (1, 512),
        "seed": (0, 2**63 - 1),
    }
    for name, (low, high) in limits.items():
        value = settings[name]
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"{name}: expected a whole number {low} to {high}, got {value!r}")
