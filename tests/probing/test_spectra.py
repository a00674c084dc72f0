"""Mean spectra against slow ones; what a ring tells of source and class."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fopro_lab.data import Dataset, Pack
from fopro_lab.errors import InputError
from fopro_lab.probing.spectra import (
    COLUMNS,
    discriminant_scores,
    mean_spectra,
    source_fingerprint,
)

EDGES = [0, 0.25, 0.5, 0.75]
RINGS = [0, 0.25, 0.45, 0.75]
LESIONS = 60


def slow_log_amplitude(image, low, high):
    """Half the log of a ring's energy, from a full complex transform in float64."""
    spectrum = np.fft.fft2(image.astype(np.float64) / 255, axes=(0, 1), norm="forward")
    v, u = np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16), indexing="ij")
    radius = np.hypot(u, v)
    inside = (radius > low) & (radius <= high)
    return np.log((np.abs(spectrum[inside]) ** 2).sum(axis=0).mean()) / 2


def test_mean_spectra_equal_the_slow_ones(world):
    rows = np.arange(20)
    table = mean_spectra(world.pack, rows, edges=EDGES, batch_size=7)
    row = table.query("name == 'fast' and ring == 1").iloc[0]
    members = rows[world.pack.labels[rows] == 1]
    values = [slow_log_amplitude(world.pack.images[m], 0.25, 0.5) for m in members]
    assert row["log_amplitude"] == pytest.approx(np.mean(values), abs=1e-5)
    assert row["spread"] == pytest.approx(np.std(values), abs=1e-5)
    assert (row["low"], row["high"], row["n"]) == (0.25, 0.5, len(members))


def test_the_size_of_a_class_does_not_leak_into_the_difference(world):
    few = np.arange(30)
    many = np.concatenate([few, np.tile(few[world.pack.labels[few] == 1], 9)])  # "fast" tenfold
    first, second = (
        mean_spectra(world.pack, rows, edges=EDGES).query("scope == 'class'")
        for rows in (few, many)
    )
    assert second.query("ring == 0")["n"].tolist() == [10, 100, 10]
    np.testing.assert_allclose(second["difference"], first["difference"], atol=1e-9)


def make_world(*, tied=0.5, seed=0):
    """Two classes that differ in ring 0, two sources that differ in ring 1; nobody in ring 2.

    ``tied`` is how often an image of the second class comes from the second source, and one
    minus it how often one of the first does.
    """
    rng = np.random.default_rng(seed)
    lesion = np.repeat(np.arange(LESIONS), 2)
    label = (np.arange(LESIONS) % 2)[lesion]
    chance = np.where(np.arange(LESIONS) % 2 == 1, tied, 1 - tied)
    source = (rng.random(LESIONS) < chance).astype(int)[lesion]
    x = np.arange(16)
    waves = [np.cos(2 * np.pi * (cycles * x / 16 + rng.random((120, 1)))) for cycles in (2, 6)]
    rows = (10 + 20 * label)[:, None] * waves[0] + (10 + 20 * source)[:, None] * waves[1]
    noise = rng.normal(0, 6, (120, 16, 16, 3))
    pixels = np.clip(128 + rows[:, None, :, None] + noise, 0, 255).astype(np.uint8)
    table = pd.DataFrame(
        {
            "image": [f"p{row}" for row in range(120)],
            "path": "",
            "label": label.astype(np.int64),
            "group": [f"lesion {number}" for number in lesion],
            "source": np.array(["soft", "sharp"])[source],
            "split": "",
        }
    )
    dataset = Dataset("toy", table, ("a", "b"), lambda row, size: pixels[row], "f" * 64)
    return Pack(pixels, table["label"].to_numpy(), 16, dataset, {})


def ask(pack, **settings):
    settings = {"edges": RINGS, "resamples": 50, "permutations": 39} | settings
    table = source_fingerprint(pack, np.arange(120), **settings)
    return table.set_index(["target", "within", "ring"])


def test_source_and_class_each_show_in_their_own_ring():
    table = ask(make_world())
    accuracy = table["accuracy"]
    assert accuracy["source", "all", 1] > 0.95 and accuracy["class", "all", 0] > 0.95
    for key in (("source", "all", 0), ("class", "all", 1), ("class", "all", 2)):
        assert accuracy[key] < table["permuted_high"][key] + 0.1
        assert accuracy[key] < 0.7
    assert accuracy["class", "each source", 0] > 0.9 and accuracy["source", "each class", 1] > 0.9
    assert table["p"]["source", "all", 1] == pytest.approx(1 / 40)
    assert (table["chance"] == 0.5).all()
    assert table.index.get_level_values("ring")[:4].tolist() == [0, 1, 2, -1]


def test_a_scanner_that_passes_for_a_disease_is_found_out():
    """Class and source go together: ring 1 tells the class, but not within a source."""
    accuracy = ask(make_world(tied=0.8, seed=1))["accuracy"]
    assert accuracy["class", "all", 1] > 0.65
    assert accuracy["class", "each source", 1] < accuracy["class", "all", 1] - 0.1
    assert accuracy["class", "each source", 0] > 0.9


def test_intervals_hold_the_accuracy_and_permutations_lie_at_chance():
    table = ask(make_world())
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["accuracy_high"]).all()
    assert (table["permuted"] - table["chance"]).abs().max() < 0.06
    assert (table["permuted_high"] > table["permuted"]).all()


def test_lesions_are_kept_apart():
    """Only the lesion is told by these images: seen again it would be known."""
    pack = make_world()
    rng = np.random.default_rng(3)
    sizes = rng.uniform(5, 60, (LESIONS, 1, 1, 1)).repeat(2, axis=0)
    pixels = np.clip(128 + sizes * rng.normal(0, 1, (120, 16, 16, 3)), 0, 255).astype(np.uint8)
    table = ask(dataclasses.replace(pack, images=pixels))
    assert table["accuracy"]["class", "all", -1] < 0.7


def test_without_known_sources_only_the_class_is_measured():
    pack = make_world()
    for told in ("", "soft"):
        table = pack.dataset.table.assign(source=told)
        dataset = dataclasses.replace(pack.dataset, table=table)
        found = ask(dataclasses.replace(pack, dataset=dataset))
        assert set(found.index.get_level_values("target")) == {"class"}
        assert set(found.index.get_level_values("within")) == {"all"}


def test_too_few_lesions_leave_an_empty_table():
    table = source_fingerprint(make_world(), np.arange(6), edges=RINGS)
    assert table.empty and list(table.columns) == list(COLUMNS)


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match=r"^folds, permutations: expected 2 and 1 or more, got 1"):
        ask(make_world(), folds=1)
    with pytest.raises(InputError, match=r"^edges: expected a frequency in every ring"):
        ask(make_world(), edges=[0, 0.01, 0.75])


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_equal_scikit_learns_where_classes_are_equally_large(classes):
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), 30)
    features = rng.normal(size=(len(labels), 3)) + labels[:, None] * [1, 0.3, -0.5]
    new = rng.normal(size=(50, 3))
    scores = discriminant_scores(features, labels, new=new, classes=classes)
    model = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(classes, 1 / classes))
    expected = model.fit(features, labels).decision_function(new)
    if classes == 2:
        np.testing.assert_allclose(scores[:, 1] - scores[:, 0], expected, rtol=1e-4, atol=1e-5)
    else:
        centred = [part - part.mean(axis=1, keepdims=True) for part in (scores, expected)]
        np.testing.assert_allclose(*centred, rtol=1e-4, atol=1e-4)


def test_the_size_of_a_class_moves_nothing():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(40, 2)), np.arange(40) % 2
    many = np.concatenate([np.flatnonzero(labels == 0), np.tile(np.flatnonzero(labels == 1), 9)])
    new = rng.normal(size=(9, 2))
    same = [
        discriminant_scores(features[rows], labels[rows], new=new, classes=2)
        for rows in (np.arange(40), many)
    ]
    np.testing.assert_allclose(*same, rtol=1e-9)
