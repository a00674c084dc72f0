"""Rounds: who runs when, what counts, and ratios that a slow moment cannot move."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.timing import Variant, compare_rounds, time_rounds
from fopro_lab.errors import InputError


def test_time_rounds_leaves_the_first_round_out_and_turns_the_order():
    calls = []
    variants = [Variant(name, lambda name=name: calls.append(name) or 1) for name in "abc"]
    timed = time_rounds(variants, rounds=3)
    assert calls == list("abcbcacababc")
    assert timed["variant"].tolist() == list("abcabcabc")  # told in the order given
    assert timed["round"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_time_rounds_measures_each_run_by_the_clock():
    ticks = iter(np.cumsum([0, 1, 0, 2, 0, 4, 0, 8, 0, 16, 0, 32, 0, 64, 0, 128]))
    timed = time_rounds(
        [Variant("a", lambda: 5), Variant("b", lambda: 7)],
        rounds=3,
        clock=lambda: float(next(ticks)),
    )
    # Run a b, b a, a b, b a; the first pair does not count.
    assert timed["seconds"].tolist() == [8, 4, 16, 32, 128, 64]
    assert timed["count"].tolist() == [5, 7, 5, 7, 5, 7]


def test_compare_rounds_takes_the_median_of_ratios_within_rounds():
    # The machine is ten times slower in round 2; per round b is 4, 5 and 3 times as fast.
    timed = pd.DataFrame(
        [
            *[(1, "a", 4.0, 8), (1, "b", 1.0, 8)],
            *[(2, "a", 50.0, 8), (2, "b", 10.0, 8)],
            *[(3, "a", 3.0, 8), (3, "b", 1.0, 8)],
        ],
        columns=["round", "variant", "seconds", "count"],
    )
    table = compare_rounds(timed, reference="a", goals={"b": 4.5}).set_index("variant")
    assert table.loc["b", ["ratio", "low", "high"]].tolist() == [4.0, 3.5, 4.5]
    assert table.loc["a", "ratio"] == 1.0 and table.loc["b", "per_second"] == 8.0
    assert table["reached"].tolist() == ["", "no"] and np.isnan(table.loc["a", "goal"])
    # The ratio of the sums would be 57 / 12 = 4.75 and pass the goal.
    reached = compare_rounds(timed, reference="a", goals={"b": 4.0})
    assert reached["reached"].tolist() == ["", "yes"]


def test_compare_rounds_counts_images_not_runs():
    timed = pd.DataFrame(
        {"round": [1, 1], "variant": ["a", "b"], "seconds": [1.0, 1.0], "count": [10, 30]}
    )
    assert compare_rounds(timed, reference="a")["ratio"].tolist() == [1.0, 3.0]


def test_wrong_input_is_told():
    twice = [Variant("a", lambda: 1), Variant("a", lambda: 1)]
    with pytest.raises(InputError, match="variants: expected different names, got a, a"):
        time_rounds(twice, rounds=3)
    with pytest.raises(InputError, match="rounds: expected 3 or more, got 2"):
        time_rounds([], rounds=2)
    timed = time_rounds([Variant("a", lambda: 1)], rounds=3)
    with pytest.raises(InputError, match="reference: expected one of a, got 'b'"):
        compare_rounds(timed, reference="b")
