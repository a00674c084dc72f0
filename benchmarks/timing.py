"""Variants timed side by side: in every round each runs once, and rounds are compared, not sums."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fopro_lab.errors import InputError


@dataclass(frozen=True)
class Variant:
    """One way to do the work.

    Attributes:
        name: Shown to the user.
        run: Does the work once and returns how many images (or steps) it did.
        goal: The ratio to the reference that was aimed at; 0 is none.

    Example:
        >>> Variant("nothing", lambda: 1).goal
        0.0
    """

    name: str
    run: Callable[[], int]
    goal: float = 0.0


def time_rounds(
    variants: Sequence[Variant],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[Iterable[int]], Iterable[int]] = lambda steps: steps,
) -> pd.DataFrame:
    """Run every variant once a round, after one round that does not count.

    The order turns by one place a round, so that none always follows the same other one. What
    slows the machine for a while slows a whole round, and the ratio within it stays.

    Args:
        variants: With different names.
        rounds: Rounds that count, at least 3.
        clock: Seconds; replaced in tests.
        watch: Wraps the rounds, for progress.

    Returns:
        A row for each round and variant, in the order given: ``round`` (from 1), ``variant``,
        ``seconds``, ``count``.

    Raises:
        InputError: If there are too few rounds, or two variants have one name.

    Example:
        >>> table = time_rounds([Variant("a", lambda: 2), Variant("b", lambda: 1)], rounds=3)
        >>> len(table), sorted(table["variant"].unique())
        (6, ['a', 'b'])
    """
    if rounds < 3:
        raise InputError(f"rounds: expected 3 or more, got {rounds}")
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise InputError(f"variants: expected different names, got {', '.join(names)}")
    rows = []
    for number in watch(range(rounds + 1)):
        turn = number % len(variants)
        for variant in [*variants[turn:], *variants[:turn]]:
            begun = clock()
            count = variant.run()
            seconds = clock() - begun
            if number:
                rows.append((number, variant.name, seconds, count))
    table = pd.DataFrame(rows, columns=["round", "variant", "seconds", "count"])
    place = table["variant"].map({name: place for place, name in enumerate(names)})
    return (
        table.assign(place=place)
        .sort_values(["round", "place"], ignore_index=True)
        .drop(columns="place")
    )


def compare_rounds(
    timed: pd.DataFrame, *, reference: str, goals: dict[str, float] | None = None
) -> pd.DataFrame:
    """Compare each variant with the reference, round by round.

    Args:
        timed: Of `time_rounds`.
        reference: Name of the variant that counts as 1.
        goals: Ratios aimed at, by name.

    Returns:
        A row for each variant, in the order of the table: ``variant``, ``per_second`` (median
        over rounds), ``ratio`` (median of the rounds' ratios; 2 is twice as fast as the
        reference), ``low``, ``high`` (the rounds' quartiles), ``rounds``, ``goal`` (NaN if none),
        ``reached``.

    Raises:
        InputError: If the reference is not in the table.

    Example:
        >>> timed = pd.DataFrame({"round": [1, 1], "variant": ["slow", "fast"],
        ...     "seconds": [2.0, 0.5], "count": [1, 1]})
        >>> compare_rounds(timed, reference="slow")["ratio"].tolist()
        [1.0, 4.0]
    """
    names = list(dict.fromkeys(timed["variant"]))
    if reference not in names:
        raise InputError(f"reference: expected one of {', '.join(names)}, got '{reference}'")
    speed = (
        timed.assign(speed=timed["count"] / timed["seconds"])
        .pivot(index="round", columns="variant", values="speed")
        .loc[:, names]
    )
    ratios = speed.div(speed[reference], axis=0)
    goal = pd.Series(goals or {}, dtype=float).reindex(names)
    table = pd.DataFrame(
        {
            "per_second": speed.median(),
            "ratio": ratios.median(),
            "low": ratios.quantile(0.25),
            "high": ratios.quantile(0.75),
            "rounds": len(speed),
            "goal": goal,
        }
    )
    table["reached"] = np.where(
        table["goal"].isna(), "", np.where(table["ratio"] >= goal, "yes", "no")
    )
    return table.rename_axis("variant").reset_index()
