"""Spectra of classes and sources, and how well each ring tells source and class.

A ring that tells the class over all sources, and no longer within each, tells the scanner and not
the disease.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, batches
from fopro_lab.evaluation.bootstrap import percentile_interval, sample_and_resamples
from fopro_lab.evaluation.metrics import balanced_accuracies, discriminant
from fopro_lab.fourier import ring_energy
from fopro_lab.probing.features import resampling_units
from fopro_lab.probing.ring_response import check_rings

FOLDS = 5  # of the cross-validation
FLOOR = (1e-3 / 255) ** 2  # a thousandth of a grey level, so that a flat image has a logarithm


def mean_spectra(pack: Pack, rows: np.ndarray, *, edges: Sequence[float]) -> pd.DataFrame:
    """Average the logarithm of each ring's amplitude over the images of a class or source.

    A ring's amplitude is its contrast: the root of its energy, averaged over the channels. The
    difference is taken from the mean over classes (or sources), each counting the same: a sum
    over images would let the size of a class leak in. ``edges`` are ``R + 1`` increasing
    frequencies, cycles per pixel, as in ``ring_masks``.

    Returns:
        A row for each class or source that occurs and each ring: ``scope`` ("class", "source"),
        ``name``, ``ring``, ``low``, ``high`` (cycles per pixel), ``log_amplitude`` (mean natural
        logarithm, amplitude in units of [0, 1]), ``difference`` (from the mean within the scope),
        ``spread`` (standard deviation over the images), ``n``. Unknown sources have no row.
    """
    log_amplitude = _logarithms(_ring_energies(pack, rows, edges).mean(dim=1)) / 2
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
                numbers = (mean[ring], (mean - overall)[ring], part[:, ring].std(), len(part))
                lines.append((scope, name, ring, low, high, *numbers))
    columns = ["scope", "name", "ring", "low", "high", "log_amplitude", "difference", "spread", "n"]
    return pd.DataFrame(lines, columns=columns)


def _ring_energies(pack: Pack, rows: np.ndarray, edges: Sequence[float]) -> Tensor:
    """Return the energy ``(n, 3, R)`` of each image's rings."""
    with torch.inference_mode():
        return torch.cat([ring_energy(x, edges) for x, _ in batches(pack, rows, batch_size=256)])


def _logarithms(energy: Tensor) -> np.ndarray:
    return np.log(np.maximum(energy.numpy().astype(np.float64), FLOOR))


class _Task(NamedTuple):
    """One target on one part of the images."""

    rows: np.ndarray
    labels: np.ndarray  # from 0 on
    units: np.ndarray
    classes: int


def source_fingerprint(
    pack: Pack,
    rows: np.ndarray,
    *,
    edges: Sequence[float],
    permutations: int = 50,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how well each ring alone, and all together, tell source and class.

    The classifier is a linear discriminant on the logarithms of the ring's energy in red, green
    and blue, cross-validated in five folds with lesions kept apart; the score is balanced accuracy.
    A class or source of fewer lesions is left out. For the level of chance, labels are permuted
    among the lesions. ``edges`` are ``R + 1`` increasing frequencies, cycles per pixel.

    Returns:
        A row for each task and ring: ``target`` ("source", "class"), ``within`` ("all"; the name
        of a source; "each source" or "each class": the mean over them), ``ring`` (-1 is all rings
        together), ``low``, ``high`` (cycles per pixel), ``accuracy`` with ``_low`` and ``_high``
        (95 % interval), ``chance`` (one in the number of classes), ``permuted`` (mean) and
        ``permuted_high`` (95 % of permutations lie below), ``p``, ``classes``, ``n``. Without two
        known sources there are rows of target "class", within "all", alone; without two classes
        of enough lesions there are none.
    """
    check_rings(edges, height=pack.size, width=pack.size)
    features = _logarithms(_ring_energies(pack, rows, edges).transpose(1, 2))
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)
    table = pack.dataset.table.iloc[rows]
    labels, source = table["label"].to_numpy(), table["source"].to_numpy(dtype=str)
    units = resampling_units(pack.dataset.table, rows=rows)
    questions = [("class", "all", labels, [np.arange(len(rows))])]
    names, number = np.unique(source, return_inverse=True)
    names = names[names != ""]
    if len(names) > 1:
        known = np.flatnonzero(source != "")
        in_source = [np.flatnonzero(source == name) for name in names]
        in_class = [known[labels[known] == label] for label in np.unique(labels)]
        questions = [
            ("source", "all", number, [known]),
            *questions,
            *(("class", name, labels, [own]) for name, own in zip(names, in_source, strict=True)),
            ("class", "each source", labels, in_source),
            ("source", "each class", number, in_class),
        ]
    rings = [
        *((k, low, high, features[:, k]) for k, (low, high) in enumerate(pairwise(edges))),
        (-1, edges[0], edges[-1], features.reshape(len(features), -1)),
    ]
    lines = []
    for target, within, targets, parts in questions:
        tasks = [task for own in parts if (task := _task(own, targets, units))]
        for ring, low, high, own in rings if tasks else []:
            found = _score(own, tasks, permutations, resamples, seed)
            lines.append((target, within, ring, float(low), float(high), *found))
    columns = [
        *("target", "within", "ring", "low", "high", "accuracy", "accuracy_low", "accuracy_high"),
        *("chance", "permuted", "permuted_high", "p", "classes", "n"),
    ]
    return pd.DataFrame(lines, columns=columns)


def _task(rows: np.ndarray, labels: np.ndarray, units: np.ndarray) -> _Task | None:
    """Keep the classes with a lesion per fold or more; None if fewer than two are left."""
    own = pd.DataFrame({"label": labels[rows], "unit": units[rows]})
    lesions = own.drop_duplicates("unit")["label"].value_counts()
    kept = np.sort(lesions.index[lesions >= FOLDS].to_numpy())
    if len(kept) < 2:
        return None
    chosen = rows[np.isin(labels[rows], kept)]
    return _Task(chosen, np.searchsorted(kept, labels[chosen]), units[chosen], len(kept))


def _score(
    features: np.ndarray, tasks: list[_Task], permutations: int, resamples: int, seed: int
) -> tuple[Any, ...]:
    """Score the mean over the tasks against permuted labels: the columns from accuracy on."""
    observed, resampled, permuted = [], [], []
    for task in tasks:
        rng = np.random.default_rng(seed)
        weights = sample_and_resamples(task.labels, task.units, resamples=resamples, seed=seed)
        scores = _cross_validate(features, task, weights, rng)
        observed.append(scores[0])
        resampled.append(scores[1:])
        _, first, unit = np.unique(task.units, return_index=True, return_inverse=True)
        shuffles = (rng.permutation(task.labels[first])[unit] for _ in range(permutations))
        others = (task._replace(labels=shuffled) for shuffled in shuffles)
        once = weights[:, :1]
        permuted.append([_cross_validate(features, o, once, rng)[0] for o in others])
    value = float(np.mean(observed))
    level = np.mean(permuted, axis=0)
    interval = percentile_interval(np.mean(resampled, axis=0))
    chance = np.mean([1 / task.classes for task in tasks])
    p_value = (1 + (level >= value).sum()) / (1 + permutations)
    counts = max(task.classes for task in tasks), sum(len(task.rows) for task in tasks)
    return (value, *interval, chance, level.mean(), np.quantile(level, 0.95), p_value, *counts)


def _cross_validate(
    features: np.ndarray, task: _Task, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the balanced accuracy, for each column of weights, of rows predicted out of fold.

    No discriminant saw a row of the lesions that it predicts.
    """
    own, labels = features[task.rows], task.labels
    lesions, first, unit = np.unique(task.units, return_index=True, return_inverse=True)
    fold = np.empty(len(lesions), dtype=np.int64)
    shuffled = rng.permutation(len(lesions))
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    fold[order] = np.arange(len(lesions)) % FOLDS  # dealt class by class: each in every fold
    predicted = np.empty(len(labels), dtype=np.int64)
    for held in range(FOLDS):
        out = fold[unit] == held
        # A millionth of the mean variance already keeps constant features from dividing by zero.
        how: dict[str, Any] = {"classes": task.classes, "shrinkage": 1e-6}
        weight, bias = discriminant(own[~out], labels[~out], **how)
        predicted[out] = (own[out] @ weight + bias).argmax(axis=1)
    return balanced_accuracies(labels, predicted, weights, classes=task.classes)
