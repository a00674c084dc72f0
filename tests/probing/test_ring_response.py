"""Ring responses against slow float64 ones and closed forms; gains and spectra by ring."""

import math

import numpy as np
import pytest
import timm
import torch

from fopro_lab.fourier import apply_gain, ring_gain
from fopro_lab.models import wrap_teacher
from fopro_lab.probing import mean_spectra, radial_gain, ring_response
from tests.conftest import refuses
from tests.probing.toys import EDGES as TOY_EDGES
from tests.probing.toys import Stub, flatten, photos

EDGES = [0, 0.2, 0.5, 0.75]


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
def test_ring_response_equals_the_slow_one(ring, gain):
    # 1e-6 catches a batch counted twice, an energy that includes DC or clipping: over 1e-3 each.
    images = photos(7, 16)
    table = ring_response(Stub(flatten), images, EDGES, [0.0, 0.5, 2.0], batch_size=3)
    row = table[(table["ring"] == ring) & (table["gain"] == gain)].iloc[0]
    drifts, energies = slow_response(flatten, images, ring=ring, gain=gain)
    assert row["drift"] == pytest.approx(drifts.mean(), abs=1e-6)
    assert row["energy"] == pytest.approx(energies.mean(), abs=1e-6)
    assert row["drift_per_energy"] == pytest.approx(drifts.mean() / energies.mean(), rel=1e-4)
    assert (row["low"], row["high"], row["n"]) == (EDGES[ring], EDGES[ring + 1], 7)


def test_a_gain_of_one_changes_nothing():
    row = ring_response(Stub(flatten), photos(2, 16), EDGES, [1.0]).iloc[0]
    assert row["drift"] == pytest.approx(0, abs=1e-12) and row["energy"] == 0
    assert np.isnan(row["drift_per_energy"]) and np.isnan(row["drift_per_energy_low"])


def test_the_interval_is_as_wide_as_the_standard_error_says_and_lesions_are_drawn_whole():
    images = photos(60, 16)
    drifts, _ = slow_response(flatten, images, ring=1, gain=0.0)
    expected = 2 * 1.96 * drifts.std() / math.sqrt(60)
    for seen, units in ((images, None), (images.repeat_interleave(2, 0), np.arange(60).repeat(2))):
        table = ring_response(Stub(flatten), seen, EDGES, [0.0], units=units, resamples=4000)
        width = table["drift_high"] - table["drift_low"]
        assert width[1] == pytest.approx(expected, rel=0.1)


def test_wrong_input_is_refused():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1)
    vit = wrap_teacher(vit, mean=[0.5] * 3, std=[0.5] * 3, input_size=32, feature_dim=192)
    given = {"teacher": Stub(flatten), "images": photos(2, 16), "edges": EDGES, "gains": [0.0]}
    for settings, rule in (
        ({"units": np.arange(3)}, r"^units: expected one for each of 2, got 3$"),
        ({"teacher": vit}, r"^teacher wrapped: cannot encode images of 16 x 16 px"),
    ):
        refuses(rule, ring_response, **given | settings)


@pytest.mark.parametrize("width", [7, 8])
def test_radial_gain_is_the_mean_over_the_whole_spectrum(width):
    gain = torch.rand(2, 6, width // 2 + 1, generator=torch.Generator().manual_seed(0)) + 0.5
    v, u = np.indices((6, width))
    mirrored = u > width // 2
    whole = gain.double().log()[:, np.where(mirrored, -v % 6, v), np.where(mirrored, width - u, u)]
    radius = np.hypot(np.fft.fftfreq(6)[v], np.fft.fftfreq(width)[u])
    logs = whole.numpy()[:, (radius > 0.2) & (radius <= 0.5)]
    expected = np.exp(logs.mean() + logs.std() * np.array([0, -1, 1]))
    row = radial_gain(gain, [0.0, 0.01, 0.2, 0.5], width=width).iloc[[0, 2]]
    found = row[["gain", "gain_low", "gain_high"]].to_numpy()
    assert np.isnan(found[0]).all()  # no frequency there
    # 1e-6 catches bins that all count once: they move the mean by over 1e-3.
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)


def slow_log_amplitude(image, low, high):
    """Half the log of a ring's energy, from a full complex transform in float64."""
    spectrum = np.fft.fft2(image.astype(np.float64) / 255, axes=(0, 1), norm="forward")
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    inside = (radius > low) & (radius <= high)
    return np.log((np.abs(spectrum[inside]) ** 2).sum(axis=0).mean()) / 2


def test_mean_spectra_equal_the_slow_ones(world):
    rows = np.arange(20)
    table = mean_spectra(world.pack, rows, edges=TOY_EDGES)
    row = table.query("name == 'fast' and ring == 1").iloc[0]
    members = rows[world.pack.labels[rows] == 1]
    values = [slow_log_amplitude(world.pack.images[m], 0.25, 0.5) for m in members]
    assert row["log_amplitude"] == pytest.approx(np.mean(values), abs=1e-5)
    assert row["spread"] == pytest.approx(np.std(values), abs=1e-5)
    assert (row["low"], row["high"], row["n"]) == (0.25, 0.5, len(members))


def test_the_size_of_a_class_does_not_leak_into_the_difference(world):
    few = np.arange(30)
    many = np.concatenate([few, np.tile(few[world.pack.labels[few] == 1], 9)])  # "fast" tenfold
    first, second = (mean_spectra(world.pack, rows, edges=TOY_EDGES) for rows in (few, many))
    assert second.query("scope == 'class' and ring == 0")["n"].tolist() == [10, 100, 10]
    first, second = (table.query("scope == 'class'")["difference"] for table in (first, second))
    np.testing.assert_allclose(second, first, atol=1e-9)
