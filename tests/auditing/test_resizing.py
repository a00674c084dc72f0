from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fopro_lab.checks import audit_pipeline
from fopro_lab.checks.pipeline import (
    BAD_EXAMPLE,
    full_image,
    resize_steps,
    resized_side,
)
from fopro_lab.data import open_dataset, pack
from fopro_lab.data.benchmarks import ArrayReader
from fopro_lab.data.decoding import read_image
from fopro_lab.errors import InputError
from tests.auditing.toys import texture


@pytest.fixture
def dataset(tmp_path):
    for name, ending in (("a", "jpg"), ("b", "png")):
        (tmp_path / name).mkdir()
        Image.fromarray(texture(1, side=200)[:150]).save(tmp_path / name / f"1.{ending}")
    return open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["box", "bilinear", "bicubic", "lanczos"])
def test_resize_steps_are_what_a_pack_would_hold(dataset, name):
    steps = resize_steps(full_image(dataset, 0), 24)
    packed = read_image(dataset.table["path"][0], size=24, interpolation=name)
    np.testing.assert_array_equal(steps[name], packed)


def test_bad_example_takes_the_nearest_pixels_alone():
    """At a third of the size a point falls on a pixel's centre: every third pixel is kept."""
    full = texture(2, side=96)
    np.testing.assert_array_equal(resize_steps(full, 32)[BAD_EXAMPLE], full[1::3, 1::3])


def test_full_image_obeys_the_camera_and_generated_ones_are_drawn(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6  # held upright
        image = Image.fromarray(texture(1, side=64)[:40])
        image.save(tmp_path / name / "1.png", exif=exif)
    assert full_image(open_dataset(tmp_path), 0).shape == (64, 40, 3)
    phantom = open_dataset("phantom", images=24)
    np.testing.assert_array_equal(full_image(phantom, 3), phantom.read(3, 64))


@pytest.fixture
def arrays(tmp_path):
    """Return 24 images of 28 pixels that lie in one array, as MedMNIST's do."""
    pixels = np.stack([texture(seed, side=32)[:28, :28] for seed in range(24)])
    np.save(tmp_path / "images.npy", pixels)
    places = np.stack([np.zeros(24, dtype=int), np.arange(24)], axis=1)
    reader = ArrayReader((str(tmp_path / "images.npy"),), places)
    return replace(open_dataset("phantom", images=24), name="arrays", reader=reader), pixels


def test_full_image_of_an_array_is_the_array(arrays):
    """Enlarged to the phantom's 64 pixels, it would hold no frequency above 28/64 of its own."""
    dataset, pixels = arrays
    np.testing.assert_array_equal(full_image(dataset, 5), pixels[5])
    np.testing.assert_array_equal(full_image(dataset.subset([9, 4]), 1), pixels[4])
    packed = pack(dataset, 28, progress=False)
    assert resized_side(packed, 0) == 10  # three eighths of 28
    audit = audit_pipeline(packed, np.arange(24), edges=[0, 0.25, 0.5], images=4)
    assert audit.groupby("stage")["size"].first()["resize"] == 10


def test_a_reader_that_knows_no_own_size_is_told_what_it_lacks(arrays):
    dataset, _ = arrays
    plain = replace(dataset, reader=lambda row, size: np.zeros((size, size, 3), np.uint8))
    told = r"^arrays: expected a reader with a method native\(row\)"
    with pytest.raises(InputError, match=told):
        full_image(plain, 0)


def test_resized_side_is_the_packs_or_less_than_a_small_image(dataset):
    for size, side in ((32, 32), (149, 149), (150, 56), (224, 56)):
        assert resized_side(pack(dataset, size, progress=False), 0) == side
