"""Compiled networks: the same steps as without, and one line where they cannot be compiled."""

import pytest
import torch
from torch._dynamo.utils import counters

from fopro_lab.config import TrainConfig
from fopro_lab.evaluation import Run
from fopro_lab.training import distill
from tests.training.forked import TINY

EKD = TINY | {"method": "ekd", "epochs": 1, "optimiser": "sgd", "compile": "on"}
COMPILE = torch.compile


def run(folder, **options) -> Run:
    return distill(TrainConfig(**EKD | options), out=folder, verbose=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_networks_take_the_steps_of_plain_ones(tmp_path, monkeypatch, capsys):
    # Traced, and the way back too, as for any backend; without a C++ compiler's minutes.
    traced = []

    def compile(network, **how):
        traced.append(how)
        return COMPILE(network, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile)
    plain = run(tmp_path / "off", compile="off")
    counters.clear()
    fast = run(tmp_path / "on", compile="on")
    assert counters["stats"]["unique_graphs"] == 2  # before the first step, and none in it
    said = capsys.readouterr().err
    assert "teacher compiled in" in said and "student compiled in" in said
    assert traced == [{"options": {"freezing": True}}, {}]
    assert set(fast.manifest["compile_seconds"]) == {"teacher", "student"}
    # Grey images that had moved the batch norms would change the first loss by 0.1.
    assert fast.history["loss"][0] == pytest.approx(plain.history["loss"][0], rel=1e-5)
    assert run(tmp_path / "on", compile="off").manifest["finished"] == fast.manifest["finished"]


@pytest.mark.filterwarnings("default")
def test_what_cannot_be_compiled_stays_as_it_is_with_one_line(tmp_path, monkeypatch, capsys):
    def broken(network, **how):
        def call(images):
            raise RuntimeError("Failed to find C compiler\nsee the manual")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    plain, found = (run(tmp_path / name, compile=name) for name in ("off", "on"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "not compiled" in line]
    why = "not compiled (RuntimeError: Failed to find C compiler)"
    assert lines == [f"fopro: teacher {why}", f"fopro: student {why}"]
    assert found.history["loss"].tolist() == plain.history["loss"].tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 16},
        {"batch_size": 16, "accumulate": 2, "distillation": "kd"},  # replayed features are kept
        {"batch_size": 64, "teacher_views": 2},
    ],
)
def test_on_a_gpu_compiled_and_resident_is_the_plain_run(tmp_path, monkeypatch, options):
    monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / "cache"))
    how = {"device": "cuda", "epochs": 2, **options}
    plain = run(tmp_path / "plain", **how, compile="off", resident="off")
    fast = run(tmp_path / "fast", **how, compile="on", resident="on")
    # TF32 in another order; a step that is left out is off by more.
    assert fast.history["loss"].tolist() == pytest.approx(plain.history["loss"].tolist(), rel=1e-2)
