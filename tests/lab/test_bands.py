import numpy as np
import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.lab.bands import preset_gains, view_bands
from fopro_lab.models import wrap_teacher

EDGES = [0, 0.25, 0.5, 0.75]


@pytest.fixture
def image():
    return torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(0))


def wave(frequency):
    """A picture with one wave along its width, mean 0.5, amplitude 0.2."""
    x = torch.arange(16)
    row = 0.5 + 0.2 * torch.cos(2 * torch.pi * frequency * x)
    return row.expand(3, 16, 16)


def test_view_bands_scales_the_ring_that_holds_the_wave():
    view = view_bands(wave(0.375), [1.0, 2.0, 1.0], edges=EDGES)
    # contrast of a cosine of amplitude a is a / sqrt(2)
    np.testing.assert_allclose(view.profile["before"], [0, 0.2 / 2**0.5, 0], atol=1e-6)
    np.testing.assert_allclose(view.profile["after"], [0, 0.4 / 2**0.5, 0], atol=1e-6)
    assert abs(view.after.max() / 255 - 0.9) < 0.003


def test_view_bands_shows_the_spectrum_with_zero_frequency_in_the_middle():
    view = view_bands(wave(0.125), [1.0, 1.0, 1.0], edges=EDGES)
    assert np.unravel_index(view.spectrum.argmax(), (16, 16)) == (8, 8)
    assert set(np.argsort(view.spectrum[8])[-3:]) == {6, 8, 10}


def test_view_bands_at_gain_one_changes_nothing(image):
    view = view_bands(image, [1.0, 1.0, 1.0], edges=EDGES)
    np.testing.assert_array_equal(view.before, view.after)
    assert view.clipped < 0.01 and view.drift is None


def test_view_bands_says_what_is_clipped_and_how_far_the_teacher_moves(image):
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=48)
    view = view_bands(image, [4.0, 4.0, 4.0], edges=EDGES, teacher=teacher)
    assert view.clipped > 0.2 and 0.01 < view.drift < 2
    still = view_bands(image, [1.0, 1.0, 1.0], edges=EDGES, teacher=teacher)
    assert abs(still.drift) < 1e-6


def test_view_bands_refuses_a_grey_picture_and_a_gain_too_few(image):
    with pytest.raises(ShapeError, match=r"image: expected \(3, H, W\), got \(1, 16, 12\)"):
        view_bands(image[:1], [1.0, 1.0, 1.0], edges=EDGES)
    with pytest.raises(ShapeError, match="gains: expected"):
        view_bands(image, [1.0], edges=EDGES)


@pytest.mark.parametrize(
    ("name", "gains"),
    [
        ("identity", [1, 1, 1]),
        ("remove", [1, 0, 1]),
        ("amplify", [1, 2, 1]),
        ("low-pass", [1, 1, 0]),
        ("high-pass", [0, 1, 1]),
    ],
)
def test_preset_gains_of_the_middle_ring(name, gains):
    assert preset_gains(name, ring=1, rings=3) == gains


def test_preset_gains_refuses_what_there_is_not():
    with pytest.raises(InputError, match=r"^preset: expected one of 'identity', .* got 'blur'$"):
        preset_gains("blur", ring=0, rings=3)
    with pytest.raises(InputError, match=r"^ring: expected 0 to 2, got 3$"):
        preset_gains("remove", ring=3, rings=3)
