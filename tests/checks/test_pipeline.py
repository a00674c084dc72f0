"""The pipeline audit against computed gains; its windows, resizes and steps one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fopro_lab.checks import audit_pipeline
from fopro_lab.checks.pipeline import band_limited, windowed
from fopro_lab.data import open_dataset, pack
from fopro_lab.data.benchmarks import ArrayReader
from tests.checks.toys import texture
from tests.conftest import refuses

EDGES = [0.0, 0.2, 0.3, 0.5]  # the middle ring holds 0.25 cycles per pixel


def write_waves(root, *waves, copies=12, side=96, ending="png"):
    """Write images of the same waves along x: (amplitude in grey levels, cycles an image)."""
    x = (np.arange(side) + 0.5) / side
    row = 128 + sum(a * np.cos(2 * np.pi * cycles * x) for a, cycles in waves)
    pixels = np.repeat(np.tile(row, (side, 1))[..., None], 3, axis=2).round().astype(np.uint8)
    for number in range(copies):
        path = root / "ab"[number % 2] / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return pack(open_dataset(root), 32, progress=False)


def audit(packed, **more):
    table = audit_pipeline(packed, np.arange(len(packed)), edges=EDGES, **more)
    return table[table["source"] == "all"].set_index(["stage", "step", "ring"]).sort_index()


@pytest.mark.parametrize("cycles", [4, 8, 12])
def test_triangle_filter_has_its_computed_gain(tmp_path, cycles):
    """Within 0.01; a box filter's gain lies 0.02 off at 4 cycles, 0.1 at 8."""
    frequency = cycles / 32  # per pixel of the small image
    edges = [0, frequency - 0.06, frequency + 0.06]
    packed = write_waves(tmp_path, (100, cycles))
    table = audit_pipeline(packed, np.arange(12), edges=edges)
    told = table[table["ring"] == 1].set_index(["stage", "step"])["log_ratio"]
    offsets = np.arange(-2, 3)
    wave = np.cos(2 * np.pi * frequency * offsets / 3)
    triangle = np.sum((1 - np.abs(offsets) / 3) * wave) / np.sum(1 - np.abs(offsets) / 3)
    box = np.mean(wave[1:4])
    assert told["resize", "bilinear"] == pytest.approx(np.log(triangle), abs=0.01)
    assert told["resize", "box"] == pytest.approx(np.log(box), abs=0.01)
    assert np.log(box) - np.log(triangle) > 0.02


def test_fused_warps_smooth_where_exact_ones_do_not(tmp_path):
    table = audit(write_waves(tmp_path, (30, 3), (30, 8), (30, 13)))["log_ratio"]
    fused, exact = (table[f"augment, {mode}", "rotation", 2] for mode in ("fused", "exact"))
    assert fused < -0.2 and exact > fused + 0.2


def test_sources_have_their_own_rows_and_even_shares_and_nothing_is_refused():
    packed = pack(open_dataset("phantom", images=200), 32, progress=False)
    table = audit_pipeline(packed, np.arange(200), edges=EDGES, images=20)
    assert table.groupby("source")["n"].max().to_dict() == {"all": 20, "sharp": 10, "soft": 10}
    own = table.pivot_table(index=["stage", "step", "ring"], columns="source", values="log_ratio")
    np.testing.assert_allclose(own["all"], (own["sharp"] + own["soft"]) / 2, atol=1e-9)
    packed = pack(open_dataset("phantom", images=24), 32, progress=False)
    refuses("rows, images: expected one or more", audit_pipeline, packed, np.arange(0), edges=EDGES)


def waves(side, *, cycles):
    """A sum of plane waves at pixel centres, the same scene at any size."""
    x = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    total = sum(
        a * torch.cos(2 * torch.pi * (u * x[None, :] + v * x[:, None]) + p) for a, u, v, p in cycles
    )
    return total.expand(1, 1, side, side)


def test_ideal_resize_of_a_windowed_image_is_the_windowed_small_image():
    """What the audit rests on: window, then resize, equals resize, then window."""
    cycles = [(0.3, 3, 1, 0.2), (0.2, -7, 5, 1.0), (0.1, 2, 11, 2.0)]
    large, small = waves(96, cycles=cycles), waves(32, cycles=cycles)
    # The windowed waves reach 0.6 of 8/3; a shift by half a pixel would err by 0.2.
    shift = band_limited(windowed(large), 32), band_limited(windowed(small), 32)
    spectra = [torch.fft.rfft2(each).abs() for each in shift]
    torch.testing.assert_close(*spectra, atol=1e-9, rtol=0)


@pytest.fixture
def arrays(tmp_path):
    """Return 24 images of 28 pixels that lie in one array, as MedMNIST's do."""
    pixels = np.stack([texture(seed, side=32)[:28, :28] for seed in range(24)])
    np.save(tmp_path / "images.npy", pixels)
    places = np.stack([np.zeros(24, dtype=int), np.arange(24)], axis=1)
    reader = ArrayReader((str(tmp_path / "images.npy"),), places)
    return replace(open_dataset("phantom", images=24), name="arrays", reader=reader), pixels


def test_images_that_lie_in_an_array_are_audited(arrays):
    dataset, pixels = arrays
    np.testing.assert_array_equal(dataset.subset([9, 4]).reader.native(1), pixels[4])
    packed = pack(dataset, 28, progress=False)
    audit = audit_pipeline(packed, np.arange(24), edges=[0, 0.25, 0.5], images=4)
    assert audit.groupby("stage")["size"].first()["resize"] == 10  # three eighths of 28
