"""The processes of a run are started: one, or as many as torchrun has made."""

import logging
import os
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError, WorkError
from fopro_lab.training.peers import Peers
from fopro_lab.training.processes import Processes


class Started(NamedTuple):
    """What a run begins with: the fabric, and who takes part."""

    fabric: Fabric
    processes: Processes


def launched() -> bool:
    """Tell whether torchrun has started several processes, of which this is one."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Tell whether this process may print results: there is one only, or it is the first."""
    return not launched() or os.environ["RANK"] == "0"


def start(config: TrainConfig) -> Started:
    """Choose the device, and join the other processes if torchrun has started several.

    Args:
        config: Device, precision, batch size.

    Returns:
        One process without a group, or one of a group.

    Raises:
        InputError: If there is no such GPU, or the batch cannot be shared out.
        WorkError: If the processes do not find each other.

    Example:
        >>> start(TrainConfig(device="cpu")).processes.world_size
        1
    """
    cuda = torch.cuda.is_available() and config.device != "cpu"
    how: dict[str, Any] = {
        "accelerator": "cuda" if cuda else "cpu",
        "precision": config.precision,
    }
    try:
        if config.device == "cuda" and not cuda:
            raise InputError(
                "device: expected a CUDA device on this machine, got none; use device=cpu"
            )
        if not launched():
            return Started(fabric := Fabric(devices=1, **how), Processes(device=fabric.device))
        here = _checked(config, cuda=cuda)
    except InputError as error:  # they are not joined yet, so that one a machine tells it
        error.told = launched() and os.environ["LOCAL_RANK"] != "0"
        raise
    world_size = int(os.environ["WORLD_SIZE"])
    fabric = Fabric(devices=here, num_nodes=world_size // here, strategy="ddp", **how)
    for name in ("lightning_fabric.utilities.distributed", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a banner about the group
    rank = int(os.environ["RANK"])
    try:
        fabric.launch()
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
            timeout=timedelta(seconds=60), wait_for_workers=False,
        )  # fmt: skip
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        notes = dist.PrefixStore(f"fopro attempt {attempt}", store)
        peers = Peers(notes, rank=rank, world_size=world_size)
    except RuntimeError as error:
        told = str(error).partition("\n")[0]
        raise WorkError(f"the {world_size} processes did not find each other: {told}") from error
    return Started(fabric, Processes(rank, world_size, fabric.device, peers))


def _checked(config: TrainConfig, *, cuda: bool) -> int:
    """Refuse what several processes cannot share; return how many are on this machine."""
    world_size, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size: expected a multiple of the {world_size} processes, got "
            f"{config.batch_size}; it is that of all processes together"
        )
    if config.batch_size < 2 * world_size and not config.sync_batch_norm:
        raise InputError(
            f"batch_size: expected {2 * world_size} or more, 2 a process, got {config.batch_size}; "
            "or use sync_batch_norm=true"
        )
    if world_size % here:
        raise InputError(f"torchrun: expected as many processes on every machine, got {here} here")
    if cuda and torch.cuda.device_count() < here:
        raise InputError(
            f"torchrun: expected up to {torch.cuda.device_count()} processes, one a GPU, got {here}"
        )
    return here
