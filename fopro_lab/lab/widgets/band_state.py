"""Where the bands stand: gains a ring and channel, a bump, or a learned prompt."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt, ring_edges, ring_gain
from fopro_lab.lab.bands import bump_gains, ring_means
from fopro_lab.lab.widgets.answers import Change
from fopro_lab.lab.widgets.controls import MOST
from fopro_lab.lab.widgets.pins import ring_prompt

FINE = 64  # rings up to 0.5 cycles per pixel that a bump is made of, as many as a prompt may have


@dataclass(eq=False)
class BandState:
    """What the controls mean, without any widget.

    Attributes:
        rings: Equally wide rings up to 0.5 cycles per pixel; the corners add one.
        size: Side of the pictures, pixels.
        mode: ``rings``, ``bump`` or ``prompt``.
        gains: ``(3, rings + 1)``, by channel.
        heights: ``(3,)``, the bump's gain at its centre, by channel.
        centre: Of the bump, cycles per pixel.
        width: Its full width at half of the change, cycles per pixel.
        prompt: The one that was loaded.
        phase_lock: See `scale_bands`.

    Example:
        >>> state = BandState(rings=2, size=8)
        >>> state.gains[:, 0] = 2.0
        >>> state.change().gain[0, 0, 1].item()
        2.0
    """

    rings: int
    size: int
    mode: str = "rings"
    centre: float = 0.25
    width: float = 0.1
    prompt: FourierPrompt | None = None
    phase_lock: bool = True
    gains: np.ndarray = field(init=False)
    heights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.gains, self.heights = np.ones((3, self.rings + 1)), np.ones(3)

    @property
    def edges(self) -> list[float]:
        """Of the rings of the sliders, cycles per pixel."""
        return ring_edges(self.rings)

    def radial(self) -> np.ndarray:
        """Gains of rings ``(3, R)`` that act in the modes rings and bump."""
        if self.mode == "rings":
            return self.gains
        edges = ring_edges(FINE)
        return np.array(
            [bump_gains(h, centre=self.centre, width=self.width, edges=edges) for h in self.heights]
        )

    def change(self, image: Tensor | None = None) -> Change:
        """Return what acts now.

        Args:
            image: ``(3, H, W)``, for a prompt whose gain depends on the picture.
        """
        size = (self.size, self.size)
        if self.mode == "prompt" and self.prompt is not None:
            prompt = self.prompt
            if prompt.form == "image" and image is not None:
                with torch.no_grad():
                    return Change(prompt.gain(image[None])[0], prompt, self.phase_lock)
            with torch.no_grad():
                return Change(prompt.mean_gain(size=size), None, self.phase_lock)
        gains = self.radial()
        rows = gains[:1] if (gains == gains[:1]).all() else gains
        gain = ring_gain(
            torch.from_numpy(rows).float(),
            ring_edges(gains.shape[1] - 1),
            height=self.size,
            width=self.size,
        )
        return Change(gain, None, self.phase_lock)

    def pinned(self) -> FourierPrompt:
        """Return what acts now as a prompt.

        Raises:
            InputError: If phases are let loose, which no prompt does.
        """
        if not self.phase_lock:
            raise InputError(
                "phase lock: expected on, since a prompt scales amplitudes alone; got off"
            )
        if self.mode == "prompt" and self.prompt is not None:
            return self.prompt
        return ring_prompt(self.radial(), size=self.size)

    def take(self, prompt: FourierPrompt) -> str:
        """Keep a prompt, and set the rings' gains to its ring means.

        Returns:
            What the rings tell of it, in words.
        """
        self.prompt = prompt
        with torch.no_grad():
            gain = prompt.mean_gain(size=(self.size, self.size))
        means, told = ring_means(gain, self.edges, width=self.size)
        # Half a thousandth is below what a slider moves; a removed ring is six millionths.
        rounded = means.round(3)
        self.gains = np.broadcast_to(rounded.clip(0, MOST), self.gains.shape).copy()
        over = f" Gains above {MOST:g} stand at {MOST:g}." if rounded.max() > MOST else ""
        return (
            f"The sliders take its mean in each ring, which explains {told:.0%} of its "
            f"log gain (squares, about gain 1).{over}"
        )

    def take_over(self, other: "BandState") -> None:
        """Take all but the size from another one.

        Raises:
            InputError: If that has another number of rings.
        """
        if other.rings != self.rings:
            raise InputError(f"rings: expected {self.rings}, got {other.rings}")
        self.mode, self.phase_lock, self.prompt = other.mode, other.phase_lock, other.prompt
        self.centre, self.width = other.centre, other.width
        self.gains, self.heights = other.gains.copy(), other.heights.copy()
