import base64
import json
import shutil
from dataclasses import replace

import ipywidgets
import numpy as np
import pytest
import torch

from fopro_lab.config import DataConfig, TeacherConfig, TrainConfig, read_yaml
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import load_teacher
from fopro_lab.training import distill
from fopro_lab.widgets import BandExplorer
from tests.lab.widgets.conftest import KNOBS

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def explorer(prepared, tmp_path):
    return BandExplorer(prepared.packed, rings=3, pins=tmp_path / "pins")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = TrainConfig(method="bsm", epochs=1, threads=1, **KNOBS)
    return distill(config, out=tmp_path_factory.mktemp("runs") / "bsm", verbose=False)


@pytest.fixture
def asked(prepared, run):
    return BandExplorer(
        prepared.packed, split=prepared.split, rings=3,
        teacher={"first": load_teacher("builtin"), "second": load_teacher("builtin")},
        runs={"student": run.path},
    )  # fmt: skip


def test_explorer_follows_a_slider_at_once(explorer):
    before = explorer.images.value, explorer.profile.value
    explorer.sliders[1].value = 2.0
    assert explorer.gains == [1.0, 2.0, 1.0, 1.0]
    assert explorer.view.contrast[1].max() > explorer.view.contrast[0].max() / 2
    assert explorer.images.value != before[0] and explorer.profile.value != before[1]


def test_explorer_back_at_one_shows_what_it_showed(explorer):
    before = explorer.images.value, explorer.profile.value
    explorer.sliders[0].value = 0.0
    assert "Changed by 0.0000" not in explorer.readout.value
    explorer.sliders[0].value = 1.0
    assert (explorer.images.value, explorer.profile.value) == before


def test_presets_redraw_once(explorer, monkeypatch):
    drawn = []
    look = explorer._lens.look
    monkeypatch.setattr(explorer._lens, "look", lambda *a, **k: drawn.append(1) or look(*a, **k))
    explorer.controls.ring.value = 1
    explorer.controls.buttons["low-pass"].click()
    assert explorer.gains == [1.0, 1.0, 0.0, 0.0] and len(drawn) == 1
    for name, gains in {"high-pass": [0, 1, 1, 1], "remove": [1, 0, 1, 1],
                        "amplify": [1, 2, 1, 1], "identity": [1, 1, 1, 1]}.items():  # fmt: skip
        explorer.controls.buttons[name].click()
        assert explorer.gains == gains


def test_another_image_keeps_the_gains(explorer):
    explorer.sliders[2].value = 3.0
    before = explorer.view.before
    explorer.image.value = explorer.image.options[1][1]
    assert (explorer.view.before != before).any() and explorer.gains[2] == 3.0


def test_bump_has_centre_width_and_gain(explorer):
    controls = explorer.controls
    controls.mode.value = "bump"
    assert controls.bands["rings"].layout.display == "none" != controls.bands["bump"].layout.display
    controls.height.value, controls.centre.value, controls.width.value = 0.0, 0.25, 0.125
    gain = explorer.state.change().gain[0, 0]  # along the width; column k is k / 32
    assert gain[8] < 0.02 and gain[16] > 0.9 and gain[1] > 0.9
    assert abs(gain[6] - 0.5) < 0.1 and abs(gain[10] - 0.5) < 0.1  # half at half the width
    controls.buttons["identity"].click()
    assert controls.mode.value == "rings" and (explorer.view.before == explorer.view.after).all()


def test_one_colour_moves_alone_and_all_move_together(explorer):
    controls = explorer.controls
    controls.channel.value = 0
    explorer.sliders[0].value = 3.0
    changed = (explorer.view.before != explorer.view.after).any(axis=(0, 1))
    assert changed.tolist() == [True, False, False]
    controls.channel.value = 1
    assert explorer.gains[0] == 1.0
    controls.channel.value = -1
    assert explorer.gains[0] == pytest.approx(5 / 3, abs=1e-5)
    assert explorer.state.gains[:, 0].tolist() == [3.0, 1.0, 1.0]
    explorer.sliders[0].value = 2.0
    assert explorer.state.gains[:, 0].tolist() == [2.0, 2.0, 2.0]


def test_phase_lock_off_scrambles_what_is_changed_and_cannot_be_pinned(explorer):
    explorer.sliders[0].value = 2.0
    locked = explorer.view
    explorer.controls.phase_lock.value = False
    assert (explorer.view.after != locked.after).any()
    np.testing.assert_allclose(explorer.view.contrast, locked.contrast)
    assert not explorer.pin("loose") and "phase lock: expected on" in explorer.message.value


def test_teacher_and_student_follow_and_are_pending_until_then(asked):
    assert asked.followers.pending and "updating" in asked.followers.drift.value
    asked.flush()
    assert " 0.0000 here, mean of 16: 0.0000" in asked.followers.drift.value
    assert asked.controls.student.value == "student", "who names a student wants to see it"
    asked.sliders[0].value = 0.0
    assert asked.followers.pending and 'aria-busy="true"' in asked.followers.words.value
    asked.flush()
    answer = asked.followers.answer
    assert not asked.followers.pending and "updating" not in asked.followers.words.value
    assert answer.drift[0] > 1e-4 and f"{answer.drift[0]:.4f}" in asked.followers.drift.value
    assert len(answer.student.top) == 3 and answer.student.recalls["n"].sum() > 8
    assert asked.followers.response.value[1:4] == b"PNG"
    asked.controls.teacher.value = "second"
    asked.flush()
    assert "Teacher second" in asked.followers.drift.value


def test_student_is_asked_as_it_predicts(prepared, run, monkeypatch):
    """Of all validation images it finds as many as its own table of predictions says."""
    monkeypatch.setattr("fopro_lab.widgets.networks.PER_CLASS", 0)
    explorer = BandExplorer(prepared.packed, split=prepared.split, runs={"student": run.path})
    explorer.controls.student.value = "student"
    explorer.flush()
    recalls = explorer.followers.answer.student.recalls
    val = run.predictions[run.predictions["split"] == "val"]
    logits = val.drop(columns=["image", "split", "label"]).select_dtypes("number").to_numpy()
    own = logits[:, -len(run.class_names) :].argmax(axis=1) == val["label"].to_numpy()
    assert recalls["n"].sum() == len(val)
    assert recalls["before"].sum() == recalls["after"].sum() == own.sum()


def test_student_of_another_split_is_refused(prepared, run):
    wrong = replace(prepared.split, fingerprint="another")
    with pytest.raises(InputError, match="expected a student of the split shown"):
        BandExplorer(prepared.packed, split=wrong, runs={"student": run.path})


def test_of_several_students_those_that_fit_are_offered_and_the_others_told(
    prepared, run, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"split_fingerprint": "else"}))
    runs = {"other": other, "student": run.path}
    explorer = BandExplorer(prepared.packed, split=prepared.split, runs=runs)
    assert [name for name, _ in explorer.controls.student.options] == ["student", "none"]
    assert "1 run left out; the first: " in explorer.message.value
    prompt = FourierPrompt("ring", rings=8, size=32)
    with_prompt = BandExplorer(prepared.packed, split=prepared.split, runs=runs, prompt=prompt)
    assert "1 run left out; the first: " in with_prompt.message.value


def test_pin_and_load_bring_the_same_bands_back(explorer):
    explorer.knobs = {"images": 160}
    for slider, gain in zip(explorer.sliders, [0.0, 1.35, 4.0, 0.2], strict=True):
        slider.value = gain
    before, shown = explorer.gains, explorer.images.value
    explorer.controls.name.value = "low"
    explorer.controls.pin.click()
    assert "reports/plans/pinned.yaml -f pins/low.yaml" in explorer.message.value
    assert "fopro train -f pins/low.yaml" in explorer.message.value
    explorer.controls.buttons["identity"].click()
    explorer.controls.path.value = str(explorer.pins / "low.yaml")
    explorer.controls.load.click()
    assert explorer.gains == before and explorer.images.value == shown
    assert "explains 100% of its log gain" in explorer.message.value
    assert not explorer.pin("low") and "is there already" in explorer.message.value
    assert sorted(path.name for path in explorer.pins.iterdir()) == ["low.safetensors", "low.yaml"]


def test_pinned_colours_and_bumps_are_what_was_shown(explorer):
    controls = explorer.controls
    controls.channel.value = 2
    explorer.sliders[1].value = 3.0
    assert explorer.pin("blue")
    prompt = FourierPrompt.load(explorer.pins / "blue.safetensors")
    torch.testing.assert_close(prompt.mean_gain(size=(32, 32)), explorer.state.change().gain)
    controls.mode.value = "bump"
    controls.height.value = 3.0
    gain = explorer.state.change().gain
    assert explorer.pin("bump") and explorer.load(explorer.pins / "bump.safetensors")
    controls.mode.value = "prompt"
    torch.testing.assert_close(explorer.state.change().gain, gain)


def test_pin_is_taken_by_training(prepared, tmp_path):
    configs = [DataConfig(**KNOBS), TeacherConfig(teacher_size=32)]
    explorer = BandExplorer(prepared.packed, rings=3, configs=configs, pins=tmp_path)
    explorer.controls.buttons["remove"].click()
    assert explorer.pin("a")
    knobs = read_yaml(tmp_path / "a.yaml")
    assert knobs.items() >= {**KNOBS, "teacher_size": 32}.items() and "method" not in knobs
    config = TrainConfig.from_mapping({**knobs, "epochs": 1, "threads": 1})
    trained = distill(config, out=tmp_path / "run", verbose=False)
    gain = trained.prompt().mean_gain(size=(32, 32))
    torch.testing.assert_close(gain, explorer.state.change().gain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", "expected a path to a saved prompt or a pin, got none"),
        ("nowhere.safetensors", "nowhere.safetensors: no such file"),
        ("nowhere.yaml", "nowhere.yaml: no such file"),
        (__file__, "expected a safetensors file"),
    ],
)
def test_a_bad_prompt_file_is_one_line_and_breaks_nothing(explorer, path, line):
    explorer.sliders[0].value = 2.0
    explorer.controls.path.value = path
    explorer.controls.load.click()
    assert line in explorer.message.value and "<br>" not in explorer.message.value
    assert explorer.gains == [2.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a" * 65])
def test_a_bad_name_is_no_pin(explorer, name):
    assert not explorer.pin(name)
    assert "name: expected letters, digits" in explorer.message.value
    assert not explorer.pins.exists()


def test_a_folder_that_cannot_be_written_is_one_line(explorer, tmp_path):
    (tmp_path / "file").touch()
    explorer.pins = tmp_path / "file"
    assert not explorer.pin("a") and str(tmp_path / "file") in explorer.message.value


def test_where_nobody_is_asked_any_more_the_old_answer_goes(prepared, run):
    explorer = BandExplorer(prepared.packed, split=prepared.split, runs={"student": run.path})
    explorer.followers.flush()
    assert "Student" in explorer.followers.words.value
    explorer.controls.student.value = explorer.controls.student.options[-1][1]
    explorer.followers.flush()
    assert "Student" not in explorer.followers.words.value


def test_learned_prompt_sets_the_sliders_and_is_shown_whole(prepared):
    prompt = FourierPrompt("shared", size=32, max_log_gain=0.7)
    with torch.no_grad():
        prompt.cells.normal_(generator=torch.Generator().manual_seed(0))
    explorer = BandExplorer(prepared.packed, rings=3, prompt=prompt)
    assert "explains" in explorer.message.value and explorer.gains != [1.0] * 4
    rings = explorer.images.value
    explorer.controls.mode.value = "prompt"
    whole = prompt(explorer.image[None])[0].detach().clamp(0, 1) * 255
    shown = explorer.view.after.astype(int)
    assert abs(shown - whole.round().permute(1, 2, 0).numpy()).max() <= 1
    assert explorer.images.value != rings


def test_without_a_learned_prompt_its_mode_is_not_taken(explorer):
    explorer.controls.mode.value = "prompt"
    assert explorer.controls.mode.value == "rings" and "load one first" in explorer.message.value
    explorer.controls.buttons["learned prompt"].click()
    assert explorer.gains == [1.0] * 4


def test_a_still_takes_its_place_where_there_is_no_front_end(asked):
    bundle = asked._repr_mimebundle_()
    assert WIDGET in bundle
    assert base64.b64decode(bundle["image/png"])[1:4] == b"PNG"
    titles = [ax.get_title() for ax in asked.still().axes if ax.get_title()]
    assert len(titles) == 1 + 2 * 4 and titles[0].startswith("as it is\ndrift 0.0000\nrecall ")
    asked.sliders[0].value = 0.5
    assert any(ax.get_title().startswith("as set") for ax in asked.still().axes)


def test_every_control_has_a_description_and_a_class(asked):
    found = []
    stack = list(asked.children)
    while stack:
        widget = stack.pop()
        stack += getattr(widget, "children", ())
        if isinstance(widget, ipywidgets.DOMWidget) and hasattr(widget, "description"):
            if not isinstance(widget, ipywidgets.HTML):
                found.append(widget)
    assert len(found) > 20
    assert all(w.description and any(c.startswith("fopro-") for c in w._dom_classes) for w in found)


def test_a_row_that_there_is_not_is_refused(prepared):
    with pytest.raises(InputError, match=r"rows: expected up to 200, from 0 to 159, got \[160\]"):
        BandExplorer(prepared.packed, rows=[160])
