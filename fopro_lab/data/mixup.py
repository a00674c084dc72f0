"""Balanced-MixUp: each picture with a little of a class-balanced partner."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fopro_lab.errors import InputError


class PairedBatch(NamedTuple):
    """A batch and its partners.

    Attributes:
        images: ``(B, 3, H, W)``.
        labels: ``(B,)``.
        partners: ``(B, 3, H, W)``, drawn class-balanced.
        partner_labels: ``(B,)``.
        weights: ``(B,)``, share of the partner in each mixture.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor
    partner_labels: Tensor
    weights: Tensor


def sample_weights(count: int, *, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw the partners' shares from Beta(alpha, 1), of mean ``alpha / (1 + alpha)``.

    Args:
        count: Number of pictures.
        alpha: Above 0; at 0.1 to 0.2, as published, most partners have next to no share.
        generator: On the CPU.

    Returns:
        ``(count,)`` in [0, 1].

    Raises:
        InputError: If ``alpha`` is not above 0.

    Source: Galdran et al., Balanced-MixUp for Highly Imbalanced Medical Image Classification,
        MICCAI 2021, which draws one share a batch; here each picture has its own.

    Example:
        >>> weights = sample_weights(4000, alpha=0.25, generator=torch.Generator().manual_seed(0))
        >>> round(float(weights.mean()), 1)
        0.2
    """
    if not alpha > 0:
        raise InputError(f"alpha: expected above 0, got {alpha}")
    # The distribution function is x ** alpha, so its inverse of a uniform number is Beta.
    drawn = torch.rand(count, generator=generator, dtype=torch.float64)
    return (drawn ** (1 / alpha)).float()


def mix(pair: PairedBatch, *, classes: int) -> tuple[Tensor, Tensor]:
    """Mix each picture with its partner, and their labels in the same shares.

    The cross-entropy of the mixed label is the same mixture of two cross-entropies.

    Args:
        pair: What is mixed.
        classes: K.

    Returns:
        Images ``(B, 3, H, W)``, and shares of the classes ``(B, K)``.

    Example:
        >>> black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> pair = PairedBatch(
        ...     black, torch.tensor([0]), white, torch.tensor([1]), torch.tensor([0.25]))
        >>> images, labels = mix(pair, classes=3)
        >>> float(images.mean()), labels.tolist()
        (0.25, [[0.75, 0.25, 0.0]])
    """
    images = torch.lerp(pair.images, pair.partners, pair.weights[:, None, None, None])
    own, other = (
        F.one_hot(labels, classes).to(pair.weights) for labels in (pair.labels, pair.partner_labels)
    )
    return images, torch.lerp(own, other, pair.weights[:, None])
