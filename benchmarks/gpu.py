"""Speed on one GPU: the engine against a bare loop, ceilings, kernels, memory, prompt training.

Every function also runs on a CPU, with small sizes: that rehearses it and measures nothing.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import timm
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import photograph_pack
from benchmarks.fourier import random_resnet50
from benchmarks.step import BF16, engine_epoch, set_up
from fopro_lab.data import Pack
from fopro_lab.models import Teacher, wrap_teacher
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD, SmallResNet
from fopro_lab.training.losses import balanced_softmax_loss
from fopro_lab.training.train import train_prompt_before_epoch

ON, OFF = {"compile": "on"}, {"compile": "off"}
BSM, KEPT = {"method": "bsm"}, {"teacher_views": 1}
ENGINE: dict[str, tuple[dict[str, Any], float | None]] = {  # options, goal in images per second
    "balanced softmax alone": (BSM | OFF, None),
    "balanced softmax alone, compiled": (BSM | ON, None),
    "EKD, live": (OFF, 7_000.0),
    "EKD, live, compiled": (ON, 7_000.0),
    "EKD, features kept": (KEPT | OFF, 15_000.0),
    "EKD, features kept, compiled": (KEPT | ON, 15_000.0),
    "EKD, live, compiled, images read ahead": (ON | {"resident": "off"}, 7_000.0),
    "EKD, live, compiled, float16 teacher": (ON | {"teacher_precision": "float16"}, 7_000.0),
    "EKD, live, compiled, batch 32": (ON | {"batch": 32}, None),
}
SHARE_OF_BARE = 0.9  # of the bare loop's speed, that balanced softmax alone should have
PROMPT_SECONDS = 60.0  # for a learned prompt


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    size: int = 224  # side of an image, pixels
    batch: int = 128
    steps: int = 40  # in an epoch that is timed
    images: int = 256  # different photographs, which come several times in an epoch
    rounds: int = 3
    prompt_steps: int = 200
    prompt_batch: int = 256
    matrix: int = 8192  # side of the matrices of the ceiling
    copied: int = 2**31  # bytes of the copy
    student: str = "resnet18"
    compiles: bool = True


TINY = Sizes(
    size=32,
    batch=4,
    steps=2,
    images=8,
    rounds=1,
    prompt_steps=2,
    prompt_batch=4,
    matrix=64,
    copied=2**16,
    student="small",
    compiles=False,
)


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, where there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], *, device: torch.device, rounds: int) -> float:
    """Time a call: the median of some rounds, after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def measure_ceilings(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Measure what the device reaches at most: ``flops`` of bf16 products, ``bytes`` of copies."""
    left, right = (
        torch.randn(sizes.matrix, sizes.matrix, device=device, dtype=torch.bfloat16)
        for _ in range(2)
    )
    source = torch.zeros(sizes.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    how: dict[str, Any] = {"device": device, "rounds": max(sizes.rounds, 3)}
    return {
        "flops": 2 * sizes.matrix**3 / seconds_of(lambda: left @ right, **how),
        "bytes": 2 * sizes.copied / seconds_of(lambda: target.copy_(source), **how),
    }


class Traffic(TorchDispatchMode):
    """Counts the bytes that every operation reads and writes, as if none were fused."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation; a view moves nothing."""
        made = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            leaves = tree_leaves((args, kwargs, made))
            self.bytes += sum(x.numel() * x.itemsize for x in leaves if isinstance(x, torch.Tensor))
        return made


def bare_loop(
    device: torch.device, sizes: Sizes, *, compiled: bool, classes: int = 8
) -> Callable[[], int]:
    """ResNet-18 as timm's benchmark trains it: bf16, channels last, the same images in each step.

    Nothing is read, augmented, clipped or checked, so it does less than any training.
    """
    network: Any = timm.create_model(
        "resnet18" if sizes.student == "resnet18" else "test_resnet", num_classes=classes
    )
    network = network.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-4, fused=True)
    network = torch.compile(network) if compiled else network
    images = torch.randn(sizes.batch, 3, sizes.size, sizes.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (sizes.batch,), device=device)
    counts = torch.arange(1, classes + 1, device=device)

    def run() -> int:
        for _ in range(sizes.steps):
            optimiser.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                logits = network(images)
            balanced_softmax_loss(logits.float(), labels, class_counts=counts).backward()
            optimiser.step()
        return sizes.steps * sizes.batch

    return run


def make_teacher(device: torch.device, sizes: Sizes) -> Teacher:
    """Make the published teacher's network with random weights, or a small one for a rehearsal."""
    if sizes.student == "resnet18":
        return random_resnet50(sizes.size).to(device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SmallResNet(width=8, classes=2)
    network.fc = nn.Identity()
    rules: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "input_size": sizes.size}
    return wrap_teacher(network, **rules, name="small, random weights").to(device)


@contextmanager
def images_for(sizes: Sizes) -> Iterator[Pack]:
    """Yield a pack of photographs, and keep features for as long as it is there."""
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        with patch.dict(os.environ, FOPRO_CACHE=place):
            yield photograph_pack(Path(place), size=sizes.size, count=sizes.images)


def speed_rows(
    device: torch.device, sizes: Sizes, ceilings: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield images per second of each variant, with its shares of the ceilings and its memory.

    ``of_matmul`` is the share of the measured ceiling of bf16 products that the convolutions and
    products reach; ``of_copy`` likewise of the copy, by the bytes that unfused operations move:
    where kernels are fused it may exceed 1.
    """
    bare: dict[bool, float] = {}
    for compiled in (False, True) if sizes.compiles else (False,):
        name = "bare ResNet-18 loop" + ", compiled" * compiled
        row = _measure(name, bare_loop(device, sizes, compiled=compiled), device, sizes, ceilings)
        bare[compiled] = row["per_second"]
        yield row
    with images_for(sizes) as packed:
        teacher = make_teacher(device, sizes)
        how: dict[str, Any] = {"batch": sizes.batch, "student": sizes.student, **BF16}
        how |= {"augment": "published", "repeats": sizes.steps * sizes.batch // len(packed)}
        for name, (options, goal) in ENGINE.items():
            compiled = options["compile"] == "on"
            if compiled and not sizes.compiles:
                continue
            began = time.perf_counter()
            given: Teacher | None = teacher
            if options.get("method") == "bsm":
                given, goal = None, SHARE_OF_BARE * bare[compiled]
                options = {**options, "device": device.type}
            made = set_up(packed, given, **{**how, **options})
            yield _measure(name, engine_epoch(*made), device, sizes, ceilings, goal, began)


def _measure(
    name: str,
    run: Callable[[], int],
    device: torch.device,
    sizes: Sizes,
    ceilings: dict[str, float],
    goal: float | None = None,
    began: float = 0.0,
) -> dict[str, Any]:
    began = began or time.perf_counter()
    count = run()  # compiles, fills, chooses kernels
    synchronize(device)
    first = time.perf_counter() - began
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    speed = count / seconds_of(run, device=device, rounds=sizes.rounds)
    row: dict[str, Any] = {"variant": name, "per_second": speed, "goal": goal}
    row["reached"] = "" if goal is None else "yes" if speed >= goal else "no"
    row["first_seconds"] = first
    row["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
    row |= {"of_matmul": None, "of_copy": None}
    if "compiled" not in name:  # what is counted are operations before they are fused
        with FlopCounterMode(display=False) as flops:
            run()
        with Traffic() as traffic:
            run()
        row["of_matmul"] = speed * flops.get_total_flops() / count / ceilings["flops"]
        row["of_copy"] = speed * traffic.bytes / count / ceilings["bytes"]
    return row


def top_kernels(device: torch.device, sizes: Sizes, *, count: int = 10) -> pd.DataFrame:
    """Profile an epoch of EKD, live: the operations that take most of the device's time.

    Returns:
        ``kernel``, ``calls``, ``milliseconds`` and ``share`` of the time of all.
    """
    with images_for(sizes) as packed:
        how: dict[str, Any] = {"batch": sizes.batch, "student": sizes.student, **BF16}
        how |= {"repeats": max(1, sizes.steps * sizes.batch // len(packed) // 4)}
        run = engine_epoch(*set_up(packed, make_teacher(device, sizes), **how))
        run()
        kinds = [ProfilerActivity.CPU]
        kinds += [ProfilerActivity.CUDA] if device.type == "cuda" else []
        with profile(activities=kinds) as found:
            run()
            synchronize(device)
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = [(e.key[:80], e.count, getattr(e, key) / 1e3) for e in found.key_averages()]
    table = pd.DataFrame(rows, columns=["kernel", "calls", "milliseconds"])
    table["share"] = table["milliseconds"] / table["milliseconds"].sum()
    return table.nlargest(count, "milliseconds").reset_index(drop=True)


def learned_prompt(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Time the training of a prompt on the published teacher's network."""
    options: dict[str, Any] = {"prompt_steps": sizes.prompt_steps, "method": "fopro", **BF16}
    with images_for(sizes) as packed:
        made = set_up(
            packed,
            make_teacher(device, sizes),
            batch=min(sizes.prompt_batch, len(packed)),
            student=sizes.student,
            **options,
        )
        start = time.perf_counter()
        train_prompt_before_epoch(made[1], made[0])
        synchronize(device)
        taken = time.perf_counter() - start
    speed = sizes.prompt_steps * min(sizes.prompt_batch, sizes.images) / taken
    row = {"variant": f"learned prompt, {sizes.prompt_steps} steps", "per_second": speed}
    goal = sizes.prompt_steps * sizes.prompt_batch / PROMPT_SECONDS
    return row | {"goal": goal, "reached": "yes" if speed >= goal else "no", "seconds": taken}
