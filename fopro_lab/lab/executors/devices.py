"""Which GPUs a notebook may use, without importing torch."""

import os
import re
import shutil
import subprocess

_ANSWER_IN = 20.0  # seconds; a driver that is busy answers late


def visible_devices() -> list[str]:
    """List the CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Returns:
        The entries of that variable if it is set; else what ``nvidia-smi -L`` tells; empty where
        there is neither.

    Example:
        >>> all(isinstance(device, str) for device in visible_devices())
        True
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        named = [part.strip() for part in chosen.split(",")]
        # CUDA itself stops at the first entry that names no device
        return named[: next((i for i, d in enumerate(named) if d in ("", "-1")), len(named))]
    if not shutil.which("nvidia-smi"):
        return []
    try:
        told = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=_ANSWER_IN
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU \d+:.*\(UUID: ([^)]+)\)", told, flags=re.MULTILINE)
