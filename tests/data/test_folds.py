import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from fopro_lab.data import open_dataset
from fopro_lab.data.split_rules import deal_folds, make_folds
from fopro_lab.errors import InputError
from tests.data.toys import toy_dataset

SINGLES = [(label, 1) for label in range(3) for _ in range(40)]
many_groups = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=60).map(
    lambda groups: [(label, 1) for label in range(3) for _ in range(7)] + groups
)
quick = settings(deadline=None, max_examples=15)


def counts_of(dataset, rows) -> np.ndarray:
    labels = dataset.table["label"].to_numpy()[rows]
    return np.bincount(labels, minlength=len(dataset.class_names))


def test_make_folds_of_single_images_meets_the_shares_exactly():
    split = make_folds(toy_dataset(SINGLES), folds=4, fold=2, val_fraction=0.2)
    assert (len(split.train), len(split.val), len(split.test)) == (3 * 24, 3 * 6, 3 * 10)
    assert split.protocol == "toy/images/folds4-val0.2/seed0/fold2"
    assert split.notes == ()


@quick
@given(groups=many_groups, folds=st.integers(3, 6), seed=st.integers(0, 5))
def test_make_folds_tests_each_image_once_and_keeps_groups_whole(groups, folds, seed):
    dataset = toy_dataset(groups)
    splits = [make_folds(dataset, folds=folds, fold=k + 1, seed=seed) for k in range(folds)]
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(dataset)))
    for split in splits:
        rows = np.concatenate([split.train, split.val, split.test])
        assert sorted(rows) == list(range(len(dataset)))
        assert split.shared_groups(dataset) == 0
    tested = np.array([counts_of(dataset, split.test) for split in splits])
    # Groups have at most 4 images; dealing to the smallest fold keeps two folds that close.
    assert (tested.max(axis=0) - tested.min(axis=0) <= 4).all()
    assert (tested > 0).all()


@quick
@given(groups=many_groups, data=st.data())
def test_make_folds_does_not_depend_on_the_order_of_rows(groups, data):
    order = np.array(data.draw(st.permutations(range(sum(size for _, size in groups)))))
    first = make_folds(toy_dataset(groups), folds=3, fold=2)
    second = make_folds(toy_dataset(groups, order=order), folds=3, fold=2)
    assert first.fingerprint == second.fingerprint


def test_deal_folds_is_as_even_as_a_stratified_fold_of_single_images():
    sizes = (103, 41, 12, 7)
    dataset = toy_dataset([(label, 1) for label, n in enumerate(sizes) for _ in range(n)])
    labels = dataset.table["label"].to_numpy()
    dealt = deal_folds(dataset, folds=5, seed=0)
    ours = np.array([counts_of(dataset, dealt == k) for k in range(1, 6)])
    theirs = np.array(
        [counts_of(dataset, test) for _, test in StratifiedKFold(5).split(labels, labels)]
    )
    np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))
    assert np.ptp(ours.sum(axis=1)) <= 1  # the odd ones of each class go to different folds


def test_deal_folds_counts_a_group_by_the_class_of_most_of_its_images():
    """With mixed labels the images that are counted are even, all images need not be."""
    dataset = toy_dataset([(0, 4)] * 3 + [(0, 3)] * 6 + [(1, 1)] * 9)
    dataset.table.loc[dataset.table["image"].isin([f"p{g}-0" for g in (0, 1, 2)]), "label"] = 1
    uneven = False
    for seed in range(10):
        dealt = deal_folds(dataset, folds=3, seed=seed)
        label = dataset.table["label"].to_numpy()
        alone = dataset.table["group"].str[1:].astype(int).to_numpy() > 8  # of class 1 throughout
        counted = [int((alone & (dealt == k)).sum()) for k in (1, 2, 3)]
        assert counted == [3, 3, 3]
        uneven |= int(np.ptp([((label == 1) & (dealt == k)).sum() for k in (1, 2, 3)])) > 1
    assert uneven


def test_deal_folds_minds_the_class_before_the_size_of_the_fold():
    dataset = toy_dataset([(label, size) for label in range(3) for size in (10, 1, 1)])
    dealt = deal_folds(dataset, folds=3, seed=0)
    groups = dataset.table.assign(fold=dealt).drop_duplicates("group")
    assert groups.groupby("label")["fold"].nunique().tolist() == [3, 3, 3]
    # And among folds that are equal in the class, the one with the fewest images.
    assert np.bincount(dealt)[1:].tolist() == [12, 12, 12]


def test_make_folds_is_the_same_everywhere():
    assert make_folds(toy_dataset(SINGLES), fold=3).fingerprint[:16] == "d2a3ed24ba4df735"


def test_make_folds_changes_with_the_seed():
    dataset = toy_dataset(SINGLES)
    assert set(make_folds(dataset).test) != set(make_folds(dataset, seed=1).test)


def test_make_folds_takes_a_balanced_validation():
    dataset = toy_dataset(SINGLES)
    split = make_folds(dataset, val_per_class=5)
    assert counts_of(dataset, split.val).tolist() == [5, 5, 5]
    assert split.protocol == "toy/images/folds5-val5/seed0/fold1"


def test_make_folds_says_that_it_passes_over_a_given_split():
    dataset = toy_dataset(SINGLES, split={f"g{i}": "train" for i in range(120)})
    assert make_folds(dataset).notes == ("the split that the data set gives is passed over",)
    assert len(make_folds(dataset).test) == 24


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        (
            [*SINGLES, *[(3, 9)] * 4],
            {},
            r"^toy: class 'class3' has 4 groups, too few for 5 folds; take fewer folds or leave "
            r"the class out$",
        ),
        (
            [*SINGLES, (3, 9), (3, 1), (3, 1)],
            {"folds": 2, "fold": 2},
            r"^toy: class 'class3' keeps 1 group beside the tested fold, and training and "
            r"validation need one each; take more folds or leave the class out$",
        ),
        (SINGLES, {"fold": 6}, r"^fold: expected 1 to 5, got 6$"),
        (SINGLES, {"fold": 0}, r"^fold: expected 1 to 5, got 0$"),
        (SINGLES, {"folds": 1}, r"^folds: expected 2 or more, got 1$"),
        (SINGLES, {"val_fraction": 1.0}, r"^val_fraction: expected between 0 and 1, got 1.0$"),
        (SINGLES, {"val_per_class": 40}, r"too few for 40 in val"),
    ],
)
def test_make_folds_refuses(groups, options, message):
    with pytest.raises(InputError, match=message):
        make_folds(toy_dataset(groups), **options)


@pytest.mark.real
def test_make_folds_of_ham10000_keeps_lesions_apart_and_classes_even(shared):
    dataset = open_dataset(shared / "data" / "ham10000")
    splits = [make_folds(dataset, fold=fold) for fold in range(1, 6)]
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(10013))
    assert [split.shared_groups(dataset) for split in splits] == [0] * 5
    assert splits[4].protocol == "ham10000/groups/folds5-val0.15/seed0/fold5"
    tested = np.array([counts_of(dataset, split.test) for split in splits])
    assert np.ptp(tested, axis=0).max() <= 1 and np.ptp(tested.sum(axis=1)) <= 1
