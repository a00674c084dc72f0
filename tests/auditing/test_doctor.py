"""The doctor meets archives with one fault each, and must name that one."""

import numpy as np
import pytest

from fopro_lab.checks.report import check_data, examine
from fopro_lab.config import DataConfig
from fopro_lab.data import prepare
from fopro_lab.errors import InputError
from tests.auditing.toys import sound_rows, texture, write_archive


def check(root, **knobs):
    config = DataConfig(dataset=str(root), image_size=32, **knobs)
    return check_data(config, progress=False)


def levels(found):
    return {finding.what: finding.level for finding in found.findings}


def verdict(found, what):
    return next(finding for finding in found.findings if finding.what == what)


# Eight images in all of test and validation are few, and show no difference in the tail.
SOUND = {"reading": "ok", "imbalance": "ok", "tested": "warn", "groups": "ok", "copies": "ok",
         "lookalikes": "ok", "labels": "note", "sources": "note", "power": "warn"}  # fmt: skip


def test_a_sound_archive_has_no_fault(tmp_path):
    found = check(write_archive(tmp_path, sound_rows()))
    assert levels(found) == SOUND
    assert found.facts["images"] == 24 and found.facts["groups"] == 12
    assert found.tables["counts"]["n"].tolist() == [4] * 6
    for name in ("unreadable", "copies", "lookalikes", "torn_groups"):
        assert found.tables[name].empty, name


def test_unreadable_images_are_all_listed_though_the_config_says_stop(tmp_path):
    root = write_archive(tmp_path, sound_rows())
    (root / "nvtrain0.png").write_bytes(b"")
    (root / "meltest3.png").write_bytes((root / "meltest3.png").read_bytes()[:300])
    found = check(root, unusable="stop")
    assert verdict(found, "reading").number == 2 and levels(found)["reading"] == "fail"
    assert found.tables["unreadable"]["image"].tolist() == ["nvtrain0", "meltest3"]
    assert len(found.unreadable_lines()) == 2 and "nvtrain0.png" in found.unreadable_lines()[0]
    assert found.facts["images"] == 22


def test_missing_images_are_listed_as_well(tmp_path):
    root = write_archive(tmp_path, sound_rows())
    for name in ("nvtrain1", "melval0"):
        (root / f"{name}.png").unlink()
    found = check(root)
    assert verdict(found, "reading").number == 2
    assert found.tables["unreadable"]["image"].tolist() == ["nvtrain1", "melval0"]
    assert all("no such file" in reason for reason in found.tables["unreadable"]["reason"])


def test_a_torn_group_is_a_failure(tmp_path):
    rows = [(image, name, "same" if image in ("nvtrain0", "nvtest1") else lesion, part)
            for image, name, lesion, part in sound_rows()]  # fmt: skip
    found = check(write_archive(tmp_path, rows))
    assert levels(found) == {**SOUND, "groups": "fail"}
    told = verdict(found, "groups")
    assert told.number == 1 and "1 torn group: of 8 test images 1 (12 %)" in told.verdict
    assert found.tables["torn_groups"].values.tolist() == [["same", 1, 0, 1]]


def test_a_copy_in_test_is_a_failure_one_in_training_a_warning(tmp_path):
    for place, level in (("nvtest2", "fail"), ("nvval0", "fail"), ("nvtrain3", "warn")):
        images = {"nvtrain0": texture(77), place: texture(77)}
        found = check(write_archive(tmp_path / place, sound_rows(), **images))
        assert levels(found) == {**SOUND, "copies": level, "labels": "ok"}, place
        assert found.tables["copies"]["image"].tolist() == sorted(images)


def test_a_copy_with_another_label_is_told(tmp_path):
    images = {"nvtrain0": texture(77), "meltrain2": texture(77)}
    found = check(write_archive(tmp_path, sound_rows(), **images))
    assert levels(found) == {**SOUND, "copies": "warn", "labels": "warn"}
    assert verdict(found, "labels").number == 1


def test_a_mirrored_and_brightened_image_is_found(tmp_path):
    altered = (texture(77)[:, ::-1] * 0.8 + 30).astype(np.uint8)
    images = {"nvtrain0": texture(77), "nvtest2": altered}
    found = check(write_archive(tmp_path, sound_rows(), **images))
    assert levels(found) == {**SOUND, "lookalikes": "warn", "labels": "ok"}
    (pair,) = found.tables["lookalikes"].itertuples()
    assert {pair.image_first, pair.image_second} == set(images)
    assert pair.turn == "mirrored left to right" and not pair.same_group
    assert {pair.part_first, pair.part_second} == {"train", "test"}
    ties = found.tables["ties"].set_index(["part", "other", "class"])
    assert ties.loc[("test", "train", "nv"), "lookalike"] == 1


def test_a_lookalike_within_its_group_is_only_noted(tmp_path):
    images = {"nvtrain0": texture(77), "nvtrain1": np.ascontiguousarray(texture(77)[::-1])}
    found = check(write_archive(tmp_path, sound_rows(), **images))
    assert levels(found) == {**SOUND, "lookalikes": "note", "labels": "ok"}
    assert "1 near-duplicate pair, 0 not of one group" in verdict(found, "lookalikes").verdict


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
    assert found.facts["protocol"] == "none"
    assert levels(found)["groups"] == "note"  # no part, so no evidence that none shares a group
    assert "across" not in verdict(found, "copies").verdict


def test_unknown_groups_are_a_warning_and_known_sources_are_measured():
    config = DataConfig(images=200, image_size=32)
    found = check_data(config, progress=False)
    sources = verdict(found, "sources")
    assert 0 <= sources.number < 0.5 and "Cramer's V" in sources.verdict
    assert found.tables["sources"].columns.tolist() == ["class", "sharp", "soft"]
    packed, split = prepare(config, progress=False)
    packed.dataset.table["group"] = packed.dataset.table["image"]
    assert levels(examine(packed, split, config=config))["groups"] == "warn"


def test_images_of_an_unknown_lesion_keep_the_groups_from_being_called_sound(tmp_path):
    rows = [(image, name, "" if image == "nvtest1" else f"L{lesion}", part)
            for image, name, lesion, part in sound_rows()]  # fmt: skip
    found = check(write_archive(tmp_path, rows))
    assert levels(found) == {**SOUND, "groups": "warn"}
    assert "of 1 image the lesion or patient is unknown" in verdict(found, "groups").verdict


def test_flat_images_keep_the_lookalikes_from_being_called_sound(tmp_path):
    flat = {"nvtrain0": np.full((64, 64, 3), 90, np.uint8)}
    found = check(write_archive(tmp_path, sound_rows(), **flat))
    assert levels(found) == {**SOUND, "lookalikes": "note"}
    assert "1 image too flat to be compared" in verdict(found, "lookalikes").verdict


def test_a_data_set_without_a_tail_has_no_power_to_tell(tmp_path):
    knobs = {"group_rule": "count", "head_above": 3, "tail_below": 2}
    found = check(write_archive(tmp_path, sound_rows()), **knobs)
    assert levels(found) == {**SOUND, "power": "note"}


def test_the_ratio_that_was_asked_for_is_compared():
    config = DataConfig(images=400, image_size=32, split_rule="long-tail", tail_ratio=0.1)
    told = verdict(check_data(config, progress=False), "imbalance")
    ratio = int(told.verdict.split("1:")[1].split(" ")[0])
    assert round(told.number) == ratio
    assert ("asked was 1:10" in told.verdict) == (ratio != 10)


def test_nothing_readable_is_refused(tmp_path):
    root = write_archive(tmp_path, sound_rows())
    for path in root.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="24 of 24 images cannot be read"):
        check(root)


@pytest.mark.real
@pytest.mark.slow
def test_the_doctor_finds_the_leak_of_the_published_splits(shared):
    found = check_data(
        DataConfig(
            dataset=str(shared / "data/ham10000"),
            source_column="dx_type",
            split_rule="isic2019-lt",
            split_files=str(shared / "data/isic2019_lt_splits"),
            image_size=32,
        ),
        progress=False,
    )
    assert found.worst == "fail" and levels(found)["groups"] == "fail"
    assert "182 torn groups: of 298 test images 117 (39 %)" in verdict(found, "groups").verdict
    assert verdict(found, "sources").number == pytest.approx(0.395, abs=0.01)
