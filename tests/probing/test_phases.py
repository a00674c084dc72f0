import numpy as np
import pytest
import torch

from fopro_lab.errors import ShapeError
from fopro_lab.probing.class_bands import (
    KINDS,
    amplitude_only,
    mean_amplitude,
    phase_and_amplitude,
    phase_only,
)


def photos(count=3):
    return torch.rand(count, 3, 8, 6, generator=torch.Generator().manual_seed(1)).double()


def full(images):
    return torch.fft.fft2(images)


def test_phase_only_has_the_phases_of_one_and_the_amplitudes_of_the_other():
    images = photos()
    wanted = torch.fft.rfft2(photos(9)[3:]).abs().mean(dim=0)
    rebuilt = full(phase_only(images, wanted))
    own = full(images)
    keep = torch.ones(8, 6, dtype=torch.bool)
    keep[0, 0] = False
    turned = torch.angle(rebuilt[..., keep] / own[..., keep])
    assert turned.abs().max() < 1e-6
    amplitude = torch.fft.rfft2(phase_only(images, wanted)).abs()
    keep = keep[:, :4]
    torch.testing.assert_close(amplitude[..., keep], wanted[:, keep].expand(3, 3, -1))
    torch.testing.assert_close(rebuilt[..., 0, 0], own[..., 0, 0])


def test_flat_phase_only_is_white_and_keeps_mean_and_variance():
    images = photos()
    rebuilt = phase_only(images)
    amplitude = full(rebuilt).abs().flatten(2)[..., 1:]
    assert (amplitude.std(dim=2) / amplitude.mean(dim=2)).max() < 1e-6
    torch.testing.assert_close(rebuilt.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    torch.testing.assert_close(rebuilt.var(dim=(2, 3)), images.var(dim=(2, 3)))


def test_amplitude_only_keeps_every_amplitude_and_no_phase():
    images = photos()
    rebuilt = amplitude_only(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(full(rebuilt).abs(), full(images).abs())
    torch.testing.assert_close(rebuilt.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    turned = torch.angle(full(rebuilt) / full(images)).flatten(2)[..., 1:]
    assert 1.2 < turned.abs().mean() < 1.9  # a quarter turn on average, pi / 2


def test_noise_does_not_depend_on_the_batch():
    images = photos(4)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    at_once = amplitude_only(images, generators[0])
    parts = [amplitude_only(part, generators[1]) for part in images.split(3)]
    torch.testing.assert_close(at_once, torch.cat(parts), rtol=0, atol=0)


def test_flat_images_stay_flat():
    flat = torch.full((1, 3, 8, 8), 0.4)
    for rebuilt in (
        phase_only(flat),
        phase_only(flat, torch.ones(3, 8, 5)),
        amplitude_only(flat, torch.Generator()),
    ):
        torch.testing.assert_close(rebuilt, flat, atol=1e-5, rtol=0)


def test_mean_amplitude_equals_the_loop(world):
    rows = np.arange(7)
    found = mean_amplitude(world.pack, rows, batch_size=3)
    images = [world.pack.images[row].transpose(2, 0, 1) / 255 for row in rows]
    expected = np.mean([np.abs(np.fft.rfft2(image)) for image in images], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_reader_of_amplitudes_loses_with_them_and_not_with_phases(world, stub):
    """Two amplitudes of one channel tell the waves' classes; alike in all, they tell nothing."""
    table = phase_and_amplitude(
        stub(lambda images: torch.fft.rfft(images[:, 0].mean(dim=1)).abs()[:, [2, 6]]),
        world.pack,
        world.split,
        groups=world.groups,
        resamples=50,
        progress=False,
    )
    overall = table[table["scope"] == "overall"].set_index("kind")["recall"]
    assert list(overall.index) == list(KINDS)
    assert overall["amplitude"] == 1 and overall["phase"] == pytest.approx(1 / 3)
    assert overall["phase-flat"] < 0.7


def test_an_amplitude_of_another_size_is_refused():
    with pytest.raises(ShapeError, match=r"^amplitude: expected \(3, 8, 4\), got \(3, 8, 5\)$"):
        phase_only(photos(), torch.ones(3, 8, 5))
