"""The card of a teacher on a data set: all that probing can say, in one call and one folder."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from fopro_lab.config import ProbeConfig
from fopro_lab.data import Pack, Split, batches
from fopro_lab.data.readers import PARTS
from fopro_lab.errors import InputError
from fopro_lab.evaluation import score
from fopro_lab.fourier import ring_edges
from fopro_lab.io import atomic_path, read_json, regular, write_json
from fopro_lab.probing import features
from fopro_lab.probing.class_bands import class_band_matrix
from fopro_lab.probing.features import Classifier, Encoder
from fopro_lab.probing.heat_map import basis_heat_map
from fopro_lab.probing.ring_response import drift_table, mean_spectra, ring_drifts, summarise_drifts


@dataclass(frozen=True, eq=False)
class TeacherCard:
    """What a teacher does with the frequencies of a data set.

    Of training images come the spectra, of validation images the ring response,
    of test images all that names classes: by the linear probe, and by a student if one was given.
    """

    summary: dict[str, Any]  # teacher, data, sizes, probe, headline numbers; plain JSON values
    ring_response: pd.DataFrame
    class_bands: pd.DataFrame
    scores: pd.DataFrame  # of the linear probe on unchanged images, as of `evaluation.score`
    spectra: pd.DataFrame
    heat_map: pd.DataFrame  # empty if it was switched off
    drifts: pd.DataFrame  # of each image behind the ring response, for comparisons of teachers

    def write(self, folder: Path | str) -> None:
        """Write one parquet file per table and ``card.json``, each atomically, the card last."""
        for each in fields(self)[1:]:
            with atomic_path(Path(folder) / f"{each.name}.parquet") as temporary:
                getattr(self, each.name).to_parquet(temporary, index=False)
        write_json(Path(folder) / "card.json", self.summary)

    @classmethod
    def read(cls, folder: Path | str) -> "TeacherCard":
        """Read a card that `write` wrote, of version 0.1, too; an `InputError` of other files."""
        path = Path(folder)
        if not (path / "card.json").is_file():
            raise InputError(f"{folder}: expected a card of `fopro probe`, found no card.json")
        try:
            summary = read_json(path / "card.json")
            files = [regular(path / f"{each.name}.parquet") for each in fields(cls)[1:]]
            tables = [pd.read_parquet(file) for file in files]
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{folder}: not a whole card of `fopro probe` ({reason})") from error
        # 0.1 called a classifier a reader, and could scale red, green and blue one by one.
        tables = [table.rename(columns={"reader": "classifier"}) for table in tables]
        for place, table in enumerate(tables):
            if "channel" in table:
                tables[place] = table[table["channel"] == "all"].drop(columns="channel")
        return cls(summary, *tables)

    def findings(self) -> list[str]:
        """Say in a few sentences what was found, computed from the tables."""
        found = []
        for key, unit in (("drift", ""), ("drift_per_energy", " for the energy changed,")):
            if most := self.summary[f"largest_{key}"]:
                ring = f"{most['low']:.3g} to {min(most['high'], 0.5**0.5):.3g} cycles per pixel"
                found.append(f"Features move most{unit} at {ring} (gain {most['gain']:g}).")
        accuracy = self.summary["probe"]["test_balanced_accuracy"]
        if "low" in accuracy:
            value, low, high = (100 * accuracy[name] for name in ("value", "low", "high"))
            found.append(
                f"A linear probe reaches a balanced accuracy of {value:.1f} % "
                f"({low:.1f} to {high:.1f} %) on unchanged test images."
            )
        classes = self.class_bands.query("scope == 'class'")
        for classifier, own in classes.groupby("classifier", sort=False):
            clear = ((own["change_low"] > 0) | (own["change_high"] < 0)).sum()
            cells = own["cells"].max()
            found.append(
                f"Of {cells} class x band cells of the {classifier}, {clear} have a 95 % interval "
                f"without zero (about {0.05 * cells:.0f} would by chance) and "
                f"{own['survives'].sum()} survive Holm's correction."
            )
        return found


def teacher_card(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    config: ProbeConfig,
    *,
    groups: Mapping[str, str],
    student: Classifier | None = None,
) -> TeacherCard:
    """Probe a teacher on a data set by every instrument; teacher and data are not the config's.

    Training rows of ``split`` also fit the linear probe; ``groups`` are "head", "medium" or "tail"
    for each class; a trained ``student`` stands beside the probe, see `wrap_classifier`.
    """
    edges = ring_edges(config.rings)
    again: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
    drawn = features.draw_rows(split.val, count=config.probe_images, seed=config.seed)
    images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
    units = features.resampling_units(pack.dataset.table, rows=drawn)
    drifts = ring_drifts(teacher, images, edges, config.gains)
    response = summarise_drifts(drifts, units, **again)
    names = pack.dataset.table["image"].iloc[drawn].to_numpy(dtype=str)
    probe = features.fit_classifier(teacher, pack, split)
    classifiers = [features.probe_classifier(teacher, probe)]
    classifiers += [student] if student else []
    changed: dict[str, Any] = {"groups": groups, "per_class": config.band_images, **again}
    changed |= {"gains": config.band_gains}
    bands = [class_band_matrix(each, pack, split, edges, **changed) for each in classifiers]
    logits = probe.logits(features.encode_rows(teacher, pack, rows=split.test))
    columns = {f"logit_{name}": logits[:, k] for k, name in enumerate(pack.dataset.class_names)}
    tested = pack.dataset.table.iloc[split.test][["image", "group", "source", "label"]]
    tested = tested.reset_index(drop=True).assign(split="test", **columns)
    scores = score(tested, groups, split.protocol, **again)
    accuracy = scores.query("scope == 'overall' and metric == 'balanced_accuracy'").iloc[0]
    chosen = {"gains", "band_gains", "resamples", "seed"}
    sources = pack.dataset.table["source"].iloc[split.train]
    data: dict[str, Any] = {"dataset": pack.dataset.name, "fingerprint": pack.dataset.fingerprint}
    data |= {"protocol": split.protocol, "split_fingerprint": split.fingerprint}
    data |= {"image_size": pack.size, "images": {part: len(getattr(split, part)) for part in PARTS}}
    counts = sources[sources != ""].value_counts()
    data |= {"groups": dict(groups), "sources": {str(k): int(n) for k, n in counts.items()}}
    probing = {"edges": edges, **config.model_dump(mode="json", include=chosen)}
    probing |= {"images": int(response["n"].iloc[0]), "per_class": config.band_images}
    fitted: dict[str, Any] = {"strength": probe.strength}
    fitted["val_balanced_accuracy"] = probe.val_balanced_accuracy
    fitted["test_balanced_accuracy"] = _known(accuracy[["value", "low", "high"]])
    summary = {
        "teacher": dict(teacher.card),
        "data": data,
        "probing": probing,
        "probe": fitted,
        "classifiers": [classifier.name for classifier in classifiers],
        "largest_drift": _largest(response, by="drift"),
        "largest_drift_per_energy": _largest(response, by="drift_per_energy"),
    }
    return TeacherCard(
        summary=summary,
        ring_response=response,
        class_bands=pd.concat(bands, ignore_index=True),
        scores=scores,
        spectra=mean_spectra(pack, split.train, edges=edges),
        heat_map=_measure_waves(teacher, probe, student, pack, split, config),
        drifts=drift_table(drifts, names, units),
    )


def _measure_waves(
    teacher: Encoder,
    probe: features.LinearProbe,
    student: Classifier | None,
    pack: Pack,
    split: Split,
    config: ProbeConfig,
) -> pd.DataFrame:
    """Measure what single waves do to a few test images, by the probe and by the student."""
    if config.heat_map == "off":
        return pd.DataFrame()
    few = max(1, config.heat_images // len(pack.dataset.class_names))
    tested = (split.test, pack.labels[split.test])
    rows = features.draw_per_class(*tested, per_class=few, seed=config.seed)
    images, labels = next(batches(pack, rows, batch_size=len(rows)))
    units = features.resampling_units(pack.dataset.table, rows=rows)
    how: dict[str, Any] = {"block": 7 if config.heat_map == "blocks" else 1, "units": units}
    how |= {"labels": labels.numpy(), "resamples": config.resamples, "seed": config.seed}
    maps = [basis_heat_map(teacher, images, probe=probe, **how).assign(classifier="probe")]
    if student:
        maps.append(basis_heat_map(student, images, **how).assign(classifier=student.name))
    return pd.concat(maps, ignore_index=True)


def _known(row: pd.Series) -> dict[str, float]:
    """Turn numbers into plain ones by their names, without those that are NaN."""
    return {str(key): float(value) for key, value in row.items() if pd.notna(value)}


def _largest(drifts: pd.DataFrame, *, by: str) -> dict[str, float]:
    """Pick the ring and gain with the largest value of a column, if there is any."""
    known = drifts.dropna(subset=[by]).nlargest(1, by)
    return {} if known.empty else _known(known.iloc[0][["ring", "low", "high", "gain", by]])
