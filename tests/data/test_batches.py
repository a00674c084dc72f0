from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from fopro_lab.data import batches, cycle, open_dataset, pack
from fopro_lab.errors import InputError


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=40), 16, progress=False)


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


def test_batches_of_another_size_hold_the_same_images(packed):
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
        ([0, 40], {}, r"^rows: expected 0 to 39, got 0 to 40; was the split made"),
        ([-1], {}, r"^rows: expected 0 to 39, got -1 to -1"),
        ([1, 2], {"batch_size": 0}, r"^batch_size: expected 1 or more, got 0"),
        (
            [1, 2],
            {"drop_last": True},
            r"^batch_size: expected at most 2, the number of images, got 4$",
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


def shares(packed, world_size: int, **options) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return each rank's batches."""
    return [
        list(batches(packed, range(40), rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("sampler", ["instance", "class-balanced", "progressive"])
@pytest.mark.parametrize("mode", ["fused", "exact"])
@pytest.mark.parametrize("world_size", [2, 8])
def test_processes_joined_by_rank_give_the_batches_of_one(packed, world_size, mode, sampler):
    options = {"batch_size": 16, "shuffle": True, "augment": "published", "augment_mode": mode,
               "sampler": sampler, "seed": 5, "epoch": 1, "epochs": 4}  # fmt: skip
    (alone,) = shares(packed, 1, **options)
    ranks = shares(packed, world_size, **options)
    assert [len(labels) for _, labels in alone] == [16, 16, 8]
    for (images, labels), *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(images, torch.cat([part for part, _ in parts]))
        assert torch.equal(labels, torch.cat([part for _, part in parts]))


def test_an_incomplete_last_batch_is_shared_without_repeats(packed):
    ranks = [
        list(batches(packed, range(19), batch_size=16, rank=rank, world_size=8))
        for rank in range(8)
    ]
    assert [len(share) for share in ranks] == [2] * 8  # as many steps for each rank
    assert [len(share[0][1]) for share in ranks] == [2] * 8
    assert sorted(len(share[1][1]) for share in ranks) == [0] * 5 + [1] * 3
    seen = [labels for share in ranks for _, labels in share]
    assert sorted(torch.cat(seen).tolist()) == sorted(packed.labels[:19].tolist())


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_batches_resume_in_mid_epoch(packed, start):
    options = {"batch_size": 8, "shuffle": True, "augment": "published", "seed": 2,
               "sampler": "square-root"}  # fmt: skip
    whole = list(batches(packed, range(40), **options))[start:]
    rest = list(batches(packed, range(40), start_batch=start, **options))
    assert len(rest) == 5 - start
    for (images, labels), (again, others) in zip(whole, rest, strict=True):
        assert torch.equal(images, again) and torch.equal(labels, others)


def test_resuming_reads_no_image_that_is_skipped(packed):
    class Counted:
        def __init__(self) -> None:
            self.read = 0

        def __getitem__(self, rows):
            self.read += len(rows)
            return packed.images[rows]

    counted = Counted()
    watched = replace(packed, images=counted)
    list(batches(watched, range(40), batch_size=8, start_batch=4))
    assert counted.read == 8


@pytest.mark.parametrize("start", [1, 2, 7])
def test_cycle_resumes_in_any_round(packed, start):
    options = {"batch_size": 4, "sampler": "progressive", "epochs": 3, "augment": "flips"}
    whole = list(islice(cycle(packed, range(10), **options), 9))[start:]
    rest = islice(cycle(packed, range(10), start_batch=start, **options), 9 - start)
    for (images, labels), (again, others) in zip(whole, rest, strict=True):
        assert torch.equal(images, again) and torch.equal(labels, others)


def test_the_order_of_instance_is_the_one_it_always_was(packed):
    # Runs that were begun by an earlier version go on with the same images.
    state = np.random.SeedSequence([3, 2]).generate_state(1, np.uint64)[0]
    order = torch.randperm(
        40, generator=torch.Generator().manual_seed(int(state >> np.uint64(1)))
    ).numpy()
    images, labels = joined(batches(packed, range(40), batch_size=8, shuffle=True, seed=3, epoch=2))
    assert labels.tolist() == packed.labels[order].tolist()
    expected = torch.from_numpy(packed.images[order]).permute(0, 3, 1, 2).contiguous().float() / 255
    assert torch.equal(images, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, r"^rank: expected 0 to world_size - 1 = 1, got 2$"),
        ({"world_size": 0}, r"^rank: expected 0 to world_size - 1 = -1, got 0$"),
        ({"world_size": 3}, r"^batch_size: expected a multiple of world_size = 3, got 4; it is "),
        ({"start_batch": 4}, r"^start_batch: expected 0 to 3, got 4$"),
        ({"start_batch": -1}, r"^start_batch: expected 0 to 3, got -1$"),
        ({"sampler": "balanced"}, r"^sampler: expected one of instance, class-balanced, square"),
        ({"sampler": "class-balanced"}, r"^sampler: expected instance without shuffle, got 'cla"),
        ({"augment_mode": "slow"}, r"^augment_mode: expected one of fused, exact, got 'slow'$"),
    ],
)
def test_batches_refuse_a_wrong_share(packed, options, message):
    with pytest.raises(InputError, match=message):
        batches(packed, range(10), batch_size=4, **options)


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_of_the_cpu(packed):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    options = {"batch_size": 16, "shuffle": True, "sampler": "class-balanced"}
    there, labels = joined(batches(packed, range(40), device="cuda", **options))
    here, others = joined(batches(packed, range(40), **options))
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), here) and torch.equal(labels.cpu(), others)
