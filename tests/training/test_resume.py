"""Stopped at any moment and started again: the bits of an uninterrupted run."""

import errno
import hashlib
import json
import os
import random
import re
import signal
import time
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fopro_lab.config import TrainConfig
from fopro_lab.errors import WorkError
from fopro_lab.evaluation import Run
from fopro_lab.evaluation.runs import MAPS_FILE
from fopro_lab.io import write_json
from fopro_lab.training import TrainedRun, distill, run_folder
from fopro_lab.training.run_folder import CHECKPOINT, PREVIOUS, load_checkpoint, save_checkpoint
from tests.conftest import refuses
from tests.training.forked import TINY, start

TINY = TINY | {"epochs": 2}  # a stop between them, and one before the test
EVERYTHING = {"optimiser": "sgd", "schedule": "cosine", "lr_warmup": 0.5, "ema_decay": 0.9,
              "accumulate": 2, "label_smoothing": 0.1, "sampler": "progressive",
              "mixup_alpha": 0.2, "augment_mode": "exact"}  # fmt: skip


def assert_same(found, whole) -> None:
    assert found.predictions.equals(whole.predictions)
    for file in ("student.safetensors", "prompt.safetensors", "probe.safetensors", MAPS_FILE):
        if (whole.path / file).exists():
            weights = [load_file(run.path / file) for run in (found, whole)]
            for name, value in weights[1].items():
                assert torch.equal(weights[0][name], value), (file, name)
    histories = [run.history.drop(columns=["seconds", "cpu_seconds"]) for run in (found, whole)]
    pd.testing.assert_frame_equal(*histories)
    if (whole.path / "exploration.csv").exists():
        tables = [(run.path / "exploration.csv").read_bytes() for run in (found, whole)]
        assert tables[0] == tables[1]
    states = [load_checkpoint(run.path) for run in (found, whole)]
    for name, value in states[1]["student"].items():
        assert torch.equal(states[0]["student"][name], value), name


def stop_after(monkeypatch, saves: int) -> None:
    """Let a run write some checkpoints, and then stop it."""
    save, left = run_folder.save_checkpoint, [saves]

    def stopping(folder, state):
        save(folder, state)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "save_checkpoint", stopping)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "fopro"},
        {"method": "random", "objectives": {"statistics": 1.0}},
        {"method": "ekd", **EVERYTHING},
        {"method": "bsm", "distillation": "kd", "schedule": "constant", "lr_warmup": 0.4},
        {"method": "ekd", "distillation": "fitnet", "prompt": "vptta", "ema_decay": 0.9},
    ],
    ids=lambda options: f"{TrainConfig(**options).parts.label}-{len(options)}",
)
def test_a_run_stopped_after_every_epoch_ends_with_the_same_bits(tmp_path, monkeypatch, options):
    config = TrainConfig(**TINY | options)
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
                assert Run.read(tmp_path / "stopped").state == "running"
    assert stops == 2  # the last one before the test
    assert_same(found, whole)


def test_a_damaged_checkpoint_costs_one_epoch(tmp_path, monkeypatch, capsys):
    config = TrainConfig(**TINY, method="ekd", ema_decay=0.9)
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            distill(config, out=tmp_path / "stopped", verbose=False)
    path = tmp_path / "stopped" / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    found = distill(config, out=tmp_path / "stopped", verbose=False)
    told = capsys.readouterr().err
    assert "checkpoint.pt: damaged checkpoint; resuming from the one before" in told
    assert_same(found, whole)
    assert not (found.path / PREVIOUS).exists()


def test_a_full_disk_keeps_the_epochs_before(tmp_path, monkeypatch):
    config = TrainConfig(**TINY, method="bsm")
    whole = distill(config, out=tmp_path / "whole", verbose=False)

    def full(folder, state):
        if state["epoch"] == 2:
            patch.setattr("os.fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
        save_checkpoint(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "save_checkpoint", full)
        with pytest.raises(WorkError, match=r"the disk is full; free some space and start again"):
            distill(config, out=tmp_path / "run", verbose=False)
    state = load_checkpoint(tmp_path / "run")
    assert state is not None and state["epoch"] == 1
    assert not list(tmp_path.rglob("*.part"))
    assert_same(distill(config, out=tmp_path / "run", verbose=False), whole)


@pytest.mark.parametrize("place", [0, 40, "middle", -1, "cut", "empty"])
def test_a_damaged_state_is_passed_over_and_never_becomes_the_previous_one(tmp_path, place):
    for epoch in (1, 2):
        save_checkpoint(tmp_path, {"epoch": epoch, "student": {"weight": torch.arange(6.0)}})
    path = tmp_path / CHECKPOINT
    content = bytearray(path.read_bytes())
    if place in ("cut", "empty"):
        path.write_bytes(content[: len(content) // 2] if place == "cut" else b"")
    else:
        weight = content.index(torch.tensor([3.0]).numpy().tobytes())
        content[weight if place == "middle" else place] ^= 1
        path.write_bytes(content)
    assert load_checkpoint(tmp_path)["epoch"] == 1
    save_checkpoint(tmp_path, {"epoch": 3})
    (tmp_path / CHECKPOINT).unlink()
    assert load_checkpoint(tmp_path)["epoch"] == 1  # not the damaged one


def test_if_all_are_damaged_it_is_said_and_no_code_is_run(tmp_path):
    target = tmp_path / "it_ran"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(target),)

    torch.save({"epoch": Bomb()}, tmp_path / CHECKPOINT)
    refuses(r"checkpoint\.pt: damaged checkpoint; remove .* to start", load_checkpoint, tmp_path)
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(hashlib.sha256(content).digest() + content)
    refuses(r"checkpoint\.pt: damaged checkpoint; remove .* to start", load_checkpoint, tmp_path)
    assert not target.exists()


def test_a_folder_in_the_place_of_a_checkpoint_is_one_line(tmp_path):
    for epoch in (1, 2):
        save_checkpoint(tmp_path, {"epoch": epoch})
    (tmp_path / CHECKPOINT).unlink()
    (tmp_path / CHECKPOINT).mkdir()
    refuses(r"checkpoint\.pt: expected a file, got a folder", load_checkpoint, tmp_path)


def test_an_old_run_with_an_option_that_is_gone_opens_and_is_not_continued_as_another(
    tmp_path, monkeypatch
):
    config = TrainConfig(**TINY, method="bsm")
    run = distill(config, out=tmp_path, verbose=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["config"] |= {"lr_milestones": [1], "decoder": "draft", "max_skipped": 3}
    write_json(tmp_path / "manifest.json", manifest)
    old, images = TrainedRun.read(tmp_path), torch.rand(2, 3, 16, 16)
    assert torch.equal(old.student().classify(images), run.student().classify(images))
    monkeypatch.setattr("fopro_lab.training.setup.prepare_images", Mock(side_effect=AssertionError))
    rule = r"another config \(decoder: 'draft' there, 'exact' here, lr_milestones: \[1\] there, "
    refuses(rule, distill, config, out=tmp_path, verbose=False)


def test_a_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch):
    others = ({}, {"seed": 1}, {"learning_rate": 0.1}, {"split_seed": 1})
    mine, *configs = (TrainConfig(**TINY, method="bsm", **other) for other in others)
    for number, config in enumerate((mine, *configs)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after(patch, 1)
            distill(config, out=tmp_path / f"{number}", verbose=False)
    for number, other in enumerate(others[1:], start=1):
        (tmp_path / f"{number}" / CHECKPOINT).replace(tmp_path / "0" / CHECKPOINT)
        rule = rf"checkpoint\.pt: is of another run, with another {next(iter(other))}.*; remove it"
        refuses(rule, distill, mine, out=tmp_path / "0", verbose=False)


def test_a_finished_run_with_a_lost_or_damaged_file_is_made_whole_again(tmp_path, capsys):
    config = TrainConfig(**TINY, method="fopro")
    run = distill(config, out=tmp_path, verbose=False)
    known = run.manifest["files"]
    assert {"student.safetensors", "prompt.safetensors", "history.csv"} < known.keys()
    for number, name in enumerate(known):
        path = tmp_path / name
        content = path.read_bytes()
        if number % 2:
            path.unlink()
        else:
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        if name.startswith(("student", "prompt")):
            refuses(rf"{name}: gone or not as", Run.read(tmp_path).file, name)
        capsys.readouterr()
        again = distill(config, out=tmp_path, verbose=False)
        assert f"gone or damaged: {name}; made again" in capsys.readouterr().err
        assert again.state == "done" and again.manifest["files"] == known
    (tmp_path / CHECKPOINT).unlink()
    (tmp_path / "history.csv").write_text("garbage")
    refuses("history.csv, and no checkpoint", distill, config, out=tmp_path, verbose=False)


def test_a_checkpoint_that_lacks_a_part_or_has_an_odd_one_is_refused(tmp_path, monkeypatch):
    config = TrainConfig(**TINY | EVERYTHING, method="fopro")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 1)
        distill(config, out=tmp_path, verbose=False)
    whole = load_checkpoint(tmp_path)
    for name in ("student", "optimiser", "schedule", "prompt", "epoch", "history", "best_student"):
        for damaged in ({n: v for n, v in whole.items() if n != name}, whole | {name: "text"}):
            save_checkpoint(tmp_path, damaged)
            refuses(r"checkpoint\.pt: does not fit", distill, config, out=tmp_path, verbose=False)
    for odd in ({"epoch": -5}, {"epoch": 2}, {"best_epoch": 7}, {"history": []}):
        save_checkpoint(tmp_path, whole | odd)
        refuses(r"checkpoint\.pt: does not fit", distill, config, out=tmp_path, verbose=False)
    later = ("identity", "control", "best_control", "probe", "probe_score")
    save_checkpoint(tmp_path, {n: v for n, v in whole.items() if n not in later})
    assert distill(config, out=tmp_path, verbose=False).state == "done"


def test_a_run_goes_on_with_another_number_of_threads_and_says_so(tmp_path, monkeypatch, capsys):
    config = TrainConfig(**TINY | {"threads": 1}, method="fopro")
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 1)
        distill(config, out=tmp_path / "run", verbose=False)
    capsys.readouterr()
    found = distill(config.model_copy(update={"threads": 2}), out=tmp_path / "run")
    told = capsys.readouterr().err
    assert re.search(r"changed device \(cpu .*1 threads\), now cpu .*2 threads\)\)", told)
    assert "1 threads" in found.manifest["earlier"][0]["device"]
    assert "2 threads" in found.manifest["device"]
    here, there = (run.predictions.filter(like="logit").to_numpy() for run in (found, whole))
    assert here.size and abs(here - there).max() < 1e-3  # 0.1 and more with another seed


OPTIONS = TINY | EVERYTHING | {"method": "fopro", "epochs": 4, "batch_size": 8}
OPTIONS |= {"optimiser": "adamw", "threads": 1}


def distilled(folder: Path):
    return distill(TrainConfig.from_mapping(OPTIONS), out=folder, verbose=False)


@pytest.mark.parametrize(
    "kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.nightly)]
)
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path, kills):
    chance, hit, number = random.Random(time.time_ns()), 0, 0
    start(tmp_path / "whole", OPTIONS)[0].join(timeout=300)
    length = Run.read(tmp_path / "whole").manifest["wall_seconds"]
    while hit < kills:
        (process,) = start(tmp_path / str(number), OPTIONS)
        process.join(timeout=chance.uniform(0, length))
        process.kill()
        process.join()
        hit += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:  # it was done before: the next kill meets a new run
            assert_same(distilled(tmp_path / str(number)), distilled(tmp_path / "whole"))
            number += 1
    start(tmp_path / str(number), OPTIONS)[0].join(timeout=300)
    assert_same(Run.read(tmp_path / str(number)), distilled(tmp_path / "whole"))
