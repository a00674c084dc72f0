"""A moving average of the student: what is validated, kept and tested where it is on."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_average(student: nn.Module, decay: float) -> AveragedModel | None:
    """Start an exponential moving average of a student's weights.

    After step ``t``, counted from 0, it is ``d * average + (1 - d) * student`` with
    ``d = min(decay, (1 + t) / (10 + t))``: short trainings would else be judged by their first
    weights. The running means and variances of batch norms are averaged as the weights are, since
    those of the last student fit other weights; whole numbers, such as their counters, are copied.

    Args:
        student: Of which a copy is made.
        decay: Highest share of the past, below 1; 0 keeps no average.

    Returns:
        The average, its copy of the student as ``module``, updated by ``update_parameters``; or
        None.

    Example:
        >>> student = nn.Linear(1, 1, bias=False)
        >>> average = build_average(student, 0.5)
        >>> average.update_parameters(student)
        >>> torch.equal(average.module.weight, student.weight)
        True
    """
    if not decay:
        return None
    average = AveragedModel(student, use_buffers=True)  # its counter stays on the CPU: no waiting

    def move(averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        count = int(average.n_averaged)
        if averaged[0].is_floating_point():
            share = min(decay, (1 + count) / (10 + count))
            torch._foreach_lerp_(averaged, current, 1 - share)
        else:
            torch._foreach_copy_(averaged, current)

    average.multi_avg_fn = move
    return average.requires_grad_(False)
