"""Features of a frozen teacher, the linear probe fitted on them, and classifiers in general."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation import balanced_accuracy, scores
from fopro_lab.evaluation.bootstrap import percentile_interval, sample_and_resamples
from fopro_lab.evaluation.metrics import balanced_accuracies

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, from strong to weak regularisation


class Encoder(Protocol):
    """What probing needs of a teacher such as `fopro_lab.models.Teacher`: images to ``(B, D)``."""

    name: str
    card: dict[str, Any]

    def encode(self, images: Tensor) -> Tensor: ...  # noqa: D102
    def parameters(self) -> Iterable[Tensor]: ...  # noqa: D102
    def buffers(self) -> Iterable[Tensor]: ...  # noqa: D102


def resampling_units(table: pd.DataFrame, *, rows: np.ndarray) -> np.ndarray:
    """Return what a bootstrap draws as a whole: each image's group, or itself if it has none."""
    return scores.resampling_units(table.iloc[rows])


def draw_rows(rows: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Draw at most ``count`` rows, sorted."""
    return np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))


def draw_per_class(
    rows: np.ndarray, labels: np.ndarray, *, per_class: int, seed: int
) -> np.ndarray:
    """Draw at most ``per_class`` rows of each class, sorted; rare classes stay whole, 0 is all."""
    if per_class == 0:
        return rows
    rng = np.random.default_rng(seed)
    members = (rows[labels == label] for label in np.unique(labels))
    drawn = [rng.choice(own, min(per_class, len(own)), replace=False) for own in members]
    return np.sort(np.concatenate(drawn))


def teacher_device(teacher: Encoder) -> torch.device:
    """Return the device of the teacher's weights or buffers, the CPU if it has none."""
    first = next(chain(teacher.parameters(), teacher.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def encode(teacher: Encoder, images: Tensor, *, check: bool = True) -> Tensor:
    """Compute features ``(B, D)``, or say in one line why this network gives none.

    They are in single precision or better. A GPU has to be waited for to ``check`` that features
    are finite.
    """
    try:
        features: Any = teacher.encode(images)
    except (torch.OutOfMemoryError, InputError):
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        size = " x ".join(map(str, images.shape[-2:]))
        problem = f"teacher {teacher.name}: cannot encode images of {size} px ({reason})"
        raise InputError(f"{problem}; give larger images, or teacher_size") from error
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        rule = f"expected features ({len(images)}, D), one vector per image, got {found}"
        raise InputError(f"teacher {teacher.name}: {rule}; pool its maps or tokens")
    if check:
        check_finite(teacher, features)
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def check_finite(teacher: Encoder, values: Tensor) -> None:
    """Refuse features, or what was computed from them, that are NaN or infinite."""
    if not torch.isfinite(values).all():
        raise InputError(f"teacher {teacher.name}: expected finite features, got NaN or infinity")


def feature_drift(before: Tensor, after: Tensor) -> Tensor:
    """Return the cosine distance ``1 - cos`` of features ``(B, D)`` from others, ``(B,)``."""
    return 1 - torch.cosine_similarity(before, after, dim=1)


def encode_rows(
    teacher: Encoder, pack: Pack, *, rows: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """Compute the features ``(n, D)``, float32, of some rows of a pack, in their order."""
    device = teacher_device(teacher)
    with torch.inference_mode():
        stream = batches(pack, rows, batch_size=batch_size, device=device)
        features = [encode(teacher, images).float() for images, _ in stream]
    return torch.cat(features).cpu().numpy()


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted linear probe; `linear_probe` and `fit_classifier` fit one."""

    mean: np.ndarray  # of each feature over the training rows, (D,)
    scale: np.ndarray  # standard deviation of each feature, 1 where it is constant, (D,)
    weight: np.ndarray  # (K, D)
    bias: np.ndarray  # (K,)
    strength: float  # the chosen C of scikit-learn: the larger, the weaker the regularisation
    val_balanced_accuracy: float  # mean of class recalls on the validation rows, in [0, 1]

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
    """Fit a multinomial logistic regression on standardised features, all classes weighing alike.

    Features are ``(n, D)``, labels ``(n,)``, and every class from 0 to K - 1 is among those of
    training. Of four strengths of regularisation the one with the best balanced accuracy on the
    validation rows is taken; of equals, the strongest.
    """
    mean = train_features.mean(axis=0, dtype=np.float64)
    scale = train_features.std(axis=0, dtype=np.float64)
    scale[scale <= 1e-6 * np.abs(mean)] = 1.0  # constant up to the rounding of single precision
    candidates = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
        with warnings.catch_warnings():
            # Validation decides about a candidate that has not converged as about any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((train_features - mean) / scale, train_labels)
        weight, bias = model.coef_, model.intercept_
        if len(bias) == 1:  # of two classes scikit-learn keeps one row
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        probe = LinearProbe(mean, scale, weight, bias, strength, np.nan)
        accuracy = balanced_accuracy(val_labels, probe.predict(val_features))
        candidates.append(replace(probe, val_balanced_accuracy=accuracy))
    return max(candidates, key=lambda candidate: candidate.val_balanced_accuracy)


def fit_classifier(
    teacher: Encoder, pack: Pack, split: Split, *, batch_size: int = 64
) -> LinearProbe:
    """Fit a linear probe on the training rows; the validation rows choose its regularisation."""
    counts = np.bincount(pack.labels[split.train], minlength=len(pack.dataset.class_names))
    if (counts == 0).any():
        absent = pack.dataset.class_names[int(np.argmin(counts))]
        got = f"got no image of '{absent}' to fit the probe; take another split"
        raise InputError(f"split: expected every class in train, {got}, or leave the class out")
    parts = (split.train, split.val)
    train, val = (encode_rows(teacher, pack, rows=rows, batch_size=batch_size) for rows in parts)
    known, chosen = (pack.labels[rows] for rows in parts)
    return linear_probe(train, known, val_features=val, val_labels=chosen)


@dataclass(frozen=True)
class Classifier:
    """Anything that names the class of each image."""

    name: str  # for tables: "probe", "student", or your own
    predict: Callable[[Tensor], Tensor]  # images (B, 3, H, W) in [0, 1] to classes (B,)
    device: torch.device | str = "cpu"  # where it wants its images


def wrap_classifier(
    classify: Callable[[Tensor], Tensor],
    *,
    name: str = "student",
    device: torch.device | str = "cpu",
) -> Classifier:
    """Make a classifier of any function from images ``(B, 3, H, W)`` to logits ``(B, K)``.

    ``device`` is where the function, for example a trained student's, wants its images.
    """

    def predict(images: Tensor) -> Tensor:
        logits = classify(images)
        if logits.ndim != 2 or len(logits) != len(images):
            got = tuple(logits.shape)
            raise ShapeError(f"{name}: expected logits ({len(images)}, K), got {got}")
        return logits.argmax(dim=1)

    return Classifier(name, predict, device)


def probe_logits(teacher: Encoder, probe: LinearProbe) -> Callable[[Tensor], Tensor]:
    """Return `LinearProbe.logits` as a function of float64 tensors on the teacher's device."""
    mean, scale, weight, bias = (
        torch.as_tensor(part, dtype=torch.float64, device=teacher_device(teacher))
        for part in (probe.mean, probe.scale, probe.weight, probe.bias)
    )
    return lambda features: (features - mean) / scale @ weight.T + bias


def probe_classifier(teacher: Encoder, probe: LinearProbe) -> Classifier:
    """Make a classifier of a teacher and a linear probe on its features."""
    logits, device = probe_logits(teacher, probe), teacher_device(teacher)
    how: dict[str, Any] = {"name": "probe", "device": device}
    return wrap_classifier(lambda images: logits(encode(teacher, images).double()), **how)


def probe_advantage(teacher: Encoder, other: Encoder, pack: Pack, split: Split) -> dict[str, Any]:
    """Compare the linear probes of two networks on the same test images.

    Returns:
        ``balanced_accuracy``, ``other_balanced_accuracy``, ``difference`` with ``low`` and
        ``high`` (95 %, paired bootstrap of whole lesions or patients), ``test_images``,
        ``image_size`` and ``protocol``.
    """
    labels, classes = pack.labels[split.test], len(pack.dataset.class_names)
    units = resampling_units(pack.dataset.table, rows=split.test)
    weights = sample_and_resamples(labels, units, resamples=1000, seed=0)
    scores = []
    for network in (teacher, other):
        probe = fit_classifier(network, pack, split)
        predicted = probe.predict(encode_rows(network, pack, rows=split.test))
        scores.append(balanced_accuracies(labels, predicted, weights, classes=classes))
    ours, theirs = scores
    found = {"balanced_accuracy": float(ours[0]), "other_balanced_accuracy": float(theirs[0])}
    low, high = percentile_interval((ours - theirs)[1:])
    found |= {"difference": float(ours[0] - theirs[0]), "low": low, "high": high}
    about = {"test_images": len(labels), "image_size": pack.size, "protocol": split.protocol}
    return found | about
