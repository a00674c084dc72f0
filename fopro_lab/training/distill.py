"""Training a student: begun once, resumed or returned, tested once."""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fopro_lab.config import TrainConfig
from fopro_lab.data import Dataset, Split, prepare
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import balanced_accuracy, groups_from, write_predictions
from fopro_lab.files import atomic_path, sha256_file
from fopro_lab.training.checkpoints import load_checkpoint, on_cpu, save_checkpoint
from fopro_lab.training.epochs import explore_epoch, train_epoch
from fopro_lab.training.folders import (
    TrainedRun,
    found_run,
    identity,
    locked,
    now,
    origin,
    write_manifest,
    write_weights,
)
from fopro_lab.training.predicting import predict, prediction_table
from fopro_lab.training.schedule import PROMPTING, explores
from fopro_lab.training.stages import Stage, build_stage

LINE_SECONDS = 15.0  # a log gets at most one line in this time, beside the last


@dataclass
class Standing:
    """Where a run stands after its last finished epoch; part of the checkpoint."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    best_student: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    exploration: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    started: str = field(default_factory=now)

    def ended(self, config: TrainConfig) -> bool:
        """Tell whether all epochs are done, or the best one is too long ago."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= config.epochs or 0 < config.patience <= waited


def distill(config: TrainConfig, *, out: Path | str, verbose: bool = True) -> TrainedRun:
    """Train one student; the best epoch by validation is tested once.

    Started again with the same config and folder, it goes on after the last finished epoch, or
    returns what is there; a folder that holds another run is refused.

    Args:
        config: Method (a baseline without a teacher, too), data, teacher, prompt and recipe.
        out: The run folder.
        verbose: Say on standard error how far it is.

    Returns:
        The finished run.

    Raises:
        InputError: If the input is wrong or the folder holds another run.
        WorkError: If a loss stops being finite, the disk is full, or another process holds the
            folder; finished epochs are kept.

    Example:
        >>> import tempfile
        >>> config = TrainConfig(method="bsm", pictures=120, image_size=16, epochs=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     distill(config, out=folder, verbose=False).state
        'done'
    """
    folder = Path(out).expanduser()
    packed, split = prepare(config, progress=verbose)
    dataset = packed.dataset
    prints = {"data_fingerprint": dataset.fingerprint, "split_fingerprint": split.fingerprint}
    if config.prompt_file and config.method in PROMPTING:
        prints["prompt_file_sha256"] = _prompt_hash(config)
    run = found_run(folder, config, prints)
    if run is not None and run.state == "done":
        return run
    with locked(folder):
        if config.threads:
            torch.set_num_threads(config.threads)
        stage = build_stage(config, packed, split)
        manifest = {**_manifest(stage, dataset, split), **prints}
        standing = _resume(stage, folder, manifest)
        manifest["started"] = standing.started
        write_manifest(folder, {**manifest, "state": "running"})
        try:
            _train(stage, split, standing, folder, verbose)
            _finish(stage, split, standing, folder, manifest)
        except WorkError as error:
            with suppress(WorkError):  # the disk may be full for this, too
                write_manifest(folder, {**manifest, "state": "failed", "reason": str(error)})
            raise
    return TrainedRun.read(folder)


def _manifest(stage: Stage, dataset: Dataset, split: Split) -> dict[str, Any]:
    config, teacher = stage.config, stage.actors.teacher
    counts = [int(count) for count in stage.class_counts]
    return {
        "config": identity(config),
        "recipe": config.recipe,
        "protocol": split.protocol,
        "class_names": list(dataset.class_names),
        "class_counts": counts,
        "groups": groups_from(config, dataset.class_names, counts),
        "teacher": teacher.card if teacher is not None else None,
        "selected_by": "balanced accuracy on validation",
        "seeds": {"training": config.seed, "split": config.split_seed},
        **origin(stage.fabric.device),
    }


def _resume(stage: Stage, folder: Path, manifest: dict[str, Any]) -> Standing:
    state = load_checkpoint(folder)
    if state is None:
        return Standing()
    if state["teacher"] != _teacher_hash(manifest):
        raise InputError(
            f"{folder}: was begun with another file of teacher weights; choose another --out"
        )
    stage.load_state(state)
    return Standing(**state["standing"])


def _prompt_hash(config: TrainConfig) -> str:
    path = Path(config.prompt_file).expanduser()
    if not path.is_file():
        raise InputError(f"prompt_file: {config.prompt_file}: no such file")
    return sha256_file(path)


def _teacher_hash(manifest: dict[str, Any]) -> str:
    return (manifest["teacher"] or {}).get("sha256", "")


def _train(stage: Stage, split: Split, standing: Standing, folder: Path, verbose: bool) -> None:
    config, told = stage.config, 0.0
    while not standing.ended(config):
        epoch = standing.epoch
        begun = time.perf_counter()
        row: dict[str, float] = {"epoch": epoch + 1}
        if explores(config, epoch):
            explored = explore_epoch(stage, epoch)
            standing.exploration += explored.to_dict("records")
        row |= train_epoch(stage, epoch, verbose=verbose)
        logits = predict(stage.judged, stage.packed, split.val, size=config.student_size)
        score = balanced_accuracy(stage.packed.labels[split.val], logits.argmax(axis=1))
        if score > standing.best_score:
            standing.best_epoch, standing.best_score = epoch + 1, score
            standing.best_student = on_cpu(stage.judged.state_dict())
        seconds = time.perf_counter() - begun
        standing.history.append({**row, "val_balanced_accuracy": score, "seconds": seconds})
        standing.epoch, standing.seconds = epoch + 1, standing.seconds + seconds
        _write_epoch(stage, standing, folder)
        last = standing.ended(config)
        if verbose and (last or time.monotonic() - told > LINE_SECONDS or sys.stderr.isatty()):
            told = time.monotonic()
            sys.stderr.write(
                f"{config.method} seed {config.seed}: epoch {epoch + 1} of {config.epochs}, loss "
                f"{row['loss']:.3f}, validation balanced accuracy {score:.3f} (best "
                f"{standing.best_score:.3f}), {seconds:.1f} s\n"
            )


def _write_epoch(stage: Stage, standing: Standing, folder: Path) -> None:
    """Keep the epoch: tables first, the checkpoint last, since it alone says the epoch is done."""
    tables = {"history.csv": standing.history, "exploration.csv": standing.exploration}
    for name, rows in tables.items():
        if rows:
            with atomic_path(folder / name) as temporary:
                pd.DataFrame(rows).to_csv(temporary, index=False)
    teacher = stage.actors.teacher
    state = {
        **stage.state(),
        "standing": dict(vars(standing)),
        "teacher": teacher.card.get("sha256", "") if teacher is not None else "",
    }
    save_checkpoint(folder, state)


def _finish(
    stage: Stage, split: Split, standing: Standing, folder: Path, manifest: dict[str, Any]
) -> None:
    """Test the best epoch, once, and close the run; the manifest is written last."""
    student = stage.actors.student
    student.load_state_dict(standing.best_student)
    size = stage.config.student_size
    write_weights(folder, standing.best_student, stage.actors.prompt)
    write_predictions(
        folder / "predictions.parquet", prediction_table(student, stage.packed, split, size=size)
    )
    write_manifest(
        folder,
        {
            **manifest,
            "state": "done",
            "best_epoch": standing.best_epoch,
            "epochs_done": standing.epoch,
            "scores": {"val_balanced_accuracy": standing.best_score},
            "finished": now(),
            "wall_seconds": round(standing.seconds, 1),
        },
    )
