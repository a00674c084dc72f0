"""Labelled stripes, and one prompt training on them."""

import pytest
import torch

from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import explore
from tests.models.toys import norm_teacher, toy_images

COUNTS = torch.tensor([30, 10, 2])


def labelled(count=2, side=16):
    """Batches of noise whose class shows in fine stripes, faint for an untrained eye."""
    batches = []
    for seed in range(count):
        images, labels = toy_images(12, side, seed=seed), torch.arange(12) % 3
        columns = torch.arange(side)
        for label in range(3):
            wave = torch.cos(2 * torch.pi * columns * (label + 2) / 8)
            images[labels == label] += 0.1 * wave
        batches.append((images, labels))
    return batches


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, state):
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def message(kind, *arguments, **settings):
    with pytest.raises(kind) as caught:
        explore(*arguments, **settings)
    return str(caught.value)


def run(objective, *, form="shared", steps=25, prompt=None, student=None, **settings):
    prompt = prompt or FourierPrompt(form, size=16, rows=6, rings=3, noise=4)
    return prompt, explore(
        prompt,
        norm_teacher(classes=6),
        labelled(),
        objectives={objective: 1.0},
        steps=steps,
        learning_rate=0.05,
        class_counts=COUNTS,
        student=student,
        generator=seeded(),
        **settings,
    )
