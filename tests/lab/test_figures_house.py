"""One house for all figures: whatever a plot's own example draws keeps the same few rules.

The functions are found, not listed, so a new one is held to the rules as well; what a rule does
not fit is excused here by name, with the reason.
"""

import doctest
import importlib
import inspect
import pkgutil
import re
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fopro_lab import plots as figures
from fopro_lab.plots.style import GROUP_COLORS, METHOD_COLORS, METHOD_MARKERS

PROTOCOL = "house/protocol/seed0"
UNIT = re.compile(
    r"cycles per pixel|%|per cent|points|nats|[Pp]ictures|logarithmic|step|Epoch|times as|1 - cos"
    r"|log ratios|energy changed|0 is chance|Source|reference"
)
TOLD_N = re.compile(r"n=\d|\d/\d|\bn (at|in) each (bar|cell)")
SURE = re.compile(r"interval|spread|quartiles", re.IGNORECASE)

IMAGES = {"plot_images", "plot_pairs"}  # photographs: no axes, nothing estimated
ONE_PROMPT = {  # a learned prompt's own gains, each frequency once: no sample, no interval
    *("plot_gain", "plot_radial_gain", "plot_class_gains"),
}
ONE_TRAINING = {
    "plot_prompt_training",
    "plot_mask_history",
    "plot_history",
}  # what happened in one run, step by step
PLANES = {"plot_heat_map"}  # the caller's notes tell n, for it gets an array


def found() -> dict[str, tuple]:
    """Every public plot of every module of figures: its function and its module."""
    plots = {}
    for info in pkgutil.iter_modules(figures.__path__):
        module = importlib.import_module(f"{figures.__name__}.{info.name}")
        for name, plot in vars(module).items():
            if name.startswith("plot_") and plot.__module__ == module.__name__:
                plots[name] = (plot, module)
    return plots


PLOTS = found()


def draw(name: str) -> tuple[Figure, bool]:
    """Draw what the plot's docstring shows; return the figure, and whether it told a table."""
    plot, module = PLOTS[name]
    drawn, tables = [], []

    def spy(*args, **knobs):
        tables.extend(arg for arg in args if isinstance(arg, pd.DataFrame))
        args = [
            arg.assign(protocol=PROTOCOL) if isinstance(arg, pd.DataFrame) and hold(name) else arg
            for arg in args
        ]
        drawn.append(plot(*args, **knobs))
        return drawn[-1]

    [test] = doctest.DocTestFinder(recurse=False).find(plot, name, globs={**vars(module)})
    assert test.examples, f"{name}: expected an example in its docstring"
    names = {**vars(module), "pd": pd, name: spy}
    for example in test.examples:
        exec(compile(example.source, name, "single"), names)
    figure = drawn[0] if isinstance(drawn[0], Figure) else drawn[0].get_figure(root=True)
    figure.draw_without_rendering()
    return figure, bool(tables)


def hold(name: str) -> bool:
    """Whether a column ``protocol`` can be added: one table holds a column a source."""
    return name != "plot_class_sources"


def shown(figure: Figure) -> list:
    """The axes with a frame of their own: no colour bars, none that is switched off."""
    return [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]


def all_texts(figure: Figure) -> str:
    told = [figure.get_supxlabel(), figure.get_suptitle()]
    for ax in figure.axes:
        told += [text.get_text() for text in ax.texts]
        told += [tick.get_text() for tick in (*ax.get_xticklabels(), *ax.get_yticklabels())]
        told += [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []
        told += [ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")]
    return "\n".join(told)


@pytest.fixture(autouse=True)
def agg():
    matplotlib.use("agg")
    yield
    plt.close("all")


@pytest.fixture(params=sorted(PLOTS))
def named(request, capsys):
    before = dict(matplotlib.rcParams)
    figure, tabled = draw(request.param)
    after = dict(matplotlib.rcParams)
    assert {k for k in before if before[k] != after[k]} <= {"interactive", "backend"}
    return request.param, figure, tabled


def test_a_figure_keeps_the_rules_of_the_house(named):
    name, figure, tabled = named
    told = all_texts(figure)
    assert figure.get_facecolor() == (1, 1, 1, 1), "white: pages lay figures on white cards"
    if name in IMAGES:
        return
    titles = [figure.get_suptitle(), *(ax.get_title(loc="left") for ax in figure.axes)]
    assert any(titles), "a title, at the left"
    for ax in shown(figure):
        assert not ax.spines["top"].get_visible() or ax.images, "no frame at the top"
    labels = [ax.get_xlabel() for ax in shown(figure)] + [ax.get_ylabel() for ax in figure.axes]
    assert UNIT.search("\n".join([*labels, *titles])), f"a unit or a scale at an axis: {labels}"
    if tabled and hold(name):
        assert PROTOCOL in figure.get_supxlabel(), "the protocol in the footer"
    if name not in ONE_PROMPT | ONE_TRAINING | PLANES:
        assert TOLD_N.search(told) or re.search(r"of \d+ rounds", told), f"n: {told}"
        assert SURE.search(told), f"the interval, or why there is none: {told}"


def test_there_is_something_to_hold():
    assert {"plot_class_recall", "plot_comparison", "plot_history"} <= PLOTS.keys()
    excused = IMAGES | ONE_PROMPT | ONE_TRAINING | PLANES
    assert excused <= PLOTS.keys(), "a name that is gone excuses nothing"


def lightness(color: str) -> float:
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_methods_differ_in_colour_and_in_marker():
    assert METHOD_COLORS.keys() == METHOD_MARKERS.keys()
    assert len(set(METHOD_COLORS.values())) == len(set(METHOD_MARKERS.values())) == 5


def test_colours_of_groups_mean_groups_alone():
    for _, module in PLOTS.values():
        source = inspect.getsource(module).upper()
        for group in ("head", "medium", "tail"):
            assert GROUP_COLORS[group] not in source, f"{module.__name__}: the colour of {group}"


# Machado et al. 2009, severity 1: how the two common red-green deficiencies see linear RGB.
SEEN_BY = {
    "deuteranope": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "protanope": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
}


@pytest.mark.parametrize("eye", SEEN_BY)
def test_groups_stay_apart_for_colour_blind_eyes(eye):
    seen = {}
    for group in ("head", "medium", "tail"):
        rgb = to_rgb(GROUP_COLORS[group])
        seen[group] = [sum(m * c for m, c in zip(row, rgb, strict=True)) for row in SEEN_BY[eye]]
    for one, other in combinations(seen.values(), 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 0.2


def test_colours_of_groups_are_legible_as_words_on_white():
    for color in ("head", "tail", ""):
        assert 1.05 / (lightness(GROUP_COLORS[color]) + 0.05) >= 4.5
    assert 1.05 / (lightness(GROUP_COLORS["medium"]) + 0.05) >= 3  # bold or large, ticks beside n
