"""Preferences of several teachers: the shapes of their ring responses, and how far apart they are.

A preference is the ring response per energy changed, as logarithms whose mean over the rings is 0:
how sensitive a teacher is as a whole does not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.data import Pack, batches
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.evaluation.bootstrap import bootstrap_weights, holm, percentile_interval
from fopro_lab.fourier import ring_edges
from fopro_lab.models import choose_device, load_teacher
from fopro_lab.probing.features import draw_rows, resampling_units
from fopro_lab.probing.ring_response import RingDrifts, drifts_from_table, ring_drifts
from fopro_lab.probing.teacher_card import TeacherCard

TINY = 1e-12  # mean drift of a ring to which a teacher does not respond at all


def preference(drifts: RingDrifts, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the shape of a ring response, for S weightings ``(N, S)`` of the images or for one.

    It is ``(P, S)``, natural logarithms, one for each ring and gain other than 1.
    """
    kept = [k for k, gain in enumerate(drifts.gains) if gain != 1]
    drift, energy = (part[:, kept] for part in (drifts.drift, drifts.energy))
    weights = np.ones((drift.shape[-1], 1)) if weights is None else weights
    shape = np.log(np.maximum(drift @ weights, TINY) / np.maximum(energy @ weights, TINY))
    return (shape - shape.mean(axis=0)).reshape(-1, weights.shape[1])


def relative_responses(
    drifts: RingDrifts, units: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Tabulate one teacher's preference: how far a ring moves it, relative to its mean ring.

    ``units`` are lesion, patient or image of each, ``(N,)``, which the bootstrap draws as a whole.

    Returns:
        A row for each ring and gain other than 1: ``ring``, ``low``, ``high`` (cycles per pixel),
        ``gain``, ``relative`` (drift per energy changed over its geometric mean over the rings: 2
        is twice as much) with ``relative_low`` and ``relative_high`` (95 %), ``n`` (images).
    """
    weights = bootstrap_weights(None, units, resamples=resamples, seed=seed).astype(np.float64)
    low, high = np.exp(np.quantile(preference(drifts, weights), [0.025, 0.975], axis=1))
    rings = [(ring, *ends) for ring, ends in enumerate(pairwise(drifts.edges))]
    rows = [(*ring, gain) for ring, gain in product(rings, drifts.gains) if gain != 1]
    table = pd.DataFrame(rows, columns=["ring", "low", "high", "gain"])
    table["relative"] = np.exp(preference(drifts)[:, 0])
    return table.assign(relative_low=low, relative_high=high, n=len(units))


def ask_teachers(
    teachers: Mapping[str, str],
    pack: Pack,
    rows: np.ndarray,
    *,
    rings: int = 8,
    gains: Sequence[float] = (0.0, 2.0),
    count: int = 256,
    seed: int = 0,
    device: str = "auto",
) -> tuple[dict[str, RingDrifts], np.ndarray]:
    """Measure the ring response of every teacher, each at the size of the pack's images.

    Smaller images would lack the high rings, and teachers would differ by the resizing alone.

    ``teachers`` are names, as `load_teacher` takes them, with the file of weights, empty for the
    built-in one. At most ``count`` of the rows are drawn. ``rings`` lie up to 0.5 cycles per pixel;
    the corners are one more. Returns the drifts by teacher, and lesion, patient or image of each
    image that was drawn.
    """
    drawn = draw_rows(rows, count=count, seed=seed)
    images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
    measured = {}
    for name, weights in teachers.items():
        teacher = load_teacher(name, weights=weights).to(choose_device(device))
        measured[name] = ring_drifts(teacher, images, ring_edges(rings), gains)
    return measured, resampling_units(pack.dataset.table, rows=drawn)


def preference_distances(
    drifts: Mapping[str, RingDrifts],
    units: np.ndarray,
    *,
    splits: int = 400,
    permutations: int = 400,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the distance between teachers with that between measurements of one teacher.

    Lesions are dealt into two halves, ``splits`` times. Between: one teacher on one half against
    the other teacher on the other half. Within: each teacher on one half against itself on the
    other. Both see other images on either side, so their difference is what the teachers add.
    Its interval resamples lesions within the halves; for the p-value the teachers' names are
    permuted lesion by lesion. ``units`` are lesion, patient or image of each, ``(N,)``.

    Returns:
        A row for each pair: ``teacher``, ``other``, ``distance`` (same images, all of them),
        ``between``, ``within`` (mean over halves), ``difference`` with ``_low`` and ``_high`` (95 %
        interval), ``p`` (of "the same preference", by permutation), ``units``, ``n``, ``p_holm``
        (corrected over the pairs). ``p_holm`` says whether teachers differ, the interval how far.

    Raises:
        InputError: If there are fewer than two teachers or four lesions, or nothing but gain 1.
        ShapeError: If the teachers have other rings, gains or images.
    """
    if len(drifts) < 2:
        raise InputError(f"drifts: expected two teachers or more, got {len(drifts)}")
    kinds = {(d.edges, d.gains, d.drift.shape) for d in drifts.values()}
    gains, shape = next((d.gains, d.drift.shape) for d in drifts.values())
    if len(kinds) > 1 or shape[-1] != len(units):
        rule = "the same rings, gains and images for every teacher and a unit for each image"
        got = f"{[d.drift.shape for d in drifts.values()]} and {len(units)} units"
        raise ShapeError(f"drifts: expected {rule}, got {got}")
    if len(set(units)) < 4:
        raise InputError(f"units: expected four or more, got {len(set(units))}")
    if set(gains) == {1}:
        raise InputError("gains: expected one other than 1, which changes nothing")
    rng = np.random.default_rng(seed)
    _, unit = np.unique(units, return_inverse=True)
    whole = {name: preference(found) for name, found in drifts.items()}
    halves = [
        {name: [preference(found, side) for side in sides] for name, found in drifts.items()}
        for sides in (_deal(unit, splits, rng, redrawn=again) for again in (False, True))
    ]
    rows = []
    for pair in combinations(drifts, 2):
        both = (pair, pair[::-1])
        between = [_root_mean([_distance(h[a][0], h[b][1]) for a, b in both]) for h in halves]
        within = [_root_mean([_distance(*half[name]) for name in pair]) for half in halves]
        low, high = percentile_interval(between[1] - within[1])
        distance = _distance(*(whole[name] for name in pair)).mean()
        means = (between[0].mean(), within[0].mean(), (between[0] - within[0]).mean())
        p = _permutation_test([drifts[name] for name in pair], unit, permutations, rng)
        rows.append((*pair, distance, *means, low, high, p))
    columns = ["teacher", "other", "distance", "between", "within"]
    columns += ["difference", "difference_low", "difference_high", "p"]
    table = pd.DataFrame(rows, columns=columns).assign(units=unit.max() + 1, n=len(units))
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def _deal(
    unit: np.ndarray, splits: int, rng: np.random.Generator, *, redrawn: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Deal units into two halves, ``(N, S)`` weights each; redrawn is with replacement."""
    count = int(unit.max()) + 1
    sides = np.zeros((2, count, splits))
    for split in range(splits):
        for side, own in enumerate(np.split(rng.permutation(count), [count // 2])):
            drawn = rng.choice(own, len(own)) if redrawn else own
            sides[side, :, split] = np.bincount(drawn, minlength=count)
    return sides[0][unit], sides[1][unit]


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean((one - other) ** 2, axis=0))


def _root_mean(distances: Sequence[np.ndarray]) -> np.ndarray:
    """Average distances as squares: plain means would tell apart teachers that differ in noise."""
    return np.sqrt(np.mean(np.square(distances), axis=0))


def _permutation_test(
    drifts: Sequence[RingDrifts], unit: np.ndarray, permutations: int, rng: np.random.Generator
) -> float:
    """Return how often two names permuted lesion by lesion lie as far apart as the true ones."""
    kept = [k for k, gain in enumerate(drifts[0].gains) if gain != 1]
    responses = np.stack([found.drift[:, kept] for found in drifts])  # (T, R, G, N)
    level = np.log(np.maximum(responses.mean(axis=-1), TINY)).mean(axis=1)
    responses = responses / np.exp(level)[:, None, :, None]  # equal sensitivity as a whole

    def spread(dealt: np.ndarray) -> float:
        shape = np.log(np.maximum(dealt.mean(axis=-1), TINY))
        shape = (shape - shape.mean(axis=1, keepdims=True)).reshape(len(dealt), -1)
        return float(_distance(*shape))

    observed, reached = spread(responses), 0
    for _ in range(permutations):
        order = np.argsort(rng.random((len(responses), unit.max() + 1)), axis=0)[:, unit]
        dealt = np.take_along_axis(responses, order[:, None, None, :], axis=0)
        reached += spread(dealt) >= observed
    return (1 + reached) / (1 + permutations)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several cards say together."""

    teachers: pd.DataFrame  # size, the probe's balanced accuracy, the ring that moves it most
    responses: pd.DataFrame  # ring responses of the cards, beside those of `relative_responses`
    bands: pd.DataFrame  # class bands of the linear probes
    distances: pd.DataFrame  # of `preference_distances`; empty where there can be none

    def findings(self) -> list[str]:
        """Say in a line per pair whether two teachers differ more than measurements of one do."""
        if self.distances.empty:
            return ["Cards of other images, or of fewer than four lesions: no distance is given."]
        return [
            f"{row.teacher}, {row.other}: preferences "
            f"{'differ' if row.p_holm < 0.05 else 'do not differ clearly'} more than measurements "
            f"of one teacher do: distance {row.between:.2f} against {row.within:.2f} (difference "
            f"{row.difference_low:.2f} to {row.difference_high:.2f}, corrected p = "
            f"{row.p_holm:.3f})."
            for row in self.distances.itertuples()
        ]


def compare_cards(cards: Mapping[str, TeacherCard], *, seed: int = 0) -> Comparison:
    """Bring two or more cards of the same rings and gains together, by the name of the teacher."""
    if len(cards) < 2:
        raise InputError(f"cards: expected two or more, got {len(cards)}")
    for key in ("edges", "gains"):
        found = {name: card.summary["probing"][key] for name, card in cards.items()}
        if len({tuple(value) for value in found.values()}) > 1:
            raise InputError(f"cards: expected the same {key}, got {found}")
    drifts, images, units = {}, set(), np.empty(0)
    teachers, responses, bands = [], [], []
    for name, card in cards.items():
        data, own = card.summary["data"], card.summary["teacher"]
        edges = card.summary["probing"]["edges"]
        drifts[name], names, units = drifts_from_table(card.drifts, edges)
        images.add((data["fingerprint"], data["image_size"], tuple(names), tuple(units)))
        accuracy = card.summary["probe"]["test_balanced_accuracy"]
        most = card.summary["largest_drift_per_energy"]
        line = {"teacher": name, "parameters": own.get("parameters")}
        line |= {"features": own.get("feature_dim"), "balanced_accuracy": accuracy.get("value")}
        line |= {f"balanced_accuracy_{end}": accuracy.get(end) for end in ("low", "high")}
        text = f"{most['low']:.3g} to {min(most['high'], 0.5**0.5):.3g}" if most else ""
        teachers.append(line | {"most_per_energy": text})
        shape = relative_responses(drifts[name], units, seed=seed)
        shape = shape.drop(columns=["low", "high", "n"])
        responses.append(card.ring_response.merge(shape, on=["ring", "gain"]).assign(teacher=name))
        bands.append(card.class_bands.query("classifier == 'probe'").assign(teacher=name))
    distances = pd.DataFrame()
    if len(images) == 1 and len(set(units)) >= 4:
        distances = preference_distances(drifts, units, seed=seed)
    answers, changes = (pd.concat(parts, ignore_index=True) for parts in (responses, bands))
    return Comparison(pd.DataFrame(teachers), answers, changes, distances)


def read_cards(folders: Sequence[Path | str]) -> dict[str, TeacherCard]:
    """Read cards by the name of their teacher, and of their folder where two have one name."""
    cards = {Path(folder): TeacherCard.read(folder) for folder in folders}
    names = [str(card.summary["teacher"].get("name", "")) for card in cards.values()]
    places = [folder.name for folder in cards]
    found = {}
    for name, (folder, card) in zip(names, cards.items(), strict=True):
        place = folder.name if places.count(folder.name) == 1 else folder
        found[f"{name} ({place})" if names.count(name) > 1 else name] = card
    return found
