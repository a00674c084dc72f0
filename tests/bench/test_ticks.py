import itertools
import json

import pandas as pd
import pytest

from benchmarks.ticks import measure_ticks
from fopro_lab.widgets import BandExplorer


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
            seen.append(explorer.images.value)

        return tick

    table = measure_ticks(build, sizes=[64], ticks=10)
    assert 0.1 < table["median_ms"].item() < 1000  # a busy machine is no failure
    assert len(set(seen)) == len(seen)


def test_bench_lab_tells_ticks_and_reports_in_one_table_each(fopro, monkeypatch):
    whole, given = measure_ticks, []

    def short(build):
        return whole(build, sizes=[16], ticks=5)

    def reports(rounds):
        given.append(rounds)
        return pd.DataFrame({"what": ["a batch"], "value": [1.2], "goal": [1.3]})

    monkeypatch.setattr("benchmarks.measure_ticks", short)
    monkeypatch.setattr("benchmarks.bench_reports", reports)
    code, told, _ = fopro("bench", "lab", "--rounds", "2", "--json")
    tables = json.loads(told)["tables"]
    assert code == 0 and given == [2]
    assert tables["ticks"][0]["size"] == 16 and tables["ticks"][0]["median_ms"] > 0
    assert tables["reports"] == [{"what": "a batch", "value": 1.2, "goal": 1.3}]
