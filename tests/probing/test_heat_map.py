"""The Fourier basis heat map: its waves, its numbers against slow ones, its plane."""

import numpy as np
import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import ring_edges, ring_masks
from fopro_lab.probing.features import LinearProbe, wrap_classifier
from fopro_lab.probing.heat_map import (
    basis_cells,
    basis_heat_map,
    basis_wave,
    heat_plane,
    plane_bins,
)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (6, 7)])
def test_each_wave_is_one_frequency_of_norm_one(height, width):
    for row, column in basis_cells(height, width, by="full")[["row", "column"]].to_numpy():
        wave = basis_wave(row, column, height=height, width=width)
        assert np.linalg.norm(wave) == pytest.approx(1)
        power = np.abs(np.fft.fft2(wave)) ** 2
        loud = {tuple(place) for place in np.argwhere(power > 1e-9)}
        assert loud == {(row % height, column % width), (-row % height, -column % width)}


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (6, 7), (5, 4)])
def test_bins_and_their_mirror_images_have_one_name(height, width):
    rows, columns = plane_bins(height, width)
    signed = [np.arange(side) - side // 2 for side in (height, width)]
    for i, v in enumerate(signed[0]):
        for j, u in enumerate(signed[1]):
            name = rows[i, j], columns[i, j]
            same = (name[0] - v) % height == 0 and (name[1] - u) % width == 0
            mirror = (name[0] + v) % height == 0 and (name[1] + u) % width == 0
            assert same or mirror
            k, m = (-v) % height, (-u) % width
            opposite = (k + height // 2) % height, (m + width // 2) % width
            assert (rows[opposite], columns[opposite]) == name


def test_waves_of_a_ring_lie_in_it_and_are_drawn_once():
    edges = ring_edges(4)
    cells = basis_cells(16, 16, by="rings", edges=edges, waves=5, seed=1)
    assert cells.groupby("cell").size().tolist() == [5] * 5
    assert not cells.duplicated(["row", "column"]).any()
    masks = ring_masks(16, 16, edges).numpy()
    for cell, row, column in cells[["cell", "row", "column"]].to_numpy():
        assert masks[cell, row % 16, column]
    assert not cells.equals(basis_cells(16, 16, by="rings", edges=edges, waves=5, seed=2))


def test_blocks_take_the_wave_at_their_centre_and_cover_the_plane():
    cells = basis_cells(15, 15, by="blocks", block=3)
    away = cells[(cells["cell_row"] != 0) | (cells["cell_column"] != 0)]
    assert (away["row"] == away["cell_row"]).all()
    assert (away["column"] == away["cell_column"]).all()
    every = basis_cells(15, 15, by="blocks", block=3, waves=99)
    assert len(every) == (15 * 15 - 1) // 2  # all but DC
    assert every.groupby("cell").size().max() == 9


def test_wrong_input_is_refused():
    with pytest.raises(
        InputError, match=r"^by: expected one of 'rings', 'blocks', 'full', got 'x'"
    ):
        basis_cells(8, 8, by="x")
    with pytest.raises(InputError, match=r"^block: expected an odd number of bins, .* got 4$"):
        basis_cells(8, 8, by="blocks", block=4)
    with pytest.raises(InputError, match=r"^waves: expected 0 or more, got -1$"):
        basis_cells(8, 8, by="full", waves=-1)


def photos(count=4, side=8, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand(count, 3, side, side, generator=generator)


def flatten(images):
    return images.flatten(1)


def measure(asked, images, **settings):
    settings = {"by": "full", "resamples": 50, "progress": False} | settings
    return basis_heat_map(asked, images, **settings)


def test_every_cell_equals_the_slow_one(stub):
    """1e-5 catches a missing clip or one sign alone: both move the drift by over 1e-3."""
    images = photos()
    table = measure(stub(flatten), images, size=3.0, batch_size=3)
    pixels = images.double().numpy()
    for _, row in table.iloc[::7].iterrows():
        wave = 3.0 * basis_wave(int(row["row"]), int(row["column"]), height=8, width=8)
        drifts = []
        for image in pixels:
            for sign in (1, -1):
                one, other = image.ravel(), np.clip(image + sign * wave, 0, 1).ravel()
                norms = np.linalg.norm(one) * np.linalg.norm(other)
                drifts.append(1 - one @ other / norms)
        assert row["drift"] == pytest.approx(np.mean(drifts), abs=1e-5)
    assert table["error"].isna().all() and (table["waves"] == 1).all()


def test_error_rates_of_a_probe_and_of_any_classifier_agree(stub):
    images, labels = photos(6), np.array([0, 1, 0, 1, 0, 1])
    weight = np.random.default_rng(0).normal(size=(2, 192))
    probe = LinearProbe(np.zeros(192), np.ones(192), weight, np.zeros(2), 1.0, 1.0)
    by_probe = measure(stub(flatten), images, labels=labels, probe=probe)
    matrix = torch.from_numpy(weight)
    classifier = wrap_classifier(lambda x: x.flatten(1).double() @ matrix.T)
    by_logits = measure(classifier, images, labels=labels)
    np.testing.assert_allclose(by_probe["error"], by_logits["error"])
    assert by_logits["drift"].isna().all() and by_logits["error"].nunique() > 1
    assert (by_probe["clean_error"] == (classifier.predict(images).numpy() != labels).mean()).all()


@pytest.mark.parametrize("by", ["rings", "blocks", "full"])
def test_the_plane_is_its_own_mirror_image_and_whole(stub, by):
    table = measure(stub(flatten), photos(2), by=by, edges=[0, 0.2, 0.75], block=3)
    plane = heat_plane(table)
    holes = 1 if by == "rings" else 0  # DC is in no ring
    assert plane.shape == (8, 8) and np.isnan(plane).sum() == holes
    inner = plane[1:, 1:]  # row and column of -1/2 are their own mirror images
    np.testing.assert_array_equal(inner, inner[::-1, ::-1])
    assert len(np.unique(plane[~np.isnan(plane)])) > 1


def test_intervals_hold_the_mean_and_lesions_are_drawn_whole(stub):
    images = photos(12).repeat_interleave(2, dim=0)
    width = {}
    for name, units in (("image", None), ("lesion", np.arange(12).repeat(2))):
        table = measure(stub(flatten), images, by="blocks", units=units, resamples=2000)
        assert (table["drift_low"] < table["drift"]).all()
        assert (table["drift"] < table["drift_high"]).all()
        width[name] = (table["drift_high"] - table["drift_low"]).mean()
    assert width["lesion"] / width["image"] == pytest.approx(np.sqrt(2), rel=0.1)


def test_wrong_input_of_a_map_is_refused(stub):
    with pytest.raises(ShapeError, match=r"^labels: expected one for each of 4, got 3$"):
        measure(stub(flatten), photos(), labels=np.zeros(3))
    with pytest.raises(InputError, match=r"^labels: expected one for each image"):
        measure(wrap_classifier(flatten), photos())
    with pytest.raises(InputError, match=r"^size: expected a finite norm of 0 or above, got -1"):
        measure(stub(flatten), photos(), size=-1.0)
    with pytest.raises(InputError, match=r"^edges: expected a frequency in every ring"):
        measure(stub(flatten), photos(), by="rings", edges=[0, 0.01, 0.75])
