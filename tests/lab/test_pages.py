import base64
import io
import re

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fopro_lab.reports.pages import fit, notebook_page, stylesheet, write_notebook_page

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def page():
    display = {VIEW: {"model_id": "x"}, "text/plain": "a slider", "image/png": "c3RpbGw="}
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Which rings?\n\nA question with $x^2$ in it."),
            new_code_cell("rings = 8", metadata={"tags": ["parameters"]}),
            new_code_cell("rings = 4", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("1 / 0", outputs=[new_output("error", ename="E", evalue="v")]),
            new_code_cell("show()", outputs=[new_output("display_data", data=display)]),
            new_code_cell(
                "plot()", outputs=[new_output("display_data", data={"image/png": "aGVsbG8="})]
            ),
        ],
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}},
    )
    return notebook_page(notebook, name="rings & more")


def test_notebook_page_needs_no_network_and_no_script(page):
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert [s for s in sources if not s.startswith(("data:", "#", "../index.html"))] == []
    assert "<script" not in page and "@import" not in page and "url(" not in page


def test_notebook_page_has_a_title_a_way_back_and_its_name(page):
    assert "<title>Which rings?</title>" in page
    assert 'href="../index.html"' in page and "rings &amp; more" in page


def test_notebook_page_folds_code_away_but_for_a_failed_cell(page):
    summaries = re.findall(r'<details class="code"( open="")?>\s*<summary>(.*?)</summary>', page)
    assert summaries == [
        ("", "Parameters and their defaults"),
        ("", "Parameters of this run"),
        (' open=""', "Code"),
        ("", "Code"),
        ("", "Code"),
    ]


def test_notebook_page_inlines_figures(page):
    assert 'src="data:image/png;base64,aGVsbG8="' in page


def test_notebook_page_shows_a_widgets_still(page):
    assert 'src="data:image/png;base64,c3RpbGw="' in page and "a slider" not in page


def test_stylesheet_has_light_dark_and_print():
    for wanted in ("prefers-color-scheme: dark", "@media print", ".highlight .k"):
        assert wanted in stylesheet(code=True)


def figure(size=(1000, 800), seed=0):
    """An image that no PNG makes small, as base64."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode()


def shown(*images):
    """A notebook that shows these."""
    outputs = [[new_output("display_data", data={"image/png": text})] for text in images]
    cells = [new_code_cell("plot()", outputs=each) for each in outputs]
    return new_notebook(cells=[new_markdown_cell("# Many figures"), *cells])


def test_a_page_of_many_large_figures_stays_below_five_megabytes(tmp_path):
    images = [figure(seed=seed) for seed in range(6)]
    assert sum(map(len, images)) > 15_000_000
    path = tmp_path / "pages" / "many.html"
    write_notebook_page(shown(*images), path, name="many")
    assert path.stat().st_size < 5_000_000
    page = path.read_text()
    links = sorted(set(re.findall(r'href="(many/[^"]*)"', page)))
    assert len(links) == 6 and page.count("data:image/webp;base64,") == 6
    for link, whole in zip(links, images, strict=True):
        assert (path.parent / link).read_bytes() == base64.b64decode(whole)


def test_a_page_of_few_figures_keeps_them_as_they_are(tmp_path):
    path = tmp_path / "few.html"
    write_notebook_page(shown(figure((40, 40))), path, name="few")
    assert "data:image/png;base64," in path.read_text() and not (tmp_path / "few").exists()


def test_figures_of_an_earlier_page_are_removed(tmp_path):
    path = tmp_path / "a.html"
    write_notebook_page(shown(*(figure(seed=seed) for seed in range(2))), path, name="a")
    assert len(list((tmp_path / "a").iterdir())) == 2
    write_notebook_page(shown(figure((20, 20))), path, name="a")
    assert list((tmp_path / "a").iterdir()) == []


def test_fitting_leaves_the_notebook_and_small_figures_alone():
    notebook = shown(figure(), figure((30, 30)))
    before = notebook.cells[1].outputs[0].data["image/png"]
    fitting, beside = fit(notebook, folder="a", budget=100_000)
    assert notebook.cells[1].outputs[0].data["image/png"] == before
    assert list(beside) == ["figure-001.png"]
    assert "image/png" in fitting.cells[2].outputs[0].data


def test_a_figure_that_cannot_be_read_stays_and_stops_nothing():
    broken = base64.b64encode(b"no image" * 20_000).decode()
    fitting, beside = fit(shown(broken), folder="a", budget=1000)
    assert beside == {} and fitting.cells[1].outputs[0].data["image/png"] == broken


def test_endless_texts_lose_their_middle_and_say_how_much():
    text = "a" * 100_000 + "b" * 100_000
    outputs = [new_output("stream", name="stdout", text=text) for _ in range(40)]
    notebook = new_notebook(cells=[new_code_cell("print()", outputs=outputs)])
    page = notebook_page(fit(notebook, folder="a")[0], name="a")
    assert len(page) < 1_500_000 and "140,000 characters are left out here" in page


def test_notebook_page_holds_back_the_network(page):
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page
