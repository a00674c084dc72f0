import json
from dataclasses import fields

import pandas as pd
import pytest
import torch

from fopro_lab.config import ProbeConfig
from fopro_lab.errors import InputError
from fopro_lab.probing import (
    TeacherCard,
    class_band_matrix,
    ring_response,
    teacher_card,
    wrap_classifier,
)

EDGES = [0, 0.25, 0.5, 0.75]


def make(world, *, student=None, **knobs):
    small = {"rings": 2, "resamples": 50, "probe_images": 10, "gains": [0.0, 2.0]}
    small |= {"cutoffs": [0.2, 0.4], "heat_block": 5, "heat_images": 6}
    return teacher_card(
        world.teacher,
        world.pack,
        world.split,
        ProbeConfig.from_mapping(small | knobs),
        groups=world.groups,
        student=student,
        progress=False,
    )


def test_the_summary_holds_settings_and_headline_numbers(world):
    summary = make(world).summary
    assert summary["teacher"] == {"name": "stub"}
    assert summary["data"]["protocol"] == "waves/groups/toy"
    assert summary["data"]["images"] == {"train": 30, "val": 18, "test": 42}
    assert summary["probing"]["edges"] == EDGES and summary["probing"]["images"] == 10
    assert summary["probe"]["val_balanced_accuracy"] == 1
    assert summary["probe"]["test_balanced_accuracy"]["value"] == 1
    assert 0.5 < summary["probe"]["test_balanced_accuracy"]["low"] < 1
    assert set(summary["largest_drift"]) == {"ring", "low", "high", "gain", "drift"}


def test_its_tables_are_those_of_the_single_functions(world):
    card = make(world, probe_images=100)
    bands = class_band_matrix(
        world.teacher,
        world.pack,
        world.split,
        EDGES,
        groups=world.groups,
        resamples=50,
        progress=False,
    )
    assert card.class_bands.equals(bands)
    assert len(card.ring_response) == 3 * 2 and (card.ring_response["n"] == 18).all()
    assert set(card.spectra["scope"]) == {"class", "source"}
    recalls = card.scores.query("scope == 'class'").set_index("name")["value"]
    clean = bands.query("scope == 'class' and ring == 0 and gain == 0").set_index("name")
    assert recalls.to_dict() == clean["clean_recall"].to_dict()


def test_the_ring_response_looks_at_validation_images_alone(world):
    world.pack.images[world.split.test] = 0
    drifts = make(world, probe_images=18).ring_response
    images = world.pack.images[world.split.val].transpose(0, 3, 1, 2)
    expected = ring_response(
        world.teacher,
        torch.from_numpy(images.copy()).float() / 255,
        EDGES,
        (0.0, 2.0),
        resamples=50,
    )
    pd.testing.assert_series_equal(drifts["drift"], expected["drift"])


def test_write_leaves_whole_files_that_read_back(world, tmp_path):
    card = make(world)
    card.write(tmp_path / "probe")
    names = [f.name for f in fields(card)][1:]
    found = sorted(path.name.removesuffix(".parquet") for path in (tmp_path / "probe").iterdir())
    assert found == sorted(["card.json", *names])
    assert json.loads((tmp_path / "probe/card.json").read_text()) == card.summary
    again = TeacherCard.read(tmp_path / "probe")
    for name in names:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(card, name))


def test_a_student_is_measured_wherever_classes_are_named(world):
    student = wrap_classifier(lambda images: world.teacher.function(images) @ torch.eye(2, 3))
    card = make(world, student=student, per_channel=True)
    assert card.summary["classifiers"] == ["probe", "student"]
    for table in (card.class_bands, card.ladder, card.phases, card.heat_map):
        assert table["classifier"].unique().tolist() == ["probe", "student"]
    maps = card.heat_map.groupby("classifier")
    assert maps["drift"].count()["student"] == 0 and (maps["error"].count() > 0).all()
    assert card.ring_response["channel"].unique().tolist() == ["all", "red", "green", "blue"]


def test_a_card_that_is_not_whole_is_refused(world, tmp_path):
    make(world).write(tmp_path)
    (tmp_path / "ladder.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"not a whole card of `fopro probe`"):
        TeacherCard.read(tmp_path)
