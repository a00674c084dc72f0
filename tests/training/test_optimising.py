"""Optimisers against those of torch, and the learning rate of every step."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, AdamW

from fopro_lab.config import StepConfig
from fopro_lab.training.setup import WARMUP_START, build_optimiser, build_schedule


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [("adam", Adam, {}), ("adamw", AdamW, {}), ("sgd", SGD, {"momentum": 0.9})],
)
def test_each_optimiser_is_torchs_with_the_configs_options(name, kind, own):
    config = StepConfig(optimiser=name, learning_rate=0.1, weight_decay=0.3)
    steps = []
    for build in (build_optimiser, partial(kind, lr=0.1, weight_decay=0.3, **own)):
        weight = torch.nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
        optimiser = build([weight], config) if build is build_optimiser else build([weight])
        for gradient in (0.5, -2.0, 0.25, 3.0):
            weight.grad = torch.tensor(gradient, dtype=torch.float64)
            optimiser.step()
        steps.append(float(weight.detach()))
    # Adam and AdamW with decay differ by over 0.01 here, so 1e-12 tells every mistake.
    assert steps[0] == pytest.approx(steps[1], rel=0, abs=1e-12)


def rates(*, epochs=4, epoch_steps=5, **options) -> list[float]:
    config = StepConfig(learning_rate=0.2, **options)
    optimiser = build_optimiser([torch.nn.Parameter(torch.zeros(1))], config)
    schedule = build_schedule(optimiser, config, epochs=epochs, epoch_steps=epoch_steps)
    found = []
    for _ in range(epochs * epoch_steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if schedule is not None:
            schedule.step()
    return found


def slow_rates(schedule: str, warmup: int) -> list[float]:
    """Twenty steps of four epochs, each rate by its own formula."""
    found = []
    for step in range(20):
        share = 1.0
        if step < warmup:
            share = WARMUP_START + (1 - WARMUP_START) * step / warmup
        elif schedule == "cosine":
            share = (1 + math.cos(math.pi * (step - warmup) / (19 - warmup))) / 2
        found.append(0.2 * share)
    return found


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_every_step_has_the_rate_of_the_formula(warmup, schedule):
    found = rates(schedule=schedule, lr_warmup=warmup / 5)
    # A schedule that is a step late is off by 0.001 or more somewhere.
    expected = slow_rates(schedule, warmup)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
