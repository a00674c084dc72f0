"""Labelled stripes, and one prompt training on them."""

import torch

from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import HeldOut, explore
from tests.fourier.toys import seeded
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


def seen(*, shift=0, **how):
    """Held-out images; a shift of their labels contradicts the training's."""
    images, labels = labelled(1)[0]
    return HeldOut(images, (labels + shift) % 3, **{"every": 5} | how)


def same(module, other):
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in module.state_dict().items())


def run(objective, *, form="shared", steps=25, prompt=None, batches=None, **settings):
    prompt = prompt or FourierPrompt(form, size=16, rows=6, rings=3, noise=4)
    how = {"learning_rate": 0.05, "class_counts": COUNTS, "generator": seeded()} | settings
    teacher, batches = norm_teacher(), labelled() if batches is None else batches
    how["objectives"] = {objective: 1.0}
    return prompt, explore(prompt, teacher, batches, steps=steps, **how)
