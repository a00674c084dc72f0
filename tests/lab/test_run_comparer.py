import base64

import numpy as np
import pytest

from fopro_lab.errors import InputError
from fopro_lab.widgets.viewers import RunComparer
from tests.evaluation.toy_runs import predictions, write_run

WIDGET = "application/vnd.jupyter.widget-view+json"
COUNTS = [900, 120, 30, 10]


@pytest.fixture
def comparer(tmp_path):
    for seed, method in enumerate(("fopro", "ce")):
        table = predictions(seed=seed, a_group=2)
        write_run(tmp_path / method, table, method=method, class_counts=COUNTS)
    return RunComparer(tmp_path, resamples=40)


def value(comparer, run, metric, name="all"):
    table = comparer.table.set_index(["run", "metric", "name"])["value"]
    return table[run, metric, name]


def test_run_comparer_puts_baselines_first(comparer):
    assert [run.method for run in comparer.shift.runs] == ["ce", "fopro"]
    assert comparer.shift.implicit == ["training", "uniform"]


def test_run_comparer_follows_the_slider(comparer):
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


def test_run_comparer_without_scaling_moves_accuracy_alone(comparer):
    comparer.adjust.value = False
    before = {m: value(comparer, 1, m) for m in ("balanced_accuracy", "accuracy", "ece")}
    recall = value(comparer, 1, "recall", "df")
    comparer.slider.value = 1.0
    assert value(comparer, 1, "recall", "df") == recall
    assert value(comparer, 1, "balanced_accuracy") == before["balanced_accuracy"]
    assert value(comparer, 1, "accuracy") != before["accuracy"]


def test_run_comparer_draws_the_points_and_intervals_of_its_table(comparer):
    comparer.slider.value = 0.5
    line, bars = comparer._drawn.points[1]
    own = comparer.table[(comparer.table["run"] == 1) & (comparer.table["metric"] == "recall")]
    np.testing.assert_array_equal(line.get_xdata(), own["value"])
    ends = np.array(bars.get_segments())[:, :, 0]
    np.testing.assert_array_equal(ends, own[["low", "high"]])
    shares = comparer._drawn.shares.get_xdata()
    np.testing.assert_allclose(shares, 100 * comparer.shift.prior(0.5))
    ticks = [text.get_text() for text in comparer._drawn.axes[0].get_yticklabels()]
    assert ticks == ["nv  n=40", "mel  n=20", "bkl  n=10", "df  n=6"]


def test_run_comparer_tells_numbers_differences_and_priors(comparer):
    told = comparer.readout.value
    accuracy = value(comparer, 0, "balanced_accuracy")
    assert f"<td>{100 * accuracy:.0f} [" in told
    apart = 100 * (value(comparer, 1, "balanced_accuracy") - accuracy)
    assert f"<td>{apart:+.1f} [" in told
    assert "training prior: ce" in told and "uniform prior: fopro" in told
    assert "n 76" in told and "resampled: lesions or patients" in told


def test_run_comparer_shows_three_priors_where_there_is_no_front_end(comparer):
    bundle = comparer._repr_mimebundle_()
    assert WIDGET in bundle and base64.b64decode(bundle["image/png"])[1:4] == b"PNG"
    titles = [ax.get_title(loc="left") for ax in comparer.still().axes[:3]]
    assert titles == ["tail-heavy (-1.0)", "balanced (0)", "head-heavy (+1.0)"]


def test_run_comparer_keeps_no_image_of_before(comparer):
    artists = len(comparer.figure.findobj())
    for step in range(20):
        comparer.slider.value = step / 20
    assert len(comparer.figure.findobj()) == artists


def test_run_comparer_refuses_runs_of_other_images(tmp_path):
    for method, counts in (("ce", (40, 20, 10, 6)), ("bsm", (41, 20, 10, 6))):
        write_run(tmp_path / method, predictions(counts), method=method, class_counts=COUNTS)
    with pytest.raises(InputError, match="expected the same images of 'test' in every run"):
        RunComparer(tmp_path)
