"""How much better one network's features serve a data set than another's."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
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


def resampling_units(table: pd.DataFrame, *, rows: np.ndarray) -> np.ndarray:
    """Name what a bootstrap draws as a whole: the group, or the image where it has none.

    Args:
        table: A data set's table, with the columns ``image`` and ``group``.
        rows: Which of its rows.

    Returns:
        Names ``(n,)``.

    Example:
        >>> table = pd.DataFrame({"image": ["a", "b"], "group": ["lesion 1", ""]})
        >>> resampling_units(table, rows=np.arange(2)).tolist()
        ['lesion 1', 'image b']
    """
    chosen = table.iloc[rows]
    named = chosen["group"].where(chosen["group"] != "", "image " + chosen["image"])
    return named.to_numpy(dtype=str)


def draw_rows(rows: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Draw at most ``count`` of some rows, in their order.

    Raises:
        InputError: If ``count`` is below 1.

    Example:
        >>> draw_rows(np.arange(9), count=3, seed=0).tolist()
        [4, 5, 7]
    """
    if count < 1:
        raise InputError(f"images: expected 1 or more, got {count}")
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(rows, min(count, len(rows)), replace=False))


def draw_per_class(
    rows: np.ndarray, labels: np.ndarray, *, per_class: int, seed: int
) -> np.ndarray:
    """Draw at most ``per_class`` rows of each class: rare classes stay whole.

    Args:
        rows: Rows of a pack, ``(n,)``.
        labels: Class of each, ``(n,)``.
        per_class: At most this many; 0 takes all.
        seed: Seed of the draw.

    Returns:
        The drawn rows, in their order.

    Raises:
        InputError: If ``per_class`` is negative.

    Example:
        >>> draw_per_class(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), per_class=2, seed=0).tolist()
        [2, 3, 4, 5]
    """
    if per_class < 0:
        raise InputError(f"per_class: expected 0 or more, got {per_class}")
    if per_class == 0:
        return rows
    rng = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        own = rows[labels == label]
        drawn.append(rng.choice(own, min(per_class, len(own)), replace=False))
    return np.sort(np.concatenate(drawn))


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


Precision = Literal["32-true", "bf16-mixed"]


class Encoder(Protocol):
    """What probing asks of a teacher: features of images in [0, 1], a name and a card."""

    name: str
    card: dict[str, Any]

    def encode(self, images: Tensor) -> Tensor:
        """Turn ``(B, 3, H, W)`` into ``(B, D)``."""
        ...

    def parameters(self) -> Iterable[Tensor]:
        """Give the weights; they tell the device."""
        ...

    def buffers(self) -> Iterable[Tensor]:
        """Give the buffers; they tell the device where there are no weights."""
        ...


def teacher_device(teacher: Encoder) -> torch.device:
    """Return the device of the teacher's weights or buffers, the CPU if it has none.

    Example:
        >>> teacher_device(torch.nn.Identity())
        device(type='cpu')
    """
    first = next(chain(teacher.parameters(), teacher.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def encode(teacher: Encoder, images: Tensor, *, precision: Precision = "32-true") -> Tensor:
    """Ask a teacher for features, and say in one line what is wrong if it gives none.

    Args:
        teacher: The frozen network.
        images: ``(B, 3, H, W)`` in [0, 1], on its device.
        precision: ``"bf16-mixed"`` runs the network under bfloat16 autocast. Its rounding alone
            moves features by a cosine distance of about 1e-5; see `ring_response`.

    Returns:
        Features ``(B, D)``, single precision or better.

    Raises:
        InputError: If the teacher cannot take images of this size, or returns no tensor, maps
            instead of vectors, or numbers that are not finite.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> encode(load_teacher("builtin"), torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 256])
    """
    try:
        with torch.autocast(
            images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed"
        ):
            features: Any = teacher.encode(images)
    except (torch.OutOfMemoryError, InputError):
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InputError(_refusal(teacher, images, error)) from error
    if not isinstance(features, Tensor):
        raise InputError(
            f"teacher {teacher.name}: expected features (B, D), got {type(features).__name__}; "
            "wrap it so that it returns one tensor"
        )
    if features.ndim != 2 or len(features) != len(images):
        raise InputError(
            f"teacher {teacher.name}: expected features ({len(images)}, D), one vector an image, "
            f"got {tuple(features.shape)}; pool its maps or tokens"
        )
    if not torch.isfinite(features).all():
        raise InputError(f"teacher {teacher.name}: expected finite features, got NaN or infinity")
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def encode_rows(
    teacher: Encoder,
    pack: Pack,
    *,
    rows: np.ndarray,
    batch_size: int = 64,
    precision: Precision = "32-true",
) -> np.ndarray:
    """Encode images of a pack.

    Args:
        teacher: The frozen network.
        pack: The images.
        rows: Which, in this order; at least one.
        batch_size: Images a pass.
        precision: As in `encode`.

    Returns:
        Features ``(n, D)``, ``float32``.

    Raises:
        InputError: If a row is not in the pack, or as in `encode`.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> encode_rows(teacher, packed, rows=np.arange(3)).shape
        (3, 12)
    """
    device = teacher_device(teacher)
    with torch.inference_mode():
        features = [
            encode(teacher, images, precision=precision).float().cpu()
            for images, _ in batches(pack, rows, batch_size=batch_size, device=device)
        ]
    return torch.cat(features).numpy()


def _refusal(teacher: Encoder, images: Tensor, error: Exception) -> str:
    """Say why a network took no image: mostly they are smaller than its patch."""
    height, width = images.shape[-2:]
    way_out = "give larger images, or let the teacher resize (teacher_size, resize=True)"
    patch = _patch_side(teacher)
    if patch > min(height, width):
        return (
            f"teacher {teacher.name}: expected images no smaller than its patch of {patch} px, "
            f"got {height} x {width}; {way_out}"
        )
    told = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"teacher {teacher.name}: cannot encode images of {height} x {width} px ({told[0]}); "
        f"{way_out}"
    )


def _patch_side(teacher: Encoder) -> int:
    """Find the side of the patches that a transformer cuts an image into; 0 if it has none."""
    modules = teacher.modules() if isinstance(teacher, torch.nn.Module) else ()
    for module in modules:
        side = getattr(module, "patch_size", 0)
        side = max(side) if isinstance(side, (tuple, list)) else side
        if isinstance(side, int) and side > 1:
            return side
    return 0


Classifier = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reader:
    """Something that names the class of each image.

    Attributes:
        name: For tables: "probe", "student", or your own.
        predict: Turns images ``(B, 3, H, W)`` in [0, 1] on ``device`` into classes ``(B,)``.
        device: Where it wants them.

    Example:
        >>> reader = read_by(lambda images: images.mean(dim=(2, 3)))  # the brightest colour
        >>> red = torch.zeros(1, 3, 4, 4).index_fill(1, torch.tensor(0), 1.0)
        >>> reader.name, reader.predict(red).tolist()
        ('student', [0])
    """

    name: str
    predict: Callable[[Tensor], np.ndarray]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def read_by(classify: Classifier, *, name: str = "student", device: str | None = None) -> Reader:
    """Make a reader of any function from images to logits.

    Args:
        classify: Maps ``(B, 3, H, W)`` in [0, 1] to ``(B, K)``, for example a trained student's
            ``classify`` after a shrink to the size that it sees.
        name: For tables.
        device: Where it wants its images; None looks at its weights, if it is a module or a
            method of one.

    Returns:
        The reader. It raises ``ShapeError`` when the function gives no logits.
    """
    owner = getattr(classify, "__self__", classify)
    found = teacher_device(cast(Encoder, owner)) if isinstance(owner, torch.nn.Module) else "cpu"

    def predict(images: Tensor) -> np.ndarray:
        logits = classify(images)
        if logits.ndim != 2 or len(logits) != len(images):
            raise ShapeError(
                f"{name}: expected logits ({len(images)}, K), got {tuple(logits.shape)}"
            )
        return logits.argmax(dim=1).cpu().numpy()

    return Reader(name, predict, torch.device(device or found))


def read_by_probe(
    teacher: Encoder, probe: LinearProbe, *, precision: Precision = "32-true"
) -> Reader:
    """Make a reader of a teacher and a linear probe on its features."""

    def predict(images: Tensor) -> np.ndarray:
        return probe.predict(encode(teacher, images, precision=precision).float().cpu().numpy())

    return Reader("probe", predict, teacher_device(teacher))


def reader_of(
    asked: Encoder | Reader | Classifier,
    pack: Pack,
    split: Split,
    *,
    probe: LinearProbe | None = None,
    batch_size: int = 64,
) -> Reader:
    """Turn whatever was given into a reader; a teacher gets a linear probe.

    Args:
        asked: A reader, a teacher, or a function from images to logits.
        pack: The images.
        split: Train and val rows fit the probe.
        probe: Of this teacher and split, if there is one already.
        batch_size: Images a pass.

    Returns:
        The reader.
    """
    if isinstance(asked, Reader):
        return asked
    if hasattr(asked, "encode"):
        teacher = cast(Encoder, asked)
        return read_by_probe(
            teacher, probe or fit_probe(teacher, pack, split, batch_size=batch_size)
        )
    return read_by(asked)


def fit_probe(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    *,
    batch_size: int = 64,
    precision: Precision = "32-true",
) -> LinearProbe:
    """Fit a linear probe on a teacher's features of the training images.

    Args:
        teacher: The frozen network.
        pack: The images.
        split: Its train rows are fitted, its val rows choose the regularisation.
        batch_size: Images a pass.
        precision: As in `encode`.

    Returns:
        The probe.

    Raises:
        InputError: If a class has no training image.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> packed = pack(open_dataset("phantom", images=60), 16, progress=False)
        >>> fit_probe(teacher, packed, make_split(packed.dataset)).weight.shape
        (8, 12)
    """
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


def predict_changed(
    reader: Reader,
    pack: Pack,
    rows: np.ndarray,
    change: Callable[[Tensor], Iterable[Tensor]],
    *,
    label: str,
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict images as they are, and each way in which they are changed.

    Args:
        reader: Who is asked.
        pack: The images.
        rows: Which.
        change: Yields the M changed versions of a batch, one after another.
        label: What is being done, for the progress.
        batch_size: Images a pass.
        progress: Say how far it is.

    Returns:
        Classes ``(n,)`` and ``(M, n)``.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> reader = read_by(lambda images: images.mean(dim=(2, 3)))
        >>> clean, changed = predict_changed(
        ...     reader, packed, np.arange(4), lambda x: [1 - x, x.flip(1)], label="colours")
        >>> changed.shape, (changed[1] == 2 - clean).all()
        ((2, 4), np.True_)
    """
    clean, changed = [], []
    work = batches(pack, rows, batch_size=batch_size, device=reader.device)
    if progress:
        total = -(-len(rows) // batch_size)
        work = show_progress(work, total=total, label=f"{label}, read by {reader.name}")
    for images, _ in work:
        with torch.inference_mode():
            clean.append(reader.predict(images))
            changed.append(np.stack([reader.predict(version) for version in change(images)]))
    return np.concatenate(clean), np.concatenate(changed, axis=1)


def probe_advantage(
    teacher: Encoder, other: Encoder, pack: Pack, split: Split, *, resamples: int = 1000
) -> dict[str, Any]:
    """Compare two networks by a linear probe on the same test images.

    Args:
        teacher: The one of interest.
        other: What it is compared with, for example the same network untrained.
        pack: The images.
        split: Train fits the probes, validation chooses their strength, test is touched once.
        resamples: Of a paired bootstrap, stratified by class, lesions or patients kept whole.

    Returns:
        ``balanced_accuracy`` of the one and ``other_balanced_accuracy``, ``difference`` with
        ``low`` and ``high`` (95 %), ``test_images`` and ``protocol``.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.models import load_teacher
        >>> packed = pack(open_dataset("phantom", images=60), 16, progress=False)
        >>> teacher = load_teacher("builtin")
        >>> probe_advantage(teacher, teacher, packed, make_split(packed.dataset))["difference"]
        0.0
    """
    labels = pack.labels[split.test]
    units = resampling_units(pack.dataset.table, rows=split.test)
    drawn = bootstrap_weights(labels, units, resamples=resamples, seed=0)
    weights = np.column_stack([np.ones(len(labels), dtype=np.float32), drawn])
    scores = []
    for network in (teacher, other):
        probe = fit_probe(network, pack, split)
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
