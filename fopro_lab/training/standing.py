"""Where a run stands: within an epoch, and over its epochs. Both are part of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fopro_lab.config import TrainConfig
from fopro_lab.training.actors import generator_for
from fopro_lab.training.folders import now
from fopro_lab.training.guarding import BROKEN
from fopro_lab.training.masks import Mask


@dataclass
class Position:
    """Where an epoch stands between two of its steps, its exploration behind it.

    Order and augmentation of its pictures follow from seed, epoch and ``batch`` alone.

    Attributes:
        chance: Says which batches are prompted.
        noise: Source of the prompt's noise.
        batch: The next one, from 0.
        counted: Batches whose losses are summed, where these are; None before the first step.
        sums: ``(L,)``, the losses, on their device; likewise.
        unread: Of steps of which nobody has looked whether they were taken: first batch, number
            of batches, and a number of `fopro_lab.training.guarding.BROKEN`.
        seconds: Spent on this epoch up to the last checkpoint.
    """

    chance: torch.Generator
    noise: torch.Generator
    batch: int = 0
    counted: Tensor | None = None
    sums: Tensor | None = None
    unread: list[tuple[int, int, Tensor]] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def begin(cls, config: TrainConfig, epoch: int) -> Position:
        """Stand before the first batch of an epoch, counted from 0."""
        return cls(
            generator_for(config.seed, epoch, purpose="which batches"),
            generator_for(config.seed, epoch, purpose="prompt noise"),
        )

    def advance(self, batches: int, losses: Tensor, broken: Tensor) -> None:
        """Go on behind a step; the losses of a broken one are left out of the sums.

        Args:
            batches: Of the step.
            losses: ``(L,)``, summed over them.
            broken: A number of `fopro_lab.training.guarding.BROKEN`.
        """
        if self.sums is None or self.counted is None:
            self.sums, self.counted = torch.zeros_like(losses), torch.zeros_like(broken)
        self.unread.append((self.batch, batches, broken))
        self.batch += batches
        self.sums = self.sums + torch.where(broken == 0, losses, 0.0)
        self.counted = self.counted + (broken == 0) * batches

    def broken_steps(self, *, unread: int) -> Iterator[tuple[int, int, str]]:
        """Look at the steps behind, and yield those that were not taken.

        Args:
            unread: So many of the last ones are not looked at yet. A GPU has not done them, and
                would stand still until who waits for it has told it what comes next.

        Returns:
            First batch, number of batches, and what was not finite.
        """
        while len(self.unread) > unread:
            first, batches, broken = self.unread.pop(0)
            if what := BROKEN[int(broken)]:
                yield first, batches, what

    def state(self) -> dict[str, Any]:
        """Tensors and numbers for a checkpoint."""
        generators = {name: getattr(self, name).get_state() for name in ("chance", "noise")}
        return {**vars(self), **generators}

    @classmethod
    def from_state(cls, state: dict[str, Any], *, device: torch.device) -> Position:
        """Stand where `state` was taken.

        Args:
            state: Of a checkpoint, on the CPU.
            device: Where the losses are summed.
        """
        generators = {}
        for name in ("chance", "noise"):
            generators[name] = torch.Generator()
            generators[name].set_state(state[name])
        sums = {
            name: state[name] if state[name] is None else state[name].to(device)
            for name in ("counted", "sums")
        }
        return cls(**{**state, **generators, **sums})


class SkippedStep(NamedTuple):
    """A step that was not taken.

    Attributes:
        epoch: Counted from 0.
        batch: The first of its batches, from 0.
        broken: What was not finite, ``loss`` or ``gradient``.
        rows: Of its pictures.
    """

    epoch: int
    batch: int
    broken: str
    rows: np.ndarray


@dataclass
class Standing:
    """Where a run stands after its last finished epoch, and how far it is in the next."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    best_student: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    exploration: list[dict[str, float]] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    started: str = field(default_factory=now)
    position: Position | None = None

    def ended(self, config: TrainConfig) -> bool:
        """Tell whether all epochs are done, or the best one is too long ago."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= config.epochs or 0 < config.patience <= waited

    def skipped_steps(self) -> int:
        """Count the steps of this epoch that were not taken."""
        return len({row["batch"] for row in self.skipped if row["epoch"] == self.epoch + 1})

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and texts for a checkpoint."""
        position = self.position.state() if self.position is not None else None
        return {**vars(self), "position": position}

    @classmethod
    def from_state(cls, state: dict[str, Any], *, device: torch.device) -> Standing:
        """Stand where `state` was taken; ``device`` as of `Position.from_state`."""
        within = state.get("position")
        position = Position.from_state(within, device=device) if within is not None else None
        return cls(**{**state, "position": position})
