"""Mean spectra against slow ones; what a ring tells of source and class."""

import dataclasses

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fopro_lab.evaluation.metrics import discriminant
from fopro_lab.probing import mean_spectra, source_fingerprint
from tests.conftest import refuses
from tests.probing.toys import EDGES, make_pack

LESIONS = 60


def slow_log_amplitude(image, low, high):
    """Half the log of a ring's energy, from a full complex transform in float64."""
    spectrum = np.fft.fft2(image.astype(np.float64) / 255, axes=(0, 1), norm="forward")
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    inside = (radius > low) & (radius <= high)
    return np.log((np.abs(spectrum[inside]) ** 2).sum(axis=0).mean()) / 2


def test_mean_spectra_equal_the_slow_ones(world):
    rows = np.arange(20)
    row = mean_spectra(world.pack, rows, edges=EDGES).query("name == 'fast' and ring == 1").iloc[0]
    members = rows[world.pack.labels[rows] == 1]
    values = [slow_log_amplitude(world.pack.images[m], 0.25, 0.5) for m in members]
    assert row["log_amplitude"] == pytest.approx(np.mean(values), abs=1e-5)
    assert row["spread"] == pytest.approx(np.std(values), abs=1e-5)
    assert (row["low"], row["high"], row["n"]) == (0.25, 0.5, len(members))


def test_the_size_of_a_class_does_not_leak_into_the_difference(world):
    few = np.arange(30)
    many = np.concatenate([few, np.tile(few[world.pack.labels[few] == 1], 9)])  # "fast" tenfold
    first, second = (mean_spectra(world.pack, rows, edges=EDGES) for rows in (few, many))
    assert second.query("scope == 'class' and ring == 0")["n"].tolist() == [10, 100, 10]
    first, second = (table.query("scope == 'class'")["difference"] for table in (first, second))
    np.testing.assert_allclose(second, first, atol=1e-9)


def scanned_pack(*, tied=0.5, seed=0):
    """Two classes that differ in ring 0, two sources that differ in ring 1; none in ring 2.

    ``tied`` is the share of each class that comes from the source of the same place.
    """
    rng = np.random.default_rng(seed)
    lesion = np.repeat(np.arange(LESIONS), 2)
    label = lesion % 2
    chance = np.where(label == 1, tied, 1 - tied)
    source = (rng.random(LESIONS)[lesion] < chance).astype(int)
    x = np.arange(16)
    waves = [np.cos(2 * np.pi * (cycles * x / 16 + rng.random((120, 1)))) for cycles in (2, 6)]
    rows = (10 + 20 * label)[:, None] * waves[0] + (10 + 20 * source)[:, None] * waves[1]
    noise = rng.normal(0, 6, (120, 16, 16, 3))
    pixels = np.clip(128 + rows[:, None, :, None] + noise, 0, 255).astype(np.uint8)
    return make_pack(pixels, label, lesion, np.array(["soft", "sharp"])[source], ("a", "b"))


def fingerprint(pack, *, edges=(0, 0.25, 0.45, 0.75), rows=120, **settings):
    settings = {"resamples": 50, "permutations": 39} | settings
    table = source_fingerprint(pack, np.arange(rows), edges=edges, **settings)
    return table.set_index(["target", "within", "ring"])


def test_source_and_class_each_show_in_their_own_ring():
    table = fingerprint(scanned_pack())
    accuracy = table["accuracy"]
    assert accuracy["source", "all", 1] > 0.95 and accuracy["class", "all", 0] > 0.95
    for key in (("source", "all", 0), ("class", "all", 1), ("class", "all", 2)):
        assert accuracy[key] < min(0.7, table["permuted_high"][key] + 0.1)
    assert accuracy["class", "each source", 0] > 0.9 and accuracy["source", "each class", 1] > 0.9
    assert table["p"]["source", "all", 1] == pytest.approx(1 / 40)
    assert table.index.get_level_values("ring")[:4].tolist() == [0, 1, 2, -1]
    assert accuracy.between(table["accuracy_low"], table["accuracy_high"]).all()
    assert (table["chance"] == 0.5).all() and (table["permuted"] - 0.5).abs().max() < 0.06


def test_a_scanner_that_passes_for_a_disease_is_found_out():
    """Class and source go together: ring 1 tells the class, but not within a source."""
    accuracy = fingerprint(scanned_pack(tied=0.8, seed=1), permutations=1)["accuracy"]
    assert accuracy["class", "all", 1] > 0.65
    assert accuracy["class", "each source", 1] < accuracy["class", "all", 1] - 0.1
    assert accuracy["class", "each source", 0] > 0.9


def test_lesions_are_kept_apart():
    """Only the lesion is told by these images: seen again it would be known."""
    rng = np.random.default_rng(3)
    sizes = rng.uniform(5, 60, (LESIONS, 1, 1, 1)).repeat(2, axis=0)
    pixels = np.clip(128 + sizes * rng.normal(0, 1, (120, 16, 16, 3)), 0, 255).astype(np.uint8)
    pack = dataclasses.replace(scanned_pack(), images=pixels)
    assert fingerprint(pack, permutations=1)["accuracy"]["class", "all", -1] < 0.7


@pytest.mark.parametrize("source", ["", "soft"])
def test_without_known_sources_only_the_class_is_measured(source):
    pack = scanned_pack()
    table = pack.dataset.table.assign(source=source)
    pack = dataclasses.replace(pack, dataset=dataclasses.replace(pack.dataset, table=table))
    found = fingerprint(pack, permutations=1).reset_index()
    assert set(found["target"]) == {"class"} and set(found["within"]) == {"all"}
    few = fingerprint(pack, rows=6)  # too few lesions
    assert few.empty and {"accuracy", "permuted_high", "p"} <= set(few.columns)
    refuses(r"^edges: expected a frequency", fingerprint, pack, edges=[0, 0.01, 0.75])


def test_scores_equal_scikit_learns_where_classes_are_equally_large():
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 30)
    features = rng.normal(size=(len(labels), 3)) + labels[:, None] * [1, 0.3, -0.5]
    new = rng.normal(size=(50, 3))
    weight, bias = discriminant(features, labels, classes=4, shrinkage=1e-6)
    scores = new @ weight + bias
    model = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(4, 1 / 4))
    expected = model.fit(features, labels).decision_function(new)
    centred = [part - part.mean(axis=1, keepdims=True) for part in (scores, expected)]
    np.testing.assert_allclose(*centred, rtol=1e-4, atol=1e-4)
