import numpy as np
import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.probing import heat_map as parts
from fopro_lab.probing.features import LinearProbe, read_by
from fopro_lab.probing.heat_map import basis_heat_map, basis_wave, heat_plane


def photos(count=4, side=8, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand(count, 3, side, side, generator=generator)


def flatten(images):
    return images.flatten(1)


def measure(asked, images, **settings):
    settings = {"by": "full", "resamples": 50, "progress": False} | settings
    return basis_heat_map(asked, images, **settings)


def test_every_cell_equals_the_slow_one(stub):
    """1e-5 catches a missing clip or one sign alone: both move the drift by over 1e-3."""
    images = photos()
    table = measure(stub(flatten), images, size=3.0, batch_size=3)
    pixels = images.double().numpy()
    for _, row in table.iloc[::7].iterrows():
        wave = 3.0 * basis_wave(int(row["row"]), int(row["column"]), height=8, width=8)
        drifts = []
        for image in pixels:
            for sign in (1, -1):
                one, other = image.ravel(), np.clip(image + sign * wave, 0, 1).ravel()
                norms = np.linalg.norm(one) * np.linalg.norm(other)
                drifts.append(1 - one @ other / norms)
        assert row["drift"] == pytest.approx(np.mean(drifts), abs=1e-5)
    assert table["error"].isna().all() and (table["waves"] == 1).all()


def test_a_linear_teacher_of_one_wave_hears_that_wave_alone(stub):
    """In closed form: a wave of norm v moves its own feature by 3 v, and no other feature."""
    wave = torch.from_numpy(basis_wave(1, 2, height=8, width=8)).float()

    def encode(images):
        heard = (images * wave).sum(dim=(1, 2, 3))
        return torch.stack([heard, torch.ones_like(heard)], dim=1)

    images = photos()
    table = measure(stub(encode), images, size=0.5)
    plane = heat_plane(table)
    assert plane[4 + 1, 4 + 2] == plane[4 - 1, 4 - 2] == np.nanmax(plane)
    others = table[(table["row"] != 1) | (table["column"] != 2)]
    assert others["drift"].max() < 1e-6
    before = encode(images)[:, 0].double()
    expected = [
        1 - np.cos(np.arctan(value + shift) - np.arctan(value))
        for value in before.tolist()
        for shift in (1.5, -1.5)
    ]
    assert table["drift"].max() == pytest.approx(np.mean(expected), abs=1e-5)


def test_error_rates_of_a_probe_and_of_any_reader_agree(stub):
    images, labels = photos(6), np.array([0, 1, 0, 1, 0, 1])
    weight = np.random.default_rng(0).normal(size=(2, 192))
    probe = LinearProbe(np.zeros(192), np.ones(192), weight, np.zeros(2), 1.0, 1.0)
    by_probe = measure(stub(flatten), images, labels=labels, probe=probe)
    matrix = torch.from_numpy(weight)
    reader = read_by(lambda x: x.flatten(1).double() @ matrix.T)
    by_reader = measure(reader, images, labels=labels)
    np.testing.assert_allclose(by_probe["error"], by_reader["error"])
    assert by_reader["drift"].isna().all() and by_reader["error"].nunique() > 1
    assert (by_probe["clean_error"] == (reader.predict(images) != labels).mean()).all()


@pytest.mark.parametrize("by", ["rings", "blocks", "full"])
def test_the_plane_is_its_own_mirror_image_and_whole(stub, by):
    table = measure(stub(flatten), photos(2), by=by, edges=[0, 0.2, 0.75], block=3)
    plane = heat_plane(table)
    holes = 1 if by == "rings" else 0  # DC is in no ring
    assert plane.shape == (8, 8) and np.isnan(plane).sum() == holes
    inner = plane[1:, 1:]  # row and column of -1/2 are their own mirror images
    np.testing.assert_array_equal(inner, inner[::-1, ::-1])
    assert len(np.unique(plane[~np.isnan(plane)])) > 1


def test_intervals_hold_the_mean_and_lesions_are_drawn_whole(stub):
    images = photos(12).repeat_interleave(2, dim=0)
    width = {}
    for name, units in (("image", None), ("lesion", np.arange(12).repeat(2))):
        table = measure(stub(flatten), images, by="blocks", units=units, resamples=2000)
        assert (table["drift_low"] < table["drift"]).all()
        assert (table["drift"] < table["drift_high"]).all()
        width[name] = (table["drift_high"] - table["drift_low"]).mean()
    assert width["lesion"] / width["image"] == pytest.approx(np.sqrt(2), rel=0.1)


def test_a_killed_map_goes_on_and_ends_the_same(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART", 5)
    images = photos(2)
    whole = measure(stub(flatten), images)

    class Killed(BaseException):
        pass

    def mortal(pixels):
        if len(teacher.seen) > 14:
            raise Killed
        return flatten(pixels)

    teacher = stub(mortal)
    with pytest.raises(Killed):
        measure(teacher, images, out=tmp_path / "parts")
    kept = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert kept == ["identity.json", "part-000000.npy", "part-000005.npy"]
    again = stub(flatten)
    assert measure(again, images, out=tmp_path / "parts").equals(whole)
    assert len(again.seen) == 1 + len(whole) - 10
    last = stub(flatten)
    assert measure(last, images, out=tmp_path / "parts").equals(whole) and len(last.seen) == 1


def test_parts_of_another_map_are_never_mixed_in(stub, tmp_path):
    measure(stub(flatten), photos(2), out=tmp_path)
    with pytest.raises(InputError, match=r"holds parts of another measurement \(images differ\)"):
        measure(stub(flatten), photos(2, seed=3), out=tmp_path)
    with pytest.raises(InputError, match=r"\(size differ\)"):
        measure(stub(flatten), photos(2), size=2.0, out=tmp_path)


def test_wrong_input_is_refused(stub):
    with pytest.raises(ShapeError, match=r"^labels: expected one for each of 4, got 3$"):
        measure(stub(flatten), photos(), labels=np.zeros(3))
    with pytest.raises(InputError, match=r"^labels: expected one for each image"):
        measure(read_by(flatten), photos())
    with pytest.raises(InputError, match=r"^size: expected a finite norm of 0 or above, got -1"):
        measure(stub(flatten), photos(), size=-1.0)
    with pytest.raises(InputError, match=r"^edges: expected a frequency in every ring"):
        measure(stub(flatten), photos(), by="rings", edges=[0, 0.01, 0.75])
