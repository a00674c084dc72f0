import numpy as np
import pytest

from fopro_lab.data.split_rules import Wanted, draw_parts
from fopro_lab.errors import InputError
from tests.data.toys import toy_dataset


def test_draw_parts_touches_only_the_given_rows():
    dataset = toy_dataset([(label, 1) for label in (0, 1) for _ in range(20)])
    rows = np.r_[0:10, 20:30]
    parts = draw_parts(dataset, rows, wanted=[Wanted("test", 0.5)], seed=0)
    assert len(parts) == 20
    labels = dataset.table["label"].to_numpy()[rows]
    assert np.bincount(labels[parts == "test"]).tolist() == [5, 5]
    assert set(parts) == {"test", "train"}


def test_draw_parts_draws_in_the_order_of_the_wanted():
    dataset = toy_dataset([(label, 1) for label in (0, 1) for _ in range(20)])
    both = [Wanted("test", 0.25), Wanted("val", 0.25)]
    parts = draw_parts(dataset, np.arange(40), wanted=both, seed=0)
    alone = draw_parts(dataset, np.arange(40), wanted=both[:1], seed=0)
    assert ((parts == "test") == (alone == "test")).all()


def test_draw_parts_leaves_the_rest_of_a_cut_group_out():
    dataset = toy_dataset([(0, 3), (0, 3), (1, 3), (1, 3)])
    parts = draw_parts(dataset, np.arange(12), wanted=[Wanted("val", 0.5, 2)], seed=0)
    assert [(parts == name).sum() for name in ("val", "", "train")] == [4, 2, 6]


def test_draw_parts_refuses_two_groups_for_three_parts():
    dataset = toy_dataset([(0, 5), (0, 5), (1, 5), (1, 5), (1, 5)])
    both = [Wanted("test", 0.25), Wanted("val", 0.25)]
    with pytest.raises(InputError, match=r"'class0' has 10 images in 2 groups; a split needs at"):
        draw_parts(dataset, np.arange(25), wanted=both, seed=0)
