"""Killed as by the kernel, at moments nobody chose, and started again: the same bits."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fopro_lab.evaluation import Run

KNOBS = {
    "method": "fopro",
    "images": 200,
    "image_size": 24,
    "epochs": 2,
    "batch_size": 8,
    "prompt_every": 1,
    "prompt_steps": 6,
    "prompt_rows": 4,
    "optimiser": "adamw",
    "schedule": "cosine",
    "lr_warmup": 0.5,
    "ema_decay": 0.95,
    "accumulate": 2,
    "sampler": "progressive",
    "mixup_alpha": 0.2,
    "checkpoint_minutes": 0.001,
    "device": "cpu",
    "threads": 1,
}
PROGRAM = """
import json, sys
from fopro_lab.config import TrainConfig
from fopro_lab.training import distill
print("ready", flush=True)
distill(TrainConfig.from_mapping(json.loads(sys.argv[1])), out=sys.argv[2], verbose=False)
"""


def start(folder: Path) -> subprocess.Popen:
    """Start a run in a process of its own, and wait until it is about to begin."""
    words = [sys.executable, "-c", PROGRAM, json.dumps(KNOBS), str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen) -> None:
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint


def hashes(folder: Path) -> dict[str, str]:
    """Hash what a run is about: its weights, its prompt, its answers."""
    found = {}
    for name in ("student.safetensors", "prompt.safetensors"):
        digest = hashlib.sha256()
        for key, value in sorted(load_file(folder / name).items()):
            digest.update(key.encode() + value.numpy().tobytes())
        found[name] = digest.hexdigest()
    table = Run.read(folder).predictions
    found["predictions"] = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
    return found


def killed_runs(folder: Path, *, kills: int, seed: int) -> tuple[int, list[dict[str, str]]]:
    """Kill runs until enough were hit in the midst; the last one is left to end."""
    chance = random.Random(seed)
    first, begun = start(folder / "whole"), time.monotonic()
    finish(first)
    length = time.monotonic() - begun
    ended, hit, place = [hashes(folder / "whole")], 0, folder / "0"
    while hit < kills:
        process = start(place)
        time.sleep(chance.uniform(0, length / 2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hit += process.returncode == -signal.SIGKILL
        if process.returncode == 0:  # it was done before: the next kill meets a new run
            ended.append(hashes(place))
            place = folder / str(len(ended))
    finish(start(place))
    return hit, [*ended, hashes(place)]


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_same_bits(tmp_path):
    hit, ended = killed_runs(tmp_path, kills=3, seed=time.time_ns())
    assert hit == 3 and len(ended) >= 2
    assert all(found == ended[0] for found in ended), ended


@pytest.mark.nightly
def test_a_run_killed_twenty_times_ends_with_the_same_bits(tmp_path):
    hit, ended = killed_runs(tmp_path, kills=20, seed=time.time_ns())
    assert hit == 20 and len(ended) >= 2
    assert all(found == ended[0] for found in ended), ended
