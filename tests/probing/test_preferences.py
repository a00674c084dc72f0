"""Preferences of teachers, the distances between them, and cards side by side."""

import dataclasses

import numpy as np
import pytest
import torch

from fopro_lab.data import open_dataset, pack
from fopro_lab.probing import ask_teachers, compare_cards, preference_distances, relative_responses
from fopro_lab.probing.preferences import preference
from fopro_lab.probing.ring_response import RingDrifts
from tests.conftest import refuses
from tests.probing.toys import Stub, make_card

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4)


def answers(shape=(4, 2, 1, 1), *, count=60, seed=0, noise=0.4, energy=1.0, gains=(0.0, 1.0)):
    """Drifts whose preference is ``shape``, with noise of each image on top."""
    rng = np.random.default_rng(seed)
    energy = energy * np.ones((4, 2, count))
    drift = np.reshape(shape, (4, 1, 1)) * energy * rng.lognormal(0, noise, energy.shape)
    return RingDrifts(EDGES, gains, drift, energy)


def test_a_preference_forgets_sensitivity_and_energy_and_its_distance_is_known():
    energy = np.random.default_rng(1).uniform(0.1, 2, (4, 2, 60))
    loud = answers([8, 8, 80, 8], noise=0, energy=energy)
    quiet = answers([1, 1, 10, 1], noise=0)
    expected = np.log([1, 1, 10, 1]) - np.log(10) / 4
    for found in (loud, quiet):
        np.testing.assert_allclose(preference(found)[:, 0], expected, atol=1e-12)
    drifts = {"a": answers([1, 1, 1, 1], noise=0), "b": answers([2, 2, 1, 1], noise=0)}
    row = preference_distances(drifts, np.arange(60), splits=20, permutations=20).iloc[0]
    assert row["distance"] == row["between"] == pytest.approx(np.log(2) / 2)
    assert row["within"] == pytest.approx(0, abs=1e-12)
    assert row["p"] == pytest.approx(1 / 21) and row["units"] == row["n"] == 60


@pytest.mark.parametrize("noises", [(0.4, 0.4), (0.05, 1.2)])
def test_teachers_of_one_preference_are_called_different_in_one_of_twenty_cases(noises):
    """40 pairs, the second kind of unequal noise: at 5 %, more than 6 would be a broken test."""
    rows = []
    for k in range(40):
        pair = {
            str(seed): answers(noise=noise, seed=2 * k + seed) for seed, noise in enumerate(noises)
        }
        table = preference_distances(pair, np.arange(60), splits=20, permutations=60)
        rows.append(table.iloc[0])
    assert sum(row["p"] < 0.05 for row in rows) <= 6
    gaps = [row["difference"] / row["within"] for row in rows]
    assert abs(np.mean(gaps)) < 0.12  # distances of plain means: 0.4 with unequal noise


def test_lesions_and_not_images_are_dealt():
    drifts = {}
    for seed, name in enumerate("ab"):
        one = answers(count=12, seed=seed)
        nine = (part.repeat(9, axis=2) for part in (one.drift, one.energy))
        drifts[name] = RingDrifts(EDGES, one.gains, *nine)
    lesion, image = (
        preference_distances(drifts, units, splits=200, permutations=5)["within"][0]
        for units in (np.arange(12).repeat(9), np.arange(108))
    )
    assert lesion > 2 * image


def test_wrong_input_is_refused():
    named, rule = (
        {"a": answers(), "b": answers(count=30)},
        "^drifts: expected the same rings, gains",
    )
    refuses(rule, preference_distances, named, np.arange(60))
    refuses("^drifts: expected two teachers", preference_distances, {"a": answers()}, np.arange(60))


def test_relative_responses_follow_their_definition():
    drifts = answers(count=20)
    found = relative_responses(drifts, np.arange(20), resamples=50)
    ratio = drifts.drift[:, 0].sum(axis=1) / drifts.energy[:, 0].sum(axis=1)
    expected = ratio / np.exp(np.log(ratio).mean())  # geometric mean over the rings
    np.testing.assert_allclose(found["relative"], expected, rtol=1e-9)
    assert found["relative"].between(found["relative_low"], found["relative_high"]).all()


def test_teachers_are_asked_by_name_on_as_many_images_as_wanted():
    packed = pack(open_dataset("phantom", images=60), 24, progress=False)
    drifts, units = ask_teachers({"builtin": ""}, packed, np.arange(60), rings=3, count=20)
    assert drifts["builtin"].drift.shape[-1] == len(units) == 20
    assert drifts["builtin"].edges[:2] == (0.0, pytest.approx(1 / 6))


def fast_ear(images):
    heard = torch.fft.rfft(images.mean(dim=(1, 2))).abs()
    return torch.stack([1 + heard[:, 2], 1 + 9 * heard[:, 6]], dim=1)


def test_cards_are_brought_together_by_their_teachers_if_rings_and_images_agree(world):
    even = make_card(world, world.teacher, heat_map="off")
    fast = make_card(world, Stub(fast_ear), heat_map="off")
    found = compare_cards({"even": even, "fast": fast})
    for table in (found.teachers, found.bands, found.responses):
        assert table["teacher"].unique().tolist() == ["even", "fast"]
    assert found.distances[["teacher", "other"]].values.tolist() == [["even", "fast"]]
    assert found.distances["units"][0] == 9 and found.distances["n"][0] == 18
    assert found.findings()[0].startswith("even, fast: preferences ")
    refuses(r"^cards: expected two or more, got 1$", compare_cards, {"even": even})
    coarse = make_card(world, world.teacher, heat_map="off", rings=3)
    refuses(r"^cards: expected the same edges, got \{'a'", compare_cards, {"a": even, "b": coarse})
    world.split = dataclasses.replace(world.split, val=world.split.val[:10])
    found = compare_cards({"a": even, "b": make_card(world, world.teacher, heat_map="off")})
    assert found.distances.empty and found.findings()[0].startswith("Cards of other images")
