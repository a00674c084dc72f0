"""Frequencies and rings against slow loops in float64."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import dft

from fopro_lab.fourier import apply_gain, radial_frequency
from fopro_lab.fourier.rings import ring_edges, ring_energy, ring_gain, ring_masks, ring_parts
from tests.conftest import complaint, refuses
from tests.fourier.toys import SHAPES, seeded

sides = st.integers(1, 11)
EDGES = [0.0, 0.2, 0.5, 0.75]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_radial_frequency_equals_numpys(height, width):
    found = radial_frequency(height, width, dtype=torch.float64)
    expected = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-15, rtol=0)


def toy_images(height, width, *, seed=0):
    return torch.rand(2, 3, height, width, generator=seeded(seed), dtype=torch.float64)


def slow_ring_energy(image, edges):
    """Ring energies over the whole plane by DFT matrices, float64."""
    height, width = image.shape
    spectrum = dft(height) @ image.numpy() @ dft(width) / (height * width)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    rings = [(radius > low) & (radius <= high) for low, high in pairwise(edges)]
    return [(np.abs(spectrum[ring]) ** 2).sum() for ring in rings]


def test_ring_edges_and_masks_by_hand():
    assert ring_edges(4) == [0.0, 0.125, 0.25, 0.375, 0.5, 0.75]
    assert ring_edges(1) == [0.0, 0.5, 0.75]
    refuses(r"^count: expected 1 or more rings, got 0$", ring_edges, 0)
    masks = ring_masks(4, 4, [0, 0.25, 0.75])
    assert masks.dtype == torch.bool and masks.shape == (2, 4, 3)
    assert masks[0].int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert ring_masks(1, 10, [0.2, 0.3])[0, 0, 3]  # torch.fft.fftfreq says 0.30000000000000004


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 9))
def test_ring_masks_partition_all_but_dc(height, width, count):
    masks = ring_masks(height, width, ring_edges(count))
    times = masks.sum(dim=0)
    assert times[0, 0] == 0
    assert times.sum() == times.numel() - 1 and times.max() <= 1


def test_ring_gain_is_constant_in_each_ring_and_one_elsewhere():
    gains = torch.tensor([[2.0, 3.0], [4.0, 5.0]])
    gain = ring_gain(gains, [0.1, 0.3, 0.4], height=9, width=8)
    masks = ring_masks(9, 8, [0.1, 0.3, 0.4])
    assert gain.shape == (2, 9, 5)
    for channel, ring in np.ndindex(2, 2):
        assert (gain[channel][masks[ring]] == gains[channel, ring]).all()
    assert (gain[:, ~masks.any(dim=0)] == 1).all()


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 4), (4, 5), (3, 6)])
def test_ring_energy_equals_the_slow_transform(height, width):
    # Counting one column once instead of twice changes a ring by more than 1e-4 here.
    images = toy_images(height, width)
    expected = slow_ring_energy(images[1, 2], EDGES)
    np.testing.assert_allclose(ring_energy(images, EDGES)[1, 2], expected, atol=1e-13, rtol=0)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 9), st.integers(0, 2**16))
def test_ring_energy_sums_to_the_variance(height, width, count, seed):
    images = toy_images(height, width, seed=seed)
    total = ring_energy(images, ring_edges(count)).sum(dim=2)
    torch.testing.assert_close(total, images.var(dim=(2, 3), correction=0), atol=1e-14, rtol=1e-12)


def test_ring_energy_has_the_right_gradient_on_black_also_after_inference():
    images = torch.zeros(1, 1, 4, 13, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        ring_energy(images, EDGES)  # its masks are kept, and must serve training
    assert torch.autograd.gradcheck(lambda x: ring_energy(x, EDGES), images)


def test_ring_parts_scale_like_apply_gain():
    images = toy_images(6, 7)
    for ring, part in enumerate(ring_parts(images, EDGES)):
        gains = torch.ones(3, dtype=torch.float64)
        gains[ring] = 2.5
        expected = apply_gain(images, ring_gain(gains, EDGES, height=6, width=7))
        torch.testing.assert_close(images + 1.5 * part, expected)


def test_wrong_edges_shapes_and_types_are_refused():
    for edges in ([0.5], [0.2, 0.2], [-0.1, 0.2], [0, float("nan")]):
        refuses("edges: expected two or more increasing frequencies", ring_masks, 8, 8, edges)
    told = complaint(ring_energy, torch.rand(3, 8, 8), EDGES)
    assert told == "images: expected (B, C, H, W), got (3, 8, 8); images[None] is a batch of one"
