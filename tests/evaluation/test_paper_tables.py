import re

import pandas as pd
import pytest

from fopro_lab.evaluation import claim_findings, compare, latex_tables, markdown_tables, summarise
from tests.conftest import refuses
from tests.evaluation.toy_runs import predictions, run_of
from tests.plots.tables import claims


@pytest.fixture(scope="module")
def tables():
    runs = []
    for method, skill in (("bsm", 0.5), ("ekd", 3.0), ("fopro", 0.6)):
        table = predictions((60, 40, 30, 20), seed=len(method), skill=skill)
        runs.append(run_of(table, method=method, protocol="toy_64px/50%&co/seed0"))
    return summarise(runs), compare(runs, "bsm")


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of all tabulars, head rows first."""
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    cells = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]
    return [[cell.strip() for cell in row] for row in cells]


def test_latex_names_methods_and_escapes_the_protocol(tables):
    text = latex_tables(*tables)
    rows = rows_of(text)
    assert [row[0] for row in rows] == [
        *("Method", "balanced softmax", "EKD", "FoPro-KD"),
        *("Method", "EKD minus balanced softmax", "FoPro-KD minus balanced softmax"),
    ]
    assert {len(row) for row in rows} == {5}
    assert r"toy\_64px/50\%\&co/seed0" in text and r"\usepackage{booktabs}" in text
    assert text.isascii() and text.count("{") == text.count("}")


def test_bold_is_only_what_the_paired_interval_bears_out(tables):
    levels, differences = tables
    row = differences.set_index(["method", "metric"]).loc[("ekd", "balanced_accuracy")]
    assert row["low"] > 0 and r"\textbf{" in latex_tables(levels, differences)
    vague = differences.assign(low=-0.1, high=0.5)
    assert r"\textbf{" not in latex_tables(levels, vague)
    assert "**" not in markdown_tables(levels, vague)


def test_numbers_are_those_of_the_tables_of_one_protocol(tables):
    levels, differences = tables
    row = levels.set_index("method").loc["fopro"]
    ends = (100 * row[f"tail{end}"] for end in ("", "_low", "_high"))
    value, low, high = (f"{each:.1f}" for each in ends)
    text = markdown_tables(levels, differences)
    assert f"{value} [{low}, {high}]" in text
    assert f"{value} [{low}, {high}]" in latex_tables(levels, differences)
    assert "150 test images" in text and r"toy\_64px/50%&amp;co/seed0" in text
    levels, differences = tables
    none = levels.assign(tail=float("nan"), tail_low=float("nan"), tail_high=float("nan"))
    rows = rows_of(latex_tables(none, differences[differences["name"] != "tail"]))
    assert rows[1][-1] == "n/a" and rows[-1][-1] == "n/a"
    levels, differences = tables
    two = pd.concat([levels, levels.assign(protocol="other")])
    refuses("levels: expected one protocol", markdown_tables, two, differences)


def test_claim_findings_count_hits_and_what_speaks_against():
    distances = pd.DataFrame({"teacher": ["one", "one"], "p_holm": [0.01, 0.2]})
    whole, tail, apart = claim_findings(claims(), distances)
    assert whole.startswith(
        "ekd against bsm, student small, balanced accuracy: higher for 1 of 3 teachers, lower "
        "for 1, undecided for 1: one +4.0"
    )
    assert tail.startswith("ekd against bsm, student small, tail recall: higher for 1 of 3")
    assert "three +3.0 [+0.2, +5.8]" in whole
    assert apart.endswith("for 1 of 2 pairs of teachers.")
    open_end = claims().assign(verdict="cannot decide: 9 seeds would be needed")
    whole, *_ = claim_findings(open_end, distances)
    assert "[+0.2, +5.8] (cannot decide: 9 seeds would be needed)" in whole
