"""Run folders, as an analysis reads them: manifest, predictions, history and mask history."""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fopro_lab.config import Parts, parts_of
from fopro_lab.errors import InputError
from fopro_lab.evaluation.scores import read_predictions, score
from fopro_lab.io import Summary, read_json, sha256_file, some
from fopro_lab.options import current_options

RunType = TypeVar("RunType", bound="Run")
# Written by `fopro_lab.training.run_folder`; the names are part of a run folder's format.
RINGS_FILE, MAPS_FILE = "exploration_gains.parquet", "exploration_masks.safetensors"

COSTS = ("parameters", "macs", "megabytes")  # of a run's student, see `measure_cost`
MAKERS = "notebook 04_train and `fopro train` make runs"


@dataclass(frozen=True, eq=False, repr=False)
class Run(Summary):
    """One run folder: its manifest now, its tables on first use."""

    _shown = ("method", "seed", "state", "path")

    path: Path
    manifest: dict[str, Any]  # content of manifest.json

    @classmethod
    def read(cls: type[RunType], path: Path | str) -> RunType:
        """Read a run folder, or its ``manifest.json``, of a finished or unfinished run."""
        folder = Path(path).parent if Path(path).name == "manifest.json" else Path(path)
        return cls(folder, _read_manifest(folder / "manifest.json"))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """All options of the training, by their names of today if version 0.1 wrote them."""
        return current_options(self.manifest["config"], warn=False)

    @property
    def method(self) -> str:
        """Method: preset or parts, what is drawn otherwise, steps after it, as ``ce+mixup+crt``."""
        sampler, drawn = self.config.get("sampler", "instance"), [self.parts.label]
        drawn += [f"{sampler}-sampler"] if sampler != "instance" else []
        drawn += ["mixup"] if self.config.get("mixup") else []
        drawn += ["balanced-mixup"] if self.config.get("mixup_alpha") else []
        refined = self.manifest.get("refined", {})
        if (method := refined.get("method", "")) and ("&" in method or "steps" not in refined):
            return str(method)
        return "+".join([*drawn, *refined.get("steps", ())])

    @property
    def parts(self) -> Parts:
        """Loss, distillation and prompt."""
        return parts_of(self.config)

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.config["seed"])

    @property
    def state(self) -> str:
        """State of the training: running, done or failed."""
        return str(self.manifest["state"])

    def file(self, name: str) -> Path:
        """Return the path of one of its files, which a finished run must still have unchanged."""
        if name in self.damaged((name,)):
            way_out = "the run's own command makes it again from the checkpoint"
            raise InputError(f"{self.path / name}: gone or not as it was written; {way_out}")
        return self.path / name

    def damaged(self, names: Iterable[str] = ()) -> list[str]:
        """List those files of a finished run, or all, that are gone or not as it wrote them."""
        known: Mapping[str, str] = self.manifest.get("files", {})
        found = []
        for name in [name for name in names or known if name in known]:
            with suppress(OSError):
                if sha256_file(self.path / name) == known[name]:
                    continue
            found.append(name)
        return found

    @property
    def complete(self) -> bool:
        """Whether it is done and its predictions are still there."""
        return self.state == "done" and (self.path / "predictions.parquet").is_file()

    @property
    def protocol(self) -> str:
        """Id of data and split; numbers of different ids are never averaged."""
        # Version 0.1 wrote "pictures" where a rule keeps no groups apart.
        return str(self.manifest["protocol"]).replace("/pictures/", "/images/")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(self.manifest["class_names"])

    @property
    def groups(self) -> dict[str, str]:
        """Head, medium or tail for each class."""
        return dict(self.manifest["groups"])

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Table of predictions, read once."""
        return read_predictions(self.file("predictions.parquet"))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch, read once."""
        path = self.file("history.csv")
        if not path.is_file():
            raise InputError(f"{path}: no such file; the run has not finished an epoch")
        table = pd.read_csv(path)
        for name in table.select_dtypes(exclude=["number", "bool"]):
            raise InputError(f"{path}: expected numbers, got text in column '{name}'")
        return table

    def table(self, *, split: str = "test", resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Score the run with its own groups and protocol; see `score`."""
        about = (self.predictions, self.groups, self.protocol)
        return score(*about, split=split, resamples=resamples, seed=seed)


def load_runs(folders: Path | str | Iterable[Path | str], *, unfinished: bool = False) -> list[Run]:
    """Find all runs in run folders, or in folders that hold some at any depth.

    They are sorted by path, each once. Those that are running or have failed are left out, with a
    warning that names them, unless ``unfinished`` are wanted.

    Raises:
        InputError: If a folder is missing or holds no such run, or a manifest is damaged.
    """
    paths = [folders] if isinstance(folders, str | Path) else list(folders)
    manifests: dict[Path, Path] = {}  # by resolved path, so that a run given twice comes once
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such folder; {MAKERS}")
        found = [path] if path.is_file() else sorted(path.rglob("manifest.json"))
        if not found:
            got = "expected a run folder or one that holds runs, got no run"
            raise InputError(f"{path}: {got}; {MAKERS}")
        manifests.update({each.resolve(): each for each in found})
    runs = [Run.read(manifests[key]) for key in sorted(manifests)]
    if unfinished:
        return runs
    left_out = [f"{run.path} ({run.state})" for run in runs if run.state != "done"]
    finished = [run for run in runs if run.state == "done"]
    if not finished:
        raise InputError(f"runs: expected a finished one, got {', '.join(left_out) or 'none'}")
    if left_out:
        warnings.warn(f"left out, not finished: {', '.join(left_out)}", stacklevel=2)
    return finished


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read and check ``manifest.json``."""
    if not path.is_file():
        below = sorted(str(each.parent) for each in path.parent.glob("*/manifest.json"))
        runs = f", such as one of: {some(below)}" if below else " that `fopro train` wrote"
        raise InputError(f"{path}: no such file; expected a run folder{runs}")
    again = "remove the folder and train again"
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as error:  # JSONDecodeError, UnicodeDecodeError
        raise InputError(f"{path}: expected JSON, got damaged text ({error}); {again}") from None
    manifest = manifest if isinstance(manifest, dict) else {}
    kinds: dict[str, Any] = {"state": str, "config": dict, "config: method": str}
    kinds |= {"config: seed": int, "student": dict}
    if manifest.get("state") == "done":
        kinds |= {"protocol": str, "split_fingerprint": str, "class_names": list, "groups": dict}
    found = {"student": {}, **manifest}
    found |= {f"{n}: {k}": v for n, d in manifest.items() if type(d) is dict for k, v in d.items()}
    kinds |= {name: int | float for name in found if name.removeprefix("student: ") in COSTS}
    for name, kind in kinds.items():
        if not isinstance(got := found.get(name), kind):
            raise InputError(f"{path}: expected the key '{name}', got {got or 'none'}; {again}")
    return manifest


Source: TypeAlias = str | Path | Run  # of masks: a run, or a folder that notebook 03 wrote


@dataclass(frozen=True, eq=False)
class MaskHistory:
    """The T masks of one run's prompt, from the first prompt training step to the last."""

    name: str  # of the run
    times: list[tuple[int, int]]  # number of the prompt training and step of each mask
    planes: np.ndarray  # (T, H, W), gains above 0, zero frequency in the middle
    rings: np.ndarray  # (T, R), mean gain of each ring
    edges: np.ndarray  # of the rings, (R + 1,), cycles per pixel

    def at(self, time: tuple[int, int]) -> int:
        """Return the place of the mask that was in force at a time; before the first, 0."""
        return max(0, sum(each <= time for each in self.times) - 1)


def read_mask_history(source: Source, *, name: str = "") -> MaskHistory:
    """Read the masks of a run folder, or of a folder that notebook 03 wrote."""
    folder = source.path if isinstance(source, Run) else Path(str(source)).expanduser()
    for file in (RINGS_FILE, MAPS_FILE):
        if isinstance(source, Run):
            source.file(file)
        if not (folder / file).is_file():
            where = "where a prompt is trained (method=fopro without prompt_file, or notebook 03)"
            raise InputError(f"{folder / file}: no such file; it is written {where}")
    try:
        table = pd.read_parquet(folder / RINGS_FILE)
        planes = load_file(folder / MAPS_FILE)["gain"].astype(np.float32)
        wide = table.pivot(index=["exploration", "step"], columns="low", values="gain")
        edges = np.append(wide.columns.to_numpy(dtype=float), float(table["high"].max()))
        rings = wide.to_numpy(dtype=float)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder}: expected whole files of masks ({error})") from None
    sound = all((np.isfinite(each) & (each > 0)).all() for each in (rings, planes))
    if planes.ndim != 3 or len(planes) != len(rings) or not sound:
        raise InputError(f"{folder}: expected a finite gain above 0 for each mask and ring")
    times = [(int(number), int(step)) for number, step in wide.index]
    return MaskHistory(name or folder.resolve().name, times, planes, rings, edges)


def read_mask_histories(
    runs: Source | Iterable[Source] | Mapping[str, Source],
) -> list[MaskHistory]:
    """Read the masks of one source or several, which a mapping gives titles."""
    listed = [runs] if isinstance(runs, Source) else runs
    named = listed.items() if isinstance(listed, Mapping) else (("", source) for source in listed)
    histories = [read_mask_history(source, name=name) for name, source in named]
    if not histories:
        raise InputError("runs: expected at least one, got none")
    return histories
