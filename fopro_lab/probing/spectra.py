"""The fingerprint of a source: in which ring it shows, beside the class.

Each ring alone is asked, by its log energy in each channel, which source an image comes from and
which class it has; then the class within each source and the source within each class. A ring that
tells the class over all sources and no longer within them tells the scanner.
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
from fopro_lab.probing.features import discriminant_scores, resampling_units
from fopro_lab.probing.ring_response import check_rings

FLOOR = (1e-3 / 255) ** 2  # a thousandth of a grey level, so that a flat image has a logarithm


def mean_spectra(
    pack: Pack, rows: np.ndarray, *, edges: Sequence[float], batch_size: int = 256
) -> pd.DataFrame:
    """Average the logarithm of each ring's amplitude over the images of a class or source.

    A ring's amplitude is its contrast: the root of its energy, averaged over the channels. The
    difference is taken from the mean over classes (or sources), each counting the same: a sum
    over images would let the size of a class leak in.

    Args:
        pack: The images, with their data set.
        rows: Which, at least one.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        batch_size: Images a transform.

    Returns:
        A row for each class or source that occurs and each ring: ``scope`` ("class", "source"),
        ``name``, ``ring``, ``low``, ``high`` (cycles per pixel), ``log_amplitude`` (mean natural
        logarithm, amplitude in units of [0, 1]), ``difference`` (from the mean within the scope),
        ``spread`` (standard deviation over the images), ``n``. Unknown sources have no row.

    Raises:
        InputError: If the edges are wrong or a row is not in the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> table = mean_spectra(packed, np.arange(24), edges=[0, 0.25, 0.75])
        >>> table["scope"].value_counts().to_dict()
        {'class': 16, 'source': 4}
    """
    with torch.inference_mode():
        energy = [
            ring_energy(images, edges).mean(dim=1).numpy()
            for images, _ in batches(pack, rows, batch_size=batch_size)
        ]
    log_amplitude = np.log(np.maximum(np.concatenate(energy).astype(np.float64), FLOOR)) / 2
    chosen = pack.dataset.table.iloc[rows]
    class_names = np.array(pack.dataset.class_names, dtype=object)[chosen["label"]]
    scopes = {"class": class_names, "source": chosen["source"].to_numpy()}
    tables = [
        _describe(log_amplitude, members, edges).assign(scope=scope)
        for scope, members in scopes.items()
        if (members != "").any()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["scope", *(column for column in table if column != "scope")]]


def _describe(
    log_amplitude: np.ndarray, members: np.ndarray, edges: Sequence[float]
) -> pd.DataFrame:
    """Average ``(n, R)`` over the images of each member, in the order of their first image."""
    names = [name for name in dict.fromkeys(members) if name != ""]
    parts = [log_amplitude[members == name] for name in names]
    means = np.stack([part.mean(axis=0) for part in parts])
    differences = means - means.mean(axis=0)
    rows = [
        {
            "name": name,
            "ring": ring,
            "low": float(edges[ring]),
            "high": float(edges[ring + 1]),
            "log_amplitude": means[place, ring],
            "difference": differences[place, ring],
            "spread": parts[place][:, ring].std(),
            "n": len(parts[place]),
        }
        for place, name in enumerate(names)
        for ring in range(len(edges) - 1)
    ]
    return pd.DataFrame(rows)


COLUMNS = (
    *("target", "within", "ring", "low", "high", "accuracy", "accuracy_low", "accuracy_high"),
    *("chance", "permuted", "permuted_high", "p", "classes", "n"),
)
ALL_RINGS = -1


@dataclass(frozen=True, eq=False)
class _Question:
    """One target on one part of the images: rows of the features, labels and lesions."""

    rows: np.ndarray
    labels: np.ndarray
    units: np.ndarray
    classes: int


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

    The reader is a linear discriminant on the logarithms of the ring's energy in red, green and
    blue, cross-validated with lesions kept apart; the score is balanced accuracy. A class or
    source with fewer lesions than folds is left out.

    Args:
        pack: The images; ``source`` of their table may be unknown (empty).
        rows: Which, for example those of training.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        folds: Parts of the cross-validation, 2 or more.
        permutations: How often labels are dealt anew among the lesions, for the level that mere
            search would reach.
        resamples: Bootstrap resamples of lesions.
        seed: Seed of folds, permutations and resamples.

    Returns:
        A row for each question and ring: ``target`` ("source", "class"), ``within`` ("all"; the
        name of a source; "each source" or "each class": the mean over them), ``ring`` (-1 is all
        rings together), ``low``, ``high`` (cycles per pixel), ``accuracy`` with ``_low`` and
        ``_high`` (95 % interval), ``chance`` (one in the number of classes), ``permuted`` (mean)
        and ``permuted_high`` (95 % of permutations lie below), ``p``, ``classes``, ``n``. Without
        two known sources there are rows of target "class", within "all", alone; without two
        classes of enough lesions there are none.

    Raises:
        InputError: If the edges, folds or permutations are wrong.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=200), 32, progress=False)
        >>> table = source_fingerprint(packed, np.arange(200), edges=[0, 0.25, 0.75], resamples=20)
        >>> table["within"].unique().tolist()
        ['all', 'sharp', 'soft', 'each source', 'each class']
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
    known = source != ""
    sources = sorted(set(source[known]))
    everything = np.arange(len(rows))
    asked: list[tuple[str, str, list[_Question]]] = [
        ("class", "all", _questions([everything], labels, units, folds))
    ]
    if len(sources) > 1:
        number = np.array([sources.index(name) if name else -1 for name in source])
        in_source = [np.flatnonzero(source == name) for name in sources]
        in_class = [np.flatnonzero(known & (labels == label)) for label in np.unique(labels)]
        asked.insert(
            0, ("source", "all", _questions([np.flatnonzero(known)], number, units, folds))
        )
        for name, members in zip(sources, in_source, strict=True):
            asked.append(("class", name, _questions([members], labels, units, folds)))
        asked.append(("class", "each source", _questions(in_source, labels, units, folds)))
        asked.append(("source", "each class", _questions(in_class, number, units, folds)))
    found = []
    for target, within, questions in asked:
        if questions:
            for ring, low, high, own in _rings(features, edges):
                place = {"target": target, "within": within, "ring": ring, "low": low, "high": high}
                found.append(place | _answer(own, questions, folds, permutations, resamples, seed))
    return pd.DataFrame(found, columns=list(COLUMNS))


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


def _questions(
    parts: Sequence[np.ndarray], labels: np.ndarray, units: np.ndarray, folds: int
) -> list[_Question]:
    """Keep of each part what has enough lesions, and the parts with two classes or more."""
    questions = []
    for rows in parts:
        own = pd.DataFrame({"label": labels[rows], "unit": units[rows]})
        first = own.drop_duplicates("unit")["label"].value_counts()
        kept = np.sort(first.index[first >= folds].to_numpy())
        chosen = rows[np.isin(labels[rows], kept)]
        if len(kept) > 1:
            numbered = np.searchsorted(kept, labels[chosen])
            questions.append(_Question(chosen, numbered, units[chosen], len(kept)))
    return questions


def _answer(
    features: np.ndarray,
    questions: Sequence[_Question],
    folds: int,
    permutations: int,
    resamples: int,
    seed: int,
) -> dict[str, float | int]:
    """Score the questions, and the mean over them, against permuted labels."""
    observed, resampled, permuted = [], [], []
    for question in questions:
        own, units = features[question.rows], question.units
        rng = np.random.default_rng(seed)
        predicted = _cross_validate(own, question.labels, units, question.classes, folds, rng)
        drawn = bootstrap_weights(question.labels, units, resamples=resamples, seed=seed)
        weights = np.column_stack([np.ones(len(own), dtype=np.float32), drawn])
        scores = _balanced(question.labels, predicted, weights, question.classes)
        observed.append(scores[0])
        resampled.append(scores[1:])
        _, first, unit = np.unique(units, return_index=True, return_inverse=True)
        of_unit = question.labels[first]
        dealt = []
        for _ in range(permutations):
            labels = rng.permutation(of_unit)[unit]
            predicted = _cross_validate(own, labels, units, question.classes, folds, rng)
            one = np.ones((len(own), 1), dtype=np.float32)
            dealt.append(_balanced(labels, predicted, one, question.classes)[0])
        permuted.append(dealt)
    value = float(np.mean(observed))
    level = np.mean(permuted, axis=0)
    low, high = percentile_interval(np.mean(resampled, axis=0))
    return {
        "accuracy": value,
        "accuracy_low": low,
        "accuracy_high": high,
        "chance": float(np.mean([1 / question.classes for question in questions])),
        "permuted": float(level.mean()),
        "permuted_high": float(np.quantile(level, 0.95)),
        "p": float((1 + (level >= value).sum()) / (1 + permutations)),
        "classes": max(question.classes for question in questions),
        "n": sum(len(question.rows) for question in questions),
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
    of_unit = np.empty(len(names), dtype=np.int64)
    shuffled = rng.permutation(len(names))
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    of_unit[order] = np.arange(len(names)) % folds  # dealt class by class: each in every fold
    fold = of_unit[unit]
    predicted = np.empty(len(labels), dtype=np.int64)
    for held in range(folds):
        out = fold == held
        scores = discriminant_scores(
            features[~out], labels[~out], new=features[out], classes=classes
        )
        predicted[out] = scores.argmax(axis=1)
    return predicted


def _balanced(
    labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int
) -> np.ndarray:
    confusion = confusion_matrices(labels, predicted, weights, classes=classes)
    return np.nanmean(class_recalls(confusion), axis=1)
