"""What a benchmark ran on: a ratio without its machine is a rumour."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine_facts() -> dict[str, Any]:
    """Describe processor, memory and versions; no host name, no user, no path.

    Returns:
        ``date`` (UTC), ``processor``, ``cores`` this process may use, ``memory_gib``,
        ``bf16_units``, ``gpu`` (empty if none), ``system``, ``versions``.

    Example:
        >>> facts = machine_facts()
        >>> facts["cores"] >= 1, sorted(facts)[:3]
        (True, ['bf16_units', 'cores', 'date'])
    """
    import torch  # late: `fopro bench --help` does without it

    packages = ("fopro_lab", "torch", "torchvision", "numpy", "pillow")
    told = _read("/proc/cpuinfo")
    flags = next((line for line in told if line.startswith("flags")), "")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": _processor(told),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30),
        "bf16_units": " ".join(unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "system": platform.system(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
    }


def device_kind(facts: dict[str, Any]) -> str:
    """Name the kind of machine in a file's name: ``cpu2`` for two cores, else the GPU's name.

    Example:
        >>> device_kind({"gpu": "NVIDIA H200", "cores": 16}), device_kind({"gpu": "", "cores": 2})
        ('nvidia-h200', 'cpu2')
    """
    return facts["gpu"].lower().replace(" ", "-") or f"cpu{facts['cores']}"


def _processor(told: list[str]) -> str:
    name = next((line.partition(":")[2] for line in told if line.startswith("model name")), "")
    return name.strip() or platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # not known on this system
        return 0


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
