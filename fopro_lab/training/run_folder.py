"""Run folders: who may write one, the checkpoint that a resume needs, and the mask history.

A run is identified by its config and data, never by the code. Everything is written atomically,
the manifest last: a folder whose manifest says ``done`` is whole.
"""

import datetime
import hashlib
import io
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from fopro_lab.config import METHOD_OPTIONS, PRESETS, TrainConfig
from fopro_lab.data import Pack, Split
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Run
from fopro_lab.evaluation.runs import MAPS_FILE, RINGS_FILE
from fopro_lab.fourier import FourierPrompt, ring_edges, ring_masks
from fopro_lab.fourier.rings import bin_counts
from fopro_lab.io import atomic_path, commit, sha256_file, sha256_text, write_file
from fopro_lab.models import Student, build_student
from fopro_lab.models.student import COSINE_LOSSES, shrink
from fopro_lab.models.teacher import PUBLISHED, fetched_weights
from fopro_lab.models.weights import fill, in_folder, read_state
from fopro_lab.options import OF_TRAINING, REMOVED
from fopro_lab.training.statistics import hash_natural

# Options that say where and how fast a run is computed, or only fill others in. They change its
# last digits at most, so they may change between two starts of one run; the manifest says so.
NOT_DECIDING = {"device", "threads", "recipe", "compile", "resident", "compile_teacher"}
NOT_DECIDING |= {"max_skipped", "checkpoint_epochs", "checkpoint_minutes"}
# Options of methods that are no preset: at their default they are not part of a run's name.
_ADDED = (*METHOD_OPTIONS, "teacher_precision", "mixup")
LATER = {name: TrainConfig.model_fields[name].default for name in _ADDED}
CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
# The mask history: names and columns are part of a run folder's form, as of version 0.1.
MOST = 24  # masks per run
SIDE = 64  # bins of a mask; a prompt is finer nowhere
RINGS = 8  # up to 0.5 cycles per pixel; the corners add one
Mask = dict[str, int | Tensor]  # exploration, step; gain: float16 (64, 33) in rfft2 order


class TrainedRun(Run):
    """A run folder together with the networks in it; unfinished runs give an `InputError`."""

    @property
    def train_config(self) -> TrainConfig:
        """The config, of a run of version 0.1 without the options that are gone."""
        return TrainConfig.from_mapping(self.config | REMOVED)

    def student(self) -> Student:
        """Build a finished run's student, on the CPU, in evaluation mode."""
        self._check_finished()
        if not (self.path / "student.safetensors").is_file():
            runs = ", ".join(self.manifest.get("refined", {}).get("runs", ())) or "another run"
            raise InputError(f"{self.path}: {self.method} has no student of its own; open {runs}")
        path = self.file("student.safetensors")
        state, config = read_state(path), self.train_config
        second = state.get("second_classifier.weight")
        how: dict[str, Any] = {"image_size": config.student_size or config.image_size}
        how |= {"rules": self.manifest.get("student", {}).get("rules")}
        how |= {"teacher_dim": 0 if second is None else second.shape[1]}
        how |= {"classes": len(self.class_names), "cosines": self.parts.loss in COSINE_LOSSES}
        student = build_student(config.student, **how)
        fill(student, state, of=path)
        return student.eval()

    def classifier(
        self, pack: Pack, split: Split, *, device: torch.device | str = "cpu"
    ) -> Callable[[Tensor], Tensor]:
        """Return the student as a function from images of this pack to logits.

        Refused if it was trained on another split, whose test images may have trained it, or size.
        """
        config, student = self.train_config, self.student().to(device)
        self.check_split(split)
        if (size := config.image_size) != pack.size:
            problem = f"sees images of {size} px, got {pack.size}"
            raise InputError(f"{self.path}: {problem}; use image_size={size}")
        return lambda images: student.classify(shrink(images.to(device), config.student_size))

    def check_split(self, split: Split) -> None:
        """Refuse a split that is not the one of this run."""
        if self.manifest["split_fingerprint"] != split.fingerprint:
            problem = f"was trained on another split ({self.manifest['protocol']})"
            way_out = "use the options of data and split that it was trained with"
            raise InputError(f"{self.path}: {problem}; {way_out}")

    def prompt(self) -> FourierPrompt:
        """Load the kept epoch's prompt; the last one's if the manifest has no ``prompt_epoch``."""
        self._check_finished()
        path = self.file("prompt.safetensors")
        if not path.exists():
            raise InputError(f"{self.path}: method '{self.method}' learns no prompt")
        return FourierPrompt.load(path)

    def _check_finished(self) -> None:
        if self.state != "done":
            raise InputError(f"{self.path}: expected a finished run, got one {self.state}")


def deciding_options(config: TrainConfig) -> dict[str, Any]:
    """Return the options that decide a run's numbers, the same ones however a method is said."""
    options = json.loads(config.model_dump_json(exclude=NOT_DECIDING))
    options |= OF_TRAINING  # gone, and part of the names of runs of before
    is_preset, parts = config.parts.label in PRESETS, config.parts._asdict()
    options["method"] = config.parts.label if is_preset else ""
    options |= dict.fromkeys(parts, "") if is_preset else parts
    return {n: v for n, v in options.items() if n not in LATER or v != LATER[n]}


def run_name(config: TrainConfig) -> str:
    """Name a run folder after what is in it, with a hash of the whole config."""
    digest = sha256_text(json.dumps(deciding_options(config), sort_keys=True))[:8]
    dataset = Path(config.dataset).name.replace(":", "_")
    label, student = (name.replace(":", "_") for name in (config.parts.label, config.student))
    return f"{dataset}-{label}-{student}-s{config.seed}-{digest}"


def find_run(
    folder: Path, config: TrainConfig, fingerprints: Mapping[str, str]
) -> TrainedRun | None:
    """Find the run in a folder, None if there is none; refuse one of another config or data.

    ``fingerprints`` are the manifest's keys that identify data, split and other files.
    """

    def refusal(problem: str) -> InputError:
        return InputError(f"{folder}: {problem}; choose another --out")

    if not (folder / "manifest.json").exists():
        if others := sorted(path.name for path in folder.glob("[!.]*")):
            raise refusal(f"expected an empty or a new folder, got one with {others[0]}")
        return None
    run = TrainedRun.read(folder)
    if "refined" in run.manifest:
        raise refusal(f"holds a refinement ({run.method})")
    both = (run.train_config, config)
    there, here = ({**LATER, **REMOVED, **deciding_options(each)} for each in both)
    there |= {n: v for n, v in run.config.items() if n in REMOVED.keys() - NOT_DECIDING}
    changed = [f"{n}: {there[n]!r} there, {here[n]!r} here" for n in here if there[n] != here[n]]
    if changed:
        raise refusal(f"holds a run of another config ({', '.join(changed[:4])})")
    teacher = run.manifest.get("teacher") or {}
    # A run that is older than a key is not compared by it; its teacher's card has a hash. But
    # random gains were not matched in drift before, and without a hash of its state a teacher is
    # the one that the config names.
    older = {"control": "not matched", "teacher_sha256": ""}
    older |= {"weights_sha256": teacher["sha256"]} if "sha256" in teacher else {}
    older |= {"teacher_rules": resizing(teacher)} if "resize" in teacher else {}
    what = {"control": "the rule of random gains"}
    what |= {"teacher_rules": "how the teacher resizes images"}
    for key, value in {"teacher_sha256": "", **fingerprints}.items():
        if run.manifest.get(key, older.get(key, value)) != value:
            name = key.removesuffix("_sha256")
            other = "the data set" if name == key else f"what '{name}' names"
            problem = f"{what.get(key, other)} has changed since this run began (another {key})"
            raise refusal(problem)
    return run


def resizing(rules: Mapping[str, Any]) -> str:
    """Say how a teacher's rules resize images: without ``resize`` the others change nothing."""
    how = f"to {rules['input_size']} px, {rules['interpolation']}"
    return how if rules["resize"] else "not at all"


def file_hashes(config: TrainConfig, *, own_teacher: bool = False) -> dict[str, str]:
    """Hash the user's files that decide a run's numbers, under the manifest's keys.

    A teacher that is an object has no file, whatever its name.
    """
    files, hashes = {"student_weights": config.student_weights}, {}
    if config.parts.is_taught and not own_teacher:
        fetched = config.teacher == PUBLISHED and not config.weights
        files["weights"] = fetched_weights(PUBLISHED) if fetched else config.weights
    if config.parts.learns_prompt:
        files["prompt_file"] = config.prompt_file
    trains = config.parts.learns_prompt and not config.prompt_file
    active = {name for name, weight in config.objectives.items() if weight and trains}
    if config.natural and (config.parts.prompt == "vptta" or active & {"statistics", "spectrum"}):
        hashes["natural_sha256"] = hash_natural(config.natural)
    if config.reference and "spectrum" in active:
        hashes["reference_sha256"] = hash_natural(config.reference)
    for name, file in files.items():
        path = Path(file).expanduser()
        if file and path.is_dir() and name == "weights":
            path = in_folder(path)[0]
        if file and not path.is_file():
            raise InputError(f"{name}: {file}: no such file")
        if file:
            hashes[f"{name}_sha256"] = sha256_file(path)
    return hashes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never write one run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(folder / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise WorkError(f"{folder}: another process is training this run; wait for it") from None
    except OSError as error:
        raise WorkError(f"{folder}: may not be written ({error.strerror})") from None
    with held:  # the file stays: removed, a waiting process would lock a file of no name
        for stale in folder.glob(".*.part"):  # of a killed process
            stale.unlink(missing_ok=True)
        yield


def origin(device: torch.device) -> dict[str, Any]:
    """Say where a number comes from: versions, commit, device."""
    packages = ("fopro_lab", "torch", "timm", "numpy", "pandas", "scikit-learn")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "commit": commit(),
        "device": f"{device.type} ({name}, {torch.get_num_threads()} threads)",
    }


def earlier_origins(
    found: Run | None, manifest: Mapping[str, Any], *, say: bool
) -> list[dict[str, Any]]:
    """List where a run was begun and resumed before, if by other versions or on another device."""
    if found is None:
        return []
    names = ("versions", "commit", "device", "processes")
    before, here = ({name: each.get(name) for name in names} for each in (found.manifest, manifest))
    changed = [f"{n} ({before[n]}, now {here[n]})" for n in names if before[n] != here[n]]
    if say and changed:
        sys.stderr.write(f"resumed with changed {', '.join(changed)}; its last digits may differ\n")
    return [*found.manifest.get("earlier", []), *([before] if changed else [])]


def now() -> str:
    """Return date and time, UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state with its hash; the one before is kept until this one is whole."""
    # torch.save reports a full disk as a RuntimeError without errno, so it writes to memory first.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    with atomic_path(folder / CHECKPOINT) as temporary:
        with open(temporary, "wb") as stream:
            stream.write(hashlib.sha256(content).digest())
            stream.write(content)
        if (folder / CHECKPOINT).exists():  # killed after this line, a run resumes from PREVIOUS
            os.replace(folder / CHECKPOINT, folder / PREVIOUS)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the last whole state of a run, on the CPU, if there is one; no code is executed.

    A damaged last state is removed, with a line on standard error, and the one before is read.
    """
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        if path.is_dir():
            raise InputError(f"{path}: expected a file, got a folder; move it away")
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            with suppress(Exception):  # one that holds code, which an unpickler answers as it likes
                return torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        if name == PREVIOUS or not (folder / PREVIOUS).exists():
            raise InputError(f"{path}: damaged checkpoint; remove {folder} to start this run again")
        path.unlink()  # otherwise it would become the previous one
        sys.stderr.write(f"{path}: damaged checkpoint; resuming from the one before\n")
    return None


def check_identity(saved: dict[str, Any], identity: Mapping[str, Any], *, folder: Path) -> None:
    """Take its identity out of a checkpoint, and refuse that of another config, data or split."""
    path, found = folder / CHECKPOINT, saved.pop("identity", None)
    if not isinstance(found, Mapping):
        sys.stderr.write(f"{path}: of an earlier version, which did not note config and data\n")
        return
    other = [name for name in identity if name in found and found[name] != identity[name]]
    if other:
        problem = f"is of another run, with another {', '.join(other[:4])}"
        raise InputError(f"{path}: {problem}; remove it to start this run again")


def hash_files(folder: Path) -> dict[str, str]:
    """Hash what a run leaves behind but for its checkpoint, so that a later change is seen."""
    ends = (".safetensors", ".csv", ".parquet")
    return {p.name: sha256_file(p) for p in sorted(folder.glob("[!.]*")) if p.suffix in ends}


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, atomically."""
    write_file(path, save(dict(state)))


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict to the CPU in plain layout, so that later steps do not change it."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


@dataclass
class MaskHistory:
    """The masks of a prompt at some steps of one prompt training; it draws no random number."""

    number: int  # which prompt training of the run, from 1
    steps: frozenset[int]  # numbers of prompt steps after which a mask is taken
    masks: list[Mask] = field(default_factory=list)

    @classmethod
    def spread(cls, number: int, *, trainings: int, steps: int) -> "MaskHistory":
        """Spread the masks of a run evenly over its prompt trainings and their ``steps``.

        ``number``, from 1, is one of at most ``trainings``; the first one begins with the initial
        prompt, and of more than 24 only some have any mask.
        """
        chosen = {0} if number == 1 else set()
        most = MOST - 1  # one is the prompt as it came
        if number % math.ceil(trainings / most) == 0 or number == trainings:
            looks = min(steps, max(1, most // trainings))
            chosen |= {round(steps * (n + 1) / looks) for n in range(looks)}
        return cls(number, frozenset(chosen))

    def look(self, prompt: FourierPrompt, step: int) -> None:
        """Take the mask if this is a step to take it at."""
        if step in self.steps:
            self.take(prompt, step)

    @torch.no_grad()
    def take(self, prompt: FourierPrompt, step: int) -> None:
        """Take the mask (geometric mean over channels and draws) in place of one of its step."""
        gain = prompt.mean_gain(size=(SIDE, SIDE)).log().mean(dim=0).exp().to("cpu", torch.float16)
        self.masks = [mask for mask in self.masks if mask["step"] != step]
        self.masks.append({"exploration": self.number, "step": step, "gain": gain})


def ring_rows(masks: Sequence[Mask]) -> pd.DataFrame:
    """Average masks over each frequency ring, geometrically, every direction alike.

    One row per mask and ring: ``exploration`` (which prompt training), ``step``, ``low``, ``high``
    (cycles per pixel), ``gain``.
    """
    edges = ring_edges(RINGS)
    bins = ring_masks(SIDE, SIDE, edges).numpy() * bin_counts(SIDE).numpy()
    rows = []
    for mask in masks:
        log_gain = np.log(torch.as_tensor(mask["gain"]).double().numpy())
        means = (bins * log_gain).sum(axis=(1, 2)) / bins.sum(axis=(1, 2))
        for (low, high), gain in zip(pairwise(edges), np.exp(means).tolist(), strict=True):
            rows.append((mask["exploration"], mask["step"], low, high, gain))
    return pd.DataFrame(rows, columns=["exploration", "step", "low", "high", "gain"])


def write_masks(folder: Path | str, masks: Sequence[Mask]) -> None:
    """Write masks into a folder: a table of rings, and maps of the whole plane.

    ``exploration_gains.parquet`` is the table of `ring_rows`; ``exploration_masks.safetensors``
    holds ``gain (T, 64, 64)``, zero frequency in the middle, ``exploration (T,)``, ``step (T,)``.
    """
    with atomic_path(Path(folder) / RINGS_FILE) as temporary:
        ring_rows(masks).to_parquet(temporary, index=False)
    halves = torch.stack([torch.as_tensor(mask["gain"]) for mask in masks])
    # The gain at -f is the gain at f.
    opposite = halves.flip(1).roll(1, 1)[..., 1:-1].flip(2)
    whole = torch.fft.fftshift(torch.cat([halves, opposite], dim=2), dim=(1, 2)).contiguous()
    times = {n: torch.tensor([int(mask[n]) for mask in masks]) for n in ("exploration", "step")}
    write_weights(Path(folder) / MAPS_FILE, {"gain": whole, **times})
