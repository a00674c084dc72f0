"""Mean amplitude of images over spatial frequency, and the gain that gives images another one."""

import torch
from torch import Tensor

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier.prompt import FourierPrompt, octave
from fopro_lab.fourier.rings import (
    at_least_single,
    bin_counts,
    cached_grid,
    check_images,
    radial_frequency,
)

KNOTS = 24  # places over the octaves at which an amplitude is measured
# Place of the first knot, at 1 / 64 cycles per pixel; below it the gain stays that of the knot.
LOWEST = float(octave(torch.tensor(1 / 64, dtype=torch.float64)))
CHUNK = 128  # images transformed together
FLAT = 1e-6  # amplitude of a frequency that images lack, intensity in [0, 1]
FIT_STEPS = 100


@torch.no_grad()
def mean_amplitude(images: Tensor) -> Tensor:
    """Average the Fourier amplitude over images ``(B, C, H, W)``, channels and directions.

    The result, ``(24,)``, is comparable for images of one size: the mean of ``|F|`` (orthonormal
    transform, unit of ``images``) about 24 frequencies that are equally spaced over the octaves
    from 1 / 64 cycles per pixel to the corner; each reads about one spacing, as a Gaussian.
    """
    check_images(images)
    if not len(images):
        raise ShapeError("images: expected one or more, got none")
    height, width = images.shape[-2:]
    total = torch.zeros(height, width // 2 + 1, dtype=torch.float64, device=images.device)
    for part in images.split(CHUNK):
        spectrum = torch.fft.rfft2(at_least_single(part), norm="ortho")
        total += spectrum.abs().sum(dim=(0, 1), dtype=torch.float64)
    weights = _near_knots(height, width).to(images.device)
    return weights @ (total / (len(images) * images.shape[1])).flatten()


def spectrum_gain(
    amplitude: Tensor, target: Tensor, *, size: tuple[int, int], max_log_gain: float
) -> Tensor:
    """Compute the gain that turns one mean amplitude into another: closed form, without labels.

    Both are of `mean_amplitude`, ``target`` of images to be resembled; ``size`` is the images'
    height and width, ``max_log_gain`` the bound of ``abs(log G)``, natural logarithm. The gain,
    ``(H, W // 2 + 1)``, dimensionless, is radial, smooth over octaves, 1 at DC.
    """
    if amplitude.shape != (KNOTS,) or target.shape != (KNOTS,):
        got = f"{tuple(amplitude.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"amplitude, target: expected ({KNOTS},) of mean_amplitude, got {got}")
    if not max_log_gain > 0:
        raise InputError(f"max_log_gain: expected a number above 0, got {max_log_gain}")
    log_gain = (target.double().clamp(min=FLAT) / amplitude.double().clamp(min=FLAT)).log()
    log_gain = log_gain.clamp(-max_log_gain, max_log_gain)
    place = octave(radial_frequency(*size, dtype=torch.float64))
    place = ((place - LOWEST) / (1 - LOWEST)).clamp(min=0).to(log_gain.device) * (KNOTS - 1)
    below = place.floor().long().clamp(max=KNOTS - 2)
    spread = torch.lerp(log_gain[below], log_gain[below + 1], place - below)
    spread[0, 0] = 0
    return spread.exp().float()


def fit_prompt(prompt: FourierPrompt, gain: Tensor) -> None:
    """Give a prompt, in place, the gain of its form that is nearest to ``(H, W // 2 + 1)``.

    Nearest in log gain, each octave counting the same. A generator keeps what it does differently
    for each noise.
    """
    own = prompt.network.last.bias if prompt.form == "generator" else prompt.cells
    size, most = (gain.shape[0], 2 * (gain.shape[1] - 1)), 0.98 * prompt.max_log_gain
    wanted = gain.to(own.device).log().clamp(-most, most)
    optimiser = torch.optim.LBFGS([own], max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def distance() -> Tensor:
        optimiser.zero_grad()
        found = octave_distance(prompt.mean_gain(size=size), wanted, size=size)
        found.backward()
        return found.detach()

    with torch.enable_grad():
        optimiser.step(distance)
    prompt.zero_grad()


def octave_distance(gain: Tensor, wanted: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Mean square of ``log G - wanted``, each octave counting the same; ``size`` is ``(H, W)``."""
    weights = octave_weights(*size).to(gain)
    return (weights * (gain.log() - wanted).square()).sum(dim=(-2, -1)).mean()


@cached_grid
def octave_weights(height: int, width: int) -> Tensor:
    """Weight of each bin, so that every octave counts the same; they sum to 1, DC has none."""
    radius = radial_frequency(height, width, dtype=torch.float64)
    weights = bin_counts(width) / radius.square().clamp(min=1e-12)
    weights[0, 0] = 0
    return (weights / weights.sum()).float()


@cached_grid
def _near_knots(height: int, width: int) -> Tensor:
    """Weight of each bin at each knot, ``(KNOTS, H * (W // 2 + 1))``; they sum to 1."""
    knots = torch.linspace(LOWEST, 1, KNOTS, dtype=torch.float64)
    place = octave(radial_frequency(height, width, dtype=torch.float64)).flatten()
    distance = (knots[:, None] - place) / (knots[1] - knots[0])
    # Between sparse low frequencies a knot reads the nearest one, not an underflowing sum.
    logits = -0.5 * distance.square()
    logits[:, 0] = -torch.inf
    return (logits + bin_counts(width).log().repeat(height)).softmax(dim=1)
