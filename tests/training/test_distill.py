"""Training as a whole: methods, resume, selection, one test, run folders."""

import importlib
import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from fopro_lab.config import TrainConfig
from fopro_lab.data import open_from, pack, split_from
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import balanced_accuracy, load_runs
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import distill, run_name
from fopro_lab.training import train as saving
from fopro_lab.training.run_folder import load_checkpoint
from fopro_lab.training.train import predict

module = importlib.import_module("fopro_lab.training.train")  # the function has its name

TINY = {
    "images": 96,
    "image_size": 24,
    "epochs": 2,
    "batch_size": 16,
    "prompt_steps": 2,
    "prompt_every": 1,
    "prompt_rows": 4,
}


def tiny(**knobs: object) -> TrainConfig:
    return TrainConfig.from_mapping(TINY | knobs)


def logits(run) -> np.ndarray:
    table = run.predictions
    return table[[name for name in table if name.startswith("logit_")]].to_numpy()


@pytest.mark.parametrize("method", ["ce", "bsm", "ekd", "fopro", "random"])
def test_distill_leaves_a_whole_run_folder(tmp_path, method):
    run = distill(tiny(method=method), out=tmp_path / "run", verbose=False)
    assert run.state == "done"
    assert list(run.history["epoch"]) == [1, 2]
    assert np.isfinite(run.history["loss"]).all()
    assert set(run.predictions["split"]) == {"val", "test"}
    assert (run.manifest["teacher"] is None) == (method in ("ce", "bsm"))
    assert (tmp_path / "run/prompt.safetensors").exists() == (method in ("fopro", "random"))
    assert not list(tmp_path.rglob("*.part"))
    assert [found.method for found in load_runs(tmp_path)] == [method]


def test_the_ekd_history_adds_up_to_the_published_loss(tmp_path):
    run = distill(tiny(method="ekd", distill_weight=2.5), out=tmp_path, verbose=False)
    h = run.history
    parts = h["loss_classes"] + h["loss_second"] + 2.5 * h["loss_distill"]
    # float32 means of a few batches; a missing factor of lambda would be off by over 1
    np.testing.assert_allclose(h["loss"], parts, rtol=1e-5)


def test_the_same_config_returns_the_run_and_trains_nothing(tmp_path, monkeypatch):
    first = distill(tiny(method="bsm"), out=tmp_path, verbose=False)
    stamp = (tmp_path / "student.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(module, "train_epoch", None)  # would fail if called
    again = distill(tiny(method="bsm", threads=1), out=tmp_path, verbose=False)
    assert again.manifest == first.manifest
    assert (tmp_path / "student.safetensors").stat().st_mtime_ns == stamp


def test_a_different_config_never_overwrites(tmp_path):
    distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)
    with pytest.raises(
        InputError, match=r"holds a run of another config \(epochs: 1 there, 2 here"
    ):
        distill(tiny(method="bsm"), out=tmp_path, verbose=False)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"expected an empty or a new folder, got one with thesis"):
        distill(tiny(method="bsm"), out=tmp_path, verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("method", ["ekd", "fopro"])
@pytest.mark.parametrize("when", ["in the second epoch", "before the test"])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, monkeypatch, method, when):
    config = tiny(method=method)
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    train_epoch = module.train_epoch

    def stop_in_second(stage, epoch, **how):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(stage, epoch, **how)

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "in the second epoch":
            patch.setattr(module, "train_epoch", stop_in_second)
        else:
            patch.setattr(module, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            distill(config, out=tmp_path / "stopped", verbose=False)
    manifest = json.loads((tmp_path / "stopped/manifest.json").read_text())
    assert manifest["state"] == "running"
    assert not (tmp_path / "stopped/predictions.parquet").exists()
    resumed = distill(config, out=tmp_path / "stopped", verbose=False)
    np.testing.assert_array_equal(logits(resumed), logits(whole))
    for name, value in whole.student().state_dict().items():
        assert torch.equal(value, resumed.student().state_dict()[name]), name
    columns = ["epoch", "loss", "val_balanced_accuracy"]
    pd.testing.assert_frame_equal(resumed.history[columns], whole.history[columns])


def test_the_best_epoch_is_chosen_on_validation_and_kept(tmp_path):
    config = tiny(method="bsm", epochs=4, learning_rate=0.01)
    run = distill(config, out=tmp_path, verbose=False)
    scores = run.history["val_balanced_accuracy"]
    assert run.manifest["best_epoch"] == scores.idxmax() + 1
    val = run.predictions[run.predictions["split"] == "val"]
    names = [name for name in val if name.startswith("logit_")]
    kept = balanced_accuracy(val["label"].to_numpy(), val[names].to_numpy().argmax(axis=1))
    assert kept == pytest.approx(scores.max(), abs=1e-12)


def test_the_run_gives_back_the_student_that_was_tested(tmp_path):
    config = tiny(method="ekd")
    run = distill(config, out=tmp_path, verbose=False)
    dataset = open_from(config)
    packed = pack(dataset, config.image_size, progress=False)
    again = predict(run.student(), packed, split_from(dataset, config).test)
    stored = run.predictions[run.predictions["split"] == "test"]
    stored = stored[[name for name in stored if name.startswith("logit_")]].to_numpy()
    np.testing.assert_array_equal(again, stored.astype(np.float32))


def test_random_gains_and_learned_ones_share_their_explorations(tmp_path):
    tables = []
    for method in ("fopro", "random"):
        knobs = {"method": method, "epochs": 1, "objectives": {"statistics": 1.0}}
        run = distill(tiny(**knobs), out=tmp_path / method, verbose=False)
        tables.append(pd.read_csv(run.path / "exploration.csv"))
    pd.testing.assert_frame_equal(*tables)


def test_seeds_give_other_students(tmp_path):
    one, two = (
        distill(tiny(method="bsm", epochs=1, seed=s), out=tmp_path / str(s), verbose=False)
        for s in (0, 1)
    )
    assert not np.array_equal(logits(one), logits(two))


def test_student_size_shrinks_what_the_student_sees(tmp_path):
    run = distill(tiny(method="ekd", student_size=16, epochs=1), out=tmp_path, verbose=False)
    assert run.config["student_size"] == 16 and run.state == "done"


def test_an_unstable_rate_ends_with_one_line_and_keeps_the_epochs(tmp_path, monkeypatch):
    import fopro_lab.training.train as epochs

    losses = epochs.batch_losses

    def broken(stage, images, labels, noise):
        values = losses(stage, images, labels, noise)
        finished = load_checkpoint(tmp_path) is not None
        return tuple(value * (float("nan") if finished else 1) for value in values)

    monkeypatch.setattr(epochs, "batch_losses", broken)
    with pytest.raises(WorkError, match=r"no step of epoch 2 was finite; lower learning_rate"):
        distill(tiny(method="bsm"), out=tmp_path, verbose=False)
    state = load_checkpoint(tmp_path)
    assert state is not None and state["standing"]["epoch"] == 1
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["state"] == "failed" and "no step" in manifest["reason"]


def test_an_objective_that_the_teacher_lacks_is_told_before_anything_is_written(tmp_path):
    vit = timm.create_model("test_vit", num_classes=0)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    knobs = {"teacher": "timm:test_vit", "weights": str(tmp_path / "vit.safetensors")}
    with pytest.raises(InputError, match=r"has no head; set objectives\.confidence=0"):
        distill(tiny(**knobs, objectives={"confidence": 1.0}), out=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run/manifest.json").exists()
    knobs |= {"objectives": {"statistics": 1.0}, "epochs": 1}
    run = distill(tiny(**knobs), out=tmp_path / "run", verbose=False)
    assert run.state == "done"
    assert "no photographs" in run.manifest["teacher"]["statistics"]


def test_a_fixed_prompt_is_never_explored_and_knows_its_file(tmp_path):
    prompt = FourierPrompt("radial", size=16)
    with torch.no_grad():
        prompt.cells.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "prompt.safetensors"
    prompt.save(path)
    config = tiny(method="fopro", prompt_file=str(path))
    run = distill(config, out=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run/exploration.csv").exists()
    assert torch.equal(run.prompt().mean_gain(), prompt.mean_gain())
    # The prompt acts: without it the same seed trains otherwise.
    plain = distill(tiny(method="ekd"), out=tmp_path / "plain", verbose=False)
    assert run.history["loss"].iloc[-1] != plain.history["loss"].iloc[-1]
    prompt.shrink_(0.5)
    prompt.save(path)
    with pytest.raises(InputError, match="the prompt's file has changed since"):
        distill(config, out=tmp_path / "run", verbose=False)
    path.unlink()
    with pytest.raises(InputError, match=r"^prompt_file: .*: no such file"):
        distill(config, out=tmp_path / "other", verbose=False)


def test_the_schedule_decides_when_prompts_are_explored(tmp_path):
    knobs = {"epochs": 3, "warmup_epochs": 1, "prompt_every": 0, "prompt_check_every": 1}
    run = distill(tiny(**knobs, max_drift=0.05), out=tmp_path, verbose=False)
    table = pd.read_csv(tmp_path / "exploration.csv")
    assert set(table["epoch"]) == {2}
    assert {"drift", "val_task", "val_balanced_accuracy", "kept"} <= set(table)
    # The first epoch is EKD's, to the last bit.
    plain = distill(tiny(method="ekd", epochs=3), out=tmp_path / "plain", verbose=False)
    assert run.history["loss"].iloc[0] == plain.history["loss"].iloc[0]
    assert run.history["loss"].iloc[1] != plain.history["loss"].iloc[1]


@pytest.mark.parametrize("places", ["fixed", "per-image"])
def test_the_control_trains_with_gains_elsewhere(tmp_path, places):
    knobs = {"prompt_steps": 3, "prompt_learning_rate": 0.1, "prompt_check_every": 0}
    runs = [
        distill(tiny(method=m, random_gains=places, **knobs), out=tmp_path / m, verbose=False)
        for m in ("fopro", "random")
    ]
    # Both explore alike; what differs is where the gains are put.
    assert runs[0].prompt().mean_gain().equal(runs[1].prompt().mean_gain())
    assert runs[0].history["loss"].iloc[0] != runs[1].history["loss"].iloc[0]


def test_a_full_disk_keeps_the_epoch_before(tmp_path, monkeypatch):
    import errno

    save = saving.save_checkpoint

    def full(folder, state):
        if state["standing"]["epoch"] == 2:
            monkeypatch.setattr("os.fsync", no_space)
        save(folder, state)

    def no_space(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "save_checkpoint", full)
    with pytest.raises(WorkError, match=r"next\.pt: the disk is full; free some space"):
        distill(tiny(method="bsm"), out=tmp_path, verbose=False)
    state = load_checkpoint(tmp_path)
    assert state is not None and state["standing"]["epoch"] == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_checkpoint_is_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", lambda *_: None)
        distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)
    path = tmp_path / "checkpoint/last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.pt: damaged checkpoint; remove"):
        distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)


def test_changed_data_is_not_silently_resumed(tmp_path):
    distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["data_fingerprint"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"its data_fingerprint is another one: the data set has"):
        distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)


def test_two_processes_never_write_one_run(tmp_path):
    import filelock

    with filelock.FileLock(tmp_path / ".lock"):
        with pytest.raises(WorkError, match=r"another process is training this run"):
            distill(tiny(method="bsm"), out=tmp_path, verbose=False)


def test_lines_of_progress_are_throttled(tmp_path, capsys):
    distill(tiny(method="bsm", epochs=6), out=tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert lines[-1].startswith("bsm seed 0: epoch 6 of 6, loss ")
    assert len(lines) == 2  # the first and the last: six epochs take less than the throttle


def test_run_names_tell_configs_apart():
    names = {run_name(tiny(method=m, seed=s)) for m in ("ekd", "bsm") for s in (0, 1)}
    assert len(names) == 4
    assert run_name(tiny(threads=1)) == run_name(tiny(device="cpu"))


def test_a_run_ends_when_the_best_epoch_is_too_long_ago(tmp_path, monkeypatch):
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])  # as good is not better
    monkeypatch.setattr(module, "balanced_accuracy", lambda *_: next(scores))
    run = distill(tiny(method="bsm", epochs=6, patience=2), out=tmp_path, verbose=False)
    assert list(run.history["epoch"]) == [1, 2, 3, 4]
    assert (run.manifest["best_epoch"], run.manifest["epochs_done"]) == (2, 4)
    assert run.manifest["scores"]["val_balanced_accuracy"] == 0.5


def test_a_run_that_ended_early_is_only_tested_when_it_is_started_again(tmp_path, monkeypatch):
    config = tiny(method="bsm", epochs=9, patience=1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "balanced_accuracy", lambda *_: 0.5)
        patch.setattr(module, "_finish", lambda *_: None)
        distill(config, out=tmp_path, verbose=False)
    monkeypatch.setattr(module, "train_epoch", None)  # would fail if called
    assert distill(config, out=tmp_path, verbose=False).manifest["epochs_done"] == 2


def test_the_manifest_holds_what_a_recipe_stands_for(tmp_path):
    knobs = {"method": "bsm", "recipe": "published", "student": "small", "epochs": 1}
    run = distill(tiny(**knobs), out=tmp_path, verbose=False)
    assert run.manifest["recipe"] == "published"
    assert run.config["augment_mode"] == "exact" and run.config["image_size"] == 24
    # The same values by hand are the same run.
    by_hand = {**run.config, "recipe": ""}
    assert distill(TrainConfig.from_mapping(by_hand), out=tmp_path).manifest == run.manifest


def test_a_run_of_before_a_knob_was_there_is_the_run_with_its_default(tmp_path):
    config = tiny(method="bsm", epochs=1)
    distill(config, out=tmp_path, verbose=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["config"]["optimiser"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert distill(config, out=tmp_path, verbose=False).state == "done"
    with pytest.raises(InputError, match=r"optimiser: 'adam' there, 'sgd' here"):
        distill(tiny(method="bsm", epochs=1, optimiser="sgd"), out=tmp_path, verbose=False)


def test_the_rate_falls_as_scheduled(tmp_path):
    # From the second epoch on the rate is as good as nothing: the weights stand still.
    knobs = {"schedule": "multi-step", "lr_milestones": [1], "lr_factor": 1e-30}
    weights = []
    for epochs, name in ((2, "two"), (3, "three")):
        config = tiny(method="bsm", augment="none", epochs=epochs, **knobs)
        run = distill(config, out=tmp_path / name, verbose=False)
        state = load_checkpoint(run.path)["actors"]["student"]
        weights.append(state["classifier.weight"])
    assert torch.equal(*weights)
    plain = distill(tiny(method="bsm", augment="none"), out=tmp_path / "plain", verbose=False)
    assert not torch.equal(
        weights[0], load_checkpoint(plain.path)["actors"]["student"]["classifier.weight"]
    )
