from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.config import DataConfig
from fopro_lab.data import make_folds, make_long_tail, make_split, open_dataset, split_from
from fopro_lab.data.readers import PARTS
from fopro_lab.data.sampling import choose_rows
from fopro_lab.data.split_rules import check_split, long_tail_counts
from fopro_lab.errors import InputError
from tests.conftest import refuses
from tests.data.toys import ISIC2019_TOTALS, isic2019_lt_counts, toy_dataset

SINGLES = [(label, 1) for label in range(3) for _ in range(40)]
many_groups = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=60).map(
    lambda groups: [(label, 1) for label in range(3) for _ in range(8)] + groups
)
quick = settings(deadline=None, max_examples=25)


def part_of(dataset, split) -> dict[str, str]:
    images = dataset.table["image"].to_numpy()
    return {image: part for part in PARTS for image in images[getattr(split, part)]}


def groups_of(dataset, rows) -> set[str]:
    return set(dataset.table["group"].iloc[rows])


def counts_of(dataset, rows) -> np.ndarray:
    labels = dataset.table["label"].to_numpy()[rows]
    return np.bincount(labels, minlength=len(dataset.class_names))


def given_parts(**shares: int) -> dict[str, str]:
    """Give parts to the 120 groups of SINGLES: of each class, the first so many, and so on."""
    parts = [part for part, share in shares.items() for _ in range(share)]
    return {f"g{k * 40 + i}": part for k in range(3) for i, part in enumerate(parts)}


# Any rule.


@quick
@given(groups=many_groups, seed=st.integers(0, 9), data=st.data())
@pytest.mark.parametrize(
    "rule",
    [
        make_split,
        lambda dataset, seed: make_split(dataset, val_per_class=1, test_per_class=1, seed=seed),
        lambda dataset, seed: make_folds(dataset, folds=3, fold=2, seed=seed),
        lambda dataset, seed: make_long_tail(dataset, ratio=0.4, seed=seed),
    ],
)
def test_rules_keep_groups_apart_whatever_the_order_of_rows(rule, groups, seed, data):
    dataset = toy_dataset(groups)
    split = rule(dataset, seed=seed)
    assert split.group_leakage(dataset).empty
    found = [groups_of(dataset, getattr(split, part)) for part in PARTS]
    assert sum(map(len, found)) == len(set.union(*found))
    assert all(np.all(np.diff(getattr(split, part)) > 0) for part in PARTS)
    order = np.array(data.draw(st.permutations(range(len(dataset)))))
    mixed = toy_dataset(groups, order=order)
    again = rule(mixed, seed=seed)
    assert part_of(dataset, split) == part_of(mixed, again)
    assert split.fingerprint == again.fingerprint


def test_rules_draw_the_same_images_everywhere_and_others_with_another_seed():
    dataset = toy_dataset(SINGLES)
    assert make_split(dataset, seed=4).fingerprint[:16] == "5c97f06b5bf67ba1"
    assert make_folds(dataset, fold=3).fingerprint[:16] == "d2a3ed24ba4df735"
    for rule in (make_split, make_folds):
        assert set(rule(dataset).test) != set(rule(dataset, seed=1).test)


def test_split_from_takes_every_field_of_the_config():
    options = {"val_fraction": 0.1, "test_per_class": 5, "split_seed": 3}
    folds = {"split_rule": "folds", "folds": 4, "fold": 2, "val_per_class": 3, "split_seed": 1}
    tail = {"split_rule": "long-tail", "tail_ratio": 0.5, "test_fraction": 0.3}
    for chosen, protocol in (
        (options, "val0.1-test5/seed3"),
        (folds, "folds4-val3/seed1/fold2"),
        (tail, "longtail0.5-val0.15-test0.3/seed0"),
        (
            folds | {"split_rule": "folds-long-tail", "tail_ratio": 0.5},
            "longtail0.5-folds4-val3/seed1/fold2",
        ),
    ):
        found = split_from(toy_dataset(SINGLES), DataConfig(**chosen)).protocol
        assert found == f"toy/images/{protocol}"


def test_thinned_folds_test_every_image_once_and_train_on_a_part_of_the_folds():
    dataset = toy_dataset(SINGLES)
    whole = [make_folds(dataset, folds=3, fold=fold) for fold in (1, 2, 3)]
    thin = [make_folds(dataset, folds=3, fold=fold, ratio=0.25) for fold in (1, 2, 3)]
    ranked = np.argsort(-counts_of(dataset, slice(None)), kind="stable")
    assert sorted(np.concatenate([split.test for split in thin])) == list(range(len(dataset)))
    for split, other in zip(thin, whole, strict=True):
        np.testing.assert_array_equal(split.test, other.test)
        np.testing.assert_array_equal(split.val, other.val)
        assert set(split.train) < set(other.train)
        left = counts_of(dataset, other.train)[ranked].tolist()
        wanted = long_tail_counts(left, ratio=0.25, largest=left[0])
        assert counts_of(dataset, split.train)[ranked].tolist() == wanted
    refuses("tail_ratio: expected a larger one", make_folds, dataset, folds=3, ratio=1e-6)
    refuses("ratio: expected above 0", make_folds, dataset, folds=3, ratio=0)


def test_a_split_of_other_images_is_refused():
    dataset = toy_dataset(SINGLES)
    split = make_split(dataset)
    check_split(split, dataset)
    check_split(replace(split, train=split.train[:9]), dataset)
    for other in (replace(dataset, fingerprint="other"), dataset.subset(range(60))):
        refuses(r"^split: expected rows below .* make_split\(pack", check_split, split, other)
    for part in ("train", "val", "test"):
        with pytest.raises(InputError, match=f"^split: expected .* got none in {part}; move"):
            check_split(replace(split, **{part: split.train[:0]}), dataset)


# Shares and counts per class.


@quick
@given(groups=many_groups)
def test_make_split_is_a_partition_that_gives_each_class_its_share(groups):
    dataset = toy_dataset(groups)
    split = make_split(dataset, val_fraction=0.15, test_fraction=0.25)
    rows = np.concatenate([split.train, split.val, split.test])
    assert sorted(rows) == list(range(len(dataset)))
    total = counts_of(dataset, slice(None))
    for rows, fraction in ((split.val, 0.15), (split.test, 0.25)):
        wanted = np.maximum(1, np.round(total * fraction))
        # Groups have at most 4 images, so at most 3 can be missing; 4 would be a lost group.
        # More than wanted is only a single group, where no smaller one was left.
        assert np.all(counts_of(dataset, rows) <= np.maximum(wanted, 4))
        assert np.all(counts_of(dataset, rows) >= np.maximum(wanted - 3, 1))


@quick
@given(groups=many_groups)
def test_make_split_balances_exactly(groups):
    dataset = toy_dataset([(label, 2) for label in range(3) for _ in range(4)] + groups)
    split = make_split(dataset, val_per_class=3, test_per_class=2)
    assert counts_of(dataset, split.val).tolist() == [3, 3, 3]
    assert counts_of(dataset, split.test).tolist() == [2, 2, 2]
    assert split.protocol == "toy/groups/val3-test2/seed0"
    assert len(split.train) + 15 >= len(dataset) - 6 * 3  # at most a cut group per class and part


def test_make_split_sends_a_mixed_group_where_its_majority_goes():
    dataset = toy_dataset(SINGLES[:80])
    dataset.table.loc[[0, 1, 40], "group"] = "mixed"  # two of class 0, one of class 1
    split = make_split(dataset)
    assert split.group_leakage(dataset).empty
    # Class 1 is drawn from its other 39: six and ten of them, and perhaps the one of the group.
    assert counts_of(dataset, split.val)[1] - (40 in split.val) == 6
    assert counts_of(dataset, split.test)[1] - (40 in split.test) == 10
    for seed in range(5):  # and balanced parts hold none
        split = make_split(dataset, val_per_class=12, test_per_class=12, seed=seed)
        assert counts_of(dataset, split.val).tolist() == [12, 12]
        assert {0, 1, 40} <= set(split.train)


LEFT = [*SINGLES, (3, 9), (3, 1), (3, 1)]
FEW = [*SINGLES, *[(3, 9)] * 4]


@pytest.mark.parametrize(
    ("rule", "groups", "options", "message"),
    [
        (make_split, [*SINGLES[:40], (1, 9), (1, 3)], {}, r"has 12 image\(s\) in 2 group\(s\); a"),
        (make_split, SINGLES, {"val_per_class": 30, "test_per_class": 20}, r"too few for 30 in"),
        (make_split, SINGLES, {"val_fraction": 0.8}, r"^val_fraction and test_fraction: expected"),
        (make_folds, FEW, {}, r"^toy: class 'class3' has 4 groups, too few for 5 folds"),
        (make_folds, LEFT, {"folds": 2, "fold": 2}, r"has 9 .* in 1 group.* take more folds"),
        (make_long_tail, SINGLES, {"ratio": 0.01}, r"^tail_ratio: .* 0.01: of the 40 images of"),
    ],
)
def test_rules_refuse(rule, groups, options, message):
    refuses(message, rule, toy_dataset(groups), **options)


# A given split.


def test_make_split_honours_a_given_split_and_draws_the_rest_from_training():
    parts = given_parts(val=5, test=10, train=25)
    dataset = toy_dataset(SINGLES, split=parts)
    split = make_split(dataset, seed=7)
    assert part_of(dataset, split) == {f"p{g[1:]}-0": part for g, part in parts.items()}
    assert split.protocol == "toy/given"
    dataset.table.loc[[0, 39, 41, 79], "group"] = ["a", "a", "b", "b"]
    assert len(make_split(dataset).group_leakage(dataset)) == 2
    dataset = toy_dataset(SINGLES, split=given_parts(test=10, train=30))
    split = make_split(dataset, val_fraction=0.2)
    assert groups_of(dataset, split.test) == {f"g{k * 40 + i}" for k in range(3) for i in range(10)}
    assert (len(split.train), len(split.val)) == (3 * 24, 3 * 6)
    assert split.protocol == "toy/given-test/images/val0.2/seed0"
    split = make_split(toy_dataset(SINGLES, split=given_parts(train=40)))
    assert split.protocol == "toy/given-train/images/val0.15-test0.25/seed0"


def test_make_split_notes_or_refuses_what_a_given_split_lacks():
    parts = given_parts(val=5, test=10, train=25)
    lacks = parts | {f"g{number}": "train" for number in range(5)}
    dataset = toy_dataset(SINGLES, split=lacks)
    assert make_split(dataset).notes == ("val has no image of class0",)
    assert make_split(dataset).class_counts(dataset).tolist() == [30, 25, 25]
    lacks = parts | {f"g{n}": "val" for n in range(40) if parts[f"g{n}"] == "train"}
    refuses(r"^toy: class 'class0' has no image", make_split, toy_dataset(SINGLES, split=lacks))
    with pytest.raises(InputError, match=r"^toy: the given split has no training part"):
        make_split(toy_dataset(SINGLES, split=given_parts(val=20, test=20)))


# Folds.


@quick
@given(groups=many_groups, folds=st.integers(3, 6), seed=st.integers(0, 5))
def test_make_folds_tests_each_image_once(groups, folds, seed):
    dataset = toy_dataset(groups)
    splits = [make_folds(dataset, folds=folds, fold=k + 1, seed=seed) for k in range(folds)]
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(dataset)))
    for split in splits:
        rows = np.concatenate([split.train, split.val, split.test])
        assert sorted(rows) == list(range(len(dataset)))
    tested = np.array([counts_of(dataset, split.test) for split in splits])
    # Groups have at most 4 images; dealing to the smallest fold keeps two folds that close.
    assert (tested.max(axis=0) - tested.min(axis=0) <= 4).all() and (tested > 0).all()


def test_make_folds_names_its_parts_and_says_that_it_passes_over_a_given_split():
    dataset = toy_dataset(SINGLES, split=given_parts(train=40))
    split = make_folds(dataset, folds=4, fold=2, val_fraction=0.2)
    assert (len(split.train), len(split.val), len(split.test)) == (3 * 24, 3 * 6, 3 * 10)
    assert split.protocol == "toy/images/folds4-val0.2/seed0/fold2"
    assert split.notes == ("the split that the data set gives is passed over",)
    split = make_folds(toy_dataset(SINGLES), val_per_class=5)
    assert counts_of(dataset, split.val).tolist() == [5, 5, 5] and split.notes == ()
    assert split.protocol == "toy/images/folds5-val5/seed0/fold1"


# Long tails.


def test_long_tail_counts_are_the_published_ones_and_round_as_whole_numbers_do():
    # Counted in the split files published with FoPro-KD: 1:100, 1:200 and 1:500.
    assert isic2019_lt_counts(0.01) == [12725, 4372, 3173, 1788, 717, 478, 103, 89]
    assert isic2019_lt_counts(0.005) == [12725, 4372, 2833, 1329, 623, 292, 103, 64]
    assert isic2019_lt_counts(0.002) == [12725, 4372, 2180, 897, 369, 152, 62, 25]
    assert long_tail_counts([90, 20, 100], ratio=0.1, largest=100) == [90, 20, 10]
    # In double precision the third is 7.999999999999999 and the fifth 1.9999999999999998.
    assert long_tail_counts([99] * 6, ratio=1 / 32, largest=32) == [32, 16, 8, 4, 2, 1]
    assert long_tail_counts([40], ratio=0.1, largest=100) == [40]


def test_make_long_tail_reproduces_the_published_counts():
    sizes = [(label, 1) for label, total in enumerate(ISIC2019_TOTALS) for _ in range(total)]
    dataset = toy_dataset(sizes)
    split = make_long_tail(dataset, ratio=0.005, val_per_class=50, test_per_class=100, seed=3)
    assert split.class_counts(dataset).tolist() == isic2019_lt_counts(0.005)
    parts = [counts_of(dataset, rows).tolist() for rows in (split.val, split.test)]
    assert parts == [[50] * 8, [100] * 8]
    assert split.protocol == "toy/images/longtail0.005-val50-test100/seed3"


def test_make_long_tail_thins_the_training_part_of_a_given_split_alone():
    parts = {f"g{i}": ("test" if i % 50 < 10 else "train") for i in range(100)}
    dataset = toy_dataset([(label, 1) for label in range(2) for _ in range(50)], split=parts)
    split = make_long_tail(dataset, ratio=0.25, val_fraction=0.1)
    assert groups_of(dataset, split.test) == {g for g in parts if parts[g] == "test"}
    assert counts_of(dataset, split.val).tolist() == [4, 4]
    assert split.class_counts(dataset).tolist() == [36, 9]
    assert split.protocol == "toy/given-test/images/longtail0.25-val0.1/seed0"
    names = ("train", "train", "train", "train", "val", "test")  # all given: nothing is drawn
    parts = {f"g{i}": names[i % 6] for i in range(60)}
    dataset = toy_dataset([(label, 1) for label in range(2) for _ in range(30)], split=parts)
    splits = [make_long_tail(dataset, ratio=0.5, seed=seed) for seed in (0, 1)]
    assert splits[0].class_counts(dataset).tolist() == [20, 10]
    assert splits[0].protocol == "toy/given/images/longtail0.5/seed0"
    assert splits[0].fingerprint != splits[1].fingerprint  # but for what is thinned


@pytest.mark.real
def test_rules_keep_the_lesions_of_ham10000_apart(shared):
    dataset = open_dataset(shared / "data" / "ham10000")
    splits = [make_folds(dataset, fold=fold) for fold in range(1, 6)]
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(10013))
    tested = np.array([counts_of(dataset, split.test) for split in splits])
    assert np.ptp(tested, axis=0).max() <= 1 and np.ptp(tested.sum(axis=1)) <= 1
    assert splits[4].protocol == "ham10000/groups/folds5-val0.15/seed0/fold5"
    drawn = make_split(dataset)
    shares = drawn.class_counts(dataset) / counts_of(dataset, slice(None))
    np.testing.assert_allclose(shares, 0.6, atol=0.02)
    tail = make_long_tail(dataset, ratio=0.01, val_per_class=10, test_per_class=20)
    assert counts_of(dataset, tail.test).tolist() == [20] * 7
    assert tail.class_counts(dataset)[[3, 5]].tolist() == [67, 6673]  # df and nv: 1 to 100
    assert all(split.group_leakage(dataset).empty for split in (*splits, drawn, tail))


# Choosing fewer images.


@settings(deadline=None, max_examples=50)
@given(
    groups=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=12, max_size=60),
    share=st.floats(0.2, 1),
)
def test_choose_rows_keeps_three_groups_a_class_and_most_whole_whatever_the_order(groups, share):
    table = toy_dataset([(0, 1), (1, 2), (2, 3)] * 3 + groups).table
    images = max(int(share * len(table)), 9)
    chosen = table.iloc[choose_rows(table, images=images, seed=0)]
    assert len(chosen) <= images
    mixed = table.sample(frac=1, random_state=0)
    again = mixed.iloc[choose_rows(mixed.reset_index(drop=True), images=images, seed=0)]
    assert set(again["image"]) == set(chosen["image"])
    assert chosen.groupby("label")["group"].nunique().min() >= 3
    sizes = chosen.groupby("group").size()
    cut = sizes[sizes < table.groupby("group").size()[sizes.index]]
    assert len(cut) <= 3 * 3
