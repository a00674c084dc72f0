import base64
import io

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.cbook import is_math_text
from matplotlib.text import Text
from PIL import Image
from safetensors.numpy import save_file

from fopro_lab.evaluation.runs import MAPS_FILE, RINGS_FILE
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import run_folder as masks
from fopro_lab.widgets import PromptViewer, RunComparer
from tests.evaluation.toy_runs import predictions, write_run

WIDGET = "application/vnd.jupyter.widget-view+json"
COUNTS = [900, 120, 30, 10]


def write_masks(folder, *, steps, seed):
    """Write the masks of a prompt that wanders."""
    source, prompt = torch.Generator().manual_seed(seed), FourierPrompt("shared", size=16, rows=6)
    record = masks.MaskHistory(1, frozenset(steps))
    for step in range(max(steps) + 1):
        record.look(prompt, step)
        with torch.no_grad():
            prompt.cells.add_(0.2 * torch.randn(prompt.shape, generator=source))
    masks.write_masks(folder, record.masks)
    return folder


@pytest.fixture
def viewer(tmp_path):
    first = write_masks(tmp_path / "a_$x^2$", steps=(0, 3, 6), seed=0)
    return PromptViewer([first, write_masks(tmp_path / "b", steps=(0, 4), seed=1)])


def pixels(viewer):
    return np.asarray(Image.open(io.BytesIO(viewer.image.value))).astype(int)


def test_prompt_viewer_joins_the_times_of_its_runs_and_draws_the_same_at_the_same_time(viewer):
    assert viewer.times == [(1, 0), (1, 3), (1, 4), (1, 6)]
    assert viewer.time == (1, 6)
    assert [history.at((1, 4)) for history in viewer.histories] == [1, 1]
    last = viewer.image.value
    viewer.slider.index = 0
    first = viewer.image.value
    assert first != last
    for index in (2, 3, 1, 0):
        viewer.slider.index = index
    assert viewer.image.value == first  # nothing of the times between is left in it


def test_in_the_prompt_viewer_a_gain_of_two_is_red(tmp_path):
    rows = {"exploration": 1, "step": [0, 5], "low": 0.0, "high": 0.75, "gain": [1.0, 2.0]}
    pd.DataFrame(rows).to_parquet(tmp_path / RINGS_FILE)
    planes = np.stack([np.full((64, 64), gain, np.float16) for gain in (1, 2)])
    save_file({"gain": planes}, tmp_path / MAPS_FILE)
    viewer = PromptViewer(tmp_path)
    red = (pixels(viewer)[..., 0] - pixels(viewer)[..., 2] > 60).sum()
    viewer.slider.index = 0
    assert (pixels(viewer)[..., 0] - pixels(viewer)[..., 2] > 60).sum() < red / 2


def test_prompt_viewer_draws_a_still_where_there_is_no_front_end(viewer):
    bundle = viewer._repr_mimebundle_()
    assert WIDGET in bundle and base64.b64decode(bundle["image/png"])[1:4] == b"PNG"
    (name,) = [text for text in viewer.still().findobj(Text) if "x^2" in text.get_text()]
    assert not is_math_text(name.get_text())  # a run's name is no formula
    titles = [ax.get_title(loc="left") for ax in viewer.still().axes[:4]]
    assert [title[-6:] for title in titles[:3]] == ["step 0", "step 3", "step 6"]
    assert titles[3] == "Mean gain of each ring"


@pytest.fixture
def comparer(tmp_path):
    for seed, method in enumerate(("fopro", "ce")):
        table = predictions(seed=seed, a_group=2)
        write_run(tmp_path / method, table, method=method, class_counts=COUNTS)
    return RunComparer(tmp_path, resamples=40)


def value(comparer, run, metric, name="all"):
    return comparer.table.set_index(["run", "metric", "name"])["value"][run, metric, name]


def test_run_comparer_puts_baselines_first_and_follows_the_slider(comparer):
    assert [run.method for run in comparer.shift.runs] == ["ce", "fopro"]
    assert comparer.shift.implicit == ["training", "uniform"]
    before = comparer.image.value, comparer.readout.value
    rare, common = (value(comparer, 1, "recall", name) for name in ("df", "nv"))
    comparer.slider.value = 1.0
    assert comparer.image.value != before[0] and comparer.readout.value != before[1]
    assert value(comparer, 1, "recall", "df") < rare
    assert value(comparer, 1, "recall", "nv") > common
    comparer.slider.value = -1.0
    assert value(comparer, 1, "recall", "df") > rare
    comparer.slider.value = 0.0
    assert (comparer.image.value, comparer.readout.value) == before


def test_run_comparer_writes_numbers_and_draws_three_priors_where_there_is_no_front_end(comparer):
    text = comparer.readout.value
    accuracy = value(comparer, 0, "balanced_accuracy")
    assert f"<td>{100 * accuracy:.0f} [" in text
    difference = 100 * (value(comparer, 1, "balanced_accuracy") - accuracy)
    assert f"<td>{difference:+.1f} [" in text
    assert "training prior: ce" in text and "uniform prior: fopro" in text
    assert "n 76" in text and "resampled: lesions or patients" in text
    bundle = comparer._repr_mimebundle_()
    assert WIDGET in bundle and base64.b64decode(bundle["image/png"])[1:4] == b"PNG"
    titles = [ax.get_title(loc="left") for ax in comparer.still().axes[::2]]
    names = ("-1, tail-heavy", "+0, balanced", "+1, as in training")
    assert titles == [f"Recall at s = {name}" for name in names]
