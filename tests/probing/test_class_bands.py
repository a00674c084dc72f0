import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from fopro_lab.data import Dataset, Pack, Split
from fopro_lab.errors import InputError
from fopro_lab.fourier import apply_gain, radial_frequency, ring_gain, ring_parts
from fopro_lab.models import load_teacher
from fopro_lab.probing.class_bands import class_band_matrix
from fopro_lab.probing.features import fit_probe, resampling_units

EDGES = [0, 0.25, 0.5, 0.75]  # the slow wave is in ring 0, the fast one in ring 1


def measure(world, **settings):
    settings = {"gains": (0.0, 1.0), "resamples": 200, "progress": False} | settings
    return class_band_matrix(
        world.teacher, world.pack, world.split, EDGES, groups=world.groups, **settings
    )


def test_removing_a_class_own_ring_and_no_other_costs_its_recall(world):
    table = measure(world)
    removed = table[(table["scope"] == "class") & (table["gain"] == 0)]
    recall = removed.pivot(index="name", columns="ring", values="recall")
    assert recall.loc["slow"].tolist() == [0, 1, 1]
    assert recall.loc["fast"].tolist() == [1, 0, 1]
    assert recall.loc["flat"].tolist() == [1, 1, 1]
    assert (removed["clean_recall"] == 1).all()
    change = removed.set_index(["name", "ring"])["change"]
    assert change["slow", 0] == -1 and change["slow", 1] == 0


def test_every_number_equals_the_slow_one(world):
    noisy = dataclasses.replace(world.pack, images=_noisier(world.pack.images))
    probe = fit_probe(world.teacher, noisy, world.split)
    table = class_band_matrix(
        world.teacher,
        noisy,
        world.split,
        EDGES,
        groups=world.groups,
        gains=(0.5, 3.0),
        resamples=50,
        batch_size=5,
        progress=False,
    )
    rows = world.split.test
    images = torch.from_numpy(noisy.images[rows]).permute(0, 3, 1, 2).double() / 255
    labels = noisy.labels[rows]
    clean = probe.predict(world.teacher.function(images).numpy())
    for _, row in table[table["scope"] == "class"].iterrows():
        gains = torch.ones(3, dtype=torch.float64)
        gains[row["ring"]] = row["gain"]
        scaled = apply_gain(images, ring_gain(gains, EDGES, height=16, width=16))
        predicted = probe.predict(world.teacher.function(scaled).numpy())
        members = labels == noisy.dataset.class_names.index(row["name"])
        after, before = (np.mean((p == labels)[members]) for p in (predicted, clean))
        assert row["recall"] == pytest.approx(after)
        assert row["clean_recall"] == pytest.approx(before)
        assert row["change"] == pytest.approx(after - before)
        assert row["n"] == members.sum() == 14
    assert table["change"].nunique() > 4  # the case is not a trivial one


def _noisier(images):
    noise = np.random.default_rng(5).normal(0, 60, images.shape)
    return np.clip(128 + 0.25 * (images - 128.0) + noise, 0, 255).astype(np.uint8)


def test_groups_and_overall_are_means_of_class_recalls(world):
    groups = {"fast": "head", "slow": "tail", "flat": "tail"}
    world.groups = groups
    table = measure(world).set_index(["scope", "name", "ring", "gain"])
    tail = table.loc["group", "tail", 0, 0.0]
    assert (tail["recall"], tail["change"], tail["n"]) == (0.5, -0.5, 28)
    overall = table.loc["overall", "all", 0, 0.0]
    assert overall["change"] == pytest.approx(-1 / 3) and overall["n"] == 42
    names = table.loc["class", :, 0, 0.0].index.tolist()
    assert names == list(groups)
    assert "medium" not in table.loc["group"].index.get_level_values("name")


def test_intervals_hold_the_change_and_never_shrink_to_a_point(world):
    table = measure(world)
    assert (table["change_low"] <= table["change"]).all()
    assert (table["change"] <= table["change_high"]).all()
    assert (table["change_high"] - table["change_low"] > 0.05).all()
    # All or none of each class changed sides here, so no resample differs from another.
    assert set(table.loc[table["scope"] == "class", "interval"]) == {"newcombe"}
    assert set(table.loc[table["scope"] != "class", "interval"]) == {"mover"}
    assert set(table["resampled"]) == {"group"}
    assert set(table["protocol"]) == {"waves/groups/toy"}


def test_the_bootstrap_draws_lesions_and_is_paired(world):
    noisy = dataclasses.replace(world.pack, images=_noisier(world.pack.images))
    alone = noisy.dataset.table.assign(group="")
    single = dataclasses.replace(noisy, dataset=dataclasses.replace(noisy.dataset, table=alone))
    tables = {}
    for name, pack in (("group", noisy), ("image", single)):
        world.pack = pack
        tables[name] = measure(world, gains=(0.0,), resamples=2000)
        assert set(tables[name]["resampled"]) == {name}
    assert "bootstrap" in set(tables["group"]["interval"])
    same = ["scope", "name", "ring", "recall", "change", "n"]
    assert tables["group"][same].equals(tables["image"][same])
    assert not tables["group"]["change_low"].equals(tables["image"]["change_low"])
    row = tables["image"].query("interval == 'bootstrap' and scope == 'class'").iloc[0]
    # A paired change of -1, 0 or 1 in n images: its standard error, from its mean at most.
    assert row["change_high"] - row["change_low"] < 2 * 1.96 / np.sqrt(row["n"])


def test_a_gain_of_one_changes_no_recall(world):
    table = measure(world)
    assert (table.loc[table["gain"] == 1, "change"] == 0).all()


def test_the_same_seed_gives_the_same_table(world):
    assert measure(world, seed=3).equals(measure(world, seed=3))


def test_a_given_probe_is_not_fitted_again(world):
    probe = fit_probe(world.teacher, world.pack, world.split)
    expected = measure(world)
    world.teacher.seen.clear()
    assert measure(world, probe=probe).equals(expected)
    assert sum(len(seen) for seen in world.teacher.seen) == 42 * (1 + 3 * 2)


def test_units_are_lesions_or_single_images():
    table = pd.DataFrame({"image": ["a", "b", "c"], "group": ["x", "", "x"]})
    assert resampling_units(table, rows=np.array([2, 1])).tolist() == ["x", "image b"]


def test_wrong_input_is_refused(world):
    with pytest.raises(InputError, match=r"^gains: expected one or more finite factors"):
        measure(world, gains=(-1.0,))
    world.groups = {"slow": "head", "fast": "middle", "flat": "tail"}
    with pytest.raises(
        InputError, match=r"^groups: expected head, medium or tail for each of slow"
    ):
        measure(world)


def test_a_trained_student_reads_for_itself(world):
    def classify(images):
        slow, fast = amplitudes_of(images)
        return torch.stack([slow, fast, torch.full_like(slow, 0.5)], dim=1)

    def amplitudes_of(images):
        return torch.fft.rfft(images.mean(dim=(1, 2))).abs()[:, [2, 6]].T

    table = class_band_matrix(
        classify,
        world.pack,
        world.split,
        EDGES,
        groups=world.groups,
        gains=(0.0,),
        resamples=50,
        progress=False,
    )
    assert set(table["reader"]) == {"student"} and not world.teacher.seen
    change = table[table["scope"] == "class"].pivot(index="name", columns="ring", values="change")
    assert change.loc["slow"].tolist() == [-1, 0, 0] and change.loc["fast"].tolist() == [0, -1, 0]


def test_few_images_of_large_classes_and_all_of_rare_ones(world):
    few = measure(world, per_class=5).query("scope == 'class'")
    assert set(few["n"]) == {5}
    assert measure(world, per_class=99).query("scope == 'class'")["n"].unique().tolist() == [14]
    with pytest.raises(InputError, match=r"^per_class: expected 0 or more, got -1$"):
        measure(world, per_class=-1)


def test_a_phantom_whose_class_lives_in_one_ring_is_found_there_by_a_real_network():
    """Cloudy images with noise of one ring on top: a class a ring, and one without."""
    names, bounds, count = ("low", "middle", "high", "plain"), [0.1, 0.2, 0.3, 0.4], 60
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 4 * count, 3, 32, 32, generator=generator)
    slow = apply_gain(noise[0], 0.03 / radial_frequency(32, 32).clamp(min=0.03))
    rings = list(ring_parts(noise[1].mean(dim=1, keepdim=True), bounds))
    labels = np.repeat(np.arange(4), count)
    texture = torch.cat([rings[k][labels == k] for k in range(3)] + [0 * rings[0][labels == 3]])
    texture = 0.06 * texture / texture.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    pixels = ((0.5 + 0.12 * slow + texture).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()
    ids = [f"image {row}" for row in range(4 * count)]
    table = pd.DataFrame({"image": ids, "path": "", "label": labels, "group": "", "source": ""})
    dataset = Dataset("rings", table.assign(split=""), names, lambda r, s: pixels[r], "f" * 64)
    place = np.arange(4 * count) % count
    parts = (place < 25, (place >= 25) & (place < 30), place >= 30)
    split = Split(*map(np.flatnonzero, parts), protocol="rings", fingerprint="s" * 64)
    found = class_band_matrix(
        load_teacher("builtin"),
        Pack(pixels, labels, 32, dataset, {}),
        split,
        [0, *bounds, 0.75],
        groups=dict.fromkeys(names, "head"),
        gains=(0.0,),
        resamples=200,
        progress=False,
    ).query("scope == 'class'")
    change = found.pivot(index="name", columns="ring", values="change")
    survives = found.pivot(index="name", columns="ring", values="survives")
    for ring, name in enumerate(names[:3], start=1):
        assert change.loc[name].idxmin() == ring and change.loc[name, ring] < -0.4
        assert survives.loc[name, ring]
        assert change.loc[name].drop(ring).min() > 0.6 * change.loc[name, ring]
    assert change.loc["plain"].min() > -0.3


def test_a_class_absent_from_training_and_an_empty_ring_are_refused(world):
    kept = world.split.train[world.pack.labels[world.split.train] != 2]
    world.split = dataclasses.replace(world.split, train=kept)
    with pytest.raises(InputError, match=r"^split: expected every class in train.*image of 'flat'"):
        measure(world)
    with pytest.raises(InputError, match=r"^edges: expected a frequency in every ring, got none"):
        class_band_matrix(
            world.teacher, world.pack, world.split, [0, 0.01, 0.75], groups=world.groups
        )
