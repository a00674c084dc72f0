import dataclasses

import numpy as np
import pytest

from fopro_lab.errors import InputError
from fopro_lab.probing.spectra import FLOOR, mean_spectra

EDGES = [0, 0.25, 0.5, 0.75]


def slow_log_amplitude(image, low, high):
    """Half the log of a ring's energy, from a full complex transform in float64."""
    spectrum = np.fft.fft2(image.astype(np.float64) / 255, axes=(0, 1), norm="forward")
    v, u = np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16), indexing="ij")
    radius = np.hypot(u, v)
    inside = (radius > low) & (radius <= high)
    return np.log((np.abs(spectrum[inside]) ** 2).sum(axis=0).mean()) / 2


def test_mean_spectra_equal_the_slow_ones(world):
    rows = np.arange(20)
    table = mean_spectra(world.pack, rows, edges=EDGES, batch_size=7)
    row = table.query("name == 'fast' and ring == 1").iloc[0]
    members = rows[world.pack.labels[rows] == 1]
    values = [slow_log_amplitude(world.pack.images[m], 0.25, 0.5) for m in members]
    assert row["log_amplitude"] == pytest.approx(np.mean(values), abs=1e-5)
    assert row["spread"] == pytest.approx(np.std(values), abs=1e-5)
    assert (row["low"], row["high"], row["n"]) == (0.25, 0.5, len(members))


def test_each_class_is_loudest_in_its_own_ring(world):
    table = mean_spectra(world.pack, np.arange(90), edges=EDGES)
    loud = table[table["scope"] == "class"].pivot(index="ring", columns="name", values="difference")
    assert loud.loc[0].idxmax() == "slow" and loud.loc[1].idxmax() == "fast"


def test_the_size_of_a_class_does_not_leak_into_the_difference(world):
    few = np.arange(30)
    many = np.concatenate([few, np.tile(few[world.pack.labels[few] == 1], 9)])  # "fast" tenfold
    first, second = (
        mean_spectra(world.pack, rows, edges=EDGES).query("scope == 'class'")
        for rows in (few, many)
    )
    assert second.query("ring == 0")["n"].tolist() == [10, 100, 10]
    np.testing.assert_allclose(second["difference"], first["difference"], atol=1e-9)


def test_differences_sum_to_zero_within_a_scope(world):
    table = mean_spectra(world.pack, np.arange(90), edges=EDGES)
    sums = table.groupby(["scope", "ring"])["difference"].sum()
    assert len(sums) == 6 and sums.abs().max() < 1e-9


def test_unknown_sources_have_no_row(world):
    table = world.pack.dataset.table.assign(source="")
    dataset = dataclasses.replace(world.pack.dataset, table=table)
    pack = dataclasses.replace(world.pack, dataset=dataset)
    assert set(mean_spectra(pack, np.arange(9), edges=EDGES)["scope"]) == {"class"}


def test_flat_images_lie_on_the_floor(world):
    pack = dataclasses.replace(world.pack, images=np.full((90, 16, 16, 3), 77, dtype=np.uint8))
    table = mean_spectra(pack, np.arange(9), edges=EDGES)
    np.testing.assert_allclose(table["log_amplitude"], np.log(FLOOR) / 2)


def test_wrong_input_is_refused(world):
    with pytest.raises(InputError, match=r"^edges: expected two or more increasing"):
        mean_spectra(world.pack, np.arange(3), edges=[0.5])
    with pytest.raises(InputError, match="row"):
        mean_spectra(world.pack, np.array([90]), edges=EDGES)
