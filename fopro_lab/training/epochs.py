"""One epoch: explore the prompt, then exploit it in the student's steps."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from fopro_lab.config import TrainConfig
from fopro_lab.data import Pack, batches, cycle, effective_counts, mix, paired_batches
from fopro_lab.data.samplers import training_progress
from fopro_lab.errors import WorkError
from fopro_lab.models import StudentOutput
from fopro_lab.progress import progress
from fopro_lab.training.actors import Actors, generator_for, places_of, prompted
from fopro_lab.training.checking import draw_held_out
from fopro_lab.training.explore import explore
from fopro_lab.training.judging import shrink
from fopro_lab.training.losses import DistillationLoss, balanced_softmax_loss, distillation_loss
from fopro_lab.training.schedule import prompted_share


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


def train_epoch(stage: Stage, epoch: int, *, verbose: bool = False) -> dict[str, float]:
    """Pass once over the training pictures.

    Args:
        stage: What to work with.
        epoch: Counted from 0; decides order, augmentation and prompts.
        verbose: Show a bar in a terminal; a log gets its line after the epoch.

    Returns:
        Means over the epoch: ``loss``, and for a distilled student its parts ``loss_classes``,
        ``loss_second``, ``loss_distill``.

    Raises:
        WorkError: If a loss is not finite; the epoch does not count.
    """
    config = stage.config
    chance = generator_for(config.seed, epoch, purpose="which batches")
    noise = generator_for(config.seed, epoch, purpose="prompt noise")
    share = prompted_share(config, epoch)
    stage.student.train()
    sums: Tensor | None = None
    steps = 0
    size = min(config.batch_size, len(stage.rows))
    passed = _drawn_batches(stage, epoch, size)
    stage = replace(stage, class_counts=drawn_counts(stage, epoch))
    if verbose and sys.stderr.isatty():
        label = f"{config.method} seed {config.seed}, epoch {epoch + 1} of {config.epochs}"
        passed = progress(passed, total=len(stage.rows) // size, label=label)
    for images, labels in passed:
        prompt_it = float(torch.rand((), generator=chance)) < share
        losses = _losses(stage, images, labels, noise if prompt_it else None)
        stage.optimiser.zero_grad()
        stage.fabric.backward(losses[0])
        stage.fabric.clip_gradients(
            stage.student, stage.optimiser, max_norm=config.clip_norm, error_if_nonfinite=False
        )
        stage.optimiser.step()
        # Summed where they are: reading a number every step would make a GPU wait for Python.
        values = torch.stack([loss.detach() for loss in losses])
        sums = values if sums is None else sums + values
        steps += 1
    assert sums is not None
    means = (sums / steps).tolist()
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
    """
    config = stage.config
    drawn = effective_counts(
        stage.class_counts.cpu().numpy(),
        sampler=config.sampler,
        progress=training_progress(epoch, config.epochs),
        mixup_alpha=config.mixup_alpha,
    )
    return torch.as_tensor(drawn).to(stage.class_counts)


def _drawn_batches(stage: Stage, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels; mixed ones have a share of each class as label."""
    config = stage.config
    options: dict[str, Any] = {
        "batch_size": size,
        "shuffle": True,
        "drop_last": True,
        "augment": config.augment,
        "augment_mode": config.augment_mode,
        "sampler": config.sampler,
        "seed": config.seed,
        "epoch": epoch,
        "epochs": config.epochs,
        "device": stage.fabric.device,
    }
    if not config.mixup_alpha:
        return batches(stage.packed, stage.rows, **options)
    pairs = paired_batches(stage.packed, stage.rows, alpha=config.mixup_alpha, **options)
    return (mix(pair, classes=len(stage.class_counts)) for pair in pairs)


def _losses(
    stage: Stage, images: Tensor, labels: Tensor, noise: torch.Generator | None
) -> tuple[Tensor, ...] | DistillationLoss:
    """Loss of one batch, its total first; ``noise`` is None for an unprompted batch."""
    config, actors = stage.config, stage.actors
    output: StudentOutput = stage.student(shrink(images, config.student_size))
    if config.method == "ce":
        return (F.cross_entropy(output.logits, labels),)
    if config.method == "bsm":
        return (balanced_softmax_loss(output.logits, labels, class_counts=stage.class_counts),)
    assert actors.teacher is not None
    with torch.no_grad(), stage.fabric.autocast():
        if actors.prompt is not None and noise is not None:
            images = prompted(
                images,
                actors.prompt,
                generator=noise,
                places=places_of(config, noise) if config.method == "random" else None,
                per_picture=config.random_gains == "per-picture",
            )
        features = actors.teacher.encode(images)
    return distillation_loss(
        output,
        features,
        labels=labels,
        class_counts=stage.class_counts,
        weight=config.distill_weight,
    )
