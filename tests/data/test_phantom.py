import numpy as np

from fopro_lab.data.phantom import CLASSES, SIDE, PhantomReader, draw_view, phantom_table
from tests.conftest import refuses


def energy_by_ring(pixels: np.ndarray) -> np.ndarray:
    """Share of the grey image's energy in each class's ring, over that of all rings."""
    grey = pixels.astype(float).mean(axis=2)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    f = np.fft.fftfreq(SIDE)
    rho = np.hypot(f[:, None], f[None, :])
    rings = [power[(rho > low) & (rho <= high)].mean() for low, high in (c.band for c in CLASSES)]
    return np.array(rings)


def test_phantom_table_falls_exponentially_and_fewer_images_are_a_part():
    counts = phantom_table(3000)["label"].value_counts(sort=False).to_numpy()
    assert counts.sum() == 3000
    expected = 3000 * 100 ** (-np.arange(8) / 7) / (100 ** (-np.arange(8) / 7)).sum()
    assert np.abs(counts - expected).max() < 1  # a linear tail is off by hundreds
    few, many = phantom_table(100, seed=3), phantom_table(400, seed=3)
    both = few.merge(many, on=["image", "label", "group", "source"])
    assert len(both) == len(few)
    refuses(r"^images: expected at least 24, 3 of each of the 8", phantom_table, 23)


def test_phantom_reader_still_draws_version_1():
    # Other pixels need another VERSION, or old packs would be taken for new ones.
    means = PhantomReader(0, ("red-00004-1",)).native(0).mean(axis=(0, 1))
    np.testing.assert_allclose(means, [182.40, 132.82, 118.85], atol=0.02)


def test_texture_lies_in_the_ring_of_its_class():
    # Against the average over all classes, each class has its largest excess in its own ring.
    rng = np.random.default_rng(0)
    spectra = []
    for kind in CLASSES:
        views = [draw_view(kind, rng, rng, sharp=False) for _ in range(40)]
        spectra.append(np.mean([np.log(energy_by_ring(view)) for view in views], axis=0))
    excess = np.array(spectra) - np.mean(spectra, axis=0)
    own = np.argmax(excess[2:], axis=1)  # the two lowest rings hold the outline as well
    assert np.abs(own - np.arange(2, 8)).max() <= 1
    assert (own == np.arange(2, 8)).mean() >= 0.8
