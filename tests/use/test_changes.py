"""Images that two runs answer differently: which are taken, and what their frequencies do."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from fopro_lab.data import prepare
from fopro_lab.evaluation import load_runs
from fopro_lab.evaluation.scores import GROUPS
from fopro_lab.fourier import ring_parts
from fopro_lab.models.student import Student
from fopro_lab.training import distill
from fopro_lab.use import explain_changes
from fopro_lab.use.changes import EDGES, changed_images, grad_cam, ring_attribution
from tests.conftest import refuses
from tests.evaluation.toy_runs import NAMES, predictions, run_of


def test_attribution_of_a_linear_student_is_what_each_ring_adds_to_the_logit():
    images, labels = torch.rand(3, 3, 17, 24, dtype=torch.float64), torch.tensor([1, 0, 1])
    linear = nn.Linear(images[0].numel(), 2, dtype=torch.float64)
    found = ring_attribution(lambda x: linear(x.flatten(1)), images, labels)
    weight = linear.weight[labels].reshape(images.shape).detach()
    wanted = [(weight * part).sum(dim=(1, 2, 3)) for part in ring_parts(images, EDGES)]
    torch.testing.assert_close(found, torch.stack(wanted[-found.shape[1] :], dim=1))
    mean = (weight * images.mean(dim=(2, 3), keepdim=True)).sum(dim=(1, 2, 3))
    logits = linear(images.flatten(1)).gather(1, labels[:, None])[:, 0] - linear.bias[labels]
    torch.testing.assert_close(found.sum(dim=1) + mean, logits.detach())


def test_images_that_one_method_has_right_come_tail_first_then_by_margin():
    table = predictions((4, 3, 2, 1))
    logits = [f"logit_{name}" for name in NAMES]
    table[logits] = 4 * np.eye(4)[table["label"]]  # all right
    other = table.copy()
    for row, size in ((0, 5), (1, 9), (9, 6), (4, 8)):
        other.loc[row, logits] = size * np.eye(4)[(other["label"][row] + 1) % 4]
    table.loc[4, logits] = other.loc[4, logits]  # both wrong
    found = changed_images(run_of(table), run_of(other, method="ce"))
    assert found["image"].tolist() == [f"image_{row:04d}" for row in (9, 1, 0)]
    assert found["bsm"].equals(found["class"]) and found["ce"].tolist() == ["nv", "mel", "mel"]


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory):
    """Return runs of two methods, in a folder of their own."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(trained[0].path, folder / "a")
    config = trained[0].train_config.model_copy(update={"method": "ce", "epochs": 8})
    distill(config, out=folder / "b", verbose=False)
    return load_runs(folder)


def test_changes_of_two_runs_have_their_images_answers_and_rings(runs, trained):
    count = min(5, len(changed_images(*runs)))  # how many there are depends on the processor
    table, images, maps = explain_changes(runs, most=5)
    names = table["image"].unique()
    assert len(table) == count * 2 * 9 and len(images) == len(names) == count > 0
    right = table.pivot_table(index="image", columns="method", values="right")
    assert (right.sum(axis=1) == 1).all()
    places = table.drop_duplicates("image")["group"].map(GROUPS.index)
    assert places.is_monotonic_decreasing, "tail first"
    packed, _ = prepare(trained[0].train_config, progress=False)
    rows = packed.dataset.table.reset_index().set_index("image")["index"][names]
    np.testing.assert_array_equal(images, packed.images[rows])
    for run in runs:
        own = table[table["method"] == run.method].drop_duplicates("image").set_index("image")
        test = run.predictions.set_index("image").loc[names]
        answers = test.filter(like="logit_").to_numpy().argmax(axis=1)
        assert own["answered"].tolist() == [run.class_names[answer] for answer in answers]
    assert table.groupby(["image", "method"])["attribution"].std().gt(0).all()
    assert all(each.shape == (count, 32, 32) for each in maps)


def test_runs_without_a_pair_students_or_changes_are_refused(runs, tmp_path):
    refuses(
        "expected students of two methods, with other answers, got a$", explain_changes, runs[:1]
    )
    refuses("expected students .* got none", explain_changes, [])
    for run in runs:
        shutil.copytree(run.path, tmp_path / run.name)
    (tmp_path / "b/student.safetensors").unlink()
    refuses("b: ce has no student of its own", explain_changes, load_runs(tmp_path))
    twin = type(runs[0])(runs[1].path, runs[1].manifest)
    twin.__dict__["predictions"] = runs[0].predictions
    refuses("with other answers, got a, b", explain_changes, [runs[0], twin])


def test_grad_cam_is_the_weighted_sum_of_the_last_maps():
    pytest.importorskip("pytorch_grad_cam")  # the extra cam
    first = nn.Conv2d(3, 3, 1)
    nn.init.dirac_(first.weight)
    nn.init.zeros_(first.bias)
    backbone = nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    how = {"width": 3, "classes": 2, "teacher_dim": 0, "mean": [0] * 3, "std": [1] * 3}
    student, images = Student(backbone, **how).eval(), torch.rand(2, 3, 8, 8)
    labels = torch.tensor([1, 0])
    found = grad_cam(student, images, labels)
    weight = student.classifier.weight.detach()[labels][:, :, None, None]
    wanted = (weight * images).sum(dim=1).relu()
    wanted = wanted - wanted.amin(dim=(1, 2), keepdim=True)
    wanted = wanted / wanted.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
    tokens = nn.Sequential(first, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    assert np.isnan(grad_cam(Student(tokens, **how).eval(), images, labels)).all()
