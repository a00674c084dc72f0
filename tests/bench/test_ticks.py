import itertools

import pytest

from fopro_lab.bench.ticks import measure_ticks
from fopro_lab.lab import BandExplorer


def test_measure_ticks_times_each_tick_and_leaves_the_first_ones_out():
    moved = []
    steps = itertools.count()
    # each call of the clock is a millisecond later, so that a tick takes one
    table = measure_ticks(
        lambda pack: moved.append, sizes=[16, 32], ticks=20, clock=lambda: next(steps) / 1000
    )
    assert table["size"].tolist() == [16, 32] and len(moved) == 2 * 22
    assert table["median_ms"].tolist() == pytest.approx([1.0, 1.0]) and table["reached"].all()
    assert all(one != other for one, other in itertools.pairwise(moved[:22]))
    assert min(moved) >= 0 and max(moved) <= 4


def test_measure_ticks_moves_the_explorer():
    seen = []

    def build(pack):
        explorer = BandExplorer(pack, rings=4)

        def tick(gain):
            explorer.sliders[1].value = gain
            seen.append(explorer.pictures.value)

        return tick

    table = measure_ticks(build, sizes=[64], ticks=10)
    assert 0.1 < table["median_ms"].item() < 1000  # a busy machine is no failure
    assert len(set(seen)) == len(seen)
