import math

import numpy as np
import pytest
import torch

from fopro_lab.errors import InputError, ShapeError
from fopro_lab.fourier import radial_frequency, ring_gain
from fopro_lab.probing.ring_response import radial_gain

EDGES = [0, 0.2, 0.5, 0.75]


def test_ring_gains_come_back():
    gains = torch.tensor([[2.0, 0.5, 1.5]])
    table = radial_gain(ring_gain(gains, EDGES, height=9, width=8), EDGES, width=8)
    np.testing.assert_allclose(table["gain"], [2.0, 0.5, 1.5])
    np.testing.assert_allclose(table["gain_low"], table["gain_high"])
    assert table["low"].tolist() == EDGES[:3] and table["high"].tolist() == EDGES[1:]


def test_radial_gain_equals_the_loop():
    gain = torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    radius = radial_frequency(6, 7)
    logs = [
        math.log(gain[b, c, v, u])
        for b in range(2)
        for c in range(3)
        for v in range(6)
        for u in range(4)
        if 0.2 < radius[v, u] <= 0.5
    ]
    row = radial_gain(gain, EDGES, width=7).iloc[1]
    assert row["gain"] == pytest.approx(math.exp(np.mean(logs)), rel=1e-6)
    assert row["gain_low"] == pytest.approx(math.exp(np.mean(logs) - np.std(logs)), rel=1e-6)
    assert row["gain_high"] == pytest.approx(math.exp(np.mean(logs) + np.std(logs)), rel=1e-6)


def test_a_ring_without_a_bin_has_no_gain():
    table = radial_gain(torch.ones(4, 3), [0, 0.01, 0.75], width=4)
    assert table["gain"].isna().tolist() == [True, False]


def test_wrong_input_is_refused():
    with pytest.raises(ShapeError, match=r"^gain: expected \(\.\.\., H, 5\), got \(3, 8, 8\)$"):
        radial_gain(torch.ones(3, 8, 8), EDGES, width=8)
    with pytest.raises(InputError, match="edges: expected two or more increasing"):
        radial_gain(torch.ones(8, 5), [0.5], width=8)
