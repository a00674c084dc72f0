"""Training a student: begun once, resumed or returned, tested once."""

import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from fopro_lab.config import TrainConfig
from fopro_lab.data import Dataset, Split, prepare
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import balanced_accuracy, groups_from, write_predictions
from fopro_lab.files import sha256_file
from fopro_lab.training.checkpoints import forget_previous, load_checkpoint, on_cpu
from fopro_lab.training.epochs import explore_epoch, train_epoch, try_step
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
from fopro_lab.training.guarding import deterministic, fitting_size
from fopro_lab.training.masks import record_of
from fopro_lab.training.predicting import predict, prediction_table
from fopro_lab.training.saving import Saver
from fopro_lab.training.schedule import PROMPTING, exploration_place, explores
from fopro_lab.training.stages import Stage, build_stage
from fopro_lab.training.standing import Position, Standing
from fopro_lab.training.starting import Started, start
from fopro_lab.training.telling import Teller


def distill(config: TrainConfig, *, out: Path | str, verbose: bool = True) -> TrainedRun:
    """Train one student; the best epoch by validation is tested once.

    Started again with the same config and folder, it goes on from its last checkpoint, or returns
    what is there; a folder that holds another run is refused. However often and wherever it was
    stopped, on a CPU it ends with the bits of a run that never was. Started by torchrun in several
    processes, they share the work, and the first alone writes.

    Args:
        config: Method (a baseline without a teacher, too), data, teacher, prompt and recipe.
        out: The run folder.
        verbose: Say on standard error how far it is.

    Returns:
        The finished run.

    Raises:
        InputError: If the input is wrong or the folder holds another run.
        WorkError: If losses stop being finite, the disk or a GPU's memory is full, another run
            holds the folder, or a process has ended; the last checkpoint is kept.

    Example:
        >>> import tempfile
        >>> config = TrainConfig(method="bsm", pictures=120, image_size=16, epochs=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     distill(config, out=folder, verbose=False).state
        'done'
    """
    folder = Path(out).expanduser()
    started = start(config)
    with started.processes.heard():
        return _distilled(config, folder, started, verbose and started.processes.first)


def _distilled(config: TrainConfig, folder: Path, started: Started, verbose: bool) -> TrainedRun:
    processes = started.processes
    packed, split = processes.first_then_others(lambda: prepare(config, progress=verbose))
    dataset = packed.dataset
    prints = {"data_fingerprint": dataset.fingerprint, "split_fingerprint": split.fingerprint}
    if config.prompt_file and config.method in PROMPTING:
        prints["prompt_file_sha256"] = _prompt_hash(config)
    processes.agree({"config": identity(config), **prints})
    run = processes.first_does(lambda: found_run(folder, config, prints))
    if run is not None and run.state == "done":
        return run
    with ExitStack() as stack:
        processes.first_does(lambda: stack.enter_context(locked(folder)))
        if config.threads:
            torch.set_num_threads(config.threads)
        with deterministic(config.deterministic):  # from the first work on a GPU on
            stage = build_stage(config, packed, split, started=started)
        manifest = {**_manifest(stage, dataset, split), **prints}
        processes.agree({"teacher": _teacher_hash(manifest)})
        standing = _resume(stage, folder, manifest)
        manifest["started"] = standing.started
        processes.first_does(lambda: write_manifest(folder, {**manifest, "state": "running"}))
        try:
            with deterministic(config.deterministic):
                _train(stage, split, standing, folder, verbose)
                _finish(stage, split, standing, folder, manifest)
        except WorkError as error:
            with suppress(WorkError):  # the disk may be full for this, too
                if processes.first:
                    write_manifest(folder, {**manifest, "state": "failed", "reason": str(error)})
            raise
    return processes.first_does(lambda: TrainedRun.read(folder))


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
        "processes": stage.processes.world_size,
    }


def _resume(stage: Stage, folder: Path, manifest: dict[str, Any]) -> Standing:
    state = stage.processes.first_does(lambda: _read_state(folder))
    if state is None:
        return Standing()
    if state["teacher"] != _teacher_hash(manifest):
        raise InputError(
            f"{folder}: was begun with another file of teacher weights; choose another --out"
        )
    stage.load_state(state)
    return Standing.from_state(state["standing"], device=stage.fabric.device)


def _read_state(folder: Path) -> dict[str, Any] | None:
    for left in folder.rglob(".*.part"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    return load_checkpoint(folder, tell=lambda line: sys.stderr.write(f"{line}\n"))


def _prompt_hash(config: TrainConfig) -> str:
    path = Path(config.prompt_file).expanduser()
    if not path.is_file():
        raise InputError(f"prompt_file: {config.prompt_file}: no such file")
    return sha256_file(path)


def _teacher_hash(manifest: dict[str, Any]) -> str:
    return (manifest["teacher"] or {}).get("sha256", "")


def _train(stage: Stage, split: Split, standing: Standing, folder: Path, verbose: bool) -> None:
    config, teller = stage.config, Teller(stage.config, verbose=verbose)
    saver = Saver(stage, standing, folder)
    while not standing.ended(config):
        saver.begin_epoch()
        epoch = standing.epoch
        means = _learn(stage, standing, saver, teller)
        score = _judge(stage, split, standing)
        seconds = saver.seconds()
        row = {"epoch": epoch + 1, **means, "val_balanced_accuracy": score, "seconds": seconds}
        row["skipped"] = standing.skipped_steps()
        standing.history.append(row)
        standing.epoch, standing.seconds = epoch + 1, standing.seconds + seconds
        saver.after_epoch()
        loss, best = row["loss"], standing.best_score
        text = f"loss {loss:.3f}, validation balanced accuracy {score:.3f} (best {best:.3f})"
        teller.end_epoch(epoch, f"{text}, {seconds:.1f} s", last=standing.ended(config))


def _learn(stage: Stage, standing: Standing, saver: Saver, teller: Teller) -> dict[str, float]:
    """Explore and exploit for one epoch, or for what is left of it; say so if memory is short."""
    try:
        return _explore_and_exploit(stage, standing, saver, teller)
    except torch.OutOfMemoryError:
        pass  # what its frames held must be gone before smaller batches are tried
    if stage.processes.many:  # the others are in the midst of a step that this one cannot end
        count, times = stage.processes.world_size, stage.config.accumulate
        size = stage.batch_size // 2 // count * count
        more = f"try batch_size={size} accumulate={-(-stage.batch_size * times // max(size, 1))}"
        raise WorkError(
            f"out of GPU memory with batch_size = {stage.batch_size}, "
            f"{stage.batch_size // count} a process; "
            f"{more if size >= 2 * count else 'lower image_size'}"
        )
    size = fitting_size(lambda size: try_step(stage, standing.epoch, size), below=stage.batch_size)
    pictures = stage.batch_size * stage.config.accumulate
    fits = f"batch_size={size} accumulate={-(-pictures // size)} fits" if size else ""
    raise WorkError(
        f"out of GPU memory with batch_size = {stage.batch_size}; "
        f"{fits or 'not even 2 fit: lower image_size'}"
    )


def _explore_and_exploit(
    stage: Stage, standing: Standing, saver: Saver, teller: Teller
) -> dict[str, float]:
    epoch, position = standing.epoch, standing.position
    if position is None:
        if explores(stage.config, epoch):
            record = record_of(**exploration_place(stage.config, epoch))
            history = explore_epoch(stage, epoch, teller=teller, record=record)
            standing.exploration += history.to_dict("records")
            standing.masks += record.masks
        position = Position.begin(stage.config, epoch)
        saver.within_epoch(position)
    return train_epoch(
        stage,
        epoch,
        position=position,
        pause=saver.within_epoch,
        skip=saver.skip,
        teller=teller,
    )


def _judge(stage: Stage, split: Split, standing: Standing) -> float:
    """Validate the epoch that has just ended, and keep its student if it is the best."""
    student = stage.judged
    stage.processes.alike(student)  # unsynchronised batch norms have seen different pictures
    logits = predict(
        student,
        stage.packed,
        split.val,
        size=stage.config.student_size,
        processes=stage.processes,
    )
    score = balanced_accuracy(stage.packed.labels[split.val], logits.argmax(axis=1))
    if score > standing.best_score:
        standing.best_epoch, standing.best_score = standing.epoch + 1, score
        standing.best_student = on_cpu(student.state_dict())
    return score


def _finish(
    stage: Stage, split: Split, standing: Standing, folder: Path, manifest: dict[str, Any]
) -> None:
    """Test the best epoch, once, and close the run; the manifest is written last."""
    student = stage.actors.student
    student.load_state_dict(standing.best_student)
    size, processes = stage.config.student_size, stage.processes
    table = prediction_table(student, stage.packed, split, size=size, processes=processes)

    def close() -> None:
        write_weights(folder, standing.best_student, stage.actors.prompt)
        write_predictions(folder / "predictions.parquet", table)
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
        forget_previous(folder)

    processes.first_does(close)
