import numpy as np
import pytest

from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_edges, ring_masks
from fopro_lab.probing.heat_map import basis_cells, basis_wave, plane_bins, wave_size


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


def test_the_full_map_at_224_has_as_many_waves_as_half_the_plane():
    assert len(basis_cells(224, 224, by="full")) == (224 * 224 + 4) // 2


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


def test_wave_sizes_are_the_published_ones():
    assert wave_size(32, 32) == 4 and wave_size(224, 224) == 28


def test_wrong_input_is_refused():
    with pytest.raises(
        InputError, match=r"^by: expected one of 'rings', 'blocks', 'full', got 'x'"
    ):
        basis_cells(8, 8, by="x")
    with pytest.raises(InputError, match=r"^block: expected an odd number of bins, .* got 4$"):
        basis_cells(8, 8, by="blocks", block=4)
    with pytest.raises(InputError, match=r"^waves: expected 0 or more, got -1$"):
        basis_cells(8, 8, by="full", waves=-1)
