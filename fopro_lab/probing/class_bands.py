"""Images that keep only their phases or only their amplitudes, and who still reads them.

Three reconstructions, of each channel on its own; DC is always the image's own, so brightness
and colour stay, and nothing is clipped:

- ``phase``: the image's phases with the mean amplitude of the training images at each
  frequency. What is special in an image's amplitudes is gone, its contours are not.
- ``phase-flat``: the image's phases with one amplitude at all frequencies, scaled so that the
  variance stays: the phase-only image of Oppenheim & Lim. It whitens, so it looks like edges.
- ``amplitude``: the image's amplitudes with the phases of white noise, the same noise in all
  channels. Spectrum and texture strength stay, every contour is gone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import torch
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
from fopro_lab.fourier import ring_parts
from fopro_lab.probing.features import (
    Classifier,
    Encoder,
    LinearProbe,
    Reader,
    draw_per_class,
    predict_changed,
    reader_of,
    resampling_units,
)
from fopro_lab.probing.ring_response import check_gains, check_rings

GROUPS = ("head", "medium", "tail")


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
        groups: "head", "medium" or "tail" for each class; its order is the table's.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        A row for each case and each class, group and "overall" (means of class recalls):
        ``case``, ``scope``, ``name``, ``group`` (of a class), ``recall``, ``recall_low``,
        ``recall_high``, ``clean_recall``, ``change``, ``change_low``, ``change_high``, ``n``,
        ``interval``, ``p``, ``p_holm``, ``cells`` (in the correction's family: all classes, or
        all means), ``survives`` (5 % after the correction, and the interval leaves zero out),
        ``resampled``. A class without images has NaN.

    Raises:
        InputError: If the groups do not fit the classes.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.

    Example:
        >>> table = measure_changes(np.array([0, 0, 1, 1]), np.arange(4), np.array([0, 0, 1, 1]),
        ...     np.array([[0, 0, 0, 0]]), names=["a", "b"], groups={"a": "head", "b": "tail"})
        >>> table.set_index("name").loc[["a", "b", "all"], "change"].tolist()
        [0.0, -1.0, -0.5]
    """
    check_groups(groups, names)
    weights = bootstrap_weights(labels, units, resamples=resamples, seed=seed)
    members = {name: labels == names.index(name) for name in groups}
    right_before = before == labels
    rows: list[dict[str, Any]] = []
    for case, predicted in enumerate(after):
        right = predicted == labels
        classes = {
            name: _class_change(own, units, weights, right_before, right)
            for name, own in members.items()
        }
        rows.extend({"case": case, **row} for row in _tidy(classes, groups))
    table = pd.DataFrame(rows).drop(columns=["replicates", "recalls", "signs"])
    repeated = pd.DataFrame({"label": labels, "unit": units}).duplicated().any()
    return correct_for_many(table).assign(resampled="group" if repeated else "image")


def check_groups(groups: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse groups that do not name head, medium or tail for each class.

    Raises:
        InputError: If so.
    """
    if set(groups) != set(names) or not set(groups.values()) <= set(GROUPS):
        raise InputError(
            f"groups: expected head, medium or tail for each of {', '.join(names)}, got {groups}"
        )


def correct_for_many(table: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's correction: once over all classes and once over all means.

    Args:
        table: Columns ``scope``, ``p``, ``change_low``, ``change_high``.

    Returns:
        The table with ``p_holm``, ``cells`` and ``survives``.

    Example:
        >>> table = pd.DataFrame({"scope": "class", "p": [0.001, 0.04], "change_low": 0.1,
        ...                       "change_high": 0.2})
        >>> correct_for_many(table)[["p_holm", "cells", "survives"]].values.tolist()
        [[0.002, 2, True], [0.04, 2, True]]
    """
    family = np.where(table["scope"] == "class", "class", "mean")
    adjusted = table["p"].groupby(family).transform(lambda p: holm(p.to_numpy()))
    clear = (table["change_low"] > 0) | (table["change_high"] < 0)
    cells = table["p"].groupby(family).transform("count")
    return table.assign(
        p_holm=adjusted, cells=cells.astype(int), survives=clear & (adjusted < 1 - LEVEL)
    )


def lay_out(
    table: pd.DataFrame, cases: pd.DataFrame, *, reader: str, protocol: str
) -> pd.DataFrame:
    """Put what each case was in place of its number.

    Args:
        table: Of `measure_changes`.
        cases: A row a case.
        reader: Who read.
        protocol: Of the split.

    Returns:
        Reader, scope, name and group first, then the columns of ``cases``, then the numbers.

    Example:
        >>> table = pd.DataFrame({"case": [1], "scope": "class", "name": "nv", "group": "head",
        ...                       "recall": 0.5})
        >>> lay_out(table, pd.DataFrame({"gain": [0, 2]}), reader="probe", protocol="toy").columns
        Index(['reader', 'scope', 'name', 'group', 'gain', 'recall', 'protocol'], dtype=...)
    """
    told = cases.iloc[table["case"]].reset_index(drop=True)
    first = table[["scope", "name", "group"]]
    rest = table.drop(columns=["case", "scope", "name", "group"])
    joined = pd.concat([first, told, rest], axis=1)
    joined.insert(0, "reader", reader)
    return joined.assign(protocol=protocol)


def sign_test(better: int, worse: int) -> float:
    """Return the exact two-sided p-value of "as many better as worse".

    Example:
        >>> sign_test(0, 6)
        0.03125
    """
    total, few = better + worse, min(better, worse)
    tail = sum(math.comb(total, k) for k in range(few + 1))
    return min(1.0, 2 * tail / 2**total)


def _class_change(
    members: np.ndarray,
    units: np.ndarray,
    weights: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
) -> dict[str, Any]:
    """Measure one class's recall before and after, and its change in every resample."""
    if not members.any():
        limits = [f"{key}{end}" for key in ("recall", "change") for end in ("", "_low", "_high")]
        nothing = np.full(weights.shape[1], np.nan)
        return dict.fromkeys([*limits, "clean_recall"], np.nan) | {
            "n": 0, "interval": "none", "p": np.nan,
            "replicates": nothing, "recalls": nothing, "signs": (0, 0),
        }  # fmt: skip
    drawn = weights[members].astype(np.float64)
    total = drawn.sum(axis=0)  # divided last: sums of whole numbers are exact
    difference = after[members].astype(np.float64) - before[members]
    recall, clean = float(after[members].mean()), float(before[members].mean())
    replicates, recalls = difference @ drawn / total, after[members] @ drawn / total
    names, unit = np.unique(units[members], return_inverse=True)
    interval = "bootstrap" if np.ptp(replicates) > 0 else "newcombe"
    low, high = (
        percentile_interval(replicates)
        if interval == "bootstrap"
        else difference_interval(recall, clean, len(names))
    )
    recall_low, recall_high = (
        percentile_interval(recalls) if np.ptp(recalls) > 0 else wilson_interval(recall, len(names))
    )
    of_unit = np.bincount(unit, weights=difference)
    signs = (int((of_unit > 0).sum()), int((of_unit < 0).sum()))
    return {
        "recall": recall,
        "recall_low": recall_low,
        "recall_high": recall_high,
        "clean_recall": clean,
        "change": recall - clean,
        "change_low": low,
        "change_high": high,
        "n": int(members.sum()),
        "interval": interval,
        "p": sign_test(*signs),
        "replicates": replicates,
        "recalls": recalls,
        "signs": signs,
    }


def _tidy(
    classes: Mapping[str, Mapping[str, Any]], groups: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Lay out the classes, then the means over each group and over all."""
    rows: list[dict[str, Any]] = [
        {"scope": "class", "name": name, "group": groups[name], **classes[name]} for name in groups
    ]
    for group in (*GROUPS, "all"):
        members = [
            found
            for name, found in classes.items()
            if group in (groups[name], "all") and found["n"]
        ]
        if members:
            scope = "overall" if group == "all" else "group"
            rows.append({"scope": scope, "name": group, "group": "", **_mean_change(members)})
    return rows


def _mean_change(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average recalls and changes over classes; resamples of different classes are independent."""
    found: dict[str, Any] = {
        key: float(np.mean([m[key] for m in members])) for key in ("recall", "clean_recall")
    }
    found["change"] = found["recall"] - found["clean_recall"]
    sure = all(member["interval"] == "bootstrap" for member in members)
    for key, replicates in (("change", "replicates"), ("recall", "recalls")):
        drawn = np.mean([member[replicates] for member in members], axis=0)
        low, high = percentile_interval(drawn)
        if not sure:
            values, lows, highs = (
                np.array([m[f"{key}{end}"] for m in members]) for end in ("", "_low", "_high")
            )
            wide = mean_interval(values, lows, highs)
            low, high = min(low, wide[0]), max(high, wide[1])
        found |= {f"{key}_low": low, f"{key}_high": high, replicates: drawn}
    signs = tuple(int(total) for total in np.sum([m["signs"] for m in members], axis=0))
    return found | {
        "n": sum(member["n"] for member in members),
        "interval": "bootstrap" if sure else "mover",
        "p": sign_test(*signs),
        "signs": signs,
    }


def ask_changed(
    reader: Reader,
    pack: Pack,
    rows: np.ndarray,
    change: Callable[[Tensor], Iterator[Tensor]],
    *,
    cases: pd.DataFrame,
    split: Split,
    groups: Mapping[str, str],
    label: str,
    batch_size: int,
    resamples: int,
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    """Let a reader name the classes of images before and after several changes.

    Args:
        reader: What reads.
        pack: The images.
        rows: Which.
        change: Yields a changed batch for each row of ``cases``.
        cases: What was changed, a row a case.
        split: Its protocol is told beside each number.
        groups: "head", "medium" or "tail" for each class.
        label: Of the progress.
        batch_size: Images a pass.
        resamples: Bootstrap resamples of every interval.
        seed: Of the bootstrap.
        progress: Say how far it is.

    Returns:
        The table of `lay_out`.
    """
    before, after = predict_changed(
        reader, pack, rows, change, label=label, batch_size=batch_size, progress=progress
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
    return lay_out(table, cases, reader=reader.name, protocol=split.protocol)


def class_band_matrix(
    asked: Encoder | Reader | Classifier,
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

    A teacher is read by a linear probe, fitted on untouched training images and never again; a
    trained student reads for itself. Intervals and tests are those of `measure_changes`.

    Args:
        asked: A frozen teacher; or a function from images to logits, such as a trained
            student's ``classify``; or a `Reader`.
        pack: The images, with their data set.
        split: Its train rows fit the probe, val chooses its regularisation, test is measured.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        groups: "head", "medium" or "tail" for each class; its order is the table's.
        gains: Non-negative factors of the amplitudes; 0 removes a ring. Nothing is clipped.
        probe: A probe of this teacher and split, if there is one already.
        per_class: At most this many test images of a class, drawn by ``seed``; 0 is all.
        batch_size: Images a pass.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row for each class, group and "overall" (means of class recalls), ring and gain:
        ``reader``, ``scope``, ``name``, ``group`` (of a class), ``ring``, ``low``, ``high``
        (cycles per pixel), ``gain``, then as `measure_changes`, and ``protocol``.

    Raises:
        InputError: If the gains, edges or groups are wrong, a ring is empty at this size, or a
            class is absent from training.

    Example:
        >>> class_band_matrix(None, None, None, [0, 0.75], groups={}, gains=[])
        Traceback (most recent call last):
        fopro_lab.errors.InputError: gains: expected one or more finite factors of 0 or above,
        got []
    """
    check_gains(gains)
    check_groups(groups, pack.dataset.class_names)
    check_rings(edges, height=pack.size, width=pack.size)
    reader = reader_of(asked, pack, split, probe=probe, batch_size=batch_size)
    rows = draw_per_class(split.test, pack.labels[split.test], per_class=per_class, seed=seed)

    def scale_each(images: Tensor) -> Iterator[Tensor]:
        for part in ring_parts(images, edges):
            for gain in gains:
                yield torch.add(images, part, alpha=gain - 1)

    cases = pd.DataFrame(
        [
            {"ring": ring, "low": float(low), "high": float(high), "gain": float(gain)}
            for (ring, (low, high)), gain in product(enumerate(pairwise(edges)), gains)
        ]
    )
    return ask_changed(
        reader, pack, rows, scale_each, cases=cases, split=split, groups=groups,
        label="class bands", batch_size=batch_size, resamples=resamples,
        seed=seed, progress=progress,
    )  # fmt: skip


CORNER = 0.75  # cycles per pixel, above every frequency


def pass_ladder(
    asked: Encoder | Reader | Classifier,
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

    Low-pass keeps every frequency up to and with the cut-off, high-pass all above it; the two sum
    to the image. The mean of each channel (DC) stays in both, so that brightness and colour do
    not tell the steps apart, and nothing is clipped. All steps share one forward transform.

    Args:
        asked: As in `class_band_matrix`.
        pack: The images, with their data set.
        split: As in `class_band_matrix`.
        cutoffs: Increasing frequencies above 0 and below 0.7, cycles per pixel.
        groups: "head", "medium" or "tail" for each class.
        probe: A probe of this teacher and split, if there is one already.
        per_class: At most this many test images of a class; 0 is all.
        batch_size: Images a pass.
        resamples: Bootstrap resamples.
        seed: Seed of the drawn images and of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row for each class, group and "overall", and each step: ``reader``, ``scope``, ``name``,
        ``group``, ``kind`` ("low-pass", "high-pass"), ``cutoff`` (cycles per pixel), then as
        `measure_changes`, and ``protocol``. Rows of scope "overall" are balanced accuracy.

    Raises:
        InputError: If the cut-offs are wrong or two of them keep the same frequencies.

    Example:
        >>> pass_ladder(None, None, None, [0.2, 0.1], groups={})
        Traceback (most recent call last):
        fopro_lab.errors.InputError: cutoffs: expected one or more increasing frequencies above 0
        and below 0.7 cycles per pixel, got [0.2, 0.1]
    """
    steps = [0.0, *map(float, cutoffs), CORNER]
    if len(steps) < 3 or steps != sorted(set(steps)) or steps[-2] >= 0.7:
        raise InputError(
            "cutoffs: expected one or more increasing frequencies above 0 and below 0.7 cycles "
            f"per pixel, got {list(cutoffs)}"
        )
    check_rings(steps, height=pack.size, width=pack.size)
    reader = reader_of(asked, pack, split, probe=probe, batch_size=batch_size)
    rows = draw_per_class(split.test, pack.labels[split.test], per_class=per_class, seed=seed)

    def climb(images: Tensor) -> Iterator[Tensor]:
        mean = images.mean(dim=(2, 3), keepdim=True)
        low = mean.expand_as(images)
        for part, _ in zip(ring_parts(images, steps), cutoffs, strict=False):
            low = low + part
            yield low
            yield images - low + mean

    cases = pd.DataFrame(
        list(product(map(float, cutoffs), ("low-pass", "high-pass"))), columns=["cutoff", "kind"]
    )[["kind", "cutoff"]]
    return ask_changed(
        reader, pack, rows, climb, cases=cases, split=split, groups=groups,
        label="ladder", batch_size=batch_size, resamples=resamples,
        seed=seed, progress=progress,
    )  # fmt: skip


KINDS = ("phase", "phase-flat", "amplitude")


def phase_and_amplitude(
    asked: Encoder | Reader | Classifier,
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

    Args:
        asked: As in `class_band_matrix`.
        pack: The images, with their data set.
        split: As in `class_band_matrix`; its train rows also give the mean amplitude.
        groups: "head", "medium" or "tail" for each class.
        probe: A probe of this teacher and split, if there is one already.
        per_class: At most this many test images of a class; 0 is all.
        batch_size: Images a pass.
        resamples: Bootstrap resamples.
        seed: Seed of the drawn images, of the noise and of the bootstrap.
        progress: Say how far it is.

    Returns:
        A row for each class, group and "overall", and each ``kind``: ``reader``, ``scope``,
        ``name``, ``group``, ``kind``, then as `measure_changes`, and ``protocol``.

    Raises:
        InputError: If the groups are wrong.

    Example:
        >>> from fopro_lab.data import open_dataset, make_split, pack
        >>> packed = pack(open_dataset("phantom", images=60), 16, progress=False)
        >>> groups = dict.fromkeys(packed.dataset.class_names, "head")
        >>> table = phase_and_amplitude(lambda x: x.mean(dim=(2, 3)), packed,
        ...     make_split(packed.dataset), groups=groups, resamples=20, progress=False)
        >>> (table["change"] == 0).all()  # mean colours are DC, which stays
        np.True_
    """
    check_groups(groups, pack.dataset.class_names)
    reader = reader_of(asked, pack, split, probe=probe, batch_size=batch_size)
    rows = draw_per_class(split.test, pack.labels[split.test], per_class=per_class, seed=seed)
    mean = mean_amplitude(pack, split.train).to(reader.device)
    generator = torch.Generator().manual_seed(seed)

    def rebuild(images: Tensor) -> Iterator[Tensor]:
        yield phase_only(images, mean)
        yield phase_only(images)
        yield amplitude_only(images, generator)

    cases = pd.DataFrame({"kind": KINDS})
    return ask_changed(
        reader, pack, rows, rebuild, cases=cases, split=split, groups=groups,
        label="phase and amplitude", batch_size=batch_size, resamples=resamples,
        seed=seed, progress=progress,
    )  # fmt: skip


def phase_only(images: Tensor, amplitude: Tensor | None = None) -> Tensor:
    """Keep the phases of images and give them other amplitudes.

    Args:
        images: ``(B, C, H, W)``, single or double precision.
        amplitude: ``(C, H, W // 2 + 1)`` of an unnormalised ``rfft2``, 0 or above; None takes one
            for all frequencies of an image, so that each channel keeps its variance.

    Returns:
        ``(B, C, H, W)``; DC is the image's own. A frequency that an image does not have has
        no phase and stays away.

    Raises:
        ShapeError: If ``amplitude`` does not fit.

    Source: Oppenheim & Lim, Proc. IEEE 69 (1981) 529; with a mean amplitude: Piotrowski &
        Campbell, Perception 11 (1982) 337.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> flat = phase_only(x)
        >>> torch.allclose(flat.var(dim=(2, 3)), x.var(dim=(2, 3)), rtol=1e-4)
        True
    """
    height, width = images.shape[-2:]
    spectrum = torch.fft.rfft2(images)
    if amplitude is not None and amplitude.shape != spectrum.shape[1:]:
        raise ShapeError(
            f"amplitude: expected {tuple(spectrum.shape[1:])}, got {tuple(amplitude.shape)}"
        )
    size = spectrum.abs()
    phase = torch.where(size > _floor(size), spectrum / size.clamp(min=1e-30), 0)
    phase[..., 0, 0] = 0
    rebuilt = torch.fft.irfft2(phase if amplitude is None else phase * amplitude, s=(height, width))
    if amplitude is None:
        spread = rebuilt.std(dim=(2, 3), keepdim=True).clamp(min=1e-30)
        rebuilt = rebuilt * (images.std(dim=(2, 3), keepdim=True) / spread)
    return rebuilt + images.mean(dim=(2, 3), keepdim=True)


def amplitude_only(images: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the amplitudes of images and give them the phases of white noise.

    Args:
        images: ``(B, C, H, W)``, single or double precision.
        generator: Draws the noise, on the CPU, image by image: batches of another size make
            no difference. All channels of an image share it.

    Returns:
        ``(B, C, H, W)``; DC is the image's own.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> other = amplitude_only(x, torch.Generator().manual_seed(0))
        >>> torch.allclose(torch.fft.rfft2(other).abs(), torch.fft.rfft2(x).abs(), atol=1e-4)
        True
    """
    height, width = images.shape[-2:]
    noise = torch.stack([torch.randn(height, width, generator=generator) for _ in images])
    theirs = torch.fft.rfft2(noise.to(images))[:, None]
    spectrum = torch.fft.rfft2(images)
    mixed = spectrum.abs() * (theirs / theirs.abs().clamp(min=1e-30))
    mixed[..., 0, 0] = spectrum[..., 0, 0]
    return torch.fft.irfft2(mixed, s=(height, width))


def mean_amplitude(pack: Pack, rows: np.ndarray, *, batch_size: int = 256) -> Tensor:
    """Average the amplitude of each frequency over some images.

    Args:
        pack: The images.
        rows: Which, at least one.
        batch_size: Images a transform.

    Returns:
        ``(3, H, W // 2 + 1)``, single precision, of an unnormalised ``rfft2``.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> mean_amplitude(packed, np.arange(24)).shape
        torch.Size([3, 16, 9])
    """
    total = sum(
        torch.fft.rfft2(images).abs().sum(dim=0, dtype=torch.float64)
        for images, _ in batches(pack, rows, batch_size=batch_size)
    )
    assert isinstance(total, Tensor)
    return (total / len(rows)).float()


def _floor(size: Tensor) -> Tensor:
    """Return what counts as no amplitude: rounding of the transform of this image."""
    return 1e-6 * size.amax(dim=(-2, -1), keepdim=True)
