"""Features of a frozen teacher, the linear probe fitted on them, and classifiers in general."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, Protocol, cast

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation import balanced_accuracy
from fopro_lab.evaluation.bootstrap import bootstrap_weights, percentile_interval
from fopro_lab.evaluation.metrics import class_recalls, confusion_matrices
from fopro_lab.io import progress as show_progress

Precision = Literal["32-true", "bf16-mixed"]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, from strong to weak regularisation
ITERATIONS = 300


class Encoder(Protocol):
    """What probing needs of a teacher; `fopro_lab.models.Teacher` has it."""

    name: str
    card: dict[str, Any]

    def encode(self, images: Tensor) -> Tensor:
        """Turn ``(B, 3, H, W)`` in [0, 1] into ``(B, D)``."""
        ...

    def parameters(self) -> Iterable[Tensor]: ...  # noqa: D102
    def buffers(self) -> Iterable[Tensor]: ...  # noqa: D102


def resampling_units(table: pd.DataFrame, *, rows: np.ndarray) -> np.ndarray:
    """Return what a bootstrap draws as a whole: each image's group, or itself if it has none."""
    chosen = table.iloc[rows]
    named = chosen["group"].where(chosen["group"] != "", "image " + chosen["image"])
    return named.to_numpy(dtype=str)


def draw_rows(rows: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Draw at most ``count`` rows, sorted."""
    if count < 1:
        raise InputError(f"images: expected 1 or more, got {count}")
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(rows, min(count, len(rows)), replace=False))


def draw_per_class(
    rows: np.ndarray, labels: np.ndarray, *, per_class: int, seed: int
) -> np.ndarray:
    """Draw at most ``per_class`` rows of each class, sorted; rare classes stay whole, 0 is all."""
    if per_class < 0:
        raise InputError(f"per_class: expected 0 or more, got {per_class}")
    if per_class == 0:
        return rows
    rng = np.random.default_rng(seed)
    members = (rows[labels == label] for label in np.unique(labels))
    return np.sort(
        np.concatenate([rng.choice(m, min(per_class, len(m)), replace=False) for m in members])
    )


def teacher_device(teacher: Encoder) -> torch.device:
    """Return the device of the teacher's weights or buffers, the CPU if it has none."""
    first = next(chain(teacher.parameters(), teacher.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def encode(
    teacher: Encoder, images: Tensor, *, precision: Precision = "32-true", check: bool = True
) -> Tensor:
    """Compute features, or say in one line why this network gives none.

    Args:
        teacher: The frozen network.
        images: ``(B, 3, H, W)`` in [0, 1], on its device.
        precision: ``"bf16-mixed"`` runs the network under bfloat16 autocast, whose rounding alone
            moves features by a cosine distance of about 1e-5.
        check: Whether to refuse features that are not finite; a GPU has to wait for that.

    Returns:
        Features ``(B, D)``, single precision or better.
    """
    try:
        half = precision == "bf16-mixed"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
            features: Any = teacher.encode(images)
    except (torch.OutOfMemoryError, InputError):
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InputError(f"teacher {teacher.name}: {_refusal(teacher, images, error)}") from error
    if not isinstance(features, Tensor):
        raise InputError(
            f"teacher {teacher.name}: expected features (B, D), got {type(features).__name__}; "
            "wrap it so that it returns one tensor"
        )
    if features.ndim != 2 or len(features) != len(images):
        raise InputError(
            f"teacher {teacher.name}: expected features ({len(images)}, D), one vector per image, "
            f"got {tuple(features.shape)}; pool its maps or tokens"
        )
    if check and not torch.isfinite(features).all():
        raise not_finite(teacher)
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def not_finite(teacher: Encoder) -> InputError:
    """Return the error to raise where features are NaN or infinite."""
    return InputError(f"teacher {teacher.name}: expected finite features, got NaN or infinity")


def _refusal(teacher: Encoder, images: Tensor, error: Exception) -> str:
    """Say why a network took no image: mostly the image is smaller than its patch."""
    height, width = images.shape[-2:]
    way_out = "give larger images, or let the teacher resize (teacher_size, resize=True)"
    for module in teacher.modules() if isinstance(teacher, torch.nn.Module) else ():
        side = getattr(module, "patch_size", 0)
        side = max(side) if isinstance(side, (tuple, list)) else side
        if isinstance(side, int) and side > min(height, width):
            return (
                f"expected images no smaller than its patch of {side} px, "
                f"got {height} x {width}; {way_out}"
            )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"cannot encode images of {height} x {width} px ({reason}); {way_out}"


def encode_rows(
    teacher: Encoder,
    pack: Pack,
    *,
    rows: np.ndarray,
    batch_size: int = 64,
    precision: Precision = "32-true",
) -> np.ndarray:
    """Compute the features ``(n, D)``, float32, of some rows of a pack, in their order."""
    device = teacher_device(teacher)
    with torch.inference_mode():
        features = [
            encode(teacher, images, precision=precision).float()
            for images, _ in batches(pack, rows, batch_size=batch_size, device=device)
        ]
    return torch.cat(features).cpu().numpy()


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted linear probe; `linear_probe` and `fit_classifier` fit one."""

    mean: np.ndarray  # of each feature over the training rows, (D,)
    scale: np.ndarray  # standard deviation of each feature, 1 where it is constant, (D,)
    weight: np.ndarray  # (K, D)
    bias: np.ndarray  # (K,)
    strength: float  # the chosen C of scikit-learn
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

    Features are ``(n, D)``, labels ``(n,)`` from 0 to K - 1. Of four strengths of regularisation
    the one with the best balanced accuracy on the validation rows is taken; of equals, the
    strongest.
    """
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
    mean = train_features.mean(axis=0, dtype=np.float64)
    scale = train_features.std(axis=0, dtype=np.float64)
    scale[scale <= 1e-6 * np.abs(mean)] = 1.0  # constant up to the rounding of single precision
    candidates = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=ITERATIONS)
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
    teacher: Encoder,
    pack: Pack,
    split: Split,
    *,
    batch_size: int = 64,
    precision: Precision = "32-true",
) -> LinearProbe:
    """Fit a linear probe on the training rows; the validation rows choose its regularisation."""
    counts = np.bincount(pack.labels[split.train], minlength=len(pack.dataset.class_names))
    if (counts == 0).any():
        absent = pack.dataset.class_names[int(np.argmin(counts))]
        raise InputError(
            f"split: expected every class in train, where the probe is fitted, got no image of "
            f"'{absent}'; add some, leave the class out, or take another split"
        )
    train, val = (
        encode_rows(teacher, pack, rows=rows, batch_size=batch_size, precision=precision)
        for rows in (split.train, split.val)
    )
    return linear_probe(
        train, pack.labels[split.train], val_features=val, val_labels=pack.labels[split.val]
    )


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
    device: torch.device | str | None = None,
) -> Classifier:
    """Make a classifier of any function from images to logits.

    ``classify`` maps ``(B, 3, H, W)`` in [0, 1] to ``(B, K)``, for example a trained student's.
    Without a ``device`` it is that of its weights, if it is a module or a method of one.
    """
    owner = getattr(classify, "__self__", classify)
    if device is None:
        is_module = isinstance(owner, torch.nn.Module)
        device = teacher_device(cast(Encoder, owner)) if is_module else "cpu"

    def predict(images: Tensor) -> Tensor:
        logits = classify(images)
        if logits.ndim != 2 or len(logits) != len(images):
            raise ShapeError(
                f"{name}: expected logits ({len(images)}, K), got {tuple(logits.shape)}"
            )
        return logits.argmax(dim=1)

    return Classifier(name, predict, device)


def probe_logits(teacher: Encoder, probe: LinearProbe) -> Callable[[Tensor], Tensor]:
    """Return `LinearProbe.logits` as a function of float64 tensors on the teacher's device."""
    mean, scale, weight, bias = (
        torch.as_tensor(part, dtype=torch.float64, device=teacher_device(teacher))
        for part in (probe.mean, probe.scale, probe.weight, probe.bias)
    )
    return lambda features: (features - mean) / scale @ weight.T + bias


def probe_classifier(
    teacher: Encoder, probe: LinearProbe, *, precision: Precision = "32-true"
) -> Classifier:
    """Make a classifier of a teacher and a linear probe on its features."""
    logits = probe_logits(teacher, probe)
    return Classifier(
        "probe",
        lambda images: logits(encode(teacher, images, precision=precision).double()).argmax(dim=1),
        teacher_device(teacher),
    )


Network = Encoder | Classifier | Callable[[Tensor], Tensor]


def as_classifier(
    network: Network,
    pack: Pack,
    split: Split,
    *,
    probe: LinearProbe | None = None,
    batch_size: int = 64,
) -> Classifier:
    """Make a classifier of a teacher (by a linear probe), of a function, or of one itself."""
    if isinstance(network, Classifier):
        return network
    if hasattr(network, "encode"):
        teacher = cast(Encoder, network)
        probe = probe or fit_classifier(teacher, pack, split, batch_size=batch_size)
        return probe_classifier(teacher, probe)
    return wrap_classifier(network)


def predict_changed(
    classifier: Classifier,
    pack: Pack,
    rows: np.ndarray,
    change: Callable[[Tensor], Iterable[Tensor]],
    *,
    label: str,
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict images as they are and in each of the M versions that ``change`` yields of a batch.

    Returns:
        Classes ``(n,)`` and ``(M, n)``.
    """
    work = batches(pack, rows, batch_size=batch_size, device=classifier.device)
    if progress:
        total = -(-len(rows) // batch_size)
        work = show_progress(work, total=total, label=f"{label} of the {classifier.name}")
    found = []
    for images, _ in work:
        with torch.inference_mode():
            versions = chain([images], change(images))  # lazily: one version at a time in memory
            found.append(torch.stack([classifier.predict(version) for version in versions]).cpu())
    classes = torch.cat(found, dim=1).numpy()
    return classes[0], classes[1:]


def probe_advantage(
    teacher: Encoder, other: Encoder, pack: Pack, split: Split, *, resamples: int = 1000
) -> dict[str, Any]:
    """Compare the linear probes of two networks on the same test images.

    Returns:
        ``balanced_accuracy``, ``other_balanced_accuracy``, ``difference`` with ``low`` and
        ``high`` (95 %, paired bootstrap of whole lesions or patients), ``test_images``,
        ``image_size`` and ``protocol``.
    """
    labels = pack.labels[split.test]
    units = resampling_units(pack.dataset.table, rows=split.test)
    drawn = bootstrap_weights(labels, units, resamples=resamples, seed=0)
    weights = np.column_stack([np.ones(len(labels), dtype=np.float32), drawn])
    scores = []
    for network in (teacher, other):
        probe = fit_classifier(network, pack, split)
        predicted = probe.predict(encode_rows(network, pack, rows=split.test))
        confusion = confusion_matrices(labels, predicted, weights, classes=len(probe.weight))
        scores.append(np.nanmean(class_recalls(confusion), axis=1))
    low, high = percentile_interval(scores[0][1:] - scores[1][1:])
    return {
        "balanced_accuracy": float(scores[0][0]),
        "other_balanced_accuracy": float(scores[1][0]),
        "difference": float(scores[0][0] - scores[1][0]),
        "low": low,
        "high": high,
        "test_images": len(labels),
        "image_size": pack.size,
        "protocol": split.protocol,
    }
