"""The published step, written plainly: what the engine is measured against, and held to."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.steps import Engine
from fopro_lab.data import batches
from fopro_lab.models import StudentOutput
from fopro_lab.training.losses import distillation_loss


class PublishedStep:
    """EKD as a first script has it: float32, contiguous, PyTorch's default Adam, ``.item()``.

    It starts from the student of an engine and computes the same loss of the same batches. It has
    neither the bound of the gradient's norm nor the guard against steps that are not finite, and
    so has less to do than the engine.

    Args:
        engine: Of method EKD.
        copied: Copy its networks; else they are turned into what a first script has.
    """

    def __init__(self, engine: Engine, *, copied: bool = True) -> None:
        self.setup = engine.setup
        teacher = engine.setup.teacher
        assert teacher is not None
        networks = (teacher, engine.state.student)
        teacher, student = copy.deepcopy(networks) if copied else networks
        self.teacher = teacher.to(memory_format=torch.contiguous_format)
        self.student = student.to(memory_format=torch.contiguous_format).train()
        self.optimiser = torch.optim.Adam(
            self.student.parameters(), lr=self.setup.config.learning_rate
        )

    def epoch(self) -> list[float]:
        """Pass once over the images in the order of the engine's epoch 0; the losses."""
        config, losses = self.setup.config, []
        passed = batches(
            self.setup.packed,
            self.setup.split.train,
            batch_size=self.setup.batch_size,
            shuffle=True,
            drop_last=True,
            seed=config.seed,
            device=self.setup.fabric.device,
        )
        for images, labels in passed:
            with torch.no_grad():
                features = self._encode(images)
            loss = distillation_loss(
                self._forward(images),
                features,
                labels=labels,
                class_counts=self.setup.class_counts,
                weight=config.distill_weight,
            )[0]
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            losses.append(loss.item())
        return losses

    def _encode(self, images: Tensor) -> Tensor:
        """Features of a teacher that takes images as they come."""
        return self.teacher.body((images - self.teacher.mean) / self.teacher.std)

    def _forward(self, images: Tensor) -> StudentOutput:
        student = self.student
        assert student.projector is not None and student.second_classifier is not None
        features = student.backbone((images - student.mean) / student.std)
        projection = student.projector(features)
        return StudentOutput(
            features,
            student.classifier(features),
            projection,
            student.second_classifier(projection),
        )


def published_epoch(step: PublishedStep) -> Callable[[], int]:
    """Make a run of one epoch that tells its number of images."""

    def run() -> int:
        return len(step.epoch()) * step.setup.batch_size

    return run
