"""What a log is told within an epoch, with a clock of our own."""

import pytest

from fopro_lab.config import TrainConfig
from fopro_lab.training import distill
from fopro_lab.training import train as telling
from fopro_lab.training.train import Teller


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    return now


def teller(clock, **how):
    config = TrainConfig(method="bsm", epochs=3)
    return Teller(config, begun=clock[0], **how)


def test_a_long_epoch_gets_a_line_every_fifteen_seconds(clock, capsys):
    told = teller(clock)
    for _ in told.watch(range(10), epoch=1, total=12, what="batch", done=2):
        clock[0] += 6.0
    assert capsys.readouterr().err.splitlines() == [
        "bsm seed 0: epoch 2 of 3, batch 5 of 12",
        "bsm seed 0: epoch 2 of 3, batch 8 of 12",
        "bsm seed 0: epoch 2 of 3, batch 11 of 12",
    ]


def test_the_limit_holds_over_the_parts_of_a_run(clock, capsys):
    told = teller(clock)
    for epoch in range(3):
        for what in ("prompt step", "batch"):
            for _ in told.watch(range(2), epoch=epoch, total=2, what=what):
                clock[0] += 2.0  # eight seconds an epoch
        told.end_epoch(epoch, "well", last=epoch == 2)
    assert capsys.readouterr().err.splitlines() == [
        "bsm seed 0: epoch 1 of 3, well",
        "bsm seed 0: epoch 3 of 3, well",
    ]


def test_a_long_epochs_end_is_told_even_behind_a_line_from_within(clock, capsys):
    told = teller(clock)
    for epoch in (0, 1):
        for _ in told.watch(range(2), epoch=epoch, total=2, what="batch"):
            clock[0] += 16.0
        told.end_epoch(epoch, "well", last=False)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[1] for line in lines] == ["batch 1 of 2", "well"] * 2


def test_silence_is_silence(clock, capsys):
    told = teller(clock, verbose=False)
    for _ in told.watch(range(2), epoch=0, total=2, what="batch"):
        clock[0] += 60.0
    told.end_epoch(0, "well", last=True)
    assert capsys.readouterr().err == ""


def test_a_run_tells_of_its_prompt_steps_and_batches(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(telling, "LINE_SECONDS", 0.0)
    knobs = {"images": 96, "image_size": 16, "epochs": 1, "batch_size": 16, "prompt_rows": 4}
    distill(TrainConfig(**knobs, prompt_steps=3), out=tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch 1 of 1, " in line]
    told = [line.split(", ")[1] for line in lines]
    assert told[:4] == ["prompt step 1 of 3", "prompt step 2 of 3", "batch 1 of 3", "batch 2 of 3"]
    assert told[4].startswith("loss ") and len(told) == 5
