import itertools

import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import holm
from fopro_lab.probing.class_bands import correct_for_many, measure_changes, sign_test


@pytest.mark.parametrize(("better", "worse"), [(0, 6), (3, 4), (1, 9), (5, 5), (0, 0)])
def test_sign_test_equals_the_count_of_all_coin_throws(better, worse):
    total = better + worse
    far = abs(better - worse)
    throws = itertools.product((-1, 1), repeat=total)
    expected = np.mean([abs(sum(throw)) >= far for throw in throws])
    assert sign_test(better, worse) == pytest.approx(expected)


def test_holm_equals_the_steps_by_hand():
    p = np.array([0.02, 0.001, 0.3, np.nan, 0.012])
    # Sorted: 0.001 * 4, 0.012 * 3, 0.02 * 2, 0.3 * 1; never below the one before.
    np.testing.assert_allclose(holm(p), [0.04, 0.004, 0.3, np.nan, 0.036])


def test_holm_keeps_the_share_of_false_alarms_over_all_cells():
    """Of 300 tables of 50 true nulls about 5 % may have any survivor; uncorrected, 92 % have."""
    p = np.random.default_rng(0).uniform(size=(300, 50))
    alarms = np.mean([(holm(row) < 0.05).any() for row in p])
    assert alarms < 0.09 and (p < 0.05).any(axis=1).mean() > 0.8


def test_classes_and_means_are_corrected_apart_and_a_frame_is_needed():
    table = pd.DataFrame(
        {
            "scope": ["class", "class", "class", "overall"],
            "p": [0.001, 0.02, 0.001, 0.04],
            "change_low": [0.1, 0.1, -0.1, 0.1],
            "change_high": 0.2,
        }
    )
    found = correct_for_many(table)
    assert found["cells"].tolist() == [3, 3, 3, 1]
    assert found["survives"].tolist() == [True, True, False, True]


def test_lesions_and_not_images_are_counted_in_the_test():
    labels, before = np.zeros(24, dtype=int), np.zeros(24, dtype=int)
    after = np.ones((1, 24), dtype=int)
    labels[-1] = before[-1] = 1
    alone, four = (
        measure_changes(
            labels,
            units,
            before,
            after,
            names=["a", "b"],
            groups={"a": "head", "b": "tail"},
            resamples=50,
        ).set_index("name")
        for units in (np.arange(24), np.append(np.arange(23) // 6, 99))
    )
    assert alone.loc["a", "change"] == four.loc["a", "change"] == -1
    assert alone.loc["a", "p"] == pytest.approx(2 / 2**23)
    assert four.loc["a", "p"] == pytest.approx(2 / 2**4)
    assert alone.loc["a", "survives"] and not four.loc["a", "survives"]


def test_a_class_without_test_images_is_told_as_unknown():
    table = measure_changes(
        np.array([0, 0, 1]),
        np.arange(3),
        np.array([0, 0, 1]),
        np.array([[0, 1, 1]]),
        names=["a", "b", "c"],
        groups={"a": "head", "b": "medium", "c": "tail"},
        resamples=20,
    ).set_index("name")
    assert np.isnan(table.loc["c", "change"]) and table.loc["c", "n"] == 0
    assert "tail" not in table.index and table.loc["all", "change"] == -0.25
    assert table.loc["a", "cells"] == 2


def test_groups_must_name_every_class():
    with pytest.raises(InputError, match=r"^groups: expected head, medium or tail for each of a"):
        measure_changes(
            np.zeros(1, int), np.zeros(1), np.zeros(1), np.zeros((1, 1)), names=["a"], groups={}
        )
