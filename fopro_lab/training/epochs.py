"""One epoch: explore the prompt, then exploit it in the student's steps."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import batches, cycle, effective_counts, mix, paired_batches
from fopro_lab.data.batches import partners_of
from fopro_lab.data.passes import Options, Pass
from fopro_lab.data.samplers import training_progress
from fopro_lab.errors import InputError, WorkError
from fopro_lab.training.actors import generator_for
from fopro_lab.training.checking import draw_held_out
from fopro_lab.training.explore import explore
from fopro_lab.training.masks import MaskRecord
from fopro_lab.training.schedule import prompted_share
from fopro_lab.training.stages import Stage
from fopro_lab.training.standing import Position, SkippedStep
from fopro_lab.training.steps import Step, batch_losses
from fopro_lab.training.telling import Teller


def explore_epoch(
    stage: Stage, epoch: int, *, teller: Teller | None = None, record: MaskRecord | None = None
) -> pd.DataFrame:
    """Take the prompt steps that stand before an epoch.

    They draw each picture equally often, whatever the sampler: the balanced softmax of the task
    corrects for the class sizes, and prompts of two samplers stay comparable.

    Args:
        stage: With a prompt among its actors.
        epoch: Counted from 0; decides batches and noise.
        teller: Told of every prompt step; None is silence.
        record: As of `explore`.

    Returns:
        The history of `explore`, with a column ``epoch``.
    """
    config, actors = stage.config, stage.actors
    assert actors.prompt is not None and actors.teacher is not None
    endless = cycle(
        stage.packed,
        stage.rows,
        batch_size=config.batch_size,
        augment=config.augment,
        augment_mode=config.augment_mode,
        seed=int(generator_for(config.seed, epoch, purpose="explore order").initial_seed() % 2**31),
        device=stage.fabric.device,
    )
    if teller is not None:
        steps = config.explore_steps
        endless = teller.watch(endless, epoch=epoch, total=steps, what="prompt step")
    # Without a cache: it would keep the task head's weights as they were before the first step.
    device, half = stage.fabric.device.type, config.precision == "bf16-mixed"
    with torch.autocast(device, torch.bfloat16, enabled=half, cache_enabled=False):
        history = explore(
            actors.prompt,
            actors.teacher,
            endless,
            objectives=config.objectives,
            steps=config.explore_steps,
            learning_rate=config.explore_rate,
            max_drift=config.max_drift,
            held_out=draw_held_out(
                stage.packed,
                stage.val_rows,
                pictures=config.explore_check_pictures,
                every=config.explore_check_every,
                patience=config.explore_patience,
                device=stage.fabric.device,
            ),
            reference=actors.reference,
            class_counts=stage.class_counts,
            head=actors.head,
            student=actors.student,
            student_size=config.student_size,
            generator=generator_for(config.seed, epoch, purpose="explore noise"),
            record=record,
        )
    # All did it alike: batch statistics cannot be added up. Last digits may differ by machine.
    stage.processes.alike(actors.prompt, actors.head)
    history.insert(0, "epoch", epoch + 1)
    return history


def train_epoch(
    stage: Stage,
    epoch: int,
    *,
    position: Position | None = None,
    pause: Callable[[Position], None] = lambda position: None,
    skip: Callable[[SkippedStep], None] = lambda step: None,
    teller: Teller | None = None,
) -> dict[str, float]:
    """Pass once over the training pictures.

    Args:
        stage: What to work with.
        epoch: Counted from 0; decides order, augmentation and prompts.
        position: Where to begin, brought forward step by step; None is the first batch.
        pause: Called with the position after every step but the last; what is saved then goes on
            to the same bits.
        skip: Called with a step that was not taken, since its loss or gradient was not finite;
            may raise.
        teller: Told of every batch; None is silence.

    Returns:
        Means over the steps that were taken: ``loss``, and for a distilled student its parts
        ``loss_classes``, ``loss_second``, ``loss_distill``.

    Raises:
        WorkError: If no step at all was finite.
    """
    config = stage.config
    position = position or Position.begin(config, epoch)
    share = prompted_share(config, epoch)
    stage.student.train()
    passed = _drawn_batches(stage, epoch, position.batch)
    stage = replace(stage, class_counts=drawn_counts(stage, epoch))
    if teller is not None:
        passed = teller.watch(
            passed, epoch=epoch, total=stage.batches, what="batch", done=position.batch
        )
    while position.batch < stage.batches:
        step = Step(stage, min(config.accumulate, stage.batches - position.batch))
        for number, (images, labels) in enumerate(islice(passed, step.parts), start=1):
            prompt_it = float(torch.rand((), generator=position.chance)) < share
            noise = position.noise if prompt_it else None
            with stage.fabric.no_backward_sync(stage.student, enabled=number < step.parts):
                step.add(batch_losses(stage, images, labels, noise))
        losses, broken = step.take()
        position.advance(step.parts, losses, broken)
        ended = position.batch >= stage.batches
        waits = 0 if ended or broken.device.type == "cpu" else 1
        for first, parts, what in position.broken_steps(unread=waits):
            skip(SkippedStep(epoch, first, what, _drawn_rows(stage, epoch, first, parts)))
        if not ended:
            pause(position)
    if position.sums is None or not position.counted:
        raise WorkError(f"training: no step of epoch {epoch + 1} was finite; lower learning_rate")
    means = (position.sums / position.counted).tolist()
    names = ("loss", "loss_classes", "loss_second", "loss_distill")
    return dict(zip(names, means, strict=False))


def try_step(stage: Stage, epoch: int, batch_size: int) -> None:
    """Do what a step does, and an exploration's too, with batches of another size.

    It asks the device's memory alone: networks and optimiser are changed, and of no more use.

    Args:
        stage: What to work with.
        epoch: Counted from 0.
        batch_size: Pictures a batch.
    """
    config = stage.config.model_copy(update={"batch_size": batch_size, "explore_steps": 1})
    stage = replace(stage, config=config)
    stage.optimiser.zero_grad()
    if stage.actors.prompt is not None and not config.prompt_file:
        explore_epoch(stage, epoch)
    stage.student.train()
    step = Step(stage, 1)
    noise = generator_for(config.seed, epoch, purpose="prompt noise")
    step.add(batch_losses(stage, *next(_drawn_batches(stage, epoch, 0)), noise))
    step.take()


def drawn_counts(stage: Stage, epoch: int) -> Tensor:
    """Count how often an epoch draws each class: the ``n`` of every balanced softmax in it.

    Args:
        stage: What to work with.
        epoch: Counted from 0.

    Returns:
        ``(K,)``, on the device; the class sizes themselves where each picture is drawn once and
        unmixed.

    Raises:
        InputError: If a class is never drawn: its logarithm is minus infinity.
    """
    config = stage.config
    drawn = effective_counts(
        stage.class_counts.cpu().numpy(),
        sampler=config.sampler,
        progress=training_progress(epoch, config.epochs),
        mixup_alpha=config.mixup_alpha,
    )
    if config.method != "ce" and (drawn <= 0).any():
        empty = np.flatnonzero(drawn <= 0).tolist()
        raise InputError(f"class_counts: expected 1 or more a class, got 0 for classes {empty}")
    return torch.as_tensor(drawn).to(stage.class_counts)


def _drawn_batches(stage: Stage, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels; mixed ones have a share of each class as label."""
    options = {**_drawing(stage, epoch), "start_batch": start}
    if not stage.config.mixup_alpha:
        return batches(stage.packed, stage.rows, **options)
    alpha = stage.config.mixup_alpha
    pairs = paired_batches(stage.packed, stage.rows, alpha=alpha, **options)
    return (mix(pair, classes=len(stage.class_counts)) for pair in pairs)


def _drawn_rows(stage: Stage, epoch: int, start: int, count: int) -> np.ndarray:
    """Tell which rows some batches are made of, behind them those of mixed pictures' partners."""
    told = _drawing(stage, epoch)
    mode = told.pop("augment_mode")
    options = Options(**told, mode=mode)
    asked = [options, *([partners_of(options)] if stage.config.mixup_alpha else [])]
    part = slice(start * stage.batch_size, (start + count) * stage.batch_size)
    return np.concatenate([Pass(stage.packed, stage.rows, o).order()[part] for o in asked])


def _drawing(stage: Stage, epoch: int) -> dict[str, Any]:
    """Say how an epoch draws its batches, as options of `fopro_lab.data.batches`."""
    config = stage.config
    return {
        "batch_size": stage.batch_size,
        "shuffle": True,
        "drop_last": True,
        "augment": config.augment,
        "augment_mode": config.augment_mode,
        "sampler": config.sampler,
        "seed": config.seed,
        "epoch": epoch,
        "epochs": config.epochs,
        "rank": stage.processes.rank,
        "world_size": stage.processes.world_size,
        "device": stage.fabric.device,
    }
