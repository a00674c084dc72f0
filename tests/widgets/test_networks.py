import asyncio
import json
import shutil
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import load_teacher
from fopro_lab.training import distill
from fopro_lab.widgets import BandExplorer
from fopro_lab.widgets.networks import Later
from tests.conftest import refuses
from tests.widgets.conftest import OPTIONS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = TrainConfig(method="bsm", epochs=1, threads=1, **OPTIONS)
    return distill(config, out=tmp_path_factory.mktemp("runs") / "bsm", verbose=False)


@pytest.fixture
def explorer(prepared, run):
    return BandExplorer(
        prepared.packed, split=prepared.split, rings=3,
        teacher={"first": load_teacher("builtin"), "second": load_teacher("builtin")},
        runs={"student": run.path},
    )  # fmt: skip


def test_teacher_and_student_follow_and_are_pending_until_then(explorer):
    drift, classes = explorer.networks.drift, explorer.networks.classes
    assert drift.pending and classes.pending
    explorer.flush()
    assert drift.moving["here"] < 1e-6 and drift.moving["n"] == 16
    assert explorer.controls.student.value == "student", "who names a student wants to see it"
    explorer.sliders[0].value = 0.0
    assert drift.pending and classes.pending
    explorer.flush()
    assert not (drift.pending or classes.pending)
    assert drift.moving["here"] > 1e-4
    # one ring of four is removed, as the response measured it on the same images
    response = explorer.equaliser.fixed["response"]
    assert len(response) == 4 and drift.moving["mean"] == pytest.approx(response[0], rel=1e-3)
    rows = classes.moving["rows"]
    assert classes.moving["top"].count(",") == 2 and sum(n for _, n, *_ in rows) > 8
    assert {group for *_, group in rows} == {"head", "medium", "tail"}
    explorer.controls.teacher.value = "second"
    explorer.flush()
    assert drift.moving["title"] == "second"
    explorer.controls.student.value = ""
    explorer.flush()
    assert classes.moving == {}, "the old answer goes"


def test_a_linear_probe_of_the_teacher_names_classes_where_there_is_no_student(prepared):
    teacher = load_teacher("builtin")
    explorer = BandExplorer(prepared.packed, split=prepared.split, rings=3, teacher=teacher)
    assert explorer.controls.student.value == "linear probe of builtin"
    explorer.flush()
    rows = explorer.networks.classes.moving["rows"]
    assert sum(before for _, _, before, _, _ in rows) > sum(n for _, n, *_ in rows) / 4
    assert all(before == after for _, _, before, after, _ in rows)


def test_the_band_that_hurts_a_class_most_is_found_set_and_said(explorer):
    label = int(explorer.pack.labels[explorer.controls.image.value])
    explorer.controls.worst.click()
    explorer.flush()
    recall = explorer.networks.students["student"]
    worst = recall.worst_band(label, explorer.edges)
    gains = [1.0] * 4
    gains[worst.ring] = worst.gain
    said = "hurts most" if abs(worst.probability[0] - worst.probability[1]) >= 0.01 else "hardly"
    assert explorer.gains == gains and said in explorer.message.value
    images = recall.sample.images[recall.sample.labels == label]
    changed = explorer.bands.change().apply(images)
    shares = torch.softmax(recall._classifier()(changed), dim=1)[:, label]
    assert shares.mean().item() == pytest.approx(worst.probability[1], abs=1e-5)
    explorer._tell_worst(worst._replace(probability=(0.5, 0.6)))
    assert "no band hurts" in explorer.message.value
    recall.sample.labels[recall.sample.labels == label] = (label + 1) % 8
    explorer.controls.worst.click()
    explorer.flush()
    assert "expected validation images, got none" in explorer.message.value


def test_student_recognises_as_many_images_as_its_own_predictions_say(prepared, run, monkeypatch):
    monkeypatch.setattr("fopro_lab.widgets.networks.IMAGES_PER_CLASS", 0)  # all of them
    explorer = BandExplorer(prepared.packed, split=prepared.split, runs={"student": run.path})
    explorer.flush()
    rows = explorer.networks.classes.moving["rows"]
    n, before, after = (sum(row[k] for row in rows) for k in (1, 2, 3))
    val = run.predictions[run.predictions["split"] == "val"]
    logits = val.filter(like="logit_").to_numpy()
    own = logits.argmax(axis=1) == val["label"].to_numpy()
    assert n == len(val) and before == after == own.sum()


def test_students_that_fit_are_offered_and_the_others_are_named(prepared, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"split_fingerprint": "else"}))
    runs, prompt = {"other": other, "student": run.path}, FourierPrompt("ring", rings=8, size=32)
    explorer = BandExplorer(prepared.packed, split=prepared.split, runs=runs, prompt=prompt)
    assert [name for name, _ in explorer.controls.student.options] == ["student", "none"]
    assert "1 run left out; the first: " in explorer.message.value
    assert "Prompt loaded (form ring)" in explorer.message.value
    wrong = {"split": replace(prepared.split, fingerprint="another"), "runs": {"s": run.path}}
    refuses("was trained on another split", BandExplorer, prepared.packed, **wrong)


@pytest.mark.parametrize("flush", [False, True])
def test_a_superseded_answer_is_dropped_and_its_work_stops(flush):
    answers, errors, begun, stopped = [], [], threading.Event(), threading.Event()

    def work(x, *, wanted):
        if x == "slow":
            begun.set()
            end = time.monotonic() + 10
            while wanted() and time.monotonic() < end:
                time.sleep(0.005)
            stopped.set()
        return x

    async def move():
        later = Later(answers.append, fail=errors.append, wait=0.01)
        later.ask(partial(work, "slow"))
        while not begun.is_set():  # the loop is free while it is at work
            await asyncio.sleep(0.005)
        later.ask(partial(work, "quick"))
        if flush:
            later.flush()
        while later.pending:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(move(), 20))
    assert stopped.wait(5) and answers == ["quick"] and errors == []


def test_a_failure_is_reported_and_the_next_question_answered():
    answers, errors = [], []
    later = Later(answers.append, fail=errors.append)
    for number in (0, 1):
        later.ask(lambda wanted, x=number: 1 / x)
        later.flush()
    assert answers == [1.0] and len(errors) == 1 and not later.pending
