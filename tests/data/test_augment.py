"""Both modes as a whole; what they are made of is tested in test_warp and test_jitter."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fopro_lab.data import augment_batch, open_dataset, pack
from fopro_lab.data.augment import (
    Augmentations,
    apply_augmentations,
    float_images,
    sample_augmentations,
)
from fopro_lab.errors import InputError, ShapeError

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


def torchvision_geometry(image: torch.Tensor, drawn: Augmentations, row: int) -> torch.Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as reference

    return reference.affine(
        image,
        angle=float(drawn.angle[row]),
        translate=[round(float(drawn.shift[row]) * image.shape[-1]), 0],
        scale=float(drawn.scale[row]),
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.NEAREST,
        fill=[0.0],
    )


def torchvision_recipe(image: torch.Tensor, drawn: Augmentations, row: int) -> torch.Tensor:
    """Apply the published operations one after the other to one image."""
    from torchvision.transforms.v2 import functional as reference

    operations = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    image = torchvision_geometry(image, drawn, row)
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
    from_floats = apply_augmentations(images, drawn, mode="exact")
    torch.testing.assert_close(from_floats, expected, atol=3e-6, rtol=0)


def test_exact_takes_the_same_neighbours_as_torchvision():
    # To the bit: a single pixel from the wrong side of a tie is caught.
    count = 150
    pixels, drawn = noise(count, 40, 40), plain_colours(published(count, seed=5))
    drawn = drawn._replace(flip=torch.ones(count, 2))
    result = apply_augmentations(pixels, drawn, mode="exact")
    images = float_images(pixels)
    for row in range(count):
        assert torch.equal(result[row], torchvision_geometry(images[row], drawn, row)), row


@pytest.mark.parametrize("angle", [0.0, 45.0, -45.0, 90.0, 30.0])
@pytest.mark.parametrize("scale", [0.5, 2.0, 1.0])
def test_exact_settles_ties_as_torchvision(angle, scale):
    # Half of the positions at scale 2 lie exactly between two pixels.
    count = 2
    pixels, drawn = noise(count, 16, 18), plain_colours(still(published(count)))
    value = torch.ones(count, dtype=torch.float64)
    drawn = drawn._replace(scale=scale * value, angle=angle * value, flip=torch.ones(count, 2))
    result = apply_augmentations(pixels, drawn, mode="exact")
    for row in range(count):
        assert torch.equal(result[row], torchvision_geometry(float_images(pixels)[row], drawn, row))


@pytest.mark.parametrize("mode", MODES)
def test_each_image_is_changed_as_if_it_were_alone(mode):
    pixels, drawn = noise(6, 20, 24), published(6)
    together = apply_augmentations(pixels, drawn, mode=mode)
    alone = [
        apply_augmentations(pixels[i : i + 1], drawn.rows(slice(i, i + 1)), mode=mode)
        for i in range(6)
    ]
    assert torch.equal(together, torch.cat(alone))


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


def differences(pixels: torch.Tensor, drawn: Augmentations) -> tuple[float, float]:
    fused, exact = (255 * apply_augmentations(pixels, drawn, mode=mode) for mode in MODES)
    difference = (fused - exact).abs()
    return float(difference.mean()), float(difference.max())


def check_documented(pixels: torch.Tensor, table: dict[str, tuple[float, float]]) -> None:
    # 2 % of the mean and half a grey level of the largest; bilinear against nearest alone is a
    # mean of 1.9, a colour operation left out is over 10.
    drawn = published(len(pixels))
    parts = {"geometry": plain_colours(drawn), "colours": still(drawn), "both": drawn}
    for name, (mean, largest) in table.items():
        found = differences(pixels, parts[name])
        assert found[0] == pytest.approx(mean, rel=0.02), name
        assert found[1] == pytest.approx(largest, abs=0.6), name


def test_fused_differs_from_exact_as_documented():
    images = pack(open_dataset("phantom", images=96), 64, progress=False).images
    table = {"geometry": (1.86, 131), "colours": (0.75, 26), "both": (2.23, 145)}
    check_documented(torch.from_numpy(images[:].copy()), table)


@pytest.mark.real
def test_fused_differs_from_exact_as_documented_on_real_images(shared: Path, tmp_path):
    dataset = open_dataset(str(shared / "data" / "ham10000"), images=256)
    images = pack(dataset, 224, cache=tmp_path, progress=False).images
    table = {"geometry": (0.69, 127), "colours": (0.64, 23), "both": (1.11, 152)}
    check_documented(torch.from_numpy(images[:].copy()), table)


def test_sample_augmentations_has_the_published_ranges():
    drawn = published(4000)
    kinds = torch.stack([drawn.scale != 1, drawn.shift != 0, drawn.angle != 0])
    assert (kinds.sum(0) == 1).all()  # one of the three, never two
    np.testing.assert_allclose(kinds.double().mean(1), 1 / 3, atol=0.03)
    assert 0.95 <= drawn.scale.min() < 0.96 and 1.19 < drawn.scale.max() <= 1.2
    assert 0.049 < drawn.shift.abs().max() <= 0.05
    assert 44 < drawn.angle.abs().max() <= 45
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


def test_sample_augmentations_draws_nothing_for_none_and_only_flips_for_flips():
    for kind in ("none", "flips"):
        drawn = sample_augmentations(50, kind=kind, generator=generator())
        for part, nothing in zip(drawn, plain_colours(still(drawn)), strict=True):
            assert torch.equal(part, nothing)
        assert (drawn.flip < 0).any() == (kind == "flips")


def test_float_images_are_pixels_over_255_to_the_bit():
    pixels = noise(3, 5, 7)
    expected = pixels.numpy().astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(float_images(pixels), expected)


@pytest.mark.parametrize("mode", MODES)
def test_augment_batch_flips_only(mode):
    images = float_images(noise(1, 12, 10)).expand(64, -1, -1, -1)
    result = augment_batch(images, kind="flips", generator=generator(), mode=mode)
    ways = [images[0], images[0].flip(1), images[0].flip(2), images[0].flip(1, 2)]
    distances = torch.stack([(result - way).abs().amax(dim=(1, 2, 3)) for way in ways])
    assert distances.min(dim=0).values.max() < 1e-6
    assert set(distances.argmin(dim=0).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("mode", MODES)
def test_augment_batch_stays_in_range_and_repeats_by_seed(mode):
    images = torch.rand(8, 3, 16, 20, generator=generator(1))
    first, again, other = (
        augment_batch(images, kind="published", generator=generator(seed), mode=mode)
        for seed in (2, 2, 3)
    )
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augment_batch_with_none_gives_the_same_images_back():
    images = torch.rand(2, 3, 8, 8)
    assert augment_batch(images, kind="none", generator=generator()) is images


@pytest.mark.parametrize("mode", MODES)
def test_apply_augmentations_takes_an_empty_share(mode):
    result = apply_augmentations(noise(0, 6, 8), published(0), mode=mode)
    assert result.shape == (0, 3, 6, 8)


@pytest.mark.parametrize("mode", MODES)
def test_autocast_changes_no_bit(mode):
    # Explorations fetch their batches inside it; in bfloat16 images would be off by 0.004.
    pixels, drawn = noise(6, 20, 24), published(6)
    expected = apply_augmentations(pixels, drawn, mode=mode)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(apply_augmentations(pixels, drawn, mode=mode), expected)


def test_augment_refuses():
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(InputError, match=r"^augment: expected one of none, flips, published, got"):
        augment_batch(images, kind="flip", generator=generator())
    with pytest.raises(InputError, match=r"^augment_mode: expected one of fused, exact, got 'no'"):
        augment_batch(images, kind="flips", generator=generator(), mode="no")
    with pytest.raises(ShapeError, match=r"^images: expected \(2, 3, H, W\), got \(2, 1, 4, 4\)"):
        augment_batch(torch.rand(2, 1, 4, 4), kind="flips", generator=generator())
    with pytest.raises(ShapeError, match=r"^images: expected \(3, H, W, 3\), got \(2, 4, 4, 3\)"):
        apply_augmentations(noise(2, 4, 4), published(3))
    with pytest.raises(InputError, match=r"^images: expected uint8 or a floating type, got torch"):
        apply_augmentations(torch.ones(2, 3, 4, 4, dtype=torch.int64), published(2))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_augment_batch_is_the_same_on_a_gpu(mode):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = pack(open_dataset("phantom", images=48), 32, progress=False).images
    pixels, drawn = torch.from_numpy(images[:].copy()), published(48)
    on_cpu = apply_augmentations(pixels, drawn, mode=mode)
    on_gpu = apply_augmentations(pixels.cuda(), drawn, mode=mode).cpu()
    # Positions round otherwise there: a few pixels may come from the other side of a tie.
    assert ((on_gpu - on_cpu).abs() > 1e-4).double().mean() < 1e-3
    assert torch.equal(float_images(pixels), float_images(pixels.cuda()).cpu())


def test_images_worked_on_together_are_those_worked_on_one_by_one(monkeypatch):
    # What a GPU does: all images of a batch in one chunk, here on the CPU.
    from fopro_lab.data import augment

    pixels, drawn = noise(9, 20, 24), published(9)
    one_by_one = {mode: apply_augmentations(pixels, drawn, mode=mode) for mode in MODES}
    monkeypatch.setattr(augment, "chunk_size", lambda images: len(images))
    for mode, expected in one_by_one.items():
        together = apply_augmentations(pixels, drawn, mode=mode)
        torch.testing.assert_close(together, expected, atol=2e-6, rtol=0)
