"""Class bands, ladder, phases and amplitudes: recalls against slow ones, intervals and tests."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from fopro_lab.errors import InputError
from fopro_lab.fourier import apply_gain, ring_gain
from fopro_lab.probing.class_bands import (
    KINDS,
    amplitude_only,
    class_band_matrix,
    correct_for_many,
    mean_amplitude,
    measure_changes,
    pass_ladder,
    phase_and_amplitude,
    phase_only,
    sign_test,
)
from fopro_lab.probing.features import Classifier, fit_classifier

EDGES = [0, 0.25, 0.5, 0.75]  # the slow wave is in ring 0, the fast one in ring 1
CUTOFFS = [0.1, 0.2, 0.45]  # the slow wave has 0.125 cycles per pixel, the fast one 0.375


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
    probe = fit_classifier(world.teacher, noisy, world.split)
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


def test_a_given_probe_is_not_fitted_again(world):
    probe = fit_classifier(world.teacher, world.pack, world.split)
    expected = measure(world)
    world.teacher.seen.clear()
    assert measure(world, probe=probe).equals(expected)
    assert sum(len(seen) for seen in world.teacher.seen) == 42 * (1 + 3 * 2)


def test_a_trained_student_classifies_for_itself(world):
    amplitudes = world.teacher.function

    def classify(images):
        waves = amplitudes(images)
        return torch.cat([waves, torch.full_like(waves[:, :1], 0.5)], dim=1)

    world.teacher = classify
    table = measure(world, gains=(0.0,)).query("scope == 'class'")
    assert set(table["classifier"]) == {"student"}
    change = table.pivot(index="name", columns="ring", values="change")
    assert change.loc["slow"].tolist() == [-1, 0, 0] and change.loc["fast"].tolist() == [0, -1, 0]


def test_few_images_of_large_classes_and_all_of_rare_ones(world):
    few = measure(world, per_class=5).query("scope == 'class'")
    assert set(few["n"]) == {5}
    assert measure(world, per_class=99).query("scope == 'class'")["n"].unique().tolist() == [14]
    with pytest.raises(InputError, match=r"^per_class: expected 0 or more, got -1$"):
        measure(world, per_class=-1)


def test_wrong_input_is_refused(world):
    with pytest.raises(InputError, match=r"^gains: expected one or more finite factors"):
        measure(world, gains=(-1.0,))
    world.groups = {"slow": "head", "fast": "middle", "flat": "tail"}
    with pytest.raises(
        InputError, match=r"^groups: expected head, medium or tail for each of slow"
    ):
        measure(world)


def test_a_class_absent_from_training_and_an_empty_ring_are_refused(world):
    kept = world.split.train[world.pack.labels[world.split.train] != 2]
    world.split = dataclasses.replace(world.split, train=kept)
    with pytest.raises(InputError, match=r"^split: expected every class in train.*image of 'flat'"):
        measure(world)
    with pytest.raises(InputError, match=r"^edges: expected a frequency in every ring, got none"):
        class_band_matrix(
            world.teacher, world.pack, world.split, [0, 0.01, 0.75], groups=world.groups
        )


@pytest.mark.parametrize(("better", "worse"), [(0, 6), (3, 4), (1, 9), (5, 5), (0, 0)])
def test_sign_test_equals_the_count_of_all_coin_throws(better, worse):
    total = better + worse
    far = abs(better - worse)
    throws = itertools.product((-1, 1), repeat=total)
    expected = np.mean([abs(sum(throw)) >= far for throw in throws])
    assert sign_test(better, worse) == pytest.approx(expected)


def test_classes_and_means_are_corrected_apart():
    table = pd.DataFrame(
        {
            "scope": ["class", "class", "class", "overall"],
            "p": [0.001, 0.02, 0.001, 0.04],
            "change_low": [0.1, 0.1, -0.1, 0.1],
            "change_high": 0.2,
        }
    )
    found = correct_for_many(table)
    assert found["cells"].tolist() == [3, 3, 3, 1]
    assert found["survives"].tolist() == [True, True, False, True]


def test_lesions_and_not_images_are_counted_in_the_test():
    labels, before = np.zeros(24, dtype=int), np.zeros(24, dtype=int)
    after = np.ones((1, 24), dtype=int)
    labels[-1] = before[-1] = 1
    alone, four = (
        measure_changes(
            labels,
            units,
            before,
            after,
            names=["a", "b"],
            groups={"a": "head", "b": "tail"},
            resamples=50,
        ).set_index("name")
        for units in (np.arange(24), np.append(np.arange(23) // 6, 99))
    )
    assert alone.loc["a", "change"] == four.loc["a", "change"] == -1
    assert alone.loc["a", "p"] == pytest.approx(2 / 2**23)
    assert four.loc["a", "p"] == pytest.approx(2 / 2**4)
    assert alone.loc["a", "survives"] and not four.loc["a", "survives"]


def test_a_class_without_test_images_is_unknown():
    table = measure_changes(
        np.array([0, 0, 1]),
        np.arange(3),
        np.array([0, 0, 1]),
        np.array([[0, 1, 1]]),
        names=["a", "b", "c"],
        groups={"a": "head", "b": "medium", "c": "tail"},
        resamples=20,
    ).set_index("name")
    assert np.isnan(table.loc["c", "change"]) and table.loc["c", "n"] == 0
    assert "tail" not in table.index and table.loc["all", "change"] == -0.25
    assert table.loc["a", "cells"] == 2


def climb(world, asked=None, **settings):
    settings = {"resamples": 50, "progress": False, "groups": world.groups} | settings
    return pass_ladder(asked or world.teacher, world.pack, world.split, CUTOFFS, **settings)


def test_a_class_is_lost_where_its_wave_is_cut_off(world):
    table = climb(world).query("scope == 'class'")
    recall = table.pivot(index=["kind", "cutoff"], columns="name", values="recall")
    assert recall.loc["low-pass", "slow"].tolist() == [0, 1, 1]
    assert recall.loc["low-pass", "fast"].tolist() == [0, 0, 1]
    assert recall.loc["high-pass", "slow"].tolist() == [1, 0, 0]
    assert recall.loc["high-pass", "fast"].tolist() == [1, 1, 0]
    assert set(table["protocol"]) == {"waves/groups/toy"} and set(table["classifier"]) == {"probe"}


def slow_filter(image, keep):
    """Filter one image by a full complex transform in float64; DC is kept."""
    spectrum = np.fft.fft2(image.astype(np.float64) / 255, axes=(0, 1))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16), indexing="ij"))
    mask = keep(radius) | (radius == 0)
    return np.fft.ifft2(spectrum * mask[:, :, None], axes=(0, 1)).real


def test_every_step_equals_the_slow_filter(world):
    """1e-5 catches a cut-off on the wrong side of a bin: that moves pixels by over 1e-3."""
    seen = []

    def predict(images):
        seen.append(images.double().numpy())
        return torch.zeros(len(images), dtype=torch.int64)

    climb(world, Classifier("spy", predict), batch_size=99)
    image = world.pack.images[world.split.test[3]]
    for place, cutoff in enumerate(CUTOFFS):
        low, high = (
            slow_filter(image, keep)
            for keep in (lambda r, c=cutoff: r <= c, lambda r, c=cutoff: r > c)
        )
        for found, expected in zip(seen[1 + 2 * place : 3 + 2 * place], (low, high), strict=True):
            np.testing.assert_allclose(found[3].transpose(1, 2, 0), expected, atol=1e-5)


@pytest.mark.parametrize("cutoffs", [[], [0.2, 0.2], [0.0, 0.1], [0.3, 0.8]])
def test_wrong_cutoffs_are_refused(world, cutoffs):
    with pytest.raises(InputError, match="cutoffs: expected one or more increasing frequencies"):
        pass_ladder(world.teacher, world.pack, world.split, cutoffs, groups=world.groups)


def photos(count=3):
    return torch.rand(count, 3, 8, 6, generator=torch.Generator().manual_seed(1)).double()


def full(images):
    return torch.fft.fft2(images)


def test_phase_only_has_the_phases_of_one_and_the_amplitudes_of_the_other():
    images = photos()
    wanted = torch.fft.rfft2(photos(9)[3:]).abs().mean(dim=0)
    rebuilt = full(phase_only(images, wanted))
    own = full(images)
    keep = torch.ones(8, 6, dtype=torch.bool)
    keep[0, 0] = False
    turned = torch.angle(rebuilt[..., keep] / own[..., keep])
    assert turned.abs().max() < 1e-6
    amplitude = torch.fft.rfft2(phase_only(images, wanted)).abs()
    keep = keep[:, :4]
    torch.testing.assert_close(amplitude[..., keep], wanted[:, keep].expand(3, 3, -1))
    torch.testing.assert_close(rebuilt[..., 0, 0], own[..., 0, 0])


def test_flat_phase_only_is_white_and_keeps_mean_and_variance():
    images = photos()
    rebuilt = phase_only(images)
    amplitude = full(rebuilt).abs().flatten(2)[..., 1:]
    assert (amplitude.std(dim=2) / amplitude.mean(dim=2)).max() < 1e-6
    torch.testing.assert_close(rebuilt.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    torch.testing.assert_close(rebuilt.var(dim=(2, 3)), images.var(dim=(2, 3)))


def test_amplitude_only_keeps_every_amplitude_and_no_phase():
    images = photos()
    rebuilt = amplitude_only(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(full(rebuilt).abs(), full(images).abs())
    torch.testing.assert_close(rebuilt.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    turned = torch.angle(full(rebuilt) / full(images)).flatten(2)[..., 1:]
    assert 1.2 < turned.abs().mean() < 1.9  # a quarter turn on average, pi / 2


def test_noise_does_not_depend_on_the_batch():
    images = photos(4)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    at_once = amplitude_only(images, generators[0])
    parts = [amplitude_only(part, generators[1]) for part in images.split(3)]
    torch.testing.assert_close(at_once, torch.cat(parts), rtol=0, atol=0)


def test_mean_amplitude_equals_the_loop(world):
    rows = np.arange(7)
    found = mean_amplitude(world.pack, rows, batch_size=3)
    images = [world.pack.images[row].transpose(2, 0, 1) / 255 for row in rows]
    expected = np.mean([np.abs(np.fft.rfft2(image)) for image in images], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_classifier_of_amplitudes_needs_them_and_not_the_phases(world, stub):
    """Two amplitudes of one channel tell the waves' classes; alike in all, they tell nothing."""
    table = phase_and_amplitude(
        stub(lambda images: torch.fft.rfft(images[:, 0].mean(dim=1)).abs()[:, [2, 6]]),
        world.pack,
        world.split,
        groups=world.groups,
        resamples=50,
        progress=False,
    )
    overall = table[table["scope"] == "overall"].set_index("kind")["recall"]
    assert list(overall.index) == list(KINDS)
    assert overall["amplitude"] == 1 and overall["phase"] == pytest.approx(1 / 3)
    assert overall["phase-flat"] < 0.7
