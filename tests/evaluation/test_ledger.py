"""reports/ledger.csv: published numbers beside ours, each with its origin."""

import re
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from fopro_lab.evaluation.compare import HEADLINE, TAUGHT
from fopro_lab.evaluation.paper_tables import METHOD_LABELS

REPORTS = Path(__file__).resolve().parents[2] / "reports"
METRICS = {metric for _, _, metric in HEADLINE.values()} | {"kappa", "accuracy"}
SOURCE = re.compile(r"(doi:|arXiv:|https://)\S+, \S.*")
ORIGIN = ["seeds", "folds", "n", "commit", "date", "command"]


@pytest.fixture(scope="module")
def ledger():
    return pd.read_csv(REPORTS / "ledger.csv", dtype=str, keep_default_na=False)


def test_every_row_names_one_number(ledger):
    key = ["protocol_id", "method", "teacher", "student", "metric", "group"]
    assert not ledger.duplicated(key).any()
    assert (ledger[["protocol", "protocol_id", "student"]] != "").all(axis=None)
    assert set(ledger["method"]) <= METHOD_LABELS.keys() and set(ledger["metric"]) <= METRICS
    assert set(ledger["group"]) <= {"all", "head", "medium", "tail"}
    assert ((ledger["metric"] == "recall") == (ledger["group"] != "all")).all()
    assert (ledger["method"].isin(TAUGHT) == (ledger["teacher"] != "")).all()


def test_no_number_is_without_its_origin(ledger):
    for row in ledger.to_dict("records"):
        if row["published_value"]:
            assert 0 <= float(row["published_value"]) <= 1
            assert SOURCE.fullmatch(row["published_source"])
        if not row["ours"]:
            assert not any(row[name] for name in (*ORIGIN, "ours_low", "ours_high"))
            continue
        low, value, high = (float(row[name]) for name in ("ours_low", "ours", "ours_high"))
        assert -1 <= low <= value <= high <= 1
        assert all(int(row[name]) >= 1 for name in ("seeds", "folds", "n")) and row["command"]
        assert re.fullmatch(r"[0-9a-f]{7,40}", row["commit"])
        date.fromisoformat(row["date"])


def cited(ledger, protocols, table):
    """Hold our numbers of some protocols to a committed table, to half a digit of rounding."""
    ours = ledger[ledger["protocol_id"].str.contains(protocols)]
    assert len(ours) == 4 * len(table)
    for row in ours.to_dict("records"):
        teacher = row["teacher"].rpartition(":")[2]
        same = table[(table["method"] == row["method"]) & (table["student"] == row["student"])]
        same = same[same["teacher"] == teacher]
        assert len(same) == 1
        column = row["metric"] if row["group"] == "all" else row["group"]
        for end in ("", "_low", "_high"):
            committed = same[f"{column}{end}"].item()
            assert float(row[f"ours{end}"]) == pytest.approx(committed, abs=5.1e-5)


def test_our_numbers_are_those_of_the_committed_tables(ledger):
    headline = pd.read_csv(REPORTS / "gallery/isic_ham/headline.csv")
    own = ledger[ledger["protocol_id"].str.endswith("-ham10000/7classes")]
    teacher = headline["method"].map(dict(zip(own["method"], own["teacher"], strict=True)))
    teacher = teacher.str.rpartition(":")[2]
    cited(own, "", headline.assign(student=own["student"].iloc[0], teacher=teacher))
    levels = pd.read_csv(REPORTS / "claims/verdict/levels.csv")
    levels["teacher"] = levels["teacher"].str.partition(",")[0].replace({"none": ""})
    cited(ledger, "^ham10000", levels)


def test_the_published_commands_have_their_rows(ledger):
    planned = ledger[ledger["student"] == "resnet18"]
    protocols = {f"isic2019-lt/fopro/{ratio}/fold1" for ratio in ("0.002", "0.005")}
    assert protocols <= set(planned["protocol_id"])
    assert {"bsm", "ekd", "fopro", "random"} <= set(planned["method"])
