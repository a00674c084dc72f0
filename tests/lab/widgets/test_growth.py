"""A thousand ticks leave nothing behind."""

import gc
import tracemalloc

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from fopro_lab.models import load_teacher
from fopro_lab.widgets import BandExplorer

LEFT = 500_000  # bytes; one image kept a tick would be 70 times as much


@pytest.mark.slow
def test_a_thousand_ticks_keep_memory_widgets_and_figures(prepared):
    explorer = BandExplorer(prepared.packed, rings=3, teacher=load_teacher("builtin"))

    def move(count):
        for tick in range(count):
            explorer.sliders[tick % 4].value = (tick * 7 % 80) / 20
        explorer.flush()
        gc.collect()

    tracemalloc.start()
    try:
        move(50)
        widgets, figures = len(ipywidgets.widgets.widget._instances), len(plt.get_fignums())
        before, _ = tracemalloc.get_traced_memory()
        move(1000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < LEFT
    assert len(ipywidgets.widgets.widget._instances) == widgets
    assert len(plt.get_fignums()) == figures
