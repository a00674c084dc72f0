"""Both modes of augmentation, held to torchvision."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fopro_lab.data import (
    apply_augmentations,
    float_images,
    open_dataset,
    pack,
    sample_augmentations,
)
from fopro_lab.data.augment import Augmentations

MODES = ("fused", "exact")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def published(count: int, seed: int = 0) -> Augmentations:
    return sample_augmentations(count, kind="published", generator=generator(seed))


def plain_colours(drawn: Augmentations) -> Augmentations:
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    return drawn._replace(factors=neutral.expand(len(drawn.scale), 4))


def still(drawn: Augmentations) -> Augmentations:
    nothing = torch.zeros_like(drawn.scale)
    return drawn._replace(scale=nothing + 1, shift=nothing, angle=nothing)


def noise(count: int, height: int, width: int) -> torch.Tensor:
    """Images in which every wrong pixel shows."""
    shape = (count, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(7))


def torchvision_recipe(
    image: torch.Tensor, drawn: Augmentations, row: int, *, filter: str = "nearest"
) -> torch.Tensor:
    """Apply the published operations one after the other to one image."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as reference

    operations = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    image = reference.affine(
        image, angle=float(drawn.angle[row]), scale=float(drawn.scale[row]), shear=[0.0, 0.0],
        translate=[round(float(drawn.shift[row]) * image.shape[-1]), 0],
        interpolation=InterpolationMode(filter),
    )  # fmt: skip
    for number in drawn.order[row].tolist():
        image = operations[number](image, float(drawn.factors[row, number]))
    if drawn.flip[row, 0] < 0:
        image = reference.horizontal_flip(image)
    return reference.vertical_flip(image) if drawn.flip[row, 1] < 0 else image


@pytest.mark.parametrize(("height", "width"), [(48, 48), (31, 40), (224, 224)])
def test_exact_equals_torchvision_image_by_image(height, width):
    # 3e-6 on [0, 1]: single precision in another order of sums. A brightness off by 1e-5, a hue
    # off by 1e-6 of a turn, one wrong neighbour or two operations exchanged are beyond it.
    count = 24 if height < 100 else 6
    pixels, drawn = noise(count, height, width), published(count, seed=height)
    result = apply_augmentations(pixels, drawn, mode="exact")
    images = float_images(pixels)
    expected = torch.stack([torchvision_recipe(images[i], drawn, i) for i in range(count)])
    torch.testing.assert_close(result, expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("mode", MODES)
def test_each_image_is_changed_as_if_it_were_alone(mode, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pixels, drawn = noise(6, 20, 24).to(device), published(6)
    together = apply_augmentations(pixels, drawn, mode=mode)
    alone = [
        apply_augmentations(pixels[i : i + 1], drawn.rows(slice(i, i + 1)), mode=mode)
        for i in range(6)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_fused_differs_from_exact_as_documented():
    # 2 % of the mean and half a grey level of the largest; bilinear against nearest alone is a
    # mean of 1.9, a colour operation left out is over 10.
    images = pack(open_dataset("phantom", images=96), 64, progress=False).images
    pixels, drawn = torch.from_numpy(images[:].copy()), published(96)
    for part, mean, largest in (
        (plain_colours(drawn), 1.86, 131), (still(drawn), 0.75, 26), (drawn, 2.23, 145)
    ):  # fmt: skip
        fused, exact = (255 * apply_augmentations(pixels, part, mode=mode) for mode in MODES)
        difference = (fused - exact).abs()
        assert float(difference.mean()) == pytest.approx(mean, rel=0.02)
        assert float(difference.max()) == pytest.approx(largest, abs=0.6)


def test_sample_augmentations_has_the_published_ranges():
    drawn = published(4000)
    kinds = torch.stack([drawn.scale != 1, drawn.shift != 0, drawn.angle != 0])
    assert (kinds.sum(0) == 1).all()  # one of the three, never two
    np.testing.assert_allclose(kinds.double().mean(1), 1 / 3, atol=0.03)
    assert 0.95 <= drawn.scale.min() < 0.96 and 1.19 < drawn.scale.max() <= 1.2
    assert 0.049 < drawn.shift.abs().max() <= 0.05 and 44 < drawn.angle.abs().max() <= 45
    strengths = drawn.factors - torch.tensor([1.0, 1.0, 1.0, 0.0])
    low, high = strengths.min(0).values, strengths.max(0).values
    bounds = torch.tensor([0.25, 0.25, 0.25, 0.01], dtype=torch.float64)
    assert ((-bounds <= low) & (low < -0.98 * bounds)).all()
    assert ((0.98 * bounds < high) & (high <= bounds)).all()
    flips = (drawn.flip < 0).double()
    np.testing.assert_allclose(flips.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose((flips[:, 0] * flips[:, 1]).mean(), 0.25, atol=0.03)
    orders, counts = torch.unique(drawn.order, dim=0, return_counts=True)
    assert len(orders) == math.factorial(4)
    assert counts.min() > 110  # 167 expected, standard error 13


@pytest.mark.parametrize("mode", MODES)
def test_autocast_changes_no_bit(mode):
    # Prompt training fetches its batches inside it; in bfloat16 images would be off by 0.004.
    pixels, drawn = noise(6, 20, 24), published(6)
    expected = apply_augmentations(pixels, drawn, mode=mode)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(apply_augmentations(pixels, drawn, mode=mode), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_augmentations_are_the_same_on_a_gpu(mode):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = pack(open_dataset("phantom", images=48), 32, progress=False).images
    pixels, drawn = torch.from_numpy(images[:].copy()), published(48)
    on_cpu = apply_augmentations(pixels, drawn, mode=mode)
    on_gpu = apply_augmentations(pixels.cuda(), drawn, mode=mode).cpu()
    # Positions round otherwise there: a few pixels may come from the other side of a tie.
    assert ((on_gpu - on_cpu).abs() > 1e-4).double().mean() < 1e-3
    assert torch.equal(float_images(pixels), float_images(pixels.cuda()).cpu())


def smooth(height: int = 24, width: int = 32) -> torch.Tensor:
    """Two images ``(3, 2, H, W)`` with colours well inside [0.2, 0.8], so that nothing is cut."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = 0.5 + 0.12 * torch.stack([torch.sin(0.2 * k * x + 0.3 * y + k) for k in (1, 2, 3)])
    return torch.stack([image, image.flip(0)], dim=1).double()


@pytest.mark.parametrize(
    "changes",
    [{"angle": 30.0}, {"angle": -45.0}, {"scale": 1.2}, {"scale": 0.2}, {"shift": 1.25},
     {"angle": 20.0, "scale": 1.1}, {}],
)  # fmt: skip
def test_fused_geometry_equals_torchvision_bilinear_then_flipped(changes):
    # A shift by a thousandth of a pixel is off by 1e-4.
    pixels = (255 * smooth().permute(1, 2, 3, 0)).round().byte()
    drawn = still(plain_colours(published(2)))._replace(flip=torch.tensor([[1.0, 1], [-1, 1]]))
    drawn = drawn._replace(**{name: torch.full((2,), v).double() for name, v in changes.items()})
    images = float_images(pixels)
    expected = [torchvision_recipe(images[k], drawn, k, filter="bilinear") for k in (0, 1)]
    torch.testing.assert_close(
        apply_augmentations(pixels, drawn), torch.stack(expected), atol=1e-5, rtol=0
    )


class Products(TorchDispatchMode):
    """Notes the shapes of all matrix products within."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple] = set()

    def __torch_dispatch__(self, call, types, arguments=(), named=None):
        if call.overloadpacket.__name__ in ("addmm", "addmv", "baddbmm", "bmm", "dot", "mm", "mv"):
            self.shapes.add((call, *(tuple(part.shape) for part in arguments)))
        return call(*arguments, **(named or {}))


@pytest.mark.parametrize("mode", MODES)
def test_the_batch_chooses_no_kernel_of_a_matrix_product(mode):
    # With matrix units the kernels of two sizes differ by 6e-8; elsewhere no result would show it.
    pixels, drawn = noise(6, 20, 24), published(6)
    with Products() as together:
        apply_augmentations(pixels, drawn, mode=mode)
    with Products() as alone:
        for row in range(6):
            part = slice(row, row + 1)
            apply_augmentations(pixels[part], drawn.rows(part), mode=mode)
    assert together.shapes == alone.shapes and alone.shapes


@pytest.mark.parametrize("mode", MODES)
def test_flips_and_shifts_by_whole_pixels_lose_nothing(mode):
    pixels, drawn = noise(40, 20, 24), plain_colours(published(40))
    drawn = drawn._replace(scale=torch.ones(40).double(), angle=torch.zeros(40).double())
    shifts = (drawn.shift * 24).round().long().tolist()
    assert set(shifts) == {-1, 0, 1}
    result = apply_augmentations(pixels, drawn, mode=mode)
    for row, (image, shift) in enumerate(zip(float_images(pixels), shifts, strict=True)):
        expected = image.roll(shift, 2)
        if shift:
            expected[:, :, 0 if shift > 0 else -1] = 0
        flips = [axis for axis, way in ((2, 0), (1, 1)) if drawn.flip[row, way] < 0]
        # 1e-6: a matrix of ones and a division by 255 round in another order
        torch.testing.assert_close(result[row], expected.flip(flips), atol=1e-6, rtol=0)
