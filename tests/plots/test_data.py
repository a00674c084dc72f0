import numpy as np

from fopro_lab import plots
from tests.conftest import refuses
from tests.plots.tables import IMAGES, audit, counts, spectra, texts


def test_class_counts_print_n_at_each_bar():
    ax = plots.plot_class_counts(counts())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nv", "df"]
    assert set(texts(ax)) == {"20", "5,000", "4", "90"}
    assert ax.get_xscale() == "log"
    assert ax.get_yticklabels()[0].get_color() == plots.GROUP_COLORS["head"]


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


def test_pipeline_has_a_panel_per_stage_and_a_line_per_step():
    table = audit()
    table.loc[table["low"] == 0.5, ["log_ratio", "interval_low", "interval_high"]] = np.nan
    figure = plots.plot_pipeline(table, source="sharp")
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_legend().get_texts()] == ["box", "bilinear"]
    bilinear = next(line for line in first.lines if line.get_label() == "bilinear")
    np.testing.assert_allclose(bilinear.get_xdata(), [0.125, 0.375, 0.625])
    np.testing.assert_allclose(
        np.log(bilinear.get_ydata()), [-0.1, -0.6, np.nan]
    )  # no energy: a gap
    assert np.isfinite(first.get_ylim()).all()
    assert r"$\times$ 1.00" in [tick.get_text() for tick in first.get_yticklabels()]
    assert figure.get_suptitle().endswith("source sharp")
    refuses("source: expected one of all, sharp", plots.plot_pipeline, table, source="soft")
