"""A linear probe: what a linear classifier reads out of frozen features."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation import balanced_accuracy

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, from strong to weak regularisation
ITERATIONS = 300


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe; arrays only, so that it can be kept and compared.

    Attributes:
        mean: Of each feature over the training rows, ``(D,)``.
        scale: Standard deviation of each feature, 1 where it is constant, ``(D,)``.
        weight: Of each class, ``(K, D)``.
        bias: ``(K,)``.
        strength: The chosen C of scikit-learn.
        val_balanced_accuracy: Mean of class recalls on the validation rows, in [0, 1].

    Example:
        >>> x, y = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
        >>> linear_probe(x, y, val_features=x, val_labels=y).predict(x).tolist()
        [0, 0, 1, 1]
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    strength: float
    val_balanced_accuracy: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Turn features ``(n, D)`` into logits ``(n, K)``."""
        return (features - self.mean) / self.scale @ self.weight.T + self.bias

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Turn features ``(n, D)`` into classes ``(n,)``."""
        return self.logits(features).argmax(axis=1)


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    *,
    val_features: np.ndarray,
    val_labels: np.ndarray,
) -> LinearProbe:
    """Fit a multinomial logistic regression on standardised features.

    Classes weigh the same, whatever their size. Of four strengths of regularisation the one with
    the best balanced accuracy on the validation rows is taken, the strongest of equals.

    Args:
        train_features: ``(n, D)``.
        train_labels: Classes 0 to K - 1, each at least once, ``(n,)``.
        val_features: ``(m, D)``.
        val_labels: ``(m,)``.

    Returns:
        The probe.

    Raises:
        ShapeError: If features and labels do not fit together.
        InputError: If a class has no training row, there is one class only, or a feature is not
            finite.

    Example:
        >>> x, y = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
        >>> linear_probe(x, y, val_features=x, val_labels=y).val_balanced_accuracy
        1.0
    """
    _check(train_features, train_labels, val_features, val_labels)
    mean = train_features.mean(axis=0, dtype=np.float64)
    scale = train_features.std(axis=0, dtype=np.float64)
    scale[scale <= 1e-6 * np.abs(mean)] = 1.0  # constant up to single precision's rounding
    candidates = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=ITERATIONS)
        with warnings.catch_warnings():
            # A candidate that has not converged is judged on validation like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((train_features - mean) / scale, train_labels)
        weight, bias = _of_each_class(model)
        found = LinearProbe(mean, scale, weight, bias, strength, float("nan"))
        accuracy = balanced_accuracy(val_labels, found.predict(val_features))
        candidates.append(replace(found, val_balanced_accuracy=accuracy))
    return max(candidates, key=lambda candidate: candidate.val_balanced_accuracy)


def _of_each_class(model: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Return weight ``(K, D)`` and bias ``(K,)``; of two classes scikit-learn keeps one row."""
    weight, bias = model.coef_, model.intercept_
    if len(bias) == 1:
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _check(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
) -> None:
    for part, features, labels in (
        ("train", train_features, train_labels),
        ("val", val_features, val_labels),
    ):
        if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
            raise ShapeError(
                f"{part}_features, {part}_labels: expected (n, D) and (n,), n 1 or more, "
                f"got {features.shape} and {labels.shape}"
            )
        if not np.isfinite(features).all():
            raise InputError(f"{part}_features: expected finite numbers, got NaN or infinity")
    found = np.unique(train_labels)
    if len(found) < 2 or not np.array_equal(found, np.arange(len(found))):
        raise InputError(
            f"train_labels: expected every class from 0 on, two or more, got {found.tolist()}"
        )
