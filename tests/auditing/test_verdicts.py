"""Verdicts on made-up numbers: "ok" is said on evidence alone."""

import pytest

from fopro_lab.checks.leakage import Entanglement
from fopro_lab.checks.report import judge_sources

NAN = float("nan")


@pytest.mark.parametrize(
    ("v", "low", "high", "p", "level"),
    [
        (0.03, 0.0, 0.08, 0.40, "ok"),
        (0.08, 0.06, 0.09, 0.001, "ok"),  # surely there, and surely small
        (0.45, 0.05, 0.70, 0.06, "note"),  # few groups: anything may be true
        (0.00, 0.00, 0.55, 1.00, "note"),
        (0.00, 0.00, NAN, 1.00, "note"),  # no draw had two sources
        (0.20, 0.12, 0.28, 0.001, "note"),
        (0.07, 0.02, 0.15, 0.03, "note"),
        (0.45, 0.30, 0.60, 0.001, "warn"),
        (0.45, 0.05, 0.70, 0.04, "warn"),
        (NAN, NAN, NAN, NAN, "note"),
    ],
)
def test_sources_are_called_ok_only_when_the_interval_says_so(v, low, high, p, level):
    found = judge_sources(Entanglement(v, low, high, p, 40))
    assert found.level == level
    assert found.verdict.startswith("cannot be told") == (level == "note" and p > 0.05)
