import base64
import io
import os
import re

import pytest
from PIL import Image

from fopro_lab.lab.index import NodeReport, Report, duration, headline, index_page, thumbnail


@pytest.fixture
def report():
    nodes = [
        NodeReport("data", "data", "done", 3.0, "data", "pages/data.html", parameters="size = 64"),
        NodeReport("run-0", "run", "done", 61.0, "run-0", "pages/run-0.html"),
        NodeReport("run-1", "run", "failed", 2.0, "run-1", "pages/run-1.html", "E: <v>"),
        NodeReport("table", "table", "skipped", reason="waits for run-1"),
    ]
    return Report("Ring & tail", "What for?", nodes, {"Finished": "today", "Commit": "abc"})


def picture(path, size=(1200, 400)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, (255, 0, 0, 0)).save(path)


def test_index_page_says_states_links_and_facts(report, tmp_path):
    page = index_page(report, out=tmp_path)
    assert "Ring &amp; tail" in page and "<dt>Commit</dt><dd>abc</dd>" in page
    assert "1 failed, 1 not executed,</strong> of 4 notebooks" in page
    assert '<a class="state failed" href="pages/run-1.html#papermill-error-cell">' in page
    assert "E: &lt;v&gt;" in page and "waits for run-1" in page and "1 min 1 s" in page


def test_index_page_folds_the_figures_of_a_matrix_and_leaves_out_failed_nodes(report, tmp_path):
    for name in ("data", "run-0", "run-1"):
        picture(tmp_path / name / "mean_spectrum.png")
    page = index_page(report, out=tmp_path)
    assert page.index('href="data/mean_spectrum.png"') < page.index("1 figures of run")
    assert page.index("1 figures of run") < page.index('href="run-0/mean_spectrum.png"')
    assert "run-1/mean_spectrum.png" not in page
    assert page.count("mean spectrum</span>") == 2


def test_index_page_shows_the_verdicts_figures_first_and_each_notebooks_in_order(tmp_path):
    nodes = [NodeReport(n, n, "done", folder=n, page=f"pages/{n}.html") for n in ("data", "tail")]
    for place, name in enumerate(("data/z", "data/a", "tail/m")):
        picture(tmp_path / f"{name}.png")
        os.utime(tmp_path / f"{name}.png", ns=(place, place))
    (tmp_path / "tail" / "headline.csv").write_text("method\nbsm\n")
    page = index_page(Report("A title", "", nodes, {"Finished": "today"}), out=tmp_path)
    files = re.findall(r'<figure><a href="([^"]*)"', page)
    assert files == ["tail/m.png", "data/z.png", "data/a.png"]


def test_index_page_without_results_has_neither_headline_nor_figures(report, tmp_path):
    page = index_page(report, out=tmp_path)
    assert "Headline" not in page and "<h2>Figures" not in page


def test_headline_joins_a_value_with_its_interval(tmp_path):
    path = tmp_path / "headline.csv"
    path.write_text(
        "method,seeds,tail_recall,tail_recall_low,tail_recall_high\nbsm,2,0.4,0.3,0.5\n"
    )
    table = headline(path)
    assert table["columns"] == [
        {"title": "method", "number": False},
        {"title": "seeds", "number": True},
        {"title": "tail recall", "number": False},
    ]
    method, seeds, tail = table["rows"][0]
    assert (method["text"], seeds["text"]) == ("bsm", "2")
    assert (tail["text"], tail["interval"]) == ("0.400", "[0.300, 0.500]")


def test_headline_shows_five_intervals_and_says_one_protocol_beside(tmp_path):
    path = tmp_path / "headline.csv"
    values = ",".join(f"m{i},m{i}_low,m{i}_high" for i in range(7))
    path.write_text(f"protocol,method,{values}\np/1,bsm{',0.5,0.4,0.6' * 7}\n")
    table = headline(path)
    assert table["protocol"] == "p/1"
    assert [c["title"] for c in table["columns"]] == ["method", "m0", "m1", "m2", "m3", "m4"]
    path.write_text("protocol,method\np/1,bsm\np/2,bsm\n")
    assert headline(path)["protocol"] == "" and len(headline(path)["columns"]) == 2


def test_headline_draws_all_bars_of_a_column_on_one_scale(tmp_path):
    path = tmp_path / "headline.csv"
    path.write_text("x,x_low,x_high\n0.2,-0.0,0.4\n0.8,0.6,1.0\n,,\n")
    rows = [row[0] for row in headline(path)["rows"]]
    assert (rows[0]["low"], rows[1]["high"]) == (4.0, 132.0)
    assert (rows[0]["dot"], rows[1]["dot"]) == (29.6, 106.4)
    assert rows[0]["interval"] == "[0.000, 0.400]"
    assert (rows[2]["text"], rows[2]["dot"]) == ("n/a", None)


def test_headline_of_a_single_point_has_no_width_to_divide_by(tmp_path):
    path = tmp_path / "headline.csv"
    path.write_text("x,x_low,x_high\n1.0,1.0,1.0\n")
    assert headline(path)["rows"][0][0]["dot"] == 68.0


def test_thumbnail_shrinks_and_puts_transparency_on_white(tmp_path):
    picture(tmp_path / "a.png")
    data = thumbnail(tmp_path / "a.png").split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == (560, 187)
        assert small.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_duration_says(seconds, said):
    assert duration(seconds) == said
