"""Refinements of finished runs, against slow float64 references and known answers."""

import importlib
import json
import shutil
from itertools import product
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from fopro_lab.config import RefineConfig, TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.data.batches import draw_augmentations
from fopro_lab.evaluation import compare, load_runs, write_predictions
from fopro_lab.evaluation.prior_shift import refined_prior
from fopro_lab.io import sha256_file, write_json
from fopro_lab.models import Student
from fopro_lab.training import TrainedRun, distill, refine
from fopro_lab.training.run_folder import hash_files
from tests.conftest import refuses
from tests.training.forked import TINY

module = importlib.import_module("fopro_lab.training.refine")
OPTIONS = TINY | {"images": 96, "epochs": 1, "augment": "none"}


def tiny(**options: object) -> TrainConfig:
    return TrainConfig.from_mapping(OPTIONS | options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[TrainedRun]:
    """Cross-entropy of two seeds, on one split."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        distill(tiny(method="ce", seed=s), out=folder / f"ce-{s}", verbose=False) for s in (0, 1)
    ]


def table_of(run):
    """Return labels, logits and where validation is, the images in one order."""
    table = run.predictions.sort_values(["split", "image"], ignore_index=True)
    logits = table.filter(like="logit_").to_numpy()
    return table["label"].to_numpy(), logits, (table["split"] == "val").to_numpy()


def admit_changes(run):
    """Let a run's manifest hold the hashes of files that a test has changed."""
    write_json(run.path / "manifest.json", run.manifest | {"files": hash_files(run.path)})


def state_of(run):
    return load_file(run.path / "student.safetensors")


def softmax(logits):
    """Slow and plain, in float64."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def by_hand(run, how, tau):
    """Change logit by logit."""
    logits = table_of(run)[1]
    counts, weight = run.manifest["class_counts"], state_of(run)["classifier.weight"].double()
    moved = logits.copy()
    for row, k in product(range(len(logits)), range(len(counts))):
        if how == "tau-norm":
            moved[row, k] = logits[row, k] / float((weight[k] ** 2).sum()) ** (tau / 2)
        else:
            moved[row, k] = logits[row, k] - tau * np.log(counts[k] / sum(counts))
    return moved


@pytest.mark.parametrize("how", ["logit-adjustment", "tau-norm"])
def test_a_given_tau_does_what_its_formula_says_and_0_nothing(runs, tmp_path, how):
    found = refine(runs[:1], RefineConfig(how=how, tau=0.7), out=tmp_path / "a")
    # Natural for another logarithm, or a norm squared, is off by over 0.01.
    np.testing.assert_allclose(table_of(found)[1], by_hand(runs[0], how, 0.7), rtol=0, atol=1e-9)
    # The student in the folder says the same, in single precision.
    packed, split = prepare(runs[0].train_config, progress=False)
    (images, _), *_ = batches(packed, split.val, batch_size=len(split.val))
    with torch.no_grad():
        answers = found.student().classify(images).numpy()
    shown = found.predictions.set_index(["split", "image"]).filter(like="logit_").loc["val"]
    shown = shown.loc[packed.dataset.table["image"].iloc[split.val]]
    np.testing.assert_allclose(answers, shown, rtol=0, atol=1e-4)
    still = refine(runs[:1], RefineConfig(how=how, tau=0), out=tmp_path / "b")
    np.testing.assert_array_equal(table_of(still)[1], table_of(runs[0])[1])
    assert all(torch.equal(v, state_of(still)[n]) for n, v in state_of(runs[0]).items())
    assert found.manifest["refined"]["tau_chosen"] == "given"


def test_the_prior_that_is_adjusted_for_is_what_was_drawn_and_not_corrected(runs, tmp_path):
    def adjusted(name, **options):
        run = TrainedRun.read(shutil.copytree(runs[0].path, tmp_path / name))
        run.manifest["refined"] = {"steps": options.pop("steps", [])}
        run.manifest["best_epoch"] = options.pop("best_epoch", 1)
        run.manifest["config"] |= options
        config = RefineConfig(how="logit-adjustment", tau=0.7)
        return table_of(refine([run], config, out=tmp_path / f"{name}-la"))[1]

    n = np.array(runs[0].manifest["class_counts"], dtype=float)
    even, root = np.full(len(n), 1 / len(n)), np.sqrt(n) / np.sqrt(n).sum()
    half = {"sampler": "progressive", "epochs": 5, "best_epoch": 3}
    for name, options, share in (
        ("root", {"sampler": "square-root"}, root),
        ("mixed", {"mixup_alpha": 0.25}, 0.8 * n / n.sum() + 0.2 * even),
        ("half", half, 0.5 * n / n.sum() + 0.5 * even),
    ):
        # The shares of training in place of those that were drawn are off by over 0.01.
        expected = table_of(runs[0])[1] - 0.7 * np.log(share)
        np.testing.assert_allclose(adjusted(name, **options), expected, rtol=0, atol=1e-9)
        assert np.abs(np.log(share) - np.log(n / n.sum())).max() > 0.02
    for number, (options, word) in enumerate((
        ({"method": "bsm"}, "bsm"), ({"loss": "class-balanced"}, "class-balanced"),
        ({"sampler": "class-balanced"}, "sampler class-balanced"), ({"steps": ["crt"]}, "crt"),
        ({"sampler": "progressive", "epochs": 5, "best_epoch": 5}, "an even draw of classes"),
        ({"distillation": "dkd"}, "dkd"), ({"loss": "mine:loss"}, "mine:loss"),
    )):  # fmt: skip
        verb = "may have" if ":" in word else "has"
        refuses(f"a prior to adjust for, but {word} {verb} corrected it", adjusted, f"{number}",
                **options)  # fmt: skip


@pytest.mark.parametrize("how", ["logit-adjustment", "tau-norm"])
def test_tau_is_chosen_on_validation_images_alone(runs, tmp_path, how):
    # Test images whose labels are all wrong would ask for another tau, and must not be heard.
    run = TrainedRun.read(shutil.copytree(runs[0].path, tmp_path / "wrong"))
    table = run.predictions.copy()
    test = table["split"] == "test"
    table.loc[test, "label"] = (table.loc[test, "label"] + 1) % len(run.class_names)
    table.to_parquet(run.path / "predictions.parquet")
    admit_changes(run)
    found = [
        refine([each], RefineConfig(how=how), out=tmp_path / f"{n}").manifest["refined"]
        for n, each in enumerate((runs[0], TrainedRun.read(run.path)))
    ]
    labels, _, val = table_of(runs[0])
    scores = [
        balanced_accuracy_score(labels[val], by_hand(runs[0], how, tau)[val].argmax(axis=1))
        for tau in np.arange(41) / 20
    ]
    assert found[0]["tau"] == found[1]["tau"] == pytest.approx(np.argmax(scores) / 20)
    assert found[0]["tau_chosen"] == "balanced accuracy on validation, 41 from 0 to 2"


@pytest.mark.parametrize("how", ["crt", "lws"])
def test_one_step_of_retraining_is_that_of_the_gradient(runs, tmp_path, how):
    packed, split = prepare(runs[0].train_config, progress=False)
    config = RefineConfig(how=how, epochs=1, batch_size=len(split.train), learning_rate=0.5)
    found = refine(runs[:1], config, out=tmp_path / "a")
    drawn: dict = {"sampler": "class-balanced", "shuffle": True, "seed": 0}
    images, labels = next(batches(packed, split.train, batch_size=len(split.train), **drawn))
    with torch.no_grad():
        features = runs[0].student()(images).features.double().numpy()
    old, new = state_of(runs[0]), state_of(found)
    weight, bias = (old[f"classifier.{name}"].double().numpy() for name in ("weight", "bias"))
    if how == "crt":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            start = nn.Linear(weight.shape[1], weight.shape[0])
        weight, bias = (getattr(start, n).detach().double().numpy() for n in ("weight", "bias"))
    logits = features @ weight.T + bias
    error = (softmax(logits) - np.eye(len(bias))[labels.numpy()]) / len(labels)
    if how == "crt":
        weight, bias = weight - 0.5 * error.T @ features, bias - 0.5 * error.sum(axis=0)
    else:
        factor = 1 - 0.5 * (error * logits).sum(axis=0)
        weight, bias = weight * factor[:, None], bias * factor
    # A batch that is not class-balanced is off by over 1e-3.
    np.testing.assert_allclose(new["classifier.weight"], weight, rtol=0, atol=2e-5)
    np.testing.assert_allclose(new["classifier.bias"], bias, rtol=0, atol=2e-5)
    # Nothing else moves, no running statistic either.
    for name, value in old.items():
        assert torch.equal(value, new[name]) == (not name.startswith("classifier.")), name
    assert found.manifest["refined"]["loss"] > 0


def test_retraining_draws_no_image_twice_in_the_same_view(runs, tmp_path, monkeypatch):
    run = TrainedRun.read(shutil.copytree(runs[0].path, tmp_path / "run"))
    run.manifest["config"]["augment"] = "flips"
    seen = []

    def noted(rows, views, **options):
        seen.extend(zip(rows.tolist(), views.tolist(), strict=True))
        return draw_augmentations(rows, views, **options)

    monkeypatch.setitem(draw_augmentations.__globals__, "draw_augmentations", noted)
    refine([run], RefineConfig(how="lws", epochs=3), out=tmp_path / "out")
    assert len(seen) == len({*seen}) > len({row for row, _ in seen})


def test_a_soup_is_the_mean_of_its_students_and_of_one_run_itself(runs, tmp_path):
    alone = refine(runs[:1], RefineConfig(how="soup"), out=tmp_path / "one")
    assert all(torch.equal(v, state_of(alone)[n]) for n, v in state_of(runs[0]).items())
    np.testing.assert_allclose(table_of(alone)[1], table_of(runs[0])[1], rtol=0, atol=1e-5)
    both = state_of(refine(runs, RefineConfig(how="soup"), out=tmp_path / "two"))
    for name, value in state_of(runs[0]).items():
        mean = (value.double() + state_of(runs[1])[name].double()) / 2
        torch.testing.assert_close(both[name].double(), mean, rtol=1e-6, atol=1e-7, msg=name)


def test_an_ensemble_is_the_mean_of_probabilities_and_of_one_run_itself(runs, tmp_path):
    alone = refine([runs[0], runs[0]], RefineConfig(how="ensemble"), out=tmp_path / "one")
    expected = softmax(table_of(runs[0])[1])
    np.testing.assert_allclose(softmax(table_of(alone)[1]), expected, rtol=0, atol=1e-12)
    both = refine(runs, RefineConfig(how="ensemble"), out=tmp_path / "two")
    expected = np.mean([softmax(table_of(run)[1]) for run in runs], axis=0)
    np.testing.assert_allclose(softmax(table_of(both)[1]), expected, rtol=0, atol=1e-12)
    assert both.manifest["student"]["macs"] == 2 * runs[0].manifest["student"]["macs"]
    refuses(r"ce\+ensemble has no student of its own; open .*ce-1", both.student)


class LeftHalf(nn.Module):
    """Mean colour of the left half."""

    def forward(self, images):
        return images[..., : images.shape[-1] // 2].mean(dim=(2, 3))


@pytest.mark.parametrize("flips", ["horizontal", "both"])
def test_flips_change_nothing_where_a_network_does_not_see_them(runs, tmp_path, flips, monkeypatch):
    packed, _ = prepare(runs[0].train_config, progress=False)
    names = runs[0].predictions.sort_values(["split", "image"])["image"]
    rows = packed.dataset.table.reset_index().set_index("image")["index"].loc[names]
    images = next(batches(packed, rows, batch_size=len(rows)))[0]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for body in (pool, LeftHalf()):
        torch.manual_seed(0)
        student = Student(body, width=3, classes=8, teacher_dim=0).eval()
        monkeypatch.setattr(TrainedRun, "student", lambda run, student=student: student)
        folder = tmp_path / type(body).__name__
        found = refine(runs[:1], RefineConfig(how="tta", flips=flips), out=folder)
        views = [images, images.flip(3)] + [images.flip(2), images.flip(2, 3)] * (flips == "both")
        with torch.no_grad():
            shares = [softmax(student.classify(view).double().numpy()) for view in views]
        plain, shown = shares[0], softmax(table_of(found)[1])
        np.testing.assert_allclose(shown, np.mean(shares, axis=0), rtol=0, atol=1e-6)
        assert (np.abs(shown - plain).max() < 1e-6) == (body is pool)
    passes = 4 if flips == "both" else 2
    assert found.manifest["student"]["macs"] == passes * runs[0].manifest["student"]["macs"]


def test_a_refinement_is_a_run_with_its_own_method_and_origin(runs, tmp_path, monkeypatch):
    folder = shutil.copytree(runs[0].path.parent, tmp_path / "runs")
    sources = load_runs(folder)
    config = RefineConfig(how="logit-adjustment", tau=1)
    found = refine(sources[:1], config, out=folder / "la")
    refined = found.manifest["refined"]
    assert refined["runs"] == [sources[0].path.as_posix()]
    for name, digest in refined["sha256"][0].items():
        assert sha256_file(sources[0].path / name) == digest
    assert len(refined["sha256"][0]) == 3
    again = refine([found], RefineConfig(how="tta"), out=folder / "la-tta")
    methods = [run.method for run in load_runs(folder)]
    assert methods == ["ce", "ce", "ce+logit-adjustment", "ce+logit-adjustment+tta"]
    table = compare(load_runs(folder), "ce", resamples=20)
    assert list(dict.fromkeys(table["method"])) == methods[2:]
    # The same call returns it, another one and a training are refused.
    assert refine(sources[:1], config, out=folder / "la").manifest == found.manifest
    crt, rule = RefineConfig(how="crt", epochs=1), r"holds another run \(ce\+logit-adjustment\)"
    refuses(rule, refine, sources[:1], crt, out=folder / "la")
    rule = r"holds a refinement \(ce\+logit-adjustment\); choose another --out"
    refuses(rule, distill, tiny(method="ce"), out=folder / "la", verbose=False)
    with monkeypatch.context() as patch:  # interrupted between its files
        patch.setattr(module, "write_predictions", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            refine([again], RefineConfig(how="ensemble"), out=folder / "e")
    assert TrainedRun.read(folder / "e").state == "running"
    last = refine([again], RefineConfig(how="ensemble"), out=folder / "e")
    retrained = refine(sources[:1], crt, out=folder / "crt")
    priors = [refined_prior(run) for run in (sources[0], found, last, retrained)]
    assert priors == ["training", "unknown", "unknown", "uniform"]


def test_what_does_not_belong_together_is_refused(runs, tmp_path):
    def other(name, **options):
        return distill(tiny(**{"method": "ce", **options}), out=tmp_path / name, verbose=False)

    def refused(rule, sources, how, folder="out"):
        refuses(rule, refine, sources, RefineConfig(how=how), out=tmp_path / folder)

    split = other("split", split_seed=1)
    refused("protocol: expected 'phantom.*seed0' as in .*ce-0 for soup", [runs[0], split], "soup")
    even = other("even", sampler="class-balanced")
    rule = "sampler: expected 'instance' as in .*ce-0 for ensemble, got 'class-balanced'"
    refused(rule, [runs[0], even], "ensemble")
    small = other("small", student_size=16, image_size=20)
    rule = "student_size: expected 0 as in .*ce-0 for soup, got 16"
    refused(rule, [runs[0], small], "soup")
    refused("runs: expected one for crt, got 2", runs, "crt")
    refused("how: expected one of logit-adjustment, .*tta, got none", runs[:1], "")
    taught = other("ekd", method="ekd")
    refused("expected students with the same tensors", [runs[0], taught], "soup", "soup")
    both = refine([runs[0], taught], RefineConfig(how="ensemble"), out=tmp_path / "out")
    assert both.method == both.manifest["method"] == "ce&ekd+ensemble"
    assert refined_prior(both) == "unknown"
    refused(r"tta needs a student, and ce&ekd\+ensemble has none", [both], "tta")
    copied = shutil.copytree(runs[0].path, tmp_path / "copied") / "manifest.json"
    manifest = json.loads(copied.read_text())
    for change, rule in (
        ({"data_fingerprint": "0" * 64}, "the data set has changed since this run was trained"),
        ({"given": ["packed"]}, "was trained on objects; give packed, and split, from Python"),
        ({"state": "failed"}, "expected a finished run with its predictions"),
    ):
        copied.write_text(json.dumps(manifest | change))
        refused(rule, [TrainedRun.read(copied)], "tta", "tta")
    copied.write_text(json.dumps(manifest))
    tested = runs[0].predictions.query("split == 'test'")
    write_predictions(copied.parent / "predictions.parquet", tested)
    admit_changes(TrainedRun.read(copied))
    rule = "runs: expected predictions of validation images, too, got none"
    refused(rule, [TrainedRun.read(copied)], "tta", "tta")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"how": "soup", "tau": 1}, "expected no tau with how=soup, which has no use for it"),
        ({"how": "tau-norm", "tau": -0.5}, "expected tau of 0 or more, or -1, got -0.5"),
    ],
)
def test_options_fit_what_is_done(options, problem):
    refuses(problem, RefineConfig, **options)


def test_a_student_without_a_bias_cannot_be_adjusted(runs, tmp_path):
    copied = TrainedRun.read(shutil.copytree(runs[0].path, tmp_path / "copied"))
    state = {n: value for n, value in state_of(copied).items() if n != "classifier.bias"}
    save_file(state, copied.path / "student.safetensors")
    admit_changes(copied)
    copied = TrainedRun.read(copied.path)
    rule = "tau-norm needs a classifier with a bias; try crt"
    refuses(rule, refine, [copied], RefineConfig(how="tau-norm"), out=tmp_path / "a")
