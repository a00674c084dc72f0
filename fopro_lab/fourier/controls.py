"""The control of a learned prompt: the same gains, in another place."""

import torch
from torch import Tensor

from fopro_lab.fourier.prompts import FourierPrompt
from fopro_lab.fourier.shares import Share, draw
from fopro_lab.fourier.spectrum import radial_frequency


@torch.no_grad()
def random_gain_like(
    prompt: FourierPrompt,
    gain: Tensor,
    generator: torch.Generator,
    *,
    size: tuple[int, int],
    per_picture: bool = False,
    share: Share | None = None,
) -> Tensor:
    """Move a prompt's gains to other frequencies.

    A random prompt of the same form says where: its frequencies, from the lowest value to the
    highest, get the gains that the learned prompt's have in that order. So it is a permutation of
    frequencies, alike for all channels, as smooth (or as ringed) as the form is. Every channel of
    every picture keeps exactly its gains, and pictures keep what their gains have in common. What
    differs from the learned prompt is the place alone.

    Args:
        prompt: The learned prompt; it gets no gradient.
        gain: What it gives some pictures, ``(B, C, H, W // 2 + 1)``, as of ``prompt.gain``.
        generator: Source of the random prompt. Seeded alike, the arrangement is the same one, for
            every batch and at any size.
        size: Height and width of the pictures, pixels.
        per_picture: Draw an arrangement for each picture; averaged over pictures, little is left.
        share: Stretch of a batch that the pictures are; None is all of it.

    Returns:
        ``(B, C, H, W // 2 + 1)``, dimensionless, 1 at DC, equal in mirrored rows of column 0 and
        ``W / 2``.

    Example:
        >>> prompt = FourierPrompt("shared", size=8)
        >>> gain, places = prompt.sample_gain(2), torch.Generator().manual_seed(0)
        >>> random_gain_like(prompt, gain, places, size=(8, 8)).unique().tolist()
        [1.0]
    """
    bins, mirrors = _pairs(*size)
    bins, mirrors = bins.to(gain.device), mirrors.to(gain.device)
    count, share = (len(gain), share) if per_picture else (1, None)
    cells = draw(count, *prompt.shape, generator=generator, share=share)
    place = next(prompt.parameters()).device
    target = _ranked(prompt.spread(cells.to(place), size=size).to(gain), bins)
    source = _ranked(prompt.mean_gain(size=size)[None].to(gain), bins)
    flat = gain.flatten(-2)
    moved = flat.clone()
    index = target[:, None, :].expand(len(gain), gain.shape[1], -1)
    moved.scatter_(2, index, flat.gather(2, source[:, None, :].expand_as(index)))
    return moved[..., mirrors].reshape(gain.shape)


def _ranked(gain: Tensor, bins: Tensor) -> Tensor:
    """Order bins by the mean log gain of the channels, ``(B, N)``; equal ones keep their order."""
    log_gain = gain.log().mean(dim=1).flatten(-2)
    return bins[log_gain[:, bins].argsort(dim=1, stable=True)]


def _pairs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """List one bin of each pair of opposite frequencies, and for every bin the one that counts.

    Returns:
        Flat numbers of the bins ``(N,)``, DC left out, from the lowest frequency to the highest;
        and for each bin of the half spectrum ``(H * (W // 2 + 1),)`` its own or its mirror's.
    """
    columns = width // 2 + 1
    rows, number = torch.arange(height)[:, None], torch.arange(columns)[None, :]
    own = (number == 0) | (2 * number == width)  # columns in which both of a pair lie
    mirrored = torch.where(own & (2 * rows > height), (height - rows) % height, rows)
    mirrors = (mirrored * columns + number).flatten()
    lowest_first = radial_frequency(height, width).flatten().argsort(stable=True)
    counts = (mirrors == torch.arange(len(mirrors)))[lowest_first] & (lowest_first != 0)
    return lowest_first[counts], mirrors
