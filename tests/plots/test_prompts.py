import re

import numpy as np
import pytest

from fopro_lab import plots
from tests.conftest import refuses
from tests.plots.tables import mask_history, prompt_training, radial_gain


@pytest.mark.parametrize("side", [8, 7])
def test_gain_is_the_one_that_acts_on_every_frequency(side):
    """Reference: multiply an image's half spectrum, go back, and divide the whole spectra."""
    half = np.exp(np.random.default_rng(0).normal(size=(side, side // 2 + 1)))
    shown = 2.0 ** plots.plot_gain(half).images[0].get_array()
    image = np.random.default_rng(1).normal(size=(side, side))
    scaled = np.fft.irfft2(half * np.fft.rfft2(image), s=(side, side))
    expected = np.fft.fft2(scaled) / np.fft.fft2(image)
    # Without the mean in column 0 (and W / 2) the values there would be off by tens of per cent.
    np.testing.assert_allclose(np.fft.ifftshift(shown), expected.real, rtol=1e-9)


def test_gain_is_centred_and_symmetrical_about_one():
    half = np.ones((8, 5))
    half[0, 2] = 2.0  # 2 / 8 cycles per pixel, horizontal
    ax = plots.plot_gain(np.stack([half, half, half]))
    shown = ax.images[0].get_array()
    assert shown[4, 4] == 0 and shown[4, 6] == shown[4, 2] == pytest.approx(1)
    assert ax.images[0].get_clim() == pytest.approx((-1, 1))
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, right) == (bottom, top) == (-0.5625, 0.4375)  # pixel centres at k / 8
    assert "mean of 3 channels" in ax.get_title(loc="left")
    refuses(re.escape("got (2, 3, 8, 5)"), plots.plot_gain, np.ones((2, 3, 8, 5)))
    refuses("gain: expected finite factors above 0, got 0", plots.plot_gain, np.zeros((8, 5)))


def test_radial_gain_steps_through_the_rings():
    ax = plots.plot_radial_gain(radial_gain())
    values, edges, _ = ax.patches[0].get_data()
    np.testing.assert_allclose(values, [1.4, 1.0, 0.7])
    np.testing.assert_allclose(edges, [0, 0.25, 0.5, 0.75])


def test_prompt_training_puts_checks_beside_their_term_and_rings_the_best():
    figure = plots.plot_prompt_training(prompt_training())
    assert len(figure.axes) == 2  # task loss and drift
    term, checks, best = figure.axes[0].lines
    np.testing.assert_allclose(term.get_ydata(), prompt_training()["task"])
    np.testing.assert_allclose(checks.get_xydata(), [[1, 1.9], [3, 2.1]])
    np.testing.assert_allclose(best.get_xydata(), [[1, 1.9]])
    refuses("expected a column for at", plots.plot_prompt_training, prompt_training()[["step"]])


def test_mask_history_shows_first_middle_and_last_mask():
    figure = plots.plot_mask_history([mask_history()])
    titles = [ax.get_title(loc="left") for ax in figure.axes[:3]]
    assert titles == [f"training 1, step {step}" for step in (0, 3, 6)]
    assert figure.axes[0].images[0].get_array().max() == 1  # octave: gain 2
