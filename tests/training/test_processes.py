"""Two processes of torchrun on a CPU: the numbers of one, one writer, and an end that is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch.distributed as dist

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.evaluation import Run
from fopro_lab.training import distill
from fopro_lab.training import run_folder as checkpoints
from fopro_lab.training import train as saving
from fopro_lab.training import train as starting
from fopro_lab.training.train import Peers

pytestmark = pytest.mark.slow

# All that a batch draws, gradients of several batches, and a moving average. No check on held-out
# images: it would keep the prompt that changes nothing, and so hide what is drawn. No Adam: its
# first steps turn the last digit of a gradient near 0 into a whole step.
KNOBS = {
    "method": "random",
    "random_gains": "per-image",
    "prompt_form": "generator",
    "prompt_rows": 4,
    "prompt_learning_rate": 0.1,
    "images": 200,
    "image_size": 16,
    "epochs": 2,
    "batch_size": 12,
    "prompt_steps": 4,
    "prompt_check_every": 0,
    "prompt_every": 1,
    "prompted_fraction": 1.0,
    "optimiser": "sgd",
    "schedule": "cosine",
    "accumulate": 2,
    "ema_decay": 0.9,
    "mixup_alpha": 0.2,
    "sync_batch_norm": True,
    "device": "cpu",
    "threads": 1,
}
LOSSES = ["loss", "loss_classes", "loss_second", "loss_distill"]
# Right is within 2e-6. Wrong answers: noise or places of the gains that each process draws for
# itself move the loss by 0.010 and logits by 0.0015, batch norms that see their own share by more
# than 100 times this bound, as a test below asks.
CLOSE = 2e-5
ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120.0  # seconds, for a machine that has much else to do


def torchrun(*words: str, processes: int = 2) -> subprocess.Popen:
    """Start torchrun in a group of its own, so that Ctrl-C is its alone."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, "--nproc-per-node", str(processes), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def start(folder: Path, knobs: dict, *, processes: int = 2) -> subprocess.Popen:
    settings = [
        w for k, v in knobs.items() for w in ("--set", f"{k}={json.dumps(v).strip(chr(34))}")
    ]
    return torchrun("-m", "fopro_lab", "train", *settings, "--out", str(folder),
                    processes=processes)  # fmt: skip


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        told, complaint = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, told, complaint


def trained(folder: Path, knobs: dict) -> Run:
    code, told, complaint = ended(start(folder, knobs))
    assert code == 0, complaint
    assert told.count("best epoch") == 1, told
    return Run.read(folder)


def lines(complaint: str) -> list[str]:
    return [line for line in complaint.splitlines() if line.startswith("fopro: ")]


def started_until_saved(folder: Path, knobs: dict) -> subprocess.Popen:
    process = start(folder, {**knobs, "method": "fopro", "checkpoint_minutes": 1e-9, "epochs": 40})
    until = time.monotonic() + LIMIT
    while not (folder / checkpoints.FILE).exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)
    return process


def logits(run: Run) -> np.ndarray:
    return run.predictions.filter(like="logit_").to_numpy()


def assert_close(found: Run, whole: Run) -> None:
    np.testing.assert_allclose(found.history[LOSSES], whole.history[LOSSES], rtol=0, atol=CLOSE)
    keys = ["image", "split", "label"]
    assert found.predictions[keys].equals(whole.predictions[keys])
    assert found.predictions["image"].is_unique
    np.testing.assert_allclose(logits(found), logits(whole), rtol=0, atol=CLOSE)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Run:
    config = TrainConfig.from_mapping(KNOBS)
    return distill(config, out=tmp_path_factory.mktemp("one") / "run", verbose=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Run:
    return trained(tmp_path_factory.mktemp("two") / "run", KNOBS)


def test_two_processes_have_the_curve_and_the_answers_of_one(one, two):
    assert_close(two, one)
    assert (one.manifest["processes"], two.manifest["processes"]) == (1, 2)
    assert one.config == two.config


def test_batch_norms_that_are_not_synchronised_are_another_training(one, tmp_path):
    found = trained(tmp_path / "run", {**KNOBS, "sync_batch_norm": False})
    moved = (found.history[LOSSES] - one.history[LOSSES]).abs().to_numpy().max()
    assert moved > 100 * CLOSE
    assert found.predictions["image"].equals(one.predictions["image"])


def stop_after(monkeypatch, saves: int) -> None:
    """Let a run write some checkpoints, and then none any more."""
    save, left = checkpoints.save_checkpoint, [saves]

    def stopping(folder, state):
        save(folder, state)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(saving, "save_checkpoint", stopping)


# Each process has a folder of its own, as on machines without a shared disk; the first is killed
# by its own hand after some checkpoints, never if that is 0.
PROGRAM = """
import json, os, signal, sys
from fopro_lab.config import TrainConfig
from fopro_lab.training import checkpoints, distill, saving
left = [int(sys.argv[3])]
def stopping(folder, state):
    checkpoints.save_checkpoint(folder, state)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
saving.save_checkpoint = stopping
folder = sys.argv[2] + ("" if os.environ["RANK"] == "0" else "-of-another")
run = distill(TrainConfig.from_mapping(json.loads(sys.argv[1])), out=folder, verbose=False)
print(run.state, run.path.name)
"""


def apart(folder: Path, knobs: dict, *, saves: int = 0) -> tuple[int, str, str]:
    script = folder.parent / "program.py"
    script.write_text(PROGRAM)
    return ended(torchrun(str(script), json.dumps(knobs), str(folder), str(saves)))


def test_the_first_is_killed_and_two_go_on_to_the_same_bits_or_one_alone(one, two, tmp_path):
    folder, often = tmp_path / "run", {**KNOBS, "checkpoint_minutes": 1e-9}
    code, _, complaint = apart(folder, often, saves=3)
    told = [line for line in lines(complaint) if "process 1 of 2 has ended; what was" in line]
    assert code != 0 and len(told) == len(lines(complaint)) == 1, complaint
    position = checkpoints.load_checkpoint(folder)["standing"]["position"]
    assert 0 < position["batch"], "in the midst of an epoch"
    shutil.copytree(folder, tmp_path / "alone")
    again = trained(folder, KNOBS)
    np.testing.assert_array_equal(again.history[LOSSES], two.history[LOSSES])
    np.testing.assert_array_equal(logits(again), logits(two))
    config = TrainConfig.from_mapping(KNOBS)
    assert_close(distill(config, out=tmp_path / "alone", verbose=False), one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "program.py", "run"]


def test_two_go_on_where_one_was_stopped_and_the_first_alone_reads_and_writes(
    one, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    config = TrainConfig.from_mapping({**KNOBS, "checkpoint_minutes": 1e-9})
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            distill(config, out=folder, verbose=False)
    code, told, complaint = apart(folder, KNOBS)
    assert code == 0 and told.split() == ["done", "run"] * 2, complaint
    assert_close(Run.read(folder), one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.py", "run"]


def test_another_process_is_killed_and_the_run_ends_with_a_line(tmp_path):
    process = started_until_saved(tmp_path / "run", KNOBS)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = [c for c in children if b"\0RANK=1\0" in Path(f"/proc/{c}/environ").read_bytes()]
    begun = time.monotonic()
    os.kill(int(second[0]), signal.SIGKILL)
    code, _, complaint = ended(process)
    assert code != 0 and time.monotonic() - begun < 20
    assert lines(complaint) == [
        "fopro: process 2 of 2 has ended; what was finished is kept, start the same command again "
        "to go on"
    ], complaint


def test_ctrl_c_ends_all_with_one_line(tmp_path):
    process = started_until_saved(tmp_path / "run", KNOBS)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    code, _, complaint = ended(process)
    assert code != 0
    assert lines(complaint) == [
        "fopro: stopped; what was finished is kept, the same command goes on from there"
    ], complaint


def test_what_two_processes_cannot_share_is_said_once(tmp_path):
    code, _, complaint = ended(start(tmp_path / "run", {**KNOBS, "batch_size": 15}))
    assert code != 0 and not (tmp_path / "run").exists()
    assert lines(complaint) == [
        "fopro: batch_size: expected a multiple of the 2 processes, got 15; it is that of all "
        "processes together"
    ], complaint


@pytest.mark.parametrize(
    ("knobs", "here", "told"),
    [
        ({"batch_size": 6}, 4, "batch_size: expected a multiple of the 4 processes, got 6; it is "),
        (
            {"batch_size": 4},
            4,
            "batch_size: expected 8 or more, 2 a process, got 4; or use sync_batch_norm=true",
        ),
        ({"batch_size": 8}, 3, "torchrun: expected as many processes on every machine, got 3 here"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_wrong_numbers_are_told_before_the_processes_join(monkeypatch, knobs, here, told, rank):
    launched = {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": here, "RANK": rank, "LOCAL_RANK": rank,
                "TORCHELASTIC_RUN_ID": 1}  # fmt: skip
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(InputError, match=f"^{told}") as failed:
        starting.start(TrainConfig(device="cpu", **knobs))
    assert failed.value.told == (rank == 1)


def test_a_folder_that_is_held_is_refused_once(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with filelock.FileLock(folder / ".lock"):
        code, _, complaint = ended(start(folder, KNOBS))
    assert code != 0 and [path.name for path in folder.iterdir()] == [".lock"]
    assert lines(complaint) == [
        f"fopro: {folder}: another process is training this run; wait for it"
    ], complaint


def test_batch_norms_gathering_and_agreement_are_exact(tmp_path):
    code, _, complaint = ended(torchrun(str(Path(__file__).with_name("sharing.py"))))
    assert code == 0, complaint


def test_a_second_run_of_a_script_has_notes_of_its_own(capsys):
    store = dist.HashStore()
    with pytest.raises(InputError), Peers(store, rank=0, world_size=1).heard():
        raise InputError("nowhere: no such folder")
    second = Peers(store, rank=0, world_size=1)
    with second.heard():
        second.say("packed")
        second.wait_for("packed")  # which would raise the first run's error
    with second.heard():
        assert not second.notes.check(["packed"])
    assert capsys.readouterr().err == "fopro: nowhere: no such folder\n"
