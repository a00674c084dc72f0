"""Leakage between parts, and association of class and source."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fopro_lab.checks.leakage import (
    class_by_source,
    class_source_association,
    count_leaks,
    count_levels,
    cramers_v,
    find_leaks,
    find_shortcuts,
)
from fopro_lab.data import Split, open_dataset, pack

NONE = pd.DataFrame({"first": [], "second": []})


def split(train, val, test):
    rows = [np.array(part, dtype=np.int64) for part in (train, val, test)]
    return Split(*rows, protocol="toy", fingerprint="")


def table(groups, labels=None):
    labels = labels or [0] * len(groups)
    return pd.DataFrame({"image": [f"p{n}" for n in range(len(groups))], "label": labels,
                         "group": list(groups)})  # fmt: skip


def leaked(leaks, part, other, kind):
    own = leaks[(leaks["part"] == part) & (leaks["other"] == other)]
    return own[own[kind]]["image"].tolist()


def test_find_leaks_finds_each_kind_and_near_duplicates_of_copies():
    #        train    val  test
    groups = "ab" + "ca" + "bde"
    parts = split([0, 1], [2, 3], [4, 5, 6]).parts(7)
    content = np.array([0, 1, 2, 3, 4, 0, 6])  # row 5 of test is a copy of row 0
    near_duplicates = pd.DataFrame({"first": [1, 2], "second": [6, 3]})
    leaks = find_leaks(table(groups), parts, content=content, near_duplicates=near_duplicates)
    assert leaked(leaks, "test", "train", "group") == ["p4"]
    assert leaked(leaks, "test", "train", "copy") == ["p5"]
    assert leaked(leaks, "test", "train", "near_duplicate") == ["p6"]
    assert leaked(leaks, "test", "train", "any") == ["p4", "p5", "p6"]
    assert leaked(leaks, "val", "train", "any") == ["p3"]
    assert leaked(leaks, "test", "val", "any") == []
    parts = split([0, 1], [], [2, 3]).parts(4)
    content = np.array([0, 1, 1, 3])  # 2 of test copies 1
    near_duplicates = pd.DataFrame({"first": [1], "second": [3]})
    leaks = find_leaks(table("abcd"), parts, content=content, near_duplicates=near_duplicates)
    assert leaked(leaks, "test", "train", "near_duplicate") == ["p3"]
    assert leaked(leaks, "test", "train", "copy") == ["p2"]


def test_count_leaks_counts_classes_and_all():
    parts = split([0], [1], [2, 3, 4]).parts(5)
    leaks = find_leaks(
        table("abaac", [0, 0, 0, 1, 1]), parts, content=np.arange(5), near_duplicates=NONE
    )
    counts = count_leaks(leaks, ("nv", "mel")).set_index(["part", "other", "class"])
    own = counts.loc[("test", "train")][["n", "group", "any"]]
    assert own.values.tolist() == [[1, 1, 1], [2, 1, 1], [3, 2, 2]]


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


def test_association_keeps_groups_whole():
    """Ten patients with forty images each say no more than ten patients."""
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(10), 40)
    labels, sources = rng.integers(2, size=10)[patient], rng.choice(["a", "b"], 10)[patient]
    whole = class_source_association(toy_images(labels, sources, patient), resamples=299)
    alone = class_source_association(toy_images(labels, sources), resamples=299)
    assert whole.v == alone.v > 0.1 and whole.groups == 10
    assert alone.p < 0.01 and whole.p > 0.05
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("two", ["labels", "sources"])
def test_the_permutation_keeps_a_group_of_two_labels_or_two_sources_whole(two):
    """All 70 ways to deal eight patients in halves are counted; 2 are as uneven as observed.

    Were the two sides of a patient dealt apart, p would be 0.14.
    """
    patient = np.repeat(np.arange(8), 20)
    kind = patient // 4  # four patients have 15 of the first, four have 5
    mixed = np.where(np.arange(160) % 20 < np.where(kind == 0, 15, 5), 0, 1)
    labels, sources = (mixed, kind) if two == "labels" else (kind, mixed)
    found = class_source_association(toy_images(labels, np.array(["a", "b"])[sources], patient))
    share = np.where(np.arange(8) < 4, 0.75, 0.25)
    as_uneven = [
        abs(share[list(half)].mean() - share[[p for p in range(8) if p not in half]].mean()) >= 0.5
        for half in combinations(range(8), 4)
    ]
    assert found.v == pytest.approx(slow_v(np.array([[60, 20], [20, 60]])), abs=1e-9)
    assert found.p == pytest.approx(np.mean(as_uneven), abs=0.02)  # 3.8 standard errors


def test_association_without_two_sources_is_undefined_and_absent_classes_are_kept():
    for sources in (["", "", ""], ["a", "a", "a"], ["a", "", ""]):
        found = class_source_association(toy_images([0, 1, 0], sources))
        assert np.isnan([found.v, found.low, found.high, found.p]).all()
    counts = class_by_source(toy_images([0, 0, 2, 2], ["b", "a", "b", ""]), ("x", "y", "z"))
    assert list(counts.columns) == ["a", "b"] and list(counts.index) == ["x", "y", "z"]
    assert counts.values.tolist() == [[1, 1], [0, 0], [0, 1]]


def write_noise(root, *, each=20, bright=0, wide=0, ending="png", top=256):
    """Write noise of two classes; the first is brighter, wider or of another format."""
    rng = np.random.default_rng(0)
    for label in (0, 1):
        first = label == 0
        for number in range(each):
            pixels = rng.integers(0, top - bright * (not first), (32, 32 + wide * first, 3))
            path = root / f"class{label}" / f"{number}.{ending if first else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return pack(open_dataset(root), 32, progress=False)


@pytest.mark.parametrize(
    ("options", "feature"),
    [({"bright": 40}, "brightness"), ({"wide": 4}, "size"), ({"ending": "jpg"}, "format")],
)
def test_what_alone_tells_a_class_is_found(tmp_path, options, feature):
    best = find_shortcuts(write_noise(tmp_path, **options))[0]
    assert (best.feature, best.telling) == (feature, True) and best.accuracy > 0.9


def test_noise_and_few_groups_tell_nothing(tmp_path):
    assert not any(each.telling for each in find_shortcuts(write_noise(tmp_path / "a")))
    few = find_shortcuts(write_noise(tmp_path / "b", each=8, bright=200))
    assert not any(each.accuracy or each.telling for each in few)


def test_count_levels_counts_over_all_channels(tmp_path):
    levels = count_levels(write_noise(tmp_path, each=2, top=9))
    assert levels.max() <= 9 and levels.min() >= 7
