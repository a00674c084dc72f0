import json

import numpy as np
import pandas as pd
import pytest

from fopro_lab.checks.report import Finding, Findings

COUNTS = pd.DataFrame(
    [(name, "head", part, n) for name, ns in (("zebra", (900, 5, 10)), ("ant", (3, 1, 2)))
     for part, n in zip(("train", "val", "test"), ns, strict=True)],
    columns=["class", "group", "split", "n"],
)  # fmt: skip


@pytest.fixture
def found():
    findings = (
        Finding("ok", "reading", 0, "all there"),
        Finding("fail", "groups", 3, "torn, all of them"),
        Finding("warn", "power", None, "few"),
    )
    tables = {
        "counts": COUNTS,
        "unreadable": pd.DataFrame({"image": ["a"], "reason": ["a.png: no such file"]}),
        "power": pd.DataFrame({"name": ["tail"], "detectable": [np.nan]}),
    }
    return Findings({"images": 921}, findings, tables)


def test_lines_are_aligned_with_the_level_first(found):
    assert found.lines() == [
        "ok    reading  all there",
        "fail  groups   torn, all of them",
        "warn  power    few",
    ]
    assert found.worst == "fail" and Findings({}, (), {}).worst == "ok"


def test_counts_keep_the_order_of_the_classes(found):
    assert [line.split() for line in found.count_lines()] == [
        ["class", "train", "val", "test"],
        ["zebra", "900", "5", "10"],
        ["ant", "3", "1", "2"],
    ]
    assert len({len(line) for line in found.count_lines()}) == 1


def test_as_dict_is_plain_json_without_nan(found):
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert content["worst"] == "fail" and content["images"] == 921
    assert content["tables"]["power"] == [{"name": "tail", "detectable": None}]
    assert content["findings"][1] == {
        "level": "fail", "what": "groups", "number": 3, "verdict": "torn, all of them",
    }  # fmt: skip


def test_write_leaves_a_csv_a_table(found, tmp_path):
    found.write(tmp_path / "new")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"findings.json", "findings.csv", "counts.csv", "unreadable.csv", "power.csv"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new/counts.csv"), COUNTS)
    assert "tables" not in json.loads((tmp_path / "new/findings.json").read_text())
