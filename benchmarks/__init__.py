"""Speed as ratios, measured side by side in one run."""

from benchmarks.data import bench_data, fused_difference
from benchmarks.fourier import bench_fourier
from benchmarks.machine import machine_facts
from benchmarks.reports import bench_reports
from benchmarks.results import as_text, write_results
from benchmarks.step import bench_step
from benchmarks.ticks import measure_ticks
from benchmarks.timing import Variant, compare_rounds, time_rounds

__all__ = [
    "Variant",
    "as_text",
    "bench_data",
    "bench_fourier",
    "bench_reports",
    "bench_step",
    "compare_rounds",
    "fused_difference",
    "machine_facts",
    "measure_ticks",
    "time_rounds",
    "write_results",
]
