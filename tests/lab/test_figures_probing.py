"""Figures of the instruments: artists read back, not pixels."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from fopro_lab import plots as figures
from fopro_lab.errors import InputError, ShapeError

LOW, HIGH = [0.0, 0.25, 0.5], [0.25, 0.5, 0.75]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def rings(**columns):
    return pd.DataFrame({"low": LOW, "high": HIGH, "ring": range(3), "n": 64} | columns)


def recalls(**columns):
    table = pd.DataFrame(
        {"scope": ["group", "group", "overall"], "name": ["head", "tail", "all"], "n": [60, 9, 69]}
    )
    values = {"recall": [0.8, 0.2, 0.5], "recall_low": 0.1, "recall_high": 0.9}
    return table.assign(**values, clean_recall=[0.9, 0.4, 0.65], classifier="probe", **columns)


def ladder():
    return pd.concat(
        recalls(kind=kind, cutoff=cutoff)
        for kind in ("low-pass", "high-pass")
        for cutoff in (0.1, 0.3)
    )


def phases():
    return pd.concat(recalls(kind=kind) for kind in ("phase", "phase-flat", "amplitude"))


def fingerprint():
    parts = []
    for target, within, accuracy in (
        ("source", "all", [0.9, 0.8, 0.5, 0.95]),
        ("class", "all", [0.5, 0.4, 0.25, 0.6]),
    ):
        own = rings(accuracy=accuracy[:3])
        own = pd.concat([own, own.iloc[:1].assign(ring=-1, high=0.75, accuracy=accuracy[3])])
        chance = 0.5 if target == "source" else 0.25
        parts.append(own.assign(target=target, within=within, chance=chance))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(
        accuracy_low=table["accuracy"] - 0.1,
        accuracy_high=table["accuracy"] + 0.05,
        permuted_high=table["chance"] + 0.05,
    )


def responses():
    parts = [
        rings(teacher=name, gain=0.0, relative=values)
        for name, values in (("a", [0.5, 1, 2]), ("b", [2, 1, 0.5]))
    ]
    table = pd.concat(parts)
    return table.assign(relative_low=table["relative"] * 0.9, relative_high=table["relative"] * 1.1)


def bands():
    cell = rings(scope="class", name="nv", group="head", gain=0.0, change=[-0.5, 0.0, 0.1])
    cell = cell.assign(change_low=[-0.6, -0.1, 0.05], change_high=[-0.4, 0.1, 0.2], cells=3)
    cell = cell.assign(survives=[True, False, False], classifier="probe")
    return pd.concat(
        [cell.assign(teacher="a"), cell.assign(teacher="b", change=cell["change"] / 2)]
    )


def distances():
    row = {"between": 0.9, "within": 0.2, "difference": 0.7, "difference_low": 0.6}
    row |= {"difference_high": 0.8, "p": 0.0025, "n": 96, "units": 80}
    return pd.DataFrame(
        [{"teacher": "a", "other": "b"} | row, {"teacher": "all", "other": "all"} | row]
    )


def test_a_star_marks_what_survives_and_a_frame_what_does_not_hold_zero():
    ax = figures.plot_class_bands(bands().query("teacher == 'a'"))
    assert [text.get_text() for text in ax.texts] == ["-50*", "0", "+10"]
    assert len(ax.patches) == 2
    assert "survives Holm over 3 cells" in ax.figure.get_supxlabel()
    assert "by the probe" in ax.get_title(loc="left")


def test_channels_have_their_own_colours_and_only_the_asked_gain():
    table = pd.concat(
        rings(channel=channel, gain=gain, drift_per_energy=[1.0, 2, 3])
        for channel in ("all", "red", "green", "blue")
        for gain in (0.0, 2.0)
    )
    ax = figures.plot_channel_response(table, gain=2.0)
    assert [line.get_label() for line in ax.lines] == ["red", "green", "blue"]
    with pytest.raises(InputError, match="table: expected at least one row"):
        figures.plot_channel_response(table, gain=3.0)


def test_the_ring_response_shows_all_channels_together_alone():
    columns = {"drift": [0.1, 0.2, 0.3], "drift_low": 0.0, "drift_high": 0.4, "gain": 0.0}
    table = pd.concat(rings(channel=channel, **columns) for channel in ("all", "red"))
    assert len(figures.plot_ring_response(table).lines) == 1


def test_the_ladder_has_a_panel_a_kind_and_a_dashed_line_of_untouched_images():
    figure = figures.plot_ladder(ladder())
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["low-pass: what is below is kept", "high-pass: what is above is kept"]
    heights = [line.get_ydata()[0] for line in figure.axes[0].lines[1::2]]
    assert heights == [0.9, 0.4, 0.65]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0.8, 0.8])


def test_phases_start_with_untouched_images():
    ax = figures.plot_phases(phases())
    names = [tick.get_text() for tick in ax.get_xticklabels()]
    assert names[0] == "untouched" and len(names) == 4
    assert ax.lines[0].get_ydata()[0] == 0.9


def test_fingerprints_are_on_one_scale_from_chance_to_perfect():
    ax = figures.plot_fingerprint(fingerprint())
    source, klass = (
        next(line for line in ax.lines if str(line.get_label()).startswith(name))
        for name in ("source", "class")
    )
    np.testing.assert_allclose(source.get_ydata(), [0.8, 0.6, 0.0])
    np.testing.assert_allclose(klass.get_ydata(), [1 / 3, 0.2, 0.0])
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert sum(len(line.get_xdata()) for line in hollow) == 2  # the last ring of either


def test_heat_maps_have_cycles_per_pixel_on_both_axes():
    plane = np.zeros((8, 8))
    plane[4, 6] = 1.0  # 2 / 8 cycles per pixel, horizontal
    ax = figures.plot_heat_map(plane, label="Error rate")
    left, right, bottom, top = ax.images[0].get_extent()
    shown = ax.images[0].get_array()
    row, column = np.argwhere(shown == 1)[0]
    step = (right - left) / 8
    assert left + (column + 0.5) * step == pytest.approx(0.25)
    assert bottom + (row + 0.5) * (top - bottom) / 8 == pytest.approx(0)
    with pytest.raises(ShapeError, match=r"^plane: expected \(H, W\), got \(2, 2, 2\)$"):
        figures.plot_heat_map(np.zeros((2, 2, 2)))


def test_teachers_are_overlaid_on_a_logarithmic_axis_about_one():
    ax = figures.plot_teacher_responses(responses())
    labels = [line.get_label() for line in ax.lines if not str(line.get_label()).startswith("_")]
    assert labels == ["a", "b"] and ax.get_yscale() == "log"


def test_band_matrices_of_teachers_share_one_scale():
    figure = figures.plot_teacher_bands(bands())
    limits = {ax.images[0].get_clim() for ax in figure.axes if ax.images}
    assert limits == {(-50.0, 50.0)}
    with pytest.raises(InputError, match=r"^gain: expected one of 0, got 2"):
        figures.plot_teacher_bands(bands(), gain=2.0)


def test_distances_say_the_difference_and_its_interval():
    ax = figures.plot_preferences(distances())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a, b", "mean of all pairs"]
    assert ax.texts[0].get_text() == "+0.70 [+0.60, +0.80], p=0.003"


EVERY = [
    (figures.plot_class_bands, bands().query("teacher == 'a'")),
    (figures.plot_phases, phases()),
    (figures.plot_fingerprint, fingerprint()),
    (figures.plot_teacher_responses, responses()),
    (figures.plot_preferences, distances()),
    (figures.plot_ladder, ladder()),
    (figures.plot_teacher_bands, bands()),
]


@pytest.mark.parametrize(("plot", "table"), EVERY)
def test_no_label_is_clipped_and_the_readers_style_stays(plot, table, tmp_path):
    before = dict(matplotlib.rcParams)
    drawn = plot(table)
    assert dict(matplotlib.rcParams) == before
    figures.save_figure(drawn, tmp_path / "figure.png")
    whole = drawn if hasattr(drawn, "savefig") else drawn.figure
    box = whole.get_tightbbox()
    width, height = whole.get_size_inches()
    assert box.x0 >= -0.02 and box.y0 >= -0.02
    assert box.x1 <= width + 0.02 and box.y1 <= height + 0.02


@pytest.mark.parametrize(("plot", "table"), EVERY)
def test_a_table_without_a_column_or_a_row_is_refused(plot, table):
    with pytest.raises(InputError, match="table: expected"):
        plot(table.iloc[:0])
    with pytest.raises(InputError, match="table: expected a column"):
        plot(table[["n"]])
