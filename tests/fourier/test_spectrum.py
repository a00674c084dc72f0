import math

import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.rings import (
    at_least_single,
    cached_grid,
    check_images,
    frequencies,
    radial_frequency,
)

SHAPES = [(4, 4), (5, 4), (4, 5), (5, 3), (6, 7)]


def signed(index, count):
    return index / count if 2 * index < count else (index - count) / count


def test_frequencies_are_signed_and_correctly_rounded():
    assert frequencies(4).tolist() == [0.0, 0.25, -0.5, -0.25]
    assert frequencies(5).tolist() == [0.0, 0.2, 0.4, -0.4, -0.2]
    assert frequencies(10)[3].item() == 0.3  # torch.fft.fftfreq says 0.30000000000000004


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_radial_frequency_equals_the_loop(height, width):
    found = radial_frequency(height, width, dtype=torch.float64)
    assert found.shape == (height, width // 2 + 1)
    for v in range(height):
        for u in range(width // 2 + 1):
            expected = math.sqrt(signed(v, height) ** 2 + signed(u, width) ** 2)
            assert found[v, u].item() == pytest.approx(expected, abs=1e-15)


def test_radial_frequency_ends_at_the_corner():
    assert radial_frequency(8, 8).max().item() == pytest.approx(math.sqrt(0.5), abs=1e-7)
    assert radial_frequency(1, 1).tolist() == [[0.0]]


def test_radial_frequency_refuses_no_pixels():
    with pytest.raises(
        ShapeError, match=r"^height, width: expected 1 or more pixels, got \(0, 4\)"
    ):
        radial_frequency(0, 4)


def test_check_images_refuses_bytes_and_single_images():
    with pytest.raises(ShapeError, match=r"^images: expected \(B, C, H, W\), got \(3, 8, 8\)"):
        check_images(torch.rand(3, 8, 8))
    with pytest.raises(InputError, match=r"^images: expected a real floating .* got torch.uint8"):
        check_images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_at_least_single_keeps_double():
    assert at_least_single(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32
    assert at_least_single(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_what_inference_cached_serves_training():
    grid = cached_grid(lambda count: torch.arange(float(count)))
    with torch.inference_mode():
        first = grid(3)
    weight = torch.ones(3, requires_grad=True)
    (weight * grid(3)).sum().backward()
    assert grid(3) is first and weight.grad.tolist() == [0.0, 1.0, 2.0]
