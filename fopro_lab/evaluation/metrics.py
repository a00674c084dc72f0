"""Weighted classification metrics, for many bootstrap resamples at once.

A resample of ``n`` images is a column of weights: how often each image was drawn. Every function
takes weights ``(n, R)`` and answers for all ``R`` resamples together, which scikit-learn's
functions cannot; a single column of ones gives the plain metric.
"""

import numpy as np
from scipy.sparse import csr_array

ECE_BINS = 15
_BLOCK = 32  # resamples at a time: keeps the running sums of AUROC within the cache


def confusion_matrices(
    labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, *, classes: int
) -> np.ndarray:
    """Count, in each resample, which class (row) was predicted as which (column): ``(R, K, K)``."""
    hits = np.eye(classes, dtype=weights.dtype)[predicted]
    counts = np.zeros((weights.shape[1], classes, classes))
    for label in range(classes):
        rows = labels == label
        counts[:, label] = weights[rows].T @ hits[rows]
    return counts


def class_recalls(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each class that was found, ``(R, K)``; NaN for a class without images."""
    found = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(found, confusion.sum(axis=-1), empty=np.nan)


def mean_recall(recalls: np.ndarray) -> np.ndarray:
    """Average recalls ``(R, K)`` over the classes that have images; NaN if none has."""
    known = ~np.isnan(recalls[0])
    if not known.any():
        return np.full(len(recalls), np.nan)
    return recalls[:, known].mean(axis=1)


def balanced_accuracies(
    labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, *, classes: int
) -> np.ndarray:
    """Return the mean recall over the classes that have images in each resample, ``(R,)``."""
    recalls = class_recalls(confusion_matrices(labels, predicted, weights, classes=classes))
    return np.asarray(np.nanmean(recalls, axis=1))


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean recall over the classes that occur in ``labels``, in [0, 1].

    Both are ``(n,)``; unlike for scikit-learn, no predicted class need occur in ``labels``.
    """
    return float(np.mean([(predicted[labels == k] == k).mean() for k in np.unique(labels)]))


def agreement(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return accuracy, macro F1, Matthews' coefficient (mcc) and Cohen's kappa, each ``(R,)``.

    Macro F1 is the mean over the classes that have images. As in scikit-learn, Matthews'
    coefficient is 0 where truth or prediction holds one class only; kappa is NaN where both hold
    the same one.

    Source: Gorodkin, Comput. Biol. Chem. 28 (2004) 367, the R_K statistic; Cohen, Educ. Psychol.
        Meas. 20 (1960) 37.
    """
    found = np.diagonal(confusion, axis1=-2, axis2=-1)
    truth, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    right, total, present = found.sum(axis=-1), truth.sum(axis=-1), truth > 0
    f1 = np.where(present, _ratio(2 * found, truth + predicted, empty=0.0), 0.0)
    by_chance = (truth * predicted).sum(axis=-1)
    covariance = right * total - by_chance
    spread = (total**2 - (truth**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return {
        "accuracy": _ratio(right, total, empty=np.nan),
        "macro_f1": _ratio(f1.sum(axis=-1), present.sum(axis=-1), empty=np.nan),
        "mcc": _ratio(covariance, np.sqrt(spread), empty=0.0),
        "kappa": _ratio(covariance, total**2 - by_chance, empty=np.nan),
    }


def macro_auroc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean one-vs-rest area under the ROC curve of the classes with images, ``(R,)``.

    The area is the share of (image of the class, other image) pairs in which the first has the
    higher probability, a tie counting half; in a resample each pair counts by the product of its
    weights. Weights are summed between the scores of the side that has fewer images, whose running
    sums then count all pairs. NaN where all images are of one class.

    Source: Hanley & McNeil, Radiology 143 (1982) 29.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return np.full(weights.shape[1], np.nan)
    pairs = [_score_levels(probabilities[:, label], labels == label) for label in present]
    areas = np.zeros(weights.shape[1])
    for start in range(0, len(areas), _BLOCK):
        drawn = np.ascontiguousarray(weights[:, start : start + _BLOCK])
        for ours, theirs, swapped in pairs:
            own, others = ours @ drawn, theirs @ drawn
            ties = others[1::2] / 2
            below = np.cumsum(others, axis=0, out=others)
            won = np.einsum("ir,ir->r", own, below[:-1:2] + ties)
            area = won / (own.sum(axis=0) * below[-1])
            areas[start : start + _BLOCK] += 1 - area if swapped else area
    return areas / len(present)


def _score_levels(score: np.ndarray, few: np.ndarray) -> tuple[csr_array, csr_array, bool]:
    """Return matrices that sum weights by score, of the smaller side and of the other; if swapped.

    Rows of the first are the L levels of its scores, the lowest first; of the second 2 L + 1: those
    below the first level, tied with it, between it and the next, and so on.
    """
    swapped = bool(few.mean() > 0.5)
    few = few != swapped
    levels, level = np.unique(score[few], return_inverse=True)
    place = np.searchsorted(levels, score[~few])
    place = 2 * place + (levels[np.minimum(place, len(levels) - 1)] == score[~few])

    def sums(row: np.ndarray, side: np.ndarray, rows: int) -> csr_array:
        return csr_array((np.ones(len(row)), (row, np.flatnonzero(side))), (rows, len(few)))

    return sums(level, few, len(levels)), sums(place, ~few, 2 * len(levels) + 1), swapped


def calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the expected calibration error of the predicted class, ``(R,)`` in [0, 1].

    Images fall into 15 bins of equal width by their largest probability, bin ``b`` being
    ``(b / 15, (b + 1) / 15]``; the error is the mean over images of the gap between their bin's
    accuracy and its mean confidence. It is never negative, so noise alone makes it positive.

    Source: Guo et al., ICML 2017, arXiv:1706.04599, equation 5.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.zeros((len(labels), ECE_BINS), dtype=weights.dtype)
    gaps[np.arange(len(labels)), bins] = correct - confidence
    return np.abs(weights.T @ gaps).sum(axis=1) / weights.sum(axis=0)


def _ratio(part: np.ndarray, whole: np.ndarray, *, empty: float) -> np.ndarray:
    """Divide, with ``empty`` where the whole is zero."""
    return np.divide(part, whole, out=np.full(np.shape(part), empty), where=whole > 0)


def discriminant(
    features: np.ndarray, labels: np.ndarray, *, classes: int, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit Fisher's linear discriminant with equal priors: weight ``(D, K)`` and bias ``(K,)``.

    The covariance's diagonal grows by ``shrinkage`` times the mean variance. In the covariance
    every class counts the same, whatever its size; one without images has scores of 0.

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, section 4.3.
    """
    counts = np.bincount(labels, minlength=classes)
    members = np.zeros((classes, len(labels)))
    members[labels, np.arange(len(labels))] = 1 / counts[labels]
    means = members @ features
    inner = features - means[labels]
    covariance = (inner * (1 / counts[labels] / classes)[:, None]).T @ inner
    size = features.shape[1]
    covariance += np.eye(size) * (shrinkage * np.trace(covariance) / size + 1e-12)
    weight = np.linalg.solve(covariance, means.T)
    return weight, -0.5 * np.einsum("kd,dk->k", means, weight)
