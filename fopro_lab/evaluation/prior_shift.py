"""Runs side by side under a prior, with intervals from resamples that are drawn once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.bootstrap import (
    basic_interval,
    line_up,
    percentile_interval,
    wilson_interval,
)
from fopro_lab.evaluation.metrics import (
    calibration_error,
    class_recalls,
    confusion_matrices,
    softmax,
)
from fopro_lab.evaluation.runs import Run

UNIFORM, TRAINING, UNKNOWN = "uniform", "training", "unknown"


def class_prior(class_counts: np.ndarray, strength: float) -> np.ndarray:
    """Return shares of the classes between tail-heavy and head-heavy.

    ``prior(y) ~ n(y) ** strength``

    Args:
        class_counts: Training images ``(K,)``, each above 0.
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
        "training" for cross-entropy that draws each image once an epoch; "uniform" for every
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
    """Weigh images so that each class has its share of a prior, in every resample.

    Args:
        labels: True classes ``(n,)``.
        weights: How often each image was drawn, ``(n, R)``.
        prior: Shares ``(K,)``; of classes without images it is dealt out to the others.

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
        ``recall (R, K)``, NaN for a class without images; ``balanced_accuracy``, ``accuracy``
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


MEANS = ("balanced_accuracy", "accuracy")


class PriorShift:
    """Test images of some runs, lined up, with resamples of whole lesions drawn in advance.

    Args:
        runs: Finished runs that were tested on the same images.
        resamples: Of the bootstrap, the same ones for all runs and priors.
        seed: Of the bootstrap.

    Attributes:
        counts: Training images of each class, ``(K,)``, of the first run.
        implicit: Of each run, "training", "uniform" or "unknown"; see `implicit_prior`. Where it
            is unknown, predictions stay as they are stored.
        names: Class names, from the most frequent in training to the rarest.

    Raises:
        InputError: If there is no run, they were tested on different images, differ in their
            training counts, or a manifest has none.

    Example:
        >>> PriorShift([])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: runs: expected at least one, got none
    """

    def __init__(self, runs: Sequence[Run], *, resamples: int = 400, seed: int = 0) -> None:
        if not runs:
            raise InputError("runs: expected at least one, got none")
        self.runs = list(runs)
        counts = [run.manifest.get("class_counts") for run in runs]
        for run, own in zip(runs, counts, strict=True):
            if own is None or own != counts[0]:
                raise InputError(
                    f"{run.path}: class_counts: expected {counts[0] or 'some'} as in "
                    f"{runs[0].path}, got {own}; compare runs of one split"
                )
        self.counts = np.asarray(counts[0], dtype=np.float64)
        self.implicit = [implicit_prior(run.config) for run in runs]
        self.images = line_up([run.predictions for run in runs], runs[0].groups)
        self.names = [self.images.names[k] for k in np.argsort(-self.counts, kind="stable")]
        self._sizes = self.images.class_sizes()
        self._units = self.images.class_sizes(units=True)
        drawn = self.images.weights(resamples=resamples, seed=seed)
        # The first column is the test set itself.
        self._weights = np.concatenate([np.ones((len(drawn), 1), drawn.dtype), drawn], axis=1)

    def prior(self, strength: float) -> np.ndarray:
        """Return the shares of the classes in label order; see `class_prior`."""
        return class_prior(self.counts, strength)

    def table(self, strength: float, *, adjust: bool = True) -> pd.DataFrame:
        """Measure all runs under one prior.

        Args:
            strength: As of `class_prior`.
            adjust: As of `measure_under_prior`.

        Returns:
            Columns ``run`` (its place), ``metric`` ("recall", "balanced_accuracy", "accuracy",
            "ece"), ``name`` (of the class, else "all"), ``value``, ``low``, ``high``, ``n``,
            ``interval`` ("bootstrap", "wilson" where all resamples of a class agree, "mover" of a
            mean with such a class, "basic" of the calibration error, "none" where all its
            resamples agree), and ``difference``,
            ``difference_low``, ``difference_high``: the run minus the first, on the same
            resamples; NaN where all resamples agree.
        """
        rows, first = [], None
        prior = self.prior(strength)
        for place, logits in enumerate(self.images.logits):
            trained = self.implicit[place] == TRAINING
            found = measure_under_prior(
                logits,
                self.images.labels,
                self._weights,
                prior=prior,
                old=class_prior(self.counts, 1.0 if trained else 0.0),
                adjust=adjust and self.implicit[place] != UNKNOWN,
            )
            first = first or found
            rows += [{"run": place, **row} for row in self._rows(found, first, prior)]
        return pd.DataFrame(rows)

    def _rows(
        self, found: dict[str, np.ndarray], first: dict[str, np.ndarray], prior: np.ndarray
    ) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        limits: dict[int, tuple[float, float, float, str]] = {}
        for name in self.names:
            label = self.images.names.index(name)
            drawn = found["recall"][:, label]
            value, low, high, kind = _share(drawn, self._units[name])
            if self._sizes[name]:
                limits[label] = (value, low, high, kind)
            row = {"metric": "recall", "name": name, "n": self._sizes[name], "interval": kind}
            row |= {"value": value, "low": low, "high": high}
            rows.append(row | _difference(drawn, first["recall"][:, label]))
        for metric in MEANS:
            shares = prior if metric == "accuracy" else np.ones_like(prior)
            value, low, high, kind = _mean(found[metric], limits, shares)
            row = {"metric": metric, "name": "all", "n": len(self.images.labels)}
            row |= {"interval": kind, "value": value, "low": low, "high": high}
            rows.append(row | _difference(found[metric], first[metric]))
        value = float(found["ece"][0])
        agree = np.ptp(found["ece"][1:]) <= 1e-7  # weights are of single precision
        low, high = (np.nan, np.nan) if agree else basic_interval(value, found["ece"][1:])
        row = {"metric": "ece", "name": "all", "n": len(self.images.labels)}
        row |= {"value": value, "low": low, "high": high, "interval": "none" if agree else "basic"}
        return [*rows, row | _difference(found["ece"], first["ece"])]


def _share(drawn: np.ndarray, trials: int) -> tuple[float, float, float, str]:
    """Value and interval of a class recall; the first of the values is the test set's."""
    value = float(drawn[0])
    if np.isnan(value):
        return value, np.nan, np.nan, "none"
    if np.ptp(drawn[1:]) <= 1e-12:
        return value, *wilson_interval(value, trials), "wilson"
    return value, *percentile_interval(drawn[1:]), "bootstrap"


def _mean(
    drawn: np.ndarray, limits: dict[int, tuple[float, float, float, str]], shares: np.ndarray
) -> tuple[float, float, float, str]:
    """Value and interval of a weighted mean of recalls; MOVER where a class has Wilson's."""
    value = float(drawn[0])
    low, high = percentile_interval(drawn[1:])
    if all(kind == "bootstrap" for *_, kind in limits.values()):
        return value, low, high, "bootstrap"
    part = shares[list(limits)] / shares[list(limits)].sum()
    values, lows, highs = (
        np.array([limit[side] for limit in limits.values()]) for side in range(3)
    )
    below = np.sqrt(np.sum((part * (values - lows)) ** 2))
    above = np.sqrt(np.sum((part * (highs - values)) ** 2))
    return value, min(low, value - float(below)), max(high, value + float(above)), "mover"


def _difference(drawn: np.ndarray, first: np.ndarray) -> dict[str, float]:
    apart = drawn - first
    known = not np.isnan(apart).any() and np.ptp(apart[1:]) > 1e-12
    low, high = percentile_interval(apart[1:]) if known else (np.nan, np.nan)
    return {"difference": float(apart[0]), "difference_low": low, "difference_high": high}
