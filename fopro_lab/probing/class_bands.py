"""Which class lives in which band: recall when one frequency ring of the input is scaled."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation.intervals import (
    bootstrap_weights,
    difference_interval,
    mean_interval,
    percentile_interval,
)
from fopro_lab.fourier import ring_parts
from fopro_lab.probing.features import Encoder, encode_rows, teacher_device
from fopro_lab.probing.probe import LinearProbe, linear_probe
from fopro_lab.probing.rings import check_gains
from fopro_lab.progress import progress as show_progress

GROUPS = ("head", "medium", "tail")


def class_band_matrix(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    edges: Sequence[float],
    *,
    groups: Mapping[str, str],
    gains: Sequence[float] = (0.0, 2.0),
    probe: LinearProbe | None = None,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure how each class's recall changes when one ring of the test pictures is scaled.

    A linear probe on the teacher's features is fitted on untouched training pictures and never
    again. The intervals are of the paired change over the same test pictures: bootstrap within
    each class, whole lesions or patients; where no picture of a class changed sides, two Wilson
    intervals are combined instead ("newcombe"), and a mean over such classes is "mover".

    Args:
        teacher: The frozen network.
        pack: The pictures, with their data set.
        split: Its train rows fit the probe, val chooses its regularisation, test is measured.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        groups: "head", "medium" or "tail" for each class; its order is the table's.
        gains: Non-negative factors of the amplitudes; 0 removes a ring. Nothing is clipped.
        probe: A probe of this teacher and split, if there is one already.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row for each class, group and "overall" (means of class recalls), ring and gain:
        ``scope``, ``name``, ``group`` (of a class), ``ring``, ``low``, ``high`` (cycles per
        pixel), ``gain``, ``recall``, ``clean_recall``, ``change``, ``change_low``,
        ``change_high``, ``n`` (test pictures), ``interval``, ``resampled``, ``protocol``.

    Raises:
        InputError: If the gains, edges or groups are wrong.

    Example:
        >>> class_band_matrix(None, None, None, [0, 0.75], groups={}, gains=[])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: gains: expected one or more finite factors of 0 or above,
        got []
    """
    check_gains(gains)
    names = pack.dataset.class_names
    if set(groups) != set(names) or not set(groups.values()) <= set(GROUPS):
        raise InputError(
            f"groups: expected head, medium or tail for each of {', '.join(names)}, got {groups}"
        )
    if probe is None:
        probe = fit_probe(teacher, pack, split, batch_size=batch_size)
    labels, units = pack.labels[split.test], resampling_units(pack.dataset.table, rows=split.test)
    clean, scaled = _predict_scaled(
        teacher, pack, split.test, edges, gains, probe, batch_size=batch_size, progress=progress
    )
    right, right_before = scaled == labels, clean == labels
    weights = bootstrap_weights(labels, units, resamples=resamples, seed=seed)
    repeated = pd.DataFrame({"label": labels, "unit": units}).duplicated().any()
    rows: list[dict[str, Any]] = []
    for ring, (low, high) in enumerate(pairwise(edges)):
        for place, gain in enumerate(gains):
            classes = {
                name: _class_change(
                    labels == names.index(name), units, weights, right_before, right[ring, place]
                )
                for name in groups
            }
            band = {"ring": ring, "low": float(low), "high": float(high), "gain": float(gain)}
            rows.extend({**row, **band} for row in _tidy(classes, groups))
    table = pd.DataFrame(rows).drop(columns="replicates")
    first = ["scope", "name", "group", "ring", "low", "high", "gain"]
    table = table[first + [column for column in table if column not in first]]
    return table.assign(resampled="group" if repeated else "image", protocol=split.protocol)


def fit_probe(teacher: Encoder, pack: Pack, split: Split, *, batch_size: int = 64) -> LinearProbe:
    """Fit a linear probe on a teacher's features of the training pictures.

    Args:
        teacher: The frozen network.
        pack: The pictures.
        split: Its train rows are fitted, its val rows choose the regularisation.
        batch_size: Pictures a pass.

    Returns:
        The probe.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> packed = pack(open_dataset("phantom", pictures=60), 16, progress=False)
        >>> fit_probe(teacher, packed, make_split(packed.dataset)).weight.shape
        (8, 12)
    """
    train, val = (
        encode_rows(teacher, pack, rows=rows, batch_size=batch_size)
        for rows in (split.train, split.val)
    )
    return linear_probe(
        train, pack.labels[split.train], val_features=val, val_labels=pack.labels[split.val]
    )


def resampling_units(table: pd.DataFrame, *, rows: np.ndarray) -> np.ndarray:
    """Name what a bootstrap draws as a whole: the group, or the picture where it has none.

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


def _predict_scaled(
    teacher: Encoder,
    pack: Pack,
    rows: np.ndarray,
    edges: Sequence[float],
    gains: Sequence[float],
    probe: LinearProbe,
    *,
    batch_size: int,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict untouched pictures ``(n,)`` and those of each ring and gain ``(R, G, n)``."""
    device = teacher_device(teacher)
    clean, scaled = [], []
    work = batches(pack, rows, batch_size=batch_size, device=device)
    if progress:
        total = math.ceil(len(rows) / batch_size)
        work = show_progress(work, total=total, label=f"class bands of {teacher.name}")
    for images, _ in work:
        with torch.inference_mode():
            clean.append(probe.predict(teacher.encode(images).float().cpu().numpy()))
            found = [
                [
                    probe.predict(teacher.encode(images + (g - 1) * part).float().cpu().numpy())
                    for g in gains
                ]
                for part in ring_parts(images, edges)
            ]
        scaled.append(np.array(found))
    return np.concatenate(clean), np.concatenate(scaled, axis=2)


def _class_change(
    members: np.ndarray,
    units: np.ndarray,
    weights: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
) -> dict[str, Any]:
    """Measure one class's recall before and after, and its change in every resample."""
    drawn = weights[members].astype(np.float64)
    difference = after[members].astype(np.float64) - before[members]
    recall, clean = float(after[members].mean()), float(before[members].mean())
    replicates = difference @ drawn / drawn.sum(axis=0)
    if np.ptp(replicates) > 0:
        (low, high), interval = percentile_interval(replicates), "bootstrap"
    else:
        low, high = difference_interval(recall, clean, len(np.unique(units[members])))
        interval = "newcombe"
    return {
        "recall": recall,
        "clean_recall": clean,
        "change": recall - clean,
        "change_low": low,
        "change_high": high,
        "n": int(members.sum()),
        "interval": interval,
        "replicates": replicates,
    }


def _tidy(
    classes: Mapping[str, Mapping[str, Any]], groups: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Lay out the classes, then the means over each group and over all."""
    rows: list[dict[str, Any]] = [
        {"scope": "class", "name": name, "group": groups[name], **classes[name]} for name in groups
    ]
    for group in GROUPS:
        members = [classes[name] for name in groups if groups[name] == group]
        if members:
            rows.append({"scope": "group", "name": group, "group": "", **_mean_change(members)})
    return [
        *rows,
        {"scope": "overall", "name": "all", "group": "", **_mean_change([*classes.values()])},
    ]


def _mean_change(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average recalls and changes over classes; resamples of different classes are independent."""
    replicates = np.mean([member["replicates"] for member in members], axis=0)
    low, high = percentile_interval(replicates)
    mean = {key: float(np.mean([m[key] for m in members])) for key in ("recall", "clean_recall")}
    change = mean["recall"] - mean["clean_recall"]
    sure = all(member["interval"] == "bootstrap" for member in members)
    if not sure:
        limits = {key: np.array([m[key] for m in members]) for key in ("change_low", "change_high")}
        changes = np.array([member["change"] for member in members])
        wide = mean_interval(changes, limits["change_low"], limits["change_high"])
        low, high = min(low, wide[0]), max(high, wide[1])
    return {
        **mean,
        "change": change,
        "change_low": low,
        "change_high": high,
        "n": sum(member["n"] for member in members),
        "interval": "bootstrap" if sure else "mover",
        "replicates": replicates,
    }
