"""Steps: gradients that are added, and the fused optimiser beside the plain one."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fopro_lab.config import StepConfig, TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.training.train import build_optimiser, build_stage, skip_where, train_epoch

TINY = {"images": 150, "image_size": 16, "epochs": 1, "batch_size": 16, "augment": "none",
        "method": "ce", "device": "cpu"}  # fmt: skip


def stage_of(**knobs):
    config = TrainConfig.from_mapping(TINY | knobs)
    return build_stage(config, *prepare(config, progress=False))


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_added_gradients_are_those_of_the_mean_over_their_batches(accumulate):
    found, slow = stage_of(accumulate=accumulate), stage_of()
    assert found.batches == 5  # so the last step has one batch, two, or all
    loss = train_epoch(found, 0)["loss"]
    # By hand: the mean of the batches' losses, one graph, one backward.
    student = slow.actors.student.train()
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-4)
    drawn = list(batches(slow.packed, slow.rows, batch_size=16, shuffle=True, drop_last=True))
    losses = []
    for start in range(0, 5, accumulate):
        group = [cross_entropy(student(x).logits, y) for x, y in drawn[start : start + accumulate]]
        optimiser.zero_grad()
        torch.stack(group).mean().backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        losses += [float(value.detach()) for value in group]
    assert loss == pytest.approx(np.mean(losses), abs=1e-5)
    for name, value in student.state_dict().items():
        # Adam turns a sum in place of a mean into nearly the same step, so the clip must bite:
        # it does, and a sum, or a last step divided by too much, is off by over 1e-4.
        torch.testing.assert_close(found.actors.student.state_dict()[name], value,
                                   rtol=0, atol=2e-6, msg=name)  # fmt: skip


def test_gradients_are_means_and_not_sums():
    # Plain SGD shows the size of a gradient, which Adam hides.
    knobs = {"optimiser": "sgd", "momentum": 0.0, "learning_rate": 1e-2, "clip_norm": 1e9}
    found, slow = stage_of(**knobs, accumulate=2), stage_of()
    before = {k: v.clone() for k, v in slow.actors.student.named_parameters()}
    train_epoch(found, 0)
    student = slow.actors.student.train()
    drawn = list(batches(slow.packed, slow.rows, batch_size=16, shuffle=True, drop_last=True))
    for start, count in ((0, 2), (2, 2), (4, 1)):
        student.zero_grad()
        sum(cross_entropy(student(x).logits, y) for x, y in drawn[start : start + count]).backward()
        with torch.no_grad():
            for weight in student.parameters():
                weight -= 1e-2 * weight.grad / count
    moved = dict(found.actors.student.named_parameters())
    for name, value in student.named_parameters():
        torch.testing.assert_close(moved[name], value, rtol=0, atol=2e-6, msg=name)
    # What the bound must tell from: a last step divided by 2 in place of 1.
    assert max(float((moved[n] - v).detach().abs().max()) for n, v in before.items()) > 1e-3


PLAIN = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("optimiser", list(PLAIN))
def test_the_fused_optimiser_is_the_plain_one_to_the_last_digits(optimiser):
    weights, gradients = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)), []
    config = StepConfig(optimiser=optimiser, weight_decay=0.01, learning_rate=0.01)
    plain, fused = (torch.nn.Parameter(weights[0].clone()) for _ in range(2))
    momentum = {"momentum": 0.9} if optimiser == "sgd" else {}
    reference = PLAIN[optimiser]([plain], lr=0.01, weight_decay=0.01, fused=False, **momentum)
    built = build_optimiser([fused], config)
    assert built.defaults["fused"]
    for step in range(50):
        gradients.append(torch.randn(1000, generator=torch.Generator().manual_seed(step)))
        for weight, moved in ((plain, reference), (fused, built)):
            weight.grad = gradients[-1].clone()
            moved.step()
    # Fifty steps of about 0.01, each rounded at 1e-7: the bound is 50 roundings. One step left
    # out is off by 0.01, a decay left out by 0.005 of the weight.
    torch.testing.assert_close(fused, plain, rtol=0, atol=5e-6)


@pytest.mark.parametrize("optimiser", list(PLAIN))
def test_steps_that_are_skipped_leave_an_optimiser_as_it_was(optimiser):
    config = StepConfig(optimiser=optimiser, weight_decay=0.01, learning_rate=0.01)
    paths = []
    for broken in ((), (0, 1, 5)):  # the very first steps, too, before there are any moments
        weight = torch.nn.Parameter(torch.ones(1000))
        built = build_optimiser([weight], config)
        good = iter(range(6))
        for step in range(6 + len(broken)):
            skip = step in broken
            chance = torch.Generator().manual_seed(99 if skip else next(good))
            weight.grad = torch.randn(1000, generator=chance) / (0.0 if skip else 1.0)
            skip_where(built, torch.tensor(skip))
            built.step()
        moments = [built.state_dict()["state"][0][name] for name in built.state_dict()["state"][0]]
        paths.append([weight.detach(), *moments])
    for whole, skipped in zip(*paths, strict=True):
        assert torch.equal(whole, skipped)
