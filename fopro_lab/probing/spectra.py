"""Spectra of classes and sources, and how well each ring tells source and class.

A ring that tells the class over all sources, and no longer within each, tells the scanner and not
the disease.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from fopro_lab.data import Pack, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import bootstrap_weights, percentile_interval
from fopro_lab.evaluation.metrics import class_recalls, confusion_matrices
from fopro_lab.fourier import ring_energy
from fopro_lab.probing.features import resampling_units
from fopro_lab.probing.ring_response import check_rings

FLOOR = (1e-3 / 255) ** 2  # a thousandth of a grey level, so that a flat image has a logarithm
RIDGE = 1e-6  # of the mean variance: keeps constant features from dividing by zero
ALL_RINGS = -1
COLUMNS = (
    *("target", "within", "ring", "low", "high", "accuracy", "accuracy_low", "accuracy_high"),
    *("chance", "permuted", "permuted_high", "p", "classes", "n"),
)


def mean_spectra(
    pack: Pack, rows: np.ndarray, *, edges: Sequence[float], batch_size: int = 256
) -> pd.DataFrame:
    """Average the logarithm of each ring's amplitude over the images of a class or source.

    A ring's amplitude is its contrast: the root of its energy, averaged over the channels. The
    difference is taken from the mean over classes (or sources), each counting the same: a sum
    over images would let the size of a class leak in.

    Args:
        pack: The images, with their data set.
        rows: Which, for example those of training.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        batch_size: Images per transform.

    Returns:
        A row for each class or source that occurs and each ring: ``scope`` ("class", "source"),
        ``name``, ``ring``, ``low``, ``high`` (cycles per pixel), ``log_amplitude`` (mean natural
        logarithm, amplitude in units of [0, 1]), ``difference`` (from the mean within the scope),
        ``spread`` (standard deviation over the images), ``n``. Unknown sources have no row.
    """
    with torch.inference_mode():
        energy = [
            ring_energy(images, edges).mean(dim=1).numpy()
            for images, _ in batches(pack, rows, batch_size=batch_size)
        ]
    log_amplitude = np.log(np.maximum(np.concatenate(energy).astype(np.float64), FLOOR)) / 2
    chosen = pack.dataset.table.iloc[rows]
    class_names = np.array(pack.dataset.class_names, dtype=object)[chosen["label"]]
    lines = []
    for scope, members in (("class", class_names), ("source", chosen["source"].to_numpy())):
        names = [name for name in dict.fromkeys(members) if name != ""]
        parts = [log_amplitude[members == name] for name in names]
        means = [part.mean(axis=0) for part in parts]
        overall = np.mean(means, axis=0) if means else 0
        for name, part, mean in zip(names, parts, means, strict=True):
            for ring, (low, high) in enumerate(pairwise(map(float, edges))):
                lines.append(
                    {
                        "scope": scope,
                        "name": name,
                        "ring": ring,
                        "low": low,
                        "high": high,
                        "log_amplitude": mean[ring],
                        "difference": (mean - overall)[ring],
                        "spread": part[:, ring].std(),
                        "n": len(part),
                    }
                )
    return pd.DataFrame(lines)


@dataclass(frozen=True, eq=False)
class _Task:
    """One target on one part of the images: rows, labels from 0 on, and lesions."""

    rows: np.ndarray
    labels: np.ndarray
    units: np.ndarray
    classes: int

    def score(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        folds: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return the cross-validated balanced accuracy for each column of weights."""
        own = features[self.rows]
        predicted = _cross_validate(own, labels, self.units, self.classes, folds, rng)
        confusion = confusion_matrices(labels, predicted, weights, classes=self.classes)
        return np.nanmean(class_recalls(confusion), axis=1)


def source_fingerprint(
    pack: Pack,
    rows: np.ndarray,
    *,
    edges: Sequence[float],
    folds: int = 5,
    permutations: int = 50,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how well each ring alone, and all together, tell source and class.

    The classifier is a linear discriminant on the logarithms of the ring's energy in red, green
    and blue, cross-validated with lesions kept apart; the score is balanced accuracy. A class or
    source with fewer lesions than folds is left out.

    Args:
        pack: The images; ``source`` of their table may be unknown (empty).
        rows: Which, for example those of training.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        folds: Parts of the cross-validation, 2 or more.
        permutations: How often labels are permuted among the lesions, for the level that is
            reached by chance.
        resamples: Bootstrap resamples of lesions.
        seed: Seed of folds, permutations and resamples.

    Returns:
        A row for each task and ring: ``target`` ("source", "class"), ``within`` ("all"; the name
        of a source; "each source" or "each class": the mean over them), ``ring`` (-1 is all rings
        together), ``low``, ``high`` (cycles per pixel), ``accuracy`` with ``_low`` and ``_high``
        (95 % interval), ``chance`` (one in the number of classes), ``permuted`` (mean) and
        ``permuted_high`` (95 % of permutations lie below), ``p``, ``classes``, ``n``. Without two
        known sources there are rows of target "class", within "all", alone; without two classes
        of enough lesions there are none.
    """
    if folds < 2 or permutations < 1:
        raise InputError(
            f"folds, permutations: expected 2 and 1 or more, got {folds} and {permutations}"
        )
    check_rings(edges, height=pack.size, width=pack.size)
    features = _log_energies(pack, rows, edges)
    table = pack.dataset.table.iloc[rows]
    labels, source = table["label"].to_numpy(), table["source"].to_numpy(dtype=str)
    units = resampling_units(pack.dataset.table, rows=rows)

    def tasks(parts: Sequence[np.ndarray], targets: np.ndarray) -> list[_Task]:
        found = (_task(part, targets, units, folds) for part in parts)
        return [task for task in found if task is not None]

    questions = [("class", "all", tasks([np.arange(len(rows))], labels))]
    sources = sorted(set(source[source != ""]))
    if len(sources) > 1:
        known = source != ""
        number = np.searchsorted(sources, source)
        in_source = [np.flatnonzero(source == name) for name in sources]
        in_class = [np.flatnonzero(known & (labels == label)) for label in np.unique(labels)]
        questions = [
            ("source", "all", tasks([np.flatnonzero(known)], number)),
            *questions,
            *(
                ("class", n, tasks([own], labels))
                for n, own in zip(sources, in_source, strict=True)
            ),
            ("class", "each source", tasks(in_source, labels)),
            ("source", "each class", tasks(in_class, number)),
        ]
    lines = [
        {"target": target, "within": within, "ring": ring, "low": low, "high": high}
        | _score(own, chosen, folds, permutations, resamples, seed)
        for target, within, chosen in questions
        if chosen
        for ring, low, high, own in _rings(features, edges)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _log_energies(pack: Pack, rows: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return standardised log energies ``(n, R, 3)``."""
    with torch.inference_mode():
        energy = [
            ring_energy(images, edges).transpose(1, 2).numpy()
            for images, _ in batches(pack, rows, batch_size=256)
        ]
    logs = np.log(np.maximum(np.concatenate(energy).astype(np.float64), FLOOR))
    spread = logs.std(axis=0)
    return (logs - logs.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)


def _rings(
    features: np.ndarray, edges: Sequence[float]
) -> Iterator[tuple[int, float, float, np.ndarray]]:
    for ring, (low, high) in enumerate(pairwise(map(float, edges))):
        yield ring, low, high, features[:, ring]
    yield ALL_RINGS, float(edges[0]), float(edges[-1]), features.reshape(len(features), -1)


def _task(rows: np.ndarray, labels: np.ndarray, units: np.ndarray, folds: int) -> _Task | None:
    """Keep the classes with a lesion per fold or more; None if fewer than two are left."""
    own = pd.DataFrame({"label": labels[rows], "unit": units[rows]})
    lesions = own.drop_duplicates("unit")["label"].value_counts()
    kept = np.sort(lesions.index[lesions >= folds].to_numpy())
    chosen = rows[np.isin(labels[rows], kept)]
    if len(kept) < 2:
        return None
    return _Task(chosen, np.searchsorted(kept, labels[chosen]), units[chosen], len(kept))


def _score(
    features: np.ndarray,
    tasks: Sequence[_Task],
    folds: int,
    permutations: int,
    resamples: int,
    seed: int,
) -> dict[str, float | int]:
    """Score the tasks, and the mean over them, against permuted labels."""
    observed, resampled, permuted = [], [], []
    for task in tasks:
        rng = np.random.default_rng(seed)
        drawn = bootstrap_weights(task.labels, task.units, resamples=resamples, seed=seed)
        once = np.ones((len(task.rows), 1), dtype=np.float32)
        scores = task.score(features, task.labels, np.column_stack([once, drawn]), folds, rng)
        observed.append(scores[0])
        resampled.append(scores[1:])
        _, first, unit = np.unique(task.units, return_index=True, return_inverse=True)
        shuffles = (rng.permutation(task.labels[first])[unit] for _ in range(permutations))
        permuted.append([task.score(features, y, once, folds, rng)[0] for y in shuffles])
    value = float(np.mean(observed))
    level = np.mean(permuted, axis=0)
    low, high = percentile_interval(np.mean(resampled, axis=0))
    return {
        "accuracy": value,
        "accuracy_low": low,
        "accuracy_high": high,
        "chance": float(np.mean([1 / task.classes for task in tasks])),
        "permuted": float(level.mean()),
        "permuted_high": float(np.quantile(level, 0.95)),
        "p": float((1 + (level >= value).sum()) / (1 + permutations)),
        "classes": max(task.classes for task in tasks),
        "n": sum(len(task.rows) for task in tasks),
    }


def _cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    classes: int,
    folds: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Predict each row by a discriminant that saw no row of its lesion."""
    names, first, unit = np.unique(units, return_index=True, return_inverse=True)
    fold = np.empty(len(names), dtype=np.int64)
    shuffled = rng.permutation(len(names))
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    fold[order] = np.arange(len(names)) % folds  # dealt class by class: each in every fold
    predicted = np.empty(len(labels), dtype=np.int64)
    for held in range(folds):
        out = fold[unit] == held
        scores = discriminant_scores(
            features[~out], labels[~out], new=features[out], classes=classes
        )
        predicted[out] = scores.argmax(axis=1)
    return predicted


def discriminant_scores(
    features: np.ndarray, labels: np.ndarray, *, new: np.ndarray, classes: int
) -> np.ndarray:
    """Fit Fisher's linear discriminant with equal priors; return scores ``(m, K)`` of new rows.

    Unlike scikit-learn's, its covariance within classes lets every class count the same, whatever
    its size.

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, section 4.3.
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
