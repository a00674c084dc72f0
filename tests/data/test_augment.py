import math

import numpy as np
import pytest
import torch

from fopro_lab.data import augment_batch, open_dataset, pack
from fopro_lab.data.augment import (
    Augmentations,
    affine_matrices,
    apply_augmentations,
    colour_matrices,
    sample_augmentations,
)
from fopro_lab.errors import InputError, ShapeError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(height: int = 24, width: int = 32) -> torch.Tensor:
    """Two pictures with colours well inside [0.2, 0.8], so that nothing is clamped."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(0.2 * k * x + 0.3 * y + k) for k in (1, 2, 3)]
    picture = 0.5 + 0.12 * torch.stack(waves).double()
    return torch.stack([picture, picture.flip(0)])


def moved(images: torch.Tensor, **changes: float) -> torch.Tensor:
    """Apply one geometric change to all pictures, colours untouched."""
    count = len(images)
    one = torch.ones(count, dtype=torch.float64)
    values = {"scale": 1.0, "shift": 0.0, "angle": 0.0} | changes
    flip = torch.tensor([values.pop("flip_x", 1.0), values.pop("flip_y", 1.0)]).double()
    affine = affine_matrices(
        **{name: value * one for name, value in values.items()}, flip=flip.expand(count, 2)
    )
    colour = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    return apply_augmentations(images, Augmentations(affine, colour, one))


def coloured(images: torch.Tensor, *, contrast: float = 1.0, **changes: float) -> torch.Tensor:
    count = len(images)
    one = torch.ones(count, dtype=torch.float64)
    values = {"brightness": 1.0, "saturation": 1.0, "hue": 0.0} | changes
    colour = colour_matrices(**{name: value * one for name, value in values.items()})
    still = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).double().expand(count, 2, 3)
    return apply_augmentations(images, Augmentations(still, colour, contrast * one))


def torchvision_affine(images: torch.Tensor, *, angle=0.0, shift=0.0, scale=1.0) -> torch.Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as reference

    return reference.affine(
        images,
        angle=angle,
        translate=[round(shift), 0],
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )


def test_apply_augmentations_with_nothing_drawn_changes_nothing():
    torch.testing.assert_close(moved(smooth()), smooth(), atol=1e-12, rtol=0)


def test_flips_are_exact():
    torch.testing.assert_close(moved(smooth(), flip_x=-1.0), smooth().flip(3), atol=1e-12, rtol=0)
    torch.testing.assert_close(moved(smooth(), flip_y=-1.0), smooth().flip(2), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"angle": math.radians(30)}, {"angle": 30.0}),
        ({"angle": math.radians(-45)}, {"angle": -45.0}),
        ({"scale": 1.2}, {"scale": 1.2}),
        ({"scale": 0.95}, {"scale": 0.95}),
        ({"shift": 2 / 32}, {"shift": 2.0}),
    ],
)
def test_geometry_equals_torchvision(ours, theirs):
    # 1e-6; a shift of a hundredth of a pixel would be off by 1e-3.
    expected = torchvision_affine(smooth(), **theirs)
    torch.testing.assert_close(moved(smooth(), **ours), expected, atol=1e-6, rtol=0)


def test_rotation_and_flip_together_rotate_first():
    expected = torchvision_affine(smooth(), angle=20.0).flip(3)
    result = moved(smooth(), angle=math.radians(20), flip_x=-1.0)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [0.75, 1.25])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_equals_torchvision(name, factor):
    # 2e-4: the weights of grey sum to 0.9999, which we make 1; a factor off by 0.01 gives 1e-3.
    from torchvision.transforms import functional as reference

    expected = getattr(reference, f"adjust_{name}")(smooth(), factor)
    torch.testing.assert_close(coloured(smooth(), **{name: factor}), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("hue", [-0.01, 0.01])
def test_hue_goes_the_way_of_torchvision(hue):
    # Turned about the grey axis, not in HSV. The other way, the correlation is below 0; with
    # no change at all the largest difference is 0.014.
    from torchvision.transforms import functional as reference

    expected = reference.adjust_hue(smooth().float(), hue).double() - smooth()
    change = coloured(smooth(), hue=hue) - smooth()
    correlation = (change * expected).sum() / (change.norm() * expected.norm())
    assert correlation > 0.75
    assert (change - expected).abs().max() < 0.01


def test_colour_of_all_changes_at_once_equals_torchvision_in_any_order():
    from torchvision.transforms import functional as reference

    images = smooth()
    first = reference.adjust_contrast(
        reference.adjust_saturation(reference.adjust_brightness(images, 1.1), 0.8), 1.2
    )
    last = reference.adjust_brightness(
        reference.adjust_saturation(reference.adjust_contrast(images, 1.2), 0.8), 1.1
    )
    result = coloured(images, brightness=1.1, saturation=0.8, contrast=1.2)
    torch.testing.assert_close(result, first, atol=5e-4, rtol=0)
    torch.testing.assert_close(result, last, atol=5e-4, rtol=0)


def test_hue_keeps_grey_and_turns_red_to_green_in_a_third():
    grey = torch.full((2, 3, 4, 4), 0.4, dtype=torch.float64)
    torch.testing.assert_close(coloured(grey, hue=0.01), grey, atol=1e-12, rtol=0)
    red = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    red[:, 0] = 1
    torch.testing.assert_close(coloured(red, hue=1 / 3), red.roll(1, 1), atol=1e-12, rtol=0)


def test_sample_augmentations_has_the_published_ranges():
    drawn = sample_augmentations(4000, kind="published", generator=generator())
    turn, shift = drawn.affine[:, :, :2].double(), drawn.affine[:, :, 2]
    scale = turn.det().abs().rsqrt()
    angle = torch.atan2(turn[:, 0, 1] * turn[:, 1, 1].sign(), turn[:, 0, 0].abs())
    kinds = torch.stack([(scale - 1).abs() > 1e-5, shift[:, 0] != 0, angle.abs() > 1e-5])
    assert kinds.sum(0).max() == 1  # one of the three, never two
    np.testing.assert_allclose(kinds.double().mean(1), 1 / 3, atol=0.03)
    assert 0.95 - 1e-5 <= scale.min() < 0.96
    assert 1.19 < scale.max() <= 1.2 + 1e-5
    assert 0.049 < shift[:, 0].abs().max() <= 0.05
    assert shift[:, 1].abs().max() == 0
    assert 44 < math.degrees(angle.abs().max()) <= 45 + 1e-3
    assert 0.75 <= drawn.contrast.min() < 0.76
    assert 1.24 < drawn.contrast.max() <= 1.25
    flips = torch.stack([turn[:, 0, 0] < 0, turn[:, 1, 1] < 0]).double()
    np.testing.assert_allclose(flips.mean(1), 0.5, atol=0.03)
    np.testing.assert_allclose((flips[0] * flips[1]).mean(), 0.25, atol=0.03)


def test_augment_batch_flips_only():
    images = smooth()[:1].expand(64, -1, -1, -1).float()
    result = augment_batch(images, kind="flips", generator=generator())
    ways = [images[0], images[0].flip(1), images[0].flip(2), images[0].flip(1, 2)]
    distances = torch.stack([(result - way).abs().amax(dim=(1, 2, 3)) for way in ways])
    assert distances.min(dim=0).values.max() < 1e-5
    assert set(distances.argmin(dim=0).tolist()) == {0, 1, 2, 3}


def test_augment_batch_changes_each_picture_on_its_own():
    images = smooth()[:1].expand(6, -1, -1, -1).float()
    result = augment_batch(images, kind="published", generator=generator())
    assert all((result[i] - result[j]).abs().max() > 0.01 for i in range(6) for j in range(i))


def test_augment_batch_stays_in_range_and_repeats_by_seed():
    images = torch.rand(8, 3, 16, 20, generator=generator(1))
    first, again, other = (
        augment_batch(images, kind="published", generator=generator(seed)) for seed in (2, 2, 3)
    )
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augment_batch_with_none_gives_the_same_pictures_back():
    images = torch.rand(2, 3, 8, 8)
    assert augment_batch(images, kind="none", generator=generator()) is images


def test_apply_augmentations_is_differentiable():
    images = smooth(6, 6)[:1].requires_grad_()
    drawn = sample_augmentations(1, kind="published", generator=generator(4))
    assert torch.autograd.gradcheck(lambda x: apply_augmentations(x, drawn), images)


def test_augment_batch_refuses():
    with pytest.raises(InputError, match=r"^augment: expected one of none, flips, published, got"):
        augment_batch(smooth(), kind="flip", generator=generator())
    with pytest.raises(ShapeError, match=r"^images: expected \(2, 3, H, W\), got \(2, 1, 4, 4\)"):
        augment_batch(torch.rand(2, 1, 4, 4), kind="flips", generator=generator())


@pytest.mark.gpu
def test_augment_batch_is_the_same_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = pack(open_dataset("phantom", pictures=24), 32).images
    batch = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255
    on_cpu = augment_batch(batch, kind="published", generator=generator())
    on_gpu = augment_batch(batch.cuda(), kind="published", generator=generator())
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-4, rtol=0)
