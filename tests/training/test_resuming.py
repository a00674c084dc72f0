"""Stopped between any two steps, started again: the bits of a run that was never stopped."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fopro_lab.config import TrainConfig
from fopro_lab.data import prepare
from fopro_lab.training import distill
from fopro_lab.training import run_folder as checkpoints
from fopro_lab.training import train as saving
from fopro_lab.training.train import Position, Standing, build_stage

TINY = {
    "images": 150,
    "image_size": 16,
    "epochs": 2,
    "batch_size": 16,
    "prompt_steps": 2,
    "prompt_every": 1,
    "prompt_rows": 4,
    "device": "cpu",
    "checkpoint_minutes": 1e-9,  # after every step
}
EVERYTHING = {
    "optimiser": "sgd",
    "schedule": "cosine",
    "lr_warmup": 0.5,
    "ema_decay": 0.9,
    "accumulate": 2,
    "label_smoothing": 0.1,
    "sampler": "progressive",
    "mixup_alpha": 0.2,
    "augment_mode": "exact",
}


def tiny(**knobs: object) -> TrainConfig:
    return TrainConfig.from_mapping(TINY | knobs)


def assert_same(found, whole) -> None:
    names = [name for name in whole.predictions if name.startswith("logit_")]
    np.testing.assert_array_equal(found.predictions[names], whole.predictions[names])
    for file in ("student.safetensors", "prompt.safetensors"):
        if (whole.path / file).exists():
            weights = [load_file(run.path / file) for run in (found, whole)]
            for name, value in weights[1].items():
                assert torch.equal(weights[0][name], value), (file, name)
    pd.testing.assert_frame_equal(
        found.history.drop(columns="seconds"), whole.history.drop(columns="seconds")
    )
    if (whole.path / "exploration.csv").exists():
        tables = [(run.path / "exploration.csv").read_bytes() for run in (found, whole)]
        assert tables[0] == tables[1]
    states = [checkpoints.load_checkpoint(run.path) for run in (found, whole)]
    for name, value in states[1]["actors"]["student"].items():
        assert torch.equal(states[0]["actors"]["student"][name], value), name


def stop_after(monkeypatch, saves: int) -> None:
    """Let a run write some checkpoints, and then none any more."""
    save, left = checkpoints.save_checkpoint, [saves]

    def stopping(folder, state):
        save(folder, state)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(saving, "save_checkpoint", stopping)


@pytest.mark.parametrize(
    "knobs",
    [
        {"method": "bsm"},
        {"method": "fopro"},
        {"method": "random", "random_gains": "per-image", "objectives": {"statistics": 1.0}},
        {"method": "ekd", **EVERYTHING},
        {"method": "fopro", **EVERYTHING, "checkpoint_epochs": 2, "optimiser": "adamw"},
        {"method": "bsm", "schedule": "multi-step", "lr_milestones": [1], "lr_warmup": 0.4},
    ],
    ids=lambda knobs: f"{knobs['method']}-{len(knobs)}",
)
def test_a_run_stopped_after_every_checkpoint_ends_with_the_same_bits(tmp_path, monkeypatch, knobs):
    config = tiny(**knobs)
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    stops = 0
    while True:
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            try:
                found = distill(config, out=tmp_path / "stopped", verbose=False)
                break
            except KeyboardInterrupt:
                stops += 1
    # Five batches an epoch: a stop before the first of them, behind every step, and at the end.
    steps = -(-5 // config.accumulate)
    assert stops == 2 * (steps + 1) - (config.checkpoint_epochs == 2)
    assert_same(found, whole)


def test_an_exploration_that_is_cut_is_repeated_to_the_same_bits(tmp_path, monkeypatch):
    import fopro_lab.training.train as epochs

    config = tiny(method="fopro", prompt_steps=4, checkpoint_minutes=0)
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    explore, calls = epochs.explore, []

    def cut(prompt, teacher, endless, **how):
        calls.append(1)
        if len(calls) == 2:
            explore(prompt, teacher, endless, **{**how, "steps": 2})
            raise KeyboardInterrupt
        return explore(prompt, teacher, endless, **how)

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "explore", cut)
        with pytest.raises(KeyboardInterrupt):
            distill(config, out=tmp_path / "stopped", verbose=False)
    assert_same(distill(config, out=tmp_path / "stopped", verbose=False), whole)


def test_a_damaged_checkpoint_costs_only_the_way_from_the_one_before(tmp_path, monkeypatch, capsys):
    config = tiny(method="ekd", ema_decay=0.9)
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            distill(config, out=tmp_path / "stopped", verbose=False)
    path = tmp_path / "stopped" / checkpoints.FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    (tmp_path / "stopped/checkpoint/.next.pt.x1y2.part").write_bytes(b"half")  # as a kill leaves
    found = distill(config, out=tmp_path / "stopped", verbose=False)
    assert "last.pt: damaged checkpoint, put aside; going on from" in capsys.readouterr().err
    assert_same(found, whole)
    assert [path.name for path in (found.path / "checkpoint").iterdir()] == ["last.pt"]


def test_checkpoints_by_the_clock_and_by_epochs(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        saving,
        "save_checkpoint",
        lambda folder, state: written.append(
            (state["standing"]["epoch"], (state["standing"]["position"] or {}).get("batch"))
        ),
    )

    def places(**knobs):
        written.clear()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        distill(tiny(method="bsm", epochs=3, **knobs), out=folder, verbose=False)
        return list(written)

    assert places(checkpoint_minutes=0) == [(1, None), (2, None), (3, None)]
    assert places(checkpoint_minutes=60) == [(1, None), (2, None), (3, None)]
    assert places(checkpoint_minutes=0, checkpoint_epochs=2) == [(2, None), (3, None)]
    assert places(accumulate=2)[:4] == [(0, 0), (0, 2), (0, 4), (1, None)]


def test_the_clock_starts_anew_with_every_checkpoint(tmp_path, monkeypatch):
    clock, written = [1000.0], []
    monkeypatch.setattr(saving.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(saving, "save_checkpoint", lambda *_: written.append(clock[0]))
    config = tiny(method="bsm", checkpoint_minutes=1.0)
    stage = build_stage(config, *prepare(config, progress=False))
    saver = saving.Saver(stage, Standing(), tmp_path, saved=clock[0])
    position = Position.begin(config, 0)
    for clock[0] in (1059.0, 1060.0, 1119.0, 1121.0):
        saver.within_epoch(position)
    assert written == [1060.0, 1121.0]
    clock[0] = 1150.0
    saver.standing.epoch = 1
    saver.after_epoch()
    clock[0] = 1209.0
    saver.within_epoch(position)
    assert written == [1060.0, 1121.0, 1150.0]


def test_checkpoints_are_no_part_of_what_a_run_is(tmp_path):
    config = tiny(method="bsm", epochs=1)
    first = distill(config, out=tmp_path, verbose=False)
    assert "checkpoint_minutes" not in first.config
    again = distill(tiny(method="bsm", epochs=1, checkpoint_minutes=5), out=tmp_path, verbose=False)
    assert again.manifest == first.manifest
