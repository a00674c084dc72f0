"""Prior shift: what a test set of other class shares would say, from stored logits.

Nothing is inferred again: test images are weighted so that each class has its new share, and
probabilities are scaled by new over old share (Saerens, Latinne & Decaestecker, Neural Comput. 14
(2002) 21). Resamples are drawn once, so runs and shares are compared on the same ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from fopro_lab.config import parts_of
from fopro_lab.errors import InputError
from fopro_lab.evaluation import bootstrap, metrics
from fopro_lab.evaluation.runs import Run
from fopro_lab.evaluation.scores import align


def class_prior(class_counts: np.ndarray, strength: float) -> np.ndarray:
    """Return class shares ``(K,)``, ``~ n(y) ** strength``, of ``n`` training images each.

    A strength of 1 gives the training shares, 0 equal ones, -1 the training shares' reciprocals.
    """
    counts = np.asarray(class_counts, dtype=np.float64)
    if not (np.isfinite(counts).all() and (counts > 0).all()):
        raise InputError(f"class_counts: expected numbers above 0, got {counts.tolist()}")
    return softmax(strength * np.log(counts))


def implicit_prior(config: Mapping[str, Any]) -> str:
    """Return which class shares the stored logits of a run of some config hold for.

    "uniform" for every method with a balanced softmax (and for logit adjustment at its strength),
    which corrects for what was drawn, and for cross-entropy that draws all classes alike;
    "training" for cross-entropy that draws each image once per epoch; "unknown" for what lies
    between, whose prior may change during training, or is pulled to equal shares by the teacher's
    probe (kd, dkd) or perhaps by a distillation of one's own, and for every other loss.
    """
    sampler, mixup = config.get("sampler", "instance"), config.get("mixup_alpha", 0.0)
    loss, distillation = parts_of(config).loss, parts_of(config).distillation
    drawn = loss == "ce" and distillation in ("none", "ekd", "fitnet", "rkd", "sp")
    adjusted = loss == "logit-adjustment" and config.get("logit_tau", 1.0) == 1
    if loss == "bsm" or adjusted or (loss == "ce" and sampler == "class-balanced"):
        return "uniform"
    return "training" if drawn and sampler == "instance" and not mixup else "unknown"


def refined_prior(run: Run) -> str:
    """Return the `implicit_prior` of a run whose logits may have been refined since."""
    prior = "unknown" if "&" in run.method else implicit_prior(run.config)
    known = dict.fromkeys(("crt", "lws"), "uniform")  # trained on class-balanced batches
    known |= dict.fromkeys(("logit-adjustment", "tau-norm"), "unknown")
    for how in run.manifest.get("refined", {}).get("steps", ()):
        prior = known.get(how, prior)
    return prior


def shifted_probabilities(logits: np.ndarray, *, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Move probabilities from one prior to another: ``p'(y | x) ~ p(y | x) * new(y) / old(y)``."""
    with np.errstate(divide="ignore"):  # a class that does not occur has the logarithm -inf
        return softmax(np.asarray(logits, np.float64) + np.log(new) - np.log(old), axis=-1)


def prior_weights(labels: np.ndarray, weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Scale weights ``(n, R)`` so that each class has its share of a prior, in every resample.

    The shares of classes without images are dealt out to the others; each column sums to 1.
    """
    shifted = np.zeros(weights.shape, dtype=np.result_type(weights, np.float32))
    present = np.unique(labels)
    for label, share in zip(present, prior[present] / prior[present].sum(), strict=True):
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
    """Measure logits ``(n, K)`` as if the test classes came in the shares of a prior ``(K,)``.

    With ``adjust`` the predictor knows the prior and scales its probabilities by ``prior / old``;
    else they stay as stored, and only accuracy and calibration change. Returns ``recall (R, K)``,
    NaN for a class without images, ``balanced_accuracy``, ``accuracy`` (recalls weighted by the
    prior) and ``ece``, each ``(R,)``, for weights ``(n, R)``.
    """
    probabilities = shifted_probabilities(logits, old=old, new=prior if adjust else old)
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrices(labels, predicted, weights, classes=logits.shape[1])
    recalls = metrics.class_recalls(confusion)
    known = ~np.isnan(recalls[0])
    shifted = prior_weights(labels, weights, prior)
    return {
        "recall": recalls,
        "balanced_accuracy": metrics.mean_recall(recalls),
        "accuracy": recalls[:, known] @ (prior[known] / prior[known].sum()),
        "ece": metrics.calibration_error(probabilities, labels, shifted),
    }


class PriorShift:
    """Test images of several finished runs in one order, and resamples of lesions, drawn once.

    Attributes:
        counts: Training images of each class, ``(K,)``.
        implicit: The `implicit_prior` of each run; where unknown, predictions stay as stored.
        names: Class names, from the most frequent in training to the rarest.
    """

    def __init__(self, runs: Sequence[Run], *, resamples: int = 400, seed: int = 0) -> None:
        if not runs:
            raise InputError("runs: expected at least one, got none")
        self.runs = list(runs)
        counts = [run.manifest.get("class_counts") for run in runs]
        for run, own in zip(runs, counts, strict=True):
            if own is None or own != counts[0]:
                rule = f"expected {counts[0] or 'some'} as in {runs[0].path}, got {own}"
                raise InputError(f"{run.path}: class_counts: {rule}; compare runs of one split")
        self.counts = np.asarray(counts[0], dtype=np.float64)
        self.implicit = [refined_prior(run) for run in runs]
        self.images = align([run.predictions for run in runs], runs[0].groups)
        self.names = [self.images.names[k] for k in np.argsort(-self.counts, kind="stable")]
        about = (self.images.labels, self.images.units)
        self._weights = bootstrap.sample_and_resamples(*about, resamples=resamples, seed=seed)

    def prior(self, strength: float) -> np.ndarray:
        """Return the shares of the classes in label order; see `class_prior`."""
        return class_prior(self.counts, strength)

    def table(self, strength: float, *, adjust: bool = True) -> pd.DataFrame:
        """Measure all runs under the prior of some strength; see `measure_under_prior`.

        One row per ``run`` (its number), ``metric`` and ``name`` (of a class, or "all"): ``n``,
        ``value``, ``low``, ``high``, ``interval`` (how it was made, as in `score`), and
        ``difference``, ``difference_low``, ``difference_high``: the run minus the first, on the
        same resamples; NaN where all resamples agree.
        """
        prior, images = self.prior(strength), self.images
        measured = []
        for logits, implicit in zip(images.logits, self.implicit, strict=True):
            how = {"prior": prior, "old": self.prior(1.0 if implicit == "training" else 0.0)}
            can = adjust and implicit != "unknown"
            found = measure_under_prior(logits, images.labels, self._weights, adjust=can, **how)
            recalls = dict(zip(images.names, found.pop("recall").T, strict=True))
            values = {("recall", name): recalls[name] for name in self.names}
            measured.append(values | {(metric, "all"): drawn for metric, drawn in found.items()})
        sizes = self.images.class_sizes() | {"all": len(self.images.labels)}
        rows = []
        for number, values in enumerate(measured):
            for (metric, name), (low, high, kind) in self._intervals(values, prior).items():
                own = values[metric, name]
                apart = own - measured[0][metric, name]
                known = not np.isnan(apart).any() and np.ptp(apart[1:]) > 1e-12
                known = known and not kind.startswith("none: ")
                ends = bootstrap.percentile_interval(apart[1:]) if known else (np.nan, np.nan)
                row = {"run": number, "metric": metric, "name": name, "n": sizes[name]}
                row |= {"interval": kind, "value": float(own[0]), "low": low, "high": high}
                row |= {"difference": float(apart[0]), "difference_low": ends[0]}
                rows.append(row | {"difference_high": ends[1]})
        return pd.DataFrame(rows)

    def _intervals(
        self, values: dict[tuple[str, str], np.ndarray], prior: np.ndarray
    ) -> dict[tuple[str, str], tuple[float, float, str]]:
        """Find limits, and how they were made, of each class, of the means and of calibration."""
        found = {("recall", name): (np.nan, np.nan, "none") for name in self.names}
        units = self.images.class_sizes(units=True)
        known = [name for name in self.names if units[name]]
        for name in known:
            own = values["recall", name]
            found["recall", name] = bootstrap.recall_interval(float(own[0]), own[1:], units[name])
        varied = all(found["recall", name][2] == "bootstrap" for name in known)
        classes = np.array([(values["recall", n][0], *found["recall", n][:2]) for n in known])
        shares = prior[[self.images.names.index(name) for name in known]]
        for metric, weights in (("balanced_accuracy", None), ("accuracy", shares)):
            how: dict[str, Any] = {"varied": varied, "weights": weights}
            drawn = values[metric, "all"][1:]
            found[metric, "all"] = bootstrap.class_mean_interval(drawn, classes, **how)
        ece = values["ece", "all"]
        agree = np.ptp(ece[1:]) <= 1e-7  # weights are of single precision
        limits = (np.nan, np.nan) if agree else bootstrap.basic_interval(float(ece[0]), ece[1:])
        found["ece", "all"] = (*limits, "none" if agree else "basic")
        for name in known:  # as in `score`
            if units[name] < bootstrap.FEWEST_GROUPS:
                found["recall", name] = (np.nan, np.nan, f"none: {units[name]} groups")
        return found
