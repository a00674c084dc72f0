"""Class bands: which class is lost when some frequencies of the test images are changed.

Three changes, all unclipped and with the mean of each channel (DC) kept, so that brightness and
colour stay: one ring is scaled, only what is below or above a cut-off is kept, or only the phases
or the amplitudes are kept. A linear probe on a teacher, fitted on unchanged images, or a trained
student names the classes before and after.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.bootstrap import (
    LEVEL,
    bootstrap_weights,
    difference_interval,
    holm,
    mean_interval,
    percentile_interval,
    wilson_interval,
)
from fopro_lab.evaluation.scores import GROUPS
from fopro_lab.fourier import ring_parts
from fopro_lab.fourier.rings import CORNER
from fopro_lab.probing.features import (
    LinearProbe,
    Network,
    as_classifier,
    draw_per_class,
    predict_changed,
    resampling_units,
)
from fopro_lab.probing.ring_response import check_gains, check_rings

KINDS = ("phase", "phase-flat", "amplitude")
MEASURED = [
    *("recall", "recall_low", "recall_high", "clean_recall", "change", "change_low", "change_high"),
    *("n", "interval", "p"),
]


def class_band_matrix(
    network: Network,
    pack: Pack,
    split: Split,
    edges: Sequence[float],
    *,
    groups: Mapping[str, str],
    gains: Sequence[float] = (0.0, 2.0),
    probe: LinearProbe | None = None,
    per_class: int = 0,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure how each class's recall changes when one ring of the test images is scaled.

    Args:
        network: A frozen teacher, for which a linear probe is fitted; a function from images to
            logits, such as a trained student's ``classify``; or a `Classifier`.
        pack: The images, with their data set.
        split: Its train rows fit the probe, val chooses its regularisation, test is measured.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        groups: "head", "medium" or "tail" for each class; its order is the table's.
        gains: Non-negative factors of the amplitudes; 0 removes a ring.
        probe: A probe of this teacher and split, if there is one already.
        per_class: At most this many test images of a class, drawn by ``seed``; 0 is all.
        batch_size: Images per pass.
        resamples: Bootstrap resamples of lesions or patients.
        seed: Seed of the drawn images and of the bootstrap.
        progress: Whether to show progress.

    Returns:
        A row for each class, group and "overall" (means of class recalls), ring and gain:
        ``classifier``, ``scope``, ``name``, ``group`` (of a class), ``ring``, ``low``, ``high``
        (cycles per pixel), ``gain``, then as `measure_changes`, and ``protocol``.

    Raises:
        InputError: If gains, edges or groups are wrong, a ring is empty at this size, or a class
            is absent from training.
    """
    check_gains(gains)
    check_rings(edges, height=pack.size, width=pack.size)

    def scale_each(images: Tensor) -> Iterator[Tensor]:
        for part in ring_parts(images, edges):
            for gain in gains:
                yield torch.add(images, part, alpha=gain - 1)

    cases = [
        {"ring": ring, "low": float(low), "high": float(high), "gain": float(gain)}
        for (ring, (low, high)), gain in product(enumerate(pairwise(edges)), gains)
    ]
    return _measure(
        network, pack, split, scale_each, cases, label="class bands", groups=groups, probe=probe,
        per_class=per_class, batch_size=batch_size, resamples=resamples, seed=seed,
        progress=progress,
    )  # fmt: skip


def pass_ladder(
    network: Network,
    pack: Pack,
    split: Split,
    cutoffs: Sequence[float],
    *,
    groups: Mapping[str, str],
    probe: LinearProbe | None = None,
    per_class: int = 0,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure recall on test images that keep only what is below, or above, a frequency.

    Low-pass keeps every frequency up to and with the cut-off, high-pass all above it. Arguments are
    those of `class_band_matrix`, and ``cutoffs``: increasing frequencies above 0 and below 0.7,
    cycles per pixel.

    Returns:
        A row for each class, group and "overall", and each step: ``classifier``, ``scope``,
        ``name``, ``group``, ``kind`` ("low-pass", "high-pass"), ``cutoff`` (cycles per pixel),
        then as `measure_changes`, and ``protocol``. "overall" is balanced accuracy.

    Raises:
        InputError: If the cut-offs are wrong or two of them keep the same frequencies.
    """
    steps = [0.0, *map(float, cutoffs), CORNER]
    if len(steps) < 3 or steps != sorted(set(steps)) or steps[-2] >= 0.7:
        raise InputError(
            "cutoffs: expected one or more increasing frequencies above 0 and below 0.7 cycles "
            f"per pixel, got {list(cutoffs)}"
        )
    check_rings(steps, height=pack.size, width=pack.size)

    def climb(images: Tensor) -> Iterator[Tensor]:
        mean = images.mean(dim=(2, 3), keepdim=True)
        low = mean.expand_as(images)
        for part, _ in zip(ring_parts(images, steps), cutoffs, strict=False):
            low = low + part
            yield low
            yield images - low + mean

    cases = [
        {"kind": kind, "cutoff": float(cutoff)}
        for cutoff, kind in product(cutoffs, ("low-pass", "high-pass"))
    ]
    return _measure(
        network, pack, split, climb, cases, label="ladder", groups=groups, probe=probe,
        per_class=per_class, batch_size=batch_size, resamples=resamples, seed=seed,
        progress=progress,
    )  # fmt: skip


def phase_and_amplitude(
    network: Network,
    pack: Pack,
    split: Split,
    *,
    groups: Mapping[str, str],
    probe: LinearProbe | None = None,
    per_class: int = 0,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure recall on test images that keep only their phases or only their amplitudes.

    ``phase`` has the image's phases and the mean amplitudes of the training images; its contours
    stay. ``phase-flat`` has one amplitude at all frequencies, which whitens: it looks like edges.
    ``amplitude`` has the image's amplitudes and the phases of white noise; spectrum and texture
    strength stay, every contour is gone.

    Arguments are those of `class_band_matrix`; ``seed`` also draws the noise.

    Returns:
        A row for each class, group and "overall", and each ``kind``: ``classifier``, ``scope``,
        ``name``, ``group``, ``kind``, then as `measure_changes`, and ``protocol``.
    """
    mean = mean_amplitude(pack, split.train)
    generator = torch.Generator().manual_seed(seed)

    def rebuild(images: Tensor) -> Iterator[Tensor]:
        yield phase_only(images, mean.to(images.device))
        yield phase_only(images)
        yield amplitude_only(images, generator)

    return _measure(
        network, pack, split, rebuild, [{"kind": kind} for kind in KINDS],
        label="phase and amplitude", groups=groups, probe=probe, per_class=per_class,
        batch_size=batch_size, resamples=resamples, seed=seed, progress=progress,
    )  # fmt: skip


def _measure(
    network: Network,
    pack: Pack,
    split: Split,
    change: Callable[[Tensor], Iterator[Tensor]],
    cases: Sequence[Mapping[str, Any]],
    *,
    label: str,
    groups: Mapping[str, str],
    probe: LinearProbe | None,
    per_class: int,
    batch_size: int,
    resamples: int,
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    """Classify test images before and after each case that ``change`` yields; lay out a table."""
    check_groups(groups, pack.dataset.class_names)
    classifier = as_classifier(network, pack, split, probe=probe, batch_size=batch_size)
    rows = draw_per_class(split.test, pack.labels[split.test], per_class=per_class, seed=seed)
    before, after = predict_changed(
        classifier, pack, rows, change, label=label, batch_size=batch_size, progress=progress
    )
    table = measure_changes(
        pack.labels[rows],
        resampling_units(pack.dataset.table, rows=rows),
        before,
        after,
        names=pack.dataset.class_names,
        groups=groups,
        resamples=resamples,
        seed=seed,
    )
    what = pd.DataFrame(cases).iloc[table.pop("case")].reset_index(drop=True)
    scope = table[["scope", "name", "group"]]
    joined = pd.concat([scope, what, table.drop(columns=list(scope))], axis=1)
    joined.insert(0, "classifier", classifier.name)
    return joined.assign(protocol=split.protocol)


def measure_changes(
    labels: np.ndarray,
    units: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    *,
    names: Sequence[str],
    groups: Mapping[str, str],
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare predictions of changed images with those of the same images unchanged.

    Intervals are of the paired change: bootstrap within each class, whole lesions or patients;
    where no image of a class changed sides two Wilson intervals are combined instead
    ("newcombe"), and a mean over such classes is "mover". The p-value is of the exact sign test
    over lesions: did more get better than worse? A normal approximation would call six lesions
    of a rare class a certainty.

    Args:
        labels: True classes ``(n,)``.
        units: What is drawn as a whole ``(n,)``: lesion, patient or image.
        before: Predicted classes of the unchanged images ``(n,)``.
        after: Predicted classes in each of M cases ``(M, n)``.
        names: Class names, in the order of the labels.
        groups: As in `class_band_matrix`, and so are ``resamples`` and ``seed``.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        A row for each case and each class, group and "overall" (means of class recalls):
        ``case``, ``scope``, ``name``, ``group`` (of a class), ``recall``, ``recall_low``,
        ``recall_high``, ``clean_recall``, ``change``, ``change_low``, ``change_high``, ``n``,
        ``interval``, ``p``, ``p_holm``, ``cells`` (in the correction's family: all classes, or
        all means), ``survives`` (5 % after the correction, and the interval excludes zero),
        ``resampled``. A class without images has NaN.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.
    """
    check_groups(groups, names)
    weights = bootstrap_weights(labels, units, resamples=resamples, seed=seed)
    members = {name: np.flatnonzero(labels == names.index(name)) for name in groups}
    rows: list[dict[str, Any]] = []
    for case, predicted in enumerate(after):
        found = {
            name: _class_change(
                (predicted[own] == labels[own]).astype(np.float64),
                (before[own] == labels[own]).astype(np.float64),
                units[own],
                weights[own].astype(np.float64),
            )
            for name, own in members.items()
            if len(own)
        }
        absent = {"n": 0, "interval": "none"}  # all else is NaN
        for name, group in groups.items():
            row = {"scope": "class", "name": name, "group": group}
            rows.append({"case": case, **row, **found.get(name, absent)})
        for group in (*GROUPS, "all"):
            classes = [each for name, each in found.items() if group in (groups[name], "all")]
            if classes:
                scope = "overall" if group == "all" else "group"
                row = {"scope": scope, "name": group, "group": ""}
                rows.append({"case": case, **row, **_mean_change(classes)})
    table = pd.DataFrame(rows, columns=["case", "scope", "name", "group", *MEASURED])
    several = pd.DataFrame({"label": labels, "unit": units}).duplicated().any()
    return correct_for_many(table).assign(resampled="group" if several else "image")


def check_groups(groups: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse groups that do not name head, medium or tail for each class."""
    if set(groups) != set(names) or not set(groups.values()) <= set(GROUPS):
        raise InputError(
            f"groups: expected head, medium or tail for each of {', '.join(names)}, got {groups}"
        )


def correct_for_many(table: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's correction over all classes, and over all means, to a table with ``p``."""
    family = np.where(table["scope"] == "class", "class", "mean")
    adjusted = table["p"].groupby(family).transform(lambda p: holm(p.to_numpy()))
    clear = (table["change_low"] > 0) | (table["change_high"] < 0)
    cells = table["p"].groupby(family).transform("count").astype(int)
    return table.assign(p_holm=adjusted, cells=cells, survives=clear & (adjusted < 1 - LEVEL))


def sign_test(better: int, worse: int) -> float:
    """Return the exact two-sided p-value of "as many better as worse"."""
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _class_change(
    after: np.ndarray, before: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    """Measure the recall of one class from hits (0 or 1) after and before, ``(n,)`` each."""
    _, unit = np.unique(units, return_inverse=True)
    trials = int(unit.max()) + 1
    total = weights.sum(axis=0)  # divided last: sums of whole numbers are exact
    changes, recalls = (after - before) @ weights / total, after @ weights / total
    recall, clean = float(after.mean()), float(before.mean())
    varies = np.ptp(changes) > 0
    low, high = (
        percentile_interval(changes) if varies else difference_interval(recall, clean, trials)
    )
    recall_low, recall_high = (
        percentile_interval(recalls) if np.ptp(recalls) > 0 else wilson_interval(recall, trials)
    )
    by_unit = np.bincount(unit, weights=after - before)
    signs = np.array([(by_unit > 0).sum(), (by_unit < 0).sum()])
    return {
        "recall": recall,
        "recall_low": recall_low,
        "recall_high": recall_high,
        "clean_recall": clean,
        "change": recall - clean,
        "change_low": low,
        "change_high": high,
        "n": len(units),
        "interval": "bootstrap" if varies else "newcombe",
        "p": sign_test(*signs.tolist()),
        "signs": signs,
        "drawn": {"change": changes, "recall": recalls},
    }


def _mean_change(classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average over classes, whose resamples are independent of one another."""
    found: dict[str, Any] = {
        key: float(np.mean([each[key] for each in classes])) for key in ("recall", "clean_recall")
    }
    found["change"] = found["recall"] - found["clean_recall"]
    bootstrap = all(each["interval"] == "bootstrap" for each in classes)
    for key in ("change", "recall"):
        low, high = percentile_interval(np.mean([each["drawn"][key] for each in classes], axis=0))
        if not bootstrap:
            limits = [np.array([each[f"{key}{end}"] for each in classes])
                      for end in ("", "_low", "_high")]  # fmt: skip
            wide = mean_interval(*limits)
            low, high = min(low, wide[0]), max(high, wide[1])
        found |= {f"{key}_low": low, f"{key}_high": high}
    signs = np.sum([each["signs"] for each in classes], axis=0)
    return found | {
        "n": sum(each["n"] for each in classes),
        "interval": "bootstrap" if bootstrap else "mover",
        "p": sign_test(*signs.tolist()),
    }


def phase_only(images: Tensor, amplitude: Tensor | None = None) -> Tensor:
    """Keep the phases of images ``(B, C, H, W)`` and give them other amplitudes.

    ``amplitude`` is ``(C, H, W // 2 + 1)`` of an unnormalised ``rfft2``; None takes one for all
    frequencies of an image, so that each channel keeps its variance. A frequency that an image
    does not have has no phase and stays absent.

    Source: Oppenheim & Lim, Proc. IEEE 69 (1981) 529; with a mean amplitude: Piotrowski &
        Campbell, Perception 11 (1982) 337.
    """
    spectrum = torch.fft.rfft2(images)
    if amplitude is not None and amplitude.shape != spectrum.shape[1:]:
        raise ShapeError(
            f"amplitude: expected {tuple(spectrum.shape[1:])}, got {tuple(amplitude.shape)}"
        )
    size = spectrum.abs()
    floor = 1e-6 * size.amax(dim=(-2, -1), keepdim=True)  # the transform's own rounding
    phase = torch.where(size > floor, spectrum / size.clamp(min=1e-30), 0)
    phase[..., 0, 0] = 0
    phase = phase if amplitude is None else phase * amplitude
    rebuilt = torch.fft.irfft2(phase, s=images.shape[-2:])
    if amplitude is None:
        spread = rebuilt.std(dim=(2, 3), keepdim=True).clamp(min=1e-30)
        rebuilt = rebuilt * (images.std(dim=(2, 3), keepdim=True) / spread)
    return rebuilt + images.mean(dim=(2, 3), keepdim=True)


def amplitude_only(images: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the amplitudes of images ``(B, C, H, W)`` and give them the phases of white noise.

    All channels of an image share the noise.
    """
    height, width = images.shape[-2:]
    # Drawn on the CPU, image by image, so that device and batch size make no difference.
    noise = torch.stack([torch.randn(height, width, generator=generator) for _ in images])
    theirs = torch.fft.rfft2(noise.to(images))[:, None]
    spectrum = torch.fft.rfft2(images)
    mixed = spectrum.abs() * (theirs / theirs.abs().clamp(min=1e-30))
    mixed[..., 0, 0] = spectrum[..., 0, 0]
    return torch.fft.irfft2(mixed, s=(height, width))


def mean_amplitude(pack: Pack, rows: np.ndarray, *, batch_size: int = 256) -> Tensor:
    """Average the amplitude of each frequency, ``(3, H, W // 2 + 1)`` of an unnormalised rfft2."""
    total = torch.zeros((), dtype=torch.float64)
    for images, _ in batches(pack, rows, batch_size=batch_size):
        total = total + torch.fft.rfft2(images).abs().sum(dim=0, dtype=torch.float64)
    return (total / len(rows)).float()
