"""A linear classifier in closed form, quick enough to be fitted thousands of times."""

import numpy as np

RIDGE = 1e-6  # of the mean variance: keeps constant features from dividing by zero


def discriminant_scores(
    features: np.ndarray, labels: np.ndarray, *, new: np.ndarray, classes: int
) -> np.ndarray:
    """Fit Fisher's linear discriminant with equal priors and score new rows.

    Args:
        features: ``(n, D)``, float64.
        labels: Classes of them, 0 to ``classes - 1``, each at least once, ``(n,)``.
        new: ``(m, D)``.
        classes: K.

    Returns:
        Scores ``(m, K)``; the largest is the predicted class. The covariance is that within
        classes, every class counting the same whatever its size.

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, section 4.3.

    Example:
        >>> x, y = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([0, 0, 1, 1])
        >>> discriminant_scores(x, y, new=np.array([[2.0], [9.0]]), classes=2).argmax(axis=1)
        array([0, 1])
    """
    counts = np.bincount(labels, minlength=classes)
    members = np.zeros((classes, len(labels)))
    members[labels, np.arange(len(labels))] = 1 / counts[labels]
    means = members @ features
    inner = features - means[labels]
    covariance = (inner * (1 / counts[labels] / classes)[:, None]).T @ inner
    size = features.shape[1]
    covariance += np.eye(size) * (RIDGE * np.trace(covariance) / size + 1e-12)
    weight = np.linalg.solve(covariance, means.T)
    return new @ weight - 0.5 * np.einsum("kd,dk->k", means, weight)
