"""Small runs of each benchmark: what is compared does the same work, and ratios are ratios."""

import importlib
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from benchmarks import scaling
from benchmarks.data import bench_data
from benchmarks.fourier import bench_fourier, scale_by_parts, whole_gain
from benchmarks.reports import measure_ticks
from benchmarks.step import engine_epoch, plain_epoch, set_up
from benchmarks.timing import Variant, compare
from fopro_lab.data import open_dataset, pack
from fopro_lab.fourier import apply_gain
from fopro_lab.models import load_teacher
from fopro_lab.training.train import train_epoch


def test_compare_divides_by_the_first_variant_round_by_round(monkeypatch):
    """A variant takes the seconds that it returns, for three images."""
    monkeypatch.setattr("benchmarks.timing._timed", lambda run, **how: (3, run()))
    variants = [Variant("slow", lambda: 2.0), Variant("fast", lambda: 0.5, goal=5.0)]
    table = compare(variants, rounds=3)
    assert table["ratio"].tolist() == [1.0, 4.0]
    assert table["per_second"].tolist() == [1.5, 6.0]
    assert table["reached"].tolist() == ["", "no"] and math.isnan(table["goal"][0])


def test_a_variant_runs_once_per_round_without_warm_up():
    ran = []
    compare([Variant("one", lambda: ran.append(1) or 1)], rounds=1, warm_up=False)
    assert len(ran) == 1


def test_both_ways_to_scale_amplitudes_agree():
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 12, 12, generator=noise, dtype=torch.float64)
    gain = 0.5 + torch.rand(2, 3, 12, 7, generator=noise, dtype=torch.float64)
    gain[..., [0, 6]] = gain[..., 6:12, [0, 6]].mean(dim=-2, keepdim=True)  # mirrored rows agree
    ours, plain = apply_gain(images, gain), scale_by_parts(images, whole_gain(gain, width=12))
    assert torch.allclose(ours, plain, atol=1e-12)  # a wrong mirror is off by 0.1


def test_data_and_fourier_benchmarks_give_their_tables(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # starting processes takes seconds
    tables = bench_data(rounds=3, size=16, images=8, side=32, many=10)
    assert list(tables) == ["batches", "packing", "fused", "opening"]
    assert (tables["batches"]["per_second"] > 0).all()
    tables = bench_fourier(rounds=3, size=16, batch=2, devices=("cpu",))
    assert list(tables) == ["gain", "gain_backward", "rings"]
    assert all(table["ratio"][0] == 1 for table in tables.values())
    assert measure_ticks(sizes=(16,), ticks=10)["median_ms"][0] > 0


def test_the_plain_script_and_the_engine_learn_the_same():
    packed = pack(open_dataset("phantom", images=32), 32, progress=False)
    teacher = load_teacher("builtin")
    how = {"batch": 16, "student": "small", "clip_norm": 1e9}
    setup, state = set_up(packed, teacher, **how)
    losses: list[float] = []
    assert plain_epoch(setup, state, losses)() == 32
    assert engine_epoch(setup, state)() == 32
    _, again = set_up(packed, teacher, **how)
    mean = train_epoch(again, setup)["loss"]
    assert mean == pytest.approx(sum(losses) / 2, rel=1e-5)  # a skipped step is off by 1e-2


def test_a_sweep_trains_every_method_fold_and_seed(monkeypatch):
    found, module = [], importlib.import_module("benchmarks.sweep")
    monkeypatch.setattr(module, "distill", lambda config, **given: found.append((config, given)))
    run = module.sweep(views=2, size=16, images=30, epochs=4, repeats=2)
    assert run() == sum(4 * len(given["split"].train) for _, given in found)
    assert len({(c.method, given["split"].protocol, c.seed) for c, given in found}) == 16


def test_scaling_does_each_work_and_gives_exponents(tmp_path, monkeypatch):
    for work, count in {"data": 48, "features": 80, "runs": 4, "notebooks": 3}.items():
        (tmp_path / work).mkdir()
        monkeypatch.chdir(tmp_path / work)
        monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / work))
        assert min(scaling.WORKS[work](tmp_path / work, count).values()) > 0

    class Square(ThreadPoolExecutor):
        def submit(self, work, name, count):  # seconds as the square of the size
            return super().submit(lambda: ({name: count**2.0}, 1.0))

    monkeypatch.setattr(scaling, "ProcessPoolExecutor", lambda n, mp_context: Square(n))
    table = scaling.bench_scaling(images=(2, 8), runs=(2, 4), notebooks=(2, 6))["scaling"]
    assert table["exponent"].dropna().tolist() == pytest.approx([2.0] * 5)
    assert set(table["reached"]) == {"", "no"}
