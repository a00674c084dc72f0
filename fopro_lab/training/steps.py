"""One step of the student: the losses of its batches, their gradient, and what it moves."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fopro_lab.models import StudentOutput
from fopro_lab.training.actors import places_of, prompted
from fopro_lab.training.guarding import Buffers, broken_part
from fopro_lab.training.judging import shrink
from fopro_lab.training.losses import DistillationLoss, balanced_softmax_loss, distillation_loss
from fopro_lab.training.optimising import skip_where
from fopro_lab.training.stages import Stage


class Step:
    """A step of the optimiser, out of one batch or several whose gradients are added.

    Gradients are those of the mean over all its batches. Batch norms see each batch by itself, so
    a step of two batches of 16 is not to the last digit one of a batch of 32.

    Args:
        stage: What is moved.
        parts: Batches of this step, 1 or more.
    """

    def __init__(self, stage: Stage, parts: int) -> None:
        self.stage, self.parts = stage, parts
        self.before = Buffers(stage.actors.student)
        self.values: Tensor | None = None  # stays where it is: a GPU would wait for who reads it
        stage.optimiser.zero_grad()

    def add(self, losses: tuple[Tensor, ...]) -> None:
        """Add a batch's gradient and its losses, the total first."""
        self.stage.fabric.backward(losses[0] / self.parts if self.parts > 1 else losses[0])
        values = torch.stack([loss.detach() for loss in losses])
        self.values = values if self.values is None else self.values + values

    def take(self) -> tuple[Tensor, Tensor]:
        """Move the student, its learning rate and its average; or only the rate.

        Nothing is read: the optimiser's own kernel is told on the device to move nothing.

        Returns:
            ``(L,)``, the losses summed over the batches, and a number of
            `fopro_lab.training.guarding.BROKEN`. Unless that is 0, weights, batch norms, moments
            and average are as they were before the step.
        """
        stage = self.stage
        assert self.values is not None
        self.values = stage.processes.mean(self.values)  # so that all decide and report alike
        norm = stage.fabric.clip_gradients(
            stage.student,
            stage.optimiser,
            max_norm=stage.config.clip_norm,
            error_if_nonfinite=False,  # True would read the norm, and a GPU wait for that
        )
        assert norm is not None
        broken = broken_part(self.values[0], norm)
        taken = broken == 0
        skip_where(stage.optimiser.optimizer, ~taken)
        stage.optimiser.step()
        self.before.keep(taken)
        if stage.schedule is not None:
            stage.schedule.step()
        if stage.average is not None:
            stage.average.update(stage.actors.student, taken)
        return self.values, broken


def batch_losses(
    stage: Stage, images: Tensor, labels: Tensor, noise: torch.Generator | None
) -> tuple[Tensor, ...] | DistillationLoss:
    """Compute the losses of one batch, the total first.

    Args:
        stage: Whose ``class_counts`` are those that the epoch draws.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, or ``(B, K)``, shares of mixed pictures.
        noise: Source of the prompt's noise; None for an unprompted batch.

    Returns:
        Scalars: the total, and for a distilled student its three parts.
    """
    config, actors = stage.config, stage.actors
    output: StudentOutput = stage.student(shrink(images, config.student_size))
    if config.method == "ce":
        return (F.cross_entropy(output.logits, labels, label_smoothing=config.label_smoothing),)
    told: dict[str, Any] = {
        "class_counts": stage.class_counts,
        "label_smoothing": config.label_smoothing,
    }
    if config.method == "bsm":
        return (balanced_softmax_loss(output.logits, labels, **told),)
    assert stage.encoder is not None
    with torch.inference_mode(), stage.fabric.autocast():
        if actors.prompt is not None and noise is not None:
            images = prompted(
                images,
                actors.prompt,
                generator=noise,
                places=places_of(config, noise) if config.method == "random" else None,
                per_picture=config.random_gains == "per-picture",
                share=stage.processes.share(len(images) * stage.processes.world_size),
            )
        features = stage.encoder.encode(images)
    features = features.clone()  # what inference mode made cannot take part in a gradient
    weight = config.distill_weight
    return distillation_loss(output, features, labels=labels, weight=weight, **told)
