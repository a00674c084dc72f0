"""Preferences of teachers, the distances between them, and cards side by side."""

import dataclasses

import numpy as np
import pytest
import torch

from fopro_lab.config import ProbeConfig
from fopro_lab.data import batches, open_dataset, pack
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import ring_edges
from fopro_lab.models import load_teacher
from fopro_lab.probing import (
    ask_teachers,
    compare_cards,
    relative_responses,
    ring_drifts,
    teacher_card,
)
from fopro_lab.probing.features import draw_rows
from fopro_lab.probing.preferences import preference, preference_distances
from fopro_lab.probing.ring_response import RingDrifts, drift_table, drifts_from_table

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4)


def answers(shape, *, count=60, seed=0, noise=0.4, energy=None, gains=(0.0, 1.0)):
    """Drifts whose preference is ``shape``, with noise of each image on top."""
    rng = np.random.default_rng(seed)
    energy = np.ones((1, 4, 2, count)) if energy is None else energy
    drift = np.reshape(shape, (1, 4, 1, 1)) * energy * rng.lognormal(0, noise, energy.shape)
    return RingDrifts(EDGES, gains, ("all",), drift, energy, 0.0)


def test_a_preference_forgets_sensitivity_and_energy():
    energy = np.random.default_rng(1).uniform(0.1, 2, (1, 4, 2, 60))
    loud = answers([8, 8, 80, 8], noise=0, energy=energy)
    quiet = answers([1, 1, 10, 1], noise=0)
    expected = np.log([1, 1, 10, 1]) - np.log(10) / 4
    for found in (loud, quiet):
        np.testing.assert_allclose(preference(found)[:, 0], expected, atol=1e-12)


def test_the_distance_is_the_known_one():
    drifts = {"a": answers([1, 1, 1, 1], noise=0), "b": answers([2, 2, 1, 1], noise=0)}
    row = preference_distances(drifts, np.arange(60), splits=20, permutations=20).iloc[0]
    assert row["distance"] == row["between"] == pytest.approx(np.log(2) / 2)
    assert row["within"] == pytest.approx(0, abs=1e-12)
    assert row["p"] == pytest.approx(1 / 21) and row["units"] == row["n"] == 60


def test_two_alike_teachers_are_called_different_in_one_of_twenty_cases():
    """40 pairs of the same preference: at 5 %, more than 6 would be a broken test."""
    called = [
        preference_distances(
            {"a": answers([4, 2, 1, 1], seed=2 * k), "b": answers([4, 2, 1, 1], seed=2 * k + 1)},
            np.arange(60),
            splits=20,
            permutations=60,
        )["p"][0]
        < 0.05
        for k in range(40)
    ]
    assert sum(called) <= 6


def test_teachers_that_differ_in_noise_alone_are_not_called_different():
    """The same preference, one teacher much the noisier: distances as plain means lie apart."""
    rows = [
        preference_distances(
            {
                "calm": answers([4, 2, 1, 1], count=128, noise=0.05, seed=2 * k),
                "loud": answers([4, 2, 1, 1], count=128, noise=1.2, seed=2 * k + 1),
            },
            np.arange(128),
            splits=60,
            permutations=60,
            seed=k,
        ).iloc[0]
        for k in range(8)
    ]
    gaps = np.array([row["difference"] / row["within"] for row in rows])
    assert abs(gaps.mean()) < 0.12  # plain means: 0.3 to 0.4
    assert sum(row["p_holm"] < 0.05 for row in rows) <= 2


def test_p_values_are_corrected_over_the_pairs():
    drifts = {name: answers([4, 2, 1, 1], seed=k) for k, name in enumerate("abc")}
    found = preference_distances(drifts, np.arange(60), splits=10, permutations=40)
    pairs = found[found["teacher"] != "all"]
    assert pairs["p_holm"].min() == pytest.approx(min(1.0, 3 * pairs["p"].min()))
    last = found.iloc[-1]
    assert last["teacher"] == "all" and last["p_holm"] == last["p"]


def test_lesions_and_not_images_are_dealt():
    first, second = answers([1, 1, 1, 1], count=12), answers([1, 1, 1, 1], count=12, seed=1)

    def repeated(found, times):
        parts = (np.repeat(part, times, axis=3) for part in (found.drift, found.energy))
        return RingDrifts(EDGES, found.gains, ("all",), *parts, 0.0)

    widths = {}
    for name, units in (("lesion", np.arange(12).repeat(9)), ("image", np.arange(108))):
        drifts = {"a": repeated(first, 9), "b": repeated(second, 9)}
        row = preference_distances(drifts, units, splits=200, permutations=5).iloc[0]
        widths[name] = row["within"]
    assert widths["lesion"] > 2 * widths["image"]


def test_a_table_of_drifts_comes_back_whole():
    found = answers([1, 2, 3, 4], count=5)
    names, units = np.array(list("abcde")), np.array(list("xxyyz"))
    table = drift_table(found, names, units).sample(frac=1, random_state=0).sort_index()
    again, images, lesions = drifts_from_table(table, EDGES)
    np.testing.assert_array_equal(again.drift, found.drift)
    assert again.gains == found.gains and images.tolist() == list("abcde")
    assert lesions.tolist() == list("xxyyz")
    with pytest.raises(InputError, match=r"^drifts: expected whole blocks of 8 rows, got 39$"):
        drifts_from_table(table.iloc[:-1], EDGES)


def test_wrong_input_is_refused():
    one, two = answers([1, 1, 1, 1]), answers([1, 1, 1, 1], count=30)
    with pytest.raises(InputError, match=r"^drifts: expected two teachers or more, got 1$"):
        preference_distances({"a": one}, np.arange(60))
    with pytest.raises(ShapeError, match=r"^drifts: expected the same rings, gains and images"):
        preference_distances({"a": one, "b": two}, np.arange(60))
    with pytest.raises(InputError, match=r"^units: expected four or more, got 3$"):
        preference_distances({"a": one, "b": one}, np.arange(60) % 3)
    with pytest.raises(InputError, match=r"^splits, permutations: expected 2 and 1 or more"):
        preference_distances({"a": one, "b": one}, np.arange(60), splits=1)
    still = answers([1, 1, 1, 1], gains=(1.0, 1.0))
    with pytest.raises(InputError, match=r"^gains: expected one other than 1"):
        preference_distances({"a": still, "b": still}, np.arange(60))


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=60), 24, progress=False)


def test_each_teacher_responds_as_it_does_alone(packed):
    rows = np.arange(10, 50)
    drifts, units = ask_teachers({"builtin": ""}, packed, rows, rings=3, count=12, seed=4)
    drawn = draw_rows(rows, count=12, seed=4)
    images, _ = next(batches(packed, drawn, batch_size=12))
    alone = ring_drifts(load_teacher("builtin"), images, ring_edges(3), (0.0, 2.0))
    np.testing.assert_array_equal(drifts["builtin"].drift, alone.drift)
    assert set(units) <= set(packed.dataset.table["group"].iloc[drawn])


def test_relative_responses_follow_their_definition(packed):
    drifts, units = ask_teachers({"builtin": ""}, packed, np.arange(60), rings=3, count=20)
    found = relative_responses(drifts["builtin"], units, resamples=50)
    ratio = drifts["builtin"].drift[0].sum(-1) / drifts["builtin"].energy[0].sum(-1)
    expected = ratio / np.exp(np.log(ratio).mean(axis=0))  # geometric mean over the rings
    np.testing.assert_allclose(found["relative"], expected.ravel(), rtol=1e-9)
    assert (found["relative_low"] <= found["relative"] + 1e-12).all()
    assert (found["relative_high"] >= found["relative"] - 1e-12).all()
    assert found[["low", "high"]].iloc[0].tolist() == [0.0, pytest.approx(1 / 6)]


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
    assert set(found.bands["teacher"]) == {"even", "fast"} and set(found.bands["classifier"]) == {
        "probe"
    }
    assert found.distances[["teacher", "other"]].values.tolist() == [["even", "fast"]]
    assert found.distances["units"][0] == 9 and found.distances["n"][0] == 18


def test_cards_of_other_images_have_no_distance(world, cards, stub):
    other = dataclasses.replace(world.split, val=world.split.val[:10])
    world.split = other
    found = compare_cards({"even": cards["even"], "other": make(world, stub(fast_ear))})
    assert found.distances.empty and found.note.startswith("The cards were made of other images")


def test_cards_of_other_rings_are_refused(world, cards):
    with pytest.raises(InputError, match=r"^cards: expected two or more, got 1$"):
        compare_cards({"even": cards["even"]})
    coarse = make(world, world.teacher, rings=3)
    with pytest.raises(InputError, match=r"^cards: expected the same edges, got \{'a'"):
        compare_cards({"a": cards["even"], "b": coarse})
