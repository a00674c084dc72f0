import inspect

import pytest
import torch
from torch.nn import functional as F

from fopro_lab.data import batches, mix, open_dataset, pack, paired_batches
from fopro_lab.data.augment import PairedBatch, sample_weights
from fopro_lab.data.batches import epoch_order
from fopro_lab.errors import InputError


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=60), 16, progress=False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
def test_weights_follow_a_beta_distribution(alpha):
    weights = sample_weights(20_000, alpha=alpha, generator=generator()).double()
    beta = torch.distributions.Beta(alpha, 1.0)
    # 0.01: five standard errors; Beta(1, alpha) would be off by over 0.1.
    assert weights.mean() == pytest.approx(float(beta.mean), abs=0.01)
    assert weights.var() == pytest.approx(float(beta.variance), abs=0.01)
    assert weights.min() >= 0 and weights.max() <= 1


def test_weights_refuse():
    with pytest.raises(InputError, match=r"^alpha: expected above 0, got 0$"):
        sample_weights(3, alpha=0, generator=generator())


def test_mixing_mixes_images_and_losses_in_the_same_shares():
    images, partners = torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    labels, others = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 1, 0, 3])
    weights = torch.tensor([0.0, 0.3, 0.9, 1.0])
    mixed, shares = mix(PairedBatch(images, labels, partners, others, weights), classes=4)
    assert torch.equal(mixed[0], images[0])
    assert torch.equal(mixed[3], partners[3])
    torch.testing.assert_close(mixed[2], 0.1 * images[2] + 0.9 * partners[2])
    logits = torch.randn(4, 4, generator=generator())
    own, other = (F.cross_entropy(logits, y, reduction="none") for y in (labels, others))
    expected = ((1 - weights) * own + weights * other).mean()
    torch.testing.assert_close(F.cross_entropy(logits, shares), expected, atol=1e-6, rtol=0)


def test_the_partners_are_drawn_class_balanced_and_on_their_own(packed):
    pairs = list(paired_batches(packed, range(60), alpha=0.2, batch_size=10, seed=4, epoch=1))
    partners = torch.cat([pair.partner_labels for pair in pairs])
    counts = torch.bincount(partners, minlength=8)
    assert counts.max() - counts.min() <= 1
    assert sorted(torch.cat([pair.labels for pair in pairs]).tolist()) == packed.labels.tolist()
    balanced = epoch_order(packed.labels, sampler="class-balanced", seed=4, epoch=1)
    assert partners.tolist() != packed.labels[balanced].tolist()  # not the sampler's own stream


def test_pairs_are_shared_and_resumed_as_batches_are(packed):
    options = {"alpha": 0.3, "batch_size": 12, "augment": "flips", "seed": 2}
    whole = list(paired_batches(packed, range(60), **options))
    ranks = [
        list(paired_batches(packed, range(60), rank=rank, world_size=2, **options))
        for rank in range(2)
    ]
    for pair, first, second in zip(whole, *ranks, strict=True):
        for part, *shares in zip(pair, first, second, strict=True):
            assert torch.equal(part, torch.cat(shares))
    for pair, again in zip(
        whole[3:], paired_batches(packed, range(60), start_batch=3, **options), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(pair, again, strict=True))


def test_the_images_are_those_of_batches_in_either_mode_and_order(packed):
    for mode in ("fused", "exact"):
        for shuffle in (True, False):
            options = {"batch_size": 20, "augment": "published", "augment_mode": mode,
                       "seed": 2, "epoch": 1, "shuffle": shuffle}  # fmt: skip
            alone = batches(packed, range(60), **options)
            pairs = paired_batches(packed, range(60), alpha=0.3, **options)
            for (images, labels), pair in zip(alone, pairs, strict=True):
                assert torch.equal(pair.images, images) and torch.equal(pair.labels, labels)


def test_pairs_take_the_options_of_batches_and_no_others(packed):
    """``mode`` is the name inside; it was taken and then ignored."""
    told = inspect.signature(paired_batches).parameters
    assert set(told) == {*inspect.signature(batches).parameters, "alpha"}
    for name in ("mode", "augmnt"):
        with pytest.raises(TypeError, match=rf"paired_batches\(\) got an unexpected .* '{name}'"):
            paired_batches(packed, range(60), alpha=0.3, batch_size=4, **{name: "exact"})
    with pytest.raises(InputError, match=r"^augment_mode: expected one of"):
        paired_batches(packed, range(60), alpha=0.3, batch_size=4, augment_mode="slow")
