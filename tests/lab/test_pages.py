import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fopro_lab.lab.pages import notebook_page, stylesheet

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
