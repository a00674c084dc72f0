import numpy as np
import pytest
import torch
from scipy.linalg import dft

from fopro_lab.fourier import apply_gain
from tests.conftest import refuses
from tests.fourier.toys import SHAPES


def slow_apply_gain(image, gain):
    """Apply a gain by DFT matrices, float64; mirrored bins of a pair share the mean."""
    height, width = image.shape
    factor = np.empty((height, width))
    for v, u in np.ndindex(height, width):
        pair = (v, u), (-v % height, -u % width)
        factor[v, u] = np.mean([gain[row, column] for row, column in pair if column <= width // 2])
    down, across = dft(height), dft(width)
    spectrum = factor * (down @ image.numpy() @ across)
    scaled = down.conj() @ spectrum @ across.conj() / (height * width)
    return torch.from_numpy(scaled.real)


def random_case(height, width):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
    gain = torch.rand(3, height, width // 2 + 1, generator=generator, dtype=torch.float64) * 2
    return images, gain


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_apply_gain_equals_the_slow_transform(height, width):
    # 1e-12 catches a wrong pair in one bin: the smallest one moves a pixel by more than 1e-4.
    images, gain = random_case(height, width)
    expected = slow_apply_gain(images[0, 1], gain[1])
    torch.testing.assert_close(apply_gain(images, gain)[0, 1], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("fill", [None, 0.0, 0.4], ids=["random", "black", "constant"])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5)])
def test_apply_gain_has_right_gradients(fill, height, width):
    images, gain = random_case(height, width)
    images = images[:1, :1] if fill is None else torch.full_like(images[:1, :1], fill)
    gain = gain[:1].clone().requires_grad_()
    images.requires_grad_()
    assert torch.autograd.gradcheck(apply_gain, (images, gain))
    assert torch.autograd.gradgradcheck(apply_gain, (images, gain))
    apply_gain(images, gain).square().sum().backward()
    assert images.grad.isfinite().all() and gain.grad.isfinite().all()


def test_a_gain_that_is_none_is_refused():
    for gain, rule in (
        (torch.ones(4, 8, 5), r"= \(2, 3, 8, 5\) or broadcastable to it, got \(4, 8, 5\)$"),
        (torch.ones(8, 5, dtype=torch.int64), "expected a real floating type, got torch.int64"),
        (torch.full((8, 5), -0.5), "expected finite factors of 0 or more, got -0.5 to -0.5"),
        (torch.full((8, 5), torch.inf), "expected finite factors of 0 or more, got inf to inf"),
    ):
        refuses(f"^gain: .*{rule}", apply_gain, torch.rand(2, 3, 8, 8), gain)
