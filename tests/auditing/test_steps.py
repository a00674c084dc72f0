import pytest
import torch

from fopro_lab.checks.pipeline import RECIPE, augment_steps, draw_alone
from fopro_lab.data.augment import apply_augmentations, sample_augmentations

FIELDS = {"flips": "flip", "scale": "scale", "shift": "shift", "rotation": "angle",
          "colour jitter": "factors"}  # fmt: skip


@pytest.mark.parametrize(("step", "field"), FIELDS.items())
def test_each_operation_is_alone_and_has_the_range_of_the_recipe(step, field):
    generator = torch.Generator().manual_seed(0)
    drawn = draw_alone(4000, generator)[step]
    nothing = sample_augmentations(4000, kind="none", generator=generator)
    recipe = sample_augmentations(12000, kind="published", generator=generator)
    for name in set(FIELDS.values()) - {field}:
        assert torch.equal(getattr(drawn, name), getattr(nothing, name)), name
    mine, theirs = getattr(drawn, field), getattr(recipe, field)
    # 4,000 even draws come within 0.2 % of both ends.
    torch.testing.assert_close(mine.amax(0), theirs.amax(0), rtol=0.01, atol=2e-4)
    torch.testing.assert_close(mine.amin(0), theirs.amin(0), rtol=0.01, atol=2e-4)


def test_both_modes_take_the_same_draws():
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    made = {(mode, step): images for mode, step, images in augment_steps(pixels, seed=3)}
    assert len(made) == 12 and all(images.shape == (3, 3, 16, 16) for images in made.values())
    for step in ("flips", "shift"):  # whole pixels: nothing to interpolate
        torch.testing.assert_close(made["fused", step], made["exact", step], atol=1e-5, rtol=0)
    assert not torch.allclose(made["fused", "rotation"], made["exact", "rotation"], atol=0.01)


def test_the_recipe_is_the_published_one():
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(3)
    draw_alone(3, generator)
    drawn = sample_augmentations(3, kind="published", generator=generator)
    (made,) = (
        images
        for mode, step, images in augment_steps(pixels, seed=3)
        if (mode, step) == ("exact", RECIPE)
    )
    assert torch.equal(made, apply_augmentations(pixels, drawn, mode="exact"))
