"""Batches: order, sharing, samplers, partners for Balanced-MixUp."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fopro_lab.data import batches, cycle, effective_counts, mix, open_dataset, pack, paired_batches
from fopro_lab.data.augment import PairedBatch, sample_weights
from fopro_lab.data.batches import draw_order, epoch_order, place_images
from tests.conftest import refuses

ORDER = ("sampler", "seed", "epoch", "epochs", "views")


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=40), 16, progress=False)


def joined(iterator) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*iterator, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_gives_every_row_in_order_and_shuffles_by_seed_and_epoch(packed):
    rows = [3, 30, 1, 17, 5]
    images, labels = joined(batches(packed, rows, batch_size=2))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert labels.tolist() == packed.labels[rows].tolist()
    expected = torch.tensor(packed.images[rows] / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, expected)
    assert images.is_contiguous()

    def order(**options: int) -> list[float]:
        images, _ = joined(batches(packed, range(40), batch_size=8, shuffle=True, **options))
        return images.sum(dim=(1, 2, 3)).tolist()

    base = order(seed=1, epoch=2)
    assert base == order(seed=1, epoch=2)
    assert base != order(seed=1, epoch=3) and base != order(seed=2, epoch=1)
    assert sorted(base) == sorted(order(seed=5, epoch=9))


def test_an_augmentation_depends_on_seed_view_and_image_alone(packed):
    how = {"augment": "published", "shuffle": True}

    def images(rows, **options) -> dict[int, list[torch.Tensor]]:
        order = draw_order(packed, rows, **{k: v for k, v in options.items() if k in ORDER})
        found: dict[int, list[torch.Tensor]] = {}
        drawn, _ = joined(batches(packed, rows, **how, **options))
        for row, image in zip(order.rows, drawn, strict=True):
            found.setdefault(int(row), []).append(image)
        return found

    whole = images(range(40), batch_size=8, seed=3, epoch=1)
    some = images([5, 31, 7], batch_size=2, seed=3, epoch=1)
    assert all(torch.equal(some[row][0], whole[row][0]) for row in some)
    assert not torch.equal(images([5], batch_size=1, seed=3, epoch=2)[5][0], whole[5][0])
    # K views come in turn whatever the seed, and one that is drawn twice takes the next, too.
    views = [images([5], batch_size=1, seed=n, epoch=n, views=3)[5][0] for n in range(4)]
    assert torch.equal(views[0], views[3]) and not torch.equal(views[0], views[1])
    assert torch.equal(images([5], batch_size=1, seed=0, epoch=1)[5][0], views[1])  # K = epochs
    options = {"sampler": "class-balanced", "batch_size": 8, "epoch": 1, "epochs": 4}
    for more in ({}, {"views": 3}):
        drawn = images([5, *range(8, 40)], **options, **more)
        most = max(drawn.values(), key=len)
        assert len(most) > 1 and not torch.equal(most[0], most[1])


def test_cycle_goes_on_with_the_next_epoch(packed):
    endless = [labels.tolist() for _, labels in islice(cycle(packed, range(10), batch_size=5), 4)]
    expected = [
        labels.tolist()
        for epoch in (0, 1)
        for _, labels in batches(packed, range(10), batch_size=5, shuffle=True, epoch=epoch)
    ]
    assert endless == expected


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, r"^rows: expected at least one, got none$"),
        ([1, 2], {"batch_size": 0}, r"^batch_size: expected 1 or more, .*, got 0$"),
        ([1], {"world_size": 3}, r"a multiple of world_size = 3, got 4$"),
        ([1], {"sampler": "balanced"}, r"^sampler: expected one of 'instance', 'class-balanced',"),
        ([1], {"sampler": "class-balanced"}, r"^sampler: expected instance without shuffle, got"),
    ],
)
def test_batches_refuses_at_once(packed, rows, options, message):
    refuses(message, batches, packed, np.array(rows, dtype=int), **{"batch_size": 4} | options)


@pytest.mark.parametrize("sampler", ["instance", "class-balanced", "progressive"])
@pytest.mark.parametrize("mode", ["fused", "exact"])
@pytest.mark.parametrize("world_size", [2, 8])
def test_processes_joined_by_rank_give_the_batches_of_one(packed, world_size, mode, sampler):
    options = {"batch_size": 16, "shuffle": True, "augment": "published", "augment_mode": mode,
               "sampler": sampler, "seed": 5, "epoch": 1, "epochs": 4}  # fmt: skip
    alone, *ranks = (
        list(batches(packed, range(40), rank=rank, world_size=size, **options))
        for rank, size in ((0, 1), *((rank, world_size) for rank in range(world_size)))
    )
    assert [len(labels) for _, labels in alone] == [16, 16, 8]
    for (images, labels), *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(images, torch.cat([part for part, _ in parts]))
        assert torch.equal(labels, torch.cat([part for _, part in parts]))


def test_batches_and_pairs_are_shared_without_repeats(packed):
    options = {"batch_size": 16, "augment": "published", "world_size": 8}
    ranks = [list(batches(packed, range(19), rank=rank, **options)) for rank in range(8)]
    assert [len(share) for share in ranks] == [2] * 8  # as many steps for each rank
    assert [len(share[0][1]) for share in ranks] == [2] * 8
    assert sorted(len(share[1][1]) for share in ranks) == [0] * 5 + [1] * 3
    seen = [labels for share in ranks for _, labels in share]
    assert sorted(torch.cat(seen).tolist()) == sorted(packed.labels[:19].tolist())
    options = {"alpha": 0.3, "batch_size": 8, "augment": "flips", "seed": 2}
    whole = list(paired_batches(packed, range(40), **options))
    ranks = [
        list(paired_batches(packed, range(40), rank=rank, world_size=2, **options))
        for rank in range(2)
    ]
    for pair, first, second in zip(whole, *ranks, strict=True):
        for part, *shares in zip(pair, first, second, strict=True):
            assert torch.equal(part, torch.cat(shares))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
def test_weights_follow_a_beta_distribution(alpha, balanced):
    how = {"alpha": alpha, "balanced": balanced, "generator": generator()}
    weights = sample_weights(20_000, **how).double()
    beta = torch.distributions.Beta(alpha, 1.0 if balanced else alpha)
    # 0.01: five standard errors; Beta(1, alpha), or one for the other, is off by over 0.1.
    assert weights.mean() == pytest.approx(float(beta.mean), abs=0.01)
    assert weights.var() == pytest.approx(float(beta.variance), abs=0.01)
    assert weights.min() >= 0 and weights.max() <= 1


def test_mixing_mixes_images_and_losses_in_the_same_shares():
    images, partners = torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    labels, others = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 1, 0, 3])
    weights = torch.tensor([0.0, 0.3, 0.9, 1.0])
    mixed, shares = mix(PairedBatch(images, labels, partners, others, weights), classes=4)
    assert torch.equal(mixed[0], images[0]) and torch.equal(mixed[3], partners[3])
    torch.testing.assert_close(mixed[2], 0.1 * images[2] + 0.9 * partners[2])
    logits = torch.randn(4, 4, generator=generator())
    own, other = (F.cross_entropy(logits, y, reduction="none") for y in (labels, others))
    expected = ((1 - weights) * own + weights * other).mean()
    torch.testing.assert_close(F.cross_entropy(logits, shares), expected, atol=1e-6, rtol=0)


def test_the_partners_are_drawn_class_balanced_and_on_their_own(packed):
    pairs = list(paired_batches(packed, range(40), alpha=0.2, batch_size=10, seed=4, epoch=1))
    partners = torch.cat([pair.partner_labels for pair in pairs])
    counts = torch.bincount(partners, minlength=8)
    assert counts.max() - counts.min() <= 1
    assert sorted(torch.cat([pair.labels for pair in pairs]).tolist()) == packed.labels.tolist()
    balanced = epoch_order(packed.labels, sampler="class-balanced", seed=4, epoch=1)
    assert partners.tolist() != packed.labels[balanced].tolist()  # not the sampler's own stream


@pytest.mark.parametrize("sampler", ["instance", "square-root"])
def test_the_partners_of_mixup_are_drawn_as_the_images_but_on_their_own(packed, sampler):
    how = {"balanced": False, "sampler": sampler, "batch_size": 10, "seed": 4}
    pairs = list(paired_batches(packed, range(40), alpha=0.2, **how))
    own, other = (torch.cat([p[place] for p in pairs]).tolist() for place in (1, 3))
    assert sorted(own) == sorted(other) and own != other


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
def test_effective_counts_have_the_published_shares(sampler, progress):
    found = effective_counts(COUNTS, sampler=sampler, progress=progress)
    np.testing.assert_allclose(found / 100, slow_shares(sampler, progress), rtol=1e-12)


@pytest.mark.parametrize("epoch", [0, 2, 4])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_epoch_order_draws_each_class_as_often_as_its_share(sampler, epoch):
    order = epoch_order(LABELS, sampler=sampler, seed=3, epoch=epoch, epochs=5)
    assert len(order) == len(LABELS)
    drawn = [sum(1 for row in order if LABELS[row] == label) for label in range(4)]
    expected = 100 * np.array(slow_shares(sampler, epoch / 4))
    assert (abs(drawn - expected) < 1).all()  # whole images


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_over_epochs_no_image_of_a_class_falls_behind(sampler):
    seen: Counter[int] = Counter({row: 0 for row in range(100)})
    for epoch in range(6):
        order = epoch_order(LABELS, sampler=sampler, seed=1, epoch=epoch, epochs=6)
        seen.update(order.tolist())
        for label in range(4):
            times = [seen[row] for row in np.flatnonzero(label == LABELS)]
            assert max(times) - min(times) <= 1, (epoch, label)  # a lottery's spread is over 5


def test_every_batch_has_nearly_the_same_mixture_and_none_of_an_empty_class():
    order = epoch_order(LABELS, sampler="class-balanced", seed=0)
    for start in range(0, 100, 20):
        found = np.bincount(LABELS[order[start : start + 20]], minlength=4)
        assert abs(found - 5).max() <= 1, found  # a lottery gives 1 to 9
    for sampler in SAMPLERS:
        found = effective_counts([8, 0, 2], sampler=sampler, progress=0.5, mixup_alpha=0.5)
        assert found[1] == 0 and found.sum() == pytest.approx(10)
    assert len(epoch_order([0] * 8 + [2] * 2, sampler="class-balanced", seed=0)) == 10
    for counts, progress, told in (([1, -2], 0.5, "^class_counts: "), ([1], 1.5, "^progress: ")):
        refuses(told, effective_counts, counts, sampler="instance", progress=progress)


@pytest.mark.parametrize("mode", ["fused", "exact"])
def test_resident_images_give_the_bits_of_those_that_are_read(monkeypatch, mode):
    packed = pack(open_dataset("phantom", images=40), 16, progress=False)
    how = {"batch_size": 12, "shuffle": True, "augment": "published", "augment_mode": mode}
    how |= {"sampler": "class-balanced", "views": 3, "rank": 1, "world_size": 2, "epoch": 4}
    read = joined(batches(packed, range(40), **how))
    assert place_images(packed, torch.device("cpu"), how="on")
    monkeypatch.setattr("fopro_lab.data.augment.read_pixels", None)  # nothing is read any more
    for found, expected in zip(joined(batches(packed, range(40), **how)), read, strict=True):
        assert torch.equal(found, expected)
    assert place_images(packed, torch.device("cpu"), how="on")  # once is enough
    assert not place_images(packed, torch.device("cpu"), how="off")
    with pytest.raises(TypeError):  # now they are read again
        next(batches(packed, range(40), **how))


def test_images_that_do_not_fit_are_read_or_refused_if_asked_for(packed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (packed.images.nbytes, 0))
    assert not place_images(packed, torch.device("cuda"))
    rule = "^resident: expected images of at most half of the .* free on the GPU, got "
    refuses(rule, place_images, packed, torch.device("cuda"), how="on")
