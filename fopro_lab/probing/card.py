"""The card of a teacher on a data set: all that probing can say, in one call and one folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation import score
from fopro_lab.files import atomic_path, write_json
from fopro_lab.probing.class_bands import class_band_matrix, fit_probe, resampling_units
from fopro_lab.probing.features import Encoder, encode_rows
from fopro_lab.probing.probe import LinearProbe
from fopro_lab.probing.rings import ring_response
from fopro_lab.probing.spectra import mean_spectra


@dataclass(frozen=True, eq=False)
class TeacherCard:
    """What a teacher does with the frequencies of a data set.

    Attributes:
        summary: Teacher, data, sizes, the probe and the headline numbers; plain JSON values.
        ring_response: Drift of the features ring by ring, on validation pictures.
        class_bands: Change of each class's recall ring by ring, on test pictures.
        scores: The linear probe's verdict on untouched test pictures, as ``evaluation.score``.
        spectra: Mean spectra of classes and sources, on training pictures.

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

    def write(self, folder: Path | str) -> None:
        """Write ``card.json`` and one parquet file a table, each atomically, the card last."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, pd.DataFrame):
                with atomic_path(Path(folder) / f"{field.name}.parquet") as temporary:
                    value.to_parquet(temporary, index=False)
        write_json(Path(folder) / "card.json", self.summary)


def teacher_card(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    edges: Sequence[float],
    *,
    groups: Mapping[str, str],
    gains: Sequence[float] = (0.0, 2.0),
    pictures: int = 256,
    batch_size: int = 64,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> TeacherCard:
    """Probe a teacher on a data set: ring response, class bands, probe scores and spectra.

    Args:
        teacher: The frozen network.
        pack: The pictures, with their data set.
        split: Train rows fit the probe, validation rows give the ring response, test rows the
            scores and the class bands.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        groups: "head", "medium" or "tail" for each class.
        gains: Non-negative factors of a ring's amplitudes; 0 removes it.
        pictures: At most this many validation pictures for the ring response, drawn by ``seed``.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples of every interval.
        seed: Seed of the drawn pictures and of the bootstraps.
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
    if pictures < 1:
        raise InputError(f"pictures: expected 1 or more, got {pictures}")
    count = min(pictures, len(split.val))
    drawn = np.sort(np.random.default_rng(seed).choice(split.val, count, replace=False))
    images, _ = next(batches(pack, drawn, batch_size=count))
    again = {"batch_size": batch_size, "resamples": resamples, "seed": seed}
    units = resampling_units(pack.dataset.table, rows=drawn)
    drifts = ring_response(teacher, images, edges, gains, units=units, **again)
    probe = fit_probe(teacher, pack, split, batch_size=batch_size)
    bands = class_band_matrix(
        teacher,
        pack,
        split,
        edges,
        groups=groups,
        gains=gains,
        probe=probe,
        progress=progress,
        **again,
    )
    predictions = _predict_test(teacher, pack, split, probe, batch_size=batch_size)
    scores = score(predictions, groups, split.protocol, resamples=resamples, seed=seed)
    spectra = mean_spectra(pack, split.train, edges=edges)
    summary = {
        "teacher": dict(teacher.card),
        "data": _describe_data(pack, split, groups),
        "probing": {
            "edges": [float(edge) for edge in edges],
            "gains": [float(gain) for gain in gains],
            "pictures": count,
            "resamples": resamples,
            "seed": seed,
        },
        "probe": {
            "strength": probe.strength,
            "val_balanced_accuracy": probe.val_balanced_accuracy,
            "test_balanced_accuracy": _interval(scores, metric="balanced_accuracy"),
        },
        "largest_drift": _largest(drifts, by="drift"),
        "largest_drift_per_energy": _largest(drifts, by="drift_per_energy"),
    }
    return TeacherCard(summary, drifts, bands, scores, spectra)


def _describe_data(pack: Pack, split: Split, groups: Mapping[str, str]) -> dict[str, Any]:
    return {
        "dataset": pack.dataset.name,
        "fingerprint": pack.dataset.fingerprint,
        "protocol": split.protocol,
        "split_fingerprint": split.fingerprint,
        "image_size": pack.size,
        "pictures": {name: len(getattr(split, name)) for name in ("train", "val", "test")},
        "groups": dict(groups),
    }


def _predict_test(
    teacher: Encoder, pack: Pack, split: Split, probe: LinearProbe, *, batch_size: int
) -> pd.DataFrame:
    """Lay out the probe's logits of the test pictures as a table of predictions."""
    logits = probe.logits(encode_rows(teacher, pack, rows=split.test, batch_size=batch_size))
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
