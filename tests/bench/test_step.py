"""The benchmark of the step: its reference does the engine's work, its shares are counted right."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from benchmarks import step
from benchmarks.ceilings import Ceilings, measure_ceilings, profile_step, share_of_ceilings
from benchmarks.images import photograph_pack
from benchmarks.memory import peak_memory
from benchmarks.published_step import PublishedStep
from benchmarks.step import bench_step
from benchmarks.steps import epoch_of, stage_of
from benchmarks.teachers import random_resnet50
from fopro_lab.errors import InputError
from fopro_lab.training.train import train_epoch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return photograph_pack(tmp_path_factory.mktemp("photographs"), size=32, count=8)


@pytest.fixture(scope="module")
def teacher():
    return random_resnet50(32)


@pytest.fixture(scope="module")
def tables(monkeypatch_module):
    # Each fresh process of the memory costs seconds: two of the four suffice here.
    monkeypatch_module.setattr("benchmarks.memory.VARIANTS",
                               {"published step": {}, "engine": {}})  # fmt: skip
    monkeypatch_module.setattr("fopro_lab.models.teacher.torch.compile", lambda body: body)
    ceilings = Ceilings(1e10, {"float32": 1e11, "bfloat16": 2e11})
    monkeypatch_module.setattr(step, "measure_ceilings", lambda device: ceilings)
    return bench_step(rounds=3, size=32, batch=4)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_the_tables_compare_with_the_first_row_and_state_the_goals(tables):
    assert sorted(tables) == ["ceilings", "memory", "profile", "prompted", "step"]
    goals = {"step": [None, None, 1.4, None, None, 5.0], "prompted": [None, 1 / 1.1, None, None]}
    for key, expected in goals.items():
        table = tables[key]
        assert table["ratio"].iloc[0] == 1 and (table["ratio"] > 0).all()
        assert [None if math.isnan(goal) else goal for goal in table["goal"]] == expected
    assert tables["step"]["variant"].is_unique and tables["prompted"]["variant"].is_unique


def test_the_memory_is_of_the_steps(tables):
    memory = tables["memory"]
    # Weights, gradients and two moments of the student alone are 4 x 66 MB.
    assert (memory["peak_mb"] > 250).all() and (memory["peak_mb"] < 3000).all()
    assert memory["share"].iloc[0] == 1
    assert memory["reached"].tolist()[1:] == [
        "yes" if share <= 1 else "no" for share in memory["share"][1:]
    ]


def test_the_engine_is_the_published_step_in_float32(teacher, packed):
    """Folded teacher and layout change nothing but the last digits; nor does the fused Adam."""
    stage = stage_of(teacher, packed, student="resnet18", batch=8, clip_norm=1e9)
    start = copy.deepcopy(stage.state.student.state_dict())
    published = PublishedStep(stage)
    [expected] = published.epoch()
    # The bound is some twenty roundings; a norm's epsilon of 1e-3 in the teacher moves it by 1e-4.
    assert train_epoch(stage.state, stage.setup)["loss"] == pytest.approx(expected, rel=3e-6)
    theirs = dict(published.student.named_parameters())
    for name, weight in stage.state.student.named_parameters():
        gradient, other = weight.grad, theirs[name].grad
        if name.startswith(("backbone.conv1", "classifier", "projector.3", "second_classifier")):
            apart = float((gradient - other).norm() / other.norm())
            assert apart < 2e-3, (name, apart)  # one image of eight left out: over 0.1
        # Adam's first step is the rate in each weight, of the gradient's sign.
        moved, mine = theirs[name] - start[name], weight - start[name]
        sure = other.abs() > max(1e-6, 0.1 * float(other.abs().max()))
        torch.testing.assert_close(mine[sure], moved[sure], rtol=1e-3, atol=1e-8, msg=name)
    for name, value in stage.state.student.named_buffers():
        expected_value = published.student.get_buffer(name)
        torch.testing.assert_close(value, expected_value, rtol=1e-4, atol=1e-5, msg=name)


def test_operations_and_bytes_are_counted():
    layer, images = nn.Linear(30, 20, bias=False), torch.rand(5, 30)

    def run() -> int:
        with torch.no_grad():
            layer(images)
        return 5

    ceilings = Ceilings(1e9, {"float32": 1e9, "bfloat16": 4e9})
    told = share_of_ceilings({"a": run, "a, bfloat16": run}, ceilings, device=CPU)
    one, half = (told.iloc[row] for row in (0, 1))
    assert one["gflop_per_image"] == pytest.approx(2 * 30 * 20 / 1e9)
    assert one["mb_per_image"] == pytest.approx(4 * (5 * 30 + 30 * 20 + 5 * 20) / 5 / 1e6)
    speed = one["images_per_second"]
    assert one["share_of_matmul"] == pytest.approx(speed * 2 * 30 * 20 / 1e9)
    assert one["share_of_copy"] == pytest.approx(one["gb_per_second"])
    assert half["share_of_matmul"] * 4 == pytest.approx(half["tflop_per_second"] * 1e3)


def test_ceilings_are_those_of_a_machine(monkeypatch):
    monkeypatch.setattr("benchmarks.ceilings.SIDES", {"cpu": 256})
    monkeypatch.setattr("benchmarks.ceilings.COPIED", {"cpu": 1 << 24})
    found = measure_ceilings(CPU)
    # Bytes in place of kilobytes, or a product counted once, not twice, in a thousand.
    assert 1e8 < found.copy < 1e13
    assert all(1e8 < value < 1e15 for value in found.matmul.values())


def test_a_profile_names_what_takes_the_time():
    one, many = torch.rand(600, 600), torch.rand(10)

    def run() -> int:
        for _ in range(5):
            (one @ one) + many[0]
        return 1

    table = profile_step(run, device=CPU)
    assert table["operation"].iloc[0] == "aten::mm" and table["calls"].iloc[0] == 5
    assert table["share"].sum() == pytest.approx(1)
    assert table["operation"].iloc[-1] == "all others"


def test_runs_tell_their_images(teacher, packed):
    stage = stage_of(teacher, packed, student="small", batch=3)
    assert epoch_of(stage)() == 6


@pytest.mark.parametrize(("knobs", "told"), [({"size": 16}, "size"), ({"batch": 1}, "batch")])
def test_wrong_numbers_are_refused(knobs, told):
    with pytest.raises(InputError, match=f"^{told}: expected"):
        bench_step(**knobs)


def test_the_command_prints_and_keeps_the_tables(fopro, tables, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.bench_step", lambda **told: tables)
    _, printed, _ = fopro("bench", "step", "--out", tmp_path)
    assert "published step" in printed and "share_of_matmul" in printed
    [path] = tmp_path.glob("step-*.json")
    assert sorted(json.loads(path.read_text())["tables"]) == sorted(tables)
    assert (tmp_path / f"{path.stem}-step.png").stat().st_size > 10_000


def test_all_runs_each_benchmark(fopro, tables, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.__main__._measure_lab", lambda rounds: {"t": tables["step"]})
    for name in ("data", "fourier", "step"):
        monkeypatch.setattr(f"benchmarks.bench_{name}", lambda **told: {"t": tables["step"]})
    fopro("bench", "all", "--out", tmp_path)
    assert sorted(path.name.split("-")[0] for path in tmp_path.glob("*.json")) == [
        "data", "fourier", "lab", "step"
    ]  # fmt: skip


def test_peak_memory_asks_a_process_for_each(monkeypatch):
    told = iter(["200.0", "100.0", "201.0", "50.0"])
    monkeypatch.setattr("benchmarks.memory.VARIANTS", {name: {} for name in "abcd"})

    class Done:
        def __init__(self) -> None:
            self.stdout = next(told) + "\n"

    monkeypatch.setattr("benchmarks.memory.subprocess.run", lambda *a, **k: Done())
    table = peak_memory(size=32, batch=2, device="cpu")
    assert table["reached"].tolist() == ["", "yes", "no", "yes"]


def test_the_peak_grows_with_the_images_of_a_step(monkeypatch):
    monkeypatch.setattr("benchmarks.memory.VARIANTS", {"engine": {}})
    few, many = (peak_memory(size=64, batch=batch, device="cpu")["peak_mb"][0] for batch in (4, 32))
    # What a step keeps of 28 more images; without steps, or with what building took, none.
    assert many - few > 20
