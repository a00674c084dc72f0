import numpy as np
import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import apply_gain, ring_energy, ring_gain
from fopro_lab.widgets.bands import BandLens, bump_gains, preset_gains, ring_means, scale_bands

EDGES = [0, 0.25, 0.5, 0.75]


@pytest.fixture
def image():
    return torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(0))


def wave(frequency):
    """An image with one wave along its width, mean 0.5, amplitude 0.2."""
    x = torch.arange(16)
    row = 0.5 + 0.2 * torch.cos(2 * torch.pi * frequency * x)
    return row.expand(3, 16, 16)


def gain_of(*gains, size=(16, 16)):
    return ring_gain(torch.tensor([gains]), EDGES, height=size[0], width=size[1])


def test_look_scales_the_ring_that_holds_the_wave():
    view = BandLens(wave(0.375)).look(gain_of(1.0, 2.0, 1.0))
    ring = np.digitize(0.375, view.edges, right=True) - 1
    # contrast of a cosine of amplitude a is a / sqrt(2)
    np.testing.assert_allclose(view.contrast[:, ring], [0.2 / 2**0.5, 0.4 / 2**0.5], atol=1e-6)
    assert np.delete(view.contrast, ring, axis=1).max() < 1e-6
    assert abs(view.after.max() / 255 - 0.9) < 0.003


@pytest.mark.parametrize("size", [(16, 12), (15, 11)])
def test_look_is_apply_gain_and_ring_energy(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    gain = ring_gain(torch.rand(3, 3) * 2, EDGES, height=size[0], width=size[1])
    lens = BandLens(image)
    view, slow = lens.look(gain), apply_gain(image[None], gain)
    expected = (slow[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    assert abs(view.after.astype(int) - expected).max() <= 1
    contrast = ring_energy(slow, lens.edges)[0].sqrt().mean(0)
    np.testing.assert_allclose(view.contrast[1], contrast, rtol=1e-4, atol=1e-6)
    plane = np.fft.fftshift(np.log(np.abs(np.fft.fft2(slow[0].numpy())).mean(0)))
    np.testing.assert_allclose(view.spectrum, plane, atol=2e-3)


def test_look_shows_the_spectrum_with_zero_frequency_in_the_middle():
    view = BandLens(wave(0.125)).look(gain_of(1.0, 1.0, 1.0))
    assert np.unravel_index(view.spectrum.argmax(), (16, 16)) == (8, 8)
    assert set(np.argsort(view.spectrum[8])[-3:]) == {6, 8, 10}


def test_look_at_gain_one_changes_nothing(image):
    for phase_lock in (True, False):
        gain = gain_of(1.0, 1.0, 1.0, size=(16, 12))
        view = BandLens(image).look(gain, phase_lock=phase_lock)
        np.testing.assert_array_equal(view.before, view.after)
        assert view.clipped < 0.01 and not view.outline.any()


def test_look_says_how_far_the_image_is_moved(image):
    view = BandLens(image).look(gain_of(0.0, 0.0, 0.0, size=(16, 12)))
    # Without all its rings an image is its mean: each channel moves by its own spread.
    spread = image.double().var(dim=(1, 2), unbiased=False).mean().sqrt().item()
    assert view.moved == pytest.approx(spread, rel=1e-5)


def test_look_says_what_is_clipped(image):
    assert BandLens(image).look(gain_of(4.0, 4.0, 4.0, size=(16, 12))).clipped > 0.2


def test_look_outlines_half_of_a_bumps_change():
    size = 64
    edges = [k / 128 for k in range(65)] + [0.75]
    gains = bump_gains(3.0, centre=0.25, width=0.125, edges=edges)
    gain = ring_gain(torch.tensor([gains]), edges, height=size, width=size)
    lens = BandLens(torch.rand(3, size, size))
    border = np.argwhere(lens.look(gain, steps=False).outline) - size // 2
    radius = np.hypot(*border.T) / size
    near = np.minimum(abs(radius - 0.1875), abs(radius - 0.3125))
    assert len(radius) and near.max() < 2 / size


def test_scale_bands_locks_phases_and_lets_them_loose(image):
    gain = gain_of(2.0, 1.0, 1.0, size=(16, 12))
    before = torch.fft.rfft2(image)
    locked, loose = (
        torch.fft.rfft2(scale_bands(image[None], gain, phase_lock=lock)[0])
        for lock in (True, False)
    )
    changed = gain[0] == 2
    torch.testing.assert_close(locked, before * gain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loose.abs(), locked.abs(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loose[:, ~changed], before[:, ~changed], atol=1e-4, rtol=1e-4)
    turned = (loose / locked)[:, changed].angle().abs()
    assert turned.mean() > 0.5
    again = scale_bands(image[None], gain, phase_lock=False)
    torch.testing.assert_close(torch.fft.rfft2(again[0]), loose)


def test_lens_refuses_a_grey_image(image):
    with pytest.raises(ShapeError, match=r"image: expected \(3, H, W\), got \(1, 16, 12\)"):
        BandLens(image[:1])


def test_bump_gains_are_half_changed_at_half_the_width():
    edges = [0.19, 0.21, 0.29, 0.31]
    assert bump_gains(3.0, centre=0.2, width=0.2, edges=edges) == pytest.approx(
        [3.0, 1 + 2 * 2**-0.25, 2.0]
    )
    assert bump_gains(0.0, centre=0.2, width=0.2, edges=edges)[0] == pytest.approx(0, abs=1e-12)


def test_ring_means_are_geometric_and_tell_how_much_they_explain():
    gain = gain_of(2.0, 0.5, 1.0)
    means, told = ring_means(gain, EDGES, width=16)
    np.testing.assert_allclose(means, [[2.0, 0.5, 1.0]], rtol=1e-5)
    assert told == pytest.approx(1, abs=1e-6)
    half = gain.clone()
    half[:, 1:8] = 1 / half[:, 1:8]  # up here, down there: no ring has a mean
    half[:, 9:] = gain[:, 9:]
    assert ring_means(half, EDGES, width=16)[1] < 0.1
    assert ring_means(torch.ones(1, 16, 9), EDGES, width=16)[1] == 1


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
