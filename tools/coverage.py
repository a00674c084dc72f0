"""Simulate how often 95 % intervals hold the truth: ``python -m tools.coverage``.

An image of a group (lesion) is right if its group's, its run's, their own and its own normal number
add up to more than a threshold. Groups have one to six images. A difference is between two methods
that share the groups' numbers but not the runs'.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from fopro_lab.evaluation.bootstrap import difference_interval, wilson_interval
from fopro_lab.evaluation.scores import (
    AlignedRuns,
    Interval,
    Key,
    Measured,
    limits,
    mean_of,
    pool,
    recall_parts,
)

RECALLS = (0.8, 0.6)  # of the two classes
NUMBERS = {
    "class recall": ("class", "a", "recall"),
    "balanced accuracy": ("overall", "all", "balanced_accuracy"),
}
_GROUP, _TOGETHER = 1.0, 0.5  # spread of groups, and of groups within a run; of images it is 1


class Design(NamedTuple):
    """What is simulated."""

    groups: int  # of each class and fold
    seeds: int  # runs of each method and fold; of a single one, intervals are for that very run
    folds: int = 1  # with own groups and runs
    spread: float = 0.3  # standard deviation between runs, in that of images; 0 for a single one


def coverage(design: Design, *, repeats: int = 400, seed: int = 0) -> dict[str, float]:
    """Return the share of held 95 % intervals of each of ``NUMBERS``, and of its differences."""
    rng = np.random.default_rng(seed)
    held = [_held(*_experiment(rng, design)) for _ in range(repeats)]
    return {str(name): float(share) for name, share in pd.DataFrame(held).mean().items()}


def _held(images: AlignedRuns, own: dict[Key, Measured]) -> dict[str, bool]:
    """Say of each number and difference of an experiment whether its interval holds the truth."""
    apart = {key: each.subtract() for key, each in own.items()}
    ours = {key: _first_half(each) for key, each in own.items()}
    values = {key: mean_of(each.values) for key, each in ours.items()}
    others = {key: values[key] - mean_of(each.values) for key, each in apart.items()}

    def alone(key: Key, trials: int) -> Interval:
        return (*wilson_interval(values[key], trials), "wilson")

    def paired(key: Key, trials: int) -> Interval:
        return (*difference_interval(values[key], others[key], trials), "newcombe")

    levels, _ = limits(images, ours, fallback=alone, shares=True)
    differences, _ = limits(images, apart, fallback=paired)
    truths = {"class recall": RECALLS[0], "balanced accuracy": float(np.mean(RECALLS))}
    held = {}
    for name, key in NUMBERS.items():
        held[name] = levels[key][0] <= truths[name] <= levels[key][1]
        held[f"{name}, difference"] = differences[key][0] <= 0 <= differences[key][1]
    return held


def _first_half(measured: Measured) -> Measured:
    """Take the runs of one method."""
    half = len(measured.values[0]) // 2
    return Measured(
        values=[own[:half] for own in measured.values],
        parts=[[(c[:half, :half], df) for c, df in fold] for fold in measured.parts],
        bias=measured.bias,
    )


def _experiment(
    rng: np.random.Generator, design: Design
) -> tuple[AlignedRuns, dict[Key, Measured]]:
    """Draw one test set and the hits of two methods' runs for each fold."""
    groups, seeds, folds, spread = design
    spread = 0.0 if seeds == 1 else spread
    width = np.sqrt(1 + _GROUP**2 + _TOGETHER**2 + spread**2)
    found = {key: Measured([], [], []) for key in NUMBERS.values()}
    found[("class", "b", "recall")] = Measured([], [], [])
    parts = []
    for fold in range(folds):
        sizes = rng.integers(1, 7, size=2 * groups)
        unit = np.repeat(np.arange(2 * groups), sizes)
        labels = (unit >= groups).astype(int)
        shape = (2 * seeds, 2 * groups)
        level = _GROUP * rng.normal(size=(1, 2 * groups)) + _TOGETHER * rng.normal(size=shape)
        level += spread * rng.normal(size=(2 * seeds, 1))
        limit = norm.ppf(RECALLS)[labels] * width
        hits = level[:, unit] + rng.normal(size=(2 * seeds, len(unit))) + limit > 0
        names = np.char.add(f"{fold}-", unit.astype(str))
        images = AlignedRuns(labels, names, [], ("a", "b"), {"a": "head", "b": "tail"})
        parts.append(images)
        recalls = np.stack([hits[:, labels == k].mean(axis=1) for k in (0, 1)])
        of_key = recall_parts(images, hits)
        for key, measured in found.items():
            own = recalls["ab".index(key[1])] if key[0] == "class" else recalls.mean(axis=0)
            measured.values.append(own)
            measured.parts.append(of_key[key])
            measured.bias.append(0.0)
    return pool(parts), found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of designs, shares of held intervals and their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    designs = [Design(g, s, 1, 0.3 * (s > 1)) for g in (5, 10, 20, 60) for s in (1, 2, 3, 10)]
    designs += [Design(20, s, 1, 0.0) for s in (2, 3, 10)] + [Design(20, 2, f) for f in (2, 3, 10)]
    rows = []
    for design in designs:
        held = coverage(design, repeats=chosen.repeats, seed=chosen.seed)
        rows.append(design._asdict() | {"nominal": 0.95} | held)
    table = pd.DataFrame(rows)
    print(table.to_markdown(index=False, floatfmt=("g", "g", "g", "g", ".2f", *[".3f"] * 4)))
    print(f"\nStandard error of each share: {np.sqrt(0.05 * 0.95 / chosen.repeats):.3f}.")


if __name__ == "__main__":
    main()
