"""How time and memory grow with images, runs and notebooks, each size in a process of its own."""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import psutil
import torch
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks.data import write_photographs
from benchmarks.timing import peak_memory_mb
from fopro_lab.checks.report import examine
from fopro_lab.config import DataConfig
from fopro_lab.data import make_split, open_dataset, pack
from fopro_lab.evaluation import class_groups, compare, load_runs, write_predictions
from fopro_lab.io import write_json
from fopro_lab.reports import run_plan
from fopro_lab.reports.execute import Job, Outcome
from fopro_lab.training.teacher_features import FeatureFiles

GOAL = 1.1  # exponent, at most
SIDE = 64  # pixels, of files and pack
WIDTH = 512  # of kept features
TESTED = 500  # test images of each run, where runs are counted
CLASSES = 8


def bench_scaling(
    *,
    rounds: int = 1,
    images: tuple[int, ...] = (10_000, 40_000, 160_000),
    runs: tuple[int, ...] = (10, 100, 1_000),
    notebooks: tuple[int, ...] = (10, 200, 2_000),
) -> dict[str, pd.DataFrame]:
    """Measure each step at growing sizes; nothing is repeated, as every size is a trial.

    Args:
        rounds: Not used: sizes take the place of rounds.
        images: Generated photographs of 64 px, in a data set and in a test set.
        runs: In a comparison.
        notebooks: In a plan; none is executed, as kernels cost the same each.

    Returns:
        ``scaling``: ``step``, ``n``, ``seconds`` (of the processor), ``microseconds_each``,
        ``grown_mb`` (of the process at its peak, all steps at that size), ``exponent`` (of the
        seconds, from the size before to this one), ``goal`` and ``reached``.
    """
    sizes = {"data": images, "features": images, "predictions": images}
    sizes |= {"runs": runs, "notebooks": notebooks}
    rows: list[dict[str, Any]] = []
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.scaling"])  # imported once for all
    for work, counts in sizes.items():
        for count in counts:
            with ProcessPoolExecutor(1, mp_context=context) as fresh:
                taken, grown = fresh.submit(measure, work, count).result()
            for step, seconds in taken.items():
                row = {"step": step, "n": count, "seconds": seconds, "grown_mb": grown}
                rows.append({**row, "microseconds_each": 1e6 * seconds / count})
    table = pd.DataFrame(rows).sort_values(["step", "n"], kind="stable", ignore_index=True)
    table["exponent"] = float("nan")
    for _, own in table.groupby("step"):
        for before, after in pairwise(own.index):
            table.loc[after, "exponent"] = exponent(*table.loc[[before, after], "seconds"],
                                                    *table.loc[[before, after], "n"])  # fmt: skip
    table["goal"] = GOAL
    table["reached"] = (table["exponent"] <= GOAL).map({True: "yes", False: "no"})
    table.loc[table["exponent"].isna(), "reached"] = ""
    return {"scaling": table}


def exponent(first: float, second: float, fewer: int, more: int) -> float:
    """Return the power of the size by which a time grows.

    Examples:
        >>> exponent(1.0, 16.0, 10, 40)
        2.0
    """
    return math.log(second / first) / math.log(more / fewer)


def measure(work: str, count: int) -> tuple[dict[str, float], float]:
    """Do one piece of work; return its steps' seconds, and by how many MB this process grew."""
    torch.set_num_threads(1)
    home = Path.cwd()
    before = psutil.Process().memory_info().rss / 1e6  # torch and the others, imported
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        os.environ["FOPRO_CACHE"] = place
        os.chdir(place)
        seconds = WORKS[work](Path(place), count)
        os.chdir(home)
    return seconds, peak_memory_mb() - before


class Watch:
    """Names steps and measures the processor's seconds of each, whatever else runs here."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.process_time()

    def skip(self) -> None:
        """Leave out what was done since."""
        self._since = time.process_time()

    def step(self, name: str) -> None:
        """Note what was done since as a step."""
        self.seconds[name] = time.process_time() - self._since
        self.skip()


def _data(place: Path, count: int) -> dict[str, float]:
    """Pack a data set and check it."""
    write_photographs(place / "many", count=count, side=SIDE)  # no two alike: pairs are listed
    watch = Watch()
    dataset = open_dataset(place / "many")
    watch.step("open_dataset")
    packed = pack(dataset, SIDE, jobs=1, progress=False)
    watch.step("pack, one core")
    split = make_split(dataset)
    watch.step("make_split")
    examine(packed, split, config=DataConfig(dataset=str(place / "many"), image_size=SIDE))
    watch.step("check the data")
    return watch.seconds


def _features(place: Path, count: int) -> dict[str, float]:
    """Keep features of a teacher that costs nothing, and read them in an order of an epoch."""
    features, order = torch.randn(64, WIDTH), np.random.default_rng(0).permutation(count)

    def encode(rows: np.ndarray, view: int) -> torch.Tensor:
        return features[: len(rows)]

    watch = Watch()
    files = FeatureFiles(place / "features", count, WIDTH, encode, talk=False)
    files.folder.mkdir()
    files.fill(np.arange(count), 0)
    watch.step("keep features, without the teacher")
    files.fill(order, 0)
    for part in np.array_split(order, max(1, count // 64)):
        files.read(part, np.zeros(len(part), dtype=np.int64))
    watch.step("read kept features, an epoch")
    return watch.seconds


def _write_runs(place: Path, *, runs: int, tested: int) -> None:
    names = [f"class {number}" for number in range(CLASSES)]
    labels = np.arange(tested) % CLASSES
    groups = class_groups(dict(zip(names, range(CLASSES, 0, -1), strict=True)))
    for number in range(runs):
        logits = np.random.default_rng(number).normal(size=(tested, CLASSES)).astype(np.float32)
        logits[np.arange(tested), labels] += 1
        table = pd.DataFrame({"image": [f"image {row:07d}" for row in range(tested)]})
        table = table.assign(group=table["image"], source="", split="test", label=labels)
        columns = [f"logit_{name}" for name in names]
        folder = place / "runs" / str(number)
        folder.mkdir(parents=True)
        write_predictions(
            folder / "predictions.parquet", table.join(pd.DataFrame(logits, columns=columns))
        )
        config = {"method": ("bsm", "ekd")[number % 2], "seed": number // 2}
        manifest = {"state": "done", "config": config, "protocol": "drawn", "groups": groups}
        manifest |= {"split_fingerprint": "", "class_names": names}
        write_json(folder / "manifest.json", manifest)


def _compare(place: Path, step: str, *, runs: int, tested: int) -> dict[str, float]:
    _write_runs(place, runs=runs, tested=tested)
    watch = Watch()
    compare(load_runs(place / "runs"), "bsm", resamples=1000)
    watch.step(step)
    return watch.seconds


def _runs(place: Path, count: int) -> dict[str, float]:
    """Compare two methods over many seeds."""
    return _compare(place, "compare runs", runs=count, tested=TESTED)


def _predictions(place: Path, count: int) -> dict[str, float]:
    """Compare ten runs on many test images."""
    return _compare(place, "compare 10 runs, by test images", runs=10, tested=count)


class Instant(ThreadPoolExecutor):
    """Writes what executing a notebook would leave, without a kernel."""

    def submit(self, work: Any, /, *given: Any, **more: Any) -> Any:
        """Take the job alone."""
        return super().submit(self._write, *given)

    @staticmethod
    def _write(job: Job) -> Outcome:
        for path in (job.executed, job.page):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}", encoding="utf-8")
        return Outcome("", 1.0)


def _notebooks(place: Path, count: int) -> dict[str, float]:
    """Report on many notebooks, and again when nothing has changed."""
    cell = new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell, new_code_cell("seed")]), place / "small.ipynb")
    entry = {"notebook": "small.ipynb", "matrix": {"seed": list(range(count))}}
    (place / "plan.yaml").write_text(json.dumps({"title": "Many", "notebooks": {"small": entry}}))
    watch = Watch()
    for step in ("report, without the kernels", "report, nothing has changed"):
        with Instant(1) as executor:
            run_plan(place / "plan.yaml", out=place / "out", executor=executor, progress=False)
        watch.step(step)
    return watch.seconds


WORKS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "data": _data,
    "features": _features,
    "predictions": _predictions,
    "runs": _runs,
    "notebooks": _notebooks,
}
