from itertools import pairwise

import numpy as np
import pytest

from fopro_lab.data import open_dataset
from fopro_lab.data.phantom import (
    CLASS_NAMES,
    CLASSES,
    SIDE,
    LesionClass,
    PhantomReader,
    draw_phantom,
    phantom_table,
    render_view,
    sample_lesion,
    sample_view,
)
from fopro_lab.errors import InputError


def energy_by_ring(pixels: np.ndarray) -> np.ndarray:
    """Share of the grey image's energy in each class's ring, over that of all rings."""
    grey = pixels.astype(float).mean(axis=2)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    f = np.fft.fftfreq(SIDE)
    rho = np.hypot(f[:, None], f[None, :])
    rings = [power[(rho > low) & (rho <= high)].mean() for low, high in (c.band for c in CLASSES)]
    return np.array(rings)


def test_phantom_table_falls_exponentially():
    counts = phantom_table(3000)["label"].value_counts(sort=False).to_numpy()
    assert counts.sum() == 3000
    expected = 3000 * 100 ** (-np.arange(8) / 7) / (100 ** (-np.arange(8) / 7)).sum()
    assert np.abs(counts - expected).max() < 1  # a linear tail is off by hundreds


def test_phantom_table_of_any_size_has_its_total_and_three_lesions_a_class():
    for images in (24, 25, 37, 60, 200):
        table = phantom_table(images)
        assert len(table) == images
        assert table.groupby("label")["group"].nunique().min() >= 3


def test_phantom_table_of_fewer_images_is_a_part():
    few, many = phantom_table(100, seed=3), phantom_table(400, seed=3)
    both = few.merge(many, on=["image", "label", "group", "source"])
    assert len(both) == len(few)


def test_phantom_table_keeps_a_lesion_in_one_source():
    table = phantom_table(400)
    assert (table.groupby("group")["source"].nunique() == 1).all()
    assert table.groupby("group").size().max() == 3


def test_phantom_table_links_source_and_class_mildly():
    table = phantom_table(40_000).drop_duplicates("group")
    sharp = (table["source"] == "sharp").groupby(table["label"]).mean()
    expected = 0.35 + 0.3 * np.arange(8) / 7
    assert np.abs(sharp - expected)[:5].max() < 0.05  # unlinked, class 0 would be off by 0.15


def test_phantom_table_refuses_fewer_than_three_a_class():
    with pytest.raises(InputError, match=r"^images: expected at least 24, 3 of each of the 8"):
        phantom_table(23)


def test_draw_phantom_depends_on_name_and_seed_alone():
    first = draw_phantom("lobed-00007-0", seed=1)
    np.testing.assert_array_equal(first, draw_phantom("lobed-00007-0", seed=1))
    assert (first != draw_phantom("lobed-00007-1", seed=1)).mean() > 0.5
    assert (first != draw_phantom("lobed-00007-0", seed=2)).mean() > 0.5


def test_phantom_does_not_depend_on_how_many_there_are():
    few, many = open_dataset("phantom", images=40), open_dataset("phantom", images=300)
    for row in (0, 20, 39):
        other = int(np.flatnonzero(many.table["image"] == few.table["image"][row])[0])
        np.testing.assert_array_equal(few.read(row, 64), many.read(other, 64))


def test_draw_phantom_still_draws_version_1():
    # Other pixels need another VERSION, or old packs would be taken for new ones.
    means = draw_phantom("red-00004-1", seed=0).mean(axis=(0, 1))
    np.testing.assert_allclose(means, GOLDEN, atol=0.02)


def test_phantom_reader_resizes_and_takes_rows():
    reader = PhantomReader(0, ("disc-00000-0", "red-00000-0"))
    assert reader(1, 24).shape == (24, 24, 3)
    np.testing.assert_array_equal(reader.take(np.array([1]))(0, 64), reader(1, 64))


def test_texture_lies_in_the_ring_of_its_class():
    # Against the average over all classes, each class has its largest excess in its own ring.
    rng = np.random.default_rng(0)
    spectra = []
    for kind in CLASSES:
        views = [
            render_view(
                sample_lesion(kind, rng), sample_view(rng, sharp=False)._replace(hairs=NONE)
            )
            for _ in range(40)
        ]
        spectra.append(np.mean([np.log(energy_by_ring(view)) for view in views], axis=0))
    excess = np.array(spectra) - np.mean(spectra, axis=0)
    own = np.argmax(excess[2:], axis=1)  # the two lowest rings hold the outline as well
    assert np.abs(own - np.arange(2, 8)).max() <= 1
    assert (own == np.arange(2, 8)).mean() >= 0.8


def test_sources_differ_in_their_spectra():
    rng = np.random.default_rng(1)
    kind = LesionClass("plain", (0.1, 0.2), (0.5, 0.3, 0.2), radius=18.0)
    lesions = [sample_lesion(kind, rng) for _ in range(30)]
    quiet = {"hairs": NONE, "noise": np.zeros((SIDE, SIDE, 3))}
    top = []
    for sharp in (False, True):
        views = [sample_view(rng, sharp=sharp)._replace(**quiet) for _ in lesions]
        rings = [energy_by_ring(render_view(*pair)) for pair in zip(lesions, views, strict=True)]
        top.append(np.mean(np.log(rings), axis=0)[3])  # within the texture's band
    assert top[1] - top[0] > 0.5  # a ratio of energies of 1.6; equal devices give about 0


def test_render_view_moves_the_lesion_with_the_view():
    rng = np.random.default_rng(2)
    kind = LesionClass("plain", (0.1, 0.2), (0.2, 0.1, 0.1), radius=12.0)
    lesion = sample_lesion(kind, rng)._replace(radius=12.0, texture_height=0.0, blotch_height=0.0)
    view = sample_view(rng, sharp=False)._replace(
        hairs=NONE, slope=np.zeros(2), noise=np.zeros((SIDE, SIDE, 3)), light=np.ones(3)
    )
    centres = []
    for shift in ((0.0, 0.0), (6.0, -4.0)):
        grey = render_view(lesion, view._replace(shift=np.array(shift))).mean(axis=2)
        dark = np.clip(np.median(grey) - 25 - grey, 0, None)
        y, x = np.mgrid[:SIDE, :SIDE]
        centres.append([(dark * x).sum() / dark.sum(), (dark * y).sum() / dark.sum()])
    np.testing.assert_allclose(np.subtract(*centres[::-1]), [6, -4], atol=0.5)


def test_class_names_are_distinct_and_bands_adjoin():
    assert len(set(CLASS_NAMES)) == 8
    assert all(a.band[1] == b.band[0] for a, b in pairwise(CLASSES))


NONE = np.zeros((0, 4))
GOLDEN = [182.40, 132.82, 118.85]
