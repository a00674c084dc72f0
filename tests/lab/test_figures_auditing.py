"""Figures of the doctor and of the pipeline audit, read back from their artists."""

from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fopro_lab import plots as figures
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.plots.data import LEVEL_LOOKS


@pytest.fixture(autouse=True)
def no_window():
    matplotlib.use("agg")


def counts():
    return pd.DataFrame(
        {"class": ["nv", "df"] * 3, "split": np.repeat(["train", "val", "test"], 2),
         "n": [400, 20, 50, 5, 60, 6]}
    )  # fmt: skip


def findings():
    long = "a verdict that goes on " * 12
    rows = [("ok", "reading", "all can be read"), ("note", "imbalance", "1:20"),
            ("warn", "power", long), ("fail", "groups", "torn")]  # fmt: skip
    return pd.DataFrame(rows, columns=["level", "what", "verdict"])


def ties(**columns):
    table = pd.DataFrame({"part": "test", "other": "train", "class": ["nv", "df", "all"],
                          "n": [10, 4, 14], "group": [5, 0, 5], "copy": 0,
                          "lookalike": [1, 0, 1]})  # fmt: skip
    return table.assign(**columns)


def audit(stages=("resize", "augment, fused"), steps=("box", "bilinear")):
    rows = [
        {"stage": stage, "step": step, "reference": f"before {stage}", "size": 64, "source": source,
         "low": low, "high": low + 0.25, "log_ratio": -low * (place + 1) - 0.1 * (source != "all"),
         "n": 20, "interval_low": -low * (place + 1) - 0.2, "interval_high": -low * (place + 1)}
        for stage in stages
        for place, step in enumerate(steps)
        for source in ("all", "sharp")
        for low in (0.0, 0.25, 0.5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_checkup_shows_every_verdict_whole_under_the_counts():
    figure = figures.plot_data_report(counts(), findings())
    upper, lower = figure.axes
    assert upper.get_title("left") == "Images of each class"
    texts = [text.get_text() for text in lower.texts]
    assert texts[::2] == ["reading", "imbalance", "power", "groups"]
    assert [" ".join(text.split()) for text in texts[1::2]] == [
        " ".join(verdict.split()) for verdict in findings()["verdict"]
    ]
    assert [line.get_color() for line in lower.lines] == [
        LEVEL_LOOKS[level][0] for level in ("ok", "note", "warn", "fail")
    ]


def test_checkup_texts_do_not_run_into_each_other_or_out_of_the_figure():
    figure = figures.plot_data_report(counts(), findings())
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[1].texts[1::2]]
    for above, below in pairwise(boxes):
        assert above.y0 >= below.y1 - 1
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert min(box.y0 for box in boxes) >= 0


def test_checkup_refuses_an_unknown_level():
    with pytest.raises(InputError, match=r"level: expected one of ok, note, warn, fail, got \['x'"):
        figures.plot_data_report(counts(), findings().assign(level="x"))


def test_leaks_draw_the_kinds_that_occur_with_k_of_n_in_test_and_validation():
    val = ties(part="val", n=[8, 2, 10], group=[2, 1, 3], lookalike=0)
    test, validation = figures.plot_leakage(pd.concat([val, ties()])).axes
    labels = [text.get_text() for text in validation.get_legend().get_texts()]
    assert labels == ["same lesion or patient", "near-duplicate"]
    told = ["5/10", "0/4", "5/14", "1/10", "0/4", "1/14"]
    assert [text.get_text() for text in test.texts] == told
    told = ["2/8", "1/2", "3/10", "0/8", "0/2", "0/10"]
    assert [text.get_text() for text in validation.texts] == told
    assert [round(bar.get_width(), 1) for bar in test.patches][:3] == [50.0, 0.0, 35.7]
    assert [round(bar.get_width(), 1) for bar in validation.patches][:3] == [25.0, 50.0, 30.0]
    assert [tick.get_text() for tick in test.get_yticklabels()] == ["nv", "df", "all classes"]
    assert test.get_title("left") == "Test images"
    assert validation.get_title("left") == "Validation images"


def test_leaks_without_a_leak_are_an_empty_row_of_bars():
    (ax,) = figures.plot_leakage(ties(group=0, lookalike=0)).axes
    assert [text.get_text() for text in ax.texts] == ["0/10", "0/4", "0/14"]
    with pytest.raises(InputError, match="expected rows of test or val against train, got none"):
        figures.plot_leakage(ties(other="val"))


def test_pairs_stand_side_by_side_under_their_titles():
    first = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    figure = figures.plot_pairs(first, 255 - first, ["a", "b", "c"], columns=2)
    shown = [ax.images[0].get_array() for ax in figure.axes]
    for number in range(3):
        np.testing.assert_array_equal(shown[2 * number], first[number])
        np.testing.assert_array_equal(shown[2 * number + 1], 255 - first[number])
    assert [cell.get_suptitle() for cell in figure.subfigs[:3]] == ["a", "b", "c"]


def test_pairs_refuse_other_shapes_and_missing_titles():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"first, second: expected .* got \(2, 4, 4, 3\) of uint8"):
        figures.plot_pairs(images, images[:1], ["a", "b"])
    with pytest.raises(InputError, match="titles: expected one for each pair, got 1 for 2"):
        figures.plot_pairs(images, images, ["a"])


def test_class_sources_colour_by_share_and_write_images():
    table = pd.DataFrame({"class": ["nv", "df", "x"], "a": [30, 0, 0], "b": [10, 5, 0]})
    ax = figures.plot_class_sources(table)
    np.testing.assert_allclose(ax.images[0].get_array(), [[75, 25], [0, 100], [0, 0]])
    assert [text.get_text() for text in ax.texts] == ["30", "10", "0", "5", "0", "0"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv  n=40", "df  n=5", "x  n=0"]
    with pytest.raises(InputError, match="expected a column for at least one source"):
        figures.plot_class_sources(table[["class"]])


def test_pipeline_has_a_panel_a_stage_and_a_line_a_step():
    figure = figures.plot_pipeline(audit(), source="sharp")
    first, second = figure.axes
    assert first.get_title("left") == "Resize at 64 px"
    assert second.get_title("left") == "Augment, fused at 64 px"
    labels, legend = [t.get_text() for t in first.get_legend().get_texts()], first.get_legend()
    assert labels == ["box", "bilinear"]
    assert legend.get_title().get_text() == "against: before resize"
    bilinear = next(line for line in first.lines if line.get_label() == "bilinear")
    np.testing.assert_allclose(bilinear.get_xdata(), [0.125, 0.375, 0.625])
    np.testing.assert_allclose(bilinear.get_ydata(), [-0.1, -0.6, -1.1])
    assert figure.get_suptitle().endswith("source sharp")


def test_pipeline_labels_factors_not_logarithms():
    ax = figures.plot_pipeline(audit()).axes[0]
    ticks = dict(zip(ax.get_yticks().round(3), (t.get_text() for t in ax.get_yticklabels()),
                     strict=True))  # fmt: skip
    assert ticks[0.0] == "\u00d7 1" and ticks[-0.693] == "\u00d7 0.5"


def test_pipeline_with_four_stages_is_two_by_two_and_an_empty_ring_is_a_gap():
    table = audit(("decode", "resize", "augment, fused", "augment, exact"))
    table.loc[table["low"] == 0.5, ["log_ratio", "interval_low", "interval_high"]] = np.nan
    figure = figures.plot_pipeline(table)
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 2)
    assert np.isfinite(figure.axes[0].get_ylim()).all()
    with pytest.raises(InputError, match="source: expected one of all, sharp, got 'soft'"):
        figures.plot_pipeline(table, source="soft")


def test_pipeline_says_when_no_image_was_drafted():
    table = audit(("decode", "resize")).assign(size=32)
    still = table.assign(log_ratio=table["log_ratio"].where(table["stage"] != "decode", 0.0))
    told = [[text.get_text() for text in figures.plot_pipeline(each).axes[0].texts]
            for each in (table, still)]  # fmt: skip
    note = "no image was drafted:\nnone is a JPEG of 128 px or more"
    assert note not in told[0] and note in told[1]


@pytest.mark.parametrize(
    ("plot", "table"),
    [
        (figures.plot_leakage, ties()),
        (figures.plot_pipeline, audit()),
        (figures.plot_class_sources, pd.DataFrame({"class": ["nv"], "a": [1]})),
    ],
)
def test_tables_without_rows_or_columns_are_refused(plot, table):
    with pytest.raises(InputError, match=r"table: expected a column '(class|stage|part)', got"):
        plot(table.drop(columns=["class", "stage"], errors="ignore"))
    with pytest.raises(InputError, match="expected"):
        plot(table.iloc[:0])
