"""The ledger: what it refuses to say, and how a report's numbers come into it."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation import ledger
from fopro_lab.evaluation.ledger import COLUMNS, Origin, fill_ledger, ledger_lines, read_ledger

COMMITTED = Path(__file__).resolve().parents[2] / "reports/ledger.csv"
GALLERY = COMMITTED.parent / "gallery/isic_ham/headline.csv"
ORIGIN = Origin("0123abc", "2026-11-23", "fopro report plan.yaml", "builtin", "small")
EMPTY = dict.fromkeys(COLUMNS, "")
PLANNED = EMPTY | {
    "protocol": "A, fold 1",
    "protocol_id": "a/fold1",
    "method": "ekd",
    "teacher": "builtin",
    "student": "small",
    "metric": "recall",
    "group": "tail",
}
PUBLISHED = {"published_value": "0.50", "published_source": "doi:10.1000/x, Table II"}
DONE = {
    **{"ours": "0.4", "ours_low": "0.3", "ours_high": "0.5", "seeds": "2", "folds": "1", "n": "90"},
    **{"commit": "0123abc", "date": "2026-11-23", "command": "fopro report plan.yaml"},
}


def write(path: Path, *rows: dict[str, str]) -> Path:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def headline(path: Path, *, methods=("bsm", "ekd"), **columns) -> Path:
    """Write what notebook 05 would: a value of method i is 0.1 + i / 10, in [0, 0.9]."""
    rows = []
    for number, method in enumerate(methods):
        row = {"protocol": "a/fold1", "method": method, "seeds": 3, "folds": 2, "n": 90}
        for name in ("balanced_accuracy", "head", "medium", "tail", "mcc"):
            row |= {name: 0.1 + number / 10, f"{name}_low": -0.0, f"{name}_high": 0.9}
        rows.append(row | columns)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def cells(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_read_ledger_gives_numbers_and_leaves_empty_cells_empty(tmp_path):
    other = PLANNED | {"method": "fopro"}
    table = read_ledger(write(tmp_path / "a.csv", PLANNED, other | PUBLISHED | DONE))
    assert tuple(table.columns) == COLUMNS
    assert np.isnan(table["ours"][0]) and table["seeds"].isna()[0] and table["commit"][0] == ""
    assert table.loc[1, ["published_value", "ours_low", "ours", "ours_high"]].tolist() == [
        *(0.5, 0.3, 0.4, 0.5)
    ]
    assert table.loc[1, ["seeds", "folds", "n"]].tolist() == [2, 1, 90]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": ""}, "protocol: expected a name, got nothing"),
        ({"protocol_id": ""}, "protocol_id: expected a name, got nothing"),
        ({"method": "kd"}, "method: expected one of ce, bsm, ekd, fopro, random, got 'kd'"),
        ({"metric": "f1"}, "metric: expected one of balanced_accuracy, recall, .* got 'f1'"),
        ({"group": "rare"}, "group: expected one of all, head, medium, tail, got 'rare'"),
        ({"group": "all"}, "group: a recall is not of the group 'all'"),
        ({"metric": "mcc"}, "group: a mcc is not of the group 'tail'"),
        ({"teacher": ""}, "teacher: expected a teacher for ekd, got ''"),
        ({"method": "bsm"}, "teacher: expected no teacher for bsm, got 'builtin'"),
        ({"published_value": "0.5"}, "published_source: expected where the value is stated, such"),
        (PUBLISHED | {"published_source": "the paper"}, "published_source: .* got 'the paper'"),
        (PUBLISHED | {"published_source": "doi:10.1000/x"}, "published_source: .* got 'doi:10"),
        (PUBLISHED | {"published_value": "50"}, "published_value: expected a number from 0 to 1,"),
        (DONE | {"ours": "-0.1"}, "ours: expected a number from 0 to 1, got '-0.1'"),
        (DONE | {"ours": "nan"}, "ours: expected a number from 0 to 1, got 'nan'"),
        (DONE | {"ours": "0.55"}, r"ours: expected a value in its interval \[0.3, 0.5\], got 0.55"),
        (DONE | {"ours": "0.29"}, r"ours: expected a value in its interval \[0.3, 0.5\], got 0.29"),
        (DONE | {"ours_low": ""}, "ours_low, ours_high: expected both or neither"),
        (DONE | {"seeds": "0"}, "seeds: expected 1 or more, got '0'"),
        (DONE | {"n": "90.5"}, "n: expected 1 or more, got '90.5'"),
        (DONE | {"commit": "HEAD"}, "commit: expected 7 to 40 hexadecimal digits, got 'HEAD'"),
        (DONE | {"date": "23.11.2026"}, "date: expected YYYY-MM-DD, got '23.11.2026'"),
        (DONE | {"date": "2026-13-01"}, "date: expected YYYY-MM-DD, got '2026-13-01'"),
        (DONE | {"command": ""}, "command: expected the one that makes the value again"),
        ({"seeds": "2"}, "seeds: expected nothing without a value of ours"),
        ({"commit": "0123abc"}, "commit: expected nothing without a value of ours"),
    ],
)
def test_read_ledger_refuses(tmp_path, change, message):
    path = write(tmp_path / "a.csv", PLANNED | {"method": "random"}, PLANNED | change)
    with pytest.raises(InputError, match=rf"a.csv: line 3: {message}"):
        read_ledger(path)


def test_read_ledger_takes_a_negative_mcc_and_a_value_without_interval(tmp_path):
    row = PLANNED | {"metric": "mcc", "group": "all"} | DONE
    write(tmp_path / "a.csv", row | {"ours": "-0.1", "ours_low": "", "ours_high": ""})
    assert read_ledger(tmp_path / "a.csv")["ours"].tolist() == [-0.1]


def test_read_ledger_refuses_two_rows_of_one_number_and_other_columns(tmp_path):
    path = write(tmp_path / "a.csv", PLANNED, PLANNED | {"protocol": "B"} | DONE)
    with pytest.raises(InputError, match="line 3: a row of this number stands above; keep one"):
        read_ledger(path)
    (tmp_path / "b.csv").write_text("protocol,method\n")
    with pytest.raises(InputError, match=r"expected the columns protocol, method, .* got protocol"):
        read_ledger(tmp_path / "b.csv")


def test_fill_ledger_fills_its_rows_and_no_other(tmp_path):
    elsewhere = [PLANNED | {"protocol_id": "b/fold1"}, PLANNED | {"teacher": "timm:resnet18"}]
    mcc = PLANNED | {"metric": "mcc", "group": "all"}
    path = write(tmp_path / "a.csv", PLANNED | PUBLISHED, *elsewhere, mcc)
    filled = fill_ledger(path, headline(tmp_path / "h.csv", methods=("ekd",)), origin=ORIGIN)
    rows = cells(path)
    assert filled == 5 and len(rows) == 4 + 3  # the tail and MCC were there; three rows are new
    expected = {"ours": "0.1000", "ours_low": "0.0000", "ours_high": "0.9000", "seeds": "3"}
    expected |= {"folds": "2", "n": "90", "commit": "0123abc", "date": "2026-11-23"}
    assert rows[0] == PLANNED | PUBLISHED | expected | {"command": ORIGIN.command}
    assert rows[1:3] == elsewhere
    assert rows[3]["ours"] == "0.1000"
    assert [(row["metric"], row["group"]) for row in rows[4:]] == [
        *(("balanced_accuracy", "all"), ("recall", "head"), ("recall", "medium"))
    ]
    assert {row["protocol"] for row in rows[4:]} == {"a/fold1"}


def test_fill_ledger_gives_each_method_its_own_and_a_baseline_no_teacher(tmp_path):
    path = write(tmp_path / "a.csv", PLANNED)
    fill_ledger(path, headline(tmp_path / "h.csv"), origin=ORIGIN)
    found = {(r["method"], r["teacher"], r["ours"]) for r in cells(path) if r["group"] == "tail"}
    assert found == {("bsm", "", "0.1000"), ("ekd", "builtin", "0.2000")}


def test_fill_ledger_again_replaces_ours_and_never_what_is_published(tmp_path):
    path = write(tmp_path / "a.csv", PLANNED | PUBLISHED | DONE)
    fill_ledger(path, headline(tmp_path / "h.csv"), origin=ORIGIN)
    first = path.read_bytes()
    assert cells(path)[0]["ours"] == "0.2000" and cells(path)[0]["published_value"] == "0.50"
    fill_ledger(path, tmp_path / "h.csv", origin=ORIGIN)
    assert path.read_bytes() == first


def test_fill_ledger_leaves_out_a_group_without_images(tmp_path):
    path = write(tmp_path / "a.csv", PLANNED)
    headline(tmp_path / "h.csv", tail=np.nan, tail_low=np.nan, tail_high=np.nan)
    fill_ledger(path, tmp_path / "h.csv", origin=ORIGIN)
    assert cells(path)[0] == PLANNED


@pytest.mark.parametrize(
    ("columns", "origin", "message"),
    [
        ({}, {"commit": "latest"}, r"a.csv, filled: line 2: commit: expected 7 to 40 hex"),
        ({}, {"date": "today"}, r"a.csv, filled: line 2: date: expected YYYY-MM-DD"),
        ({}, {"student": ""}, r"a.csv, filled: line 3: student: expected a name, got nothing"),
        ({"tail": 0.95}, {}, r"a.csv, filled: line 2: ours: expected a value in its interval"),
        ({"method": "kd"}, {}, r"a.csv, filled: line 3: method: expected one of ce, bsm"),
    ],
)
def test_fill_ledger_leaves_the_file_as_it_is_when_a_row_would_be_wrong(
    tmp_path, columns, origin, message
):
    path = write(tmp_path / "a.csv", PLANNED)
    before = path.read_bytes()
    headline(tmp_path / "h.csv", methods=("ekd",), **columns)
    with pytest.raises(InputError, match=message):
        fill_ledger(path, tmp_path / "h.csv", origin=Origin(**(vars(ORIGIN) | origin)))
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"a.csv", "h.csv"}


def test_fill_ledger_refuses_a_table_that_is_no_headline(tmp_path):
    path = write(tmp_path / "a.csv", PLANNED)
    (tmp_path / "h.csv").write_text("protocol,method,seeds\na,ekd,1\n")
    with pytest.raises(InputError, match=r"h.csv: expected notebook 05's headline.csv, found no n"):
        fill_ledger(path, tmp_path / "h.csv", origin=ORIGIN)
    with pytest.raises(InputError, match=r"none.csv: no such file"):
        fill_ledger(path, tmp_path / "none.csv", origin=ORIGIN)


def test_ledger_lines_show_what_is_known(tmp_path):
    other = PLANNED | {"method": "fopro"}
    lines = ledger_lines(read_ledger(write(tmp_path / "a.csv", PLANNED, other | PUBLISHED | DONE)))
    assert lines[0] == "A, fold 1" and lines[1].endswith("published -  ours -")
    assert lines[2].endswith(
        "published 0.500  ours 0.400 [0.300, 0.500]  seeds 2, folds 1, n 90, 0123abc 2026-11-23"
    )


def test_the_committed_ledger_is_sound_and_ours_are_those_of_the_gallery(tmp_path):
    table = read_ledger(COMMITTED)
    ours = table[table["protocol_id"].str.endswith("-ham10000/7classes")]
    shown = pd.read_csv(GALLERY).set_index("method")
    assert len(ours) == 4 * len(shown)
    for row in ours.to_dict("records"):
        column = row["metric"] if row["group"] == "all" else row["group"]
        for end in ("", "_low", "_high"):  # half a digit of rounding; another method is off by more
            assert row[f"ours{end}"] == pytest.approx(
                shown.loc[row["method"], f"{column}{end}"], abs=5.1e-5
            )
    planned = table[table["student"] == "resnet18"]
    protocols = set(planned["protocol_id"])
    assert {f"isic2019-lt/fopro/{ratio}/fold1" for ratio in ("0.002", "0.005")} <= protocols
    assert {"bsm", "ekd", "fopro", "random"} <= set(planned["method"])


def test_ours_of_the_claims_are_those_of_their_table():
    table = read_ledger(COMMITTED)
    ours = table[table["protocol_id"].str.startswith("ham10000")]
    levels = pd.read_csv(COMMITTED.parent / "claims/verdict/levels.csv")
    assert len(ours) == 4 * len(levels)
    levels["teacher"] = levels["teacher"].str.partition(",")[0].replace({"none": ""})
    for row in ours.to_dict("records"):
        named = str(row["teacher"]).rpartition(":")[2] if isinstance(row["teacher"], str) else ""
        same = levels[
            (levels["method"] == row["method"])
            & (levels["student"] == row["student"])
            & (levels["teacher"] == named)
        ]
        assert len(same) == 1
        column = row["metric"] if row["group"] == "all" else row["group"]
        for end in ("", "_low", "_high"):
            assert row[f"ours{end}"] == pytest.approx(same[f"{column}{end}"].iloc[0], abs=5.1e-5)


def test_the_command_prints_and_fills(tmp_path, fopro, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    path = write(tmp_path / "reports/ledger.csv", PLANNED)
    assert fopro("ledger")[1].splitlines()[0] == "A, fold 1"
    headline(tmp_path / "h.csv", methods=("ekd",))
    words = ["--commit", "0123abc", "--date", "2026-11-23", "--command", "fopro report a.yaml"]
    words += ["--teacher", "builtin", "--student", "small", "--protocol", "A, fold 1"]
    code, told, _ = fopro("ledger", "h.csv", *words)
    assert (code, told) == (0, "reports/ledger.csv: 4 rows filled\n")
    assert {row["protocol"] for row in cells(path)} == {"A, fold 1"}
    code, _, complaint = fopro("ledger", "h.csv", "--teacher", "builtin", "--student", "small")
    assert code == 2 and "commit: expected 7 to 40 hexadecimal digits, got ''" in complaint


def test_what_is_added_are_columns_of_the_headline():
    assert set(ledger.ADDED) <= set(ledger.HEADLINE)
