"""When a run is saved: after epochs, and by the clock within them."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fopro_lab.files import atomic_path
from fopro_lab.training.checkpoints import save_checkpoint
from fopro_lab.training.stages import Stage
from fopro_lab.training.standing import Position, Standing


@dataclass
class Saver:
    """Writes tables and checkpoints of one run.

    An exploration is never saved half done: it is repeated, to the same bits, from the state that
    it started from, and what comes after it can be saved at once.

    Attributes:
        stage: What the run works with.
        standing: Where it stands; kept up to date by who trains.
        folder: The run's.
        saved: When it was saved last, as of ``time.monotonic``.
        begun: When this epoch began, as of ``time.perf_counter``; an interruption does not count.
    """

    stage: Stage
    standing: Standing
    folder: Path
    saved: float = field(default_factory=time.monotonic)
    begun: float = field(default_factory=time.perf_counter)

    def begin_epoch(self) -> None:
        """Start the clock of an epoch, or let it go on after a stop."""
        position = self.standing.position
        self.begun = time.perf_counter() - (position.seconds if position is not None else 0.0)

    def seconds(self) -> float:
        """Time spent on this epoch."""
        return time.perf_counter() - self.begun

    def within_epoch(self, position: Position) -> None:
        """Save between two steps, if the last time is long enough ago."""
        minutes = self.stage.config.checkpoint_minutes
        if minutes and time.monotonic() - self.saved >= 60 * minutes:
            position.seconds = self.seconds()
            self.standing.position = position
            self._save()

    def after_epoch(self) -> None:
        """Write the tables, then the checkpoint, since it alone says the epoch is done."""
        self.standing.position = None
        config = self.stage.config
        tables = {
            "history.csv": self.standing.history,
            "exploration.csv": self.standing.exploration,
        }
        for name, rows in tables.items():
            if rows:
                with atomic_path(self.folder / name) as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False)
        if self.standing.epoch % config.checkpoint_epochs == 0 or self.standing.ended(config):
            self._save()

    def _save(self) -> None:
        teacher = self.stage.actors.teacher
        state = {
            **self.stage.state(),
            "standing": self.standing.state(),
            "teacher": teacher.card.get("sha256", "") if teacher is not None else "",
        }
        save_checkpoint(self.folder, state)
        self.saved = time.monotonic()
