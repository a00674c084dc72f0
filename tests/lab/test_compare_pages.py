import re
import shutil

import pandas as pd
import pytest

from tests.evaluation.toy_runs import predictions, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for method in ("bsm", "ekd"):
        for seed in (0, 1):
            table = predictions(seed=seed, skill=1.0 + (method == "ekd"))
            write_run(folder / f"{method}-{seed}", table, method=method, seed=seed, commit="abc123")
    write_run(folder / "ekd-7", predictions(seed=7), method="ekd", seed=7)
    return folder


def test_compare_html_writes_a_page_with_what_was_dropped(fopro, runs, tmp_path):
    code, told, complaint = fopro("compare", runs, "--html", "--out", tmp_path / "out")
    assert code == 0 and told.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert "left out:" in complaint and "ekd-7" in complaint
    page = (tmp_path / "out" / "index.html").read_text()
    assert "1 of 5 runs are not in every difference" in page and "ekd-7" in page
    assert "toy/64px/seed0" in page and "abc123" in page and "fopro compare" in page
    assert page.count("<img ") == 4 and "<script" not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_compare_html_lays_its_tables_beside(fopro, runs, tmp_path):
    assert fopro("compare", runs, "--html", "--out", tmp_path)[0] == 0
    for name in ("differences", "levels", "headline", "runs"):
        csv = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False, na_values=[""])
        parquet = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert list(csv) == list(parquet) and len(csv) == len(parquet) > 0
    assert (pd.read_csv(tmp_path / "runs.csv")["paired"] == "yes").sum() == 4
    for name in ("table.tex", "table.md", "class_recall.png"):
        assert (tmp_path / name).stat().st_size
    page = (tmp_path / "index.html").read_text()
    missing = [f for f in re.findall(r'href="([^"#]+)"', page) if not (tmp_path / f).exists()]
    assert missing == []


def test_compare_tells_on_the_page_what_it_tells_in_numbers(fopro, runs, tmp_path):
    assert fopro("compare", runs, "--html", "--out", tmp_path)[0] == 0
    table = pd.read_csv(tmp_path / "differences.csv")
    row = table[table["metric"] == "balanced_accuracy"].iloc[0]
    page = (tmp_path / "index.html").read_text()
    cell = f'<span class="value">{100 * row["difference"]:+.1f}</span><span class="interval">'
    assert f"{cell}[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" in page


def test_compare_writes_tables_for_a_paper_without_a_page(fopro, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, _ = fopro("compare", runs, "--latex", "a/t.tex", "--markdown", "t.md")
    assert code == 0 and not (tmp_path / "comparison").exists()
    assert r"\toprule" in (tmp_path / "a" / "t.tex").read_text()
    assert "| EKD minus balanced softmax |" in (tmp_path / "t.md").read_text()


def test_compare_without_html_still_tells_what_was_dropped(fopro, runs):
    code, told, complaint = fopro("compare", runs)
    assert code == 0 and "ekd-7" in complaint and "ekd      minus bsm" in told


def test_a_run_that_lost_its_predictions_is_named_and_left_out(fopro, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs/ekd-1/predictions.parquet").unlink()
    code, _, complaint = fopro("compare", tmp_path / "runs", "--html", "--out", tmp_path / "out")
    assert code == 0 and "no predictions.parquet" in complaint
    page = (tmp_path / "out/index.html").read_text()
    footer = page.partition("<footer")[2]
    assert "toy/64px/seed0" in footer


def test_tables_for_a_paper_name_methods_as_the_figures_do(fopro, runs, tmp_path):
    assert fopro("compare", runs, "--markdown", tmp_path / "t.md")[0] == 0
    assert "EKD minus balanced softmax" in (tmp_path / "t.md").read_text()
