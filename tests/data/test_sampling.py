import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.data.sampling import choose_rows, share_out
from tests.data.toys import toy_dataset


@given(
    counts=st.lists(st.integers(1, 500), min_size=1, max_size=9),
    share=st.floats(0, 1),
    least=st.integers(0, 5),
)
def test_share_out_keeps_total_and_bounds(counts, share, least):
    counts = np.array(counts)
    floor = np.minimum(counts, least)
    total = int(floor.sum() + share * (counts.sum() - floor.sum()))
    result = share_out(counts, total=total, least=least)
    assert result.sum() == total
    assert (floor <= result).all() and (result <= counts).all()


@settings(deadline=None, max_examples=50)
@given(
    groups=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=12, max_size=60),
    share=st.floats(0.2, 1),
)
def test_choose_rows_keeps_three_groups_a_class_and_most_groups_whole(groups, share):
    table = toy_dataset([(0, 1), (1, 2), (2, 3)] * 3 + groups).table
    images = max(int(share * len(table)), 9)
    chosen = table.iloc[choose_rows(table, images=images, seed=0)]
    assert len(chosen) <= images
    assert chosen.groupby("label")["group"].nunique().min() >= 3
    sizes = chosen.groupby("group").size()
    cut = sizes[sizes < table.groupby("group").size()[sizes.index]]
    assert len(cut) <= 3 * 3


def test_choose_rows_does_not_depend_on_the_order_of_rows():
    table = toy_dataset([(i % 3, 1 + i % 4) for i in range(40)]).table
    mixed = table.sample(frac=1, random_state=0).reset_index(drop=True)
    ids = [set(t["image"].iloc[choose_rows(t, images=50, seed=2)]) for t in (table, mixed)]
    assert ids[0] == ids[1]
