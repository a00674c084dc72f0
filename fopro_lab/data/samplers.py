"""Which pictures an epoch draws, and how often each class: drawn by rule, not by lot.

A weighted lottery draws some pictures of a rare class five times and leaves others out. Here each
class goes round its own shuffled pictures, on from where the epoch before stopped, so over a
training no picture of a class is drawn more than once oftener than another; and a class is spread
evenly over the epoch, so that every batch has nearly the same mixture.
"""

from typing import get_args

import numpy as np

from fopro_lab.config import Sampler
from fopro_lab.errors import InputError


def effective_counts(
    class_counts: np.typing.ArrayLike,
    *,
    sampler: Sampler,
    progress: float = 0.0,
    mixup_alpha: float = 0.0,
) -> np.ndarray:
    """Count how often an epoch draws each class: the prior that a student sees.

    A loss that corrects for class sizes must be given these. With the sizes themselves it would
    correct a class-balanced epoch a second time.

    Args:
        class_counts: ``(K,)``, pictures a class, 0 or more.
        sampler: ``"instance"`` draws each picture once, ``"class-balanced"`` each class as often,
            ``"square-root"`` each by the root of its size, ``"progressive"`` goes from the first
            to the second.
        progress: Share of the training that is done, 0 to 1; for ``"progressive"``.
        mixup_alpha: Of Balanced-MixUp, 0 is off: the share ``alpha / (1 + alpha)`` of each picture
            is, on average, that of a class-balanced partner.

    Returns:
        ``float64 (K,)`` of the same sum; a class without pictures keeps 0.

    Raises:
        InputError: For an unknown sampler, or a value out of range.

    Source: Kang et al., Decoupling Representation and Classifier, ICLR 2020, eq. 1 and 2; Galdran
        et al., Balanced-MixUp, MICCAI 2021.

    Example:
        >>> effective_counts([90, 10], sampler="progressive", progress=0.5).tolist()
        [70.0, 30.0]
    """
    check_sampler(sampler)
    counts = np.asarray(class_counts, dtype=np.float64)
    if counts.ndim != 1 or (counts < 0).any() or not counts.sum() > 0:
        raise InputError(f"class_counts: expected (K,), each 0 or more, got {counts.tolist()}")
    if not 0 <= progress <= 1:
        raise InputError(f"progress: expected 0 to 1, got {progress}")
    if not mixup_alpha >= 0:
        raise InputError(f"mixup_alpha: expected 0 or more, got {mixup_alpha}")
    balanced = (counts > 0) * counts.sum() / (counts > 0).sum()
    drawn = counts
    if sampler == "class-balanced":
        drawn = balanced
    elif sampler == "square-root":
        drawn = np.sqrt(counts) * (counts.sum() / np.sqrt(counts).sum())
    elif sampler == "progressive":
        drawn = (1 - progress) * counts + progress * balanced
    partner = mixup_alpha / (1 + mixup_alpha)
    return (1 - partner) * drawn + partner * balanced


def class_shares(
    class_counts: np.typing.ArrayLike, *, sampler: Sampler, progress: float = 0.0
) -> np.ndarray:
    """Return each class's share of the drawn pictures; see `effective_counts`.

    Args:
        class_counts: ``(K,)``, pictures a class.
        sampler: How often each class is drawn.
        progress: Share of the training that is done, 0 to 1; for ``"progressive"``.

    Returns:
        ``float64 (K,)``, sum 1.

    Raises:
        InputError: As `effective_counts`.

    Example:
        >>> class_shares([90, 10], sampler="square-root").tolist()
        [0.75, 0.25]
    """
    drawn = effective_counts(class_counts, sampler=sampler, progress=progress)
    return drawn / drawn.sum()


def training_progress(epoch: int, epochs: int) -> float:
    """Return the share of a training that is done: 0 in the first epoch, 1 in the last.

    Args:
        epoch: Counted from 0.
        epochs: Of the whole training.

    Example:
        >>> training_progress(0, 5), training_progress(4, 5), training_progress(0, 1)
        (0.0, 1.0, 0.0)
    """
    return min(epoch / max(epochs - 1, 1), 1.0)


def epoch_order(
    labels: np.typing.ArrayLike, *, sampler: Sampler, seed: int, epoch: int = 0, epochs: int = 1
) -> np.ndarray:
    """Choose and order the pictures of one epoch, which is as long as there are pictures.

    Args:
        labels: ``(N,)``, class of each picture.
        sampler: How often each class is drawn, to the nearest whole number.
        seed: Another seed, other pictures and another order.
        epoch: Counted from 0; each class goes on where the epoch before stopped.
        epochs: Of the whole training; for ``"progressive"``.

    Returns:
        ``int64 (N,)``, positions in ``labels``; for ``"instance"`` each once.

    Raises:
        InputError: For an unknown sampler or no pictures.

    Example:
        >>> order = epoch_order([0, 0, 0, 0, 0, 1], sampler="class-balanced", seed=0)
        >>> (order == 5).sum()
        np.int64(3)
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not len(labels):
        raise InputError("labels: expected at least one, got none")
    counts = np.bincount(labels)
    before = np.zeros(len(counts), dtype=np.int64)
    for past in range(epoch):
        before += _quotas(counts, sampler, training_progress(past, epochs))
    quotas = _quotas(counts, sampler, training_progress(epoch, epochs))
    chance = np.random.default_rng([1, seed, epoch])
    drawn, places = [], []
    for label in np.flatnonzero(quotas):
        members = np.flatnonzero(labels == label)
        drawn.append(
            members[_rounds(len(members), before[label], quotas[label], (seed, int(label)))]
        )
        # One in each of as many equal parts of the epoch, anywhere in the part.
        places.append((np.arange(quotas[label]) + chance.random(quotas[label])) / quotas[label])
    return np.concatenate(drawn)[np.argsort(np.concatenate(places), kind="stable")]


def _quotas(counts: np.ndarray, sampler: Sampler, progress: float) -> np.ndarray:
    """Round the counts of an epoch to whole pictures by largest remainders."""
    exact = effective_counts(counts, sampler=sampler, progress=progress)
    whole = np.floor(exact + 1e-9).astype(np.int64)
    for label in np.argsort(whole - exact, kind="stable")[: int(counts.sum() - whole.sum())]:
        whole[label] += 1
    return whole


def _rounds(count: int, start: int, length: int, key: tuple[int, int]) -> np.ndarray:
    """Take a stretch of an endless sequence of shuffled rounds over ``count`` pictures."""
    first, last = start // count, (start + length - 1) // count
    rounds = [
        np.random.default_rng([2, *key, number]).permutation(count)
        for number in range(first, last + 1)
    ]
    return np.concatenate(rounds)[start - first * count :][:length]


def check_sampler(sampler: str) -> None:
    """Refuse an unknown sampler.

    Raises:
        InputError: With the known ones.

    Example:
        >>> check_sampler("balanced")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: sampler: expected one of instance, class-balanced,
        square-root, progressive, got 'balanced'
    """
    samplers = get_args(Sampler)
    if sampler not in samplers:
        raise InputError(f"sampler: expected one of {', '.join(samplers)}, got '{sampler}'")
