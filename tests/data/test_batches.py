from itertools import islice

import numpy as np
import pytest
import torch

from fopro_lab.data import batches, cycle, open_dataset, pack
from fopro_lab.errors import InputError


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", pictures=40), 16, progress=False)


def joined(iterator) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*iterator, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_gives_every_row_in_order(packed):
    rows = [3, 30, 1, 17, 5]
    images, labels = joined(batches(packed, rows, batch_size=2))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert labels.tolist() == packed.labels[rows].tolist()
    expected = torch.tensor(packed.images[rows] / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, expected)
    assert images.is_contiguous()


def test_batches_drops_only_the_incomplete_last(packed):
    sizes = [len(y) for _, y in batches(packed, range(10), batch_size=4, drop_last=True)]
    assert sizes == [4, 4]


def test_batches_shuffles_by_seed_and_epoch(packed):
    def order(**options: int) -> list[float]:
        images, _ = joined(batches(packed, range(40), batch_size=8, shuffle=True, **options))
        return images.sum(dim=(1, 2, 3)).tolist()

    base = order(seed=1, epoch=2)
    assert base == order(seed=1, epoch=2)
    assert base != order(seed=1, epoch=3)
    assert base != order(seed=2, epoch=1)
    assert sorted(base) == sorted(order(seed=5, epoch=9))


def test_batches_of_another_size_hold_the_same_pictures(packed):
    options = {"shuffle": True, "augment": "published", "seed": 3, "epoch": 1}
    few, labels = joined(batches(packed, range(40), batch_size=7, **options))
    many, others = joined(batches(packed, range(40), batch_size=40, **options))
    torch.testing.assert_close(few, many, atol=1e-6, rtol=0)
    assert labels.tolist() == others.tolist()


def test_batches_do_not_touch_the_global_random_state(packed):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(batches(packed, range(8), batch_size=4, shuffle=True, augment="published"))
    assert torch.equal(before, torch.get_rng_state())


def test_batches_augment_differently_in_each_epoch(packed):
    first, second = (
        joined(batches(packed, range(8), batch_size=8, augment="published", epoch=epoch))[0]
        for epoch in (0, 1)
    )
    assert (first - second).abs().mean() > 0.01


def test_batches_can_be_read_at_the_same_time(packed):
    options = {"batch_size": 4, "shuffle": True, "augment": "flips"}
    alone = [labels.tolist() for _, labels in batches(packed, range(16), **options)]
    pairs = zip(
        batches(packed, range(16), **options), batches(packed, range(16), **options), strict=True
    )
    assert [a[1].tolist() for a, _ in pairs] == alone


def test_cycle_goes_on_with_the_next_epoch(packed):
    endless = [labels.tolist() for _, labels in islice(cycle(packed, range(10), batch_size=5), 4)]
    expected = [
        labels.tolist()
        for epoch in (0, 1)
        for _, labels in batches(packed, range(10), batch_size=5, shuffle=True, epoch=epoch)
    ]
    assert endless == expected


def test_cycle_of_few_rows_makes_one_batch_of_them(packed):
    images, _ = next(cycle(packed, range(3), batch_size=64))
    assert len(images) == 3


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, r"^rows: expected at least one, got none$"),
        ([0, 40], {}, r"^rows: expected 0 to 39, got 0 to 40; was the split made of pack.dataset"),
        ([-1], {}, r"^rows: expected 0 to 39, got -1 to -1"),
        ([1, 2], {"batch_size": 0}, r"^batch_size: expected 1 or more, got 0"),
        (
            [1, 2],
            {"drop_last": True},
            r"^batch_size: expected at most 2, the number of pictures, got 4$",
        ),
        ([1, 2], {"augment": "mixup"}, r"^augment: expected one of none, flips, published, got"),
    ],
)
def test_batches_refuses_at_once(packed, rows, options, message):
    with pytest.raises(InputError, match=message):
        batches(packed, np.array(rows, dtype=int), **({"batch_size": 4} | options))


def test_cycle_refuses_an_empty_list(packed):
    with pytest.raises(InputError, match=r"^rows: expected at least one, got none"):
        cycle(packed, [], batch_size=4)
