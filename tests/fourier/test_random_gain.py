import pytest
import torch

from fopro_lab.fourier import random_gain_like
from tests.fourier.toys import FORMS, make, seeded

SIZES = [(16, 18), (9, 7), (12, 11), (11, 12)]


def learned(form):
    return make(form, scale=0.3, size=(16, 18), rows=8, rings=4, waves=6)


def both(prompt, *, seed=1, size=(16, 18), count=4, noise=2, **options):
    images = torch.rand(count, 3, *size, generator=seeded(noise))
    gain = prompt.gain(images, seeded(noise)).detach()
    return gain, random_gain_like(prompt, gain, seeded(seed), size=size, **options)


def frequencies_of(gain, size):
    """List one gain a pair of opposite frequencies, DC left out: what acts, each once."""
    height, width = size
    values = []
    for column in range(width // 2 + 1):
        own = column == 0 or 2 * column == width
        for row in range(height // 2 + 1 if own else height):
            if (row, column) != (0, 0):
                values.append(gain[..., row, column])
    return torch.stack(values, dim=-1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_the_log_gains_are_exactly_the_prompts(form, size):
    gain, moved = both(learned(form), size=size)
    expected, found = (frequencies_of(x, size).sort(dim=-1).values for x in (gain, moved))
    assert found.equal(expected)  # of every image and every channel, without rounding
    assert not moved.equal(gain)
    assert (moved[..., 0, 0] == 1).all()
    for column in [0] if size[1] % 2 else [0, size[1] // 2]:
        mirrored = moved[..., column].flip(-1).roll(1, -1)
        assert moved[..., column].equal(mirrored)


@pytest.mark.parametrize("form", FORMS)
def test_one_arrangement_serves_every_image_every_batch_and_every_channel(form):
    # Bins numbered instead of gains tell where everything goes.
    prompt, size = learned(form), (16, 17)
    numbers = torch.arange(16.0 * 9).reshape(1, 1, 16, 9)
    goes = random_gain_like(prompt, numbers, seeded(1), size=size).flatten().long()
    assert goes.unique().numel() > 100
    for count, noise in ((3, 2), (5, 9)):
        gain, moved = both(prompt, size=size, count=count, noise=noise)
        assert moved.flatten(2).equal(gain.flatten(2)[..., goes])


@pytest.mark.parametrize("form", ["ring", "radial", "shared"])
def test_the_control_is_as_smooth_as_its_form(form):
    def roughness(gain):
        log_gain = gain.log()[0].mean(dim=0)
        return float((log_gain[1:24, 1:-1] - log_gain[0:23, 1:-1]).square().mean())

    gain, moved = both(learned(form), size=(48, 48), count=1)
    order = torch.randperm(48 * 25, generator=seeded())
    shuffled = gain.flatten(2)[..., order].reshape(gain.shape)
    # Bins put anywhere have twice the variance from one to the next; measured are 0.1 to 0.35.
    assert roughness(moved) < 0.5 * roughness(shuffled)
