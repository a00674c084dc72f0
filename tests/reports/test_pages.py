"""Pages: offline, code folded, red cells open; the index with tables, filters and thumbnails."""

import base64
import copy
import io
import os
import re
import time
import tracemalloc
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fopro_lab.io import as_markdown
from fopro_lab.reports import pages
from fopro_lab.reports.pages import (
    headline,
    ring_sliders_script,
    thumbnail,
    write_index,
    write_notebook_page,
)
from fopro_lab.reports.plan import NodeReport, Report

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
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
    path = tmp_path_factory.mktemp("pages") / "a.html"
    write_notebook_page(notebook, path, name="rings & more")
    return path.read_text()


def test_a_notebooks_page_needs_no_network_and_folds_code(page):
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert [s for s in sources if not s.startswith(("data:", "#", "../index.html"))] == []
    assert "<script" not in page and "@import" not in page and "url(" not in page
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page
    assert "<title>Which rings?</title>" in page
    assert 'href="../index.html"' in page and "rings &amp; more" in page
    assert re.findall(r'<details class="code"( open="")?>\s*<summary>(.*?)</summary>', page) == [
        ("", "Parameters and their defaults"),
        ("", "Parameters of this run"),
        (' open=""', "Code"),
        ("", "Code"),
        ("", "Code"),
    ]
    assert 'src="data:image/png;base64,aGVsbG8="' in page  # a figure, and the still of a widget
    assert 'src="data:image/png;base64,c3RpbGw="' in page and "a slider" not in page
    for style in ("prefers-color-scheme: dark", "@media print", ".highlight .k"):
        assert style in page


@pytest.mark.parametrize("found", [True, False])
def test_a_page_begins_with_what_was_found_if_that_cell_was_executed(tmp_path, found):
    said = [new_output("display_data", data={"text/markdown": "- It helps."})] if found else []
    cells = [new_markdown_cell("# Title"), new_markdown_cell("A step."), new_code_cell("step()")]
    cells += [new_markdown_cell("**What was found**, in all"), new_code_cell("x", outputs=said)]
    write_notebook_page(new_notebook(cells=cells), tmp_path / "a.html", name="a")
    page = (tmp_path / "a.html").read_text()
    assert (page.index("What was found") < page.index("A step.")) == found
    assert page.index("Title") < min(page.index("A step."), page.index("What was found"))


@pytest.fixture
def report():
    nodes = [
        NodeReport("data", "data", "done", 3.0, "data", "pages/data.html", "", {"size": 64}),
        NodeReport("run-0", "run", "done", 61.0, "run-0", "pages/run-0.html"),
        NodeReport("run-1", "run", "failed", 2.0, "run-1", "pages/run-1.html", "E: <v>"),
        NodeReport("table", "table", "skipped", reason="waits for run-1"),
    ]
    return Report("Ring & tail", "What for?", nodes, {"Finished": "today", "Commit": "abc"})


def index(report, out):
    return write_index(report, out=out).read_text()


def image(path, size=(1200, 400)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, (255, 0, 0, 0)).save(path)


def test_the_index_shows_states_links_and_facts(report, tmp_path):
    page = index(report, tmp_path)
    assert "Ring &amp; tail" in page and "<dt>Commit</dt><dd>abc</dd>" in page
    assert "1 failed, 1 not executed,</strong> of 4 notebooks" in page
    assert '<a class="state failed" href="pages/run-1.html#papermill-error-cell">' in page
    assert "E: &lt;v&gt;" in page and "waits for run-1" in page and "1 min 1 s" in page
    assert "Headline" not in page and "<h2>Figures" not in page
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page
    assert page.count("<script>") == 1 and "<script src" not in page


def test_the_index_shows_the_headlines_figures_first_and_folds_those_of_a_matrix(report, tmp_path):
    names = ("data/z", "data/a", "run-0/m", "run-1/lost", "tail/b")
    for age, name in enumerate(names):
        image(tmp_path / f"{name}.png")
        os.utime(tmp_path / f"{name}.png", ns=(age, age))
    (tmp_path / "tail/headline.csv").write_text("method\nbsm\n")
    tail = NodeReport("tail", "tail", "done", folder="tail", page="pages/tail.html")
    page = index(replace(report, nodes=[*report.nodes, tail]), tmp_path)
    assert "over whole lesions" not in page  # what an own notebook's interval is, is not known
    book = "notebooks/05_tail_accuracy.ipynb"
    known = replace(tail, notebook=book, made_by="commit abc")
    text = index(replace(report, nodes=[*report.nodes, known]), tmp_path)
    assert "over whole lesions" in text and f"<td>{book}</td>" in text
    assert "<dd>commit abc: tail</dd>" in text and "<dd>unknown: data, run-0</dd>" in text
    files = re.findall(r'<figure data-node="[\w-]+"><a href="([^"]*)"', page)
    assert files == ["tail/b.png", "data/z.png", "data/a.png", "run-0/m.png"]  # no failed ones
    assert page.index("data/a.png") < page.index("<b>1</b> figures of run") < page.index("run-0/m")


def test_the_index_opens_with_what_was_found_and_three_large_figures(report, tmp_path):
    for name, text in (("data", "- 3 of `7` **classes** <b>"), ("table", "[not a notebook")):
        output = new_output("execute_result", data={"text/markdown": f"About:\n{text}\nend"})
        cells = [new_code_cell("1"), new_code_cell("2", outputs=[output])]
        content = nbformat.writes(new_notebook(cells=cells)) if name == "data" else text
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        (tmp_path / f"notebooks/{name}.ipynb").write_text(content)
    image(tmp_path / "data/other.png")
    image(tmp_path / "data/class_recall.png")
    page = index(report, tmp_path)
    assert "<li>3 of 7 classes &lt;b&gt;</li>" in page and "not a notebook" not in page
    places = ["What came out", "class_recall.png", '<form class="filters"', "other.png"]
    assert [page.count(place) for place in places] == [1, 1, 1, 1]
    assert sorted(map(page.index, places)) == list(map(page.index, places))


def test_the_index_offers_filters_and_shows_what_differs(tmp_path):
    methods = ("bsm", "ekd", "bsm", "<script>alert(1)</script>")
    given = [{"gains": [0.0, 2.0], "method": m, "seed": seed} for seed, m in enumerate(methods)]
    nodes = [NodeReport(f"run-{p['seed']}", "run", "done", parameters=p) for p in given]
    page = index(Report("Many", "", nodes, {"Finished": "today"}), tmp_path)
    assert re.findall(r'<select name="(\w+)">', page) == ["method", "seed"]
    assert "<option>bsm</option><option>ekd</option>" in page
    assert "<span>method = bsm</span>, <span>seed = 0</span>" in page
    assert "The same in every notebook that has it: gains = [0.0, 2.0]." in page
    assert '<form class="filters" hidden>' in page
    assert page.count("<script>") == 1 and "alert(1)</script>" not in page


def test_the_index_lays_the_same_data_beside(report, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "headline.csv").write_text("method,tail\nbsm,0.5\nekd,0.25\n")
    pd.DataFrame({"n": [1, 2]}).to_parquet(tmp_path / "data" / "counts.parquet")
    page = index(report, tmp_path)
    csv = pd.read_csv(tmp_path / "headline.csv")
    assert csv["node"].tolist() == ["data", "data"] and csv["tail"].tolist() == [0.5, 0.25]
    nodes = pd.read_csv(tmp_path / "nodes.csv", dtype=str, keep_default_na=False).set_index("name")
    assert nodes["state"].to_dict()["run-1"] == "failed"
    assert nodes["set_size"].to_dict() == {"data": "64", "run-0": "", "run-1": "", "table": ""}
    for file in ("nodes.csv", "headline.csv", "data/headline.csv", "data/counts.parquet"):
        assert f'href="{file}"' in page and (tmp_path / file).is_file()


def test_a_damaged_image_or_table_costs_no_other(report, tmp_path):
    image(tmp_path / "data/good.png")
    (tmp_path / "data/bad.png").write_bytes(b"nope")
    (tmp_path / "data/headline.csv").write_text("")
    page = index(report, tmp_path)
    assert page.count("<img ") == 1 and "data/bad.png: not an image that can be read" in page
    assert "<h2>Headline" not in page and "data/headline.csv: not a table" in page


def test_odd_files_of_a_notebook_are_named_and_cost_nothing_else(report, tmp_path):
    folder = tmp_path / "data"
    image(folder / "good.png")
    pd.DataFrame({"a": [1]}).to_csv(folder / "fine.csv", index=False)
    (folder / "large.csv").write_text(f"a\n{2**70}\n1\n")
    (folder / "headline.csv").write_text("x,x_low,x_high\n1,a,b\n2,0,1\n")
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    (folder / "dangling.csv").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.parquet")
    page = index(report, tmp_path)
    assert page.count("<img ") == 1 and "fine.csv" in page and "large.csv" in page
    odd = ("headline.csv", "folder.png", "dangling.png", "dangling.csv", "pipe.png", "pipe.parquet")
    for name in odd:
        assert f"data/{name}: not a" in page


HOSTILE = """<meta http-equiv="refresh" content="0;url=//evil"><base href="//evil">
<form action="//evil">
<style>*{display:none}</style><script>evil()</script><scr<script>x</script>ipt>evil()</script>
<img src=x onerror=evil()><a href="javascript:evil()">a</a><svg onload=evil()></svg>
<iframe src=x></iframe>
<table style="position:fixed;background:url(//evil)"><tr><td>kept</td></tr></table>"""


def test_what_cells_write_is_cleaned_to_an_allow_list(tmp_path):
    svg = {"image/svg+xml": "<svg onload='evil()'></svg>", "text/plain": "as text"}
    script = {"application/javascript": "evil()", "text/html": HOSTILE}
    texts = [HOSTILE.replace("\n", " "), "kept", f"- a {HOSTILE}"]
    outputs = [{"text/markdown": text} for text in texts] + [svg, script]
    outputs = [new_output("display_data", data=data) for data in outputs]
    stream = new_output("stream", text=HOSTILE + "\x1b[31mred")
    cells = [new_markdown_cell(f"# {HOSTILE}\n\n{HOSTILE}"), nbformat.v4.new_raw_cell(HOSTILE)]
    cells.append(new_code_cell(f"text = {HOSTILE!r}", outputs=[*outputs, stream]))
    sliders = '<div id="sliders" data-rings="{}"></div><script>evil()</script>'
    sliders = new_output("display_data", data={"text/html": sliders})
    for name, more in (("plain", []), ("sliders", [new_code_cell("x", outputs=[sliders])])):
        write_notebook_page(new_notebook(cells=[*cells, *more]), tmp_path / name, name=HOSTILE)
        page = (tmp_path / name).read_text()
        assert "base-uri 'none'; form-action 'none'" in page and "kept" in page
        # Tags are looked for, since escaped text may say anything.
        body = page.partition("<body")[2].replace(ring_sliders_script(), "", 1)
        tags = re.findall(r"<(\w+)([^>]*)>", body)
        assert not {tag for tag, _ in tags} & set("meta base form style script svg iframe".split())
        assert not [rest for _, rest in tags if re.search(r"\son\w+=|javascript:|evil", rest)]
        assert (ring_sliders_script() in page) == bool(more)


@pytest.mark.parametrize(
    "name",
    ["$x^2$", "[a](http://evil)", "![a](http://evil)", "a_b_c *d* ~~e~~ `f`", "<b>&lt;", "a|b\\|"],
)
def test_a_name_in_markdown_is_text(tmp_path, name):
    line = f"- {as_markdown(name)}, 1."
    outputs = [new_output("display_data", data={"text/markdown": line})]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs)])
    write_notebook_page(notebook, tmp_path / "page.html", name="a")
    page = (tmp_path / "page.html").read_text().partition("<body")[2]
    assert re.search(r"<li>(<p>)?" + re.escape(escape(name, quote=False)) + ", 1.", page)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks/a.ipynb")
    assert pages._findings(SimpleNamespace(name="a"), tmp_path) == [f"{name}, 1."]


def test_a_page_shows_a_part_of_an_endless_output(tmp_path):
    text = "first\n" + "0123456789\n" * 1_000_000 + "last\n"
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[new_output("stream", text=text)])])
    write_notebook_page(notebook, tmp_path / "page.html", name="a")
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 1_200_000 and "first" in page and "last" in page
    assert "10,000,011 letters are in the executed notebook alone" in page


@pytest.mark.parametrize("kind", ["text/html", "text/markdown", "text/plain", "many"])
def test_a_page_of_many_letters_comes_soon_and_says_what_it_leaves_out(tmp_path, kind):
    # Rows of a table, of which cleaning takes more than in proportion: 60,000 took over 5 minutes.
    text = "<table>" + "<tr><td>0.12</td><td>abc</td></tr>\n" * 60_000 + "</table>"
    outputs = [new_output("display_data", data={kind: text, "text/plain": "in short"})]
    if kind in ("many", "text/plain"):
        data = {"text/plain": text[: 10_000 if kind == "many" else None]}
        outputs = [new_output("display_data", data=data)] * (300 if kind == "many" else 1)
    notebook = new_notebook(cells=[new_code_cell("x", outputs=copy.deepcopy(outputs))])
    began = time.monotonic()
    write_notebook_page(notebook, tmp_path / "page.html", name="a")
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 2_500_000 and "letters are in the executed notebook alone" in page
    assert time.monotonic() - began < 60


def test_a_page_of_a_long_output_takes_no_copies_of_it(tmp_path):
    size = 10_000_000
    outputs = [new_output("stream", text="x" * 99 + "\n" + "y" * size)]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs)])
    write_notebook_page(new_notebook(), tmp_path / "page.html", name="a")  # imports what it needs
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    write_notebook_page(notebook, tmp_path / "page.html", name="a")
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 5 * size, peak  # a list of its letters takes 8 bytes each


def test_tables_hold_no_formulas(report, tmp_path):
    (tmp_path / "data").mkdir()
    odd = pd.DataFrame({"=class": ["=cmd()", "+1", "@x", "-x", "\x1b[31m"], "n": [-1, 2, 3, 4, 5]})
    odd.to_csv(tmp_path / "data/headline.csv", index=False)
    index(report, tmp_path)
    cells = pd.read_csv(tmp_path / "headline.csv", dtype=str)
    assert cells.columns.tolist() == ["node", "'=class", "n"]
    assert cells["'=class"].tolist() == ["'=cmd()", "'+1", "'@x", "'-x", r"\x1b[31m"]
    assert cells["n"].tolist() == ["-1", "2", "3", "4", "5"]


def test_headline_joins_values_with_their_intervals_and_shows_four():
    values = {f"m{i}": [0.4] for i in range(7)}
    ends = {f"m{i}{end}": [v] for i in range(7) for end, v in (("_low", 0.3), ("_high", 0.5))}
    table = pd.DataFrame({"protocol": ["p/1"], "method": ["bsm"], "seeds": [2], **values, **ends})
    shown = headline(table)
    assert shown["protocol"] == "p/1"
    titles = [column["title"] for column in shown["columns"]]
    assert titles == ["method", "seeds", "m0, %", "m1, %", "m2, %", "m3, %"]
    assert [column["number"] for column in shown["columns"]][:3] == [False, True, False]
    assert shown["rows"][0][:3] == (("balanced softmax", ""), ("2", ""), ("40.0", "[30.0, 50.0]"))
    two = headline(pd.DataFrame({"protocol": ["p/1", "p/2"], "method": ["bsm", "bsm"]}))
    assert two["protocol"] == "" and len(two["columns"]) == 2


def test_headline_says_where_there_is_no_interval():
    nan = float("nan")
    table = pd.DataFrame({"x": [0.2, nan], "x_low": [-0.0, nan], "x_high": [0.4, nan]})
    rows = headline(table)["rows"]
    assert rows == [(("20.0", "[0.0, 40.0]"),), (("n/a", "no interval"),)]
    shown = headline(table.assign(x=[20.0, 1.5], x_low=0.0))  # seconds, or whatever they are
    assert shown["columns"][0]["title"] == "x" and shown["rows"][0][0] == (
        "20.000",
        "[0.000, 0.400]",
    )


def test_thumbnail_shrinks_and_puts_transparency_on_white(tmp_path):
    image(tmp_path / "a.png")
    data = thumbnail(tmp_path / "a.png", width=560).split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == (560, 187)
        assert small.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_notebooks_that_were_left_out_are_folded_below_the_others(tmp_path):
    nodes = [NodeReport(f"n{k}", "n", "left out" if k else "done") for k in range(3)]
    text = write_index(Report("T", "", nodes, {"Finished": "today"}), out=tmp_path).read_text()
    before, _, folded = text.partition("<b>2</b> notebooks that were left out")
    assert (
        folded.index('data-node="n1"') < folded.index('data-node="n2"') < folded.index("</details>")
    )
    assert 'data-node="n0"' in before and 'data-node="n1"' not in before.split("Notebooks</h2>")[1]
