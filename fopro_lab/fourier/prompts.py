"""The Fourier prompt: learned gains on the amplitudes of a teacher's input.

Reconstructed, not published: the paper's authors did not release their generator. The gain is
``G = exp(s * tanh(m))``, so it is real, positive and within ``exp(-s)`` and ``exp(s)``; DC keeps
gain 1, so colour and brightness stay; every form starts at ``G = 1`` with a gradient that is not 0.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.forms import CellNetwork, Form, LogSpectrum, cells_shape, check_settings
from fopro_lab.fourier.maps import mirror, resample
from fopro_lab.fourier.partition import ring_edges, ring_gain
from fopro_lab.fourier.scaling import scale_spectrum
from fopro_lab.fourier.shares import Share, draw
from fopro_lab.fourier.spectrum import at_least_single, check_images
from fopro_lab.fourier.waves import sum_of_waves

NOISES = 256  # fixed noises whose geometric mean is shown as a generator's gain


class FourierPrompt(nn.Module):
    """Gains over frequency, one per picture: an ordinary module that turns pictures into pictures.

    ``ring`` has one gain a ring and channel: what sliders move. ``shared`` is one map,
    ``rows x (rows // 2 + 1)`` over cycles per pixel, read bilinearly: any place has its own gain.
    ``radial`` is a sum of few smooth waves over octaves, directions and colours: a tenth of the
    numbers, each learnt from many bins. ``generator`` makes maps of noise: many prompts at once.
    ``image`` makes the waves of ``radial`` of the picture's own spectrum: each picture gets what
    it lacks. Maps are mirrored in the columns where a real picture has one frequency for two bins,
    so the gain shown is the gain acted. The bound of ``log G`` holds, up to rounding, for any
    parameters that do not overflow.

    Args:
        form: ``generator``, ``shared``, ``ring``, ``radial`` or ``image``.
        channels: Channels of the pictures; 1 gives all channels the same gain (not ``image``).
        size: Side, or height and width, of the pictures meant by default, pixels.
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
        """Return the gain of each picture.

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
        """Draw one gain for each picture of a batch, where the pictures do not matter.

        Args:
            batch: Number of pictures.
            generator: As in `gain`.
            size: Height and width of the pictures, pixels; None is the prompt's own.
            share: As in `gain`.

        Returns:
            ``(batch, C, H, W // 2 + 1)``, dimensionless, 1 at DC, differentiable.

        Raises:
            InputError: For the form ``image``, whose gain depends on the picture.

        Example:
            >>> FourierPrompt("generator", size=8).sample_gain(4).shape
            torch.Size([4, 3, 8, 5])
        """
        if self.form == "image":
            raise InputError("form 'image': its gain depends on the picture; use gain(images)")
        if self.form != "generator":
            gain = self.mean_gain(size=size)
            return gain.expand(batch, *gain.shape)
        place = self.network.first.weight.device
        noise = draw(batch, self.noise, generator=generator, device=place, share=share)
        return self.spread(self.network(noise), size=size)

    def mean_gain(self, *, size: tuple[int, int] | None = None) -> Tensor:
        """Return one gain: the gain itself, or the middle of those of a form with a network.

        Args:
            size: Height and width of the pictures, pixels; None is the prompt's own.

        Returns:
            ``(C, H, W // 2 + 1)``, dimensionless, 1 at DC, differentiable. Of ``generator`` the
            geometric mean over 256 fixed noises, of ``image`` the gain of a picture with the mean
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
            size: Height and width of the pictures, pixels; None is the prompt's own.

        Returns:
            ``(..., C, H, W // 2 + 1)``, dimensionless, 1 at DC.

        Example:
            >>> prompt = FourierPrompt("ring", rings=1, size=4, channels=1)
            >>> prompt.spread(torch.tensor([[-99.0, 0.0]])).unique().round(decimals=3).tolist()
            [0.497..., 1.0]
        """
        return self._read(self._bounded(at_least_single(cells)), size)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Prompt pictures of any size.

        Args:
            images: Real, ``(B, C, H, W)``, or one picture ``(C, H, W)`` as in a transform.
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
        """Let the form ``image`` see, once, what spectra pictures have; others need none.

        Args:
            images: Some pictures, ``(B, C, H, W)``, such as the first batch of an exploration.
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
        from fopro_lab.fourier.storage import write_prompt  # late: it needs safetensors

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
        from fopro_lab.fourier.storage import build_prompt

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
