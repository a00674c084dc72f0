"""What each class asks for: one gain a ring, explored on its own pictures. To look at, not to use.

A gain chosen by the label would tell the teacher the class, so it never enters training; and the
task objective has no place here, since a class alone has no task.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise

import pandas as pd
from torch import Tensor

from fopro_lab.config import Objective
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import Teacher
from fopro_lab.training.explore import explore
from fopro_lab.training.references import Reference

LABEL_FREE = ("statistics", "confidence", "identity")


def class_gains(
    teacher: Teacher,
    batches: Mapping[str, Iterable[tuple[Tensor, Tensor]]],
    *,
    objectives: Mapping[Objective, float],
    steps: int,
    learning_rate: float = 0.05,
    rings: int = 8,
    max_log_gain: float = 0.7,
    reference: Reference | None = None,
) -> pd.DataFrame:
    """Explore a ring prompt for each class on that class's pictures alone.

    Args:
        teacher: Frozen.
        batches: Class name to its batches, as of `explore`.
        objectives: Weight of each term; ``statistics``, ``confidence`` and ``identity`` only.
        steps: Prompt steps for each class.
        learning_rate: Adam's.
        rings: Up to 0.5 cycles per pixel; the corners add one.
        max_log_gain: Bound of |log gain|.
        reference: What ``statistics`` compares with.

    Returns:
        A row for each class and ring: ``class_name``, ``ring``, ``low``, ``high`` (cycles per
        pixel), ``gain`` (geometric mean of the channels).

    Raises:
        InputError: If there is no class, or an objective needs the labels or a student.

    Example:
        >>> import torch
        >>> from fopro_lab.models import load_teacher
        >>> batches = {"a": [(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))]}
        >>> table = class_gains(load_teacher("builtin"), batches, steps=1, rings=2,
        ...                     objectives={"statistics": 1.0})
        >>> table[["class_name", "ring"]].values.tolist()
        [['a', 0], ['a', 1], ['a', 2]]
    """
    others = sorted(
        name for name, weight in objectives.items() if weight and name not in LABEL_FREE
    )
    if others:
        raise InputError(f"objectives: expected names out of {LABEL_FREE}, got {others}")
    if not batches:
        raise InputError("batches: expected one class or more, got none")
    rows = []
    for name, own in batches.items():
        prompt = FourierPrompt("ring", rings=rings, max_log_gain=max_log_gain)
        explore(
            prompt,
            teacher,
            own,
            objectives=objectives,
            steps=steps,
            learning_rate=learning_rate,
            reference=reference,
        )
        gains = (max_log_gain * prompt.cells.detach().tanh()).mean(dim=0).exp().tolist()
        for ring, ((low, high), gain) in enumerate(zip(pairwise(prompt.edges), gains, strict=True)):
            rows.append((name, ring, low, high, gain))
    return pd.DataFrame(rows, columns=["class_name", "ring", "low", "high", "gain"])
