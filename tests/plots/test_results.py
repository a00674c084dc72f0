import numpy as np
from matplotlib.colors import to_hex

from fopro_lab import plots
from tests.plots.tables import claims, differences, history, scores, texts


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
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["balanced softmax", "FoPro-KD"]
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
    assert ax.get_legend() is None and labels(ax)[2] == "df  n=0"
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


def test_history_draws_each_seed_and_marks_its_best_epoch():
    figure = plots.plot_history(history())
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(curves) == 4
    best = {line.get_label(): line for line in figure.axes[1].lines if "best" in line.get_label()}
    assert sorted(best) == ["best epoch bsm", "best epoch ekd"]
    assert best["best epoch ekd"].get_xdata().tolist() == [2, 2]


def test_a_claim_is_filled_only_where_the_corrected_p_value_is_small():
    figure = plots.plot_claim(claims())
    for ax in figure.axes:
        filled = [line.get_markerfacecolor() != "white" for line in markers(ax)]
        assert filled == [True, True, False]
        np.testing.assert_allclose([m.get_xdata()[0] for m in markers(ax)], [0.04, -0.05, 0.03])
    assert {"+4.0 [+2.0, +6.0]", "40.0 → 44.0 %, n=120"} <= set(texts(figure.axes[0]))
