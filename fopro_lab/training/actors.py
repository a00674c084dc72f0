"""Who takes part in a run: student, teacher, prompt and task head, built from one config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fopro_lab.config import PromptConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt, random_gain_like
from fopro_lab.fourier.scaling import scale_spectrum
from fopro_lab.fourier.shares import Share
from fopro_lab.models import Student, Teacher, build_student, load_from
from fopro_lab.training.judging import active_objectives
from fopro_lab.training.objectives import TaskHead
from fopro_lab.training.references import Reference, reference_of
from fopro_lab.training.schedule import PROMPTING

DISTILLING = ("ekd", "fopro", "random")


@dataclass(eq=False)
class Actors:
    """The networks of one run, and what the teacher expects; None where the method has none."""

    student: Student
    teacher: Teacher | None
    prompt: FourierPrompt | None
    head: TaskHead | None
    reference: Reference | None = None

    def state(self) -> dict[str, dict[str, Tensor]]:
        """State dicts of all that is trained."""
        return {name: part.state_dict() for name, part in self._trained().items()}

    def load_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Put back what `state` gave."""
        for name, part in self._trained().items():
            part.load_state_dict(state[name])

    def _trained(self) -> dict[str, nn.Module]:
        parts = {"student": self.student, "prompt": self.prompt, "head": self.head}
        return {name: part for name, part in parts.items() if part is not None}


def build_actors(config: TrainConfig, *, class_counts: np.ndarray, device: torch.device) -> Actors:
    """Build what the method of ``config`` needs, on the device.

    Args:
        config: Of the run.
        class_counts: ``(K,)``, training pictures a class.
        device: Where to compute.

    Returns:
        The actors. Baselines come without teacher, EKD without prompt.

    Raises:
        InputError: If the teacher's weights or a prompt's file are missing or do not fit, or the
            teacher lacks what an objective needs.

    Example:
        >>> config = TrainConfig(method="ekd")
        >>> actors = build_actors(config, class_counts=np.ones(8), device=torch.device("cpu"))
        >>> actors.prompt is None
        True
    """
    classes = len(class_counts)
    teacher = load_from(config).to(device) if config.method in DISTILLING else None
    student = build_student(
        config.student,
        classes=classes,
        teacher_dim=teacher.feature_dim if teacher is not None else 0,
        seed=config.seed,
        weights=config.student_weights,
    ).to(device)
    prompt, head, reference = None, None, None
    if teacher is not None and config.method in PROMPTING:
        prompt = build_prompt(config, size=config.image_size, seed=config.seed).to(device)
        if not config.prompt_file:
            active = active_objectives(config.objectives, teacher)  # told before an epoch's work
            head = TaskHead(teacher.feature_dim, classes=classes, seed=config.seed).to(device)
            if "statistics" in active:
                reference = reference_of(teacher, natural=config.natural, size=config.image_size)
                teacher.card["statistics"] = reference.source
    return Actors(student, teacher, prompt, head, reference)


def build_prompt(config: PromptConfig, *, size: int, seed: int) -> FourierPrompt:
    """Build the prompt that a config describes, at the identity, or read it from its file.

    Args:
        config: Its form, resolution and bound; a `TrainConfig` may name a file instead.
        size: Side of the pictures it will see, pixels.
        seed: Of a network's weights.

    Raises:
        InputError: If the file is missing, no prompt, or one of another number of channels.

    Example:
        >>> build_prompt(PromptConfig(prompt_form="ring"), size=32, seed=0).form
        'ring'
    """
    path = config.prompt_file if isinstance(config, TrainConfig) else ""
    if path:
        prompt = FourierPrompt.load(Path(path).expanduser()).requires_grad_(False)
        if prompt.channels not in (1, 3):
            raise InputError(
                f"prompt_file: expected a prompt of 1 or 3 channels, got {prompt.channels}"
            )
        return prompt
    return FourierPrompt(
        config.prompt_form,
        size=size,
        max_log_gain=config.max_log_gain,
        rows=config.prompt_rows,
        rings=config.prompt_rings,
        waves=config.prompt_waves,
        noise=config.prompt_noise,
        seed=seed,
    )


@torch.no_grad()
def prompted(
    images: Tensor,
    prompt: FourierPrompt,
    *,
    generator: torch.Generator,
    places: torch.Generator | None = None,
    per_picture: bool = False,
    share: Share | None = None,
) -> Tensor:
    """Put the prompt, or its random control, before the teacher; no gradient flows.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        prompt: The learned one.
        generator: Source of the prompt's noise.
        places: Source of the places that its gains are moved to; None leaves them. Seeded alike
            for every batch, all of them get the same places.
        per_picture: Draw places for each picture.
        share: Stretch of a batch that the pictures are; None is all of it.

    Returns:
        ``(B, 3, H, W)``, not clipped.

    Example:
        >>> prompt = FourierPrompt("shared", size=8)
        >>> noise, places = (torch.Generator().manual_seed(seed) for seed in (0, 1))
        >>> prompted(torch.rand(2, 3, 8, 8), prompt, generator=noise, places=places).shape
        torch.Size([2, 3, 8, 8])
    """
    gain = prompt.gain(images, generator, share=share)
    if places is not None:
        size = (images.shape[2], images.shape[3])
        gain = random_gain_like(
            prompt, gain, places, size=size, per_picture=per_picture, share=share
        )
    return scale_spectrum(images, gain)


def places_of(config: TrainConfig, noise: torch.Generator) -> torch.Generator:
    """Say where the control moves gains to: one arrangement a run, or ever new ones.

    Args:
        config: Of a run of method ``random``.
        noise: Source of ever new places.

    Returns:
        A generator; for one arrangement newly seeded, so that each batch draws the same.
    """
    if config.random_gains == "per-picture":
        return noise
    return generator_for(config.seed, purpose="places of the control")


def generator_for(*numbers: int, purpose: str) -> torch.Generator:
    """Make a generator that depends on some numbers and a purpose, and on nothing else.

    Drawing each epoch's randomness from its own seed is what makes a resumed run equal to one
    that was never stopped.

    Args:
        numbers: Such as seed and epoch.
        purpose: Such as ``"prompt"``; two purposes never share their numbers.

    Example:
        >>> one, two = (generator_for(0, 1, purpose="prompt") for _ in range(2))
        >>> torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=two))
        True
    """
    entropy: list[Any] = [*numbers, *purpose.encode()]
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)
