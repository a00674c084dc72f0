import json
from dataclasses import fields

import pandas as pd
import pytest
import torch

from fopro_lab.data import batches
from fopro_lab.probing import TeacherCard, class_band_matrix, ring_response, wrap_classifier
from fopro_lab.probing.preferences import read_cards
from tests.conftest import refuses
from tests.probing.toys import EDGES, make_card


@pytest.fixture
def card(world):
    return make_card(world, world.teacher)


def test_its_summary_and_tables_are_those_of_the_single_functions(card, world):
    data, probing, probe = (card.summary[name] for name in ("data", "probing", "probe"))
    assert card.summary["teacher"] == {"name": "stub"}
    assert data["protocol"] == "waves/groups/toy"
    assert data["images"] == {"train": 30, "val": 18, "test": 42}
    assert probing["edges"] == EDGES and probing["images"] == 18
    assert probe["val_balanced_accuracy"] == probe["test_balanced_accuracy"]["value"] == 1
    assert 0.5 < probe["test_balanced_accuracy"]["low"] < 1
    settings = {"groups": world.groups, "resamples": 50}
    bands = class_band_matrix(world.teacher, world.pack, world.split, EDGES, **settings)
    assert card.class_bands.equals(bands)
    assert set(card.spectra["scope"]) == {"class", "source"}
    recalls = card.scores.query("scope == 'class'").set_index("name")["value"]
    clean = bands.query("scope == 'class' and ring == 0 and gain == 0").set_index("name")
    assert recalls.to_dict() == clean["clean_recall"].to_dict()


def test_the_ring_response_looks_at_validation_images_alone(world):
    world.pack.images[world.split.test] = 0
    found = make_card(world, world.teacher, heat_map="off").ring_response
    images, _ = next(batches(world.pack, world.split.val, batch_size=18))
    expected = ring_response(world.teacher, images, EDGES, (0.0, 2.0), resamples=50)
    pd.testing.assert_series_equal(found["drift"], expected["drift"])
    assert (found["n"] == 18).all()


def test_write_leaves_whole_files_that_read_back(card, tmp_path):
    folders = [tmp_path / part / "probe" for part in ("a", "b")]
    for folder in folders:
        card.write(folder)
    names = [field.name for field in fields(card)][1:]
    found = {path.name for path in folder.iterdir()}
    assert found == {"card.json", *(f"{name}.parquet" for name in names)}
    assert json.loads((folder / "card.json").read_text()) == card.summary
    again = TeacherCard.read(folder)
    for name in names:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(card, name))
    assert list(read_cards(folders)) == [f"stub ({folder})" for folder in folders]
    old = pd.concat([card.ring_response.assign(channel=name) for name in ("all", "red")])
    old.to_parquet(folder / "ring_response.parquet")  # as version 0.1 could write it
    read = TeacherCard.read(folder).ring_response
    pd.testing.assert_frame_equal(read, card.ring_response, check_like=True)
    (folder / "drifts.parquet").write_bytes(b"PAR1")
    refuses(r"not a whole card of `fopro probe`", TeacherCard.read, folder)


def test_a_student_is_measured_wherever_classes_are_named(world):
    student = wrap_classifier(lambda images: world.teacher.function(images) @ torch.eye(2, 3))
    card = make_card(world, world.teacher, student=student)
    assert card.summary["classifiers"] == ["probe", "student"]
    for table in (card.class_bands, card.heat_map):
        assert table["classifier"].unique().tolist() == ["probe", "student"]
    maps = card.heat_map.groupby("classifier")
    assert maps["drift"].count()["student"] == 0 and (maps["error"].count() > 0).all()
    for name in ("drift", "drift_per_energy"):
        assert card.summary[f"largest_{name}"][name] == pytest.approx(
            card.ring_response[name].max()
        )
