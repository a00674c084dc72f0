"""Prior shift: what a test set would say if its classes came in other shares. No new inference.

Only the shares of the classes change, the pictures of a class do not: ``p(x | y)`` stays.

A network's probabilities hold for the shares that it was trained towards, its implicit prior:
cross-entropy takes that of the pictures it was shown; the balanced softmax (methods ``bsm``,
``ekd``, ``fopro`` and ``random``) keeps ``log n`` out of the logits that are stored, so theirs is
uniform. For another prior they are scaled, ``p'(y | x) ~ p(y | x) * new(y) / old(y)``.
Legend: ``n`` pictures, ``K`` classes, ``R`` resamples.

Source: Saerens, Latinne & Decaestecker, Neural Comput. 14 (2002) 21, equation 2.4.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.metrics import (
    calibration_error,
    class_recalls,
    confusion_matrices,
    softmax,
)

UNIFORM, TRAINING, UNKNOWN = "uniform", "training", "unknown"


def class_prior(class_counts: np.ndarray, strength: float) -> np.ndarray:
    """Return shares of the classes between tail-heavy and head-heavy.

    ``prior(y) ~ n(y) ** strength``

    Args:
        class_counts: Training pictures ``(K,)``, each above 0.
        strength: 1 gives the training shares, 0 equal ones, -1 the training shares' reciprocals.

    Returns:
        Shares ``(K,)`` that sum to 1, ``float64``.

    Raises:
        InputError: If a count is not above 0, or the strength is not finite.

    Example:
        >>> class_prior(np.array([9, 1]), -1.0).round(6).tolist()
        [0.1, 0.9]
    """
    counts = np.asarray(class_counts, dtype=np.float64)
    if not (np.isfinite(counts).all() and (counts > 0).all()) or not np.isfinite(strength):
        raise InputError(
            f"class_counts: expected numbers above 0 and a finite strength, got {counts.tolist()} "
            f"and {strength}"
        )
    logs = strength * np.log(counts)
    powers = np.exp(logs - logs.max())
    return powers / powers.sum()


def implicit_prior(config: Mapping[str, Any]) -> str:
    """Tell which class shares the stored logits of a run hold for.

    Args:
        config: Of the run: ``method``; ``sampler`` and ``mixup_alpha`` if it has them.

    Returns:
        "training" for cross-entropy that draws each picture once an epoch; "uniform" for every
        method with a balanced softmax, whatever it draws, since that corrects for what was drawn,
        and for cross-entropy that draws all classes alike; "unknown" for cross-entropy that draws
        anything in between, whose prior may move while it trains.

    Example:
        >>> implicit_prior({"method": "ce"}), implicit_prior({"method": "fopro"})
        ('training', 'uniform')
    """
    sampler, mixup = config.get("sampler", "instance"), config.get("mixup_alpha", 0.0)
    if config["method"] != "ce" or sampler == "class-balanced":
        return UNIFORM
    return TRAINING if sampler == "instance" and not mixup else UNKNOWN


def shifted_probabilities(logits: np.ndarray, *, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Move probabilities from one prior to another.

    ``p'(y | x) ~ softmax(logits)(y) * new(y) / old(y)``

    Args:
        logits: ``(n, K)``.
        old: Shares that the logits hold for, ``(K,)``, above 0.
        new: Shares to move to, ``(K,)``, 0 or above.

    Returns:
        Probabilities ``(n, K)``, ``float64``.

    Raises:
        ShapeError: If a prior has not one share a class.

    Example:
        >>> half = np.array([0.5, 0.5])
        >>> found = shifted_probabilities(np.zeros((1, 2)), old=half, new=np.array([0.9, 0.1]))
        >>> found.round(6).tolist()
        [[0.9, 0.1]]
    """
    for name, prior in (("old", old), ("new", new)):
        if np.shape(prior) != logits.shape[-1:]:
            raise ShapeError(f"{name}: expected ({logits.shape[-1]},), got {np.shape(prior)}")
    with np.errstate(divide="ignore"):  # a class that does not come has the logarithm -inf
        return softmax(np.asarray(logits, np.float64) + np.log(new) - np.log(old))


def prior_weights(labels: np.ndarray, weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weigh pictures so that each class has its share of a prior, in every resample.

    Args:
        labels: True classes ``(n,)``.
        weights: How often each picture was drawn, ``(n, R)``.
        prior: Shares ``(K,)``; of classes without pictures it is dealt out to the others.

    Returns:
        Weights ``(n, R)``, each column summing to 1.

    Example:
        >>> ones = np.ones((3, 1))
        >>> prior_weights(np.array([0, 0, 1]), ones, np.array([0.5, 0.5])).ravel().tolist()
        [0.25, 0.25, 0.5]
    """
    shifted = np.zeros(weights.shape, dtype=np.result_type(weights, np.float32))
    present = np.unique(labels)
    shares = prior[present] / prior[present].sum()
    for label, share in zip(present, shares, strict=True):
        rows = labels == label
        shifted[rows] = share * weights[rows] / weights[rows].sum(axis=0)
    return shifted


def measure_under_prior(
    logits: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    prior: np.ndarray,
    old: np.ndarray,
    adjust: bool = True,
) -> dict[str, np.ndarray]:
    """Measure predictions as if the test classes came in the shares of a prior.

    Args:
        logits: ``(n, K)``.
        labels: True classes ``(n,)``.
        weights: ``(n, R)``, of the bootstrap; ones for the plain metric.
        prior: Shares of the classes in the test set that is imagined, ``(K,)``.
        old: Implicit prior of the logits, ``(K,)``.
        adjust: Whether the predictor knows the prior, and scales its probabilities by
            ``prior / old``; else they stay as they are stored, and only accuracy and calibration
            move.

    Returns:
        ``recall (R, K)``, NaN for a class without pictures; ``balanced_accuracy``, ``accuracy``
        (the mean of the recalls, weighted by the prior) and ``ece``, each ``(R,)``.

    Example:
        >>> found = measure_under_prior(np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([0, 1]),
        ...     np.ones((2, 1)), prior=np.array([0.9, 0.1]), old=np.array([0.5, 0.5]))
        >>> found["accuracy"].round(6).tolist(), found["balanced_accuracy"].tolist()
        ([0.9], [0.5])
    """
    new = prior if adjust else old
    probabilities = shifted_probabilities(logits, old=old, new=new)
    predicted = probabilities.argmax(axis=1)
    recalls = class_recalls(confusion_matrices(labels, predicted, weights, classes=logits.shape[1]))
    known = ~np.isnan(recalls[0])
    shares = prior[known] / prior[known].sum()
    shifted = prior_weights(labels, weights, prior)
    return {
        "recall": recalls,
        "balanced_accuracy": recalls[:, known].mean(axis=1),
        "accuracy": recalls[:, known] @ shares,
        "ece": calibration_error(probabilities, labels, shifted),
    }
