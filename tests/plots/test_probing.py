import numpy as np
import pandas as pd
import pytest

from fopro_lab import plots
from fopro_lab.errors import InputError
from tests.conftest import refuses
from tests.plots.tables import (
    bands,
    control,
    control_gains,
    draw,
    gain_benefits,
    heat_map,
    ring_response,
    texts,
)


def test_ring_response_has_a_line_and_a_band_for_each_gain():
    ax = plots.plot_ring_response(ring_response())
    assert [line.get_label() for line in ax.lines] == ["removed", r"amplitude $\times$ 2"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.3, 0.2, 0.1])
    drawn = [band.get_paths()[0].vertices[:, 1] for band in ax.collections]
    assert len(drawn) == 2 and min(drawn[0]) == 0.05 and max(drawn[0]) == 0.4
    energy = plots.plot_ring_response(ring_response(), normalised=True)
    np.testing.assert_allclose(energy.lines[1].get_ydata(), [1, 2, 3])
    assert energy.get_yscale() == "log" and "energy" in energy.get_ylabel()


def test_glyphs_of_teachers_share_a_fixed_scale_about_each_teachers_mean_ring():
    table = ring_response().query("gain == 2").assign(teacher="a")
    both = pd.concat([table, table.assign(teacher="b", drift_per_energy=[8.0, 8.0, 8.0])])
    figure = plots.plot_teacher_glyphs(both, gain=2)
    a, b = (ax.images[0] for ax in figure.axes[:2])
    assert a.get_clim() == b.get_clim() == (-3, 3)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["a", "b"]
    np.testing.assert_allclose(b.get_array(), 0)
    octaves = np.log2([1, 2, 3]) - np.log2(6) / 3
    middle = a.get_array()[len(a.get_array()) // 2]
    assert middle[len(middle) // 2] == pytest.approx(octaves[0])
    assert set(np.round(a.get_array().ravel(), 6)) <= set(np.round(octaves, 6))


def test_class_bands_mark_what_excludes_zero_and_star_what_survives():
    ax = plots.plot_class_bands(bands())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv  n=64", "all  n=64"]
    assert texts(ax) == ["-50*", "+2", "-20", "0", "+10"]
    assert [t.get_fontweight() for t in ax.texts].count("bold") == 1
    assert [t.get_bbox_patch() is not None for t in ax.texts].count(True) == 1
    np.testing.assert_allclose(ax.images[0].get_array()[1], [-20, 0, 10])
    assert ax.images[0].get_clim() == (-50, 50)
    assert "survives Holm over 3 cells" in ax.figure.get_supxlabel()
    assert "by the probe" in ax.get_title(loc="left")


def test_band_matrices_need_to_know_which_gain():
    with pytest.raises(InputError, match="gain: expected one of 0, 2, got None"):
        plots.plot_class_bands(pd.concat([bands(), bands(gain=2.0)]))


def test_distances_have_their_interval():
    ax = draw("plot_preferences")[0].axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a,\nb", "a,\nc"]
    assert texts(ax)[0] == "+0.70 [+0.60, +0.80], p=0.003"


def test_heat_maps_have_cycles_per_pixel_on_both_axes():
    plane = np.zeros((8, 8))
    plane[4, 6] = 1.0  # 2 / 8 cycles per pixel, horizontal
    ax = plots.plot_heat_map(plane, heat_map(), value="error")
    assert "20 % wrong" in ax.figure.get_supxlabel()
    left, right, bottom, top = ax.images[0].get_extent()
    row, column = np.argwhere(ax.images[0].get_array() == 1)[0]
    assert left + (column + 0.5) * (right - left) / 8 == pytest.approx(0.25)
    assert bottom + (row + 0.5) * (top - bottom) / 8 == pytest.approx(0)
    refuses(r"^plane: expected \(H, W\), got", plots.plot_heat_map, np.zeros((2, 2, 2)), heat_map())


def test_benefits_stand_by_condition_from_mild_to_severe():
    axes = plots.plot_gain_benefits(gain_benefits(), images=9).axes
    assert [ax.get_title() or ax.get_title(loc="left") for ax in axes] == [
        "clean", "low-pass", "noise"]  # fmt: skip
    assert [tick.get_text() for tick in axes[1].get_xticklabels()] == ["0.2", "0.05"]
    learned = next(line for line in axes[1].lines if line.get_label() == "learned")
    np.testing.assert_allclose(learned.get_ydata(), [0.01, 0.01])


def test_control_has_a_mark_for_each_split_and_gain_and_draws_gains_over_the_inverse():
    ax, side = plots.plot_control(control(), control_gains(), images=9).axes
    marks = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 1]
    np.testing.assert_allclose(marks, [0.4 + 0.01 * place for place in range(8)] * 2)
    assert [line.get_label() for line in side.lines] == ["inverse", "learned"]
    assert "split 2" in side.get_title(loc="left") + side.get_title()
