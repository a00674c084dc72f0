"""Copies and near-duplicates."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fopro_lab.checks import duplicates
from fopro_lab.checks.duplicates import TURNS, find_near_duplicates, same_content
from fopro_lab.data import open_dataset, pack
from fopro_lab.data.decoding import read_image
from tests.checks.toys import texture


def test_same_content_joins_copied_files_and_files_saved_again(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Image.fromarray(texture(0)).save(tmp_path / "a/1.png")
    (tmp_path / "b/2.png").write_bytes((tmp_path / "a/1.png").read_bytes())
    Image.fromarray(texture(0)).save(tmp_path / "b/3.png", compress_level=1)
    Image.fromarray(texture(1)).save(tmp_path / "b/4.png")
    packed = pack(open_dataset(tmp_path), 32, progress=False)
    assert packed.dataset.table["image"].tolist() == ["a/1.png", "b/2.png", "b/3.png", "b/4.png"]
    assert same_content(packed).tolist() == [0, 0, 0, 3]


# What to do to an image, by numpy, for each name in TURNS.
BY_NUMPY = {
    "as it is": lambda x: x,
    "mirrored left to right": lambda x: x[:, ::-1],
    "mirrored top to bottom": lambda x: x[::-1],
    "turned by 180": lambda x: np.rot90(x, 2),
    "mirrored at a diagonal": lambda x: x.swapaxes(0, 1),
    "turned by 90": lambda x: np.rot90(x, -1),  # clockwise
    "turned by 270": lambda x: np.rot90(x, 1),
    "mirrored at the other diagonal": lambda x: np.rot90(x, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("name", TURNS)
def test_find_near_duplicates_finds_each_orientation_and_names_it(name):
    images = np.stack([texture(5), texture(6), np.ascontiguousarray(BY_NUMPY[name](texture(5)))])
    found = find_near_duplicates(images, np.arange(3))
    assert found[["first", "second", "turn"]].values.tolist() == [[0, 2, name]]
    assert found["correlation"][0] == pytest.approx(1, abs=1e-4)


def resaved(quality):
    def change(image):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return change


@pytest.mark.parametrize(
    "change",
    [
        resaved(50),
        lambda p: p.resize((32, 32), Image.Resampling.LANCZOS),
        lambda p: ImageEnhance.Brightness(p).enhance(1.2),
        lambda p: ImageEnhance.Contrast(p).enhance(0.7),
        lambda p: ImageEnhance.Color(p).enhance(0.3),
    ],
)
def test_find_near_duplicates_sees_through_what_an_archive_does(change):
    originals = [texture(seed) for seed in range(12)]
    copies = [
        np.asarray(change(Image.fromarray(pixels)).resize((64, 64), Image.Resampling.BILINEAR))
        for pixels in originals
    ]
    found = find_near_duplicates(np.stack(originals + copies), np.arange(24))
    assert sorted(zip(found["first"], found["second"], strict=True)) == [
        (n, n + 12) for n in range(12)
    ]


def test_find_near_duplicates_is_not_taken_in_by_shading():
    """Dark discs on bright skin share their shading; their own noise tells them apart."""
    axis = np.linspace(-1, 1, 64)
    disc = 120 * np.exp(-8 * (axis[:, None] ** 2 + axis**2))[..., None]
    rng = np.random.default_rng(0)
    images = np.stack([190 - disc + rng.normal(0, 8, (64, 64, 3)) for _ in range(40)])
    images = images.clip(0, 255).astype(np.uint8)
    grey = images.mean(axis=-1).reshape(40, -1)
    assert np.corrcoef(grey).min() > 0.9  # a plain correlation would call all of them alike
    assert find_near_duplicates(images, np.arange(40)).empty


def test_every_pair_is_compared_across_blocks_and_flat_images_are_none(monkeypatch):
    images = np.stack([texture(seed, side=32) for seed in range(9)])
    images[[4, 8]] = images[[1, 1]]
    whole = find_near_duplicates(images, np.arange(9))
    monkeypatch.setattr(duplicates, "BLOCK", 2)
    parts = find_near_duplicates(images, np.arange(9))
    pairs = {(1, 4), (1, 8), (4, 8)}
    for found in (whole, parts):
        assert set(zip(found["first"], found["second"], strict=True)) == pairs
    assert find_near_duplicates(np.full((3, 32, 32, 3), 77, np.uint8), np.arange(3)).empty
    assert find_near_duplicates(texture(0)[None], np.array([0])).empty


@pytest.mark.real
def test_a_photograph_of_ham10000_is_filed_under_two_lesions(shared):
    folder = shared / "data/ham10000/images"
    names = sorted(path.name for path in folder.glob("*.jpg"))
    chosen = [*names[::50], "ISIC_0025226.jpg", "ISIC_0030074.jpg"]
    images = np.stack([read_image(folder / name, size=64) for name in chosen])
    found = find_near_duplicates(images, np.arange(len(chosen)))
    first, second, bits = found.loc[0, ["first", "second", "bits"]]
    assert (chosen[first], chosen[second]) == ("ISIC_0025226.jpg", "ISIC_0030074.jpg")
    assert bits == 5 and found["correlation"][0] == pytest.approx(0.957, abs=0.005)
    assert len(found) == 1
