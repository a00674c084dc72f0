"""Run folders: one run each, begun once, resumed or returned, never overwritten."""

import datetime
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors.torch import load_file, save

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Run
from fopro_lab.files import atomic_path, write_json
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import Student, build_student

# What may change between two starts of one run: it does not change the numbers. A recipe's values
# stand in the knobs that it fills.
FREE = ("device", "threads", "recipe", "checkpoint_epochs", "checkpoint_minutes")


class TrainedRun(Run):
    """A run folder together with the networks in it."""

    def student(self) -> Student:
        """Build the student and fill it with the best epoch's weights, in evaluation mode."""
        config = TrainConfig.from_mapping(self.config)
        teacher = self.manifest["teacher"]
        student = build_student(
            config.student,
            classes=len(self.class_names),
            teacher_dim=teacher["feature_dim"] if teacher else 0,
        )
        student.load_state_dict(load_file(self.path / "student.safetensors"))
        return student.eval()

    def prompt(self) -> FourierPrompt:
        """Load the prompt as it was in the last epoch.

        Raises:
            InputError: If the run's method learns none.
        """
        path = self.path / "prompt.safetensors"
        if not path.exists():
            raise InputError(f"{self.path}: method '{self.method}' learns no prompt")
        return FourierPrompt.load(path)


def run_name(config: TrainConfig) -> str:
    """Name a run folder after what is in it, with a hash of the whole config.

    Example:
        >>> run_name(TrainConfig(method="ekd", seed=2)).rpartition("-")[0]
        'phantom-ekd-small-s2'
    """
    text = json.dumps(identity(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    dataset = Path(config.dataset).name.replace(":", "_")
    return f"{dataset}-{config.method}-{config.student}-s{config.seed}-{digest}"


def identity(config: TrainConfig) -> dict[str, Any]:
    """Return the knobs that decide the numbers: all but where they are computed.

    Example:
        >>> identity(TrainConfig(device="cpu")) == identity(TrainConfig(threads=1))
        True
    """
    return json.loads(config.model_dump_json(exclude=set(FREE)))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never write one run.

    Raises:
        WorkError: If another process holds it, or it may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise WorkError(f"{folder}: another process is training this run; wait for it") from None
    except OSError as error:
        raise WorkError(f"{folder}: may not be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()  # the file stays: to remove it would let a waiting process lock a ghost


def found_run(folder: Path, config: TrainConfig, fingerprints: dict[str, str]) -> TrainedRun | None:
    """Find the run that was begun in a folder, and refuse one of another config or other data.

    Args:
        folder: The run's folder.
        config: What is to be run now.
        fingerprints: Manifest keys that tell data and split.

    Returns:
        The run, or None if the folder holds none.

    Raises:
        InputError: If the folder holds another run; says what differs.
    """
    if not (folder / "manifest.json").exists():
        others = [path.name for path in folder.glob("*")] if folder.is_dir() else []
        if any(not name.startswith(".") for name in others):
            raise InputError(
                f"{folder}: expected an empty or a new folder, got one with {sorted(others)[0]}; "
                "choose another --out"
            )
        return None
    run = TrainedRun.read(folder)
    now = identity(config)
    # A run of before a knob was there is one with the knob at its default.
    then = identity(TrainConfig.from_mapping({})) | {
        k: v for k, v in run.config.items() if k not in FREE
    }
    changed = [k for k in sorted(now | then) if now.get(k) != then.get(k)]
    if changed:
        told = ", ".join(f"{k}: {then.get(k)!r} there, {now.get(k)!r} here" for k in changed[:4])
        raise InputError(f"{folder}: holds a run of another config ({told}); choose another --out")
    for key, value in fingerprints.items():
        if run.manifest.get(key) != value:
            what = "the prompt's file" if key.startswith("prompt") else "the data set"
            raise InputError(f"{folder}: its {key} is another one: {what} has changed since; "
                             "choose another --out")  # fmt: skip
    return run


def write_weights(
    folder: Path, student: dict[str, torch.Tensor], prompt: FourierPrompt | None
) -> None:
    """Write the best student, and the prompt if there is one."""
    with atomic_path(folder / "student.safetensors") as temporary:
        temporary.write_bytes(save(student))
    if prompt is not None:
        prompt.save(folder / "prompt.safetensors")


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write ``manifest.json``; see `fopro_lab.evaluation.runs` for its keys."""
    write_json(folder / "manifest.json", content)


def now() -> str:
    """Return date and time, UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def origin(device: torch.device) -> dict[str, Any]:
    """Say where a number comes from: versions, commit, device.

    Example:
        >>> sorted(origin(torch.device("cpu")))
        ['commit', 'device', 'versions']
    """
    packages = ("fopro_lab", "torch", "timm", "numpy", "pandas", "scikit-learn")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "commit": _commit(),
        "device": f"{device.type} ({name}, {torch.get_num_threads()} threads)",
    }


def _commit() -> str:
    """Describe the checkout this file is tracked in; empty for an installed package."""
    tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    described = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        for command in (tracked, described):
            told = subprocess.run(
                command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
            )
            if told.returncode != 0:
                return ""
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip()
