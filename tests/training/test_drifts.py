import pytest
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.data import batches, prepare
from fopro_lab.fourier import apply_gain
from fopro_lab.models import load_teacher
from fopro_lab.training import distill, prompt_drifts

SMALL = {"images": 120, "image_size": 24, "epochs": 1, "prompt_steps": 2, "prompt_form": "ring"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        distill(TrainConfig(method=method, **SMALL), out=folder / method, verbose=False)
        for method in ("bsm", "fopro", "random")
    ]


def test_the_drift_of_a_learned_prompt_is_that_of_its_gain(runs):
    found = prompt_drifts(runs, count=9)
    assert found["method"].tolist() == ["fopro", "random"] and set(found["n"]) == {9}
    config = TrainConfig.from_mapping(runs[1].config)
    packed, split = prepare(config, progress=False)
    images, _ = next(batches(packed, split.val[:9], batch_size=9))
    teacher, gain = load_teacher("builtin"), runs[1].prompt().mean_gain()
    with torch.no_grad():
        plain, moved = (teacher.encode(x).double() for x in (images, apply_gain(images, gain)))
    cosine = (plain * moved).sum(1) / plain.norm(dim=1) / moved.norm(dim=1)
    # A drift of 1e-5 and more; an image too many or few changes it by a tenth.
    assert found["drift"][0] == pytest.approx(float(1 - cosine.mean()), rel=0.02, abs=2e-7)
    assert found["drift"][0] > 0


def test_the_control_is_measured_at_its_own_places(runs):
    found = prompt_drifts(runs, count=9)
    assert found["drift"][1] > 0 and found["drift"][1] != found["drift"][0]
