import base64
import io
import os
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fopro_lab.reports.pages import (
    as_headline,
    chosen_parameters,
    headline,
    index_page,
    thumbnail,
    write_index,
)
from fopro_lab.reports.plan import NodeReport, Report, duration


@pytest.fixture
def report():
    nodes = [
        NodeReport("data", "data", "done", 3.0, "data", "pages/data.html", parameters="size = 64"),
        NodeReport("run-0", "run", "done", 61.0, "run-0", "pages/run-0.html"),
        NodeReport("run-1", "run", "failed", 2.0, "run-1", "pages/run-1.html", "E: <v>"),
        NodeReport("table", "table", "skipped", reason="waits for run-1"),
    ]
    return Report("Ring & tail", "What for?", nodes, {"Finished": "today", "Commit": "abc"})


def image(path, size=(1200, 400)):
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
        image(tmp_path / name / "mean_spectrum.png")
    page = index_page(report, out=tmp_path)
    assert page.index('href="data/mean_spectrum.png"') < page.index("<b>1</b> figures of run")
    assert page.index("<b>1</b> figures of run") < page.index('href="run-0/mean_spectrum.png"')
    assert "run-1/mean_spectrum.png" not in page
    assert page.count("mean spectrum</span>") == 2


def test_index_page_shows_the_verdicts_figures_first_and_each_notebooks_in_order(tmp_path):
    nodes = [NodeReport(n, n, "done", folder=n, page=f"pages/{n}.html") for n in ("data", "tail")]
    for place, name in enumerate(("data/z", "data/a", "tail/m")):
        image(tmp_path / f"{name}.png")
        os.utime(tmp_path / f"{name}.png", ns=(place, place))
    (tmp_path / "tail" / "headline.csv").write_text("method\nbsm\n")
    page = index_page(Report("A title", "", nodes, {"Finished": "today"}), out=tmp_path)
    files = re.findall(r'<figure data-node="\w+"><a href="([^"]*)"', page)
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
    image(tmp_path / "a.png")
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


def many(count, tmp_path, figures=3):
    """A report of many notebooks, each with figures that do not shrink to nothing."""
    rng = np.random.default_rng(0)
    nodes = []
    for place in range(count):
        name = f"run-{place}"
        told = f"method = {('bsm', 'ekd')[place % 2]}, gains = [0.0, 2.0], seed = {place}"
        nodes.append(NodeReport(name, "run", "done", 2.0, name, f"pages/{name}.html", "", told))
        (tmp_path / name).mkdir()
        for number in range(figures):
            pixels = rng.integers(0, 256, size=(60, 110, 3), dtype=np.uint8)
            small = Image.fromarray(pixels).resize((440, 240), Image.Resampling.BICUBIC)
            small.save(tmp_path / name / f"figure_{number}.png")
    return Report("Many", "", nodes, {"Finished": "today"})


@pytest.mark.slow
def test_index_page_of_many_figures_stays_below_five_megabytes(tmp_path):
    report = many(60, tmp_path)
    page = index_page(report, out=tmp_path)
    assert page.count("<img ") == 180
    assert len(page) < 5_000_000
    largest = max(len(found) for found in re.findall(r'src="([^"]*)"', page))
    assert largest > 8_000, "small, but still something to see"


def test_thumbnails_are_kept_for_the_next_time_and_forgotten_with_their_figure(tmp_path):
    report = many(3, tmp_path)
    first = index_page(report, out=tmp_path)
    kept = sorted((tmp_path / ".thumbnails").iterdir())
    states = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 9 and index_page(report, out=tmp_path) == first
    assert [path.stat().st_mtime_ns for path in kept] == states
    (tmp_path / "run-0" / "figure_0.png").unlink()
    assert index_page(report, out=tmp_path).count("<img ") == 8
    assert len(list((tmp_path / ".thumbnails").iterdir())) == 8


def test_index_page_offers_filters_and_shows_what_differs(tmp_path):
    page = index_page(many(4, tmp_path, figures=0), out=tmp_path)
    assert re.findall(r'<select name="(\w+)">', page) == ["method", "seed"]
    assert "<option>bsm</option><option>ekd</option>" in page
    assert "<span>method = bsm</span>, <span>seed = 0</span>" in page
    assert "The same in every notebook that has it: gains = [0.0, 2.0]." in page
    assert '<form class="filters" hidden>' in page


def test_index_page_holds_back_the_network_and_foreign_scripts(report, tmp_path):
    page = index_page(report, out=tmp_path)
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page
    assert page.count("<script>") == 1 and "<script src" not in page


def test_index_page_shows_memory_and_attempts_where_they_are_known(report, tmp_path):
    assert "Memory" not in index_page(report, out=tmp_path)
    nodes = [NodeReport("a", "a", "done", 3.0, memory=812_000_000, attempts=2)]
    page = index_page(Report("A", "", nodes, {"Finished": "today"}), out=tmp_path)
    assert "812.0 MB" in page and "after 2 attempts" in page


def test_parameters_of_a_reason_and_a_name_cannot_break_the_page(tmp_path):
    told = "method = <script>alert(1)</script>, seed = \"'"
    nodes = [NodeReport(n, "a", "done", parameters=told + n) for n in ("x", "y")]
    page = index_page(Report("A", "", nodes, {"Finished": "today"}), out=tmp_path)
    assert page.count("<script>") == 1 and "alert(1)</script>" not in page


def test_write_index_lays_the_same_data_beside(report, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "headline.csv").write_text("method,tail\nbsm,0.5\nekd,0.25\n")
    pd.DataFrame({"n": [1, 2]}).to_parquet(tmp_path / "data" / "counts.parquet")
    write_index(report, out=tmp_path)
    csv, parquet = pd.read_csv(tmp_path / "headline.csv"), pd.read_parquet(
        tmp_path / "headline.parquet"
    )  # fmt: skip
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    assert csv["node"].tolist() == ["data", "data"] and csv["tail"].tolist() == [0.5, 0.25]
    nodes = pd.read_parquet(tmp_path / "nodes.parquet").set_index("name")
    assert nodes["state"].to_dict()["run-1"] == "failed"
    assert nodes["set_size"].to_dict() == {"data": "64", "run-0": "", "run-1": "", "table": ""}
    assert pd.read_csv(tmp_path / "tables/data/counts.csv")["n"].tolist() == [1, 2]
    assert len(pd.read_parquet(tmp_path / "tables/data/headline.parquet")) == 2
    page = (tmp_path / "index.html").read_text()
    for file in ("nodes.csv", "headline.parquet", "tables/data/counts.csv", "data/counts.parquet"):
        assert f'href="{file}"' in page and (tmp_path / file).is_file()


def test_a_file_that_is_no_table_stops_no_index(report, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "empty.csv").write_text("")
    (tmp_path / "data" / "mixed.csv").write_text('a\n1\n"x"\n')
    write_index(report, out=tmp_path)
    assert pd.read_parquet(tmp_path / "tables/data/mixed.parquet")["a"].tolist() == ["1", "x"]
    assert not (tmp_path / "tables/data/empty.parquet").exists()


def test_chosen_parameters_may_hold_commas_and_signs():
    told = "objectives = {'task': 1.0, 'identity': 0.1}, name = a = b, seed = 0"
    assert chosen_parameters(told) == {
        "objectives": "{'task': 1.0, 'identity': 0.1}",
        "name": "a = b",
        "seed": "0",
    }


def test_a_damaged_image_or_headline_costs_no_other(report, tmp_path):
    image(tmp_path / "data/good.png")
    (tmp_path / "data/bad.png").write_bytes(b"nope")
    (tmp_path / "data/headline.csv").write_text("")
    page = write_index(report, out=tmp_path).read_text()
    assert page.count("<img ") == 1 and "data/bad.png: not an image that can be read" in page
    assert "<h2>Headline" not in page and "data/headline.csv: not a table" in page


def test_a_disk_that_takes_no_thumbnail_is_not_told_as_a_damaged_image(
    report, tmp_path, monkeypatch
):
    image(tmp_path / "data/good.png")

    def refused(*args, **keys):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fopro_lab.reports.pages.atomic_path", refused)
    with pytest.raises(PermissionError):
        index_page(report, out=tmp_path)


def test_a_value_without_an_interval_says_so_in_its_column():
    table = pd.DataFrame({"m": ["a", "b"], "x": [0.0, 1.0]})
    table = table.assign(x_low=[np.nan, 0.5], x_high=[np.nan, 1.5])
    first, second = (row[1] for row in as_headline(table)["rows"])
    assert first["interval"] == "no interval" and first["dot"] is None
    assert second["interval"] == "[0.500, 1.500]"
