"""Several teacher cards side by side: shapes of the ring responses, class bands, distances."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError
from fopro_lab.probing.card_files import TeacherCard
from fopro_lab.probing.drift_tables import drifts_from_table
from fopro_lab.probing.preferences import preference_distances, relative_responses
from fopro_lab.probing.rings import RingDrifts

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several cards say together.

    Attributes:
        teachers: A row a teacher: name, input, width, the probe's balanced accuracy, and the ring
            that moves it most for the energy.
        responses: A row a teacher, gain and ring: ``drift`` and ``drift_per_energy`` as in the
            cards, and ``relative`` with its interval: per energy, relative to the teacher's own
            geometric mean over the rings.
        bands: The class bands read by the probes.
        distances: Of ``preference_distances``; empty where the pictures are not the same.
        note: Why there are none; else empty.
    """

    teachers: pd.DataFrame
    responses: pd.DataFrame
    bands: pd.DataFrame
    distances: pd.DataFrame
    note: str


def compare_cards(cards: Mapping[str, TeacherCard], *, seed: int = 0) -> Comparison:
    """Bring cards together that asked the same.

    Args:
        cards: Two or more, by the name of the teacher.
        seed: Of resamples, halves and permutations.

    Returns:
        The comparison.

    Raises:
        InputError: If there are fewer than two, or rings or gains differ.

    Example:
        >>> compare_cards({})
        Traceback (most recent call last):
        fopro_lab.errors.InputError: cards: expected two or more, got 0
    """
    if len(cards) < 2:
        raise InputError(f"cards: expected two or more, got {len(cards)}")
    for key in ("edges", "gains"):
        found = {name: card.summary["probing"][key] for name, card in cards.items()}
        if len({tuple(value) for value in found.values()}) > 1:
            raise InputError(f"cards: expected the same {key}, got {found}")
    measured = {name: _drifts(card) for name, card in cards.items()}
    asked = {
        (
            card.summary["data"]["fingerprint"],
            card.summary["data"]["image_size"],
            *measured[name][1],
        )
        for name, card in cards.items()
    }
    distances, note = pd.DataFrame(), ""
    first = next(iter(measured.values()))
    if len(asked) > 1:
        note = "The cards were made of other pictures, so no distance between them is given."
    elif len(set(first[2])) < 4:
        note = "There are fewer than four lesions, so no distance is given."
    else:
        drifts = {name: found for name, (found, _, _) in measured.items()}
        distances = preference_distances(drifts, first[2], seed=seed)
    responses = pd.concat(
        [
            _relative(card, measured[name][0], measured[name][2], seed=seed).assign(teacher=name)
            for name, card in cards.items()
        ],
        ignore_index=True,
    )
    bands = pd.concat(
        [card.class_bands.query("reader == 'probe'").assign(teacher=name)
         for name, card in cards.items()], ignore_index=True,
    )  # fmt: skip
    return Comparison(_teachers(cards), responses, bands, distances, note)


def _drifts(card: TeacherCard) -> tuple[RingDrifts, np.ndarray, np.ndarray]:
    probing = card.summary["probing"]
    return drifts_from_table(card.drifts, tuple(probing["edges"]), rounding=probing["rounding"])


def _relative(
    card: TeacherCard, drifts: RingDrifts, units: np.ndarray, *, seed: int
) -> pd.DataFrame:
    """Add the shape of the response, with its interval, to the rows of gains other than 1."""
    shape = relative_responses(drifts, units, resamples=RESAMPLES, seed=seed)
    shape = shape.drop(columns=["low", "high", "n"])
    table = card.ring_response.query("channel == 'all'")
    return table.merge(shape, on=["ring", "gain"])


def _teachers(cards: Mapping[str, TeacherCard]) -> pd.DataFrame:
    rows = []
    for name, card in cards.items():
        teacher, score = card.summary["teacher"], card.summary["probe"]["test_balanced_accuracy"]
        loudest = card.summary["largest_drift_per_energy"]
        rows.append(
            {
                "teacher": name,
                "parameters": teacher.get("parameters"),
                "features": teacher.get("feature_dim"),
                "balanced_accuracy": score.get("value"),
                "balanced_accuracy_low": score.get("low"),
                "balanced_accuracy_high": score.get("high"),
                "most_per_energy": f"{loudest['low']:.3g} to {loudest['high']:.3g}"
                if loudest
                else "",
            }
        )
    return pd.DataFrame(rows)
