"""The moving average of the student, against sums written out."""

import numpy as np
import pytest
import torch
from torch import nn

from fopro_lab.config import TrainConfig
from fopro_lab.data import prepare
from fopro_lab.training import distill
from fopro_lab.training.run_folder import load_checkpoint
from fopro_lab.training.train import Average, build_stage, train_epoch

TINY = {"images": 96, "image_size": 16, "epochs": 2, "batch_size": 16, "prompt_rows": 4,
        "prompt_steps": 1, "device": "cpu"}  # fmt: skip


def tiny(**knobs: object) -> TrainConfig:
    return TrainConfig.from_mapping(TINY | knobs)


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_follows_its_formula(decay):
    norm = nn.BatchNorm1d(2).double()
    average = Average(norm, decay)
    chance = torch.Generator().manual_seed(0)
    expected: dict[str, torch.Tensor] = {}
    for step in range(8):
        with torch.no_grad():
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, name).normal_(generator=chance)
            norm.num_batches_tracked += 3
        average.update(norm, torch.tensor(True))
        average.update(norm, torch.tensor(False))  # a step that was not taken
        share = min(decay, (1 + step) / (10 + step)) if step else 0.0
        for name in ("weight", "bias", "running_mean", "running_var"):
            now = getattr(norm, name).detach().clone()
            expected[name] = share * expected.get(name, 0.0) + (1 - share) * now
    # The share of a step too late is off by over 0.01.
    for name, value in expected.items():
        torch.testing.assert_close(getattr(average.module, name).detach(), value,
                                   rtol=0, atol=1e-12)  # fmt: skip
    assert average.module.num_batches_tracked == norm.num_batches_tracked == 24


def test_the_average_changes_nothing_of_the_training():
    config, averaged = tiny(method="bsm"), tiny(method="bsm", ema_decay=0.9)
    packed, split = prepare(config, progress=False)
    stages = [build_stage(c, packed, split) for c in (config, averaged)]
    losses = [train_epoch(stage, 0)["loss"] for stage in stages]
    assert losses[0] == losses[1]
    plain, kept = (stage.actors.student.state_dict() for stage in stages)
    assert all(torch.equal(plain[name], kept[name]) for name in plain)
    assert int(stages[1].average.steps) == stages[1].batches
    assert not torch.equal(stages[1].judged.classifier.weight, kept["classifier.weight"])
    assert stages[0].judged is stages[0].actors.student


def test_the_average_is_what_is_validated_kept_and_tested(tmp_path):
    run = distill(tiny(method="bsm", ema_decay=0.9), out=tmp_path, verbose=False)
    state = load_checkpoint(tmp_path)
    assert run.manifest["best_epoch"] in (1, 2)
    if run.manifest["best_epoch"] == 2:
        kept = run.student().state_dict()
        for name, value in kept.items():
            assert torch.equal(value, state["average"][f"module.{name}"]), name
    best = state["standing"]["best_student"]
    assert torch.equal(run.student().classifier.weight, best["classifier.weight"])
    plain = distill(tiny(method="bsm"), out=tmp_path / "plain", verbose=False)
    assert not np.array_equal(run.predictions.filter(like="logit_").to_numpy(),
                              plain.predictions.filter(like="logit_").to_numpy())  # fmt: skip
