"""Calibration of a run's logits on its validation images: a temperature, and conformal class sets.

A class is in an image's set unless its probability is lower than is usual for validation images of
that class (split conformal prediction with a threshold per class, "Mondrian"). Of new images of
each class the sets then hold it at least as often as asked for, whatever the class shares, if they
are like the validation images; a little less often where an epoch was chosen on these.

Source: Guo et al., ICML 2017, arXiv:1706.04599 (temperature); Vovk, Mach. Learn. 92 (2013) 349
    (thresholds per class); Sadinle, Lei & Wasserman, JASA 114 (2019) 223 (the score 1 - p).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from fopro_lab.errors import InputError
from fopro_lab.evaluation import prior_shift
from fopro_lab.evaluation.runs import Run
from fopro_lab.evaluation.scores import resampling_units
from fopro_lab.options import nearest


def fit_temperature(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Return the T, 0.05 to 20, of the lowest weighted cross-entropy of ``softmax(logits / T)``.

    It is 1 where all are right, as ever smaller ones are better then, and none is the best.
    """

    def loss(log_t: float) -> float:
        logs = log_softmax(logits / math.exp(log_t), axis=1)
        return -float(weights @ logs[np.arange(len(labels)), labels])

    bounds = (math.log(0.05), math.log(20))
    best = minimize_scalar(loss, bounds=bounds)
    return math.exp(best.x) if loss(bounds[0]) > best.fun + 1e-9 else 1.0


def conformal_limits(
    scores: np.ndarray, labels: np.ndarray, *, classes: int, coverage: float
) -> np.ndarray:
    """Return the largest score of each class that is still in a set, ``(K,)``.

    ``scores (n,)`` say how little an image fits its own class. Of the ``n`` of a class the limit is
    the one of rank ``ceil((n + 1) coverage)``; where there are fewer, it is infinite.
    """
    ordered = [np.sort(scores[labels == label]) for label in range(classes)]
    ranks = [math.ceil((len(own) + 1) * coverage - 1e-9) for own in ordered]
    return np.array([[*own, np.inf][rank - 1] for own, rank in zip(ordered, ranks, strict=True)])


@dataclass(frozen=True)
class Calibration:
    """What validation images say of a run's logits; `calibrate` makes it."""

    run: Run
    temperature: float
    shares: np.ndarray  # of the classes, that the logits hold for, (K,); equal if unknown
    counts: np.ndarray  # validation images of each class, one per lesion or patient, (K,)
    limits: np.ndarray  # of 1 - p, (K,); infinite ones put the class in every set
    coverage: float
    unit: str  # what is counted: "images", or "lesions or patients" where these are known

    @property
    def implicit(self) -> str:
        """Which class shares the logits hold for; see `implicit_prior`."""
        return prior_shift.refined_prior(self.run)

    @property
    def too_few(self) -> dict[str, int]:
        """Classes with fewer validation images than the coverage needs, and how many they have."""
        few = np.flatnonzero(np.isinf(self.limits))
        return {self.run.class_names[k]: int(self.counts[k]) for k in few}

    def prior(self, wanted: str | Mapping[str, float]) -> np.ndarray:
        """Return class shares ``(K,)``: as trained (""), uniform, training, or by class name."""
        if wanted == "":
            return self.shares
        if self.implicit == "unknown":
            problem = f"the class shares that the logits of {self.run.method} hold for are unknown"
            raise InputError(f"prior: leave it out; {problem}, so they cannot be moved to others")
        known = {"uniform": 0.0, "training": 1.0}
        if isinstance(wanted, str):
            if wanted not in known:
                rule = "uniform, training, or the share of each class, prior.NAME=SHARE"
                raise InputError(f"prior: expected {rule}, got '{wanted}'")
            return prior_shift.class_prior(self.run.manifest["class_counts"], known[wanted])
        for name in [name for name in wanted if name not in self.run.class_names]:
            raise InputError(f"prior.{name}: no such class; {nearest(name, self.run.class_names)}")
        shares = np.array([wanted.get(name, np.nan) for name in self.run.class_names], dtype=float)
        if not (shares >= 0).all() or not 0 < shares.sum() < np.inf:
            rule = "a finite share, 0 or more, for each class, not all of them 0"
            raise InputError(f"prior: expected {rule}, got {dict(wanted)}")
        return shares / shares.sum()

    def probabilities(self, logits: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities ``(n, K)`` under class shares of `prior`."""
        scaled = logits / self.temperature
        return prior_shift.shifted_probabilities(scaled, old=self.shares, new=prior)

    def class_sets(self, logits: np.ndarray) -> np.ndarray:
        """Tell which classes are in the set of each image, ``(n, K)``; no prior changes that."""
        return 1 - softmax(logits, axis=1) <= self.limits


def calibrate(run: Run, *, coverage: float = 0.9) -> Calibration:
    """Fit a finished run's temperature, and its limits for sets, on its validation predictions.

    For the temperature, images are weighted so that classes have the shares that the logits hold
    for. Of a lesion or patient the limits take one image, as the others depend on it.
    """
    if not 0 < coverage < 1:
        raise InputError(f"coverage: expected a share between 0 and 1, got {coverage}")
    if not run.complete or (run.predictions["split"] != "val").all():
        raise InputError(f"{run.path}: expected a finished run with predictions of validation")
    table = run.predictions.query("split == 'val'")
    logits = table[[f"logit_{name}" for name in run.class_names]].to_numpy()
    labels, implicit = table["label"].to_numpy(), prior_shift.refined_prior(run)
    counts = run.manifest["class_counts"]
    shares = prior_shift.class_prior(counts, 1.0 if implicit == "training" else 0.0)
    weights = np.ones((len(table), 1))
    if implicit != "unknown":
        weights = prior_shift.prior_weights(labels, weights, shares)
    one = table.assign(unit=resampling_units(table), place=np.arange(len(table)))
    one = one.sample(frac=1, random_state=0).drop_duplicates(["unit", "label"])
    scores, own = 1 - softmax(logits, axis=1)[one["place"], one["label"]], one["label"].to_numpy()
    limits = conformal_limits(scores, own, classes=len(shares), coverage=coverage)
    temperature = fit_temperature(logits, labels, weights[:, 0])
    sizes = np.bincount(own, minlength=len(shares))
    known = (table["group"] != table["image"]) & (table["group"] != "")
    unit = "lesions or patients" if known.any() else "images"
    return Calibration(run, temperature, shares, sizes, limits, coverage, unit)
