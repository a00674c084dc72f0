import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.data import isic2019_lt_counts, open_dataset
from fopro_lab.data.split_rules import ISIC2019_TOTALS, long_tail_counts, make_long_tail
from fopro_lab.errors import InputError
from tests.data.toys import toy_dataset

PARTS = ("train", "val", "test")
quick = settings(deadline=None, max_examples=20)
many_groups = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=60).map(
    lambda groups: [(label, 1) for label in range(3) for _ in range(8)] + groups
)


def counts_of(dataset, rows) -> list[int]:
    labels = dataset.table["label"].to_numpy()[rows]
    return np.bincount(labels, minlength=len(dataset.class_names)).tolist()


def test_isic2019_lt_counts_are_the_published_ones():
    # Counted in the split files published with FoPro-KD: 1:100, 1:200 and 1:500.
    assert isic2019_lt_counts(0.01) == [12725, 4372, 3173, 1788, 717, 478, 103, 89]
    assert isic2019_lt_counts(0.005) == [12725, 4372, 2833, 1329, 623, 292, 103, 64]
    assert isic2019_lt_counts(0.002) == [12725, 4372, 2180, 897, 369, 152, 62, 25]


@pytest.mark.real
@pytest.mark.parametrize("ratio", [0.01, 0.005, 0.002])
def test_isic2019_lt_counts_equal_the_published_files(shared, ratio):
    for fold in range(1, 6):
        path = shared / "data" / "isic2019_lt_splits" / f"train_skin{fold}_{ratio}.csv"
        counts = pd.read_csv(path)["finding"].value_counts(sort=False).sort_index()
        assert isic2019_lt_counts(ratio) == counts.tolist()


def test_long_tail_counts_are_a_geometric_series_under_a_cap():
    assert long_tail_counts([100, 100, 100], ratio=0.1, largest=100) == [100, 31, 10]
    # In double precision the third is 7.999999999999999 and the fifth 1.9999999999999998.
    assert long_tail_counts([99] * 6, ratio=1 / 32, largest=32) == [32, 16, 8, 4, 2, 1]
    assert long_tail_counts([90, 20, 100], ratio=0.1, largest=100) == [90, 20, 10]
    assert long_tail_counts([7, 5], ratio=1.0, largest=9) == [7, 5]
    assert long_tail_counts([40], ratio=0.1, largest=100) == [40]


@given(
    largest=st.integers(1, 30000),
    ratio=st.floats(0.001, 1),
    caps=st.lists(st.integers(0, 9000), min_size=2, max_size=25),
)
def test_long_tail_counts_agree_with_whole_numbers(largest, ratio, caps):
    last = len(caps) - 1
    for rank, n in enumerate(long_tail_counts(caps, ratio=ratio, largest=largest)):
        exact = largest * math.exp(rank / last * math.log(ratio))
        # One image more or less is caught, but where the curve meets a whole number.
        assert n == caps[rank] or exact - 1 - 1e-6 < n <= exact + 1e-6
        assert n <= caps[rank]


@pytest.mark.parametrize("ratio", [0.01, 0.005, 0.002])
def test_make_long_tail_reproduces_the_24_published_counts(ratio):
    sizes = [(label, 1) for label, total in enumerate(ISIC2019_TOTALS) for _ in range(total)]
    dataset = toy_dataset(sizes)
    split = make_long_tail(dataset, ratio=ratio, val_per_class=50, test_per_class=100, seed=3)
    assert split.class_counts(dataset).tolist() == isic2019_lt_counts(ratio)
    assert counts_of(dataset, split.val) == [50] * 8
    assert counts_of(dataset, split.test) == [100] * 8
    assert split.protocol == f"toy/images/longtail{ratio:g}-val50-test100/seed3"


def test_make_long_tail_ranks_classes_by_size_whatever_their_labels():
    dataset = toy_dataset([(label, 1) for label, n in enumerate((60, 500, 120)) for _ in range(n)])
    split = make_long_tail(dataset, ratio=0.1, val_per_class=10, test_per_class=10)
    # 500, 158, 50 under the caps 480, 100, 40.
    assert split.class_counts(dataset).tolist() == [40, 480, 100]


def test_make_long_tail_of_natural_parts_has_its_ratio_in_training():
    dataset = toy_dataset([(label, 1) for label in range(3) for _ in range(200)])
    split = make_long_tail(dataset, ratio=0.04, val_fraction=0.2, test_fraction=0.3)
    assert split.class_counts(dataset).tolist() == [100, 20, 4]
    assert counts_of(dataset, split.val) == [40] * 3
    assert counts_of(dataset, split.test) == [60] * 3
    assert split.protocol == "toy/images/longtail0.04-val0.2-test0.3/seed0"


def test_make_long_tail_thins_the_training_part_of_a_given_split_alone():
    parts = {f"g{i}": ("test" if i % 50 < 10 else "train") for i in range(100)}
    dataset = toy_dataset([(label, 1) for label in range(2) for _ in range(50)], split=parts)
    split = make_long_tail(dataset, ratio=0.25, val_fraction=0.1)
    assert set(dataset.table["group"].iloc[split.test]) == {g for g in parts if parts[g] == "test"}
    assert counts_of(dataset, split.val) == [4, 4]
    assert split.class_counts(dataset).tolist() == [36, 9]
    assert split.protocol == "toy/given-test/images/longtail0.25-val0.1/seed0"


def test_make_long_tail_of_three_given_parts_draws_nothing():
    names = ("train", "train", "train", "train", "val", "test")
    parts = {f"g{i}": names[i % 6] for i in range(60)}
    dataset = toy_dataset([(label, 1) for label in range(2) for _ in range(30)], split=parts)
    split = make_long_tail(dataset, ratio=0.5)
    assert split.class_counts(dataset).tolist() == [20, 10]
    assert split.protocol == "toy/given/images/longtail0.5/seed0"


@quick
@given(groups=many_groups, ratio=st.floats(0.2, 1), seed=st.integers(0, 5), data=st.data())
def test_make_long_tail_keeps_groups_apart_and_meets_its_counts(groups, ratio, seed, data):
    dataset = toy_dataset(groups)
    split = make_long_tail(dataset, ratio=ratio, val_per_class=2, test_per_class=2, seed=seed)
    assert split.shared_groups(dataset) == 0
    rows = np.concatenate([split.train, split.val, split.test])
    assert len(set(rows)) == len(rows)
    totals = np.bincount(dataset.table["label"], minlength=3)
    curve = long_tail_counts([10**6] * 3, ratio=ratio, largest=int(totals.max()))
    for rank, label in enumerate(np.argsort(-totals, kind="stable")):
        n = int(split.class_counts(dataset)[label])
        # Of a group cut for validation or test, at most 3 of 4 images are lost to each.
        assert min(curve[rank], totals[label] - 4 - 6) <= n <= min(curve[rank], totals[label] - 4)
    order = np.array(data.draw(st.permutations(range(len(dataset)))))
    mixed = toy_dataset(groups, order=order)
    again = make_long_tail(mixed, ratio=ratio, val_per_class=2, test_per_class=2, seed=seed)
    assert again.fingerprint == split.fingerprint


def test_make_long_tail_keeps_groups_whole_but_for_the_last():
    dataset = toy_dataset([(label, 3) for label in range(2) for _ in range(20)])
    dataset.table["image"] = [f"{i % 3}-{i}" for i in range(120)]  # sorted, groups are mixed
    split = make_long_tail(dataset, ratio=0.2)
    kept = dataset.table.iloc[split.train].query("label == 1").groupby("group").size()
    assert kept.sum() == int(0.2 * split.class_counts(dataset)[0])
    assert (kept < 3).sum() <= 1


def test_make_long_tail_changes_with_the_seed():
    names = ("train", "train", "train", "val", "test")
    parts = {f"g{i}": names[i % 5] for i in range(100)}  # all given: only the thinning is drawn
    dataset = toy_dataset([(label, 1) for label in range(2) for _ in range(50)], split=parts)
    splits = [make_long_tail(dataset, ratio=0.2, seed=seed) for seed in (0, 0, 1)]
    assert len({split.fingerprint for split in splits}) == 2
    assert splits[0].class_counts(dataset).tolist() == splits[2].class_counts(dataset).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, r"^ratio: expected above 0 and at most 1, got 0.0$"),
        ({"ratio": 1.5}, r"^ratio: expected above 0 and at most 1, got 1.5$"),
        (
            {"ratio": 0.01},
            r"^tail_ratio: expected a ratio that leaves every class an image, got 0.01: toy has "
            r"40 of 'class1', none would be left; take a larger one$",
        ),
        ({"ratio": 0.5, "test_per_class": 39}, r"'class0' has 40 images in 40 groups, too few"),
    ],
)
def test_make_long_tail_refuses(options, message):
    dataset = toy_dataset([(label, 1) for label in range(2) for _ in range(40)])
    with pytest.raises(InputError, match=message):
        make_long_tail(dataset, **options)


@pytest.mark.real
def test_make_long_tail_of_ham10000_keeps_its_lesions_apart(shared):
    dataset = open_dataset(shared / "data" / "ham10000")
    split = make_long_tail(dataset, ratio=0.01, val_per_class=10, test_per_class=20)
    assert split.shared_groups(dataset) == 0
    assert counts_of(dataset, split.test) == [20] * 7
    # nv, mel, bkl, bcc, akiec, vasc, df: 6703 r^(i/6), as far as there are so many.
    totals = np.array([6703, 1113, 1099, 514, 327, 142, 115])
    curve = [int(6703 * 0.01 ** (rank / 6)) for rank in range(7)]
    ranked = split.class_counts(dataset)[[5, 4, 2, 1, 0, 6, 3]]
    assert curve[-1] == 67 and ranked[-1] == 67
    assert (ranked <= np.minimum(curve, totals - 30)).all()
    assert (ranked >= np.minimum(curve, totals - 30 - 10)).all()
