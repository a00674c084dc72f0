"""Ring responses against slow float64 ones and closed forms, and the gains of prompts by ring."""

import math

import numpy as np
import pytest
import torch

from fopro_lab.data import batches, open_dataset, pack
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import apply_gain, radial_frequency, ring_edges, ring_energy, ring_gain
from fopro_lab.models import load_teacher, wrap_teacher
from fopro_lab.probing.ring_response import radial_gain, ring_drifts, ring_response

EDGES = [0, 0.2, 0.5, 0.75]


def photos(count=6, *, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def flatten(images):
    return images.flatten(1)


def slow_response(teacher, images, *, ring, gain):
    """Drift and relative energy of each image, one by one, in float64."""
    gains = torch.ones(len(EDGES) - 1, dtype=torch.float64)
    gains[ring] = gain
    drifts, energies = [], []
    for image in images.double()[:, None]:
        changed = apply_gain(image, ring_gain(gains, EDGES, height=16, width=16))
        before, after = teacher(image)[0], teacher(changed)[0]
        drifts.append(1 - float(before @ after / before.norm() / after.norm()))
        centred = image - image.mean(dim=(2, 3), keepdim=True)
        energies.append(float((changed - image).square().sum() / centred.square().sum()))
    return np.array(drifts), np.array(energies)


@pytest.mark.parametrize(("ring", "gain"), [(0, 0.0), (1, 2.0), (2, 0.5)])
def test_ring_response_equals_the_slow_one(stub, ring, gain):
    # 1e-6 catches a batch counted twice or an energy that includes DC: both move it by over 1e-3.
    images = photos(7)
    table = ring_response(stub(flatten), images, EDGES, [0.0, 0.5, 2.0], batch_size=3)
    row = table[(table["ring"] == ring) & (table["gain"] == gain)].iloc[0]
    drifts, energies = slow_response(flatten, images, ring=ring, gain=gain)
    assert row["drift"] == pytest.approx(drifts.mean(), abs=1e-6)
    assert row["energy"] == pytest.approx(energies.mean(), abs=1e-6)
    assert row["drift_per_energy"] == pytest.approx(drifts.mean() / energies.mean(), rel=1e-4)
    assert (row["low"], row["high"], row["n"]) == (EDGES[ring], EDGES[ring + 1], 7)


@pytest.mark.parametrize("gain", [0.0, 0.5, 2.0, 4.0])
def test_a_linear_teacher_responds_as_in_closed_form(stub, gain):
    """Features are the images with ring j scaled by a_j: all inner products are known sums."""
    heard = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)  # what the teacher prefers

    def encode(images):
        centred = images.double() - images.double().mean(dim=(2, 3), keepdim=True)
        return apply_gain(centred, ring_gain(heard, EDGES, height=16, width=16)).flatten(1)

    images = photos(5)
    table = ring_response(stub(encode), images, EDGES, [gain])
    energy = ring_energy(images.double(), EDGES).sum(dim=1) * heard.square()
    whole = energy.sum(dim=1, keepdim=True)
    cosine = (whole + (gain - 1) * energy) / (whole * (whole + (gain**2 - 1) * energy)).sqrt()
    np.testing.assert_allclose(table["drift"], (1 - cosine).mean(dim=0), atol=1e-6)
    assert table["drift_per_energy"].idxmax() == 2  # an equal ear would give 1e-3 apart at most


def test_one_forward_transform_serves_every_ring_and_gain(stub, monkeypatch):
    calls = []
    real = torch.fft.rfft2
    monkeypatch.setattr(torch.fft, "rfft2", lambda *a, **k: calls.append(1) or real(*a, **k))
    ring_response(stub(flatten), photos(4), EDGES, [0.0, 0.5, 2.0, 4.0], batch_size=2)
    assert len(calls) == 2  # one a batch


def test_channels_one_by_one_share_the_energy_of_all(stub):
    images = photos()
    together, each = (
        ring_drifts(stub(flatten), images, EDGES, [0.0, 2.0], per_channel=alone)
        for alone in (False, True)
    )
    assert each.channels == ("red", "green", "blue") and each.drift.shape == (3, 3, 2, 6)
    np.testing.assert_allclose(each.energy.sum(axis=0), together.energy[0], atol=1e-6)

    def only_green(pixels):
        return pixels[:, 1].flatten(1)

    deaf = ring_drifts(stub(only_green), images, EDGES, [0.0], per_channel=True).drift
    assert np.abs(deaf[[0, 2]]).max() < 1e-12 and deaf[1].min() > 1e-4


@pytest.mark.parametrize("kind", ["convolutions", "transformer"])
def test_half_precision_keeps_the_preference(kind):
    """Drifts to 10 %: without going back to single precision some are off by 25 to 460 %."""
    import timm

    torch.manual_seed(0)
    teacher = load_teacher("builtin")
    if kind == "transformer":
        vit = timm.create_model(
            "vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8, depth=2
        )
        plain = {"mean": [0.5] * 3, "std": [0.5] * 3}
        teacher = wrap_teacher(vit, **plain, input_size=32, feature_dim=192)
    dataset = open_dataset("phantom", images=24)
    images, _ = next(batches(pack(dataset, 32, progress=False), np.arange(24), batch_size=24))
    single, half = (
        ring_response(teacher, images, ring_edges(4), [0.0, 0.5, 4.0], resamples=20, **settings)
        for settings in ({}, {"precision": "bf16-mixed", "batch_size": 16})
    )
    assert set(single["precision"]) == {"32-true"}
    np.testing.assert_allclose(half["drift"], single["drift"], rtol=0.1)
    assert (half["precision"] == "bf16-mixed").any() and (half["precision"] == "32-true").any()
    for gain in (0.0, 0.5, 4.0):
        order = [
            own.loc[own["gain"] == gain].sort_values("drift_per_energy")["ring"].tolist()
            for own in (single, half)
        ]
        assert order[0] == order[1]


@pytest.mark.parametrize("size", [32, 48])
def test_a_vision_transformer_of_any_size_and_normalisation_is_probed(size):
    import timm

    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=size, patch_size=16, depth=1
    )
    teacher = wrap_teacher(
        vit, mean=[0.1] * 3, std=[0.7] * 3, input_size=size, feature_dim=192, resize=True
    )
    table = ring_response(teacher, photos(2), EDGES, [0.0], resamples=20)
    assert (table["drift"] > 0).all()
    bare = wrap_teacher(vit, mean=[0.1] * 3, std=[0.7] * 3, input_size=size, feature_dim=192)
    with pytest.raises(InputError, match="no smaller than its patch of 16 px, got 8 x 8; give"):
        ring_response(bare, torch.rand(2, 3, 8, 8), EDGES, [0.0])


def test_energies_of_all_removed_rings_sum_to_the_whole_variance(stub):
    table = ring_response(stub(flatten), photos(), ring_edges(4), [0.0])
    assert table["energy"].sum() == pytest.approx(1, abs=1e-5)


def test_the_teacher_sees_the_scaled_image_unclipped_once_a_ring_and_gain(stub):
    teacher = stub(flatten)
    images = photos(4)
    ring_response(teacher, images, EDGES, [0.0, 5.0])
    assert len(teacher.seen) == 1 + 3 * 2
    assert teacher.seen[0].equal(images)
    assert min(seen.min() for seen in teacher.seen) < -0.5


def test_the_interval_is_as_wide_as_the_standard_error_says(stub):
    images = photos(60)
    row = ring_response(stub(flatten), images, EDGES, [0.0], resamples=4000).iloc[1]
    drifts, _ = slow_response(flatten, images, ring=1, gain=0.0)
    expected = 2 * 1.96 * drifts.std() / math.sqrt(60)
    assert row["drift_high"] - row["drift_low"] == pytest.approx(expected, rel=0.1)


def test_images_of_one_lesion_are_drawn_together(stub):
    twice = photos(20).repeat_interleave(2, dim=0)
    lesions = np.arange(20).repeat(2)
    width = {}
    for name, units in (("image", None), ("lesion", lesions)):
        table = ring_response(stub(flatten), twice, EDGES, [0.0], units=units, resamples=4000)
        width[name] = (table["drift_high"] - table["drift_low"])[0]
    assert width["lesion"] / width["image"] == pytest.approx(math.sqrt(2), rel=0.1)


def test_wrong_input_is_refused(stub):
    teacher, images = stub(flatten), photos(2)
    with pytest.raises(ShapeError, match=r"^images: expected \(N, 3, H, W\), .* got \(3, 16, 16\)"):
        ring_response(teacher, images[0], EDGES, [0.0])
    with pytest.raises(ShapeError, match=r"got \(0, 3, 16, 16\)"):
        ring_response(teacher, images[:0], EDGES, [0.0])
    with pytest.raises(ShapeError, match=r"^units: expected one for each of 2, got 3$"):
        ring_response(teacher, images, EDGES, [0.0], units=np.arange(3))
    with pytest.raises(InputError, match=r"^edges: expected two or more increasing"):
        ring_response(teacher, images, [0.5, 0.1], [0.0])
    with pytest.raises(InputError, match=r"^batch_size: expected 1 or more, got 0$"):
        ring_response(teacher, images, EDGES, [0.0], batch_size=0)


@pytest.mark.real
def test_a_real_teacher_answers_on_real_images(shared, tmp_path):
    weights = shared / "weights/mobilenetv2_100_imagenet_bncal.safetensors"
    teacher = load_teacher("timm:mobilenetv2_100", weights=str(weights))
    dataset = open_dataset(shared / "data/ham10000", images=21)
    packed = pack(dataset, 64, cache=tmp_path, progress=False)
    images, _ = next(batches(packed, np.arange(21), batch_size=21))
    table = ring_response(teacher, images, ring_edges(4), [0.0], resamples=200)
    assert (table["drift"] > 0).all() and (table["drift_low"] <= table["drift_high"]).all()
    assert table["energy"].sum() == pytest.approx(1, abs=1e-4)
    # Photographs: amplitudes fall with frequency, and most of the variance is slow.
    assert table["energy"].is_monotonic_decreasing and table["energy"][0] > 0.8


def test_radial_gain_equals_the_loop():
    gain = torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    radius = radial_frequency(6, 7)
    logs = [
        math.log(gain[b, c, v, u])
        for b in range(2)
        for c in range(3)
        for v in range(6)
        for u in range(4)
        if 0.2 < radius[v, u] <= 0.5
    ]
    row = radial_gain(gain, EDGES, width=7).iloc[1]
    assert row["gain"] == pytest.approx(math.exp(np.mean(logs)), rel=1e-6)
    assert row["gain_low"] == pytest.approx(math.exp(np.mean(logs) - np.std(logs)), rel=1e-6)
    assert row["gain_high"] == pytest.approx(math.exp(np.mean(logs) + np.std(logs)), rel=1e-6)
