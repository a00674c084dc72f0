import csv

import numpy as np
import pandas as pd
import pytest

from fopro_lab.checks.leakage import count_ties, row_parts, tie_images, torn_groups
from fopro_lab.data import open_dataset
from fopro_lab.data.published_splits import make_isic2019_lt
from fopro_lab.data.split_rules import Split

NONE = pd.DataFrame({"first": [], "second": []})


def split(train, val, test):
    rows = [np.array(part, dtype=np.int64) for part in (train, val, test)]
    return Split(*rows, protocol="toy", fingerprint="")


def table(groups, labels=None):
    labels = labels or [0] * len(groups)
    return pd.DataFrame({"image": [f"p{n}" for n in range(len(groups))], "label": labels,
                         "group": list(groups)})  # fmt: skip


def tied(ties, part, other, tie):
    own = ties[(ties["part"] == part) & (ties["other"] == other)]
    return own[own[tie]]["image"].tolist()


def test_row_parts_leaves_unused_rows_empty():
    assert row_parts(split([1], [], [3]), 4).tolist() == ["", "train", "", "test"]


def test_torn_groups_lists_each_with_its_images():
    parts = np.array(["train", "train", "test", "val", "val", "", "test"])
    found = torn_groups(table("aaabbcc"), parts)
    assert found.values.tolist() == [["a", 2, 0, 1]]  # c has one part only: the other is unused


def test_torn_groups_of_a_clean_split_are_none():
    found = torn_groups(table("aabb"), np.array(["train", "train", "test", "test"]))
    assert found.empty and list(found) == ["group", "train", "val", "test"]


def test_tie_images_finds_each_kind_of_tie():
    #        train    val  test
    groups = "ab" + "ca" + "bde"
    parts = row_parts(split([0, 1], [2, 3], [4, 5, 6]), 7)
    content = np.array([0, 1, 2, 3, 4, 0, 6])  # row 5 of test is a copy of row 0
    lookalikes = pd.DataFrame({"first": [1, 2], "second": [6, 3]})
    ties = tie_images(table(groups), parts, content=content, lookalikes=lookalikes)
    assert tied(ties, "test", "train", "group") == ["p4"]
    assert tied(ties, "test", "train", "copy") == ["p5"]
    assert tied(ties, "test", "train", "lookalike") == ["p6"]
    assert tied(ties, "test", "train", "any") == ["p4", "p5", "p6"]
    assert tied(ties, "val", "train", "any") == ["p3"]
    assert tied(ties, "test", "val", "any") == []


def test_a_lookalike_of_a_copy_is_a_tie():
    """Near-duplicates are looked for among first rows; their copies count as well."""
    parts = row_parts(split([0, 1], [], [2, 3]), 4)
    content = np.array([0, 1, 1, 3])  # 2 of test copies 1
    lookalikes = pd.DataFrame({"first": [1], "second": [3]})
    ties = tie_images(table("abcd"), parts, content=content, lookalikes=lookalikes)
    assert tied(ties, "test", "train", "lookalike") == ["p3"]
    assert tied(ties, "test", "train", "copy") == ["p2"]


def test_count_ties_counts_classes_and_all():
    parts = row_parts(split([0], [1], [2, 3, 4]), 5)
    ties = tie_images(table("abaac", [0, 0, 0, 1, 1]), parts, content=np.arange(5), lookalikes=NONE)
    counts = count_ties(ties, ("nv", "mel")).set_index(["part", "other", "class"])
    own = counts.loc[("test", "train")][["n", "group", "any"]]
    assert own.values.tolist() == [[1, 1, 1], [2, 1, 1], [3, 2, 2]]


@pytest.mark.real
@pytest.mark.parametrize(("ratio", "fold", "seen", "tested"), [("0.01", 1, 117, 298),
                         ("0.01", 2, 135, 297), ("0.002", 2, 72, 262)])  # fmt: skip
def test_published_splits_leak_lesions(shared, ratio, fold, seen, tested):
    """Counted anew from the CSVs: 27 to 45 in 100 test images show a lesion of training."""
    data = shared / "data"
    with open(data / "ham10000/labels.csv", newline="") as stream:
        rows = csv.DictReader(stream)
        lesion = {row["image"].removesuffix(".jpg"): row["lesion_id"] for row in rows}
    lesions = {}
    for part in ("train", "test"):
        with open(data / f"isic2019_lt_splits/{part}_skin{fold}_{ratio}.csv", newline="") as stream:
            named = [row["image"] for row in csv.DictReader(stream)]
        lesions[part] = [lesion[image] for image in named if image in lesion]
    assert len(lesions["test"]) == tested
    assert sum(each in set(lesions["train"]) for each in lesions["test"]) == seen

    dataset = open_dataset(data / "ham10000")
    made = make_isic2019_lt(dataset, ratio=float(ratio), fold=fold, leave_out=True,
                            files=data / "isic2019_lt_splits")  # fmt: skip
    parts = row_parts(made, len(dataset))
    ties = tie_images(dataset.table, parts, content=np.arange(len(dataset)), lookalikes=NONE)
    own = ties[(ties["part"] == "test") & (ties["other"] == "train")]
    assert (len(own), int(own["group"].sum())) == (tested, seen)
    assert len(torn_groups(dataset.table, parts)) == made.shared_groups(dataset)
