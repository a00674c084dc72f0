import numpy as np
import pandas as pd

from fopro_lab import plots
from tests.conftest import refuses
from tests.plots.tables import IMAGES, audit, counts, sources, spectra, texts, ties


def test_class_counts_print_n_at_each_bar_and_sources_their_share():
    ax = plots.plot_class_counts(counts())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv", "df"]
    assert set(texts(ax)) == {"20", "5,000", "4", "90"}
    assert ax.get_xscale() == "log"
    assert ax.get_yticklabels()[0].get_color() == plots.GROUP_COLORS["head"]
    ax = plots.plot_class_sources(sources())
    np.testing.assert_allclose(ax.images[0].get_array(), [[75, 25], [0, 100], [0, 0]])
    assert texts(ax) == ["30", "10", "0", "5", "0", "0"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv  n=40", "df  n=5", "x  n=0"]
    refuses("expected a column for at least one", plots.plot_class_sources, sources()[["class"]])


def test_images_show_every_pixel_and_spectra_a_line_per_class():
    figure = plots.plot_images(IMAGES, list("abcde"), columns=3)
    assert [ax.get_title() for ax in figure.axes] == list("abcde")
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), IMAGES[4])
    refuses(r"images: expected \(N, H, W, 3\) of", plots.plot_images, np.zeros((1, 4, 4, 3)), ["a"])
    refuses("titles: expected one for each of 5, got 1", plots.plot_images, IMAGES, ["a"])
    ax = plots.plot_spectra(spectra())
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.125, 0.375, 0.625])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.0, -1.0, -2.0])
    assert texts(ax) == ["corners"] and "cycles per pixel" in ax.get_xlabel()
    refuses("table: expected rows of scope", plots.plot_spectra, spectra(), scope="source")


def test_leakage_draws_the_kinds_that_occur_with_k_of_n_in_test_and_validation():
    val = ties(part="val", n=[8, 2, 10], group=[2, 1, 3], near_duplicate=0)
    test, validation = plots.plot_leakage(pd.concat([val, ties()])).axes
    labels = [text.get_text() for text in validation.get_legend().get_texts()]
    assert labels == ["same lesion or patient", "near-duplicate"]
    assert texts(test) == ["5/10", "0/4", "5/14", "1/10", "0/4", "1/14"]
    assert texts(validation) == ["2/8", "1/2", "3/10", "0/8", "0/2", "0/10"]
    assert [round(bar.get_width(), 1) for bar in test.patches][:3] == [50.0, 0.0, 35.7]


def test_pipeline_has_a_panel_per_stage_and_a_line_per_step():
    table = audit()
    table.loc[table["low"] == 0.5, ["log_ratio", "interval_low", "interval_high"]] = np.nan
    figure = plots.plot_pipeline(table, source="sharp")
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_legend().get_texts()] == ["box", "bilinear"]
    bilinear = next(line for line in first.lines if line.get_label() == "bilinear")
    np.testing.assert_allclose(bilinear.get_xdata(), [0.125, 0.375, 0.625])
    np.testing.assert_allclose(bilinear.get_ydata(), [-0.1, -0.6, np.nan])  # no energy: a gap
    assert np.isfinite(first.get_ylim()).all()
    assert "\u00d7 0.5" in [tick.get_text() for tick in first.get_yticklabels()]
    assert figure.get_suptitle().endswith("source sharp")
    refuses("source: expected one of all, sharp", plots.plot_pipeline, table, source="soft")
