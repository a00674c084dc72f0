"""Teachers and images that are objects or the user's own code, in place of names."""

import json
import re
import sys
from dataclasses import replace

import pytest
import timm
import torch

from fopro_lab.config import TeacherConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.models import load_from, load_teacher, wrap_teacher
from fopro_lab.training import distill
from tests.conftest import complaint, refuses
from tests.models.toys import RULES, norm_body, norm_teacher, save_timm

OPTIONS = {"images": 90, "image_size": 16, "epochs": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def prepared():
    return prepare(TrainConfig(**OPTIONS))


def test_a_wrapped_network_is_distilled_and_the_manifest_has_its_hash(tmp_path, prepared):
    config, (packed, split) = TrainConfig(method="ekd", **OPTIONS), prepared
    how = {"out": tmp_path, "packed": packed, "split": split, "verbose": False}
    run = distill(config, teacher=norm_teacher(seed=1), **how)
    manifest = run.manifest
    assert run.state == "done" and manifest["given"] == ["teacher", "packed"]
    assert manifest["teacher_sha256"] == manifest["teacher"]["state_sha256"]
    assert manifest["config"]["teacher"] == "wrapped"
    # The same network again finds the run; one number changed is another teacher.
    assert distill(config, teacher=norm_teacher(seed=1), **how).manifest == manifest
    other = norm_teacher(seed=1)
    next(other.body.parameters()).data[0, 0, 0, 0] += 1e-3
    assert "another teacher_sha256" in complaint(distill, config, teacher=other, **how)


def test_a_teacher_that_resizes_otherwise_is_another(tmp_path, prepared):
    config = TrainConfig(method="ekd", **OPTIONS)
    given = {"packed": prepared[0], "split": prepared[1], "out": tmp_path, "verbose": False}

    def teacher(**rules):
        return wrap_teacher(norm_body(), **RULES | {"input_size": 24, "resize": True} | rules)

    first = distill(config, teacher=teacher(), **given)
    for rules in ({"input_size": 32}, {"interpolation": "bicubic"}, {"resize": False}):
        told = complaint(distill, config, teacher=teacher(**rules), **given)
        assert "how the teacher resizes images has changed" in told
    # A run from before this was compared has the rules in the teacher's card.
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("teacher_rules") == "to 24 px, bilinear"
    path.write_text(json.dumps(manifest))
    assert distill(config, teacher=teacher(), **given).state == first.state == "done"
    assert "another teacher_rules" in complaint(
        distill, config, teacher=teacher(input_size=32), **given
    )


def test_an_object_of_the_published_name_is_hashed_as_the_object(tmp_path, prepared, monkeypatch):
    monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / "nothing is fetched"))
    config, teacher = TrainConfig(method="ekd", **OPTIONS), norm_teacher(seed=1)
    teacher.name = "moco-v2-resnet50"
    given = {"packed": prepared[0], "split": prepared[1], "verbose": False}
    run = distill(config, out=tmp_path / "run", teacher=teacher, **given)
    assert "teacher_sha256" in run.manifest and "weights_sha256" not in run.manifest
    # The config of this name names another teacher, and so does an object for a run of the name.
    teacher.name = "builtin"
    for out, first, then in (("a", teacher, None), ("b", None, teacher)):
        distill(config, out=tmp_path / out, teacher=first, **given)
        told = complaint(distill, config, out=tmp_path / out, teacher=then, **given)
        assert "another teacher_sha256" in told


def test_objects_that_do_not_belong_are_refused(tmp_path, prepared):
    packed, split = prepared
    ekd, ce = (TrainConfig(method=method, **OPTIONS) for method in ("ekd", "ce"))
    out = {"out": tmp_path, "verbose": False}
    assert "packed" in complaint(distill, ekd, split=split, **out)
    told = complaint(distill, ekd.model_copy(update={"image_size": 32}), packed=packed, **out)
    assert told == "packed: expected images of image_size=32 px, got 16"
    assert "method ce has none" in complaint(distill, ce, teacher=norm_teacher(), **out)
    far = replace(split, test=split.test + len(packed))
    assert "split: expected rows below 90" in complaint(
        distill, ce, packed=packed, split=far, **out
    )
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_cannot_take_the_images_is_found_before_they_are_decoded(
    tmp_path, monkeypatch
):
    path = tmp_path / "a.pth"
    monkeypatch.setattr("fopro_lab.training.setup.prepare", lambda *a, **k: pytest.fail("decoded"))
    # A network that takes images as they come, and of this size none.
    torch.save(timm.create_model("inception_v3", num_classes=0).state_dict(), path)
    options = {"teacher": "timm:inception_v3", "weights": str(path)}
    config = TrainConfig(method="ekd", **OPTIONS | options)
    told = complaint(distill, config, out=tmp_path / "run", verbose=False)
    assert told.startswith("teacher timm:inception_v3: cannot encode images of 16 px (RuntimeError")
    assert "its own of 299 px, is set by teacher_size" in told


CODE = """
import torch
from torch import nn
from fopro_lab.models import wrap_teacher

RULES = {"mean": [0.5] * 3, "std": [0.2] * 3, "input_size": 16}

def network(width=4):
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def wrapped(): return wrap_teacher(network(), **RULES)
def pair(): return network(), RULES
def bare(): return network()
def fails(): return 1 / 0
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "own_net"})


@pytest.mark.parametrize("function", ["wrapped", "pair"])
def test_a_function_of_the_users_own_gives_a_teacher(own_code, function):
    teacher = load_from(TeacherConfig(teacher=f"own_net:{function}", teacher_size=24))
    assert (teacher.feature_dim, teacher.input_size, teacher.resize) == (4, 24, True)
    assert teacher.card["called"] == teacher.name == f"own_net:{function}"
    assert len(teacher.card["state_sha256"]) == 64 and len(teacher.card["reference"]) == 4


def test_a_function_that_gives_no_teacher_is_one_line(own_code):
    for name, words in (
        ("own_net:bare", "expected a Teacher, or a network and a dictionary with mean, std and"),
        ("own_net:fails", r"cannot be called \(ZeroDivisionError: division by zero\)"),
        ("no_such:function", "cannot be called .*: No module named 'no_such'"),
    ):
        refuses(f"^teacher {name}: .*{words}", load_teacher, name)


def test_check_names_the_teacher_first(fopro, tmp_path):
    save_timm(tmp_path / "a.pth", "test_resnet")
    code, out, _ = fopro("teachers", "check", "timm:test_resnet", f"weights={tmp_path / 'a.pth'}")
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert code == 0 and lines["keys matched"] == "75" and "reference" in lines
    assert "mean architecture" in lines["rules of"] and not set('{}[]"') & set(out)
    assert max(map(len, out.splitlines())) <= 100  # a hash is not broken
