"""The claims: what the figure marks and the sentences say, hits and misses alike."""

import numpy as np
import pandas as pd
import pytest

from fopro_lab.errors import InputError
from fopro_lab.plots.results import claim_findings, plot_claim


def claims(**changes):
    """Three teachers: one clear gain, one clear loss, one that only looks clear uncorrected."""
    rows = []
    for teacher, difference, half, p in (
        ("one", 0.04, 0.02, 0.003),
        ("two", -0.05, 0.02, 0.002),
        ("three", 0.03, 0.028, 0.06),
    ):
        for scope, name, metric in (
            ("overall", "all", "balanced_accuracy"),
            ("group", "tail", "recall"),
            ("class", "tail", "recall"),  # a class that is called like the group
        ):
            rows.append(
                {"teacher": teacher, "student": "small", "method": "ekd", "baseline": "bsm",
                 "scope": scope, "name": name, "metric": metric, "method_value": 0.4 + difference,
                 "baseline_value": 0.4, "difference": difference, "low": difference - half,
                 "high": difference + half, "p_holm": p, "n": 120, "seeds": 3, "folds": 3,
                 "varies": "images, seeds and folds", "protocol": "toy/fold1+2+3"}
            )  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def test_a_marker_is_filled_only_where_the_corrected_p_value_is_small():
    figure = plot_claim(claims())
    for ax in figure.axes:
        markers = [line for line in ax.lines if line.get_marker() not in ("None", None, "")]
        filled = [line.get_markerfacecolor() != "white" for line in markers]
        assert filled == [True, True, False]
        np.testing.assert_allclose([line.get_xdata()[0] for line in markers], [0.04, -0.05, 0.03])
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == [
        "Balanced accuracy",
        "Tail recall",
    ]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "+4.0 [+2.0, +6.0]" in texts and "40.0 → 44.0 %, n=120" in texts
    assert "toy/fold1+2+3" in figure.get_supxlabel()


def test_another_student_is_named_in_the_row():
    figure = plot_claim(claims(student="resnet18"))
    assert figure.axes[0].get_yticklabels()[0].get_text() == "one\nstudent resnet18"


def test_the_figure_refuses_a_table_without_corrected_p_values():
    with pytest.raises(InputError, match="p_holm"):
        plot_claim(claims().drop(columns="p_holm"))


def test_findings_count_hits_and_what_speaks_against():
    whole, tail, apart = claim_findings(
        claims(),
        pd.DataFrame(
            {"teacher": ["one", "one", "all"], "p_holm": [0.01, 0.2, 0.01]},
        ),
    )
    assert whole.startswith(
        "ekd against bsm, student small, balanced accuracy: higher for 1 of 3 teachers, lower "
        "for 1, undecided for 1: one +4.0"
    )
    assert tail.startswith("ekd against bsm, student small, tail recall: higher for 1 of 3")
    assert "three +3.0 [+0.2, +5.8]" in whole
    assert apart.endswith("for 1 of 2 pairs of teachers.")
