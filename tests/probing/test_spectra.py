"""Mean spectra against slow ones."""

import numpy as np
import pytest

from fopro_lab.probing import mean_spectra
from tests.probing.toys import EDGES


def slow_log_amplitude(image, low, high):
    """Half the log of a ring's energy, from a full complex transform in float64."""
    spectrum = np.fft.fft2(image.astype(np.float64) / 255, axes=(0, 1), norm="forward")
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    inside = (radius > low) & (radius <= high)
    return np.log((np.abs(spectrum[inside]) ** 2).sum(axis=0).mean()) / 2


def test_mean_spectra_equal_the_slow_ones(world):
    rows = np.arange(20)
    row = mean_spectra(world.pack, rows, edges=EDGES).query("name == 'fast' and ring == 1").iloc[0]
    members = rows[world.pack.labels[rows] == 1]
    values = [slow_log_amplitude(world.pack.images[m], 0.25, 0.5) for m in members]
    assert row["log_amplitude"] == pytest.approx(np.mean(values), abs=1e-5)
    assert row["spread"] == pytest.approx(np.std(values), abs=1e-5)
    assert (row["low"], row["high"], row["n"]) == (0.25, 0.5, len(members))


def test_the_size_of_a_class_does_not_leak_into_the_difference(world):
    few = np.arange(30)
    many = np.concatenate([few, np.tile(few[world.pack.labels[few] == 1], 9)])  # "fast" tenfold
    first, second = (mean_spectra(world.pack, rows, edges=EDGES) for rows in (few, many))
    assert second.query("scope == 'class' and ring == 0")["n"].tolist() == [10, 100, 10]
    first, second = (table.query("scope == 'class'")["difference"] for table in (first, second))
    np.testing.assert_allclose(second, first, atol=1e-9)
