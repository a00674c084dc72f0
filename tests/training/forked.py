"""Runs in processes of their own, forked from one that has imported everything before."""

import multiprocessing
import os
import socket
from pathlib import Path

from fopro_lab.config import TrainConfig
from fopro_lab.training import distill
from tests.forked import CONTEXT

TINY = {"images": 150, "image_size": 16, "epochs": 3, "batch_size": 16, "prompt_steps": 2,
        "prompt_every": 1, "prompt_rows": 4, "device": "cpu"}  # fmt: skip


def start(folder: Path, options: dict, *, count: int = 1) -> list[multiprocessing.Process]:
    """Start a run in one process, or in several with what torchrun tells each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        CONTEXT.Process(
            target=_train, args=(folder, options, rank, count, port, dict(os.environ)), daemon=True
        )
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def _train(
    folder: Path, options: dict, rank: int, count: int, port: int, environment: dict[str, str]
) -> None:
    os.environ.update(environment)  # their server may be of another test
    if count > 1:
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        told |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {name: str(value) for name, value in told.items()}
    distill(TrainConfig.from_mapping(options), out=folder, verbose=False)
