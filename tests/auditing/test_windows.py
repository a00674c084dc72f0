import numpy as np
import pytest
import torch

from fopro_lab.checks.pipeline import band_limited, windowed
from fopro_lab.errors import InputError, ShapeError


def waves(side, *, cycles):
    """A sum of plane waves at pixel centres, the same scene at any size."""
    x = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    total = sum(
        a * torch.cos(2 * torch.pi * (u * x[None, :] + v * x[:, None]) + p) for a, u, v, p in cycles
    )
    return total.expand(1, 1, side, side)


def test_ideal_resize_of_a_windowed_image_is_the_windowed_small_image():
    """What the audit rests on: window, then resize, equals resize, then window."""
    cycles = [(0.3, 3, 1, 0.2), (0.2, -7, 5, 1.0), (0.1, 2, 11, 2.0)]
    large, small = waves(96, cycles=cycles), waves(32, cycles=cycles)
    # The windowed waves reach 0.6 of 8/3; a shift by half a pixel would err by 0.2.
    shift = band_limited(windowed(large), 32), band_limited(windowed(small), 32)
    spectra = [torch.fft.rfft2(each).abs() for each in shift]
    torch.testing.assert_close(*spectra, atol=1e-9, rtol=0)


def test_what_the_small_image_cannot_hold_is_gone():
    large = waves(96, cycles=[(0.3, 3, 0, 0.0), (0.5, 29, 0, 0.0)])
    kept = band_limited(large, 32)
    assert kept.var(correction=0) == pytest.approx(0.3**2 / 2, rel=1e-6)


def test_a_larger_size_has_empty_new_frequencies():
    kept = band_limited(waves(16, cycles=[(0.3, 3, 2, 0.0)]), 32)
    assert kept.shape[-2:] == (32, 32)
    assert kept.var(correction=0) == pytest.approx(0.3**2 / 2, rel=1e-6)
    assert torch.fft.rfft2(kept)[..., 9:].abs().max() < 1e-9


@pytest.mark.parametrize("shape", [(20, 31), (33, 16), (1, 40)])
def test_sides_may_differ_and_be_odd(shape):
    images = torch.rand(2, 3, *shape, dtype=torch.float64)
    spectrum = torch.fft.fft2(images, norm="forward")
    power = 0.0
    for row in range(shape[0]):
        for column in range(shape[1]):
            u = min(row, shape[0] - row)
            v = min(column, shape[1] - column)
            if u <= (min(shape[0], 16) - 1) // 2 and v <= (min(shape[1], 16) - 1) // 2:
                power = power + spectrum[..., row, column].abs() ** 2
    kept = band_limited(images, 16)
    torch.testing.assert_close(kept.square().mean(dim=(-2, -1)), power)


def test_window_keeps_the_energy_of_noise_and_takes_the_mean():
    noise = torch.randn(40, 1, 64, 64, generator=torch.Generator().manual_seed(0)) + 5
    made = windowed(noise)
    assert made.mean(dim=(-2, -1)).abs().max() < 1e-5
    assert made.square().mean().item() == pytest.approx(1, abs=0.02)


def test_window_takes_border_jumps_away():
    """A ramp has no fine detail, yet its jump at the border fills the upper half of the band."""
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    plain, cut = (
        torch.fft.rfft2(each)[0, 0, 0, 16:].abs().sum() for each in (ramp, windowed(ramp))
    )
    assert cut < 0.01 * plain


def test_wrong_shapes_and_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"images: expected \(B, C, H, W\), got \(3, 8, 8\)"):
        windowed(torch.rand(3, 8, 8))
    with pytest.raises(InputError, match="size: expected 2 or more pixels, got 1"):
        band_limited(torch.rand(1, 3, 8, 8), 1)
    assert np.isfinite(band_limited(torch.rand(1, 3, 8, 8), 2).numpy()).all()
