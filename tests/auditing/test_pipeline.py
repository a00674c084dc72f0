import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fopro_lab.checks import audit_pipeline
from fopro_lab.checks.pipeline import choose_images, log_amplitude
from fopro_lab.data import open_dataset, pack
from fopro_lab.errors import InputError

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


def test_without_antialias_a_wave_too_fine_comes_back_as_a_coarse_one(tmp_path):
    """24 cycles on 32 points look like 8, half a turn off: 20 grey levels become 80 - 20."""
    packed = write_waves(tmp_path, (20, 8), (80, 24))
    table = audit(packed)["log_ratio"]
    assert table["resize", "bilinear, no antialias", 1] == pytest.approx(np.log(60 / 20), abs=0.05)
    assert abs(table["resize", "lanczos", 1]) < 0.15


def test_flips_change_nothing_and_shifts_little(tmp_path):
    table = audit(write_waves(tmp_path, (60, 3), (60, 8), (30, 13)))["log_ratio"]
    for mode in ("augment, fused", "augment, exact"):
        assert np.abs(table[mode, "flips"]).max() < 1e-4
        assert np.abs(table[mode, "shift"]).max() < 0.06  # a black border of 1 pixel, windowed


def test_jitter_scales_every_ring_alike(tmp_path):
    table = audit(write_waves(tmp_path, (15, 3), (15, 8), (15, 13)))["log_ratio"]
    ratios = table["augment, exact", "colour jitter"]
    assert ratios.max() - ratios.min() < 0.02 and abs(ratios.mean()) < 0.2


def test_fused_warps_smooth_where_exact_ones_do_not(tmp_path):
    table = audit(write_waves(tmp_path, (30, 3), (30, 8), (30, 13)))["log_ratio"]
    fused, exact = (table[f"augment, {mode}", "rotation", 2] for mode in ("fused", "exact"))
    assert fused < -0.2 and exact > fused + 0.2


def test_rows_tell_numbers_intervals_and_empty_rings(tmp_path):
    packed = write_waves(tmp_path, (60, 3), copies=9)
    table = audit_pipeline(packed, np.arange(9), edges=[0, 0.2, 0.75], images=9)
    coarse, fine = (table[table["ring"] == ring] for ring in (0, 1))
    assert set(coarse["n"]) == {9} and coarse["log_ratio"].notna().all()
    assert coarse["interval_low"].isna().all()  # fewer than ten images
    augmented = fine[fine["stage"] != "resize"]
    assert set(augmented["n"]) <= {0, 9}  # rounding to 8 bit may fill a ring, or not
    full = audit_pipeline(write_waves(tmp_path / "more", (60, 3)), np.arange(12), edges=[0, 0.2])
    assert (full["interval_low"] <= full["log_ratio"]).all()
    assert (full["log_ratio"] <= full["interval_high"]).all()


def test_sources_have_their_own_rows_and_even_shares():
    packed = pack(open_dataset("phantom", images=200), 32, progress=False)
    table = audit_pipeline(packed, np.arange(200), edges=EDGES, images=20)
    assert table.groupby("source")["n"].max().to_dict() == {"all": 20, "sharp": 10, "soft": 10}
    own = table.pivot_table(index=["stage", "step", "ring"], columns="source", values="log_ratio")
    np.testing.assert_allclose(own["all"], (own["sharp"] + own["soft"]) / 2, atol=1e-9)


def test_the_same_seed_gives_the_same_table():
    packed = pack(open_dataset("phantom", images=48), 32, progress=False)
    first, again, other = (
        audit_pipeline(packed, np.arange(48), edges=EDGES, images=8, seed=seed)
        for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first["log_ratio"].equals(other["log_ratio"])


def test_choose_images_takes_one_of_a_group_and_as_many_of_each_source():
    table = pd.DataFrame({"group": np.repeat(np.arange(30), 2), "source": ["a"] * 48 + ["b"] * 12})
    rows = np.arange(0, 60)
    chosen = choose_images(table, rows, images=10, seed=0)
    picked = table.iloc[chosen]
    assert picked["group"].is_unique and picked["source"].value_counts().to_dict() == {
        "a": 5,
        "b": 5,
    }
    assert len(choose_images(table, rows[:6], images=10, seed=0)) == 3


def test_log_amplitude_of_a_wave_is_its_windowed_contrast():
    """Two waves of amplitude 0.3 and 0.15 differ by log 2 whatever the window."""
    x = (torch.arange(32) + 0.5) / 32
    wave = torch.cos(2 * torch.pi * 8 * x).expand(1, 3, 32, 32)
    both = log_amplitude(torch.cat([0.3 * wave, 0.15 * wave]), size=32, edges=EDGES)
    assert both[0, 1] - both[1, 1] == pytest.approx(np.log(2), abs=1e-5)
    assert both[0, 1] == pytest.approx(np.log(0.3 / 2**0.5), abs=0.01)


def test_nothing_to_audit_is_refused():
    packed = pack(open_dataset("phantom", images=24), 32, progress=False)
    with pytest.raises(InputError, match="rows, images: expected one or more, got 0 and 192"):
        audit_pipeline(packed, np.arange(0), edges=EDGES)
    with pytest.raises(InputError, match="edges: expected two or more increasing"):
        audit_pipeline(packed, np.arange(24), edges=[0.5, 0.1])
