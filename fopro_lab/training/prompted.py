"""A teacher behind a fixed prompt: one network to whoever asks for features."""

from typing import Any

import torch
from torch import Tensor, nn

from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import Teacher


class PromptedTeacher(nn.Module):
    """Answers as its teacher does on prompted pictures.

    Args:
        teacher: Frozen.
        prompt: Kept as it is; a generator's noise is drawn from a fixed seed for every batch.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> prompted = PromptedTeacher(load_teacher("builtin"), FourierPrompt("shared"))
        >>> prompted.encode(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 256])
    """

    def __init__(self, teacher: Teacher, prompt: FourierPrompt) -> None:
        super().__init__()
        self.teacher, self.prompt = teacher, prompt
        self.name = f"{teacher.name} behind a prompt"
        self.card: dict[str, Any] = {**teacher.card, "prompt": dict(prompt.settings)}

    def encode(self, images: Tensor) -> Tensor:
        """Prompt pictures ``(B, 3, H, W)`` in [0, 1] and turn them into features ``(B, D)``."""
        return self.teacher.encode(self.prompt(images, torch.Generator().manual_seed(0)))
