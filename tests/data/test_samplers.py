from collections import Counter

import numpy as np
import pytest

from fopro_lab.data import class_shares, effective_counts, epoch_order
from fopro_lab.errors import InputError

SAMPLERS = ("instance", "class-balanced", "square-root", "progressive")
COUNTS = (60, 25, 10, 5)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))


def slow_shares(sampler: str, progress: float) -> list[float]:
    """Write out the published rules class by class."""
    total = sum(COUNTS)
    if sampler == "square-root":
        return [n**0.5 / sum(m**0.5 for m in COUNTS) for n in COUNTS]
    mixed = {"instance": 0.0, "class-balanced": 1.0, "progressive": progress}[sampler]
    return [(1 - mixed) * n / total + mixed / len(COUNTS) for n in COUNTS]


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_class_shares_are_the_published_ones(sampler, progress):
    found = class_shares(COUNTS, sampler=sampler, progress=progress)
    np.testing.assert_allclose(found, slow_shares(sampler, progress), rtol=1e-12)


def test_effective_counts_of_instance_are_the_counts_to_the_bit():
    counts = np.array([6705, 1113, 3, 0])
    assert effective_counts(counts, sampler="instance").tolist() == [6705.0, 1113.0, 3.0, 0.0]


def test_effective_counts_hold_the_share_of_the_partners():
    # Beta(a, 1) has the mean a / (1 + a): a quarter at a = 1/3.
    found = effective_counts(COUNTS, sampler="instance", mixup_alpha=1 / 3)
    np.testing.assert_allclose(found, [0.75 * n + 0.25 * 25 for n in COUNTS], rtol=1e-12)


def test_a_class_without_images_is_never_drawn():
    for sampler in SAMPLERS:
        found = effective_counts([8, 0, 2], sampler=sampler, progress=0.5, mixup_alpha=0.5)
        assert found[1] == 0
        assert found.sum() == pytest.approx(10)
    order = epoch_order([0] * 8 + [2] * 2, sampler="class-balanced", seed=0)
    assert Counter(order.tolist()).total() == 10


@pytest.mark.parametrize("epoch", [0, 2, 4])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_epoch_order_draws_each_class_as_often_as_its_share(sampler, epoch):
    order = epoch_order(LABELS, sampler=sampler, seed=3, epoch=epoch, epochs=5)
    assert len(order) == len(LABELS)
    drawn = [sum(1 for row in order if LABELS[row] == label) for label in range(4)]
    expected = 100 * np.array(slow_shares(sampler, epoch / 4))
    assert (abs(drawn - expected) < 1).all()  # whole images


def test_epoch_order_of_instance_is_a_permutation():
    order = epoch_order(LABELS, sampler="instance", seed=0, epoch=7)
    assert sorted(order.tolist()) == list(range(100))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_over_epochs_no_image_of_a_class_falls_behind(sampler):
    seen: Counter[int] = Counter({row: 0 for row in range(100)})
    for epoch in range(6):
        order = epoch_order(LABELS, sampler=sampler, seed=1, epoch=epoch, epochs=6)
        seen.update(order.tolist())
        for label in range(4):
            times = [seen[row] for row in np.flatnonzero(label == LABELS)]
            assert max(times) - min(times) <= 1, (epoch, label)  # a lottery's spread is over 5


def test_every_batch_has_nearly_the_same_mixture():
    order = epoch_order(LABELS, sampler="class-balanced", seed=0)
    for start in range(0, 100, 20):
        found = np.bincount(LABELS[order[start : start + 20]], minlength=4)
        assert abs(found - 5).max() <= 1, found  # a lottery gives 1 to 9


def test_epoch_order_repeats_by_seed_and_changes_with_seed_and_epoch():
    def order(**options: int) -> list[int]:
        return epoch_order(LABELS, sampler="square-root", **options).tolist()

    base = order(seed=1, epoch=2)
    assert base == order(seed=1, epoch=2)
    assert base != order(seed=1, epoch=3)
    assert base != order(seed=2, epoch=2)
    assert order(seed=1, epoch=0) != order(seed=0, epoch=1)


def test_progressive_goes_from_instance_to_balanced():
    first, last = (
        np.bincount(
            LABELS[epoch_order(LABELS, sampler="progressive", seed=0, epoch=epoch, epochs=9)]
        )
        for epoch in (0, 8)
    )
    assert first.tolist() == list(COUNTS)
    assert last.tolist() == [25, 25, 25, 25]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([1, 2], {"sampler": "even"}, r"^sampler: expected one of instance, class-balanced, squ"),
        ([1, -2], {"sampler": "instance"}, r"^class_counts: expected \(K,\), each 0 or more, got"),
        ([0, 0], {"sampler": "instance"}, r"^class_counts: expected \(K,\), each 0 or more, got"),
        ([1], {"sampler": "instance", "progress": 1.5}, r"^progress: expected 0 to 1, got 1.5$"),
        ([1], {"sampler": "instance", "mixup_alpha": -1}, r"^mixup_alpha: expected 0 or more"),
    ],
)
def test_effective_counts_refuses(counts, options, message):
    with pytest.raises(InputError, match=message):
        effective_counts(counts, **options)


def test_epoch_order_refuses_no_images():
    with pytest.raises(InputError, match=r"^labels: expected at least one, got none$"):
        epoch_order([], sampler="instance", seed=0)
