import numpy as np
import pytest
import torch

from fopro_lab.fourier import apply_gain, ring_energy, ring_gain
from fopro_lab.widgets.bands import Change, SpectrumView, Strip, ring_means

EDGES = [0, 0.25, 0.5, 0.75]


@pytest.fixture
def image():
    return torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(0))


def wave(frequency):
    """An image with one wave along its width, mean 0.5, amplitude 0.2."""
    row = 0.5 + 0.2 * torch.cos(2 * torch.pi * frequency * torch.arange(16))
    return row.expand(3, 16, 16)


def change(*gains, size=(16, 16), **how):
    gain = ring_gain(torch.tensor([gains]), EDGES, height=size[0], width=size[1])
    return Change(gain, **how)


def test_spectrum_view_scales_the_ring_that_holds_the_wave():
    spectrum = SpectrumView(wave(0.375))
    view = spectrum.apply(change(1.0, 2.0, 1.0))
    ring = np.digitize(0.375, spectrum.edges, right=True) - 1
    # the contrast of a cosine of amplitude a is a / sqrt(2)
    np.testing.assert_allclose(view.contrast[:, ring], [0.2 / 2**0.5, 0.4 / 2**0.5], atol=1e-6)
    assert np.delete(view.contrast, ring, axis=1).max() < 1e-6
    assert abs(view.after.max() / 255 - 0.9) < 0.003


@pytest.mark.parametrize("size", [(16, 12), (15, 11)])
def test_spectrum_view_agrees_with_apply_gain_and_ring_energy(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    gain = ring_gain(torch.rand(3, 3) * 2, EDGES, height=size[0], width=size[1])
    spectrum = SpectrumView(image)
    view, slow = spectrum.apply(Change(gain)), apply_gain(image[None], gain)
    expected = (slow[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    assert abs(view.after.astype(int) - expected).max() <= 1
    contrast = ring_energy(slow, spectrum.edges)[0].sqrt().mean(0)
    np.testing.assert_allclose(view.contrast[1], contrast, rtol=1e-4, atol=1e-6)
    plane = np.fft.fftshift(np.log(np.abs(np.fft.fft2(slow[0].numpy())).mean(0)))
    np.testing.assert_allclose(view.spectrum, plane, atol=2e-3)


@pytest.mark.parametrize("phase_lock", [True, False])
def test_gain_one_changes_nothing(image, phase_lock):
    view = SpectrumView(image).apply(change(1.0, 1.0, 1.0, size=(16, 12), phase_lock=phase_lock))
    np.testing.assert_array_equal(view.before, view.after)
    assert view.clipped < 0.01


def test_spectrum_view_measures_the_change_and_the_gain_of_each_ring(image):
    removed = SpectrumView(image).apply(change(0.0, 0.0, 0.0, size=(16, 12)))
    # Without all its rings an image is its mean: each channel changes by its own spread.
    spread = image.double().var(dim=(1, 2), unbiased=False).mean().sqrt().item()
    assert removed.rms == pytest.approx(spread, rel=1e-5)
    assert SpectrumView(image).apply(change(4.0, 4.0, 4.0, size=(16, 12))).clipped > 0.2
    view = SpectrumView(torch.rand(3, 16, 16)).apply(change(0.0, 3.0, 1.0))
    np.testing.assert_allclose(view.gains, [0] * 4 + [3] * 4 + [1], atol=1e-6)  # eight and corners


@pytest.mark.parametrize("phase_lock", [True, False])
def test_strip_changes_images_side_by_side_as_each_alone(phase_lock):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    now = change(0.5, 2.0, 1.0, phase_lock=phase_lock)
    alone = [SpectrumView(image).apply(now).after.astype(int) for image in images]
    assert abs(Strip(images).apply(now) - np.hstack(alone)).max() <= 1


def test_strip_of_larger_images_shows_their_low_frequencies():
    places = torch.arange(200) / 200
    slow = 0.5 + 0.2 * torch.cos(2 * torch.pi * 5 * places)
    images = (slow + 0.2 * torch.cos(2 * torch.pi * 70 * places)).expand(1, 3, 200, 200)
    gain = ring_gain(torch.tensor([[2.0, 1.0, 1.0]]), EDGES, height=200, width=200)
    expected = 0.5 + 0.4 * torch.cos(2 * torch.pi * 5 * torch.arange(96) / 96)
    shown = Strip(images).apply(Change(gain))
    assert shown.shape == (96, 96, 3)
    np.testing.assert_allclose(shown[0, :, 0] / 255, expected, atol=0.004)


def test_phase_lock_keeps_phases_and_without_it_changed_bands_lose_theirs_alone(image):
    before = torch.fft.rfft2(image)
    locked, loose = (change(2.0, 1.0, 1.0, size=(16, 12), phase_lock=lock) for lock in (1, 0))
    gain = locked.gain
    locked, loose = (torch.fft.rfft2(each.apply(image[None])[0]) for each in (locked, loose))
    torch.testing.assert_close(locked, before * gain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loose.abs(), locked.abs(), atol=1e-4, rtol=1e-4)
    changed = gain[0] == 2
    torch.testing.assert_close(loose[:, ~changed], before[:, ~changed], atol=1e-4, rtol=1e-4)
    assert (loose / locked)[:, changed].angle().abs().mean() > 0.5


def test_ring_means_are_geometric_and_say_how_much_they_explain():
    gain = change(2.0, 0.5, 1.0).gain
    means, explained = ring_means(gain, EDGES, width=16)
    np.testing.assert_allclose(means, [[2.0, 0.5, 1.0]], rtol=1e-5)
    assert explained == pytest.approx(1, abs=1e-6)
    half = gain.clone()
    half[:, 1:8] = 1 / half[:, 1:8]  # up here, down there: no ring has a mean
    half[:, 9:] = gain[:, 9:]
    assert ring_means(half, EDGES, width=16)[1] < 0.1
    assert ring_means(torch.ones(1, 16, 9), EDGES, width=16)[1] == 1
