import dataclasses

import numpy as np
import pytest
import torch

from fopro_lab.config import ProbeConfig
from fopro_lab.errors import InputError
from fopro_lab.probing import compare_cards, teacher_card


def make(world, teacher, **knobs):
    small = {"rings": 2, "gains": [0.0, 2.0], "cutoffs": [0.2], "heat_map": "off", "resamples": 50}
    return teacher_card(
        teacher,
        world.pack,
        world.split,
        ProbeConfig.from_mapping(small | knobs),
        groups=world.groups,
        progress=False,
    )


def fast_ear(images):
    heard = torch.fft.rfft(images.mean(dim=(1, 2))).abs()
    return torch.stack([1 + heard[:, 2], 1 + 9 * heard[:, 6]], dim=1)


@pytest.fixture
def cards(world, stub):
    return {"even": make(world, world.teacher), "fast": make(world, stub(fast_ear))}


def test_the_shape_of_a_response_has_a_geometric_mean_of_one(cards):
    responses = compare_cards(cards).responses
    means = np.log(responses["relative"]).groupby([responses["teacher"], responses["gain"]]).mean()
    assert len(means) == 4 and means.abs().max() < 1e-9
    assert (responses["relative_low"] <= responses["relative"]).all()
    assert (responses["relative"] <= responses["relative_high"]).all()
    ratio = responses["drift_per_energy"] / responses["relative"]
    assert ratio.groupby([responses["teacher"], responses["gain"]]).std().max() < 1e-6 * ratio.max()


def test_tables_name_each_teacher_and_distances_compare_them(cards):
    found = compare_cards(cards)
    assert found.teachers["teacher"].tolist() == ["even", "fast"] and found.note == ""
    assert set(found.bands["teacher"]) == {"even", "fast"} and set(found.bands["reader"]) == {
        "probe"
    }
    assert found.distances[["teacher", "other"]].values.tolist() == [["even", "fast"]]
    assert found.distances["units"][0] == 9 and found.distances["n"][0] == 18


def test_cards_of_other_images_have_no_distance(world, cards, stub):
    other = dataclasses.replace(world.split, val=world.split.val[:10])
    world.split = other
    found = compare_cards({"even": cards["even"], "other": make(world, stub(fast_ear))})
    assert found.distances.empty and found.note.startswith("The cards were made of other images")


def test_cards_that_asked_otherwise_are_refused(world, cards):
    with pytest.raises(InputError, match=r"^cards: expected two or more, got 1$"):
        compare_cards({"even": cards["even"]})
    coarse = make(world, world.teacher, rings=3)
    with pytest.raises(InputError, match=r"^cards: expected the same edges, got \{'a'"):
        compare_cards({"a": cards["even"], "b": coarse})
