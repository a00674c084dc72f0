from pathlib import Path

import numpy as np
import pytest
import torch

from fopro_lab.config import DataConfig, TeacherConfig, read_yaml
from fopro_lab.data import open_dataset, pack
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import load_teacher
from fopro_lab.widgets import BandExplorer, DatasetChooser, open_explorer
from fopro_lab.widgets.bands import short_entry

WEIGHTS = Path(__file__).resolve().parents[4] / "shared/weights"


@pytest.fixture
def chooser(prepared, tmp_path):
    built = []

    def another():
        built.append("b")
        packed = pack(open_dataset("phantom", images=48), 16)
        return BandExplorer(
            packed, rings=3, pins=tmp_path / "pins", configs=[DataConfig(images=48)]
        )

    def missing():
        raise InputError("nowhere: no such folder")

    def other_rings():
        return BandExplorer(prepared.packed, rings=2)

    first = BandExplorer(prepared.packed, rings=3, pins=tmp_path / "pins")
    others = {"b": another, "nowhere": missing, "coarse": other_rings}
    found = DatasetChooser(first, name="a", others=others)
    found.built = built
    return found


def test_bands_of_each_colour_stay_when_another_data_set_is_chosen(chooser):
    first = chooser.explorer
    first.controls.channel.value = 1
    first.sliders[1].value = 0.5
    chooser.dataset.value = "b"
    second = chooser.explorer
    assert second is not first and second.pack.size == 16 and chooser.children[-1] is second
    assert second.state.gains[1, 1] == 0.5 and (np.delete(second.state.gains, 1, 0) == 1).all()
    assert (
        second.view.after.shape == (16, 16, 3) and (second.view.after != second.view.before).any()
    )
    assert second.controls.channel.value == 1, "the colour stays"
    second.sliders[0].value = 2.0
    chooser.dataset.value = "a"
    assert chooser.explorer is first and first.state.gains[:, 0].tolist() == [1.0, 2.0, 1.0]
    chooser.dataset.value = "b"
    assert chooser.built == ["b"], "what was built is kept"


def test_bump_prompt_and_phases_stay_as_well(chooser):
    controls = chooser.explorer.controls
    controls.mode.value = "bump"
    controls.centre.value, controls.width.value, controls.height.value = 0.3, 0.2, 3.0
    controls.phase_lock.value = False
    chooser.dataset.value = "b"
    controls = chooser.explorer.controls
    assert (controls.centre.value, controls.width.value, controls.height.value) == (0.3, 0.2, 3.0)
    assert controls.mode.value == "bump" and not controls.phase_lock.value
    chooser.explorer.controls.phase_lock.value = True
    prompt = FourierPrompt("ring", rings=2, size=16)
    torch.nn.init.constant_(prompt.cells, 0.3)
    chooser.explorer.state.take(prompt)
    chooser.explorer.controls.mode.value = "prompt"
    chooser.dataset.value = "a"
    assert chooser.explorer.controls.mode.value == "prompt"
    assert chooser.explorer.state.prompt is prompt


def test_what_cannot_be_opened_is_said_and_the_first_stays(chooser):
    first = chooser.explorer
    chooser.dataset.value = "nowhere"
    assert chooser.explorer is first and chooser.dataset.value == "a"
    assert "nowhere: no such folder" in chooser.message.value
    chooser.dataset.value = "coarse"
    assert chooser.dataset.value == "a" and "rings: expected 2, got 3" in chooser.message.value
    chooser.dataset.value = "b"
    assert chooser.message.value == ""


def test_without_another_data_set_there_is_no_choice_and_a_still(prepared):
    explorer = BandExplorer(prepared.packed, rings=2)
    chooser = DatasetChooser(explorer, name="a", others={})
    assert list(chooser.children) == [explorer]
    assert chooser._repr_mimebundle_()["image/png"] == explorer._repr_mimebundle_()["image/png"]


def test_a_pin_names_the_data_set_and_the_teacher_that_are_chosen(chooser, prepared, tmp_path):
    chooser.dataset.value = "b"
    assert chooser.explorer.pin("b")
    assert read_yaml(tmp_path / "pins/b.yaml")["images"] == 48
    teachers = {"builtin": load_teacher("builtin"), "cifar-resnet20": load_teacher("builtin")}
    configs = [DataConfig(images=24), TeacherConfig(teacher_size=32)]
    explorer = BandExplorer(
        prepared.packed, teacher=teachers, rings=2, configs=configs, pins=tmp_path / "pins"
    )
    assert explorer.pin("first")
    explorer.controls.teacher.value = "cifar-resnet20"
    assert explorer.pin("second")
    first, second = (read_yaml(tmp_path / f"pins/{name}.yaml") for name in ("first", "second"))
    chooser = DatasetChooser(explorer, name="a", others={"b": lambda: BandExplorer(
        prepared.packed, teacher=teachers, rings=2
    )})  # fmt: skip
    chooser.dataset.value = "b"
    assert chooser.explorer.controls.teacher.value == "cifar-resnet20", "the teacher stays"
    assert first["teacher_size"] == 32 and "teacher" not in first
    assert second["teacher"] == "cifar-resnet20" and "teacher_size" not in second
    assert first["images"] == second["images"] == 24


def test_a_fault_of_any_kind_leaves_the_name_of_what_is_shown(prepared):
    def broken():
        raise MemoryError("no room")

    chooser = DatasetChooser(BandExplorer(prepared.packed, rings=2), name="a", others={"b": broken})
    chooser.dataset.value = "b"
    assert chooser.dataset.value == "a" and "no room" in chooser.message.value


def test_a_teacher_beside_the_first_comes_with_its_weights_and_so_does_its_pin(tmp_path):
    file = next(iter(sorted(WEIGHTS.glob("resnet20-*.th"))), None)
    if file is None:
        pytest.skip("no weights of CIFAR ResNets")
    entry = f"cifar-resnet20={file}"
    config = DataConfig(images=48, image_size=32)
    given = {"rings": 2, "pins": tmp_path}
    chooser = open_explorer(config, TeacherConfig(), more_teachers=[entry], **given)
    controls = chooser.explorer.controls
    assert controls.teacher.options == (("builtin", "builtin"), (short_entry(entry), entry))
    controls.teacher.value = entry
    chooser.explorer.followers.flush()
    assert f"cifar-resnet20, {file.name}" in chooser.explorer.followers.drift.value
    assert chooser.explorer.pin("a")
    pinned = read_yaml(tmp_path / "a.yaml")
    assert pinned["teacher"] == "cifar-resnet20" and pinned["weights"] == str(file.resolve())
    with pytest.raises(InputError, match="cifar-resnet20 comes without any; give their file"):
        open_explorer(config, TeacherConfig(), more_teachers=["cifar-resnet20"])
