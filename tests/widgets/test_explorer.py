import base64
import gc
import html
import shlex
import tracemalloc
from functools import partial

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import yaml

from fopro_lab.config import ExploreConfig, TrainConfig
from fopro_lab.data import open_dataset, pack
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import load_teacher
from fopro_lab.options import read_yaml
from fopro_lab.reports.plan import find_plan
from fopro_lab.training import distill
from fopro_lab.widgets import BandExplorer, bands, open_explorer
from tests.widgets.conftest import OPTIONS

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def explorer(prepared, tmp_path):
    return BandExplorer(prepared.packed, rings=3, presets_dir=tmp_path / "presets")


def test_image_spectrum_profile_and_readout_follow_a_slider_at_once(explorer):
    before = shown(explorer)
    explorer.sliders[0].value = 0.0
    assert explorer.gains == [0.0, 1.0, 1.0, 1.0]
    assert explorer.view.contrast[1, 0] < 1e-6 < explorer.view.contrast[0, 0]
    assert "Changed by 0.0000" not in explorer.readout.value
    assert all(now != then for now, then in zip(shown(explorer), before, strict=True))
    explorer.sliders[0].value = 1.0
    assert shown(explorer) == before
    explorer.sliders[2].value = 3.0
    first = explorer.view.before
    explorer.controls.next.click()
    assert (explorer.view.before != first).any() and explorer.gains[2] == 3.0


def shown(explorer):
    """What the panels of images, strip and profile draw."""
    return [
        explorer.images.moving["after"], explorer.images.moving["spectrum"],
        explorer.strip.moving["after"], explorer.equaliser.moving["contrast"],
    ]  # fmt: skip


def test_a_ring_is_dragged_on_the_spectrum_and_a_thumbnail_shown_large(explorer):
    explorer.images.move = [2, 3.25, 1]  # as the browser reports it
    assert explorer.gains == [1, 1, 3.25, 1] and explorer.controls.ring.value == 2
    explorer.images.move = [2, 1, 2]
    assert explorer.gains == [1] * 4
    assert len(explorer.strip.fixed["names"]) == 8
    name = explorer.strip.fixed["names"][3]
    explorer.strip.move = [3, 0, 3]
    assert explorer.controls.image.label.startswith(f"{name}, ")
    assert explorer.strip.moving["chosen"] == 3


def test_presets_set_the_rings_of_the_chosen_one(explorer):
    explorer.controls.ring.value = 1
    for name, gains in {"low-pass": [1, 1, 0, 0], "high-pass": [0, 1, 1, 1],
                        "remove": [1, 0, 1, 1], "amplify": [1, 2, 1, 1],
                        "identity": [1, 1, 1, 1]}.items():  # fmt: skip
        explorer.controls.buttons[name].click()
        assert explorer.gains == gains


def test_bump_has_centre_width_and_gain(explorer):
    controls = explorer.controls
    controls.mode.value = "bump"
    assert controls.bands["rings"].layout.display == "none" != controls.bands["bump"].layout.display
    controls.height.value, controls.centre.value, controls.width.value = 0.0, 0.25, 0.125
    gain = explorer.bands.change().gain[0, 0]  # along the width; column k is k / 32
    assert gain[8] < 0.02 and gain[16] > 0.9 and gain[1] > 0.9
    assert abs(gain[6] - 0.5) < 0.1 and abs(gain[10] - 0.5) < 0.1  # half at half the width
    controls.buttons["identity"].click()
    assert controls.mode.value == "rings" and (explorer.view.before == explorer.view.after).all()


def test_one_colour_changes_alone_and_all_change_together(explorer):
    controls = explorer.controls
    controls.channel.value = 0
    explorer.sliders[0].value = 3.0
    changed = (explorer.view.before != explorer.view.after).any(axis=(0, 1))
    assert changed.tolist() == [True, False, False]
    controls.channel.value = 1
    assert explorer.gains[0] == 1.0
    controls.channel.value = -1
    assert explorer.gains[0] == 1.65  # of 5 / 3, as far as a slider can stand
    assert explorer.bands.gains[:, 0].tolist() == [3.0, 1.0, 1.0]
    explorer.sliders[0].value = 2.0
    assert explorer.bands.gains[:, 0].tolist() == [2.0, 2.0, 2.0]


def test_without_phase_lock_changed_bands_are_scrambled_and_cannot_be_saved(explorer):
    explorer.sliders[0].value = 2.0
    locked = explorer.view
    explorer.controls.phase_lock.value = False
    assert (explorer.view.after != locked.after).any()
    np.testing.assert_allclose(explorer.view.contrast, locked.contrast)
    assert not explorer.save("loose") and "phase lock: expected on" in explorer.message.value


def test_saving_and_loading_bring_the_same_bands_back(explorer):
    for slider, gain in zip(explorer.sliders, [0.0, 1.35, 4.0, 0.2], strict=True):
        slider.value = gain
    before, images = explorer.gains, shown(explorer)
    explorer.controls.name.value = "low"
    explorer.controls.save.click()
    explorer.controls.buttons["identity"].click()
    explorer.controls.path.value = str(explorer.presets_dir / "low.yaml")
    explorer.controls.load.click()
    assert explorer.gains == before and shown(explorer) == images
    assert "explains 100% of its log gain" in explorer.message.value
    assert not explorer.save("low") and "exists already" in explorer.message.value
    files = sorted(path.name for path in explorer.presets_dir.iterdir())
    assert files == ["low.safetensors", "low.yaml"]
    prompt = str(explorer.presets_dir / "low.safetensors")  # as version 0.1 wrote it
    old = {"prompt_file": prompt, "pictures": 160, "decoder": "exact"}
    (explorer.presets_dir / "old.yaml").write_text(yaml.safe_dump(old))
    explorer.controls.buttons["identity"].click()
    assert explorer.load(explorer.presets_dir / "old.yaml") and explorer.gains == before


def test_saved_colours_and_bumps_are_what_was_shown(explorer):
    controls = explorer.controls
    controls.channel.value = 2
    explorer.sliders[1].value = 3.0
    assert explorer.save("blue")
    prompt = FourierPrompt.load(explorer.presets_dir / "blue.safetensors")
    torch.testing.assert_close(prompt.mean_gain(size=(32, 32)), explorer.bands.change().gain)
    controls.mode.value = "bump"
    controls.height.value = 3.0
    gain = explorer.bands.change().gain
    assert explorer.save("bump") and explorer.load(explorer.presets_dir / "bump.safetensors")
    controls.mode.value = "prompt"
    torch.testing.assert_close(explorer.bands.change().gain, gain)


def test_a_preset_names_commands_that_exist_and_training_takes_it(tmp_path):
    presets = tmp_path / "my presets"
    config = ExploreConfig(**OPTIONS, rings=3, teacher_size=32, presets_dir=str(presets))
    explorer = open_explorer(config)
    explorer.controls.buttons["remove"].click()
    assert explorer.save("a")
    lines = html.unescape(explorer.message.value).partition("fopro report ")[2]
    plan, _, preset = shlex.split(lines.partition("<br>")[0])
    assert find_plan(plan).is_file() and preset == str(presets / "a.yaml")
    options = read_yaml(preset)
    assert options.items() >= {**OPTIONS, "teacher_size": 32}.items() and "rings" not in options
    config = TrainConfig.from_mapping({**options, "epochs": 1, "threads": 1})
    trained = distill(config, out=tmp_path / "run", verbose=False)
    gain = trained.prompt().mean_gain(size=(32, 32))
    torch.testing.assert_close(gain, explorer.bands.change().gain, atol=1e-4, rtol=1e-4)


def test_a_bad_prompt_file_is_one_line_and_changes_nothing(explorer):
    explorer.sliders[0].value = 2.0
    for path, line in {
        "nowhere.safetensors": "nowhere.safetensors: no such file",
        "": "expected a path to a saved prompt or a preset, got none",
        "nowhere.yaml": "nowhere.yaml: no such file",
        __file__: "expected a safetensors file",
    }.items():
        explorer.controls.path.value = path
        explorer.controls.load.click()
        assert line in explorer.message.value and "<br>" not in explorer.message.value
        assert explorer.gains == [2.0, 1.0, 1.0, 1.0]


def test_a_preset_is_saved_whole_or_not_at_all(explorer, tmp_path, monkeypatch):
    def full(*args, **keys):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fopro_lab.widgets.bands.write_file", full)
        assert not explorer.save("a") and "No space left" in explorer.message.value
    assert not list(explorer.presets_dir.glob("a.*"))
    for name in ("", "../up", ".hidden", "a" * 65):
        assert not explorer.save(name) and "name: expected letters" in explorer.message.value
    assert explorer.save("a")
    (tmp_path / "file").touch()
    explorer.presets_dir = tmp_path / "file"
    assert not explorer.save("a") and str(tmp_path / "file") in explorer.message.value


def test_a_learned_prompt_sets_the_sliders_and_is_shown_whole(prepared):
    prompt = FourierPrompt("shared", size=32, max_log_gain=0.7)
    with torch.no_grad():
        prompt.cells.normal_(generator=torch.Generator().manual_seed(0))
    explorer = BandExplorer(prepared.packed, rings=3, prompt=prompt)
    assert "explains" in explorer.message.value and explorer.gains != [1.0] * 4
    rings = shown(explorer)
    explorer.controls.mode.value = "prompt"
    whole = prompt(explorer.image[None])[0].detach().clamp(0, 1) * 255
    after = explorer.view.after.astype(int)
    assert abs(after - whole.round().permute(1, 2, 0).numpy()).max() <= 1
    assert shown(explorer) != rings


def test_a_radial_prompt_opens_as_the_sliders_positions(tmp_path):
    options = {**OPTIONS, "rings": 3, "prompt_file": str(tmp_path / "p.safetensors")}
    gains = np.array([[0.5, 1.0, 2.0, 3.0]])
    bands.ring_prompt(gains, size=32).save(options["prompt_file"])
    explorer = open_explorer(ExploreConfig(**options))
    assert explorer.controls.mode.value == "rings" and explorer.gains == gains[0].tolist()
    prompt = FourierPrompt("shared", size=32)
    with torch.no_grad():  # noise over the plane, of which rings explain little
        prompt.cells.normal_(generator=torch.Generator().manual_seed(0))
    prompt.save(options["prompt_file"])
    explorer = open_explorer(ExploreConfig(**options))
    assert explorer.controls.mode.value == "prompt"
    assert "explains" in explorer.message.value
    assert "acts as learned" in explorer.message.value
    shown = {name: box.layout.display for name, box in explorer.controls.bands.items()}
    assert shown == {"rings": "", "bump": "none"} and explorer.gains != [1.0] * 4
    assert all(round(20 * gain, 6).is_integer() for gain in explorer.gains)  # no browser moves them
    means, whole = explorer.bands.gains.copy(), explorer.view.after
    explorer.sliders[1].value = 3.0  # on from the means of the other rings
    assert explorer.controls.mode.value == "rings" and "by hand" in explorer.message.value
    means[:, 1] = 3.0
    assert (explorer.bands.gains == means).all() and (explorer.view.after != whole).any()
    explorer.controls.buttons["identity"].click()
    assert "by hand" not in explorer.message.value and explorer.gains == [1.0] * 4
    explorer.sliders[2].value = 2.0
    explorer.controls.mode.value = "prompt"
    assert "acts as learned" in explorer.message.value and explorer.gains != [1.0, 1.0, 2.0, 1.0]
    explorer.controls.mode.value = "rings"  # what a hand set is not lost
    assert explorer.gains == [1.0, 1.0, 2.0, 1.0] and "learned" not in explorer.message.value
    explorer.controls.mode.value = "prompt"
    explorer.controls.buttons["identity"].click()
    assert explorer.gains == [1.0] * 4 and explorer.controls.mode.value == "rings"


def test_without_a_learned_prompt_its_mode_is_refused(explorer):
    explorer.controls.mode.value = "prompt"
    assert explorer.controls.mode.value == "rings" and "load one first" in explorer.message.value
    explorer.controls.buttons["learned prompt"].click()
    assert explorer.gains == [1.0] * 4


def test_a_contact_sheet_is_drawn_where_there_is_no_front_end(prepared):
    explorer = BandExplorer(prepared.packed, rings=3, teacher=load_teacher("builtin"))
    bundle = explorer._repr_mimebundle_()
    assert WIDGET in bundle and base64.b64decode(bundle["image/png"])[1:4] == b"PNG"
    titles = [ax.get_title() for ax in explorer.still().axes if ax.get_title()]
    assert titles[:3] == ["as it is", "as set", "remove 0 to 0.167"] and len(titles) == 2 + 2 * 4
    assert titles[5] == "remove 0.5 to 0.707", "as far as the axis goes"
    assert explorer.controls.ring.options[-1] == ("0.5 to 0.707", 3)
    explorer.sliders[0].value = 0.0
    plain, now, removed, *_ = (ax.images[0].get_array() for ax in explorer.still().axes)
    assert (now == removed).all() and (now != plain).any()


def test_every_control_has_a_description_and_a_class(explorer):
    controls, stack = [], list(explorer.children)
    while stack:
        widget = stack.pop()
        stack += getattr(widget, "children", ())
        if hasattr(widget, "description") and not isinstance(widget, ipywidgets.HTML):
            controls.append(widget)
    assert len(controls) > 20
    for name in ("dataset", "teacher", "student"):  # what has no choice is hidden
        assert getattr(explorer.controls, name).layout.display == "none"
    for widget in controls:
        assert widget.description and any(c.startswith("fopro-") for c in widget._dom_classes)


@pytest.mark.slow
def test_many_moves_keep_memory_widgets_and_figures(prepared):
    explorer = BandExplorer(prepared.packed, rings=3, teacher=load_teacher("builtin"))

    def move(count):
        for tick in range(count):
            explorer.sliders[tick % 4].value = (tick * 7 % 80) / 20
        explorer.flush()
        gc.collect()

    tracemalloc.start()
    try:
        move(10)
        widgets, figures = len(ipywidgets.widgets.widget._instances), len(plt.get_fignums())
        before, _ = tracemalloc.get_traced_memory()
        move(60)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500_000  # bytes; one image kept per move would be 4 times as much
    assert len(ipywidgets.widgets.widget._instances) == widgets
    assert len(plt.get_fignums()) == figures


@pytest.fixture
def several(prepared, tmp_path):
    """An explorer with other data sets to choose from, two of which do not open."""

    def another():
        return (
            pack(open_dataset("phantom", images=48), 16, progress=False),
            None,
            {"images": 48},
            {},
        )

    def failing(error):
        raise error

    more = {"b": another, "nowhere": partial(failing, InputError("nowhere: no such folder"))}
    more["broken"] = partial(failing, MemoryError("no memory left"))
    return BandExplorer(
        prepared.packed, rings=3, presets_dir=tmp_path, dataset="a", more_datasets=more
    )


def test_bands_and_colour_stay_when_another_data_set_is_chosen(several):
    controls = several.controls
    controls.channel.value = 1
    several.sliders[1].value = 0.5
    controls.dataset.value = "b"
    assert several.pack.size == 16 and several.view.after.shape == (16, 16, 3)
    assert several.bands.gains[1, 1] == 0.5 and (np.delete(several.bands.gains, 1, 0) == 1).all()
    assert (several.view.after != several.view.before).any() and controls.channel.value == 1
    assert several.save("b") and read_yaml(several.presets_dir / "b.yaml")["images"] == 48
    packed = several.pack
    controls.dataset.value = "a"
    assert several.pack.size == 32 and several.gains[1] == 0.5
    controls.dataset.value = "b"
    assert several.pack is packed, "what was opened is kept"


def test_a_data_set_that_cannot_be_opened_is_reported_and_the_first_stays(several):
    for name, line in {"nowhere": "nowhere: no such folder", "broken": "no memory left"}.items():
        several.controls.dataset.value = name
        assert several.pack.size == 32 and several.controls.dataset.value == "a"
        assert line in several.message.value
    several.controls.dataset.value = "b"
    assert line not in several.message.value and several.pack.size == 16


@pytest.mark.real
def test_a_further_teacher_comes_with_its_weights_and_so_does_its_preset(tmp_path, shared):
    file = min((shared / "weights").glob("resnet20-*.th"))
    config = ExploreConfig(
        images=48, image_size=32, rings=2, teacher_size=32, presets_dir=str(tmp_path),
        more_teachers=(f"cifar-resnet20={file}",),
    )  # fmt: skip
    explorer, title = open_explorer(config), f"cifar-resnet20, {file.name}"
    assert explorer.controls.teacher.options == ("builtin", title)
    assert explorer.save("first")
    explorer.controls.teacher.value = title
    explorer.flush()
    assert explorer.networks.drift.moving["title"] == title and explorer.save("second")
    first, second = (read_yaml(tmp_path / f"{name}.yaml") for name in ("first", "second"))
    assert first["teacher_size"] == 32 and "teacher" not in first
    assert second["teacher"] == "cifar-resnet20" and second["weights"] == str(file.resolve())
    assert "teacher_size" not in second and first["images"] == second["images"] == 48
    with pytest.raises(InputError, match="the weights of cifar-resnet20, got none"):
        open_explorer(config.model_copy(update={"more_teachers": ("cifar-resnet20",)}))
