"""The gain in closed form: images behind a known gain get back what they lost."""

import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import (
    FourierPrompt,
    apply_gain,
    fit_prompt,
    mean_amplitude,
    radial_frequency,
    spectrum_gain,
)
from fopro_lab.fourier.spectrum import octave_weights
from tests.conftest import refuses
from tests.models.toys import toy_images

SIZE = (32, 32)
RADIUS = radial_frequency(*SIZE)
LOW_PASS = torch.exp(-((RADIUS / 0.3) ** 2))
HIGH = 1 + RADIUS


def images(seed=0):
    """Noise whose amplitude falls with frequency, as an image's."""
    return 0.5 + apply_gain(toy_images(64, 32, seed=seed) - 0.5, 0.02 / (RADIUS + 0.02))


def closed_form(seen, target, bound=3.0):
    found, wanted = mean_amplitude(seen), mean_amplitude(target)
    return spectrum_gain(found, wanted, size=SIZE, max_log_gain=bound)


def distance(gain, wanted):
    """Root mean square of the log gain's error, each octave counting the same."""
    return float((octave_weights(*SIZE) * (gain / wanted).log() ** 2).sum().sqrt())


@pytest.mark.parametrize("known", [LOW_PASS, HIGH], ids=["low-pass", "sharpened"])
def test_spectrum_gain_inverts_a_known_gain(known):
    gain = closed_form(apply_gain(images(), known), images(seed=1))  # a reference of other images
    assert distance(gain, 1 / known) < 0.2  # a factor of 1.3 or an inverse squared would fail
    assert gain[0, 0] == 1 and closed_form(images(), images()).log().abs().max() < 1e-6


def test_spectrum_gain_is_bounded_and_wrong_spectra_are_refused():
    gain = closed_form(apply_gain(images(), LOW_PASS), images(), bound=0.5).log()
    assert gain.max() == pytest.approx(0.5) and gain.min() >= -0.5
    with pytest.raises(ShapeError, match=r"expected \(24,\) of mean_amplitude, got \(3,\)"):
        spectrum_gain(torch.ones(3), torch.ones(24), size=SIZE, max_log_gain=1.0)
    with pytest.raises(InputError, match="max_log_gain: expected a number above 0, got 0"):
        spectrum_gain(torch.ones(24), torch.ones(24), size=SIZE, max_log_gain=0.0)
    refuses("images: expected one or more, got none", mean_amplitude, torch.ones(0, 3, 8, 8))


@pytest.mark.parametrize("form", ["ring", "radial", "shared", "generator"])
def test_fit_prompt_reaches_the_gain_in_every_form(form):
    prompt = FourierPrompt(form, size=32, max_log_gain=2.0, rows=32, rings=16)
    wanted = closed_form(apply_gain(images(), LOW_PASS), images(), bound=1.5)
    fit_prompt(prompt, wanted)
    start = distance(torch.ones(SIZE[0], 17), wanted)
    assert distance(prompt.mean_gain().detach(), wanted) < min(0.2, 0.3 * start)
    assert all(p.grad is None for p in prompt.parameters())
