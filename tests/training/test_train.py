"""Training as a whole: methods, selection, one test, run folders, steps, guards, progress."""

import errno
import importlib
import json
from dataclasses import replace

import filelock
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from fopro_lab.config import TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import balanced_accuracy, load_runs
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import distill, run_folder, run_name
from fopro_lab.training.losses import TaskHead, balanced_softmax_loss
from fopro_lab.training.run_folder import load_checkpoint
from fopro_lab.training.train import (
    build,
    deterministic,
    draw_batches,
    drawn_counts,
    predict,
    start_fabric,
    train_epoch,
    train_prompt_before_epoch,
)

module = importlib.import_module("fopro_lab.training.train")
TINY = {
    "images": 96,
    "image_size": 16,
    "epochs": 2,
    "batch_size": 16,
    "prompt_steps": 2,
    "prompt_every": 1,
    "prompt_rows": 4,
    "device": "cpu",
}


def tiny(**options: object) -> TrainConfig:
    return TrainConfig.from_mapping(TINY | options)


def built(**options: object):
    config = tiny(**options)
    packed, split = prepare(config, progress=False)
    return build(config, fabric=start_fabric(config), packed=packed, split=split)


def logits(run) -> np.ndarray:
    return run.predictions.filter(like="logit_").to_numpy()


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


def test_another_config_or_other_data_never_overwrite(tmp_path):
    distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)
    with pytest.raises(
        InputError, match=r"holds a run of another config \(epochs: 1 there, 2 here"
    ):
        distill(tiny(method="bsm"), out=tmp_path, verbose=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["data_fingerprint"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="the data set has changed since this run began"):
        distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)


def test_a_run_of_version_0_1_is_the_run_it_was(tmp_path):
    config = tiny(method="bsm", epochs=1)
    distill(config, out=tmp_path, verbose=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    old = manifest["config"]
    old |= {"max_skipped": 5, "decoder": "exact", "pictures": old.pop("images")}
    old |= {"explore_steps": old.pop("prompt_steps")}
    del old["optimiser"]  # as if it had not been there yet
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    run = distill(config, out=tmp_path, verbose=False)
    assert run.state == "done" and run.student().classifier.out_features == 8
    with pytest.raises(InputError, match=r"optimiser: 'adam' there, 'sgd' here"):
        distill(tiny(method="bsm", epochs=1, optimiser="sgd"), out=tmp_path, verbose=False)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"expected an empty or a new folder, got one with thesis"):
        distill(tiny(method="bsm"), out=tmp_path, verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_processes_never_write_one_run(tmp_path):
    with filelock.FileLock(tmp_path / ".lock"):
        with pytest.raises(WorkError, match=r"another process is training this run"):
            distill(tiny(method="bsm"), out=tmp_path, verbose=False)


def test_run_names_tell_configs_apart():
    names = {run_name(tiny(method=m, seed=s)) for m in ("ekd", "bsm") for s in (0, 1)}
    assert len(names) == 4
    assert run_name(tiny(threads=1)) == run_name(TrainConfig(**TINY | {"device": "auto"}))


def test_the_manifest_holds_what_a_recipe_stands_for(tmp_path):
    options = {"method": "bsm", "recipe": "published", "student": "small", "epochs": 1}
    run = distill(tiny(**options), out=tmp_path, verbose=False)
    assert run.manifest["recipe"] == "published"
    assert run.config["augment_mode"] == "exact" and run.config["image_size"] == 16
    # The same values by hand are the same run.
    assert distill(TrainConfig(**run.config), out=tmp_path).manifest == run.manifest


def test_the_best_epoch_is_chosen_on_validation_and_kept(tmp_path):
    config = tiny(method="bsm", epochs=4, learning_rate=0.01)
    run = distill(config, out=tmp_path, verbose=False)
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


def test_a_run_ends_when_the_best_epoch_is_too_long_ago(tmp_path, monkeypatch):
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])  # as good is not better
    monkeypatch.setattr(module, "balanced_accuracy", lambda *_: next(scores))
    config = tiny(method="bsm", epochs=6, patience=2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish", lambda *_, **how: None)  # stopped before the test
        distill(config, out=tmp_path, verbose=False)
    monkeypatch.setattr(module, "train_epoch", None)  # would fail if called
    run = distill(config, out=tmp_path, verbose=False)
    assert list(run.history["epoch"]) == [1, 2, 3, 4]
    assert (run.manifest["best_epoch"], run.manifest["epochs_done"]) == (2, 4)
    assert run.manifest["scores"]["val_balanced_accuracy"] == 0.5


# --- what each method is made of ---


@pytest.mark.parametrize("method", ["ce", "bsm", "ekd", "fopro", "random"])
def test_each_method_gets_what_it_needs(method):
    setup, state = built(method=method)
    distils, prompts = method in ("ekd", "fopro", "random"), method in ("fopro", "random")
    assert (setup.teacher is not None) == (setup.encoder is not None) == distils
    assert (state.student.projector is not None) == distils
    assert (state.prompt is not None) == (state.head is not None) == prompts
    if prompts:
        assert state.head.linear.in_features == setup.teacher.feature_dim
        assert setup.reference.source == "running statistics of its 12 batch norms"
        assert setup.teacher.card["statistics"] == setup.reference.source


def test_methods_of_one_seed_start_alike():
    # Otherwise a difference between methods would be one of initial weights.
    fopro, control, baseline = (built(method=m, seed=4)[1] for m in ("fopro", "random", "bsm"))
    for name, value in baseline.student.state_dict().items():
        assert torch.equal(value, fopro.student.state_dict()[name])
    for part in ("student", "prompt", "head"):
        for name, value in getattr(fopro, part).state_dict().items():
            assert torch.equal(value, getattr(control, part).state_dict()[name])


def test_random_gains_and_learned_ones_share_their_prompt_training(tmp_path):
    runs = [
        distill(
            tiny(method=method, epochs=1, prompt_learning_rate=0.1, prompt_check_every=0),
            out=tmp_path / method,
            verbose=False,
        )
        for method in ("fopro", "random")
    ]
    one, two = (pd.read_csv(run.path / "exploration.csv") for run in runs)
    pd.testing.assert_frame_equal(one, two)
    assert runs[0].prompt().mean_gain().equal(runs[1].prompt().mean_gain())
    assert runs[0].history["loss"].iloc[0] != runs[1].history["loss"].iloc[0]


def test_the_config_decides_when_prompts_are_trained(tmp_path):
    options = {"epochs": 3, "warmup_epochs": 1, "prompt_every": 0, "prompt_check_every": 1}
    run = distill(tiny(**options, max_drift=0.05), out=tmp_path / "run", verbose=False)
    table = pd.read_csv(tmp_path / "run/exploration.csv")
    assert set(table["epoch"]) == {2}
    assert {"drift", "val_task", "val_balanced_accuracy", "kept"} <= set(table)
    # The first epoch is EKD's, to the last bit.
    plain = distill(tiny(method="ekd", epochs=3), out=tmp_path / "plain", verbose=False)
    assert run.history["loss"].iloc[0] == plain.history["loss"].iloc[0]
    assert run.history["loss"].iloc[1] != plain.history["loss"].iloc[1]


def test_a_prompt_from_a_file_is_never_trained_and_knows_its_file(tmp_path):
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
    FourierPrompt("ring", channels=2).save(path)
    with pytest.raises(InputError, match=r"^prompt_file: expected a prompt of 1 or 3 channels"):
        distill(config, out=tmp_path / "other", verbose=False)
    path.unlink()
    with pytest.raises(InputError, match=r"^prompt_file: .*: no such file"):
        distill(config, out=tmp_path / "other", verbose=False)


def test_an_objective_that_the_teacher_lacks_is_said_before_anything_is_written(tmp_path):
    vit = timm.create_model("test_vit", num_classes=0)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    options = {"teacher": "timm:test_vit", "weights": str(tmp_path / "vit.safetensors")}
    with pytest.raises(InputError, match=r"has no head; set objectives\.confidence=0"):
        config = tiny(**options, objectives={"confidence": 1.0})
        distill(config, out=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run/manifest.json").exists()
    options |= {"objectives": {"statistics": 1.0}, "epochs": 1}
    run = distill(tiny(**options), out=tmp_path / "run", verbose=False)
    assert "no photographs" in run.manifest["teacher"]["statistics"]


# --- what an epoch draws ---


@pytest.mark.parametrize(
    ("sampler", "alpha", "method"),
    [
        ("class-balanced", 0.0, "bsm"),
        ("square-root", 0.0, "ce"),
        ("instance", 0.2, "ce"),
        ("progressive", 0.2, "fopro"),
    ],
)
def test_training_runs_with_each_sampler(tmp_path, sampler, alpha, method):
    config = tiny(sampler=sampler, mixup_alpha=alpha, method=method, augment_mode="exact")
    run = distill(config, out=tmp_path, verbose=False)
    assert np.isfinite(run.history["loss"]).all()


def test_an_epoch_is_the_plain_loop_to_the_last_bit():
    setup, state = built(method="bsm", augment="none")
    _, plain = built(method="bsm", augment="none")
    state.epoch = 1
    loss = train_epoch(state, setup)["loss"]
    seed = np.random.SeedSequence([setup.config.seed, 1]).generate_state(1, np.uint64)[0]
    chance = torch.Generator().manual_seed(int(seed >> np.uint64(1)))
    rows = setup.split.train
    rows = rows[torch.randperm(len(rows), generator=chance).numpy()]
    student, optimiser = plain.student.train(), plain.optimiser
    losses = []
    for start in range(0, len(rows) - len(rows) % 16, 16):
        part = rows[start : start + 16]
        pixels = torch.from_numpy(setup.packed.images[part])
        images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255
        labels = torch.from_numpy(setup.packed.labels[part])
        value = balanced_softmax_loss(
            student(images).logits, labels, class_counts=setup.class_counts
        )
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), setup.config.clip_norm)
        optimiser.step()
        losses.append(value.detach())
    assert loss == (sum(losses[1:], losses[0]) / len(losses)).item()
    for name, value in student.state_dict().items():
        assert torch.equal(value, state.student.state_dict()[name]), name


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_added_gradients_are_those_of_the_mean_over_their_batches(accumulate):
    options = {"images": 150, "augment": "none", "method": "ce"}
    found, state = built(**options, accumulate=accumulate)
    slow, plain = built(**options)
    assert found.batches == 5  # so the last step has one batch, two, or all
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
    lacking = counts.clone()
    lacking[2] = 0
    with pytest.raises(InputError, match=r"1 or more per class, got 0 for classes \[2\]"):
        drawn_counts(replace(setup, class_counts=lacking), 0)


def test_a_balanced_epoch_is_not_corrected_a_second_time(monkeypatch):
    # Uniform counts make balanced softmax plain cross-entropy.
    losses = []
    for method in ("bsm", "ce"):
        setup, state = built(method=method, sampler="class-balanced", epochs=1)
        losses.append(train_epoch(state, setup)["loss"])
    # 1e-5: adding one number to all logits; the class sizes as counts differ by over 0.05.
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    monkeypatch.setattr(module, "drawn_counts", lambda setup, epoch: setup.class_counts)
    setup, state = built(method="bsm", sampler="class-balanced", epochs=1)
    assert abs(train_epoch(state, setup)["loss"] - losses[1]) > 0.05


def test_mixed_images_have_class_shares():
    setup, _ = built(method="bsm", mixup_alpha=0.2)
    _, labels = next(draw_batches(setup, 0))
    assert labels.shape == (16, 8)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(16))


def test_student_size_shrinks_what_the_student_sees(tmp_path):
    seen = []
    setup, state = built(method="ekd", image_size=24, student_size=16, epochs=1)
    state.student.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
    train_epoch(state, setup)
    assert set(seen) == {16}


# --- the moving average ---


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_follows_its_formula(decay, monkeypatch):
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
    run = distill(tiny(method="bsm", ema_decay=0.9), out=tmp_path / "average", verbose=False)
    plain = distill(tiny(method="bsm"), out=tmp_path / "plain", verbose=False)
    assert run.history["loss"].equals(plain.history["loss"])
    assert not np.array_equal(logits(run), logits(plain))
    state = load_checkpoint(run.path)
    best = state["best_student"]["classifier.weight"]
    assert torch.equal(run.student().classifier.weight, best)
    if run.manifest["best_epoch"] == 2:
        assert torch.equal(best, state["average"]["module.classifier.weight"])


# --- predicting ---


def test_logits_come_in_the_order_of_the_rows_and_move_nothing():
    setup, state = built(method="ekd", image_size=24, student_size=16)
    student, rows = state.student, np.array([7, 3, 60, 3])
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = predict(student, setup, rows)
    assert found.shape == (4, 8) and found.dtype == np.float32 and not student.training
    with torch.inference_mode():
        images = torch.stack([setup.packed[row][0] for row in rows])
        expected = student.classify(module.shrink(images, 16)).numpy()
    # 1e-5 is rounding between batch sizes; batch statistics would be off by 0.1.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(student.state_dict()[name], value) for name, value in before.items())


def test_the_table_holds_every_held_out_image_once(tmp_path):
    run = distill(tiny(method="bsm", epochs=1), out=tmp_path, verbose=False)
    setup, _ = built(method="bsm")
    source = setup.packed.dataset.table
    for name, rows in (("val", setup.split.val), ("test", setup.split.test)):
        part = run.predictions[run.predictions["split"] == name]
        for column in ("image", "label", "group"):
            assert part[column].tolist() == source[column].iloc[rows].tolist()


# --- guards ---


def broken(monkeypatch, numbers, *, how: str) -> None:
    """Let some batches, counted from 0 over a run, have a loss or a gradient that is not finite."""
    losses, count = module.batch_losses, [-1]

    def batch_losses(state, setup, images, labels, *more):
        count[0] += 1
        if count[0] not in numbers:
            return losses(state, setup, images, labels, *more)
        if how == "loss":
            return losses(state, setup, images * float("nan"), labels, *more)
        values = losses(state, setup, images, labels, *more)
        zero = torch.zeros((), requires_grad=True)
        weight = next(state.student.parameters())
        return (values[0] + (weight.sum() * 0 + zero).sqrt(), *values[1:])

    monkeypatch.setattr(module, "batch_losses", batch_losses)


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_and_the_last_good_checkpoint_is_kept(
    tmp_path, monkeypatch, how
):
    config = tiny(method="bsm")
    whole = distill(config, out=tmp_path / "whole", verbose=False)
    with monkeypatch.context() as patch:
        broken(patch, {5}, how=how)  # the last batch of the second epoch
        with pytest.raises(WorkError) as caught:
            distill(config, out=tmp_path / "run", verbose=False)
    assert str(caught.value) == (
        "training: a loss or gradient of epoch 2 is not finite; the epochs before are kept; train "
        "again with a learning_rate below 0.0003 and another --out"
    )
    state = load_checkpoint(tmp_path / "run")
    assert state["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in state["student"].values())
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["state"] == "failed" and "not finite" in manifest["reason"]
    # What was broken was the machine: started again, the run resumes.
    found = distill(config, out=tmp_path / "run", verbose=False)
    np.testing.assert_array_equal(logits(found), logits(whole))


def test_a_long_epoch_is_stopped_within(monkeypatch):
    setup, state = built(method="bsm", images=150)
    monkeypatch.setattr(module, "READ_EVERY", 2)
    broken(monkeypatch, {1}, how="loss")
    steps = []
    step = state.optimiser.step
    monkeypatch.setattr(state.optimiser, "step", lambda *a, **k: steps.append(1) or step(*a, **k))
    with pytest.raises(WorkError, match="a loss or gradient of epoch 1 is not finite"):
        train_epoch(state, setup)
    assert len(steps) == 2 < setup.steps


def test_memory_that_is_short_is_said_with_the_way_out(tmp_path, monkeypatch):
    def hungry(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "batch_losses", hungry)
    with pytest.raises(WorkError) as caught:
        distill(tiny(method="bsm"), out=tmp_path, verbose=False)
    assert str(caught.value) == (
        "out of GPU memory with batch_size = 16; try batch_size=8 accumulate=2 or a lower "
        "image_size, and another --out"
    )


def test_a_folder_that_may_not_be_written_is_said(tmp_path, monkeypatch):
    def refuse(*_, **how):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(run_folder.filelock.FileLock, "acquire", refuse)
    with pytest.raises(WorkError, match="may not be written"):
        distill(tiny(method="bsm"), out=tmp_path / "run", verbose=False)


def test_the_deterministic_mode_is_on_within_and_off_after(tmp_path, monkeypatch):
    seen, epoch = [], module.train_epoch

    def looked(*args, **how):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return epoch(*args, **how)

    monkeypatch.setattr(module, "train_epoch", looked)
    distill(tiny(method="bsm", epochs=1, deterministic=True), out=tmp_path, verbose=False)
    assert seen == [True] and not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(WorkError) as caught, deterministic(True):
        raise RuntimeError("f_cuda does not have a deterministic implementation. Set ...")
    assert str(caught.value) == (
        "deterministic: f_cuda does not have a deterministic implementation; use device=cpu or "
        "deterministic=false"
    )


def test_in_bfloat16_the_task_head_answers_by_the_weights_it_has(monkeypatch):
    """Autocast keeps a cast of what is trained: prompt training must not stay with its first."""
    forward, apart = TaskHead.forward, []

    def compared(head, features):
        batches = head.batches
        answer = forward(head, features)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            head.batches = batches
            expected = forward(head, features.float())
            apart.append(float((answer.float() - expected).abs().max()))
        return answer

    monkeypatch.setattr(TaskHead, "forward", compared)
    setup, state = built(
        precision="bf16-mixed",
        objectives={"task": 1.0},
        prompt_steps=20,
        prompt_learning_rate=0.05,
    )
    train_prompt_before_epoch(state, setup)
    assert len(apart) >= 20
    # Rounding to 8 bits of logits of about 3; with the first weights it is off by over 0.3.
    assert max(apart) < 0.05


# --- progress ---


def test_short_epochs_get_few_lines(tmp_path, capsys):
    distill(tiny(method="bsm", epochs=6), out=tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert lines[-1].startswith("bsm seed 0: epoch 6 of 6, loss ")
    assert len(lines) == 2  # the first and the last


def test_long_epochs_say_how_far_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fopro_lab.io.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("fopro_lab.io.LINE_SECONDS", 0.0)
    distill(tiny(epochs=1, prompt_steps=3), out=tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch 1 of 1, " in line]
    assert any("epoch 1 of 1, prompt step: 1 of 3" in line for line in lines)
    assert any("epoch 1 of 1, batch: 1 of 3" in line for line in lines)
    assert "epoch 1 of 1, loss " in lines[-1]
