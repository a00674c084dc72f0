"""Speed as ratios, measured side by side in one run."""

from fopro_lab.bench.data import bench_data, fused_difference
from fopro_lab.bench.fourier import bench_fourier
from fopro_lab.bench.machine import machine_facts
from fopro_lab.bench.reports import bench_reports
from fopro_lab.bench.results import as_text, write_results
from fopro_lab.bench.step import bench_step
from fopro_lab.bench.ticks import measure_ticks
from fopro_lab.bench.timing import Variant, compare_rounds, time_rounds

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
