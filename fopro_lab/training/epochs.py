"""One epoch: explore the prompt, then exploit it in the student's steps."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import batches, cycle, effective_counts, mix, paired_batches
from fopro_lab.data.samplers import training_progress
from fopro_lab.errors import InputError, WorkError
from fopro_lab.progress import progress
from fopro_lab.training.actors import generator_for
from fopro_lab.training.checking import draw_held_out
from fopro_lab.training.explore import explore
from fopro_lab.training.schedule import prompted_share
from fopro_lab.training.stages import Stage
from fopro_lab.training.standing import Position
from fopro_lab.training.steps import Step, batch_losses


def explore_epoch(stage: Stage, epoch: int) -> pd.DataFrame:
    """Take the prompt steps that stand before an epoch.

    They draw each picture equally often, whatever the sampler: the balanced softmax of the task
    corrects for the class sizes, and prompts of two samplers stay comparable.

    Args:
        stage: With a prompt among its actors.
        epoch: Counted from 0; decides batches and noise.

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
    with stage.fabric.autocast():
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
        )
    history.insert(0, "epoch", epoch + 1)
    return history


def train_epoch(
    stage: Stage,
    epoch: int,
    *,
    position: Position | None = None,
    pause: Callable[[Position], None] | None = None,
    verbose: bool = False,
) -> dict[str, float]:
    """Pass once over the training pictures.

    Args:
        stage: What to work with.
        epoch: Counted from 0; decides order, augmentation and prompts.
        position: Where to begin, brought forward step by step; None is the first batch.
        pause: Called with the position after every step but the last; what is saved then goes on
            to the same bits.
        verbose: Show a bar in a terminal; a log gets its line after the epoch.

    Returns:
        Means over the epoch: ``loss``, and for a distilled student its parts ``loss_classes``,
        ``loss_second``, ``loss_distill``.

    Raises:
        WorkError: If a loss is not finite; the epoch does not count.
    """
    config = stage.config
    position = position or Position.begin(config, epoch)
    share = prompted_share(config, epoch)
    stage.student.train()
    passed = _drawn_batches(stage, epoch, position.batch)
    stage = replace(stage, class_counts=drawn_counts(stage, epoch))
    if verbose and sys.stderr.isatty():
        label = f"{config.method} seed {config.seed}, epoch {epoch + 1} of {config.epochs}"
        passed = progress(passed, total=stage.batches - position.batch, label=label)
    while position.batch < stage.batches:
        step = Step(stage, min(config.accumulate, stage.batches - position.batch))
        for images, labels in islice(passed, step.parts):
            prompt_it = float(torch.rand((), generator=position.chance)) < share
            noise = position.noise if prompt_it else None
            step.add(batch_losses(stage, images, labels, noise))
        step.take()
        position.advance(step.parts, step.values)
        if pause is not None and position.batch < stage.batches:
            pause(position)
    assert position.sums is not None
    means = (position.sums / position.counted).tolist()
    if not np.isfinite(means).all():
        raise WorkError(
            f"training: the loss of epoch {epoch + 1} is not finite; lower learning_rate "
            f"(now {config.learning_rate:g}); the epochs before are kept"
        )
    names = ("loss", "loss_classes", "loss_second", "loss_distill")
    return dict(zip(names, means, strict=False))


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
    config = stage.config
    options: dict[str, Any] = {
        "batch_size": stage.batch_size,
        "shuffle": True,
        "drop_last": True,
        "augment": config.augment,
        "augment_mode": config.augment_mode,
        "sampler": config.sampler,
        "seed": config.seed,
        "epoch": epoch,
        "epochs": config.epochs,
        "start_batch": start,
        "device": stage.fabric.device,
    }
    if not config.mixup_alpha:
        return batches(stage.packed, stage.rows, **options)
    pairs = paired_batches(stage.packed, stage.rows, alpha=config.mixup_alpha, **options)
    return (mix(pair, classes=len(stage.class_counts)) for pair in pairs)
