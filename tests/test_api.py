"""The Python API: wrong arguments give one line with the way out, and all user text is text."""

import dataclasses
from types import SimpleNamespace

import matplotlib.cbook
import matplotlib.text
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from fopro_lab import data, evaluation, fourier, models, plots, probing, training
from fopro_lab.reports.pages import write_notebook_page
from tests.conftest import complaint


@pytest.fixture(scope="module")
def toy():
    dataset = data.open_dataset("phantom", images=48)
    made = {"dataset": dataset, "packed": data.pack(dataset, 16, progress=False)}
    made |= {"split": data.make_split(dataset), "teacher": models.load_teacher("builtin")}
    return SimpleNamespace(**made, prompt=fourier.FourierPrompt("ring", size=16))


EDGES, GAINS = [0, 0.2, 0.5], [0.0]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda t: data.batches(t.packed, t.split, batch_size=4),
            "rows: expected a list of row numbers, got a Split; take split.train, split.val or",
        ),
        (
            lambda t: probing.ring_response(t.teacher, torch.rand(2, 3, 16, 16), 8, GAINS),
            "edges: expected a list, got 8; ring_edges(8) gives the edges of 8 rings",
        ),
        (
            lambda t: probing.ring_response("builtin", torch.rand(2, 3, 16, 16), EDGES, GAINS),
            "teacher: expected a teacher, got 'builtin'; load_teacher(name) loads one",
        ),
        (
            lambda t: training.explore(t.prompt, t.teacher, [], objectives=["task"], steps=1),
            "objectives: expected a mapping, got ['task']; write names with their values, such as",
        ),
        (lambda t: training.distill({"epochs": 1}, out="x"), "config: expected a TrainConfig, got"),
        (lambda t: evaluation.load_runs("typo"), "typo: no such folder"),
        (lambda t: evaluation.compare(["a"], "bsm"), "runs: expected a Run, got 'a'; load_runs("),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_with_the_way_out(toy, call, expected):
    assert complaint(call, toy).startswith(expected)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.zeros((2, 3, 16, 16)), "images: expected a torch tensor"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "images: expected a real floating type, go"),
        (torch.zeros(2, 16, 16, 3), "images: expected (B, 3, H, W), got (2, 16, 16, 3); images.pe"),
        (torch.zeros(3, 16, 16), "images: expected (B, 3, H, W), got (3, 16, 16); images[None] is"),
        (torch.full((2, 3, 16, 16), 200.0), "images: expected values in [0, 1], got 200 to 200"),
        (torch.full((2, 3, 16, 16), torch.nan), "images: expected values in [0, 1], got nan to na"),
    ],
)  # fmt: skip
def test_what_takes_images_refuses_what_are_none(toy, images, expected):
    teacher, labels = toy.teacher, torch.zeros(2, dtype=torch.int64)
    calls = [
        lambda: probing.ring_response(teacher, images, EDGES, GAINS),
        lambda: probing.basis_heat_map(teacher, images),
        lambda: training.HeldOut(images, labels),
    ]
    if "nan" not in expected:  # what a diverged prompt gives ends as a loss that is not finite
        calls += [lambda: teacher.encode(images)]
        calls += [lambda: models.build_student("small", classes=2).eval().classify(images)]
    for call in calls:
        assert complaint(call).startswith(expected)


def test_a_prompted_image_is_encoded_and_objects_show_themselves_in_one_line_and_a_table(toy):
    images = torch.rand(2, 3, 32, 32) * 3 - 1
    assert toy.teacher.encode(images).shape == (2, 256)
    shown = dataclasses.replace(toy.dataset, name="<b>x|y")
    assert repr(shown) == "<Dataset: name <b>x|y, images 48, classes 8>"
    assert "&lt;b&gt;x|y" in shown._repr_html_() and "<b>" not in shown._repr_html_()
    for each in vars(toy).values():
        assert repr(each).startswith(f"<{type(each).__name__}: ") and len(repr(each)) < 250
        assert "\n" not in repr(each) and each._repr_html_().startswith("<table>")


LONG = "actinic keratosis and intraepithelial carcinoma (Bowen's disease), of the left forearm"


@pytest.mark.parametrize("name", ["cost_$x^2$ & $\\frac{1}", LONG, "\u9ed1\u8272\u7d20\u7624" * 20])
def test_a_class_name_is_text_in_figures_and_fits(tmp_path, name):
    twin, bars = name + " II", []
    rows = [(label, part, 5) for label in (name, twin) for part in ("train", "test")]
    ax = plots.plot_class_counts(pd.DataFrame(rows, columns=["class", "split", "n"]))
    plots.save_figure(ax, tmp_path / "a.png")  # warnings, such as of no room, are errors
    bars = [text.get_text() for text in ax.get_yticklabels()]
    assert len(set(bars)) == 2 and all(len(text) <= 46 for text in bars)
    assert bars[0].replace(r"\$", "$")[:9] == name[:9]
    for text in ax.figure.findobj(matplotlib.text.Text):
        assert not matplotlib.cbook.is_math_text(text.get_text())


def test_a_name_is_no_markup_on_pages_and_in_tables(tmp_path):
    output = nbformat.v4.new_output("execute_result", {"text/markdown": "- <b>x|y: 3"})
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    write_notebook_page(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.html", name="a")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;x|y: 3" in page and "<b>x" not in page
