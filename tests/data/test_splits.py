import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.config import DataConfig
from fopro_lab.data import make_split, open_dataset, split_from
from fopro_lab.errors import InputError
from tests.data.toys import toy_dataset

PARTS = ("train", "val", "test")
SINGLES = [(label, 1) for label in range(3) for _ in range(40)]
many_groups = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=60).map(
    lambda groups: [(label, 1) for label in range(3) for _ in range(3)] + groups
)
quick = settings(deadline=None, max_examples=40)


def part_of(dataset, split) -> dict[str, str]:
    images = dataset.table["image"].to_numpy()
    return {image: part for part in PARTS for image in images[getattr(split, part)]}


def groups_of(dataset, rows) -> set[str]:
    return set(dataset.table["group"].iloc[rows])


@quick
@given(groups=many_groups, seed=st.integers(0, 9))
def test_make_split_is_a_partition_that_keeps_groups_apart(groups, seed):
    dataset = toy_dataset(groups)
    split = make_split(dataset, seed=seed)
    rows = np.concatenate([split.train, split.val, split.test])
    assert sorted(rows) == list(range(len(dataset)))
    assert split.shared_groups(dataset) == 0
    found = [groups_of(dataset, getattr(split, part)) for part in PARTS]
    assert sum(map(len, found)) == len(set.union(*found))
    assert all(np.all(np.diff(getattr(split, part)) > 0) for part in PARTS)


@quick
@given(groups=many_groups)
def test_make_split_gives_each_class_its_share(groups):
    dataset = toy_dataset(groups)
    split = make_split(dataset, val_fraction=0.15, test_fraction=0.25)
    labels = dataset.table["label"].to_numpy()
    total = np.bincount(labels)
    for rows, fraction in ((split.val, 0.15), (split.test, 0.25)):
        wanted = np.maximum(1, np.round(total * fraction))
        # Groups have at most 4 images, so at most 3 can be missing; 4 would be a lost group.
        # More than wanted is only a single group, where no smaller one was left.
        assert np.all(np.bincount(labels[rows], minlength=3) <= np.maximum(wanted, 4))
        assert np.all(np.bincount(labels[rows], minlength=3) >= np.maximum(wanted - 3, 1))


@quick
@given(groups=many_groups, data=st.data())
def test_make_split_does_not_depend_on_the_order_of_rows(groups, data):
    first = toy_dataset(groups)
    order = np.array(data.draw(st.permutations(range(len(first)))))
    second = toy_dataset(groups, order=order)
    for options in ({}, {"val_per_class": 1, "test_per_class": 1}):
        one, two = make_split(first, **options), make_split(second, **options)
        assert part_of(first, one) == part_of(second, two)
        assert one.fingerprint == two.fingerprint


def test_make_split_of_single_images_meets_the_shares_exactly():
    split = make_split(toy_dataset(SINGLES))
    assert (len(split.train), len(split.val), len(split.test)) == (72, 18, 30)
    assert split.class_counts(toy_dataset(SINGLES)).tolist() == [24, 24, 24]
    assert split.protocol == "toy/images/val0.15-test0.25/seed0"


def test_make_split_is_the_same_everywhere():
    split = make_split(toy_dataset(SINGLES), seed=4)
    assert split.fingerprint[:16] == "5c97f06b5bf67ba1"


def test_make_split_changes_with_the_seed():
    dataset = toy_dataset(SINGLES)
    first, second = make_split(dataset), make_split(dataset, seed=1)
    assert first.fingerprint != second.fingerprint
    assert set(first.test) != set(second.test)


def test_make_split_sends_a_mixed_group_where_its_majority_goes():
    dataset = toy_dataset(SINGLES[:80])
    dataset.table.loc[[0, 1, 40], "group"] = "mixed"  # two of class 0, one of class 1
    split = make_split(dataset)
    assert split.shared_groups(dataset) == 0
    labels = dataset.table["label"].to_numpy()
    # Class 1 is drawn from its other 39: six and ten of them, and perhaps the one of the group.
    assert np.bincount(labels[split.val])[1] - (40 in split.val) == 6
    assert np.bincount(labels[split.test])[1] - (40 in split.test) == 10


@quick
@given(groups=many_groups)
def test_make_split_balances_exactly(groups):
    dataset = toy_dataset([(label, 2) for label in range(3) for _ in range(4)] + groups)
    split = make_split(dataset, val_per_class=3, test_per_class=2)
    labels = dataset.table["label"].to_numpy()
    assert np.bincount(labels[split.val]).tolist() == [3, 3, 3]
    assert np.bincount(labels[split.test]).tolist() == [2, 2, 2]
    assert split.shared_groups(dataset) == 0
    assert split.protocol == "toy/groups/val3-test2/seed0"
    assert len(split.train) + 15 >= len(dataset) - 6 * 3  # at most a cut group a class and part


def test_make_split_balances_with_a_group_cut_and_its_rest_left_out():
    dataset = toy_dataset([(label, 4) for label in range(2) for _ in range(5)])
    split = make_split(dataset, val_per_class=3, test_per_class=2)
    assert len(split.train) + len(split.val) + len(split.test) == 40 - 2 * (1 + 2)
    assert split.shared_groups(dataset) == 0


def test_make_split_keeps_mixed_groups_out_of_balanced_parts():
    dataset = toy_dataset(SINGLES[:80])
    dataset.table.loc[[0, 1, 40], "group"] = "mixed"
    for seed in range(5):
        split = make_split(dataset, val_per_class=12, test_per_class=12, seed=seed)
        labels = dataset.table["label"].to_numpy()
        assert np.bincount(labels[split.val]).tolist() == [12, 12]
        assert {0, 1, 40} <= set(split.train)


def test_make_split_with_three_groups_of_unlike_size_trains_on_the_largest():
    dataset = toy_dataset([(0, 10), (0, 1), (0, 1), (1, 1), (1, 10), (1, 1)])
    for seed in range(5):
        split = make_split(dataset, seed=seed)
        assert (len(split.train), len(split.val), len(split.test)) == (20, 2, 2)


def given_parts(**shares: int) -> dict[str, str]:
    """Give parts to the 120 groups of SINGLES: of each class, the first so many, and so on."""
    parts = [part for part, share in shares.items() for _ in range(share)]
    return {f"g{k * 40 + i}": part for k in range(3) for i, part in enumerate(parts)}


def test_make_split_honours_a_given_split():
    parts = given_parts(val=5, test=10, train=25)
    dataset = toy_dataset(SINGLES, split=parts)
    split = make_split(dataset, seed=7)
    assert part_of(dataset, split) == {f"p{g[1:]}-0": part for g, part in parts.items()}
    assert split.protocol == "toy/given"


def test_make_split_draws_what_is_not_given_from_training():
    dataset = toy_dataset(SINGLES, split=given_parts(test=10, train=30))
    split = make_split(dataset, val_fraction=0.2)
    assert groups_of(dataset, split.test) == {f"g{k * 40 + i}" for k in range(3) for i in range(10)}
    assert (len(split.train), len(split.val)) == (3 * 24, 3 * 6)
    assert split.protocol == "toy/given-test/images/val0.2/seed0"


def test_shared_groups_counts_the_leaks_of_a_given_split():
    dataset = toy_dataset(SINGLES, split=given_parts(val=5, test=10, train=25))
    dataset.table.loc[[0, 39, 41, 79], "group"] = ["a", "a", "b", "b"]
    assert make_split(dataset).shared_groups(dataset) == 2


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        (
            [*SINGLES[:40], (1, 1)],
            {},
            r"^toy: class 'class1' has 1 image; a split needs at least 3 groups of each class; "
            r"add images or leave the class out$",
        ),
        ([*SINGLES[:40], (1, 9), (1, 3)], {}, r"'class1' has 12 images in 2 groups; a split"),
        (
            SINGLES,
            {"val_per_class": 30, "test_per_class": 20},
            r"'class0' has 40 images in 40 groups, too few for 30 in val and a group in each",
        ),
        (SINGLES, {"val_fraction": 0.0}, r"^val_fraction: expected between 0 and 1, got 0.0"),
        (SINGLES, {"test_per_class": -1}, r"^test_per_class: expected 0 or more, got -1"),
        (
            SINGLES,
            {"val_fraction": 0.5, "test_fraction": 0.5},
            r"^val_fraction and test_fraction: expected a sum below 1, got 1$",
        ),
    ],
)
def test_make_split_refuses(groups, options, message):
    with pytest.raises(InputError, match=message):
        make_split(toy_dataset(groups), **options)


def test_make_split_refuses_a_given_split_without_training():
    with pytest.raises(InputError, match=r"^toy: the given split has no training part"):
        make_split(toy_dataset(SINGLES, split=given_parts(val=20, test=20)))


def test_make_split_notes_a_class_that_the_given_validation_lacks():
    parts = given_parts(val=5, test=10, train=25)
    parts |= {f"g{number}": "train" for number in range(5)}
    dataset = toy_dataset(SINGLES, split=parts)
    split = make_split(dataset)
    assert split.notes == ("val has no image of class0",)
    assert split.class_counts(dataset).tolist() == [30, 25, 25]


def test_make_split_refuses_a_given_split_that_trains_without_a_class():
    parts = given_parts(val=5, test=10, train=25)
    parts |= {f"g{number}": "val" for number in range(40) if parts[f"g{number}"] == "train"}
    with pytest.raises(InputError, match=r"^toy: class 'class0' has no image in train; add"):
        make_split(toy_dataset(SINGLES, split=parts))


def test_make_split_names_a_given_training_part():
    split = make_split(toy_dataset(SINGLES, split=given_parts(train=40)))
    assert split.protocol == "toy/given-train/images/val0.15-test0.25/seed0"


@pytest.mark.parametrize(
    ("knobs", "protocol"),
    [
        (
            {"val_fraction": 0.1, "test_per_class": 5, "split_seed": 3},
            "images/val0.1-test5/seed3",
        ),
        (
            {"split_rule": "folds", "folds": 4, "fold": 2, "val_per_class": 3, "split_seed": 1},
            "images/folds4-val3/seed1/fold2",
        ),
        (
            {"split_rule": "long-tail", "tail_ratio": 0.5, "test_fraction": 0.3},
            "images/longtail0.5-val0.15-test0.3/seed0",
        ),
    ],
)
def test_split_from_takes_every_field_of_the_config(knobs, protocol):
    assert split_from(toy_dataset(SINGLES), DataConfig(**knobs)).protocol == f"toy/{protocol}"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"split_rule": "isic2019-lt", "tail_ratio": 0.005, "fold": 3}, r"train_skin3_0.005.csv"),
        ({"split_rule": "hyperkvasir", "folds": 2, "fold": 2}, r"2_fold_split.csv for folds=2"),
    ],
)
def test_split_from_looks_for_published_files_where_the_config_says(tmp_path, knobs, message):
    with pytest.raises(InputError, match=rf"^split_files: {tmp_path}: expected the .*{message}"):
        split_from(toy_dataset(SINGLES), DataConfig(split_files=str(tmp_path), **knobs))


def test_make_split_of_the_default_phantom():
    dataset = open_dataset("phantom")
    split = make_split(dataset)
    assert split.protocol == "phantom/groups/val0.15-test0.25/seed0"
    assert split.class_counts(dataset).min() >= 8


@pytest.mark.real
def test_make_split_keeps_the_lesions_of_ham10000_apart(shared):
    dataset = open_dataset(shared / "data" / "ham10000", images=2000)
    split = make_split(dataset)
    assert split.shared_groups(dataset) == 0
    assert split.protocol == "ham10000-2000/groups/val0.15-test0.25/seed0"
    counts = np.bincount(dataset.table["label"])
    np.testing.assert_allclose(split.class_counts(dataset) / counts, 0.6, atol=0.02)
