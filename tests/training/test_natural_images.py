import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fopro_lab.errors import InputError
from fopro_lab.fourier import ring_energy
from fopro_lab.training.statistics import (
    STORED,
    generated_images,
    measure_natural,
    natural_images,
)


def test_what_is_stored_is_no_image():
    stored = load_file(str(STORED))
    assert sum(value.numel() for value in stored.values()) < 100
    assert ((stored["mean"] > 0.3) & (stored["mean"] < 0.7)).all()
    assert (stored["energy"][:, :-1].diff(dim=1) < 0).all()  # less and less with frequency


def test_generated_images_have_the_stored_spectrum_and_colours():
    stored = load_file(str(STORED))
    images = generated_images(64, size=64)
    assert images.shape == (64, 3, 64, 64)
    assert images.min() >= 0 and images.max() <= 1
    found = ring_energy(images, stored["edges"].tolist()).mean(dim=0)
    # Cutting at black and white takes up to a third; uniform noise is off by a factor of 20.
    assert (found / stored["energy"]).log().abs().max() < 0.6
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), stored["mean"], atol=0.08, rtol=0)


def test_generated_images_have_edges_as_photographs_have():
    # Differences of neighbours: of a normal distribution 0.8 of the root mean square, of leaves
    # much less, for most neighbours are alike and few differ much.
    images = generated_images(16, size=64).double()
    step = images.diff(dim=-1).flatten()
    assert step.abs().mean() / step.square().mean().sqrt() < 0.7


def test_the_seed_decides_the_images():
    first, again, other = (generated_images(2, size=16, seed=seed) for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)


def test_measuring_finds_what_was_put_in():
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + 0.1 * torch.randn(64, 3, 32, 32, generator=generator)
    measured = measure_natural(images)
    torch.testing.assert_close(measured["mean"], torch.full((3,), 0.5), atol=0.002, rtol=0)
    torch.testing.assert_close(measured["within"], 0.01 * torch.eye(3), atol=5e-4, rtol=0)
    torch.testing.assert_close(measured["energy"].sum(dim=1), torch.full((3,), 0.01),
                               atol=5e-4, rtol=0)  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True])
def test_images_are_read_from_folders_and_zips(tmp_path, zipped):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 5:25] = 200  # the middle square
    for name in ("a.png", "b.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"no image")
        if name.endswith("png"):
            Image.fromarray(pixels).save(tmp_path / name)
    source = tmp_path
    if zipped:
        source = tmp_path / "all.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in tmp_path.glob("*.[pt][nx][gt]"):
                archive.write(path, f"inner/{path.name}")
    images, told = natural_images(5, size=10, folder=str(source))
    assert images.shape == (2, 3, 10, 10) and told == f"2 natural images of {source.name} at 10 px"
    torch.testing.assert_close(images, torch.full_like(images, 200 / 255))


def test_a_damaged_image_is_said(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"^natural: a\.jpg: expected an image, got "):
        natural_images(2, size=8, folder=str(tmp_path))
