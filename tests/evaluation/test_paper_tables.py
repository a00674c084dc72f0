import re

import pandas as pd
import pytest

from fopro_lab.evaluation import (
    compare,
    differing_pairs,
    findings,
    latex_tables,
    leaders,
    markdown_tables,
    method_label,
    summarise,
)
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


def test_latex_of_hostile_names_is_text(tables):
    names = {"ekd": "[*]\\input{x}\x1b", "fopro": "*$x_{"}
    levels, differences = (table.replace({"method": names}) for table in tables)
    first = [row[0] for row in rows_of(latex_tables(levels, differences))]
    assert first[2:4] == [r"{[}{*}]\textbackslash{}input\{x\}\textbackslash{}x1b", r"{*}\$x\_\{"]


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


def test_findings_name_the_overall_number_then_the_tail_by_verdict_with_the_best_first(tables):
    _, differences = tables
    clear, open_end, tail, _ = findings(differences)
    about = "Against balanced softmax, balanced accuracy: "
    assert clear.startswith(f"{about}higher for this one seed: EKD +") and "FoPro" not in clear
    assert clear.endswith("(1 seed, 150 test images)")
    assert open_end.startswith(f"{about}cannot decide, 1 seed, few images: FoPro-KD +")
    assert tail.startswith("Against balanced softmax, tail recall: higher")
    assert tail.endswith("(1 seed, 50 test images)")
    weak = findings(differences.assign(verdict="undertrained: bsm"))
    assert weak[0].startswith(f"{about}undertrained: EKD +") and ", FoPro-KD +" in weak[0]
    assert len(weak) == 2


def test_findings_of_claims_name_teachers_and_the_seeds_that_a_plan_asks_for():
    verdicts = {"one": "higher", "two": "lower", "three": "not clear by Holm"}
    table = claims().assign(verdict=lambda table: table["teacher"].map(verdicts))
    found = findings(table, planned_seeds=10)
    pair, about = (
        "EKD against balanced softmax",
        "(3 of 10 planned seeds, 120 test images, student small)",
    )
    assert found[:3] == [
        f"{pair}, balanced accuracy: higher: one +4.0 [+2.0, +6.0] {about}",
        f"{pair}, balanced accuracy: not clear by Holm: three +3.0 [+0.2, +5.8] {about}",
        f"{pair}, balanced accuracy: lower: two -5.0 [-7.0, -3.0] {about}",
    ]
    assert found[3].startswith(f"{pair}, tail recall: ") and len(found) == 6
    one = table[table["teacher"] == "one"].assign(verdict="cannot decide: 9 seeds would be needed")
    why = "cannot decide: one +4.0 [+2.0, +6.0] (9 seeds would be needed)"
    assert why in findings(one)[0]


def test_pairs_that_differ_are_counted_once_after_the_correction():
    rows = {"scope": "overall", "name": "all", "metric": "balanced_accuracy"}
    pairs = pd.DataFrame([{**rows, "p_holm": p} for p in (0.01, 0.04, 0.2) * 2])
    other = pairs.assign(scope="group", name="tail", metric="recall", p_holm=0.9)
    assert "2 of 3 pairs" in differing_pairs(pd.concat([pairs, other]))


def test_the_best_method_is_named_overall_in_the_head_and_in_the_tail(tables):
    levels, _ = tables
    best = levels.set_index("method")["tail"].idxmax()
    text = leaders(levels)
    assert text.startswith("Highest balanced accuracy ") and " %, head recall " in text
    assert f"tail recall {method_label(best)} {100 * levels['tail'].max():.1f} [" in text
    assert "tail" not in leaders(levels.assign(tail=float("nan")))


def test_nothing_is_bold_where_a_method_is_undertrained(tables):
    levels, differences = tables
    weak = differences.assign(verdict="undertrained: bsm")
    text = markdown_tables(levels, weak)
    assert "**" not in text and "No verdict, undertrained: bsm." in text
