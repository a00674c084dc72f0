import math

import pytest
import torch

from fopro_lab.data.augment import (
    fetch_bilinear,
    framed_planes,
    inverse_affine,
    nearest_index,
    source_lines,
    source_positions,
)


def smooth(height: int = 24, width: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(0.2 * k * x + 0.3 * y + k) for k in (1, 2, 3)]
    image = 0.5 + 0.12 * torch.stack(waves).double()
    return torch.stack([image, image.flip(0)])


def moved(images: torch.Tensor, *, flip: tuple[int, int] = (1, 1), **changes: float):
    values = {"scale": 1.0, "shift": 0.0, "angle": 0.0} | changes
    count, size = len(images), (images.shape[2], images.shape[3])
    affine = torch.tensor(inverse_affine(**values)).to(images).view(1, 2, 3).expand(count, 2, 3)
    lines = source_lines(affine, torch.tensor(flip).to(images).expand(count, 2), size=size)
    found = fetch_bilinear(framed_planes(images), source_positions(*lines), whole=False)
    return found.transpose(0, 1).reshape(images.shape)


def torchvision_affine(images: torch.Tensor, *, angle=0.0, shift=0.0, scale=1.0) -> torch.Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as reference

    return reference.affine(
        images, angle=angle, translate=[round(shift), 0], scale=scale, shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )  # fmt: skip


def test_framed_planes_keep_pixels_and_frame_when_filled_again():
    pixels = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    planes = framed_planes(255 - pixels)
    assert framed_planes(pixels, out=planes) is planes
    assert torch.equal(planes[:, :, 1:-2, 1:-2], pixels.permute(3, 0, 1, 2).float())
    assert planes.sum() == pixels.sum()
    assert torch.equal(framed_planes(pixels.permute(0, 3, 1, 2).float()), planes)


def test_bilinear_with_nothing_to_do_changes_nothing():
    torch.testing.assert_close(moved(smooth()), smooth(), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"angle": 30.0},
        {"angle": -45.0},
        {"scale": 1.2},
        {"scale": 0.95},
        {"scale": 0.2},
        {"shift": 2.0},
        {"shift": 40.0},
        {"angle": 20.0, "scale": 1.1, "shift": -3.0},
    ],
)
def test_bilinear_equals_torchvision(changes):
    # torchvision's grid begins in single precision. A shift of a hundred-thousandth of a pixel
    # would be off by 1e-6.
    expected = torchvision_affine(smooth(), **changes)
    torch.testing.assert_close(moved(smooth(), **changes), expected, atol=5e-7, rtol=0)


def test_rotation_and_flip_together_rotate_first():
    expected = torchvision_affine(smooth(), angle=20.0)
    result = moved(smooth(), angle=20.0, flip=(-1, 1))
    torch.testing.assert_close(result, expected.flip(3), atol=5e-7, rtol=0)
    result = moved(smooth(), angle=20.0, flip=(-1, -1))
    torch.testing.assert_close(result, expected.flip(2, 3), atol=5e-7, rtol=0)


def test_fetch_bilinear_equals_a_slow_reference():
    images = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    positions = torch.stack([torch.rand(1, 5, 6).double() * 7, torch.rand(1, 5, 6).double() * 6])
    result = fetch_bilinear(framed_planes(images), positions.clone(), whole=False).view(3, 5, 6)
    for row in range(5):
        for column in range(6):
            x, y = (float(part[0, row, column]) - 1 for part in positions)
            expected = torch.zeros(3, dtype=torch.float64)
            for j in (math.floor(x), math.floor(x) + 1):
                for i in (math.floor(y), math.floor(y) + 1):
                    if 0 <= j < 6 and 0 <= i < 5:
                        weight = (1 - abs(x - j)) * (1 - abs(y - i))
                        expected += weight * images[0, :, i, j]
            torch.testing.assert_close(result[:, row, column], expected, atol=1e-12, rtol=0)


def test_nearest_index_of_several_images_is_each_one_s_and_outside_is_black():
    affine = torch.tensor([[1.0, 0, 9, 0, 1, 0], [1, 0, 0, 0, 1, 0]]).view(2, 2, 3)
    planes = torch.zeros(3, 2, 6, 7)
    index = nearest_index(affine, torch.tensor([[1.0, 1.0], [1.0, -1.0]]), planes=planes)
    far, turned = index.view(2, 3, 4)
    assert (far == 0).all()
    assert turned.tolist() == [[42 + 7 * row + column for column in (1, 2, 3, 4)]
                               for row in (3, 2, 1)]  # fmt: skip
