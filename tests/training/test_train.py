"""Training as a whole: methods, selection, one test, run folders, steps, guards."""

import importlib
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import filelock
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from fopro_lab.config import TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.errors import InputError
from fopro_lab.evaluation import balanced_accuracy, load_runs
from fopro_lab.fourier import FourierPrompt
from fopro_lab.io import write_json
from fopro_lab.models import build_student
from fopro_lab.training import distill, distillation_loss, run_folder, run_name
from fopro_lab.training.losses import TaskHead, label_shares
from fopro_lab.training.run_folder import load_checkpoint
from fopro_lab.training.setup import settle_precision, start_fabric, torch_settings
from fopro_lab.training.train import (
    batch_losses,
    build,
    draw_batches,
    drawn_counts,
    predict,
    train_epoch,
    train_prompt_before_epoch,
)
from tests.conftest import failure, refuses
from tests.fourier.toys import make
from tests.training.forked import TINY

module = importlib.import_module("fopro_lab.training.train")


def tiny(**options: object) -> TrainConfig:
    return TrainConfig.from_mapping(TINY | {"images": 96, "epochs": 2} | options)


BSM = tiny(method="bsm", epochs=1)


def built(**options: object):
    config = tiny(**options)
    packed, split = prepare(config, progress=False)
    return build(config, fabric=start_fabric(config), packed=packed, split=split)


def quiet(config: TrainConfig, out: Path) -> run_folder.TrainedRun:
    return distill(config, out=out, verbose=False)


def give_scores(monkeypatch, *scores: float) -> None:
    """Let the epochs have these scores on validation."""
    left = iter(scores)
    monkeypatch.setattr(module, "balanced_accuracy", lambda *_: next(left))


def change(path: Path, **values: object) -> None:
    """Change values of a manifest."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def logits(run) -> np.ndarray:
    return run.predictions.filter(like="logit_").to_numpy()


@pytest.mark.parametrize("method", ["ekd", "random"])
def test_distill_leaves_a_whole_run_folder(tmp_path, method):
    run = quiet(tiny(method=method), tmp_path / "run")
    assert run.state == "done"
    assert list(run.history["epoch"]) == [1, 2]
    assert np.isfinite(run.history["loss"]).all()
    assert set(run.predictions["split"]) == {"val", "test"}
    assert (tmp_path / "run/prompt.safetensors").exists() == (method == "random")
    assert not list(tmp_path.rglob("*.part"))
    assert [found.method for found in load_runs(tmp_path)] == [method]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> run_folder.TrainedRun:
    """A finished run, to be copied before it is changed."""
    return quiet(BSM, tmp_path_factory.mktemp("done") / "run")


@pytest.fixture
def copied(done, tmp_path) -> Path:
    return Path(shutil.copytree(done.path, tmp_path / "run"))


def test_the_same_config_returns_the_run_and_others_never_overwrite(done, copied, monkeypatch):
    stamp = (copied / "student.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(module, "train_epoch", None)  # would fail if called
    assert quiet(BSM.model_copy(update={"threads": 1}), copied).manifest == done.manifest
    assert (copied / "student.safetensors").stat().st_mtime_ns == stamp
    refuses(r"holds a run of another config \(epochs: 1 there", quiet, tiny(method="bsm"), copied)
    change(copied / "manifest.json", data_fingerprint="0" * 64)
    refuses("the data set has changed since this run began", quiet, BSM, copied)


def test_a_run_of_version_0_1_is_the_run_it_was(done, copied):
    old = dict(done.manifest["config"])
    old |= {"max_skipped": 5, "decoder": "exact", "pictures": old.pop("images")}
    old |= {"lr_milestones": [], "lr_factor": 0.1, "compile_teacher": True}
    old |= {"explore_steps": old.pop("prompt_steps"), "rate_floor": old.pop("lr_floor")}
    del old["optimiser"]  # as if it had not been there yet
    change(copied / "manifest.json", config=old)
    run = quiet(BSM, copied)
    assert run.state == "done" and run.student().classifier.out_features == 8
    with pytest.raises(InputError, match=r"optimiser: 'adam' there, 'sgd' here"):
        quiet(BSM.model_copy(update={"optimiser": "sgd"}), copied)


def test_a_network_of_timm_is_trained_and_comes_back_as_it_was(tmp_path):
    source = timm.create_model("test_resnet", num_classes=9)
    rules = {"mean": "0.4,0.4,0.4", "std": "0.25,0.25,0.25"}
    save_file(source.state_dict(), tmp_path / "a.safetensors", metadata=rules)
    weights = str(tmp_path / "a.safetensors")
    run = quiet(
        tiny(method="ekd", student="timm:test_resnet", student_weights=weights), tmp_path / "r"
    )
    card = run.manifest["student"]
    assert card["macs"] > 1e5 and card["rules"]["mean"] == [0.4] * 3
    (tmp_path / "a.safetensors").unlink()
    setup, _ = built(method="bsm")
    again = predict(run.student(), setup, setup.split.test)
    test = run.predictions["split"] == "test"
    np.testing.assert_array_equal(again, logits(run)[test].astype(np.float32))
    assert not run_name(run.train_config).count(":")


def test_a_student_that_cannot_take_the_images_is_refused_before_they_are_read(tmp_path):
    config = tiny(method="bsm", student="timm:inception_v3", dataset=str(tmp_path / "none"))
    refuses(r"^student timm:inception_v3: cannot take imag", quiet, config, tmp_path / "run")
    tagged = config.model_copy(update={"student": "timm:resnet18.a1_in1k"})
    rule = "^student: expected student_weights with 'a1_in1k', got none; timm:resnet18"
    refuses(rule, quiet, tagged, tmp_path / "run")


def test_a_folder_with_other_things_or_of_another_process_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    refuses(r"expected an empty or a new folder, got one with thesis", quiet, BSM, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "busy").mkdir()
    with filelock.FileLock(tmp_path / "busy/.lock"):
        assert "another process is training this run" in failure(quiet, BSM, tmp_path / "busy")


def test_threads_are_those_of_a_run_alone_and_names_tell_configs_apart():
    before = torch.get_num_threads()
    with torch_settings(tiny(threads=before + 1)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    names = {run_name(tiny(method=m, seed=s)) for m in ("ekd", "bsm") for s in (0, 1)}
    assert len(names) == 4
    assert run_name(tiny(threads=1)) == run_name(tiny(device="auto"))


def test_the_manifest_holds_what_a_recipe_stands_for(tmp_path):
    run = quiet(BSM.model_copy(update={"recipe": "published", "student": "small"}), tmp_path)
    assert run.manifest["recipe"] == "published"
    assert run.config["augment_mode"] == "exact" and run.config["image_size"] == 16
    # The same values by hand are the same run.
    assert distill(TrainConfig(**run.config), out=tmp_path).manifest == run.manifest


def test_the_best_epoch_is_chosen_on_validation_and_kept(tmp_path):
    run = quiet(tiny(method="bsm", epochs=4, learning_rate=0.01), tmp_path)
    scores = run.history["val_balanced_accuracy"]
    assert run.manifest["best_epoch"] == scores.idxmax() + 1
    val = run.predictions["split"] == "val"
    answers = logits(run)[val].argmax(axis=1)
    kept = balanced_accuracy(run.predictions["label"][val].to_numpy(), answers)
    assert kept == pytest.approx(scores.max(), abs=1e-12)
    # And it is the student that the run gives back.
    setup, _ = built(method="bsm")
    again = predict(run.student(), setup, setup.split.test)
    np.testing.assert_array_equal(again, logits(run)[~val].astype(np.float32))
    # The table holds every held-out image once.
    source = setup.packed.dataset.table
    for rows, chosen in ((setup.split.val, val), (setup.split.test, ~val)):
        for column in ("image", "label", "group"):
            assert run.predictions[column][chosen].tolist() == source[column].iloc[rows].tolist()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, (2, "balanced accuracy on validation")),
        ({"schedule": "cosine"}, (3, "last epoch")),
        ({"schedule": "cosine", "select": "best"}, (2, "balanced accuracy on validation")),
        ({"schedule": "cosine", "ema_decay": 0.5}, (3, "last epoch, average of its weights")),
    ],
)
def test_select_says_which_epoch_is_kept(tmp_path, monkeypatch, options, kept):
    give_scores(monkeypatch, 0.2, 0.9, 0.3)
    run = quiet(tiny(method="bsm", epochs=3, **options), tmp_path)
    assert (run.manifest["best_epoch"], run.manifest["selected_by"]) == kept
    state = load_checkpoint(tmp_path)
    final = state["average" if "ema_decay" in options else "student"]
    last = {name.removeprefix("module."): value for name, value in final.items()}
    same = torch.equal(run.student().classifier.weight, last["classifier.weight"])
    assert same == (kept[0] == 3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"select": "ema"}, "expected ema_decay above 0 with select=ema, got 0"),
        ({"select": "last", "ema_decay": 0.9}, "expected select=ema or best with ema_decay"),
    ],
)
def test_select_fits_the_other_options(options, complaint):
    refuses(complaint, tiny, method="bsm", **options)


def test_the_best_epoch_is_one_that_met_the_prompt(tmp_path, monkeypatch):
    give_scores(monkeypatch, 0.9, 0.8, 0.3, 0.2)
    run = quiet(tiny(method="fopro", epochs=4, warmup_epochs=2), tmp_path)
    assert (run.manifest["best_epoch"], run.manifest["epochs_done"]) == (3, 4)


def test_the_best_epoch_is_one_whose_classes_had_their_weights(tmp_path, monkeypatch, capsys):
    give_scores(monkeypatch, 0.9, 0.8, 0.7, 0.5, 0.6, 0.4, 0.3)
    config = tiny(method="", loss="ldam-drw", epochs=7)  # from the seventh: 6 of 7 is over 0.8
    assert distill(config, out=tmp_path).manifest["best_epoch"] == 7
    assert "(none kept yet)" in capsys.readouterr().err


def test_a_run_that_another_version_goes_on_with_says_so(tmp_path, monkeypatch, capsys):
    config = tiny(method="bsm", epochs=2)
    monkeypatch.setattr(module, "finish", lambda *_, **how: None)  # stopped before its end
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "version", lambda name: "0.0.1")
        distill(config, out=tmp_path)
    run = distill(config, out=tmp_path)
    assert [each["versions"]["torch"] for each in run.manifest["earlier"]] == ["0.0.1"]
    told = capsys.readouterr().err
    assert re.search(r"resumed with changed versions \(.*'torch': '0\.0\.1'.*, now .*\);", told)
    assert distill(config, out=tmp_path).manifest["earlier"] == run.manifest["earlier"]


# --- what each method is made of ---


def test_methods_of_one_seed_start_alike():
    # Otherwise a difference between methods would be one of initial weights.
    fopro, control, baseline = (built(method=m, seed=4)[1] for m in ("fopro", "random", "bsm"))
    for name, value in baseline.student.state_dict().items():
        assert torch.equal(value, fopro.student.state_dict()[name])
    for part in ("student", "prompt", "head"):
        for name, value in getattr(fopro, part).state_dict().items():
            assert torch.equal(value, getattr(control, part).state_dict()[name])


def test_random_gains_and_learned_ones_share_their_prompt_training(tmp_path):
    options = {"epochs": 1, "prompt_learning_rate": 0.1, "prompt_check_every": 0}
    runs = [quiet(tiny(method=m, **options), tmp_path / m) for m in ("fopro", "random")]
    one, two = (pd.read_csv(run.path / "exploration.csv") for run in runs)
    pd.testing.assert_frame_equal(one, two)
    assert runs[0].prompt().mean_gain().equal(runs[1].prompt().mean_gain())
    assert runs[0].history["loss"].iloc[0] != runs[1].history["loss"].iloc[0]
    manifest = runs[1].manifest
    assert manifest["control_drift"] == pytest.approx(manifest["learned_drift"], rel=0.02)
    assert manifest["prompt_log_gain"] > 0 and "control_drift" not in runs[0].manifest
    # A run whose gains were not matched, of an earlier version, is not taken for this one.
    write_json(runs[1].path / "manifest.json", {**manifest, "control": "not matched"})
    refuses("the rule of random gains has", quiet, tiny(method="random", **options), runs[1].path)


def test_a_run_whose_prompt_does_nothing_says_so(tmp_path, capsys):
    FourierPrompt("radial", size=16).save(tmp_path / "identity.safetensors")
    run = quiet(tiny(prompt_file=str(tmp_path / "identity.safetensors")), tmp_path / "run")
    assert run.manifest["prompt_log_gain"] == 0
    assert "gain 1 everywhere: this run equals EKD" in capsys.readouterr().err


def test_the_config_decides_when_prompts_are_trained(tmp_path):
    options = {"epochs": 3, "warmup_epochs": 1, "prompt_every": 0, "prompt_check_every": 1}
    run = quiet(tiny(**options, max_drift=0.05), tmp_path / "run")
    table = pd.read_csv(tmp_path / "run/exploration.csv")
    assert set(table["epoch"]) == {2}
    assert {"drift", "val_task", "val_balanced_accuracy", "kept"} <= set(table)
    # The first epoch is EKD's, to the last bit.
    plain = quiet(tiny(method="ekd", epochs=3), tmp_path / "plain")
    assert run.history["loss"].iloc[0] == plain.history["loss"].iloc[0]
    assert run.history["loss"].iloc[1] != plain.history["loss"].iloc[1]


def test_a_prompt_from_a_file_is_never_trained(tmp_path):
    prompt, path = make("radial", scale=0.2, size=16), tmp_path / "prompt.safetensors"
    prompt.save(path)
    run = quiet(tiny(prompt_file=str(path)), tmp_path / "run")
    assert not (tmp_path / "run/exploration.csv").exists()
    assert torch.equal(run.prompt().mean_gain(), prompt.mean_gain())
    # The prompt acts: without it the same seed trains otherwise.
    plain = quiet(tiny(method="ekd"), tmp_path / "plain")
    assert run.history["loss"].iloc[-1] != plain.history["loss"].iloc[-1]
    FourierPrompt("ring", channels=2).save(path)
    refuses(r"^prompt_file: expected a", quiet, tiny(prompt_file=str(path)), tmp_path / "other")


def vit_weights(tmp_path) -> dict[str, str]:
    vit = timm.create_model("test_vit", num_classes=0)
    save_file(vit.state_dict(), tmp_path / "weights.safetensors")
    return {"teacher": "timm:test_vit", "weights": str(tmp_path / "weights.safetensors")}


def test_a_file_of_other_content_is_another_run(tmp_path):
    files = {name: tmp_path / f"{name}.safetensors" for name in ("student_weights", "prompt_file")}
    backbone = build_student("small", classes=2).backbone.state_dict()
    run_folder.write_weights(files["student_weights"], run_folder.on_cpu(backbone))
    FourierPrompt("ring", size=16).save(files["prompt_file"])
    natural = tmp_path / "natural"
    natural.mkdir()
    for number in range(2):
        Image.new("RGB", (20, 20), (99, 99, 70 * number)).save(natural / f"{number}.png")
    options = {"epochs": 1, "objectives": {"statistics": 1.0}, **vit_weights(tmp_path)}
    student, prompt = ({name: str(path)} for name, path in files.items())
    config = tiny(**options, **student, natural=str(natural))
    given = tiny(method="random", **options, **prompt)
    run = quiet(config, tmp_path / "run")
    quiet(given, tmp_path / "given")
    assert run.manifest["teacher"]["statistics"].endswith("2 natural images of natural at 16 px")
    places = {"weights": Path(config.weights), "natural": natural / "1.png", **files}
    for name, path in places.items():
        used = (given, tmp_path / "given") if name == "prompt_file" else (config, run.path)
        before = path.read_bytes()
        path.write_bytes(before + b"0")
        refuses(f"what '{name}' names has changed since this run beg", quiet, *used)
        path.write_bytes(before)
        assert quiet(*used).state == "done"
    # A run of an earlier version knows the hash of its teacher alone.
    manifest = {key: value for key, value in run.manifest.items() if not key.endswith("_sha256")}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    files["student_weights"].write_bytes(b"another")
    assert quiet(config, run.path).state == "done"
    places["weights"].write_bytes(b"another")
    refuses("what 'weights' names has changed", quiet, config, run.path)
    places["weights"].unlink()
    refuses(r"^weights: .*weights\.safetensors: no such file", quiet, config, run.path)


def test_the_prompt_that_is_saved_belongs_to_the_student(tmp_path, monkeypatch):
    options = {"prompt_learning_rate": 0.1, "prompt_check_every": 0}
    best = quiet(tiny(**options, epochs=1), tmp_path / "one").prompt()
    give_scores(monkeypatch, 0.5, 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish", lambda *_, **how: None)  # stopped before the test
        stopped = quiet(tiny(**options), tmp_path / "two")
    refuses("expected a finished run, got one running", stopped.prompt)
    run = quiet(tiny(**options), tmp_path / "two")
    assert run.manifest["best_epoch"] == run.manifest["prompt_epoch"] == 1
    assert torch.equal(run.prompt().mean_gain(), best.mean_gain())
    best.load_state_dict(load_checkpoint(stopped.path)["prompt"])
    assert not torch.equal(run.prompt().mean_gain(), best.mean_gain())


# --- what an epoch draws ---


@pytest.mark.parametrize("accumulate", [3, 100])
def test_added_gradients_are_those_of_the_mean_over_their_batches(accumulate):
    options = {"images": 150, "augment": "none", "method": "ce"}
    found, state = built(**options, accumulate=accumulate)
    slow, plain = built(**options)
    assert found.batches == 5  # so the last step has two batches, or all of them
    loss = train_epoch(state, found)["loss"]
    # By hand: the mean of the batches' losses, one graph, one backward.
    student = plain.student.train()
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-4)
    how = {"batch_size": 16, "shuffle": True, "drop_last": True}
    drawn = list(batches(slow.packed, slow.split.train, **how))
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
        torch.testing.assert_close(state.student.state_dict()[name], value,
                                   rtol=0, atol=2e-6, msg=name)  # fmt: skip


def test_the_losses_get_the_counts_that_are_drawn():
    setup, _ = built(method="bsm")
    counts = setup.class_counts
    classes, total = len(counts), float(counts.sum())

    def drawn(epoch: int, **options: object) -> torch.Tensor:
        return drawn_counts(replace(setup, config=tiny(method="bsm", **options)), epoch)

    even = torch.full((classes,), total / classes)
    assert torch.equal(drawn(0), counts) and torch.equal(drawn(1), counts)
    torch.testing.assert_close(drawn(0, sampler="class-balanced"), even)
    roots = counts.sqrt()
    torch.testing.assert_close(drawn(0, sampler="square-root"), total * roots / roots.sum())
    assert torch.equal(drawn(0, sampler="progressive"), counts)
    torch.testing.assert_close(drawn(1, sampler="progressive"), even)
    torch.testing.assert_close(drawn(0, mixup_alpha=1.0), (counts + even) / 2)
    assert torch.equal(drawn(0, mixup=1.0), counts)  # partners are drawn alike
    lacking = counts.clone()
    lacking[2] = 0
    refuses(r"1 or more per class, got 0", drawn_counts, replace(setup, class_counts=lacking), 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_step_of_ekd_has_the_published_loss(smoothing):
    setup, state = built(method="ekd", label_smoothing=smoothing)
    images, labels = next(draw_batches(setup, 0))
    state.student.eval()  # so that both passes see the same statistics
    with torch.no_grad():
        found = batch_losses(state, setup, images, labels, drawn_counts(setup, 0), noise=None)
        output = state.student(images)
    features = setup.teacher.encode(images)
    shares = label_shares(labels, classes=len(setup.class_counts), smoothing=smoothing)
    known = distillation_loss(output, features, labels=shares, class_counts=setup.class_counts)
    # Unsmoothed labels are off by over 0.01, a weight of 2 by the distance, about 2.
    assert [float(x) for x in found.values()] == pytest.approx([float(x) for x in known], abs=1e-4)


# --- the moving average ---


def test_the_average_follows_its_formula(monkeypatch):
    decay = 0.3  # which is less than the formula of the early steps from the third on
    setup, state = built(method="bsm", ema_decay=decay)
    students, step = [], state.optimiser.step

    def taken(*args, **how):
        step(*args, **how)
        students.append({k: v.clone() for k, v in state.student.state_dict().items()})

    monkeypatch.setattr(state.optimiser, "step", taken)
    for state.epoch in (0, 1):
        train_epoch(state, setup)
    expected = students[0]
    for number, student in enumerate(students[1:], start=1):
        past = min(decay, (1 + number) / (10 + number))
        for name, value in student.items():
            mean = past * expected[name] + (1 - past) * value
            expected[name] = mean if value.is_floating_point() else value
    # The share of a step too late is off by over 1e-5.
    for name, value in state.evaluated.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6, msg=name)


def test_the_average_is_what_is_validated_and_changes_nothing_of_the_training(tmp_path):
    run = quiet(tiny(method="bsm", ema_decay=0.9), tmp_path / "average")
    plain = quiet(tiny(method="bsm"), tmp_path / "plain")
    assert run.history["loss"].equals(plain.history["loss"])
    assert not np.array_equal(logits(run), logits(plain))
    state = load_checkpoint(run.path)
    best = state["best_student"]["classifier.weight"]
    assert torch.equal(run.student().classifier.weight, best)
    if run.manifest["best_epoch"] == 2:
        assert torch.equal(best, state["average"]["module.classifier.weight"])


# --- guards ---


def test_a_gradient_that_is_not_finite_stops_the_run_and_the_last_good_checkpoint_is_kept(
    tmp_path, monkeypatch
):
    losses, seen = module.batch_losses, []

    def broken(state, *more, **how):
        values = losses(state, *more, **how)
        seen.append(values)
        if len(seen) < 6:  # the last batch of the second epoch
            return values
        zero = torch.zeros((), requires_grad=True)
        weight = next(state.student.parameters())
        return values | {"loss": values["loss"] + (weight.sum() * 0 + zero).sqrt()}

    config = tiny(method="bsm")
    whole = quiet(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(module, "batch_losses", broken)
        told = failure(quiet, config, tmp_path / "run")
    assert told == (
        "training: a loss or gradient of epoch 2 is not finite; earlier epochs are kept; train "
        "again with a learning_rate below 0.0003 and another --out"
    )
    state = load_checkpoint(tmp_path / "run")
    assert state["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in state["student"].values())
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["state"] == "failed" and "not finite" in manifest["reason"]
    # What was broken was the machine: started again, the run resumes.
    found = quiet(config, tmp_path / "run")
    np.testing.assert_array_equal(logits(found), logits(whole))


def test_in_bfloat16_the_task_head_answers_by_the_weights_it_has(monkeypatch):
    """Autocast keeps a cast of what is trained: prompt training must not stay with its first."""
    forward, apart = TaskHead.forward, []

    def compared(head, features):
        batches, answer = head.batches, forward(head, features)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            head.batches = batches
            apart.append((answer.float() - forward(head, features.float())).abs().max())
        return answer

    monkeypatch.setattr(TaskHead, "forward", compared)
    options = {"objectives": {"task": 1.0}, "prompt_steps": 20, "prompt_learning_rate": 0.05}
    setup, state = built(precision="bf16-mixed", **options)
    train_prompt_before_epoch(state, setup)
    assert len(apart) >= 20
    # Rounding to 8 bits of logits of about 3; with the first weights it is off by over 0.3.
    assert max(apart) < 0.05


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out of GPU memory with batch_size = 16; "
         "try batch_size=8 accumulate=2 resident=off or a lower image_size, and another --out"),
        (RuntimeError("f_cuda does not have a deterministic implementation. Set ..."),
         "deterministic: f_cuda does not have a deterministic implementation; use device=cpu or "
         "deterministic=false"),
    ],
)  # fmt: skip
def test_what_a_gpu_cannot_do_is_said_and_the_run_is_failed(tmp_path, monkeypatch, error, expected):
    monkeypatch.setattr(module, "train_epoch", Mock(side_effect=error))
    assert failure(quiet, tiny(method="bsm", deterministic=True), tmp_path) == expected
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["state"], manifest["reason"]) == ("failed", expected)


def test_the_deterministic_mode_is_on_within_and_as_before_after(tmp_path, monkeypatch):
    def looked(*args, **how):
        assert torch.get_deterministic_debug_mode() == 2
        return train_epoch(*args, **how)

    monkeypatch.setattr(module, "train_epoch", looked)
    torch.set_deterministic_debug_mode(1)
    try:
        quiet(BSM.model_copy(update={"deterministic": True}), tmp_path)
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.set_deterministic_debug_mode(0)


class StrictGPU(TorchDispatchMode):
    """Refuses on a CPU what `torch.use_deterministic_algorithms` lists as refused on a GPU."""

    NAMES = re.compile(
        r"histc|kthvalue|put_|cumsum_?|max_pool3d_.*|"
        r"(grid_sampler|.*upsample|.*_pad2d|_adaptive_avg_pool|adaptive_max_pool).*_backward"
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, found = func.overloadpacket.__name__, [*args, *(kwargs or {}).values()]
        real = any(isinstance(x, torch.Tensor) and x.is_floating_point() for x in found)
        weighted = name == "bincount" and real
        assert not weighted and not (real and self.NAMES.fullmatch(name)), f"refused: {func}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options", [{}, {"prompt_form": "ring", "distillation": "kd"}, {"prompt": "vptta"}]
)
def test_a_deterministic_run_does_nothing_that_a_gpu_refuses(tmp_path, options):
    with StrictGPU():
        quiet(tiny(epochs=1, prompt_check_every=1, objectives={"task": 1.0}, **options), tmp_path)


def test_the_precision_auto_is_settled_once(tmp_path, monkeypatch):
    config = tiny(method="bsm", epochs=1, precision="auto")
    for has_units, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", partial(bool, has_units))
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        run = quiet(config, tmp_path / expected)
        assert run.config["precision"] == expected
        # On another processor it stays what it began with.
        assert settle_precision(config, tmp_path / "bf16-mixed").precision == "bf16-mixed"
