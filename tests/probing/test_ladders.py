import numpy as np
import pytest
import torch

from fopro_lab.errors import InputError
from fopro_lab.probing.class_bands import pass_ladder
from fopro_lab.probing.features import Reader, fit_probe

CUTOFFS = [0.1, 0.2, 0.45]  # the slow wave has 0.125 cycles per pixel, the fast one 0.375


def climb(world, asked=None, **settings):
    settings = {"resamples": 50, "progress": False, "groups": world.groups} | settings
    return pass_ladder(asked or world.teacher, world.pack, world.split, CUTOFFS, **settings)


def test_a_class_is_lost_where_its_wave_is_cut_off(world):
    table = climb(world).query("scope == 'class'")
    recall = table.pivot(index=["kind", "cutoff"], columns="name", values="recall")
    assert recall.loc["low-pass", "slow"].tolist() == [0, 1, 1]
    assert recall.loc["low-pass", "fast"].tolist() == [0, 0, 1]
    assert recall.loc["high-pass", "slow"].tolist() == [1, 0, 0]
    assert recall.loc["high-pass", "fast"].tolist() == [1, 1, 0]
    assert set(table["protocol"]) == {"waves/groups/toy"} and set(table["reader"]) == {"probe"}


def slow_filter(image, keep):
    """Filter one image by a full complex transform in float64; DC is kept."""
    spectrum = np.fft.fft2(image.astype(np.float64) / 255, axes=(0, 1))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16), indexing="ij"))
    mask = keep(radius) | (radius == 0)
    return np.fft.ifft2(spectrum * mask[:, :, None], axes=(0, 1)).real


def test_every_step_equals_the_slow_filter(world):
    """1e-5 catches a cut-off on the wrong side of a bin: that moves pixels by over 1e-3."""
    seen = []

    def predict(images):
        seen.append(images.double().numpy())
        return np.zeros(len(images), dtype=int)

    climb(world, Reader("spy", predict), batch_size=99)
    image = world.pack.images[world.split.test[3]]
    for place, cutoff in enumerate(CUTOFFS):
        low, high = (
            slow_filter(image, keep)
            for keep in (lambda r, c=cutoff: r <= c, lambda r, c=cutoff: r > c)
        )
        for found, expected in zip(seen[1 + 2 * place : 3 + 2 * place], (low, high), strict=True):
            np.testing.assert_allclose(found[3].transpose(1, 2, 0), expected, atol=1e-5)


def test_a_given_probe_is_used_and_intervals_hold_the_recall(world):
    probe = fit_probe(world.teacher, world.pack, world.split)
    world.teacher.seen.clear()
    table = climb(world, probe=probe)
    assert sum(map(len, world.teacher.seen)) == 42 * (1 + 2 * len(CUTOFFS))
    assert (table["recall_low"] <= table["recall"] + 1e-12).all()  # of rounding
    assert (table["recall"] <= table["recall_high"] + 1e-12).all()
    assert (table["recall_high"] - table["recall_low"] > 0.02).all()


@pytest.mark.parametrize("cutoffs", [[], [0.2, 0.2], [0.0, 0.1], [0.3, 0.8]])
def test_wrong_cutoffs_are_refused(world, cutoffs):
    with pytest.raises(InputError, match="cutoffs: expected one or more increasing frequencies"):
        pass_ladder(world.teacher, world.pack, world.split, cutoffs, groups=world.groups)


def test_two_cutoffs_between_the_same_bins_are_refused(world):
    with pytest.raises(InputError, match="expected a frequency in every ring"):
        pass_ladder(world.teacher, world.pack, world.split, [0.2, 0.201], groups=world.groups)
    assert torch.is_grad_enabled()
