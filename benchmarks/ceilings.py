"""What a machine could do at most, measured, and how much of it a step uses."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

TRIES = 5
SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices: large enough that starting costs nothing
COPIED = {"cpu": 1 << 28, "cuda": 1 << 32}  # bytes: more than a cache holds
ROWS = 12  # of a profile


class Ceilings(NamedTuple):
    """The most of a machine that was seen.

    Attributes:
        copy: Bytes a second read and written by a copy.
        matmul: Floating point operations a second of a matrix product, by precision.
    """

    copy: float
    matmul: dict[str, float]


def measure_ceilings(device: torch.device) -> Ceilings:
    """Time a large copy and large matrix products, the best of five.

    Args:
        device: Where.

    Example:
        >>> measure_ceilings(torch.device("cpu")).copy > 1e8
        True
    """
    side, count = SIDES[device.type], COPIED[device.type]
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * count / _fastest(lambda: target.copy_(source), device)
    products = {}
    # Convolutions take TF32 on a GPU unless that is switched off: their ceiling is one of TF32.
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        matrix = torch.ones(side, side, dtype=dtype, device=device)
        products[name] = 2 * side**3 / _fastest(partial(torch.mm, matrix, matrix), device)
    torch.set_float32_matmul_precision(before)
    return Ceilings(copied, products)


def share_of_ceilings(
    runs: Mapping[str, Callable[[], int]], ceilings: Ceilings, *, device: torch.device
) -> pd.DataFrame:
    """Tell how near some work comes to what the machine could do.

    Operations and bytes are counted, not read off a chip: operations of products and
    convolutions, and bytes as if every operation read and wrote main memory. What stays in a
    cache or is fused moves less, so that the share of a copy may pass 1.

    Args:
        runs: Work by name, telling its number of images; done once before the clock runs. What
            has ``bfloat16`` in its name is measured with that ceiling.
        ceilings: Of the same device.
        device: Where it computes.

    Returns:
        A row each: ``variant``, ``images_per_second``, ``gflop_per_image``,
        ``tflop_per_second``, ``share_of_matmul``, ``mb_per_image``, ``gb_per_second``,
        ``share_of_copy``.
    """
    rows = []
    for name, run in runs.items():
        flops, moved = _counted(run)
        count = run()
        seconds = _fastest(run, device, tries=3)
        peak = ceilings.matmul["bfloat16" if "bfloat16" in name else "float32"]
        rows.append(
            {
                "variant": name,
                "images_per_second": count / seconds,
                "gflop_per_image": flops / count / 1e9,
                "tflop_per_second": flops / seconds / 1e12,
                "share_of_matmul": flops / seconds / peak,
                "mb_per_image": moved / count / 1e6,
                "gb_per_second": moved / seconds / 1e9,
                "share_of_copy": moved / seconds / ceilings.copy,
            }
        )
    return pd.DataFrame(rows)


def profile_step(run: Callable[[], int], *, device: torch.device) -> pd.DataFrame:
    """Tell which operations a piece of work spends its time in.

    Args:
        run: The work.
        device: Where it computes.

    Returns:
        The twelve largest: ``operation``, ``share`` of the time that operations take themselves,
        ``calls``; and a row ``all others``.
    """
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    run()
    with profile(activities=activities) as seen:
        run()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    # With a GPU, what called a kernel is told the kernel's time, too.
    events = [e for e in seen.key_averages() if not cuda or e.device_type == DeviceType.CUDA]
    table = pd.DataFrame(
        [(event.key, getattr(event, key), event.count) for event in events],
        columns=["operation", "share", "calls"],
    ).sort_values("share", ascending=False, ignore_index=True)
    table["share"] /= table["share"].sum()
    rest = table.iloc[ROWS:]
    others = {"operation": "all others", "share": rest["share"].sum(), "calls": rest["calls"].sum()}
    return pd.concat([table.iloc[:ROWS], pd.DataFrame([others])], ignore_index=True)


class _Moved(TorchDispatchMode):
    """Counts the bytes of all tensors that operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for leaf in tree_leaves((args, kwargs, result)):
                if isinstance(leaf, Tensor):
                    self.count += leaf.numel() * leaf.element_size()
        return result


def _counted(run: Callable[[], int]) -> tuple[int, int]:
    with FlopCounterMode(display=False) as flops:
        run()
    with _Moved() as moved:
        run()
    return flops.get_total_flops(), moved.count


def _fastest(run: Callable[[], object], device: torch.device, tries: int = TRIES) -> float:
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
