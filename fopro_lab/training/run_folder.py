"""What a prompt looked like while it was explored: few masks a run, written beside its tables."""

import datetime
import hashlib
import io
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fopro_lab.config import TrainConfig
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Run
from fopro_lab.fourier import FourierPrompt, ring_edges, ring_masks
from fopro_lab.io import atomic_path, write_json
from fopro_lab.models import Student, build_student

FILE = "checkpoint/last.pt"
PREVIOUS = "checkpoint/previous.pt"
NEXT = "checkpoint/next.pt"
DAMAGED = "checkpoint/damaged.pt"
MARK = b"fopro checkpoint, sha256 "
DIGITS = 64  # of the hash that stands behind the mark, before a line's end


def save_checkpoint(run_dir: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state; the state before is kept beside it as ``previous.pt``.

    Args:
        run_dir: The run's folder.
        state: Tensors, numbers, texts, lists and dicts of them.

    Raises:
        WorkError: If the disk is full; the state before is still whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder), {"epoch": 3})
        ...     load_checkpoint(Path(folder))
        {'epoch': 3}
    """
    # torch.save reports a full disk as a RuntimeError without errno, so it writes to memory first.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    with atomic_path(run_dir / NEXT) as temporary, open(temporary, "wb") as stream:
        stream.write(MARK + hashlib.sha256(content).hexdigest().encode() + b"\n")
        stream.write(content)
    # Whole and on the disk. Killed between these two lines, a run goes on from the previous one.
    if (run_dir / FILE).exists():
        os.replace(run_dir / FILE, run_dir / PREVIOUS)
    os.replace(run_dir / NEXT, run_dir / FILE)


def load_checkpoint(
    run_dir: Path, *, tell: Callable[[str], object] | None = None
) -> dict[str, Any] | None:
    """Read the last state of a run that is whole; a damaged one is put aside and passed over.

    Args:
        run_dir: The run's folder.
        tell: Told in a line what was passed over.

    Returns:
        The state, on the CPU, or None if none was ever written.

    Raises:
        InputError: If all that is there is damaged; it never runs code.
    """
    for name in (FILE, PREVIOUS):
        path = run_dir / name
        if not path.exists():
            continue
        try:
            state = _read(path)
        except Exception:  # a damaged byte can lead the unpickler to almost any of them
            if name == FILE and (run_dir / PREVIOUS).exists():
                continue
            raise InputError(
                f"{path}: damaged checkpoint; remove {run_dir} to start this run afresh"
            ) from None
        if name == PREVIOUS and (run_dir / FILE).exists():
            os.replace(run_dir / FILE, run_dir / DAMAGED)  # else it would become the previous one
            if tell is not None:
                tell(f"{run_dir / FILE}: damaged checkpoint, put aside; going on from the one "
                     "before")  # fmt: skip
        return state
    return None


def forget_previous(run_dir: Path) -> None:
    """Remove what only a run that is not done needs beside its last checkpoint."""
    for name in (PREVIOUS, NEXT, DAMAGED):
        (run_dir / name).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    start = len(MARK) + DIGITS + 1
    if content.startswith(MARK):
        told = content[len(MARK) : start - 1].decode("ascii")
        content = content[start:]
        if hashlib.sha256(content).hexdigest() != told:
            raise ValueError("the content is not what was written")
    # Without the mark it is one of before there were marks, or nothing that torch can read.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict to the CPU in plain layout, so that later steps do not change it.

    Example:
        >>> on_cpu({"a": torch.ones(1)})
        {'a': tensor([1.])}
    """
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


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


RINGS_FILE = "exploration_gains.parquet"
MAPS_FILE = "exploration_masks.safetensors"
MOST = 24  # masks a run
SIDE = 64  # bins of a mask; a prompt is finer nowhere
RINGS = 8  # up to 0.5 cycles per pixel; the corners add one
Mask = dict[str, int | torch.Tensor]  # as a checkpoint can hold it


@dataclass
class MaskRecord:
    """Looks at a prompt now and then during one exploration, never oftener than it was told.

    A look costs a device one small network and one copy; between looks nothing is asked of it.
    No random number is drawn, so an exploration with a record ends with the same bits.

    Attributes:
        exploration: Its number in the run, from 1.
        steps: Numbers of prompt steps taken at which it looks.
        masks: What it saw: ``exploration``, ``step`` and ``gain``, float16
            ``(64, 33)`` in ``rfft2`` order, the geometric mean of channels and draws.

    Example:
        >>> record = MaskRecord(1, frozenset({0, 2}))
        >>> for step in range(4):
        ...     record.look(FourierPrompt("ring"), step)
        >>> [mask["step"] for mask in record.masks]
        [0, 2]
    """

    exploration: int
    steps: frozenset[int]
    masks: list[Mask] = field(default_factory=list)

    def look(self, prompt: FourierPrompt, step: int) -> None:
        """Take the mask if this is a step to look at.

        Args:
            prompt: As it is now.
            step: Prompt steps taken in this exploration; 0 is the prompt as it came.
        """
        if step in self.steps:
            self.take(prompt, step)

    @torch.no_grad()
    def take(self, prompt: FourierPrompt, step: int) -> None:
        """Take the mask now; another one of the same step is replaced, as by the kept prompt."""
        gain = prompt.mean_gain(size=(SIDE, SIDE)).log().mean(dim=0).exp()
        self.masks = [mask for mask in self.masks if mask["step"] != step]
        self.masks.append(
            {"exploration": self.exploration, "step": step, "gain": gain.to("cpu", torch.float16)}
        )


def record_of(number: int, *, explorations: int, steps: int) -> MaskRecord:
    """Share a run's masks out to its explorations.

    Args:
        number: Which exploration, from 1.
        explorations: How many the run has at most.
        steps: Prompt steps of one.

    Returns:
        A record that looks at evenly spaced steps: in the first exploration also at the prompt as
        it came, and of more than 24 explorations only at every so many.

    Example:
        >>> sorted(record_of(1, explorations=8, steps=20).steps)
        [0, 10, 20]
        >>> len(record_of(2, explorations=100, steps=20).steps)
        0
    """
    most = MOST - 1  # one is the prompt as it came
    stride = -(-explorations // most)
    if number % stride and number != explorations:
        return MaskRecord(number, frozenset({0} if number == 1 else ()))
    looks = min(steps, max(1, most // explorations))
    places = {round(steps * (look + 1) / looks) for look in range(looks)}
    return MaskRecord(number, frozenset(places | ({0} if number == 1 else set())))


def ring_rows(masks: Sequence[Mask]) -> pd.DataFrame:
    """Average masks over each frequency ring, geometrically, every direction alike.

    Args:
        masks: Of `MaskRecord`.

    Returns:
        A row a mask and ring: ``exploration``, ``step``, ``low``, ``high`` (cycles per pixel),
        ``gain``.

    Example:
        >>> record = MaskRecord(1, frozenset({0}))
        >>> record.look(FourierPrompt("ring"), 0)
        >>> ring_rows(record.masks)["gain"].unique().tolist()
        [1.0]
    """
    edges = ring_edges(RINGS)
    # Every column but the first and the last stands for two frequencies.
    counted = np.full(SIDE // 2 + 1, 2.0)
    counted[[0, -1]] = 1.0
    bins = ring_masks(SIDE, SIDE, edges).numpy() * counted
    rows = []
    for mask in masks:
        log_gain = np.log(torch.as_tensor(mask["gain"]).double().numpy())
        means = (bins * log_gain).sum(axis=(1, 2)) / bins.sum(axis=(1, 2))
        for (low, high), mean in zip(pairwise(edges), means, strict=True):
            place = {"exploration": mask["exploration"], "step": mask["step"]}
            rows.append({**place, "low": low, "high": high, "gain": float(np.exp(mean))})
    return pd.DataFrame(rows)


def write_masks(folder: Path | str, masks: Sequence[Mask]) -> None:
    """Write masks into a run folder, whole: a table of rings, and maps of the whole plane.

    ``exploration_gains.parquet`` is the table of `ring_rows`; ``exploration_masks.safetensors``
    holds ``gain (T, 64, 64)``, zero frequency in the middle, ``exploration (T,)`` and
    ``step (T,)``.

    Args:
        folder: Of the run.
        masks: At least one, in the order in which they were taken.

    Raises:
        WorkError: If the disk is full or may not be written.

    Example:
        >>> import tempfile
        >>> record = MaskRecord(1, frozenset({0}))
        >>> record.look(FourierPrompt("ring"), 0)
        >>> with tempfile.TemporaryDirectory() as out:
        ...     write_masks(out, record.masks)
        ...     len(pd.read_parquet(f"{out}/{RINGS_FILE}"))
        9
    """
    with atomic_path(Path(folder) / RINGS_FILE) as temporary:
        ring_rows(masks).to_parquet(temporary, index=False)
    halves = torch.stack([torch.as_tensor(mask["gain"]) for mask in masks])
    columns = {
        name: torch.tensor([int(mask[name]) for mask in masks]) for name in ("exploration", "step")
    }
    with atomic_path(Path(folder) / MAPS_FILE) as temporary:
        temporary.write_bytes(save({"gain": _whole_plane(halves), **columns}))


def _whole_plane(halves: torch.Tensor) -> torch.Tensor:
    """Mirror ``(T, H, W // 2 + 1)`` into ``(T, H, W)``: the gain at -f is the gain at f."""
    opposite = halves.flip(1).roll(1, 1)[..., 1:-1].flip(2)
    return torch.fft.fftshift(torch.cat([halves, opposite], dim=2), dim=(1, 2)).contiguous()
