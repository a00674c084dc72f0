"""Pictures with their frequencies scaled by hand: what the sliders of the explorer show."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import apply_gain, radial_frequency, ring_edges, ring_masks

Preset = Literal["identity", "remove", "amplify", "low-pass", "high-pass"]
AMPLIFIED = 2.0
FLOOR = 1e-6  # amplitude of a bin that has none, so that it has a logarithm
FINE = 32  # rings of the profile up to 0.5 cycles per pixel, at most
SEED = 0  # of the phases where they are not locked
STEP = 0.05  # a slider's; a gain that differs less from 1 leaves phases alone


@dataclass(frozen=True, eq=False)
class BandView:
    """A picture before and after its frequencies were scaled.

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
    """A picture whose spectrum is kept, so that a new gain costs one inverse transform.

    It is NumPy's, in one thread: for one picture torch's threads cost more than they bring where
    something else computes as well, such as the teacher behind the explorer.

    Args:
        image: ``(3, H, W)`` in [0, 1].

    Raises:
        ShapeError: If it is no colour picture.

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
        """Scale the amplitudes and look at the picture from every side.

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
    """Scale the amplitudes of some pictures, with phases locked or let loose.

    Phase lock on: gains change amplitudes alone, and every phase stays, as in a Fourier prompt.
    Off: where the gain differs from 1 by 0.05 or more, phases are scrambled as well: those of one
    fixed white noise are added, alike for all colours. So the bands that are touched keep the
    energy that the gain leaves them and lose what they drew; all others stay.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        gain: ``(1 or 3, H, W // 2 + 1)``, or one a picture, 0 or above.
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
    other = torch.sgn(torch.fft.rfft2(noise))  # of a real picture, so the result is one, too
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
