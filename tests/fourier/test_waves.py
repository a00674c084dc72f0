import math

import pytest
import torch

from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.prompt import sum_of_waves, waves_shape


def slow_sum(coefficients, height, width):
    """Every wave, direction and contrast by loops and angles, float64."""
    channels, waves, _ = coefficients.shape
    result = torch.zeros(channels, height, width // 2 + 1, dtype=torch.float64)
    top = math.log(1 + math.sqrt(0.5) * 32)
    for row in range(height):
        down = (row if 2 * row < height else row - height) / height
        for column in range(width // 2 + 1):
            across = column / width
            octave = math.log(1 + 32 * math.hypot(down, across)) / top
            angle = math.atan2(down, across)
            if (row, column) == (0, 0):
                angle = math.pi / 4  # where cos 2t is 0, as it is said to be at DC
            around = (1, math.cos(2 * angle), math.cos(4 * angle))
            for channel in range(channels):
                for mode in range(channels):
                    contrast = math.cos(math.pi * (channel + 0.5) * mode / channels)
                    contrast *= math.sqrt(2) if mode else 1
                    for wave in range(waves):
                        for direction in range(3):
                            value = coefficients[mode, wave, direction] * contrast
                            value *= math.cos(math.pi * wave * octave) * around[direction]
                            result[channel, row, column] += value
    return result


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_sum_of_waves_equals_the_loops(size):
    coefficients = torch.randn(waves_shape(3, 4), generator=torch.Generator().manual_seed(0),
                               dtype=torch.float64)  # fmt: skip
    found = sum_of_waves(coefficients, height=size[0], width=size[1])
    torch.testing.assert_close(found, slow_sum(coefficients, *size), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (9, 6), (7, 7)])
def test_mirrored_bins_agree_by_themselves(size):
    coefficients = torch.randn(waves_shape(1, 5), generator=torch.Generator().manual_seed(0))
    found = sum_of_waves(coefficients, height=size[0], width=size[1])[0]
    torch.testing.assert_close(found, found.flip(0).roll(1, 0))  # also in columns of their own


def test_the_first_mode_is_alike_in_all_channels_and_the_others_are_contrasts():
    for mode in range(3):
        coefficients = torch.zeros(waves_shape(3, 3))
        coefficients[mode, 1, 0] = 1.0
        found = sum_of_waves(coefficients, height=6, width=6)
        if mode == 0:
            assert found[0].equal(found[1]) and found[0].equal(found[2])
        else:
            assert found.sum(dim=0).abs().max() < 1e-6 and found.abs().max() > 0.5


def test_a_radial_prompt_means_the_same_at_another_size():
    prompt = FourierPrompt("radial", size=16)
    with torch.no_grad():
        prompt.cells.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    small, large = (prompt.mean_gain(size=(side, side)) for side in (16, 32))
    # Row and column k of 16 are 2k of 32: the same cycles per pixel.
    torch.testing.assert_close(large[:, :16:2, :15:2], small[:, :8, :8])
