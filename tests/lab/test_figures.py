"""Figures are read back from their artists; nothing here looks at pixels but the PNG's size."""

import re
import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from fopro_lab import plots as figures
from fopro_lab.errors import InputError, ShapeError, WorkError


@pytest.fixture(autouse=True)
def closed_figures():
    matplotlib.use("agg")
    yield
    plt.close("all")


def scores(methods=("bsm", "fopro")):
    """Three classes, their groups and the whole, as `score_runs` gives them."""
    rows = []
    for place, method in enumerate(methods):
        lines = [
            ("class", "df", "tail", "recall", 0.5 + place / 10, 6),
            ("class", "nv", "head", "recall", 0.9, 400),
            ("class", "mel", "medium", "recall", 0.7, 90),
            ("group", "head", "", "recall", 0.9, 400),
            ("group", "medium", "", "recall", 0.7, 90),
            ("group", "tail", "", "recall", 0.5 + place / 10, 6),
            ("overall", "all", "", "balanced_accuracy", 0.7, 496),
            ("overall", "all", "", "auroc", 0.8, 496),
        ]
        for scope, name, group, metric, value, n in lines:
            row = {"method": method, "seeds": 2, "scope": scope, "name": name, "group": group}
            row |= {"metric": metric, "value": value, "low": value - 0.1, "high": value + 0.05}
            rows.append({**row, "n": n, "k": value * n, "interval": "bootstrap"})
    return pd.DataFrame(rows).assign(resampled="group", protocol="toy/64px")


def differences():
    table = scores(("ekd", "fopro")).rename(columns={"value": "difference"})
    table["difference"] = np.where(table["method"] == "ekd", 0.02, 0.20)
    table["low"], table["high"] = table["difference"] - 0.1, table["difference"] + 0.1
    return table.assign(baseline="bsm", varies="images and seeds", p=0.5)


def rings(**columns):
    edges = [0.0, 0.25, 0.5, 0.75]
    base = {"ring": [0, 1, 2], "low": edges[:-1], "high": edges[1:]}
    return pd.DataFrame(base | columns)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def dots(ax, method):
    """Positions of a method's markers, x by y."""
    color = figures.METHOD_COLORS[method]
    lines = [line for line in ax.lines if line.get_marker() not in ("None", None, "")]
    mine = [line for line in lines if to_hex(line.get_color()) == color.lower()]
    return {round(float(line.get_ydata()[0]), 3): float(line.get_xdata()[0]) for line in mine}


def test_class_recall_goes_from_head_to_tail_with_n_and_intervals():
    ax = figures.plot_class_recall(scores())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv  n=400", "mel  n=90", "df  n=6"]
    assert ax.yaxis_inverted()
    np.testing.assert_allclose(sorted(dots(ax, "bsm").values()), [0.5, 0.7, 0.9])
    np.testing.assert_allclose(sorted(dots(ax, "fopro").values()), [0.6, 0.7, 0.9])
    intervals = [line for line in ax.lines if line.get_gid() == "interval bsm"]
    spans = sorted(tuple(np.round(line.get_xdata(), 6)) for line in intervals)
    assert spans == [(0.4, 0.55), (0.6, 0.75), (0.8, 0.95)]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["balanced softmax", "FoPro-KD"]
    assert ax.get_xlabel() == "Recall on test images, %"


def test_class_recall_prints_k_of_n_only_below_ten_images():
    assert {t for t in texts(figures.plot_class_recall(scores())) if "/" in t} == {"3/6", "3.6/6"}


def test_class_recall_of_one_run_needs_no_method_and_has_no_legend():
    table = scores(("bsm",)).drop(columns=["method", "seeds"])
    ax = figures.plot_class_recall(table)
    assert ax.get_legend() is None and len(dots(ax, "bsm")) == 3


def test_class_recall_leaves_an_unknown_class_empty():
    table = scores(("bsm",))
    table.loc[table["name"] == "df", ["value", "low", "high", "k"]] = np.nan
    table.loc[table["name"] == "df", "n"] = 0
    ax = figures.plot_class_recall(table)
    assert ax.get_yticklabels()[2].get_text() == "df  n=0"
    assert np.isnan(list(dots(ax, "bsm").values())).sum() == 1
    ax.figure.canvas.draw()


def test_group_recall_tells_number_interval_n_and_protocol():
    ax = figures.plot_group_recall(scores())
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == ["head\nn=400", "medium\nn=90", "tail\nn=6", "all classes\nn=496"]
    assert {"50 [40, 55]", "60 [50, 65]", "90 [80, 95]"} <= set(texts(ax))
    footer = ax.figure.get_supxlabel()
    assert "toy/64px" in footer and "whole lesions" in footer and "mean of 2 seeds" in footer


def test_comparison_shows_zero_and_fills_what_leaves_it_out():
    ax = figures.plot_comparison(differences())
    assert ax.get_title(loc="left") == "Against balanced softmax, paired by image"
    assert any(set(line.get_xdata()) == {0} for line in ax.lines)
    faces = {
        (line.get_gid(), to_hex(line.get_markerfacecolor()), to_hex(line.get_color()))
        for line in ax.lines
        if line.get_marker() in ("D", "^")
    }
    open_, filled = figures.METHOD_COLORS["ekd"].lower(), figures.METHOD_COLORS["fopro"].lower()
    assert faces == {(None, "#ffffff", open_), (None, filled, filled)}
    assert "+20.0 [+10.0, +30.0]" in texts(ax) and "+2.0 [-8.0, +12.0]" in texts(ax)
    assert len(ax.get_yticks()) == 4


def test_comparison_can_show_classes():
    ax = figures.plot_comparison(differences(), scopes=("class",))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["df  n=6", "nv  n=400", "mel  n=90"]


def test_class_counts_print_n_at_each_bar_on_a_logarithmic_axis():
    table = pd.DataFrame(
        {"class": ["df", "nv"] * 2, "split": ["train"] * 2 + ["test"] * 2, "n": [20, 5000, 4, 90]}
    )
    ax = figures.plot_class_counts(table.assign(group=["tail", "head"] * 2))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv", "df"]
    assert set(texts(ax)) == {"20", "5,000", "4", "90"}
    assert ax.get_xscale() == "log"
    assert ax.get_yticklabels()[0].get_color() == figures.GROUP_COLORS["head"]


def test_images_show_every_pixel_under_its_title():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    figure = figures.plot_images(images, list("abcde"), columns=3, title="five")
    assert [ax.get_title() for ax in figure.axes] == list("abcde")
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), images[4])


def test_images_refuse_floats_and_missing_titles():
    with pytest.raises(ShapeError, match=r"images: expected \(N, H, W, 3\) of uint8, N at least"):
        figures.plot_images(np.zeros((1, 4, 4, 3)), ["a"])
    with pytest.raises(InputError, match="titles: expected one for each of 2, got 1"):
        figures.plot_images(np.zeros((2, 4, 4, 3), np.uint8), ["a"])


def test_spectra_draw_one_line_a_class_at_the_middle_of_each_ring():
    parts = [
        rings(scope="class", name=name, log_amplitude=[k - 1.0, k - 2.0, k - 3.0], n=7)
        for k, name in enumerate("ab")
    ]
    ax = figures.plot_spectra(pd.concat(parts).assign(difference=0.1))
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.125, 0.375, 0.625])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.0, -1.0, -2.0])
    assert texts(ax) == ["corners"] and "cycles per pixel" in ax.get_xlabel()
    with pytest.raises(InputError, match="table: expected rows of scope 'source', got none"):
        figures.plot_spectra(parts[0], scope="source")


def test_ring_response_has_a_line_and_a_band_for_each_gain():
    drift = {"drift": [0.3, 0.2, 0.1], "drift_low": 0.05, "drift_high": 0.4, "n": 64}
    table = pd.concat([rings(gain=gain, drift_per_energy=[1.0, 2, 3], **drift) for gain in (0, 2)])
    ax = figures.plot_ring_response(table)
    assert [line.get_label() for line in ax.lines] == ["removed", r"amplitude $\times$ 2"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.3, 0.2, 0.1])
    bands = [band.get_paths()[0].vertices[:, 1] for band in ax.collections]
    assert len(bands) == 2 and min(bands[0]) == 0.05 and max(bands[0]) == 0.4
    energy = figures.plot_ring_response(table, normalised=True)
    np.testing.assert_allclose(energy.lines[1].get_ydata(), [1, 2, 3])
    assert energy.get_yscale() == "log" and "energy" in energy.get_ylabel()


def bands(gain=0.0):
    nv = rings(name="nv", scope="class", group="head", n=90, change=[-0.3, 0.02, np.nan])
    nv = nv.assign(change_low=[-0.4, -0.1, np.nan], change_high=[-0.2, 0.1, np.nan])
    whole = rings(name="all", scope="overall", group="", n=99, change=[-0.2, 0.0, 0.1])
    whole = whole.assign(change_low=[-0.3, -0.1, -0.2], change_high=[0.1, 0.1, 0.2])
    return pd.concat([nv, whole]).assign(gain=gain, protocol="toy")


def test_class_bands_mark_only_changes_whose_interval_leaves_zero_out():
    ax = figures.plot_class_bands(bands())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv  n=90", "all  n=99"]
    assert texts(ax) == ["-30", "+2", "-20", "0", "+10"]
    assert [t.get_fontweight() for t in ax.texts].count("bold") == 1
    assert len(ax.patches) == 1
    np.testing.assert_allclose(ax.images[0].get_array()[1], [-20, 0, 10])
    low, high = ax.images[0].get_clim()
    assert low == -high == -30


def test_class_bands_ask_which_gain():
    table = pd.concat([bands(0.0), bands(2.0)])
    with pytest.raises(InputError, match="gain: expected one of 0, 2, got None"):
        figures.plot_class_bands(table)
    assert "scaled by 2" in figures.plot_class_bands(table, gain=2.0).get_title(loc="left")


@pytest.mark.parametrize("side", [8, 7])
def test_gain_is_the_one_that_acts_on_every_frequency(side):
    """Reference: multiply an image's half spectrum, go back, and divide the whole spectra."""
    half = np.exp(np.random.default_rng(0).normal(size=(side, side // 2 + 1)))
    shown = 2.0 ** figures.plot_gain(half).images[0].get_array()
    images = np.random.default_rng(1).normal(size=(side, side))
    scaled = np.fft.irfft2(half * np.fft.rfft2(images), s=(side, side))
    expected = np.fft.fft2(scaled) / np.fft.fft2(images)
    # Without the mean in column 0 (and W / 2) the values there would be off by tens of per cent.
    np.testing.assert_allclose(np.fft.ifftshift(shown), expected.real, rtol=1e-9)


def test_gain_is_centred_and_symmetrical_about_one():
    half = np.ones((8, 5))
    half[0, 2] = 2.0  # 2 / 8 cycles per pixel, horizontal
    ax = figures.plot_gain(np.stack([half, half, half]))
    shown = ax.images[0].get_array()
    assert shown[4, 4] == 0 and shown[4, 6] == shown[4, 2] == pytest.approx(1)
    assert ax.images[0].get_clim() == pytest.approx((-1, 1))
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, right) == (bottom, top) == (-0.5625, 0.4375)  # pixel centres at k / 8
    assert "mean of 3 channels" in ax.get_title(loc="left")


def test_gain_refuses_other_shapes_and_zero():
    with pytest.raises(ShapeError, match=re.escape("got (2, 3, 8, 5)")):
        figures.plot_gain(np.ones((2, 3, 8, 5)))
    with pytest.raises(InputError, match="gain: expected finite factors above 0, got 0"):
        figures.plot_gain(np.zeros((8, 5)))


def test_radial_gain_steps_through_the_rings():
    spread = {"gain_low": [0.9, 0.7, 0.5], "gain_high": [1.6, 1.2, 0.9]}
    ax = figures.plot_radial_gain(rings(gain=[1.4, 1.0, 0.7], **spread))
    values, edges, _ = ax.patches[-1].get_data()
    np.testing.assert_allclose(values, [1.4, 1.0, 0.7])
    np.testing.assert_allclose(edges, [0, 0.25, 0.5, 0.75])
    low, high = ax.get_ylim()
    assert low == pytest.approx(1 / high) and low < 0.5


def test_exploration_gives_every_term_its_panel():
    table = pd.DataFrame({"step": [0, 1], "statistics": [2.0, 1], "total": [2.0, 1], "log_gain": 0})
    figure = figures.plot_prompt_training(table)
    assert len(figure.axes) == 3
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [2, 1])
    with pytest.raises(InputError, match="expected a column for at least one term"):
        figures.plot_prompt_training(table[["step"]])


def test_exploration_puts_checks_beside_their_term_and_rings_the_kept_one():
    table = pd.DataFrame(
        {
            "step": [0, 1, 2, 3],
            "task": [2.0, 1.5, 1.2, 1.1],
            "val_task": [np.nan, 1.9, np.nan, 2.1],
            "val_drift": [np.nan, 0.1, np.nan, 0.2],
            "kept": [0, 1, 0, 0],
        }
    )
    figure = figures.plot_prompt_training(table)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["Task loss of a linear head, nats", "Drift of the teacher, mean 1 - cos"]
    term, checks, kept = figure.axes[0].lines
    np.testing.assert_allclose(term.get_ydata(), table["task"])
    np.testing.assert_allclose(checks.get_xydata(), [[1, 1.9], [3, 2.1]])
    np.testing.assert_allclose(kept.get_xydata(), [[1, 1.9]])
    assert "held-out" in figure.get_supxlabel()


def test_class_gains_have_a_row_a_class_in_the_order_of_the_table():
    table = pd.DataFrame(
        {
            "class_name": ["b", "b", "a", "a"],
            "low": [0.0, 0.25, 0.0, 0.25],
            "high": [0.25, 0.75, 0.25, 0.75],
            "gain": [2.0, 0.5, 1.0, 4.0],
        }
    )
    ax = figures.plot_class_gains(table)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[1, -1], [0, 2]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.25", "0.75"]
    with pytest.raises(InputError, match="gain"):
        figures.plot_class_gains(table.drop(columns="gain"))


def test_history_draws_each_seed_and_marks_its_best_epoch():
    parts = [
        pd.DataFrame({"method": m, "seed": s, "epoch": [1, 2, 3], "loss": [3.0, 2, 1]})
        for m in ("ekd", "bsm")
        for s in (0, 1)
    ]
    table = pd.concat(parts).assign(val_balanced_accuracy=[0.1, 0.3, 0.2] * 4)
    figure = figures.plot_history(table)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(curves) == 4
    best = {line.get_label(): line for line in figure.axes[1].lines if "best" in line.get_label()}
    assert sorted(best) == ["best epoch bsm", "best epoch ekd"]
    assert best["best epoch ekd"].get_xdata().tolist() == [2, 2]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["balanced softmax", "EKD"]


ONE_TABLE = [
    (figures.plot_class_recall, scores()),
    (figures.plot_group_recall, scores()),
    (figures.plot_comparison, differences()),
    (figures.plot_class_bands, bands()),
    (figures.plot_gain, np.ones((8, 5))),
]


@pytest.mark.parametrize(("plot", "table"), ONE_TABLE)
def test_plots_draw_into_given_axes_and_leave_the_style_alone(plot, table):
    before = dict(matplotlib.rcParams)
    _, axes = plt.subplots(1, 2)
    assert plot(table, ax=axes[1]) is axes[1]
    assert not axes[0].has_data() and len(plt.get_fignums()) == 1
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("plot", "table"), ONE_TABLE)
def test_no_label_is_clipped_in_the_saved_figure(plot, table, tmp_path):
    ax = plot(table)
    figures.save_figure(ax, tmp_path / "figure.png")
    box, whole = ax.get_tightbbox(), ax.figure.bbox
    assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1


@pytest.mark.parametrize(("plot", "table"), ONE_TABLE[:4])
def test_plots_refuse_a_table_without_a_column_or_a_row(plot, table):
    with pytest.raises(InputError, match="table: expected a column 'n', got"):
        plot(table.drop(columns="n"))
    with pytest.raises(InputError, match="table: expected"):
        plot(table.iloc[:0])


def test_colours_of_methods_differ_in_lightness_or_hue_for_all():
    """Any two method colours stay apart when red and green are seen alike (deuteranopia)."""
    # Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
    seen = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    colours = [matplotlib.colors.to_rgb(each) for each in figures.METHOD_COLORS.values()]
    simulated = np.clip(np.array(colours) ** 2.2 @ seen.T, 0, 1) ** (1 / 2.2)
    gaps = np.linalg.norm(simulated[:, None] - simulated[None], axis=-1)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() > 0.12


def test_save_figure_writes_the_same_bytes_without_a_program_name(tmp_path):
    paths = [
        figures.save_figure(figures.plot_group_recall(scores()), tmp_path / f"{place}.png")
        for place in range(2)
    ]
    first, second = (path.read_bytes() for path in paths)
    assert first == second and b"Software" not in first and first.startswith(b"\x89PNG")
    height, width = imread(paths[0]).shape[:2]
    assert width == 1292 and height > 400  # 7.6 inches at 170 dots an inch
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


def test_save_figure_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    figure = plt.figure()
    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(WorkError, match="the disk is full"):
        figures.save_figure(figure, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"a.svg: expected a name that ends in .png"):
        figures.save_figure(figure, tmp_path / "a.svg")


def test_importing_figures_imports_no_torch():
    code = "import sys, fopro_lab.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_in_house_style_keeps_what_a_notebooks_backend_switches_on():
    assert not plt.isinteractive()
    try:
        figures.with_style(plt.ion)()
        assert plt.isinteractive()
    finally:
        plt.ioff()
