import numpy as np
from matplotlib.colors import to_hex

from fopro_lab import plots
from tests.plots.tables import all_pairs, claims, differences, history, levels, scores, texts


def markers(ax):
    return [line for line in ax.lines if line.get_marker() not in ("None", None, "")]


def dots(ax, method):
    """Return the positions of a method's markers."""
    color = plots.METHOD_COLORS[method].lower()
    return sorted(m.get_xdata()[0] for m in markers(ax) if to_hex(m.get_color()) == color)


def labels(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


def test_class_recall_goes_from_head_to_tail_with_n_and_intervals():
    ax = plots.plot_class_recall(scores())
    assert labels(ax) == ["nv  n=400", "mel  n=90", "df  n=6"]
    assert ax.yaxis_inverted()
    np.testing.assert_allclose(dots(ax, "bsm"), [0.5, 0.7, 0.9])
    np.testing.assert_allclose(dots(ax, "fopro"), [0.6, 0.7, 0.9])
    spans = sorted(list(line.get_xdata()) for line in ax.lines if line.get_gid() == "interval bsm")
    np.testing.assert_allclose(spans, [(0.4, 0.55), (0.6, 0.75), (0.8, 0.95)])
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == [
        "balanced softmax",
        "FoPro-KD",
    ]
    assert {t for t in texts(ax) if "/" in t} == {"3/6", "3.6/6"}  # below ten images alone


def test_group_recall_and_class_recall_of_one_run():
    ax = plots.plot_group_recall(scores())
    assert labels(ax) == ["head\nn=400", "medium\nn=90", "tail\nn=6", "all classes\nn=496"]
    assert {"50 [40, 55]", "60 [50, 65]", "90 [80, 95]"} <= set(texts(ax))
    assert "mean of 2 seeds" in ax.figure.get_supxlabel()
    table = scores(("bsm",)).drop(columns=["method", "seeds"])
    table.loc[table["name"] == "df", ["value", "low", "high", "k"]] = np.nan
    table.loc[table["name"] == "df", "n"] = 0
    ax = plots.plot_class_recall(table)
    assert not ax.figure.legends and labels(ax)[2] == "df  n=0"
    assert np.isnan(dots(ax, "bsm")).tolist().count(True) == 1


def test_comparison_shows_zero_and_fills_what_excludes_it():
    ax = plots.plot_comparison(differences())
    assert any(set(line.get_xdata()) == {0} for line in ax.lines)
    faces = {(to_hex(m.get_markerfacecolor()), to_hex(m.get_color())) for m in markers(ax)}
    ekd, fopro = (plots.METHOD_COLORS[name].lower() for name in ("ekd", "fopro"))
    assert faces == {("#ffffff", ekd), (fopro, fopro)}
    pale = [line.get_xdata() for line in ax.lines if line.get_label() == "_SD over seeds"]
    np.testing.assert_allclose(pale[0], [-0.01, 0.05])  # 2 points, 3 to either side
    assert "+20.0 [+10.0, +30.0]" in texts(ax) and "+2.0 [-8.0, +12.0]" in texts(ax)
    classes = plots.plot_comparison(differences(), scopes=("class",))
    assert labels(classes) == ["df  n=6", "nv  n=400", "mel  n=90"]


def test_many_methods_are_named_beside_their_numbers_and_few_in_a_legend():
    many = ("ce", "bsm", "ekd", "fopro", "random", "bsm+kd", "ldam")
    for ax in (plots.plot_group_recall(scores(many)), plots.plot_group_recall(scores(many[:2]))):
        beside = [text for text in texts(ax) if text.endswith("balanced softmax")]
        assert (not ax.figure.legends) == bool(beside)
    assert len(plots.plot_class_recall(scores(many)).figure.legends[0].get_texts()) == 7


def test_all_pairs_frame_what_is_clear_after_correction_with_the_best_on_top():
    figure = plots.plot_all_pairs(all_pairs())
    ax = figure.axes[0]
    assert labels(ax) == ["FoPro-KD", "EKD", "balanced softmax"]
    framed = [text.get_text() for text in ax.texts if text.get_bbox_patch() is not None]
    assert framed == ["+10.0", "-10.0"] and len(ax.texts) == 6


def test_all_pairs_without_a_tail_or_a_pair_say_what_there_is():
    table = all_pairs().query("name == 'all'")
    table = table[~(table["method"] + table["baseline"]).isin(["ekdbsm", "bsmekd"])]
    figure = plots.plot_all_pairs(table)
    assert len(figure.axes) == 1 and len(figure.axes[0].texts) == 4
    assert any("Holm over 2 pairs" in text for text in texts(figure))


def test_cost_and_slopes_are_sorted_and_say_what_is_not_known():
    levels_ax, minutes, _ = plots.plot_cost(levels()).axes
    assert labels(levels_ax) == ["EKD", "balanced softmax"]
    assert [text.get_text() for text in minutes.texts] == ["n/a", "2"]
    slopes = plots.plot_slopes(scores())
    assert texts(slopes) == ["balanced softmax  50.0", "FoPro-KD  60.0"]
    np.testing.assert_allclose(slopes.lines[0].get_ydata(), [0.9, 0.7, 0.5])


def test_history_draws_each_seed_and_marks_the_epoch_that_was_kept_or_the_best():
    figure = plots.plot_history(history())
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(curves) == 6  # two seeds of two methods, and the means
    widths = [line.get_linewidth() for line in curves]
    assert sorted(widths) == [0.6] * 4 + [1.8] * 2
    rows = history().query("method == 'ekd'").groupby("epoch")["loss"].mean()
    thick = [line.get_ydata() for line in curves if line.get_linewidth() == 1.8]
    assert any(np.allclose(values, rows) for values in thick)
    best = {line.get_label(): line for line in figure.axes[1].lines if "best" in line.get_label()}
    assert sorted(best) == ["best epoch bsm", "best epoch ekd"]
    assert best["best epoch ekd"].get_xdata().tolist() == [2, 2]
    _, ax = plots.plot_history(history().assign(kept=history()["epoch"] == 3)).axes
    kept = {line.get_label(): line.get_xdata().tolist() for line in ax.lines}
    assert kept["kept epoch ekd"] == [3, 3] and "kept" in ax.get_title("left")


def test_a_claim_is_filled_only_where_the_corrected_p_value_is_small():
    figure = plots.plot_claim(claims())
    for ax in figure.axes:
        filled = [line.get_markerfacecolor() != "white" for line in markers(ax)]
        assert filled == [True, True, False]
        np.testing.assert_allclose([m.get_xdata()[0] for m in markers(ax)], [0.04, -0.05, 0.03])
    assert "+4.0 [+2.0, +6.0]\n40.0 → 44.0 %, n=120" in texts(figure.axes[0])
