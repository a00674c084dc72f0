"""The rules that every figure keeps: title, units, protocol, n and interval; colours; saving."""

import re

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.image import imread
from matplotlib.text import Text

from fopro_lab import plots
from fopro_lab.errors import CONTROL, InputError
from fopro_lab.plots.style import STYLE
from tests.conftest import refuses
from tests.plots.tables import EVERY, PROTOCOL, draw, scores

UNIT = re.compile(
    r"cycles per pixel|%|per cent|points|nats|[Ii]mages|logarithmic|step|Epoch|1 - cos"
    r"|log ratios|energy changed|0 is chance|Source|reference"
)
SHOWN_N = re.compile(r"n=\d|\d/\d|\bn (at|in) each (bar|cell)")
INTERVAL = re.compile(r"interval|spread", re.IGNORECASE)
ONE_TRAINING = {  # what happened in one training, or one prompt's own gains: no sample
    *("plot_prompt_training", "plot_mask_history", "plot_history"),
    *("plot_gain", "plot_radial_gain"),
}


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_figure_keeps_the_rules(name):
    before = dict(matplotlib.rcParams)
    figure, table = draw(name)
    assert dict(matplotlib.rcParams) == before, "the reader's own style stays"
    with plt.style.context(STYLE):
        figure.draw_without_rendering()
        figure.draw_without_rendering()  # the layout of square axes settles in its second pass
    box, size = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= -0.02 and box.y0 >= -0.02, "no label is clipped"
    assert box.x1 <= size[0] + 0.02 and box.y1 <= size[1] + 0.02, "no label is clipped"
    assert figure.get_facecolor() == (1, 1, 1, 1), "white: pages lay figures on white cards"
    if name in ("plot_images", "plot_teacher_glyphs"):  # photographs and icons have no axes
        return
    titles = [figure.get_suptitle(), *(ax.get_title(loc="left") for ax in figure.axes)]
    assert any(titles), "a title, at the left"
    labels = [text for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel())]
    assert UNIT.search("\n".join([*labels, *titles])), f"a unit or a scale at an axis: {labels}"
    if isinstance(table, pd.DataFrame) and "protocol" in table:
        assert PROTOCOL in figure.get_supxlabel(), "the protocol in the footer"
    written = "\n".join(text.get_text() for text in figure.findobj(Text))
    if name not in ONE_TRAINING:
        assert SHOWN_N.search(written), "the number of images"
    if name not in ONE_TRAINING | {"plot_heat_map"}:  # its drifts are means without interval
        assert INTERVAL.search(written), "the interval, or why there is none"


def test_every_plot_is_held_to_the_rules():
    assert EVERY.keys() == {name for name in vars(plots) if name.startswith("plot_")}


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_table_without_a_column_or_a_row_is_refused(name):
    plot, table = EVERY[name]
    if isinstance(table, pd.DataFrame):
        refuses(r"(table|gain|source): expected", plot, table.iloc[:0])
        with pytest.raises(InputError, match="table: expected a column"):
            plot(table[["protocol"]] if "protocol" in table else table.drop(columns="class"))


@pytest.mark.parametrize("name", ["plot_class_recall", "plot_class_bands", "plot_gain"])
def test_plots_draw_into_given_axes(name):
    plot, table = EVERY[name]
    _, axes = plt.subplots(1, 2)
    assert plot(table, ax=axes[1]) is axes[1]
    assert not axes[0].has_data() and len(plt.get_fignums()) == 1


def test_save_figure_writes_the_same_bytes_without_a_program_name(tmp_path):
    for name in ("0.png", "1.png"):
        path = plots.save_figure(plots.plot_group_recall(scores()), tmp_path / name)
    first, second = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert first == second and b"Software" not in first and first.startswith(b"\x89PNG")
    height, width = imread(path).shape[:2]
    assert width == 1292 and height > 400  # 7.6 inches at 170 dots per inch
    refuses(r"a.svg: expected a name that", plots.save_figure, plt.figure(), tmp_path / "a.svg")


@pytest.mark.parametrize("name", ["plot_class_bands", "plot_class_counts"])
def test_long_names_widen_a_figure_and_do_not_narrow_its_axes(name):
    plot, table = EVERY[name]
    widths = []
    for each in (table, table.replace("nv", 40 * "n")):
        figure = plots.style.figure_of(drawn) if isinstance(drawn := plot(each), Axes) else drawn
        with plt.style.context(STYLE):
            figure.draw_without_rendering()
        widths.append(figure.axes[0].get_position().width * figure.get_figwidth())
    assert widths[1] > 0.8 * widths[0]  # without the room 0.4 to 0.6


@pytest.mark.parametrize("name", sorted(EVERY))
def test_names_of_strangers_are_no_formulas(name):
    plot, table = EVERY[name]
    if isinstance(table, pd.DataFrame):
        odd = {"nv": "$x^2$\x1b[31m\u202e", "mel": r"$\frac{$", PROTOCOL: "$x^2$/64px"}
        plt.close("all")
        drawn = plot(table.replace(odd))
        figure = plots.style.figure_of(drawn) if isinstance(drawn, Axes) else drawn
        with plt.style.context(STYLE):
            figure.draw_without_rendering()  # raises if one is a formula that cannot be set
        written = [text.get_text() for text in figure.findobj(Text)]
        named = [text for text in written if "x^2" in text or "frac" in text]
        assert named or name == "plot_teacher_glyphs" or not table.isin([*odd]).any(axis=None)
        assert not any(is_math_text(text) for text in named)
        assert not [text for text in written if re.search(f"[{CONTROL}]", text.replace("\n", ""))]
