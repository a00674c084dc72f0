"""The card of a teacher on a data set: all that probing can say, in one call and one folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
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
    Classifier,
    Encoder,
    LinearProbe,
    draw_per_class,
    draw_rows,
    encode_rows,
    fit_classifier,
    probe_classifier,
    resampling_units,
)
from fopro_lab.probing.heat_map import basis_heat_map
from fopro_lab.probing.ring_response import (
    check_rings,
    drift_table,
    ring_drifts,
    summarise_drifts,
)
from fopro_lab.probing.spectra import mean_spectra, source_fingerprint

PROBING = {"gains", "band_gains", "cutoffs", "precision", "resamples", "seed"}


@dataclass(frozen=True, eq=False)
class TeacherCard:
    """What a teacher does with the frequencies of a data set.

    Of training images come the spectra and the fingerprint, of validation images the ring response,
    of test images all that names classes: by the linear probe, and by a student if one was given.
    """

    summary: dict[str, Any]  # teacher, data, sizes, probe, headline numbers; plain JSON values
    ring_response: pd.DataFrame
    class_bands: pd.DataFrame
    scores: pd.DataFrame  # of the linear probe on unchanged images, as of `evaluation.score`
    spectra: pd.DataFrame
    ladder: pd.DataFrame
    phases: pd.DataFrame
    heat_map: pd.DataFrame  # empty if it was switched off
    fingerprint: pd.DataFrame
    drifts: pd.DataFrame  # of each image behind the ring response, for comparisons of teachers

    def write(self, folder: Path | str) -> None:
        """Write one parquet file per table and ``card.json``, each atomically, the card last."""
        for each in fields(self)[1:]:
            with atomic_path(Path(folder) / f"{each.name}.parquet") as temporary:
                getattr(self, each.name).to_parquet(temporary, index=False)
        write_json(Path(folder) / "card.json", self.summary)

    @classmethod
    def read(cls, folder: Path | str) -> "TeacherCard":
        """Read a card that `write` wrote, of version 0.1, too.

        Raises:
            InputError: If a file is missing or no card.
        """
        path = Path(folder)
        if not (path / "card.json").is_file():
            raise InputError(f"{folder}: expected a card of `fopro probe`, found no card.json")
        try:
            summary = json.loads((path / "card.json").read_text(encoding="utf-8"))
            tables = [pd.read_parquet(path / f"{each.name}.parquet") for each in fields(cls)[1:]]
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{folder}: not a whole card of `fopro probe` ({reason})") from error
        # 0.1 called a classifier a reader.
        return cls(summary, *(table.rename(columns={"reader": "classifier"}) for table in tables))

    def findings(self) -> list[str]:
        """Say in a few sentences what was found, computed from the tables."""
        found = []
        for key, unit in (("drift", "as it is"), ("drift_per_energy", "for the energy changed")):
            most = self.summary[f"largest_{key}"]
            if most:
                found.append(
                    f"Features move most, {unit}, at {most['low']:.3g} to {most['high']:.3g} "
                    f"cycles per pixel (gain {most['gain']:g})."
                )
        accuracy = self.summary["probe"]["test_balanced_accuracy"]
        if "low" in accuracy:
            found.append(
                f"A linear probe reaches a balanced accuracy of {accuracy['value']:.3f} "
                f"({accuracy['low']:.3f} to {accuracy['high']:.3f}) on unchanged test images."
            )
        for classifier, own in self.class_bands.groupby("classifier", sort=False):
            classes = own[own["scope"] == "class"]
            clear = (classes["change_low"] > 0) | (classes["change_high"] < 0)
            cells = int(classes["cells"].max())
            found.append(
                f"Of {cells} class x band cells of the {classifier}, {int(clear.sum())} have a "
                f"95 % interval without zero (about {0.05 * cells:.0f} would by chance) and "
                f"{int(classes['survives'].sum())} survive Holm's correction."
            )
        return [*found, _fingerprint_finding(self.fingerprint)]


def _fingerprint_finding(table: pd.DataFrame) -> str:
    if table.empty or "source" not in set(table["target"]):
        return "No two sources are known, so a scanner's signature cannot be told from a class."
    single = table[table["ring"] >= 0]
    source = single.query("target == 'source' and within == 'all'")
    row = source.loc[source["accuracy"].idxmax()]
    sentence = (
        f"The source shows most at {row['low']:.3g} to {row['high']:.3g} cycles per pixel: "
        f"balanced accuracy {row['accuracy']:.2f} "
        f"({row['accuracy_low']:.2f} to {row['accuracy_high']:.2f}), chance {row['chance']:.2f}."
    )
    rings = [
        set(single.query("target == 'class' and within == @part and accuracy > permuted_high").ring)
        for part in ("all", "each source")
    ]
    if "each source" in set(single["within"]):
        sentence += (
            f" Of {len(rings[0])} rings that tell the class over all sources, "
            f"{len(rings[0] - rings[1])} no longer do so within them."
        )
    return sentence


def teacher_card(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    config: ProbeConfig,
    *,
    groups: Mapping[str, str],
    student: Classifier | None = None,
    progress: bool = True,
) -> TeacherCard:
    """Probe a teacher on a data set by every instrument.

    Args:
        teacher: The frozen network.
        pack: The images, with their data set.
        split: Its training rows also fit the linear probe.
        config: Rings, gains, numbers of images and seeds; teacher and data are those given.
        groups: "head", "medium" or "tail" for each class.
        student: A trained student beside the probe; see `wrap_classifier`.
        progress: Whether to show progress.
    """
    edges = ring_edges(config.rings)
    check_rings(edges, height=pack.size, width=pack.size)
    again: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
    passes: dict[str, Any] = {"precision": config.precision, "batch_size": config.probe_batch}

    drawn = draw_rows(split.val, count=config.probe_images, seed=config.seed)
    images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
    names = pack.dataset.table["image"].iloc[drawn].to_numpy(dtype=str)
    units = resampling_units(pack.dataset.table, rows=drawn)
    drifts = ring_drifts(teacher, images, edges, config.gains, **passes)
    measured = [drifts]
    if config.per_channel:
        each = ring_drifts(teacher, images, edges, config.gains, per_channel=True, **passes)
        measured.append(each)
    response = _joined([summarise_drifts(each, units, **again) for each in measured])

    probe = fit_classifier(teacher, pack, split, **passes)
    classifiers = [probe_classifier(teacher, probe, precision=config.precision)]
    if student is not None:
        classifiers.append(student)
    common: dict[str, Any] = {"groups": groups, "per_class": config.band_images, **again}
    common |= {"batch_size": config.probe_batch, "progress": progress}
    bands, ladders, phases = [], [], []
    for classifier in classifiers:
        given = (classifier, pack, split)
        bands.append(class_band_matrix(*given, edges, gains=config.band_gains, **common))
        ladders.append(pass_ladder(*given, config.cutoffs, **common))
        phases.append(phase_and_amplitude(*given, **common))
    scores = score(
        _test_predictions(teacher, pack, split, probe, passes), groups, split.protocol, **again
    )
    summary = {
        "teacher": dict(teacher.card),
        "data": _describe_data(pack, split, groups),
        "probing": {
            "edges": edges,
            **config.model_dump(mode="json", include=PROBING),
            "images": len(drawn),
            "per_class": config.band_images,
            "rounding": drifts.rounding,
        },
        "probe": {
            "strength": probe.strength,
            "val_balanced_accuracy": probe.val_balanced_accuracy,
            "test_balanced_accuracy": _interval(scores, metric="balanced_accuracy"),
        },
        "classifiers": [classifier.name for classifier in classifiers],
        "largest_drift": _largest(response, by="drift"),
        "largest_drift_per_energy": _largest(response, by="drift_per_energy"),
    }
    heat_map = _heat_maps(teacher, probe, classifiers[1:], pack, split, config, progress=progress)
    return TeacherCard(
        summary=summary,
        ring_response=response,
        class_bands=_joined(bands),
        scores=scores,
        spectra=mean_spectra(pack, split.train, edges=edges),
        ladder=_joined(ladders),
        phases=_joined(phases),
        heat_map=heat_map,
        fingerprint=source_fingerprint(pack, split.train, edges=edges, permutations=20, **again),
        drifts=drift_table(drifts, names, units),
    )


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def _heat_maps(
    teacher: Encoder,
    probe: LinearProbe,
    students: list[Classifier],
    pack: Pack,
    split: Split,
    config: ProbeConfig,
    *,
    progress: bool,
) -> pd.DataFrame:
    """Map the teacher with its probe, then each student, on the same images."""
    if config.heat_map == "off":
        return pd.DataFrame()
    per_class = max(1, config.heat_images // len(pack.dataset.class_names))
    rows = draw_per_class(
        split.test, pack.labels[split.test], per_class=per_class, seed=config.seed
    )
    images, labels = next(batches(pack, rows, batch_size=len(rows)))
    common: dict[str, Any] = {
        "labels": labels.numpy(),
        "units": resampling_units(pack.dataset.table, rows=rows),
        "by": config.heat_map,
        "edges": ring_edges(config.rings),
        "block": config.heat_block,
        "batch_size": config.probe_batch,
        "resamples": config.resamples,
        "seed": config.seed,
        "progress": progress,
    }
    first = basis_heat_map(teacher, images, probe=probe, precision=config.precision, **common)
    others = (
        basis_heat_map(each, images, **common).assign(classifier=each.name) for each in students
    )
    return _joined([first.assign(classifier="probe"), *others])


def _test_predictions(
    teacher: Encoder, pack: Pack, split: Split, probe: LinearProbe, passes: dict[str, Any]
) -> pd.DataFrame:
    """Lay out the probe's logits of the test images as a table of predictions."""
    logits = probe.logits(encode_rows(teacher, pack, rows=split.test, **passes))
    table = pack.dataset.table.iloc[split.test].reset_index(drop=True)
    table = table[["image", "group", "source", "label"]].assign(split="test")
    columns = {f"logit_{name}": logits[:, k] for k, name in enumerate(pack.dataset.class_names)}
    return table.assign(**columns)


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


def _interval(scores: pd.DataFrame, *, metric: str) -> dict[str, float]:
    """Pick one overall number with its interval; an unknown limit is left out."""
    row = scores[(scores["scope"] == "overall") & (scores["metric"] == metric)].iloc[0]
    return {key: float(row[key]) for key in ("value", "low", "high") if not np.isnan(row[key])}


def _largest(drifts: pd.DataFrame, *, by: str) -> dict[str, float]:
    """Pick the ring and gain with the largest value of a column, if there is any."""
    known = drifts.dropna(subset=[by])
    if known.empty:
        return {}
    row = known.loc[known[by].idxmax(), ["ring", "low", "high", "gain", by]]
    return {str(key): float(value) for key, value in row.items()}
