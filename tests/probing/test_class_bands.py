"""Class bands: recalls against slow ones, intervals and tests."""

import dataclasses

import numpy as np
import pytest
import torch

from fopro_lab.fourier import apply_gain, ring_gain
from fopro_lab.probing import class_band_matrix, fit_classifier
from fopro_lab.probing.class_bands import compare_predictions, sign_flip_test
from tests.conftest import refuses
from tests.probing.toys import EDGES


def measure(world, *, edges=EDGES, **settings):
    settings = {"gains": (0.0, 1.0), "resamples": 200, "groups": world.groups} | settings
    return class_band_matrix(world.teacher, world.pack, world.split, edges, **settings)


def add_noise(world):
    """Make images of which no class is wholly recognised."""
    noise = np.random.default_rng(5).normal(0, 60, world.pack.images.shape)
    images = np.clip(128 + 0.25 * (world.pack.images - 128.0) + noise, 0, 255).astype(np.uint8)
    world.pack = dataclasses.replace(world.pack, images=images)


def test_removing_a_class_own_ring_costs_its_recall_and_intervals_never_shrink_to_a_point(world):
    table = measure(world)
    removed = table[(table["scope"] == "class") & (table["gain"] == 0)]
    recall = removed.pivot(index="name", columns="ring", values="recall")
    assert recall.loc[["slow", "fast", "flat"]].values.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 1]]
    assert (removed["clean_recall"] == 1).all()
    assert table["change"].between(table["change_low"], table["change_high"]).all()
    assert (table["change_high"] - table["change_low"] > 0.05).all()
    # All or none of each class changed sides here, so no resample differs from another.
    assert set(table.loc[table["scope"] == "class", "interval"]) == {"newcombe"}
    assert set(table.loc[table["scope"] != "class", "interval"]) == {"mover"}
    assert set(table["protocol"]) == {"waves/groups/toy"}


def test_every_number_equals_the_slow_one(world):
    add_noise(world)
    probe = fit_classifier(world.teacher, world.pack, world.split)
    table = measure(world, gains=(0.5, 3.0), resamples=50, batch_size=5)
    rows = world.split.test
    images = torch.from_numpy(world.pack.images[rows]).permute(0, 3, 1, 2).double() / 255
    labels = world.pack.labels[rows]
    clean = probe.predict(world.teacher.function(images).numpy())
    for _, row in table[table["scope"] == "class"].iterrows():
        gains = torch.ones(3, dtype=torch.float64)
        gains[row["ring"]] = row["gain"]
        scaled = apply_gain(images, ring_gain(gains, EDGES, height=16, width=16))
        predicted = probe.predict(world.teacher.function(scaled).numpy())
        members = labels == world.pack.dataset.class_names.index(row["name"])
        after, before = (np.mean((p == labels)[members]) for p in (predicted, clean))
        assert row["recall"] == pytest.approx(after)
        assert row["clean_recall"] == pytest.approx(before)
        assert row["change"] == pytest.approx(after - before)
        assert row["n"] == members.sum() == 14
    assert table["change"].nunique() > 4  # the case is not a trivial one


def test_groups_and_overall_are_means_of_class_recalls(world):
    world.groups = {"fast": "head", "slow": "tail", "flat": "tail"}
    table = measure(world).set_index(["scope", "name", "ring", "gain"])
    tail = table.loc["group", "tail", 0, 0.0]
    assert (tail["recall"], tail["change"], tail["n"]) == (0.5, -0.5, 28)
    overall = table.loc["overall", "all", 0, 0.0]
    assert overall["change"] == pytest.approx(-1 / 3) and overall["n"] == 42
    assert table.loc["class", :, 0, 0.0].index.tolist() == list(world.groups)
    assert "medium" not in table.loc["group"].index.get_level_values("name")
    assert set(measure(world, per_class=5).query("scope == 'class'")["n"]) == {5}


def test_the_bootstrap_draws_lesions_and_is_paired(world):
    add_noise(world)
    by_lesion = measure(world, gains=(0.0,), resamples=2000)
    alone = world.pack.dataset.table.assign(group="")
    dataset = dataclasses.replace(world.pack.dataset, table=alone)
    world.pack = dataclasses.replace(world.pack, dataset=dataset)
    by_image = measure(world, gains=(0.0,), resamples=2000)
    assert set(by_lesion["resampled"]) == {"group"} and set(by_image["resampled"]) == {"image"}
    same = ["scope", "name", "ring", "recall", "change", "n"]
    assert by_lesion[same].equals(by_image[same])
    assert not by_lesion["change_low"].equals(by_image["change_low"])
    row = by_image.query("interval == 'bootstrap' and scope == 'class'").iloc[0]
    # A paired change of -1, 0 or 1 in n images: its standard error, from its mean at most.
    assert row["change_high"] - row["change_low"] < 2 * 1.96 / np.sqrt(row["n"])


def test_wrong_input_is_refused(world):
    refuses(r"^edges: expected a frequency in every ring", measure, world, edges=[0, 0.01, 0.75])
    kept = world.split.train[world.pack.labels[world.split.train] != 2]
    world.split = dataclasses.replace(world.split, train=kept)
    refuses(r"^split: expected every class in train.*image of 'flat'", measure, world)


def compare(*predictions, groups):
    """Compare labels, units, and the classes predicted before and after."""
    settings = {"cases": [{"ring": 0}], "names": list(groups), "resamples": 50}
    table = compare_predictions(*map(np.array, predictions), groups=groups, **settings)
    return table.set_index("name")


def test_lesions_and_not_images_are_counted_in_the_test():
    labels = [0] * 23 + [1]
    groups = {"a": "head", "b": "tail"}
    alone, four = (
        compare(labels, units, labels, [[1] * 24], groups=groups)
        for units in (np.arange(24), np.append(np.arange(23) // 6, 99))
    )
    assert alone.loc["a", "change"] == four.loc["a", "change"] == -1
    assert alone.loc["a", "p"] == pytest.approx(2 / 2**23)
    assert four.loc["a", "p"] == pytest.approx(2 / 2**4)
    assert alone.loc["a", "survives"] and not four.loc["a", "survives"]
    # Holm's correction: over two classes, and apart from them over the three means.
    assert four.loc["a", "p_holm"] == pytest.approx(2 * four.loc["a", "p"])
    assert four["cells"].to_dict() == {"a": 2, "b": 2, "head": 3, "tail": 3, "all": 3}


def test_the_p_of_a_mean_is_of_the_mean_change_and_not_of_all_lesions_together():
    """A rare class loses all of 8 lesions while a common one changes 60 for and 60 against."""
    labels = np.repeat([0, 1], [400, 8])
    after = labels.copy()
    after[:60] = after[400:] = 2
    before = labels.copy()
    before[60:120] = 2
    groups = {"common": "head", "rare": "tail", "other": "medium"}
    table = compare(labels, np.arange(408), before, [after], groups=groups)
    assert table.loc["all", "change"] == pytest.approx(-0.5)
    # 60 changes of 1/400 spread the flipped sum by 0.03: as far as -1 only with all 8 signs alike.
    assert table.loc["rare", "p"] == pytest.approx(2 / 2**8)
    assert table.loc["tail", "p"] == pytest.approx(2 / 2**8, rel=0.3)
    assert table.loc["all", "p"] < 0.01 and table.loc["head", "p"] == pytest.approx(1, abs=0.01)


def test_sign_flips_find_one_of_twenty_without_an_effect_and_no_class_without_images():
    rng = np.random.default_rng(0)
    found = [
        sign_flip_test([rng.choice([-1, 0, 1], n) / n for n in (200, 20, 9)]) for _ in range(100)
    ]
    assert 1 <= sum(p < 0.05 for p in found) <= 11  # 5 expected; binomial, 99 %
    groups = {"c": "tail", "a": "head", "b": "medium"}
    table = compare([1, 1, 2], [0, 1, 2], [1, 1, 2], [[1, 2, 2]], groups=groups)
    assert np.isnan(table.loc["c", "change"]) and table.loc["c", "n"] == 0
    assert "tail" not in table.index and table.loc["all", "change"] == -0.25
    assert table.loc["a", "cells"] == 2
