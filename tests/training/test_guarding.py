"""Guard rails: what is skipped leaves no trace, what is too large is told with what fits."""

import errno
import importlib
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import fopro_lab.training.train as epochs
from fopro_lab.config import TrainConfig
from fopro_lab.data import batches, paired_batches, prepare
from fopro_lab.errors import WorkError
from fopro_lab.training import distill
from fopro_lab.training import run_folder as checkpoints
from fopro_lab.training.train import build_stage, deterministic, fitting_size

TINY = {"images": 150, "image_size": 16, "epochs": 2, "batch_size": 16, "prompt_steps": 2,
        "prompt_every": 1, "prompt_rows": 4, "device": "cpu"}  # fmt: skip


def tiny(**knobs: object) -> TrainConfig:
    return TrainConfig.from_mapping(TINY | knobs)


def stage_of(**knobs: object):
    config = tiny(method="bsm", **knobs)
    return build_stage(config, *prepare(config, progress=False))


def break_steps(monkeypatch, numbers, *, how: str = "pixels") -> None:
    """Let some batches, counted from 0 over a run, be not finite."""
    losses, count = epochs.batch_losses, [-1]

    def broken(stage, images, labels, noise):
        count[0] += 1
        if count[0] not in numbers:
            return losses(stage, images, labels, noise)
        if how == "pixels":  # as a damaged image: the batch norms see it, too
            return losses(stage, images * float("nan"), labels, noise)
        values = losses(stage, images, labels, noise)  # a finite loss, whose gradient is not
        zero = torch.zeros((), requires_grad=True)
        weight = next(stage.student.parameters())
        return (values[0] + (weight.sum() * 0 + zero).sqrt(), *values[1:])

    monkeypatch.setattr(epochs, "batch_losses", broken)


def everything(stage) -> dict[str, torch.Tensor]:
    """All numbers that a step changes."""
    found = {f"student.{k}": v for k, v in stage.actors.student.state_dict().items()}
    found |= {f"average.{k}": v for k, v in stage.average.state_dict().items()}
    for place, moments in stage.optimiser.state_dict()["state"].items():
        found |= {f"{place}.{name}": value for name, value in moments.items()}
    return {name: torch.as_tensor(value).clone() for name, value in found.items()}


@pytest.mark.parametrize("how", ["pixels", "gradient"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_skipped_step_leaves_no_trace(monkeypatch, how, place):
    knobs = {"ema_decay": 0.9, "schedule": "cosine", "lr_warmup": 0.4}
    stage = stage_of(**knobs)
    states, skipped, rates = [], [], []

    def keep(_):
        states.append(everything(stage))
        rates.append(stage.optimiser.param_groups[0]["lr"])

    break_steps(monkeypatch, {place}, how=how)
    means = epochs.train_epoch(stage, 0, pause=keep, skip=skipped.append)
    keep(None)  # the last step is not paused behind
    assert [(s.epoch, s.batch, s.broken) for s in skipped] == [
        (0, place, "loss" if how == "pixels" else "gradient")
    ]
    assert np.isfinite(list(means.values())).all()
    before = states[place - 1] if place else everything(stage_of(**knobs))
    for name, value in before.items():
        assert torch.equal(states[place][name], value), name
    assert all(torch.isfinite(value).all() for value in everything(stage).values())
    # The rate goes on as if nothing had been: it depends on the number of steps alone.
    plain = stage_of(**knobs)
    planned = []
    monkeypatch.undo()
    group = plain.optimiser.param_groups[0]
    epochs.train_epoch(plain, 0, pause=lambda _: planned.append(group["lr"]))
    assert rates[:4] == planned


def test_skipped_losses_are_left_out_of_the_means(monkeypatch):
    stage, plain = stage_of(), stage_of()
    break_steps(monkeypatch, {0, 1, 2, 3})
    found = epochs.train_epoch(stage, 0)["loss"]
    monkeypatch.undo()
    # Only the last batch counts, seen by the student as it was built.
    drawn = list(epochs._drawn_batches(plain, 0, 4))
    plain.student.train()
    expected = epochs.batch_losses(plain, *drawn[0], None)[0]
    assert found == pytest.approx(float(expected.detach()), abs=1e-6)


def test_the_images_of_a_skipped_step_are_written_down(tmp_path, monkeypatch):
    config = tiny(method="bsm", augment="none", accumulate=2)
    break_steps(monkeypatch, {3})  # in the second step, whose batches are 3 and 4
    run = distill(config, out=tmp_path, verbose=False)
    assert run.state == "done" and list(run.history["skipped"]) == [1, 0]
    table = pd.read_csv(tmp_path / "skipped.csv")
    packed, split = prepare(config, progress=False)
    drawn = list(batches(packed, split.train, batch_size=16, shuffle=True, drop_last=True))
    labels = torch.cat([labels for _, labels in drawn[2:4]]).tolist()
    assert len(table) == 32 and set(table["epoch"]) == {1} and set(table["batch"]) == {3}
    by_name = packed.dataset.table.astype({"image": str}).set_index("image")["label"]
    assert list(by_name[table["image"].astype(str)]) == labels


def test_past_the_bound_a_run_stops_and_its_last_good_checkpoint_is_kept(tmp_path, monkeypatch):
    config = tiny(method="bsm", max_skipped=1, checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        break_steps(patch, {6, 8})  # the second epoch's second and fourth
        with pytest.raises(WorkError) as caught:
            distill(config, out=tmp_path / "run", verbose=False)
    table = tmp_path / "run/skipped.csv"
    assert str(caught.value) == (
        "training: 2 steps of epoch 2 were not finite, more than max_skipped = 1; "
        f"{table} names their images; lower learning_rate (now 0.0003)"
    )
    assert list(pd.read_csv(table)["batch"].unique()) == [2, 4]
    state = checkpoints.load_checkpoint(tmp_path / "run")
    assert (state["standing"]["epoch"], state["standing"]["position"]["batch"]) == (1, 3)
    for value in state["actors"]["student"].values():
        assert torch.isfinite(value).all()
    assert json.loads((tmp_path / "run/manifest.json").read_text())["state"] == "failed"
    # What was broken was the machine: the run goes on.
    assert distill(config, out=tmp_path / "run", verbose=False).state == "done"


@pytest.mark.parametrize(("method", "accumulate"), [("bsm", 1), ("fopro", 1), ("bsm", 3)])
def test_memory_that_is_short_is_told_with_what_fits(tmp_path, monkeypatch, method, accumulate):
    losses, explore = epochs.batch_losses, epochs.explore
    tried = []

    def hungry(stage, images, labels, noise):
        tried.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return losses(stage, images, labels, noise)

    def also_hungry(prompt, teacher, endless, **how):
        images, labels = next(endless)
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return explore(prompt, teacher, iter([(images, labels)]), **how)

    monkeypatch.setattr(epochs, "batch_losses", hungry)
    if method == "fopro":
        monkeypatch.setattr(epochs, "explore", also_hungry)
    with pytest.raises(WorkError) as caught:
        distill(tiny(method=method, accumulate=accumulate), out=tmp_path, verbose=False)
    size, times = (4, 4) if method == "bsm" else (2, 8)
    assert str(caught.value) == (
        f"out of GPU memory with batch_size = 16; batch_size={size} "
        f"accumulate={times * accumulate} fits"
    )
    assert tried == ([16, 8, 4] if method == "bsm" else [2])


def test_halves_are_tried_until_one_fits():
    def attempt(bound):
        def tried(size):
            if size > bound:
                raise torch.OutOfMemoryError

        return tried

    assert [fitting_size(attempt(b), below=48) for b in (24, 23, 6, 3, 2, 1)] == [
        24,
        12,
        6,
        3,
        0,
        0,
    ]


def test_a_disk_that_fills_up_within_an_epoch_stops_a_run_that_can_go_on(tmp_path, monkeypatch):
    config = tiny(method="ekd", checkpoint_minutes=1e-9)
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    sync, left = os.fsync, [6]

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkError, match="the disk is full; free some space and start again"):
            distill(config, out=tmp_path / "run", verbose=False)
    state = checkpoints.load_checkpoint(tmp_path / "run")
    assert state["standing"]["position"]["batch"] == 4
    found = distill(config, out=tmp_path / "run", verbose=False)
    np.testing.assert_array_equal(
        found.predictions.filter(like="logit_"), whole.predictions.filter(like="logit_")
    )


def test_the_deterministic_mode_is_on_within_and_as_before_behind(tmp_path, monkeypatch):
    seen = []
    train = epochs.train_epoch
    module = importlib.import_module("fopro_lab.training.train")  # the function has its name

    def looked(*args, **how):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return train(*args, **how)

    monkeypatch.setattr(module, "train_epoch", looked)
    for wanted in (False, True):
        config = tiny(epochs=1, deterministic=wanted)
        run = distill(config, out=tmp_path / str(wanted), verbose=False)
        assert run.config["deterministic"] is wanted
    assert seen == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_deterministic_form_is_told():
    with pytest.raises(WorkError) as caught:
        with deterministic(True):
            raise RuntimeError("f_cuda does not have a deterministic implementation. Set ...")
    assert str(caught.value) == (
        "deterministic: f_cuda does not have a deterministic implementation; use device=cpu or "
        "deterministic=false"
    )
    with pytest.raises(RuntimeError, match=r"^other$"):
        with deterministic(True):
            raise RuntimeError("other")
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_order_of_a_pass_is_that_of_its_batches():
    stage = stage_of(sampler="progressive")
    stage = replace(stage, config=tiny(method="bsm", sampler="progressive", augment="none"))
    for epoch in (0, 1):
        drawn = [labels for _, labels in epochs._drawn_batches(stage, epoch, 1)]
        rows = epochs._drawn_rows(stage, epoch, 1, 4)
        assert torch.cat(drawn).tolist() == stage.packed.labels[rows].tolist()


def test_the_partners_of_mixed_images_are_named_behind_them():
    config = tiny(method="bsm", mixup_alpha=0.3, augment="none")
    stage = build_stage(config, *prepare(config, progress=False))
    options = {**epochs._drawing(stage, 1), "start_batch": 2}
    pairs = list(paired_batches(stage.packed, stage.rows, alpha=0.3, **options))[:2]
    own, partners = (
        torch.cat([getattr(pair, name) for pair in pairs]) for name in ("images", "partners")
    )
    rows = epochs._drawn_rows(stage, 1, 2, 2)
    found = torch.stack([stage.packed[row][0] for row in rows])
    assert torch.equal(found, torch.cat([own, partners]))
