"""The check that proves the package on a GPU, rehearsed on a CPU with small sizes."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from fopro_lab.models.teacher import Teacher
from tools import gpu_check


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the profiler's, of a missing GPU
def test_every_part_runs_and_holds(tmp_path, capsys):
    test = tmp_path / "test_one.py"
    test.write_text("import pytest\n@pytest.mark.gpu\ndef test_one(): pass\n")
    words = ["--device", "cpu", "--tiny", "--tests", str(test), "--out", str(tmp_path)]
    code = gpu_check.main(words)
    said = capsys.readouterr().out
    assert code == 0 and "everything holds" in said, said
    (path,) = tmp_path.glob("gpu-rehearsal-*.json")
    tables = json.loads(path.read_text())["tables"]
    assert {row["holds"] for row in tables["correct"]} == {"yes"}
    assert len(tables["correct"]) == 24 and len(tables["kernels"]) == 10
    variants = {row["variant"]: row for row in tables["speed"]}
    assert variants["EKD, live"]["of_matmul"] > 0 < variants["bare ResNet-18 loop"]["of_copy"]
    assert tables["tests"][0]["pytest -m gpu"].startswith("1 passed")


def test_the_tests_for_a_gpu_are_found():
    names = {Path(file).name for file in gpu_check.marked_files()}
    assert {"test_compile.py", "test_augment.py", "test_prompt.py"} <= names
    assert len(names) < 10  # few are imported, so that few packages are needed


def test_a_wrong_result_a_failed_part_and_time_that_is_up_are_problems(monkeypatch):
    encode = Teacher.encode

    def wrong(self, images):  # of float32 alone: by a tenth, whatever its precision
        return encode(self, images) * (1 + 0.1 * (images.dtype == torch.float32))

    monkeypatch.setattr(Teacher, "encode", wrong)
    correct = list(gpu_check.check_ekd(torch.device("cpu"), gpu.TINY))
    assert any(error > bound for _, error, bound in correct)
    monkeypatch.undo()

    def broken(*_):
        yield "one", 0.0, 1.0
        raise ValueError("no such kernel")

    monkeypatch.setattr(gpu_check, "check_ekd", broken)
    monkeypatch.setattr(gpu_check, "check_resume", lambda _: iter([("drift", 1.0, 0.0)]))
    monkeypatch.setattr(gpu_check.gpu, "measure_ceilings", lambda *_: 1 / 0)
    tables, problems = gpu_check.check(torch.device("cpu"), gpu.TINY, tests=[])
    assert "EKD: ValueError: no such kernel" in problems and "drift: 1 > 0" in problems
    assert "ceilings: ZeroDivisionError: division by zero" in problems
    assert "speed" not in tables and len(tables["kernels"]) == 10
    late, problems = gpu_check.check(torch.device("cpu"), gpu.TINY, tests=[], limit=0)
    assert late["correct"].empty
    assert problems[0] == "EKD: not measured to its end, the time was up"
