"""When a run is saved: after epochs, and by the clock within them."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fopro_lab.errors import WorkError
from fopro_lab.files import atomic_path
from fopro_lab.training.checkpoints import save_checkpoint
from fopro_lab.training.masks import write_masks
from fopro_lab.training.stages import Stage
from fopro_lab.training.standing import Position, SkippedStep, Standing


@dataclass
class Saver:
    """Writes tables and checkpoints of one run; of several processes, the first does.

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
        if not self.stage.processes.first:
            return  # it alone looks at the clock; the others wait for its next step
        if minutes and time.monotonic() - self.saved >= 60 * minutes:
            position.seconds = self.seconds()
            self.standing.position = position
            self._save()

    def skip(self, step: SkippedStep) -> None:
        """Write down the pictures of a step that was not taken; too many of them end the run.

        Raises:
            WorkError: Past ``max_skipped``; the last checkpoint is as it was.
        """
        table, config = self.stage.packed.dataset.table, self.stage.config
        for image in table["image"].iloc[step.rows]:
            row = {"epoch": step.epoch + 1, "batch": step.batch + 1, "broken": step.broken}
            self.standing.skipped.append({**row, "image": str(image)})
        self.stage.processes.first_does(self._write_tables)
        steps = self.standing.skipped_steps()
        if steps > config.max_skipped:
            raise WorkError(
                f"training: {steps} steps of epoch {step.epoch + 1} were not finite, more than "
                f"max_skipped = {config.max_skipped}; {self.folder / 'skipped.csv'} names their "
                f"pictures; lower learning_rate (now {config.learning_rate:g})"
            )

    def after_epoch(self) -> None:
        """Write the tables, then the checkpoint, since it alone says the epoch is done."""
        self.standing.position = None
        config, first_does = self.stage.config, self.stage.processes.first_does
        first_does(self._write_tables)
        if self.standing.epoch % config.checkpoint_epochs == 0 or self.standing.ended(config):
            first_does(self._save)

    def _write_tables(self) -> None:
        for name in ("history", "exploration", "skipped"):
            if rows := getattr(self.standing, name):
                with atomic_path(self.folder / f"{name}.csv") as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False)
        if self.standing.masks:
            write_masks(self.folder, self.standing.masks)

    def _save(self) -> None:
        teacher = self.stage.actors.teacher
        state = {
            **self.stage.state(),
            "standing": self.standing.state(),
            "teacher": teacher.card.get("sha256", "") if teacher is not None else "",
        }
        save_checkpoint(self.folder, state)
        self.saved = time.monotonic()
