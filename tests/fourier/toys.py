"""Small prompts whose parameters are moved from the start, and the noise that moves them."""

import torch

from fopro_lab.fourier import FourierPrompt

FORMS = ["generator", "shared", "ring", "radial"]
SHAPES = [(4, 4), (5, 4), (4, 5), (5, 3), (6, 7)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(form, *, scale=0.0, **settings):
    """A small prompt whose parameters are moved from the start by normal noise of ``scale``."""
    settings = {"size": (8, 10), "rows": 6, "rings": 3, "waves": 4, "noise": 4} | settings
    prompt, source = FourierPrompt(form, **settings), seeded(7)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=source)
    return prompt
