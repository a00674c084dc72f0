"""A long training holds no more memory and no more open files at its end than early on."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

EPOCHS = 200
OPTIONS = ("method=fopro", "images=150", "image_size=16", f"epochs={EPOCHS}", "batch_size=16",
         "prompt_steps=2", "prompt_every=5", "prompt_rows=4", "ema_decay=0.9",
         "schedule=cosine", "device=cpu", "threads=1")  # fmt: skip


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to read a process's size")
def test_memory_and_open_files_stay_flat_over_200_epochs(tmp_path):
    words = [word for option in OPTIONS for word in ("--set", option)]
    command = [sys.executable, "-m", "fopro_lab", "train", *words, "--out", str(tmp_path / "run")]
    seen = []
    with open(tmp_path / "log", "w") as log:
        training = subprocess.Popen(command, stdout=log, stderr=log)
    while training.poll() is None:
        time.sleep(0.1)
        try:
            resident = int(Path(f"/proc/{training.pid}/statm").read_text().split()[1]) * 4096 / 1e6
            opened = len(os.listdir(f"/proc/{training.pid}/fd"))
            done = len(pd.read_csv(tmp_path / "run" / "history.csv"))
        except (OSError, ValueError, IndexError, pd.errors.EmptyDataError):
            continue  # before its first epoch, or after its last
        seen.append((done, resident, opened))
    assert training.returncode == 0, (tmp_path / "log").read_text()
    table = pd.DataFrame(seen, columns=["epoch", "megabytes", "files"])
    early = table[table["epoch"].between(20, 60)]
    late = table[table["epoch"] > EPOCHS - 40]
    assert len(early) > 20 and len(late) > 20
    # 140 epochs lie between: 10 MB are 70 kB an epoch, a fifteenth of one copy of
    # the student.
    grown = statistics.median(late["megabytes"]) - statistics.median(early["megabytes"])
    assert grown < 10, table.groupby("epoch")["megabytes"].median().to_string()
    assert late["files"].median() <= early["files"].median()
