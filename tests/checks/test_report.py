"""The data report meets archives with one fault each, and must name that one."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fopro_lab.checks.leakage import Association
from fopro_lab.checks.report import check_sources, examine, open_for_checks
from fopro_lab.config import DataConfig
from fopro_lab.data import prepare
from fopro_lab.evaluation.scores import group_ties
from tests.checks.toys import sound_rows, texture, write_archive


def check(root, **options):
    config = DataConfig(dataset=str(root), image_size=32, **options)
    return examine(*open_for_checks(config), config=config)


def levels(found):
    return {finding.what: finding.level for finding in found.findings}


def verdict(found, what):
    return next(finding for finding in found.findings if finding.what == what)


# Eight images in all of test and validation are few, and show no difference in the tail.
SOUND = {"opening": "note", "reading": "ok", "head to tail": "note", "imbalance": "ok",
         "tested": "warn", "groups": "ok", "copies": "ok", "near-duplicates": "ok",
         "labels": "note", "sources": "note", "levels": "ok",
         "shortcuts": "ok", "power": "warn"}  # fmt: skip


def test_a_sound_archive_has_no_fault(tmp_path):
    found = check(write_archive(tmp_path, sound_rows()))
    assert levels(found) == SOUND
    assert found.facts["images"] == 24 and found.facts["groups"] == 12
    assert found.tables["counts"]["n"].tolist() == [4] * 6
    for name in ("unreadable", "copies", "near_duplicates", "group_leakage"):
        assert found.tables[name].empty, name
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))  # plain, without nan
    assert content["worst"] == "warn" and content["images"] == 24
    assert {each["what"]: each["level"] for each in content["findings"]} == SOUND
    found.write(tmp_path / "new")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"findings.json", "findings.csv", "counts.csv", "power.csv"} <= names
    counts = pd.read_csv(tmp_path / "new/counts.csv")
    pd.testing.assert_frame_equal(counts, found.tables["counts"].reset_index(drop=True))


def test_unreadable_images_are_all_listed_though_the_config_says_stop(tmp_path):
    root = write_archive(tmp_path, sound_rows())
    (root / "nvtrain0.png").write_bytes(b"")
    (root / "meltest3.png").write_bytes((root / "meltest3.png").read_bytes()[:300])
    found = check(root, unusable="stop")
    assert verdict(found, "reading").number == 2 and levels(found)["reading"] == "fail"
    assert found.tables["unreadable"]["image"].tolist() == ["nvtrain0", "meltest3"]
    assert len(found.unreadable_lines()) == 2 and "nvtrain0.png" in found.unreadable_lines()[0]
    assert found.facts["images"] == 22


def test_a_group_in_two_parts_is_a_failure(tmp_path):
    rows = [(image, name, "same" if image in ("nvtrain0", "nvtest1") else lesion, part)
            for image, name, lesion, part in sound_rows()]  # fmt: skip
    found = check(write_archive(tmp_path, rows))
    assert levels(found) == {**SOUND, "groups": "fail"}
    told = verdict(found, "groups")
    assert told.number == 1 and "1 group in two parts: of 8 test images 1 (12 %)" in told.verdict
    assert found.tables["group_leakage"].values.tolist() == [["same", 1, 0, 1]]


def test_a_copy_in_test_is_a_failure_one_in_training_a_warning(tmp_path):
    for place, level in (("nvtest2", "fail"), ("nvval0", "fail"), ("nvtrain3", "warn")):
        images = {"nvtrain0": texture(77), place: texture(77)}
        found = check(write_archive(tmp_path / place, sound_rows(), **images))
        assert levels(found) == {**SOUND, "copies": level, "labels": "ok"}, place
        assert found.tables["copies"]["image"].tolist() == sorted(images)


def test_a_mirrored_and_brightened_image_is_found(tmp_path):
    altered = (texture(77)[:, ::-1] * 0.8 + 30).astype(np.uint8)
    images = {"nvtrain0": texture(77), "nvtest2": altered}
    found = check(write_archive(tmp_path, sound_rows(), **images))
    assert levels(found) == {**SOUND, "near-duplicates": "warn", "labels": "ok"}
    (pair,) = found.tables["near_duplicates"].itertuples()
    assert {pair.image_first, pair.image_second} == set(images)
    assert pair.turn == "mirrored left to right" and not pair.same_group
    assert {pair.part_first, pair.part_second} == {"train", "test"}
    leaks = found.tables["leakage"].set_index(["part", "other", "class"])
    assert leaks.loc[("test", "train", "nv"), "near_duplicate"] == 1


def test_an_image_of_test_that_is_also_in_validation_is_a_warning(tmp_path):
    altered = (texture(77)[:, ::-1] * 0.8 + 30).astype(np.uint8)
    images = {"nvval0": texture(77), "nvtest2": altered}
    told = verdict(check(write_archive(tmp_path, sound_rows(), **images)), "near-duplicates")
    assert told.level == "warn" and told.verdict.endswith("; 1 of test also in validation")


def test_groups_are_shown_and_classes_of_equal_size_in_two_of_them_are_named(tmp_path):
    found = check(write_archive(tmp_path, sound_rows()))
    rows = [line.split() for line in found.count_lines()]
    assert rows[0] == ["group", "train", "val", "test"]
    assert [row[1:3] for row in rows[1:]] == [["head", "4"], ["tail", "4"]]
    first, second = (row[0] for row in rows[1:])
    said = verdict(found, "head to tail").verdict
    assert said.startswith(f"{first} (head), {second} (tail) have 4 training images each")
    assert group_ties({"a": "head", "b": "medium", "c": "tail"}, {"a": 9, "b": 5, "c": 4}) == []


def test_a_class_without_test_images_is_a_failure(tmp_path):
    rows = [row for row in sound_rows() if row[0][:7] != "meltest"]
    found = check(write_archive(tmp_path, rows))
    assert levels(found) == {**SOUND, "split": "note", "tested": "fail"}
    assert verdict(found, "tested").verdict == "no image of mel in test"


def test_what_cannot_be_split_is_examined_all_the_same(tmp_path):
    rows = [(image, name, lesion, "") for image, name, lesion, _ in sound_rows()[:14]]
    images = {"nvtrain0": texture(77), "nvtrain1": texture(77)}
    found = check(write_archive(tmp_path, rows, **images))
    assert levels(found)["split"] == "fail" and levels(found)["copies"] == "warn"
    assert "at least 3" in verdict(found, "split").verdict
    assert found.facts["protocol"] == "none" and found.count_lines() == []
    assert sum(found.facts["images of each class"].values()) == 14
    # What would only repeat that there is no split, or ask for what cannot help.
    assert not {"imbalance", "tested", "power"} & levels(found).keys()
    assert not {"imbalance", "groups in two parts"} & found.facts.keys()
    assert levels(found)["groups"] == "note"  # no part, so no evidence that none shares a group
    assert "across" not in verdict(found, "copies").verdict
    assert found.tables["leakage"].empty and "any" in found.tables["leakage"]


def test_unknown_groups_are_a_warning_and_sources_are_measured():
    config = DataConfig(images=200, image_size=32)
    found = examine(*open_for_checks(config), config=config)
    sources = verdict(found, "sources")
    assert 0 <= sources.number < 0.5 and "Cramer's V" in sources.verdict
    assert found.tables["sources"].columns.tolist() == ["class", "sharp", "soft"]
    assert found.facts["groups"] > 8 and found.facts["groups in two parts"] == 0
    packed, split = prepare(config, progress=False)
    table = packed.dataset.table.assign(group=packed.dataset.table["image"])
    packed = replace(packed, dataset=replace(packed.dataset, table=table, groups_known=False))
    found = examine(packed, split, config=config)
    assert levels(found)["groups"] == "warn"
    assert found.facts["groups in two parts"] == "groups unknown"


def test_images_of_an_unknown_lesion_keep_the_groups_from_being_called_sound(tmp_path):
    rows = [(image, name, "" if image == "nvtest1" else f"L{lesion}", part)
            for image, name, lesion, part in sound_rows()]  # fmt: skip
    found = check(write_archive(tmp_path, rows))
    assert levels(found) == {**SOUND, "groups": "warn"}
    assert "of 1 image the lesion or patient is unknown" in verdict(found, "groups").verdict
    assert found.facts["groups in two parts"] == 0, "of those that are known"


NAN = float("nan")


@pytest.mark.parametrize(
    ("v", "low", "high", "p", "level"),
    [
        (0.08, 0.06, 0.09, 0.001, "ok"),  # surely there, and surely small
        (0.45, 0.05, 0.70, 0.06, "note"),  # few groups: anything may be true
        (0.00, 0.00, NAN, 1.00, "note"),  # no draw had two sources
        (0.20, 0.12, 0.28, 0.001, "note"),
        (0.45, 0.05, 0.70, 0.04, "warn"),
        (NAN, NAN, NAN, NAN, "note"),
    ],
)
def test_sources_are_called_ok_only_when_the_interval_says_so(v, low, high, p, level):
    found = check_sources(Association(v, low, high, p, 40))
    assert found.level == level
    assert found.verdict.startswith("undecided") == (level == "note" and p > 0.05)
