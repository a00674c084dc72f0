"""The card of a teacher on a data set: all that probing can say, in one call and one folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.config import ProbeConfig
from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation import score
from fopro_lab.fourier import ring_edges
from fopro_lab.io import atomic_path, write_json
from fopro_lab.probing.class_bands import class_band_matrix, pass_ladder, phase_and_amplitude
from fopro_lab.probing.features import (
    Encoder,
    LinearProbe,
    Reader,
    draw_per_class,
    draw_rows,
    encode_rows,
    fit_probe,
    read_by_probe,
    resampling_units,
)
from fopro_lab.probing.heat_map import basis_heat_map
from fopro_lab.probing.ring_response import (
    RingDrifts,
    check_rings,
    drift_table,
    ring_drifts,
    summarise_drifts,
)
from fopro_lab.probing.spectra import mean_spectra, source_fingerprint


@dataclass(frozen=True, eq=False)
class TeacherCard:
    """What a teacher does with the frequencies of a data set.

    Attributes:
        summary: Teacher, data, sizes, the probe and the headline numbers; plain JSON values.
        ring_response: Drift of the features ring by ring, on validation images.
        class_bands: Change of each class's recall ring by ring, on test images, by the probe
            and by a student if one was given.
        scores: The linear probe's verdict on untouched test images, as ``evaluation.score``.
        spectra: Mean spectra of classes and sources, on training images.
        ladder: Recall on low-pass and high-pass test images.
        phases: Recall on test images with their phases or amplitudes alone.
        heat_map: Fourier basis heat map on test images; empty if it was not asked for.
        fingerprint: How well each ring tells source and class, on training images.
        drifts: Each image's answer behind ``ring_response``, for comparisons of teachers.

    Example:
        >>> empty = pd.DataFrame({"ring": [0]})
        >>> TeacherCard({"teacher": {}}, empty, empty, empty, empty).summary
        {'teacher': {}}
    """

    summary: dict[str, Any]
    ring_response: pd.DataFrame
    class_bands: pd.DataFrame
    scores: pd.DataFrame
    spectra: pd.DataFrame
    ladder: pd.DataFrame = field(default_factory=pd.DataFrame)
    phases: pd.DataFrame = field(default_factory=pd.DataFrame)
    heat_map: pd.DataFrame = field(default_factory=pd.DataFrame)
    fingerprint: pd.DataFrame = field(default_factory=pd.DataFrame)
    drifts: pd.DataFrame = field(default_factory=pd.DataFrame)

    def write(self, folder: Path | str) -> None:
        """Write ``card.json`` and one parquet file a table, each atomically, the card last."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, pd.DataFrame):
                with atomic_path(Path(folder) / f"{each.name}.parquet") as temporary:
                    value.to_parquet(temporary, index=False)
        write_json(Path(folder) / "card.json", self.summary)

    @classmethod
    def read(cls, folder: Path | str) -> "TeacherCard":
        """Read a card that `write` wrote.

        Raises:
            InputError: If a file is missing or no card.

        Example:
            >>> TeacherCard.read("nowhere")
            Traceback (most recent call last):
            fopro_lab.errors.InputError: nowhere: expected a card of `fopro probe`, found no
            card.json
        """
        path = Path(folder)
        if not (path / "card.json").is_file():
            raise InputError(f"{folder}: expected a card of `fopro probe`, found no card.json")
        try:
            summary = json.loads((path / "card.json").read_text(encoding="utf-8"))
            tables = {
                each.name: pd.read_parquet(path / f"{each.name}.parquet")
                for each in fields(cls)
                if each.name != "summary"
            }
        except (OSError, ValueError) as error:
            told = str(error).splitlines()[0]
            raise InputError(f"{folder}: not a whole card of `fopro probe` ({told})") from error
        return cls(summary, **tables)


def teacher_card(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    config: ProbeConfig,
    *,
    groups: Mapping[str, str],
    student: Reader | None = None,
    out: Path | str | None = None,
    progress: bool = True,
) -> TeacherCard:
    """Probe a teacher on a data set by every instrument.

    Args:
        teacher: The frozen network.
        pack: The images, with their data set.
        split: Train rows fit the probe and give spectra and fingerprint, validation rows the ring
            response, test rows all that reads classes.
        config: Rings, gains, numbers of images and seeds; teacher and data are those given.
        groups: "head", "medium" or "tail" for each class.
        student: A trained student, see `read_by`, asked the same as the probe.
        out: Folder in which a heat map keeps its parts, so that it goes on after a kill.
        progress: Say how far it is.

    Returns:
        The card.

    Raises:
        InputError: If a ring holds no frequency at this size, or the groups do not fit.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.evaluation import groups_from
        >>> from fopro_lab.models import load_teacher
        >>> packed = pack(open_dataset("phantom", images=160), 16, progress=False)
        >>> split, config = make_split(packed.dataset), ProbeConfig(
        ...     rings=2, gains=[0], band_gains=[0], cutoffs=[0.25], heat_map="off", resamples=20)
        >>> names, counts = packed.dataset.class_names, split.class_counts(packed.dataset)
        >>> groups = groups_from(config, names, counts)
        >>> card = teacher_card(
        ...     load_teacher("builtin"), packed, split, config, groups=groups, progress=False)
        >>> card.ring_response["ring"].tolist()
        [0, 1, 2]
    """
    edges = ring_edges(config.rings)
    check_rings(edges, height=pack.size, width=pack.size)
    passes: dict[str, Any] = {"precision": config.precision, "batch_size": config.probe_batch}
    drifts, response, drawn = _ask_rings(teacher, pack, split, config, edges, passes)
    units = resampling_units(pack.dataset.table, rows=drawn)
    probe = fit_probe(teacher, pack, split, **passes)
    readers = [
        read_by_probe(teacher, probe, precision=config.precision),
        *([student] if student else []),
    ]
    bands, ladder, phases = _ask_readers(
        readers, pack, split, config, edges, groups=groups, progress=progress
    )
    heat = _heat_maps(
        teacher, probe, readers[1:], pack, split, config, edges, out=out, progress=progress
    )
    predictions = _predict_test(teacher, pack, split, probe, **passes)
    again: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
    scores = score(predictions, groups, split.protocol, **again)
    summary = {
        "teacher": dict(teacher.card),
        "data": _describe_data(pack, split, groups),
        "probing": _describe_probing(config, edges, images=len(drawn), rounding=drifts.rounding),
        "probe": {
            "strength": probe.strength,
            "val_balanced_accuracy": probe.val_balanced_accuracy,
            "test_balanced_accuracy": _interval(scores, metric="balanced_accuracy"),
        },
        "readers": [reader.name for reader in readers],
        "largest_drift": _largest(response, by="drift"),
        "largest_drift_per_energy": _largest(response, by="drift_per_energy"),
    }
    return TeacherCard(
        summary,
        response,
        bands,
        scores,
        mean_spectra(pack, split.train, edges=edges),
        ladder,
        phases,
        heat,
        source_fingerprint(pack, split.train, edges=edges, permutations=20, **again),
        drift_table(drifts, pack.dataset.table.iloc[drawn]["image"].to_numpy(dtype=str), units),
    )


def _ask_rings(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    config: ProbeConfig,
    edges: Sequence[float],
    passes: Mapping[str, Any],
) -> tuple[RingDrifts, pd.DataFrame, np.ndarray]:
    """Ask for the ring response: single drifts, their table, and the rows that were asked."""
    drawn = draw_rows(split.val, count=config.probe_images, seed=config.seed)
    images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
    units = resampling_units(pack.dataset.table, rows=drawn)
    drifts = ring_drifts(teacher, images, edges, config.gains, **passes)
    asked = [drifts]
    if config.per_channel:
        asked.append(ring_drifts(teacher, images, edges, config.gains, per_channel=True, **passes))
    tables = [
        summarise_drifts(each, units, resamples=config.resamples, seed=config.seed)
        for each in asked
    ]
    return drifts, pd.concat(tables, ignore_index=True), drawn


def _ask_readers(
    readers: Sequence[Reader],
    pack: Pack,
    split: Split,
    config: ProbeConfig,
    edges: Sequence[float],
    *,
    groups: Mapping[str, str],
    progress: bool,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ask whoever reads classes: by rings, by the ladder, by phase and amplitude."""
    asking: dict[str, Any] = {
        "groups": groups,
        "per_class": config.band_images,
        "batch_size": config.probe_batch,
        "progress": progress,
        "resamples": config.resamples,
        "seed": config.seed,
    }
    bands, ladders, phases = [], [], []
    for reader in readers:
        bands.append(
            class_band_matrix(reader, pack, split, edges, gains=config.band_gains, **asking)
        )
        ladders.append(pass_ladder(reader, pack, split, config.cutoffs, **asking))
        phases.append(phase_and_amplitude(reader, pack, split, **asking))
    together = [pd.concat(tables, ignore_index=True) for tables in (bands, ladders, phases)]
    return together[0], together[1], together[2]


def _heat_maps(
    teacher: Encoder,
    probe: LinearProbe,
    students: Sequence[Reader],
    pack: Pack,
    split: Split,
    config: ProbeConfig,
    edges: Sequence[float],
    *,
    out: Path | str | None,
    progress: bool,
) -> pd.DataFrame:
    """Map the teacher with its probe, then each student, on the same images."""
    if config.heat_map == "off":
        return pd.DataFrame()
    rows = draw_per_class(
        split.test,
        pack.labels[split.test],
        per_class=max(1, config.heat_images // len(pack.dataset.class_names)),
        seed=config.seed,
    )
    images, labels = next(batches(pack, rows, batch_size=len(rows)))
    common: dict[str, Any] = {
        "labels": labels.numpy(),
        "units": resampling_units(pack.dataset.table, rows=rows),
        "by": config.heat_map,
        "edges": edges,
        "block": config.heat_block,
        "batch_size": config.probe_batch,
        "resamples": config.resamples,
        "seed": config.seed,
        "progress": progress,
    }
    parts = [None if out is None else Path(out) / name for name in ("probe", "student")]
    first = basis_heat_map(
        teacher, images, probe=probe, out=parts[0], precision=config.precision, **common
    )
    tables = [first.assign(reader="probe")]
    for student in students:
        table = basis_heat_map(student, images, out=parts[1], **common)
        tables.append(table.assign(reader=student.name))
    return pd.concat(tables, ignore_index=True)


def _describe_probing(
    config: ProbeConfig, edges: Sequence[float], *, images: int, rounding: float
) -> dict[str, Any]:
    return {
        "edges": list(map(float, edges)),
        "gains": list(map(float, config.gains)),
        "band_gains": list(map(float, config.band_gains)),
        "cutoffs": list(map(float, config.cutoffs)),
        "images": images,
        "per_class": config.band_images,
        "precision": config.precision,
        "rounding": rounding,
        "resamples": config.resamples,
        "seed": config.seed,
    }


def _describe_data(pack: Pack, split: Split, groups: Mapping[str, str]) -> dict[str, Any]:
    sources = pack.dataset.table["source"].iloc[split.train]
    return {
        "dataset": pack.dataset.name,
        "fingerprint": pack.dataset.fingerprint,
        "protocol": split.protocol,
        "split_fingerprint": split.fingerprint,
        "image_size": pack.size,
        "images": {name: len(getattr(split, name)) for name in ("train", "val", "test")},
        "groups": dict(groups),
        "sources": {str(k): int(n) for k, n in sources[sources != ""].value_counts().items()},
    }


def _predict_test(
    teacher: Encoder, pack: Pack, split: Split, probe: LinearProbe, **passes: Any
) -> pd.DataFrame:
    """Lay out the probe's logits of the test images as a table of predictions."""
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
