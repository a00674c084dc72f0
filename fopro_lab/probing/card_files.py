"""A teacher's card as tables in memory and files in a folder."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.files import atomic_path, write_json


@dataclass(frozen=True, eq=False)
class TeacherCard:
    """What a teacher does with the frequencies of a data set.

    Attributes:
        summary: Teacher, data, sizes, the probe and the headline numbers; plain JSON values.
        ring_response: Drift of the features ring by ring, on validation pictures.
        class_bands: Change of each class's recall ring by ring, on test pictures, by the probe
            and by a student if one was given.
        scores: The linear probe's verdict on untouched test pictures, as ``evaluation.score``.
        spectra: Mean spectra of classes and sources, on training pictures.
        ladder: Recall on low-pass and high-pass test pictures.
        phases: Recall on test pictures with their phases or amplitudes alone.
        heat_map: Fourier basis heat map on test pictures; empty if it was not asked for.
        fingerprint: How well each ring tells source and class, on training pictures.
        drifts: Each picture's answer behind ``ring_response``, for comparisons of teachers.

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
