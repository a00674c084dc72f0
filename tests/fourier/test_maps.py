import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.errors import ShapeError
from fopro_lab.fourier.prompt import coarse_shape, mirror, resample

sides = st.integers(1, 13)


def random_map(rows, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(coarse_shape(rows), generator=generator, dtype=torch.float64)


def slow_resample(coarse, height, width):
    """Read a map bin by bin, in float64: bilinear, wrapping over the vertical frequency."""
    rows, columns = coarse.shape
    result = torch.empty(height, width // 2 + 1, dtype=torch.float64)
    for v in range(height):
        for u in range(width // 2 + 1):
            down, across = (v / height) % 1 * rows, u / width * 2 * (columns - 1)
            top, left = math.floor(down), min(math.floor(across), columns - 2)
            b, r = down - top, across - left
            result[v, u] = (
                (1 - b) * (1 - r) * coarse[top % rows, left]
                + b * (1 - r) * coarse[(top + 1) % rows, left]
                + (1 - b) * r * coarse[top % rows, left + 1]
                + b * r * coarse[(top + 1) % rows, left + 1]
            )
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), sides, sides)
def test_resample_equals_the_loop(rows, height, width):
    coarse = random_map(rows)
    found = resample(coarse, height=height, width=width)
    torch.testing.assert_close(found, slow_resample(coarse, height, width), atol=1e-12, rtol=0)


@pytest.mark.parametrize("rows", [2, 4, 16])
def test_resample_at_its_own_size_is_the_map(rows):
    coarse = random_map(rows)
    torch.testing.assert_close(resample(coarse, height=rows, width=rows), coarse)


def test_a_map_means_the_same_at_another_size():
    coarse = random_map(16)
    small, large = (resample(coarse, height=side, width=side) for side in (64, 128))
    torch.testing.assert_close(large[::2, ::2][:64, :33], small)  # the same cycles per pixel


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), sides, sides, st.integers(0, 2**16))
def test_resample_keeps_the_bounds(rows, height, width, seed):
    coarse = random_map(rows, seed=seed).clamp(-1, 1)
    assert resample(coarse, height=height, width=width).abs().max() <= 1 + 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), sides, sides)
def test_a_mirrored_map_is_symmetric_where_one_frequency_has_two_bins(rows, height, width):
    gain = resample(mirror(random_map(rows)), height=height, width=width)
    opposite = gain.flip(0).roll(1, 0)
    columns = [0, width // 2] if width % 2 == 0 else [0]
    torch.testing.assert_close(gain[:, columns], opposite[:, columns], atol=1e-12, rtol=0)


def test_mirror_takes_the_mean_in_two_columns_only():
    coarse = random_map(6)
    found = mirror(coarse)
    for row in range(6):
        for column in range(4):
            pair = (coarse[row, column] + coarse[-row % 6, column]) / 2
            expected = pair if column in (0, 3) else coarse[row, column]
            torch.testing.assert_close(found[row, column], expected)
    torch.testing.assert_close(mirror(found), found)


def test_resample_has_the_right_gradient():
    coarse = random_map(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: resample(mirror(m), height=4, width=7), coarse)


@pytest.mark.parametrize("shape", [(4,), (4, 4), (1, 1)])
def test_resample_refuses_what_is_no_coarse_map(shape):
    with pytest.raises(ShapeError, match=r"^coarse: expected \(\.\.\., R, R // 2 \+ 1\), got \("):
        resample(torch.zeros(shape), height=4, width=4)
