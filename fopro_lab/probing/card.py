"""The card of a teacher on a data set: all that probing can say, in one call and one folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation import score
from fopro_lab.probing.basis import By
from fopro_lab.probing.card_files import TeacherCard
from fopro_lab.probing.class_bands import class_band_matrix
from fopro_lab.probing.drift_tables import drift_table
from fopro_lab.probing.features import Encoder, Precision, encode_rows
from fopro_lab.probing.heatmaps import basis_heat_map
from fopro_lab.probing.ladders import pass_ladder
from fopro_lab.probing.phases import phase_and_amplitude
from fopro_lab.probing.pictures import draw_per_class, draw_rows, resampling_units
from fopro_lab.probing.probe import LinearProbe
from fopro_lab.probing.readers import Reader, fit_probe, read_by_probe
from fopro_lab.probing.ring_checks import check_gains, check_rings
from fopro_lab.probing.rings import ring_drifts, summarise_drifts
from fopro_lab.probing.sources import source_fingerprint
from fopro_lab.probing.spectra import mean_spectra


def teacher_card(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    edges: Sequence[float],
    *,
    groups: Mapping[str, str],
    gains: Sequence[float] = (0.0, 0.5, 2.0, 4.0),
    band_gains: Sequence[float] = (0.0, 2.0),
    cutoffs: Sequence[float] = (0.0625, 0.125, 0.1875, 0.25, 0.375),
    student: Reader | None = None,
    heat_map: By | None = "blocks",
    heat_pictures: int = 32,
    heat_block: int = 7,
    pictures: int = 256,
    per_class: int = 0,
    per_channel: bool = False,
    precision: Precision = "32-true",
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    out: Path | str | None = None,
    progress: bool = True,
) -> TeacherCard:
    """Probe a teacher on a data set by every instrument.

    Args:
        teacher: The frozen network.
        pack: The pictures, with their data set.
        split: Train rows fit the probe and give spectra and fingerprint, validation rows the ring
            response, test rows all that reads classes.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        groups: "head", "medium" or "tail" for each class.
        gains: Of the ring response: non-negative factors of a ring's amplitudes; 0 removes it.
        band_gains: Of the class bands; each costs a pass over the test pictures a ring.
        cutoffs: Of the ladder, cycles per pixel.
        student: A trained student, see `read_by`, asked the same as the probe.
        heat_map: "rings", "blocks", "full", or None for no heat map.
        heat_pictures: About this many test pictures for it, of all classes alike.
        heat_block: Side of its blocks, bins, odd.
        pictures: At most this many validation pictures for the ring response, drawn by ``seed``.
        per_class: At most this many test pictures of a class; 0 is all.
        per_channel: Also scale red, green and blue one by one in the ring response.
        precision: As in `encode`.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples of every interval.
        seed: Seed of the drawn pictures and of the bootstraps.
        out: Folder in which a heat map keeps its parts, so that it goes on after a kill.
        progress: Say how far it is.

    Returns:
        The card.

    Raises:
        InputError: If gains, edges, groups or ``pictures`` are wrong.

    Example:
        >>> teacher_card(None, None, None, [0, 0.75], groups={}, pictures=0)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: pictures: expected 1 or more, got 0
    """
    if pictures < 1 or heat_pictures < 1:
        raise InputError(f"pictures: expected 1 or more, got {min(pictures, heat_pictures)}")
    check_gains(gains)
    check_rings(edges, height=pack.size, width=pack.size)
    drawn = draw_rows(split.val, count=pictures, seed=seed)
    images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
    units = resampling_units(pack.dataset.table, rows=drawn)
    passes: dict[str, Any] = {"precision": precision, "batch_size": batch_size}
    again: dict[str, Any] = {"resamples": resamples, "seed": seed}
    drifts = ring_drifts(teacher, images, edges, gains, **passes)
    response = [summarise_drifts(drifts, units, **again)]
    if per_channel:
        each = ring_drifts(teacher, images, edges, gains, per_channel=True, **passes)
        response.append(summarise_drifts(each, units, **again))
    probe = fit_probe(teacher, pack, split, **passes)
    readers = [read_by_probe(teacher, probe, precision=precision), *([student] if student else [])]
    asking: dict[str, Any] = {
        "groups": groups,
        "per_class": per_class,
        "batch_size": batch_size,
        "progress": progress,
        **again,
    }
    bands, ladder, phases = (
        pd.concat([ask(reader) for reader in readers], ignore_index=True)
        for ask in (
            lambda reader: class_band_matrix(
                reader, pack, split, edges, gains=band_gains, **asking
            ),
            lambda reader: pass_ladder(reader, pack, split, cutoffs, **asking),
            lambda reader: phase_and_amplitude(reader, pack, split, **asking),
        )
    )
    heat = pd.DataFrame()
    if heat_map is not None:
        rows = draw_per_class(
            split.test,
            pack.labels[split.test],
            per_class=max(1, heat_pictures // len(pack.dataset.class_names)),
            seed=seed,
        )
        heat = _heat_maps(
            teacher, probe, readers[1:], pack, rows, by=heat_map, edges=edges, block=heat_block,
            out=out, precision=precision, batch_size=batch_size, progress=progress, **again,
        )  # fmt: skip
    predictions = _predict_test(teacher, pack, split, probe, **passes)
    scores = score(predictions, groups, split.protocol, resamples=resamples, seed=seed)
    spectra = mean_spectra(pack, split.train, edges=edges)
    fingerprint = source_fingerprint(
        pack, split.train, edges=edges, permutations=20, resamples=resamples, seed=seed
    )
    summary = {
        "teacher": dict(teacher.card),
        "data": _describe_data(pack, split, groups),
        "probing": {
            "edges": [float(edge) for edge in edges],
            "gains": [float(gain) for gain in gains],
            "band_gains": [float(gain) for gain in band_gains],
            "cutoffs": [float(cutoff) for cutoff in cutoffs],
            "pictures": len(drawn),
            "per_class": per_class,
            "precision": precision,
            "rounding": drifts.rounding,
            "resamples": resamples,
            "seed": seed,
        },
        "probe": {
            "strength": probe.strength,
            "val_balanced_accuracy": probe.val_balanced_accuracy,
            "test_balanced_accuracy": _interval(scores, metric="balanced_accuracy"),
        },
        "readers": [reader.name for reader in readers],
        "largest_drift": _largest(response[0], by="drift"),
        "largest_drift_per_energy": _largest(response[0], by="drift_per_energy"),
    }
    return TeacherCard(
        summary,
        pd.concat(response, ignore_index=True),
        bands,
        scores,
        spectra,
        ladder,
        phases,
        heat,
        fingerprint,
        drift_table(drifts, pack.dataset.table.iloc[drawn]["image"].to_numpy(dtype=str), units),
    )


def _heat_maps(
    teacher: Encoder,
    probe: LinearProbe,
    students: Sequence[Reader],
    pack: Pack,
    rows: np.ndarray,
    *,
    out: Path | str | None,
    precision: Precision,
    **settings: Any,
) -> pd.DataFrame:
    """Map the teacher with its probe, then each student, on the same pictures."""
    images, labels = next(batches(pack, rows, batch_size=len(rows)))
    common = settings | {
        "labels": labels.numpy(),
        "units": resampling_units(pack.dataset.table, rows=rows),
    }
    parts = [None if out is None else Path(out) / name for name in ("probe", "student")]
    first = basis_heat_map(
        teacher, images, probe=probe, out=parts[0], precision=precision, **common
    )
    tables = [first.assign(reader="probe")]
    for student in students:
        table = basis_heat_map(student, images, out=parts[1], **common)
        tables.append(table.assign(reader=student.name))
    return pd.concat(tables, ignore_index=True)


def _describe_data(pack: Pack, split: Split, groups: Mapping[str, str]) -> dict[str, Any]:
    sources = pack.dataset.table["source"].iloc[split.train]
    return {
        "dataset": pack.dataset.name,
        "fingerprint": pack.dataset.fingerprint,
        "protocol": split.protocol,
        "split_fingerprint": split.fingerprint,
        "image_size": pack.size,
        "pictures": {name: len(getattr(split, name)) for name in ("train", "val", "test")},
        "groups": dict(groups),
        "sources": {str(k): int(n) for k, n in sources[sources != ""].value_counts().items()},
    }


def _predict_test(
    teacher: Encoder, pack: Pack, split: Split, probe: LinearProbe, **passes: Any
) -> pd.DataFrame:
    """Lay out the probe's logits of the test pictures as a table of predictions."""
    logits = probe.logits(encode_rows(teacher, pack, rows=split.test, **passes))
    table = pack.dataset.table.iloc[split.test].reset_index(drop=True)
    table = table[["image", "group", "source", "label"]].assign(split="test")
    columns = {f"logit_{name}": logits[:, k] for k, name in enumerate(pack.dataset.class_names)}
    return table.assign(**columns)


def _interval(scores: pd.DataFrame, *, metric: str) -> dict[str, float]:
    """Pick one overall number with its interval; a limit that there is not is left out."""
    row = scores[(scores["scope"] == "overall") & (scores["metric"] == metric)].iloc[0]
    return {key: float(row[key]) for key in ("value", "low", "high") if not np.isnan(row[key])}


def _largest(drifts: pd.DataFrame, *, by: str) -> dict[str, float]:
    """Pick the ring and gain with the largest value of a column, if there is any."""
    known = drifts.dropna(subset=[by])
    if known.empty:
        return {}
    row = known.loc[known[by].idxmax(), ["ring", "low", "high", "gain", by]]
    return {str(key): float(value) for key, value in row.items()}
