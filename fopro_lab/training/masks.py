"""What a prompt looked like while it was explored: few masks a run, written beside its tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from fopro_lab.files import atomic_path
from fopro_lab.fourier import FourierPrompt, ring_edges, ring_masks

RINGS_FILE = "exploration_gains.parquet"
MAPS_FILE = "exploration_masks.safetensors"
MOST = 24  # masks a run
SIDE = 64  # bins of a mask; a prompt is finer nowhere
RINGS = 8  # up to 0.5 cycles per pixel; the corners add one
Mask = dict[str, int | torch.Tensor]  # as a checkpoint can hold it


@dataclass
class MaskRecord:
    """Looks at a prompt now and then during one exploration, never oftener than it was told.

    A look costs a device one small network and one copy; between looks nothing is asked of it.
    No random number is drawn, so an exploration with a record ends with the same bits.

    Attributes:
        exploration: Its number in the run, from 1.
        steps: Numbers of prompt steps taken at which it looks.
        masks: What it saw: ``exploration``, ``step`` and ``gain``, float16
            ``(64, 33)`` in ``rfft2`` order, the geometric mean of channels and draws.

    Example:
        >>> record = MaskRecord(1, frozenset({0, 2}))
        >>> for step in range(4):
        ...     record.look(FourierPrompt("ring"), step)
        >>> [mask["step"] for mask in record.masks]
        [0, 2]
    """

    exploration: int
    steps: frozenset[int]
    masks: list[Mask] = field(default_factory=list)

    def look(self, prompt: FourierPrompt, step: int) -> None:
        """Take the mask if this is a step to look at.

        Args:
            prompt: As it is now.
            step: Prompt steps taken in this exploration; 0 is the prompt as it came.
        """
        if step in self.steps:
            self.take(prompt, step)

    @torch.no_grad()
    def take(self, prompt: FourierPrompt, step: int) -> None:
        """Take the mask now; another one of the same step is replaced, as by the kept prompt."""
        gain = prompt.mean_gain(size=(SIDE, SIDE)).log().mean(dim=0).exp()
        self.masks = [mask for mask in self.masks if mask["step"] != step]
        self.masks.append(
            {"exploration": self.exploration, "step": step, "gain": gain.to("cpu", torch.float16)}
        )


def record_of(number: int, *, explorations: int, steps: int) -> MaskRecord:
    """Share a run's masks out to its explorations.

    Args:
        number: Which exploration, from 1.
        explorations: How many the run has at most.
        steps: Prompt steps of one.

    Returns:
        A record that looks at evenly spaced steps: in the first exploration also at the prompt as
        it came, and of more than 24 explorations only at every so many.

    Example:
        >>> sorted(record_of(1, explorations=8, steps=20).steps)
        [0, 10, 20]
        >>> len(record_of(2, explorations=100, steps=20).steps)
        0
    """
    most = MOST - 1  # one is the prompt as it came
    stride = -(-explorations // most)
    if number % stride and number != explorations:
        return MaskRecord(number, frozenset({0} if number == 1 else ()))
    looks = min(steps, max(1, most // explorations))
    places = {round(steps * (look + 1) / looks) for look in range(looks)}
    return MaskRecord(number, frozenset(places | ({0} if number == 1 else set())))


def ring_rows(masks: Sequence[Mask]) -> pd.DataFrame:
    """Average masks over each frequency ring, geometrically, every direction alike.

    Args:
        masks: Of `MaskRecord`.

    Returns:
        A row a mask and ring: ``exploration``, ``step``, ``low``, ``high`` (cycles per pixel),
        ``gain``.

    Example:
        >>> record = MaskRecord(1, frozenset({0}))
        >>> record.look(FourierPrompt("ring"), 0)
        >>> ring_rows(record.masks)["gain"].unique().tolist()
        [1.0]
    """
    edges = ring_edges(RINGS)
    # Every column but the first and the last stands for two frequencies.
    counted = np.full(SIDE // 2 + 1, 2.0)
    counted[[0, -1]] = 1.0
    bins = ring_masks(SIDE, SIDE, edges).numpy() * counted
    rows = []
    for mask in masks:
        log_gain = np.log(torch.as_tensor(mask["gain"]).double().numpy())
        means = (bins * log_gain).sum(axis=(1, 2)) / bins.sum(axis=(1, 2))
        for (low, high), mean in zip(pairwise(edges), means, strict=True):
            place = {"exploration": mask["exploration"], "step": mask["step"]}
            rows.append({**place, "low": low, "high": high, "gain": float(np.exp(mean))})
    return pd.DataFrame(rows)


def write_masks(folder: Path | str, masks: Sequence[Mask]) -> None:
    """Write masks into a run folder, whole: a table of rings, and maps of the whole plane.

    ``exploration_gains.parquet`` is the table of `ring_rows`; ``exploration_masks.safetensors``
    holds ``gain (T, 64, 64)``, zero frequency in the middle, ``exploration (T,)`` and
    ``step (T,)``.

    Args:
        folder: Of the run.
        masks: At least one, in the order in which they were taken.

    Raises:
        WorkError: If the disk is full or may not be written.

    Example:
        >>> import tempfile
        >>> record = MaskRecord(1, frozenset({0}))
        >>> record.look(FourierPrompt("ring"), 0)
        >>> with tempfile.TemporaryDirectory() as out:
        ...     write_masks(out, record.masks)
        ...     len(pd.read_parquet(f"{out}/{RINGS_FILE}"))
        9
    """
    with atomic_path(Path(folder) / RINGS_FILE) as temporary:
        ring_rows(masks).to_parquet(temporary, index=False)
    halves = torch.stack([torch.as_tensor(mask["gain"]) for mask in masks])
    columns = {
        name: torch.tensor([int(mask[name]) for mask in masks]) for name in ("exploration", "step")
    }
    with atomic_path(Path(folder) / MAPS_FILE) as temporary:
        temporary.write_bytes(save({"gain": _whole_plane(halves), **columns}))


def _whole_plane(halves: torch.Tensor) -> torch.Tensor:
    """Mirror ``(T, H, W // 2 + 1)`` into ``(T, H, W)``: the gain at -f is the gain at f."""
    opposite = halves.flip(1).roll(1, 1)[..., 1:-1].flip(2)
    return torch.fft.fftshift(torch.cat([halves, opposite], dim=2), dim=(1, 2)).contiguous()
