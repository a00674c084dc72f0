"""What moves the student: the optimiser, and its learning rate from step to step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
)

from fopro_lab.config import StepConfig

WARMUP_START = 0.01  # share of the learning rate in the very first step of a warm-up


def build_optimiser(parameters: Iterable[Parameter], config: StepConfig) -> Optimizer:
    """Build the optimiser that a config names.

    Args:
        parameters: The student's.
        config: Its name and numbers.

    Returns:
        Of PyTorch, fused, which on a CPU, too, is one kernel: Adam and SGD penalise the squared
        weights, AdamW shrinks the weights.

    Example:
        >>> build_optimiser([Parameter()], StepConfig(optimiser="sgd")).defaults["momentum"]
        0.9
    """
    shared: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    if config.optimiser != "sgd":
        return (Adam if config.optimiser == "adam" else AdamW)(parameters, **shared)
    optimiser = SGD(parameters, momentum=config.momentum, **shared)
    for parameter in optimiser.param_groups[0]["params"]:
        # A first step that is skipped would else leave memory there that nobody has written.
        if config.momentum:
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


def skip_where(optimiser: Optimizer, broken: Tensor) -> None:
    """Let the next step of a fused optimiser move nothing where a flag on the device says so.

    It is how PyTorch's gradient scaler, too, skips a step without reading the flag.

    Args:
        optimiser: Of `build_optimiser`.
        broken: Scalar of bool.

    Example:
        >>> weight = Parameter(torch.ones(1))
        >>> optimiser = build_optimiser([weight], StepConfig())
        >>> weight.grad = torch.tensor([float("nan")])
        >>> skip_where(optimiser, torch.tensor(True))
        >>> optimiser.step()
        >>> float(weight.detach())
        1.0
    """
    vars(optimiser).update(grad_scale=None, found_inf=broken.float())


def build_schedule(
    optimiser: Optimizer, config: StepConfig, *, epochs: int, epoch_steps: int
) -> LRScheduler | None:
    """Build the schedule of the learning rate; it is asked after every step, not every epoch.

    So a warm-up can be shorter than an epoch, and a training of few epochs has no stairs. The
    rate depends on the number of steps alone: a step that is skipped counts.

    Args:
        optimiser: Whose rate is set.
        config: Schedule, warm-up, milestones; these are in epochs.
        epochs: Of the whole training, as planned: an early stop does not compress the schedule.
        epoch_steps: Steps of an epoch.

    Returns:
        The schedule, or None where the rate never changes.

    Example:
        >>> optimiser = SGD([Parameter()], lr=1.0)
        >>> config = StepConfig(schedule="multi-step", rate_milestones=(1,))
        >>> schedule = build_schedule(optimiser, config, epochs=2, epoch_steps=2)
        >>> rates = []
        >>> for _ in range(4):
        ...     optimiser.step()
        ...     rates += schedule.get_last_lr()
        ...     schedule.step()
        >>> rates
        [1.0, 1.0, 0.1, 0.1]
    """
    warmup = math.ceil(config.rate_warmup * epoch_steps)
    if config.schedule == "constant" and not warmup:
        return None
    after = _after_warmup(optimiser, config, warmup, epochs * epoch_steps, epoch_steps)
    if not warmup:
        return after
    rising = LinearLR(optimiser, start_factor=WARMUP_START, total_iters=warmup)
    return SequentialLR(optimiser, [rising, after], milestones=[warmup])


def _after_warmup(
    optimiser: Optimizer, config: StepConfig, warmup: int, steps: int, epoch_steps: int
) -> LRScheduler:
    if config.schedule == "cosine":
        # The last step, not one past it, has the floor's rate; a single step has the full one.
        left, floor = max(1, steps - 1 - warmup), config.rate_floor * config.learning_rate
        return CosineAnnealingLR(optimiser, T_max=left, eta_min=floor)
    if config.schedule == "multi-step":
        places = [epoch * epoch_steps - warmup for epoch in config.rate_milestones]
        return MultiStepLR(optimiser, places, gamma=config.rate_factor)
    return LambdaLR(optimiser, lambda _: 1.0)
