"""The Fourier basis heat map: its waves, its numbers against slow ones, its plane."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from fopro_lab.probing.features import LinearProbe, wrap_classifier
from fopro_lab.probing.heat_map import basis_cells, basis_heat_map, basis_wave, heat_plane
from tests.conftest import refuses
from tests.probing.toys import Stub, flatten, photos


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (6, 7)])
def test_each_wave_is_one_frequency_of_norm_one(height, width):
    for row, column in basis_cells(height, width)[["row", "column"]].to_numpy():
        wave = basis_wave(row, column, height=height, width=width)
        assert np.linalg.norm(wave) == pytest.approx(1)
        power = np.abs(np.fft.fft2(wave)) ** 2
        loud = {tuple(place) for place in np.argwhere(power > 1e-9)}
        assert loud == {(row % height, column % width), (-row % height, -column % width)}


def measure(network, images, **settings):
    return basis_heat_map(network, images, **{"block": 1, "resamples": 50} | settings)


def test_every_cell_equals_the_slow_one():
    """1e-5 catches a missing clip or one sign alone: both move the drift by over 1e-3."""
    images = photos(4, 8)
    table = measure(Stub(flatten), images, batch_size=3)
    assert (table["size"] == 1).all()
    for _, row in table.iloc[::7].iterrows():
        wave = basis_wave(int(row["row"]), int(row["column"]), height=8, width=8)
        drifts = []
        for image in images.double().numpy():
            for sign in (1, -1):
                other = np.clip(image + sign * wave, 0, 1)
                drifts.append(cosine(image.ravel(), other.ravel()))
        assert row["drift"] == pytest.approx(np.mean(drifts), abs=1e-5)
    assert table["error"].isna().all()


def test_error_rates_of_a_probe_and_of_any_classifier_agree():
    images, labels = photos(6, 8), np.array([0, 1, 0, 1, 0, 1])
    weight = np.random.default_rng(0).normal(size=(2, 192))
    probe = LinearProbe(np.zeros(192), np.ones(192), weight, np.zeros(2), 1.0, 1.0)
    by_probe = measure(Stub(flatten), images, labels=labels, probe=probe)
    matrix = torch.from_numpy(weight)
    classifier = wrap_classifier(lambda x: x.flatten(1).double() @ matrix.T)
    by_logits = measure(classifier, images, labels=labels)
    np.testing.assert_allclose(by_probe["error"], by_logits["error"])
    assert by_logits["drift"].isna().all() and by_logits["error"].nunique() > 1
    assert (by_probe["clean_error"] == (classifier.predict(images).numpy() != labels).mean()).all()


@pytest.mark.parametrize("block", [1, 3])
def test_the_plane_is_its_own_mirror_image_and_whole(block):
    table = measure(Stub(flatten), photos(2, 8), block=block)
    plane = heat_plane(table)
    assert plane.shape == (8, 8) and not np.isnan(plane).any()
    inner = plane[1:, 1:]  # row and column of -1/2 are their own mirror images
    np.testing.assert_array_equal(inner, inner[::-1, ::-1])
    assert len(np.unique(plane)) > 1


def test_a_plane_of_blocks_has_no_slivers_at_half_a_cycle_per_pixel():
    plane = heat_plane(measure(Stub(flatten), photos(4, 32), block=7, resamples=2))
    assert len(np.unique(plane)) > 8
    np.testing.assert_array_equal(plane[0], plane[1])
    np.testing.assert_array_equal(plane[:, 0], plane[:, 1])
    np.testing.assert_array_equal(plane[1:, 1:], plane[1:, 1:][::-1, ::-1])


def test_intervals_hold_the_mean_and_lesions_are_drawn_whole():
    images = photos(12, 8).repeat_interleave(2, dim=0)
    by_image, by_lesion = (
        measure(Stub(flatten), images, block=7, units=units, resamples=2000)
        for units in (None, np.arange(12).repeat(2))
    )
    width, wider = (table["drift_high"] - table["drift_low"] for table in (by_image, by_lesion))
    assert wider.mean() / width.mean() == pytest.approx(np.sqrt(2), rel=0.1)
    assert by_image["drift"].between(by_image["drift_low"], by_image["drift_high"], "neither").all()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"block": 4}, r"^block: expected an odd number of bins, .* got 4$"),
        ({"labels": np.zeros(3)}, r"^labels: expected one for each of 4, got 3$"),
        ({"network": wrap_classifier(flatten)}, r"^labels: expected one for each image"),
    ],
)
def test_wrong_input_is_refused(settings, complaint):
    refuses(complaint, measure, **{"network": Stub(flatten), "images": photos(4, 8)} | settings)
