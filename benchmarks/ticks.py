"""How long one tick of a slider takes, from the new value to the new images."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.images import photograph_pack
from fopro_lab.data import Pack

GOAL = 100.0  # milliseconds a tick at 224 px on two cores
SIZES = (64, 224)


def measure_ticks(
    build: Callable[[Pack], Callable[[float], object]],
    *,
    sizes: Sequence[int] = SIZES,
    ticks: int = 60,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Move a slider of something that shows an image, tick by tick.

    Args:
        build: Makes it of a pack, and returns what one tick calls with a gain, 0 to 4.
        sizes: Sides of the images, pixels.
        ticks: That count; a tenth as many come before and do not.
        clock: Seconds; replaced in tests.

    Returns:
        A row a size: ``size`` (pixels), ``median_ms``, ``slowest_tenth_ms`` (the 90th percentile),
        ``ticks``, ``goal_ms``, ``reached``.

    Example:
        >>> measure_ticks(lambda pack: lambda gain: None, sizes=[16], ticks=5)["size"].tolist()
        [16]
    """
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
            tick = build(photograph_pack(Path(place), size=size, count=4))
            seconds = []
            for number in range(ticks + ticks // 10):
                begun = clock()
                tick(4 * ((number * 7) % 40 + 0.5) / 40)  # never the value that it has
                seconds.append(clock() - begun)
        taken = pd.Series(seconds[ticks // 10 :]) * 1000
        median = float(taken.median())
        rows.append((size, median, float(taken.quantile(0.9)), ticks, GOAL, median < GOAL))
    columns = ["size", "median_ms", "slowest_tenth_ms", "ticks", "goal_ms", "reached"]
    return pd.DataFrame(rows, columns=columns)
