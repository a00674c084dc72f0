from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from fopro_lab.checks.leakage import class_by_source, cramers_v, entangle


def slow_v(counts):
    """Bergsma's formula, cell by cell."""
    n = counts.sum()
    share = 0.0
    for i in range(len(counts)):
        for j in range(len(counts[0])):
            expected = counts[i].sum() * counts[:, j].sum() / n
            share += (counts[i, j] - expected) ** 2 / expected / n
    r, k = counts.shape
    share = max(0, share - (r - 1) * (k - 1) / (n - 1))
    r, k = r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)
    return np.sqrt(share / min(r - 1, k - 1))


def toy_images(labels, sources, groups=None):
    groups = np.arange(len(labels)) if groups is None else groups
    return pd.DataFrame({"label": labels, "source": sources, "group": groups})


def test_cramers_v_equals_the_formula():
    counts = np.array([[30, 5, 9], [4, 22, 7]])
    assert cramers_v(counts) == pytest.approx(slow_v(counts), abs=1e-12)
    assert 0.5 < cramers_v(counts) < 0.7


def test_cramers_v_takes_the_bias_of_small_samples_away():
    """Ten images of ten classes from ten sources fit by chance alone; plain V is 0.6 here."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(200):
        counts = np.zeros((5, 5))
        np.add.at(counts, (rng.integers(5, size=40), rng.integers(5, size=40)), 1)
        values.append(cramers_v(counts))
    assert np.median(values) < 0.1  # uncorrected: 0.31


def test_cramers_v_ignores_empty_classes_and_needs_two_of_each():
    counts = np.array([[8, 2], [0, 0], [1, 9]])
    assert cramers_v(counts) == cramers_v(counts[[0, 2]])
    assert np.isnan(cramers_v(np.array([[5, 5]])))
    assert np.isnan(cramers_v(np.zeros((2, 2))))


def test_entangle_finds_what_hangs_together_and_what_does_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=600)
    alone = rng.choice(["a", "b"], 600)
    tied = np.where(rng.random(600) < 0.8, np.array(["a", "b", "b"])[labels], alone)
    free, bound = (entangle(toy_images(labels, each), resamples=199) for each in (alone, tied))
    assert free.p > 0.01 and free.v < 0.1 and free.low == 0
    assert bound.p == pytest.approx(1 / 200) and bound.low < bound.v < bound.high
    assert bound.low > 0.6


def test_entangle_keeps_groups_whole():
    """Ten patients with forty images each say no more than ten patients."""
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(10), 40)
    labels, sources = rng.integers(2, size=10)[patient], rng.choice(["a", "b"], 10)[patient]
    whole = entangle(toy_images(labels, sources, patient), resamples=299)
    torn = entangle(toy_images(labels, sources), resamples=299)
    assert whole.v == torn.v > 0.1 and whole.groups == 10
    assert torn.p < 0.01 and whole.p > 0.05
    assert whole.high - whole.low > 2 * (torn.high - torn.low)


@pytest.mark.parametrize("two", ["labels", "sources"])
def test_the_permutation_keeps_a_group_of_two_labels_or_two_sources_whole(two):
    """All 70 ways to deal eight patients in halves are counted; 2 are as uneven as observed.

    Were the two sides of a patient dealt apart, p would be 0.14.
    """
    patient = np.repeat(np.arange(8), 20)
    kind = patient // 4  # four patients have 15 of the first, four have 5
    mixed = np.where(np.arange(160) % 20 < np.where(kind == 0, 15, 5), 0, 1)
    labels, sources = (mixed, kind) if two == "labels" else (kind, mixed)
    found = entangle(toy_images(labels, np.array(["a", "b"])[sources], patient))
    share = np.where(np.arange(8) < 4, 0.75, 0.25)
    as_uneven = [
        abs(share[list(half)].mean() - share[[p for p in range(8) if p not in half]].mean()) >= 0.5
        for half in combinations(range(8), 4)
    ]
    assert found.v == pytest.approx(slow_v(np.array([[60, 20], [20, 60]])), abs=1e-9)
    assert found.p == pytest.approx(np.mean(as_uneven), abs=0.02)  # 3.8 standard errors


def test_the_permutation_of_a_single_patient_says_nothing():
    found = entangle(toy_images([0, 1] * 10, ["a", "b"] * 10, ["x"] * 20))
    assert found.v == 1 and found.p == 1 and found.groups == 1


def test_entangle_without_two_sources_is_undefined():
    for sources in (["", "", ""], ["a", "a", "a"], ["a", "", ""]):
        found = entangle(toy_images([0, 1, 0], sources))
        assert np.isnan([found.v, found.low, found.high, found.p]).all()


def test_class_by_source_keeps_absent_classes_and_drops_unknown_sources():
    counts = class_by_source(toy_images([0, 0, 2, 2], ["b", "a", "b", ""]), ("x", "y", "z"))
    assert list(counts.columns) == ["a", "b"] and list(counts.index) == ["x", "y", "z"]
    assert counts.values.tolist() == [[1, 1], [0, 0], [0, 1]]
