"""Two processes of torchrun on a CPU: the steps of one process, one writer, and a resume."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.evaluation import Run
from fopro_lab.training import distill
from fopro_lab.training.run_folder import CHECKPOINT, load_checkpoint
from fopro_lab.training.setup import start_fabric
from tests.conftest import refuses
from tests.fourier.toys import make
from tests.training.forked import start

# All that a batch draws, and a moving average. No Adam: its first steps turn the last digit of a
# gradient near 0 into a whole step.
OPTIONS = {
    "method": "fopro",
    "images": 190,  # 111 train: as many batches of 12 as pairs of 6
    "image_size": 16,
    "epochs": 2,
    "batch_size": 12,
    "prompted_fraction": 1.0,
    "optimiser": "sgd",
    "schedule": "cosine",
    "ema_decay": 0.9,
    "mixup_alpha": 0.2,
    "device": "cpu",
    "threads": 1,
}
LOSSES = ["loss", "loss_classes", "loss_second", "loss_distill"]
# Right is within 2e-6. Wrong answers: noise that each process draws for itself moves the loss by
# 0.003, unweighted shares or a gradient that is summed by more.
CLOSE = 2e-5
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prompt(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("prompt") / "prompt.safetensors"
    # 16 numbers of noise per image: torch draws them alike for one batch of 12 and two of 6.
    make("generator", scale=0.1, size=16, noise=16).save(path)
    return str(path)


@pytest.fixture(scope="module")
def two(tmp_path_factory, prompt) -> Run:
    folder, options = tmp_path_factory.mktemp("two"), OPTIONS | {"prompt_file": prompt}
    settings = [w for k, v in options.items() for w in ("--set", f"{k}={json.dumps(v)}")]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finished = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "fopro_lab", "train", *settings, "--out", folder],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count(" kept (") == 1  # one process alone prints
    return Run.read(folder)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(two, prompt, tmp_path):
    # Batch norms see a process's own share; of one process with two batches per step, too.
    options = OPTIONS | {"batch_size": 6, "accumulate": 2, "prompt_file": prompt}
    config = TrainConfig(**options)
    one = distill(config, out=tmp_path, verbose=False)
    np.testing.assert_allclose(two.history[LOSSES], one.history[LOSSES], rtol=0, atol=CLOSE)
    states = [load_checkpoint(run.path)["student"] for run in (one, two)]
    for name in ("backbone.conv1.weight", "projector.3.weight", "classifier.weight"):
        torch.testing.assert_close(states[1][name], states[0][name], rtol=0, atol=CLOSE)
    keys = ["image", "split", "label"]
    assert two.predictions[keys].equals(one.predictions[keys])
    assert (one.manifest["processes"], two.manifest["processes"]) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 2])
def test_two_processes_of_which_one_or_both_are_killed_resume_to_the_same_bits(
    two, prompt, tmp_path, lost
):
    options = OPTIONS | {"prompt_file": prompt}
    processes, until = start(tmp_path, options, count=2), time.monotonic() + 240
    while not (tmp_path / CHECKPOINT).exists():
        assert all(process.is_alive() for process in processes) and time.monotonic() < until
        time.sleep(0.005)
    for process in processes[-lost:]:
        process.kill()
    for process in processes:  # one that is left alone waits for nobody
        process.join(timeout=240)
        assert process.exitcode
    assert Run.read(tmp_path).state == "running"
    for process in start(tmp_path, options, count=2):
        process.join(timeout=240)
        assert process.exitcode == 0
    again = Run.read(tmp_path)
    np.testing.assert_array_equal(again.history[LOSSES], two.history[LOSSES])
    assert again.predictions.equals(two.predictions)


def test_what_several_processes_cannot_share_is_refused(monkeypatch):
    launched = {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4, "RANK": 1, "TORCHELASTIC_RUN_ID": 1}
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    for options, rule in (
        ({"batch_size": 6}, "^batch_size: expected a multiple of the 4 processes, got 6; it is "),
        ({"batch_size": 4}, "^batch_size: expected 8 or more, 2 per process, got 4"),
        ({"sync_batch_norm": True}, "^sync_batch_norm: needs GPUs with several processes; set it"),
    ):
        refuses(rule, start_fabric, TrainConfig(device="cpu", **options))


def test_a_slurm_job_of_several_tasks_is_one_process_unless_torchrun_starts_more(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    fabric = start_fabric(TrainConfig(device="cpu"))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
