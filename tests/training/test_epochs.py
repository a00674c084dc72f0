"""What an epoch draws: samplers, mixed images, and the prior that the losses are told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.data import prepare
from fopro_lab.errors import InputError
from fopro_lab.training import distill
from fopro_lab.training.losses import TaskHead, balanced_softmax_loss
from fopro_lab.training.train import Stage, build_stage, drawn_counts, explore_epoch, train_epoch

TINY = {"images": 96, "image_size": 16, "epochs": 2, "batch_size": 16, "prompt_rows": 4,
        "prompt_steps": 1, "device": "cpu"}  # fmt: skip


def tiny(**knobs: object) -> TrainConfig:
    return TrainConfig.from_mapping(TINY | knobs)


def stage_of(config: TrainConfig) -> Stage:
    packed, split = prepare(config, progress=False)
    return build_stage(config, packed, split)


@pytest.mark.parametrize(
    ("sampler", "alpha", "method"),
    [
        ("class-balanced", 0.0, "bsm"),
        ("square-root", 0.0, "ce"),
        ("progressive", 0.0, "ekd"),
        ("instance", 0.2, "ce"),
        ("progressive", 0.2, "fopro"),
    ],
)
def test_training_runs_with_each_sampler(tmp_path, sampler, alpha, method):
    config = tiny(sampler=sampler, mixup_alpha=alpha, method=method, augment_mode="exact")
    run = distill(config, out=tmp_path, verbose=False)
    assert run.state == "done"
    assert np.isfinite(run.history["loss"]).all()


def test_instance_without_mixing_trains_to_the_bits_it_always_did():
    # The loop as it was before there were samplers: shuffled, once each, the class sizes as n.
    config = tiny(method="bsm", augment="none")
    stage, plain = stage_of(config), stage_of(config)
    loss = train_epoch(stage, 1)["loss"]
    state = np.random.SeedSequence([config.seed, 1]).generate_state(1, np.uint64)[0]
    chance = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    rows = plain.rows[torch.randperm(len(plain.rows), generator=chance).numpy()]
    student, optimiser = plain.student.train(), plain.optimiser
    losses = []
    for start in range(0, len(rows) - len(rows) % 16, 16):
        part = rows[start : start + 16]
        pixels = torch.from_numpy(plain.packed.images[part])
        images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255
        labels = torch.from_numpy(plain.packed.labels[part])
        value = balanced_softmax_loss(
            student(images).logits, labels, class_counts=plain.class_counts
        )
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
        optimiser.step()
        losses.append(value.detach())
    assert loss == (sum(losses[1:], losses[0]) / len(losses)).item()
    for name, value in plain.actors.student.state_dict().items():
        assert torch.equal(value, stage.actors.student.state_dict()[name]), name


def test_the_losses_are_told_what_is_drawn():
    stage = stage_of(tiny(method="bsm"))
    counts = stage.class_counts
    classes, total = len(counts), float(counts.sum())

    def told(epoch: int, **knobs: object) -> torch.Tensor:
        return drawn_counts(replace(stage, config=tiny(method="bsm", **knobs)), epoch)

    even = torch.full((classes,), total / classes)
    assert torch.equal(told(0), counts)
    assert torch.equal(told(1), counts)
    torch.testing.assert_close(told(0, sampler="class-balanced"), even)
    roots = counts.sqrt()
    torch.testing.assert_close(told(0, sampler="square-root"), total * roots / roots.sum())
    assert torch.equal(told(0, sampler="progressive"), counts)
    torch.testing.assert_close(told(1, sampler="progressive"), even)
    torch.testing.assert_close(told(0, mixup_alpha=1.0), (counts + even) / 2)


def test_a_balanced_epoch_is_not_corrected_a_second_time(monkeypatch):
    # Uniform counts make balanced softmax plain cross-entropy.
    losses = []
    for method in ("bsm", "ce"):
        config = tiny(method=method, sampler="class-balanced", epochs=1)
        losses.append(train_epoch(stage_of(config), 0)["loss"])
    # 1e-5: adding one number to all logits; the class sizes as counts differ by over 0.05.
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    import fopro_lab.training.train as epochs

    monkeypatch.setattr(epochs, "drawn_counts", lambda stage, epoch: stage.class_counts)
    config = tiny(method="bsm", sampler="class-balanced", epochs=1)
    assert abs(train_epoch(stage_of(config), 0)["loss"] - losses[1]) > 0.05


def test_mixed_labels_enter_the_balanced_softmax_as_two_losses():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([9.0, 5.0, 3.0, 1.0])
    shares = torch.tensor([[0.7, 0.3, 0, 0], [0, 1.0, 0, 0], [0, 0, 0.5, 0.5]])
    each = [
        [balanced_softmax_loss(logits[i : i + 1], torch.tensor([k]), class_counts=counts)
         for k in range(4)] for i in range(3)
    ]  # fmt: skip
    expected = sum(float(shares[i, k] * each[i][k]) for i in range(3) for k in range(4)) / 3
    found = balanced_softmax_loss(logits, shares, class_counts=counts)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_a_class_without_images_is_told_before_the_first_step():
    stage = stage_of(tiny(method="bsm"))
    counts = stage.class_counts.clone()
    counts[2] = 0
    with pytest.raises(InputError, match=r"1 or more a class, got 0 for classes \[2\]"):
        train_epoch(replace(stage, class_counts=counts), 0)


def test_in_bfloat16_the_task_head_answers_by_the_weights_it_has(monkeypatch):
    """Autocast keeps a cast of what is trained: an exploration must not go on with its first."""
    forward, apart = TaskHead.forward, []

    def compared(head, features):
        answer = forward(head, features)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            expected = forward(head, features.float())
            apart.append(float((answer.float() - expected).abs().max()))
        return answer

    monkeypatch.setattr(TaskHead, "forward", compared)
    config = tiny(
        method="fopro",
        precision="bf16-mixed",
        objectives={"task": 1.0},
        prompt_steps=20,
        prompt_learning_rate=0.05,
    )
    explore_epoch(stage_of(config), 0)
    assert len(apart) >= 20
    # Rounding to 8 bits of logits of about 3; with the first weights it is off by over 0.3.
    assert max(apart) < 0.05
