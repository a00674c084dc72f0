"""What a run works with from epoch to epoch, built from its config and put back after a stop."""

import sys
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from fopro_lab.config import TrainConfig
from fopro_lab.data import Pack, Split
from fopro_lab.errors import InputError
from fopro_lab.models import Student, Teacher
from fopro_lab.models.quick import quick_teacher
from fopro_lab.training.actors import Actors, build_actors
from fopro_lab.training.averaging import Average
from fopro_lab.training.batch_norms import synchronised
from fopro_lab.training.optimising import build_optimiser, build_schedule
from fopro_lab.training.processes import Processes
from fopro_lab.training.starting import Started, start


@dataclass(frozen=True, eq=False)
class Stage:
    """What an epoch works with.

    Attributes:
        config: Every knob.
        fabric: Device and precision.
        actors: Networks, on the device.
        student: The student as the fabric wraps it.
        optimiser: As the fabric wraps it.
        packed: Pictures.
        rows: Training rows.
        class_counts: ``(K,)``, training pictures, float, on the device.
        val_rows: Validation rows, which check a prompt; None checks none.
        schedule: Of the learning rate; None where that never changes.
        average: Of the student's weights; None keeps none.
        encoder: The teacher in the form that gives the student's targets, fast; None without one.
        processes: Who shares the batches.
    """

    config: TrainConfig
    fabric: Fabric
    actors: Actors
    student: Any
    optimiser: Any
    packed: Pack
    rows: np.ndarray
    class_counts: Tensor
    val_rows: np.ndarray | None = None
    schedule: LRScheduler | None = None
    average: Average | None = None
    encoder: Teacher | None = None
    processes: Processes = field(default_factory=Processes)

    @property
    def batch_size(self) -> int:
        """Pictures a batch, of all processes: no more than there are, and as many for each."""
        size = min(self.config.batch_size, len(self.rows))
        return size - size % self.processes.world_size

    @property
    def batches(self) -> int:
        """Whole batches of an epoch."""
        return len(self.rows) // self.batch_size

    @property
    def judged(self) -> Student:
        """The student that is validated, kept and tested: the average, where there is one."""
        if self.average is None:
            return self.actors.student
        return cast(Student, self.average.module)

    def state(self) -> dict[str, Any]:
        """State of all that a step changes."""
        parts = {"schedule": self.schedule, "average": self.average}
        return {
            "actors": self.actors.state(),
            "optimiser": self.optimiser.state_dict(),
            **{name: part.state_dict() for name, part in parts.items() if part is not None},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.actors.load_state(state["actors"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def build_stage(
    config: TrainConfig, packed: Pack, split: Split, *, started: Started | None = None
) -> Stage:
    """Build networks, optimiser and what goes with them, on the device.

    Args:
        config: Of the run.
        packed: The pictures.
        split: Which train, and which validate.
        started: Device and processes; None chooses them now.

    Returns:
        The stage before its first epoch.

    Raises:
        InputError: If there are fewer pictures than processes, or as `start` and `build_actors`.
    """
    fabric, processes = started or start(config)
    if len(split.train) < processes.world_size:
        raise InputError(
            f"training: {len(split.train)} pictures cannot be shared by {processes.world_size} "
            "processes; start fewer"
        )
    if not config.sync_batch_norm and len(split.train) < 2 * processes.world_size:
        raise InputError(
            f"training: {len(split.train)} pictures give {processes.world_size} processes less "
            "than 2 each; start fewer, or use sync_batch_norm=true"
        )
    counts = split.class_counts(packed.dataset)
    actors = build_actors(config, class_counts=counts, device=fabric.device)
    return set_stage(
        config,
        fabric=fabric,
        actors=actors,
        packed=packed,
        rows=split.train,
        class_counts=counts,
        val_rows=split.val,
        processes=processes,
    )


def set_stage(
    config: TrainConfig,
    *,
    fabric: Fabric,
    actors: Actors,
    packed: Pack,
    rows: np.ndarray,
    class_counts: np.ndarray,
    val_rows: np.ndarray | None = None,
    processes: Processes | None = None,
) -> Stage:
    """Set actors on a stage: with what moves the student, and a fast form of the teacher.

    Args:
        config: Of the run; what made the actors is not read again.
        fabric: Device and precision.
        actors: On the device.
        packed: The pictures.
        rows: Which train.
        class_counts: ``(K,)``, of these.
        val_rows: Which check a prompt.
        processes: Who shares the batches; None is this process alone.

    Returns:
        The stage before its first epoch.
    """
    processes = processes or Processes()
    if config.sync_batch_norm and processes.many:
        synchronised(actors.student, device=fabric.device)
    plain = build_optimiser(actors.student.parameters(), config)
    batches = max(1, len(rows) // config.batch_size)
    schedule = build_schedule(
        plain, config, epochs=config.epochs, epoch_steps=-(-batches // config.accumulate)
    )
    student, optimiser = fabric.setup(actors.student, plain)
    return Stage(
        config,
        fabric,
        actors,
        student,
        optimiser,
        packed,
        rows,
        torch.as_tensor(class_counts, dtype=torch.float32, device=fabric.device),
        val_rows=val_rows,
        schedule=schedule,
        average=Average(actors.student, config.ema_decay) if config.ema_decay else None,
        encoder=_encoder(config, actors.teacher, tell=processes.first),
        processes=processes,
    )


def _encoder(config: TrainConfig, teacher: Teacher | None, *, tell: bool) -> Teacher | None:
    if teacher is None:
        return None
    dtype = torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32
    return quick_teacher(
        teacher,
        fold=config.fold_teacher,
        dtype=dtype,
        compiled=config.compile_teacher,
        tell=lambda line: sys.stderr.write(f"{line}\n") if tell else None,
    )
