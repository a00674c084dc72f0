"""Statistics that a teacher expects, and the natural images they come from."""

import math
import zipfile

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from fopro_lab.fourier import ring_energy
from fopro_lab.models import load_teacher, wrap_teacher
from fopro_lab.training import natural_distance, reference_of, statistics
from fopro_lab.training.statistics import (
    FLOOR,
    STORED,
    Moments,
    Reference,
    generated_images,
    natural_images,
    watched,
)
from tests.conftest import complaint
from tests.models.toys import norm_teacher, normal, pool_teacher, toy_images


def slow_distance(layers):
    """(m - M)^2 / V + (sqrt(v / V) - 1)^2, number by number; mean over channels, then layers."""
    found = []
    for layer, values in layers:
        channels = []
        for c in range(values.shape[1]):
            numbers = values[:, c].flatten().tolist()
            mean = sum(numbers) / len(numbers)
            variance = sum((x - mean) ** 2 for x in numbers) / len(numbers) + layer.eps
            expected, scale = float(layer.running_mean[c]), float(layer.running_var[c]) + layer.eps
            channels.append((mean - expected) ** 2 / scale + (math.sqrt(variance / scale) - 1) ** 2)
        found.append(sum(channels) / len(channels))
    return sum(found) / len(found)


def distance(layers):
    """As `slow_distance`, by the package's own hooks: each layer is fed its values."""
    known = tuple(dict.fromkeys(layer for layer, _ in layers))
    moments = tuple(Moments(layer.running_mean, layer.running_var) for layer in known)
    reference = Reference("toy", known, moments, tuple(layer.eps for layer in known))
    with watched(pool_teacher(), known) as measured:
        for layer, values in layers:
            layer.eval()(values)
    return reference.distance(measured)


def toy_layers():
    """Two layers of other widths and scales, with inputs that do not fit them."""
    layers = []
    for seed, channels in ((0, 2), (1, 5)):
        layer = nn.BatchNorm2d(channels).double()
        layer.running_mean = 10 * normal(channels, seed=seed)
        layer.running_var = normal(channels, seed=seed + 2).exp()
        layers.append((layer, 3 * normal(4, channels, 3, 2, seed=seed + 4) + 1))
    return layers


def test_the_distance_equals_the_formula_whatever_the_order_of_layers():
    # The unbiased variance (24 pixels a channel) would be off by 1e-2 of the spread's part.
    assert abs(float(distance(toy_layers())) / slow_distance(toy_layers()) - 1) < 1e-12
    first, second = toy_layers()
    assert float(distance([first, second])) == pytest.approx(float(distance([second, first])))
    layer, values = first
    parts = [(layer, values[:2]), (layer, values[2:])]  # one layer, used twice
    assert float(distance(parts)) == pytest.approx(slow_distance([first]))


def test_the_distance_has_the_right_gradient_finite_on_a_dead_channel():
    (layer, values), _ = toy_layers()
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distance([(layer, x)]), (values,))
    layer = nn.BatchNorm2d(2)
    layer.running_var.zero_()
    values = torch.zeros(2, 2, 3, 3, requires_grad=True)
    distance([(layer, values)]).backward()
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("dims", [[0, 2, 3], [2, 3], [0, 1]])
def test_moments_and_their_gradients_are_those_of_torch(dims):
    chance = torch.Generator().manual_seed(0)
    values = 100 + torch.rand(3, 4, 5, 2, dtype=torch.double, generator=chance)
    values.requires_grad_()
    mean, variance = statistics._MeanAndVariance.apply(values, dims)
    expected = torch.var_mean(values, dim=dims, correction=0)
    torch.testing.assert_close((variance, mean), expected, rtol=1e-12, atol=0)
    torch.autograd.gradcheck(lambda x: statistics._MeanAndVariance.apply(x, dims), values)


def test_batch_norms_are_their_own_reference():
    teacher = norm_teacher()
    reference = reference_of(teacher, natural="nowhere")  # which is not read
    assert reference.source == "running statistics of its 2 batch norms"
    assert reference.expected[0].mean is teacher.batch_norms()[0].running_mean
    plain = natural_distance(teacher, toy_images(6), reference=reference)
    assert plain == natural_distance(teacher, toy_images(6))


def test_a_vit_is_compared_by_its_tokens():
    model = timm.create_model("test_vit", img_size=16, patch_size=4, num_classes=0)
    teacher = wrap_teacher(model, mean=[0.5] * 3, std=[0.5] * 3, input_size=16)
    reference = reference_of(teacher, size=16)
    count = len(teacher.layer_norms())
    assert count > 4 and len(reference.layers) == len(reference.expected) == count
    assert reference.source == (
        f"inputs of its {count} layer norms on 128 generated images of 16 px with the stored "
        "colours and spectrum of natural ones, no photographs"
    )
    assert all(len(moments.mean) == 64 for moments in reference.expected)
    # Moments over all tokens of all images at once: those of parts would leave their spread out.
    with watched(teacher, reference.layers) as measured, torch.no_grad():
        teacher.encode(natural_images(128, size=16)[0])
    for layer, expected in zip(reference.layers, reference.expected, strict=True):
        (whole,) = measured[layer]
        torch.testing.assert_close(whole.variance, expected.variance, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(whole.mean, expected.mean, rtol=1e-4, atol=1e-5)
    assert float(reference.distance(measured)) < 1e-6
    floor = FLOOR * float(reference.expected[0].variance.mean())
    assert float(reference.floors[0]) == pytest.approx(floor)


def test_given_images_are_used_and_told(tmp_path):
    (tmp_path / "deep").mkdir()
    for number, side in enumerate((8, 16, 16)):
        Image.new("RGB", (side, side), (9 * number, 0, 0)).save(tmp_path / f"deep/{number}.png")
    reference = reference_of(pool_teacher(), natural=str(tmp_path), size=16)
    assert reference.source == (
        f"its features on 3 natural images of {tmp_path.name} at 16 px, 1 of them enlarged, so "
        "without their top frequencies"
    )


@pytest.mark.real
def test_generated_images_are_nearer_to_photographs_than_lesions_are(shared):
    # By what its batch norms saw, the builtin teacher: 0.15 photographs, 0.16 generated ones, 0.24
    # photographs with their phases mixed, 0.68 lesions, 1.28 noise.
    folders = "", str(shared / "data/natural/caltech101_30.zip"), str(shared / "data/ham10000")
    images = (natural_images(64, size=64, folder=folder)[0] for folder in folders)
    teacher = load_teacher("builtin")
    generated, photographs, lesions = (natural_distance(teacher, each) for each in images)
    assert photographs < generated < 0.5 * lesions


def test_generated_images_have_the_stored_spectrum_and_colours():
    stored = load_file(str(STORED))
    images = generated_images(64, size=64)
    assert images.shape == (64, 3, 64, 64)
    assert images.min() >= 0 and images.max() <= 1
    found = ring_energy(images, stored["edges"].tolist()).mean(dim=0)
    # Cutting at black and white takes up to a third; uniform noise is off by a factor of 20.
    assert (found / stored["energy"]).log().abs().max() < 0.6
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), stored["mean"], atol=0.08, rtol=0)


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


def test_natural_images_that_cannot_be_read_are_said(tmp_path):
    told = complaint(reference_of, pool_teacher(), natural=str(tmp_path))
    assert told == f"natural: expected two or more images in {tmp_path}, got 0"
    told = complaint(reference_of, pool_teacher(), natural="nowhere")
    assert told == "natural: expected a folder or a zip of images, got 'nowhere'"
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    told = complaint(natural_images, 2, size=8, folder=str(tmp_path))
    assert told.startswith("natural: a.jpg: expected an image, got ")


def test_bombs_among_natural_images_are_refused(tmp_path, monkeypatch):
    for name in ("a", "b"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    with zipfile.ZipFile(tmp_path / "n.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.write(tmp_path / name, name)
    with monkeypatch.context() as patch:
        patch.setattr(statistics, "MOST_BYTES", 50)
        told = complaint(natural_images, 2, size=8, folder=str(tmp_path / "n.zip"))
        assert told.endswith("expected images of up to 50 B each")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    told = complaint(natural_images, 2, size=8, folder=str(tmp_path))
    assert told.startswith("natural: a.png: expected an image, got Image size (4096 pixels)")
