"""reports/ledger.csv: published numbers beside ours, each with its origin."""

import re
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from fopro_lab.config import NAMES, PRESETS, RefineHow
from fopro_lab.evaluation.compare import HEADLINE
from fopro_lab.evaluation.paper_tables import METHOD_LABELS

REPORTS = Path(__file__).resolve().parents[2] / "reports"
METRICS = {metric for _, _, metric in HEADLINE.values()} | {"kappa", "accuracy", "group_mean"}
SOURCE = re.compile(r"(doi:|arXiv:|https://)\S+, \S.*")
METHODS = METHOD_LABELS.keys() | {*NAMES["loss"], *NAMES["distillation"], *get_args(RefineHow)}
ORIGIN = ["seeds", "folds", "n", "commit", "date", "command"]


@pytest.fixture(scope="module")
def ledger():
    return pd.read_csv(REPORTS / "ledger.csv", dtype=str, keep_default_na=False)


def test_every_row_names_one_number(ledger):
    key = ["protocol_id", "method", "teacher", "student", "metric", "group"]
    assert not ledger.duplicated(key).any()
    assert (ledger[["protocol", "protocol_id", "method", "student"]] != "").all(axis=None)
    assert set(ledger["metric"]) <= METRICS
    assert set(ledger["group"]) <= {"all", "head", "medium", "tail"}
    assert ((ledger["metric"] == "recall") == (ledger["group"] != "all")).all()
    ours = ledger[ledger["published_value"] == ""]
    assert {word for name in ours["method"] for word in name.split("+")} <= METHODS
    taught = [name for name, parts in PRESETS.items() if parts.is_taught]
    taught += [f"bsm+{name}" for name in NAMES["distillation"]]
    assert (ours["method"].isin(taught) == (ours["teacher"] != "")).all()
    # What has a number comes first.
    filled = (ledger["ours"] != "") | (ledger["published_value"] != "")
    assert filled.is_monotonic_decreasing


def test_no_number_is_without_its_origin(ledger):
    for row in ledger.to_dict("records"):
        about = [row[f"published_{name}"] for name in ("source", "checked", "note")]
        if row["published_value"]:
            assert 0 <= float(row["published_value"]) <= 1
            assert SOURCE.fullmatch(row["published_source"])
            date.fromisoformat(row["published_checked"])  # the day it was read at the source
        assert row["published_value"] or not any(about)
        if not row["ours"]:
            assert not any(row[name] for name in (*ORIGIN, "ours_low", "ours_high"))
            continue
        low, value, high = (float(row[name]) for name in ("ours_low", "ours", "ours_high"))
        assert -1 <= low <= value <= high <= 1
        assert all(int(row[name]) >= 1 for name in ("seeds", "folds", "n")) and row["command"]
        assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", row["commit"])
        date.fromisoformat(row["date"])


def test_published_numbers_are_those_of_the_source(ledger):
    """The numbers as they were read in each repository, beside how its rows belong together."""
    published = ledger[ledger["published_value"] != ""]
    value = published["published_value"].astype(float)
    names = [published[name] for name in ("protocol_id", "method", "metric", "group")]
    found = pd.Series(value.to_numpy(), index=pd.MultiIndex.from_arrays(names))
    mixed, monica = "hyperkvasir/balanced-mixup5/published/fold", "medmnist-derma-224/monica"
    assert set(published["protocol_id"]) == {*(f"{mixed}{k}" for k in range(1, 6)), monica,
                                             "cifar100/official"}  # fmt: skip
    of_folds = {  # per cent, of folds 1 to 5, at commit c9e053b
        "ce": (90.67, 91.34, 90.83, 90.87, 90.77),
        "ce, class-balanced sampling": (88.90, 90.22, 90.27, 90.22, 90.01),
        "focal": (90.22, 91.19, 90.12, 90.01, 90.47),
        "Balanced-MixUp 0.1": (90.52, 91.13, 90.83, 91.23, 91.38),
    }
    for method, values in of_folds.items():
        of_method = [100 * found[f"{mixed}{k}", method, "mcc", "all"] for k in range(1, 6)]
        assert of_method == pytest.approx(values)
    chosen = published[published["protocol_id"].str.startswith(mixed)]
    assert set(chosen["published_note"]) == {"epoch chosen on the fold that is reported"}
    groups = ("head", "medium", "tail")
    of_lists = {  # per cent, of head, medium, tail and their mean, at commit bfc2570
        "ce": (95.8, 61.9, 44.1, 67.3),
        "bsm": (89.4, 67.4, 76.6, 77.8),
        "ce+logit-adjustment": (92.6, 64.5, 61.5, 72.9),
        "ce+crt": (88.5, 73.4, 70.1, 77.3),
        "focal": (95.1, 59.6, 60.6, 71.7),
        "ldam": (92.6, 63.7, 53.1, 69.8),
        "class-balanced loss": (83.2, 63.6, 76.6, 74.4),
        "ce, mixup": (95.9, 59.0, 54.4, 69.8),
    }
    for method, values in of_lists.items():
        own = [100 * found[monica, method, "recall", group] for group in groups]
        own.append(100 * found[monica, method, "group_mean", "all"])
        assert own == pytest.approx(values, abs=0.06), method
    for method in published.loc[published["protocol_id"] == monica, "method"].unique():
        own = [found[monica, method, "recall", group] for group in groups]
        mean = found[monica, method, "group_mean", "all"]
        assert mean == pytest.approx(sum(own) / 3, abs=1.1e-4)  # each is rounded to 1e-4
    of_kd = [
        100 * found["cifar100/official", method, "accuracy", "all"] for method in ("kd", "dkd")
    ]
    assert of_kd == pytest.approx([70.66, 71.97])


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
    baselines = pd.read_csv(REPORTS / "baselines/tail/headline.csv").assign(student="small")
    distilled = baselines["method"].str.extract(r"(ekd|kd|dkd|fitnet|rkd|sp)$")[0].notna()
    baselines["teacher"] = np.where(distilled, "mobilenetv2_100", "")
    both = pd.concat([baselines, levels]).sort_values("seeds", kind="stable")
    folds = "^ham10000/groups/folds3"
    cited(ledger, folds, both.drop_duplicates(["method", "teacher"], keep="last"))
    for name, protocol in {"tail": "^ham10000/groups/longtail", "low_pass": "^low_pass"}.items():
        table = pd.read_csv(REPORTS / f"claims_{name}/verdict/headline.csv")
        teacher = np.where(table["method"] == "bsm", "", "mobilenetv2_100")
        cited(ledger, protocol, table.assign(student="small", teacher=teacher))


def test_the_published_commands_have_their_rows(ledger):
    planned = ledger[ledger["student"] == "resnet18"]
    protocols = {f"isic2019-lt/fopro/{ratio}/fold1" for ratio in ("0.002", "0.005")}
    assert protocols <= set(planned["protocol_id"])
    assert {"bsm", "ekd", "fopro", "random"} <= set(planned["method"])
