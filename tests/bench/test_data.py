"""The benchmark of the way in: the reference is the published one, the tables are whole."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data import bench_data
from benchmarks.images import write_photographs
from benchmarks.published import published_transforms, read_batch


@pytest.fixture(scope="module")
def tables():
    return bench_data(rounds=3, size=16, images=32, side=64, many=40)


def test_bench_data_compares_every_variant_with_its_reference(tables):
    batches = tables["batches"]
    assert batches["ratio"].iloc[0] == 1.0
    assert batches["goal"].tolist()[1:4] == [3.0, 12.0, 100.0]
    assert (batches[["per_second", "low", "high"]] > 0).all(axis=None)
    packing = tables["packing"]
    assert packing["ratio"].iloc[0] == 1.0 and packing["goal"].iloc[1] == pytest.approx(1 / 1.1)


def test_bench_data_leaves_the_number_of_threads_as_it_was(tables):
    assert torch.get_num_threads() == 1  # the suite's own setting
    opening = tables["opening"]
    assert (opening["files"] == 40).all() and (opening["milliseconds"] > 0).all()


def test_reference_normalises_and_resizes_as_published(tmp_path):
    grey = Image.new("RGB", (40, 30), (124, 116, 104))  # ImageNet's mean, to half a grey level
    grey.save(tmp_path / "grey.png")
    torch.manual_seed(0)
    batch = read_batch([tmp_path / "grey.png"] * 8, published_transforms(16))
    assert batch.shape == (8, 3, 16, 16)
    # Brightness changes the centre by up to a quarter: 0.25 * 0.485 / 0.229 = 0.53 at most, and
    # saturation and contrast leave grey as it is. Without normalisation it would lie near 0.45.
    centre = batch[:, 0, 8, 8]
    assert centre.abs().max() < 0.6 and centre.min() < 0 < centre.max()


def test_photographs_are_as_heavy_as_dermoscopy_and_the_same_again(tmp_path):
    [path] = write_photographs(tmp_path / "a", count=1)
    [again] = write_photographs(tmp_path / "b", count=1)
    assert path.read_bytes() == again.read_bytes()
    assert 140_000 < path.stat().st_size < 270_000  # ISIC 2019's mean is about 190 kB


def test_photographs_lose_amplitude_with_frequency(tmp_path):
    [path] = write_photographs(tmp_path, count=1, side=256)
    with Image.open(path) as opened:
        grey = np.asarray(opened.convert("L"), dtype=np.float64)
    window = np.hanning(256)[:, None] * np.hanning(256)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    bands = [(0.02, 0.04), (0.04, 0.08), (0.08, 0.16)]
    low, middle, high = (power[(frequency > a) & (frequency <= b)].mean() for a, b in bands)
    assert low > 3 * middle > 9 * high  # white noise would have them equal
