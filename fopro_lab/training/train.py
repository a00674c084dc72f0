"""Training a student: `distill`, from a config to a run folder; its loop is `train`.

One process or several of torchrun: Fabric moves tensors and gradients, each process takes its share
of every batch, and the first alone writes. Every random draw of an epoch depends on (seed, epoch)
alone and one checkpoint is written per epoch: on the same CPU, or GPU with ``deterministic``, a
resumed run ends with the bits of an uninterrupted one. Not supported: resuming within an epoch.
"""

import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import lr_scheduler

from fopro_lab.config import TrainConfig
from fopro_lab.data import Pack, Split, batches, cycle, mix
from fopro_lab.data.batches import effective_counts, paired_batches, training_progress
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import balanced_accuracy, write_predictions
from fopro_lab.evaluation.scores import tell_one_answer
from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.prompt import Share
from fopro_lab.io import progress, write_csv, write_json
from fopro_lab.models import Student, Teacher, load_from
from fopro_lab.models.student import shrink, student_from
from fopro_lab.models.teacher import check_takes, is_called, state_hash
from fopro_lab.training import run_folder, train_prompt
from fopro_lab.training import setup as preparing
from fopro_lab.training.losses import DRW_FROM, TaskHead, label_shares
from fopro_lab.training.methods import blamed, find_method, own_hashes
from fopro_lab.training.run_folder import TrainedRun
from fopro_lab.training.setup import TrainSetup
from fopro_lab.training.train_prompt import draw_held_out, generator_for, prompted

READ_EVERY = 50  # steps between two looks at the loss: a GPU waits for each
LINE_SECONDS = 15.0  # between two lines about epochs, except the last


@dataclass(eq=False)
class TrainState:
    """All that a run changes: what a checkpoint holds."""

    student: Student
    model: Any  # the student as Fabric wraps it; shares its weights
    optimiser: Any
    schedule: lr_scheduler.LRScheduler | None
    average: ModelEmaV3 | None
    prompt: FourierPrompt | None
    head: TaskHead | None  # of the objective `task`, trained with the prompt
    probe: nn.Linear | None = None  # gives the teacher's logits, fitted before the first epoch
    epoch: int = 0  # epochs that are done
    best_epoch: int = 0  # that is kept, counted from 1: the best or, by `select`, the last so far
    best_score: float = -1.0
    best_student: dict[str, Tensor] = field(default_factory=dict)
    best_prompt: dict[str, Tensor] = field(default_factory=dict)  # that of this epoch
    history: list[dict[str, float]] = field(default_factory=list)
    prompt_history: list[dict[str, float]] = field(default_factory=list)  # a row per prompt step
    masks: list[run_folder.Mask] = field(default_factory=list)
    features: dict[str, int] = field(default_factory=dict)  # images needed, and found kept
    seconds: float = 0.0
    started: str = field(default_factory=run_folder.now)
    control: dict[str, float] = field(default_factory=dict)  # of random gains, see match_control
    best_control: dict[str, float] = field(default_factory=dict)  # that of the kept epoch
    probe_score: float = -1.0  # balanced accuracy of the probe on validation
    identity: dict[str, Any] = field(default_factory=dict)  # config, data, split and files

    @property
    def evaluated(self) -> Student:
        """The student that is validated, kept and tested: the average, where there is one."""
        return self.student if self.average is None else self.average.module

    def keep(self, score: float) -> None:
        """Keep the student and the prompt of the last epoch, with its score."""
        self.best_epoch, self.best_score, self.best_control = self.epoch, score, self.control
        self.best_student = run_folder.on_cpu(self.evaluated.state_dict())
        self.best_prompt = run_folder.on_cpu(self.prompt.state_dict() if self.prompt else {})

    def write(self, folder: Path) -> None:
        """Write ``history.csv`` (a row per epoch), ``exploration.csv`` (per prompt step), masks."""
        for name, rows in (("history", self.history), ("exploration", self.prompt_history)):
            if rows:
                write_csv(folder / f"{name}.csv", pd.DataFrame(rows))
        if self.masks:
            run_folder.write_masks(folder, self.masks)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` puts back."""
        return {
            name: part.state_dict() if hasattr(part, "state_dict") else part
            for name, part in vars(self).items()
            if name != "model"
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Put back a checkpoint of the same config, whole but for what older versions had not."""
        own, later = self.state_dict(), ("identity", "control", "best_control", "probe_score")
        saved = {n: v for n, v in own.items() if v is None or n in later} | saved
        try:
            for name in own | saved:
                part, value = getattr(self, name), saved[name]
                if hasattr(part, "load_state_dict"):
                    part.load_state_dict(value)
                elif type(value) is type(part):
                    setattr(self, name, value)
                else:
                    raise TypeError(name)
            if len(self.history) != self.epoch or not 0 <= self.best_epoch <= self.epoch:
                raise ValueError("epochs")
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError):
            problem = "does not fit this run; remove it to start this run again"
            raise InputError(f"{run_folder.CHECKPOINT}: {problem}") from None


def distill(
    config: TrainConfig,
    *,
    out: Path | str,
    teacher: Teacher | None = None,
    packed: Pack | None = None,
    split: Split | None = None,
    loss: Callable[..., Tensor] | None = None,
    distillation: Callable[..., Tensor] | None = None,
    prompt: Callable[..., Tensor] | None = None,
    verbose: bool = True,
) -> TrainedRun:
    """Train one student; the epoch that is kept, see ``config.select``, is tested once.

    Called again with the same config and folder, it resumes after the last epoch, or returns what
    is there; a folder that holds another run is refused. Objects take the place of what the config
    names; docs/own_method.md has functions of one's own.

    Args:
        config: Method (a baseline without a teacher, too), data, teacher, prompt and recipe.
        out: The run folder.
        teacher: As `wrap_teacher` makes it.
        packed: Images of the config's ``image_size``.
        split: Of ``packed``; None splits it as the config says.
        loss: A function of what it names.
        distillation: Likewise, or a class of `nn.Module`.
        prompt: Likewise, from images to images, before the teacher.
        verbose: Say on standard error how far it is.

    Raises:
        InputError: If the input is wrong or the folder holds another run.
        WorkError: If a loss or gradient is not finite, the disk or a GPU's memory is full, or
            another process trains this run; the last checkpoint is kept.

    Examples:
        >>> import tempfile
        >>> config = TrainConfig(method="bsm", images=120, image_size=16, epochs=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     distill(config, out=folder, verbose=False).state
        'done'
    """
    folder = Path(out).expanduser()
    given = [name for name, part in (("teacher", teacher), ("packed", packed)) if part is not None]
    settled = preparing.settle_precision(config, folder)
    fabric = preparing.start_fabric(settled)
    first = fabric.global_rank == 0
    verbose = verbose and first
    if verbose and config.precision == "auto":
        sys.stderr.write(f"fopro: precision auto is {settled.precision} here\n")
    config, method = find_method(settled, loss=loss, distillation=distillation, prompt=prompt)
    config, teacher, hashes = check_networks(config, teacher, folder=folder, device=fabric.device)
    hashes |= own_hashes(method)
    run_folder.find_run(folder, config, hashes)  # another run is refused before images are decoded
    packed, split = preparing.prepare_images(config, fabric, packed, split, verbose=verbose)
    fingerprints = {"data_fingerprint": packed.dataset.fingerprint}
    fingerprints |= {"split_fingerprint": split.fingerprint, **hashes}
    if config.parts.prompt == "random":  # in runs of before it was not matched
        fingerprints["control"] = "matched in drift"
    identity = {**run_folder.LATER, **run_folder.deciding_options(config), **fingerprints}
    if fabric.broadcast(identity) != identity:
        raise InputError("torchrun: every machine needs the same config, data and files")
    found = fabric.broadcast(run_folder.find_run(folder, config, fingerprints) if first else None)
    damaged = found.damaged() if found is not None and found.state == "done" else ["all"]
    if found is not None and not damaged:
        return found

    with ExitStack() as stack:
        if first:
            stack.enter_context(run_folder.locked(folder))
        manifest = found.manifest if found is not None else {}
        try:
            with preparing.torch_settings(config):
                how: dict[str, Any] = {"packed": packed, "split": split, "teacher": teacher}
                setup, state = build(config, fabric=fabric, method=method, verbose=verbose, **how)
                saved = fabric.broadcast(run_folder.load_checkpoint(folder) if first else None)
                if found is not None and found.state == "done":
                    gone = f"{folder}: gone or damaged: {', '.join(damaged)}"
                    if saved is None:
                        raise InputError(f"{gone}, and no checkpoint; choose another --out")
                    sys.stderr.write(f"{gone}; made again from the checkpoint\n" if first else "")
                if saved is not None:
                    run_folder.check_identity(saved, identity, folder=folder)
                    state.load_state_dict(saved)
                manifest = {**setup.manifest(), **fingerprints, "started": state.started}
                manifest |= {"student": state.student.card, **({"given": given} if given else {})}
                manifest["earlier"] = run_folder.earlier_origins(found, manifest, say=verbose)
                if first:
                    write_json(folder / "manifest.json", {**manifest, "state": "running"})
                if saved is None and state.probe is not None:
                    state.probe_score = preparing.fit_teacher_probe(state.probe, setup)
                state.identity = identity
                train(state, setup, folder=folder, verbose=verbose)
                finish(state, setup, folder=folder, manifest=manifest)
        except (InputError, WorkError) as error:
            with suppress(WorkError):  # the disk may be full for this, too
                if first and manifest:  # else nothing was begun
                    failed = {**manifest, "state": "failed", "reason": str(error)}
                    write_json(folder / "manifest.json", failed)
            raise
    return cast(TrainedRun, fabric.broadcast(TrainedRun.read(folder) if first else None))


def check_networks(
    config: TrainConfig, teacher: Teacher | None, *, folder: Path, device: torch.device
) -> tuple[TrainConfig, Teacher | None, dict[str, str]]:
    """Check student and teacher before images are decoded for them; hash files and own code.

    A teacher that is given is named in the config; one that the config names is loaded for a new
    run, or where it is the user's own code.
    """
    is_new, is_given = not (folder / "manifest.json").exists(), teacher is not None
    if teacher is not None:
        if not config.parts.is_taught:
            label = config.parts.label
            raise InputError(f"teacher: method {label} has none; give none, or method=ekd")
        config = config.model_copy(update={"teacher": teacher.name, "weights": ""})
        check_takes(teacher.to(device), config.image_size)
    own_code = is_called(config.teacher)
    hashes = run_folder.file_hashes(config, own_teacher=is_given)
    if is_new:
        network, _, tag = config.student.partition(".")
        if tag and not config.student_weights:
            problem = f"expected student_weights with '{tag}', got none; {network} starts at random"
            raise InputError(f"student: {problem}")
        student_from(config)
    if config.parts.is_taught:
        if teacher is None and (own_code or is_new):
            teacher = load_from(config, device=device)
        if teacher is not None and (own_code or is_given):
            teacher.card["state_sha256"] = hashes["teacher_sha256"] = state_hash(teacher)
            hashes["teacher_rules"] = run_folder.resizing(vars(teacher))
    return config, teacher, hashes


def build(config: TrainConfig, **given: Any) -> tuple[TrainSetup, TrainState]:
    """Build what the method needs, see `build_setup`, and the state before epoch 0."""
    setup = preparing.build_setup(config, **given)
    device, classes = setup.fabric.device, len(setup.class_counts)
    width = setup.teacher.feature_dim if setup.teacher is not None else 0
    distills: Any = setup.method.get("distillation")
    takes = distills.takes if distills is not None else ()
    projected = width if "projection" in takes else 0
    student = student_from(config, classes=classes, teacher_dim=projected)
    if distills is not None and inspect.isclass(distills.function):
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            sizes = {"student_dim": student.classifier.in_features, "teacher_dim": width}
            student.distiller = distills.build(**sizes)
    student = student.to(device)
    if config.sync_batch_norm and setup.fabric.world_size > 1:
        student = nn.SyncBatchNorm.convert_sync_batchnorm(student)
    prompt, head, probe = None, None, None
    if config.parts.learns_prompt:
        prompt = train_prompt.build_prompt(config).to(device)
        if not config.prompt_file:
            head = TaskHead(width, classes=classes, seed=config.seed).to(device)
    if "teacher_logits" in takes:
        probe = nn.utils.skip_init(nn.Linear, width, classes).to(device).requires_grad_(False)
    plain = preparing.build_optimiser(student.parameters(), config)
    lengths = {"epochs": config.epochs, "epoch_steps": setup.steps}
    schedule = preparing.build_schedule(plain, config, **lengths)
    average = ModelEmaV3(student, decay=config.ema_decay) if config.ema_decay else None
    side = config.student_size or config.image_size
    tell = preparing.progress_log(given.get("verbose", False))
    quick = preparing.compiled(student, setup, side=side, tell=tell)
    model, optimiser = setup.fabric.setup(quick, plain, _reapply_compile=False)
    return setup, TrainState(student, model, optimiser, schedule, average, prompt, head, probe)


def train(state: TrainState, setup: TrainSetup, *, folder: Path, verbose: bool) -> None:
    """Train the epochs that are left, one checkpoint each."""
    config, said = setup.config, -math.inf
    while state.epoch < config.epochs:
        began, used = time.perf_counter(), time.process_time()
        run = f"{config.parts.label} seed {config.seed}"
        name = f"{run}: epoch {state.epoch + 1} of {config.epochs}"
        log = name if verbose else ""
        if state.epoch in train_prompt.prompt_training_epochs(config):
            train_prompt_before_epoch(state, setup, log=log)
            state.control = {}
        unmatched = config.parts.prompt == "random" and not state.control
        if unmatched and state.epoch >= config.warmup_epochs:
            match_control(state, setup, verbose=verbose)
        losses = train_epoch(state, setup, log=log)
        score = validate(state, setup)
        state.epoch += 1
        better = score > state.best_score or config.keeps != "best"
        # Those before the first prompt, or before classes have their weights, cannot be the best.
        ready = state.epoch > config.warmup_epochs or config.parts.prompt == "none"
        if config.parts.loss == "ldam-drw":
            ready &= state.epoch - 1 >= DRW_FROM * config.epochs
        if better and ready:
            state.keep(score)
        seconds = time.perf_counter() - began
        row = {"epoch": state.epoch, **losses, "val_balanced_accuracy": score}
        row |= {"seconds": seconds, "cpu_seconds": time.process_time() - used}
        state.history.append(row)
        state.seconds += seconds
        if setup.fabric.global_rank == 0:
            state.write(folder)
            run_folder.save_checkpoint(folder, state.state_dict())  # now the epoch is done
        is_last = state.epoch == config.epochs
        if verbose and (is_last or time.monotonic() - said > LINE_SECONDS):
            said = time.monotonic()
            kept = f"kept {100 * state.best_score:.1f} %" if state.best_epoch else "none kept yet"
            sys.stderr.write(
                f"{name}, loss {losses['loss']:.3f}, validation balanced accuracy "
                f"{100 * score:.1f} % ({kept}), {seconds:.1f} s\n"
            )


def train_epoch(state: TrainState, setup: TrainSetup, *, log: str = "") -> dict[str, float]:
    """Pass once over the training images, with the draws of ``state.epoch``; give mean losses."""
    config, fabric, epoch = setup.config, setup.fabric, state.epoch
    chance = generator_for(config.seed, epoch, purpose="which batches")
    noise = generator_for(config.seed, epoch, purpose="prompt noise")
    share = train_prompt.prompted_share(config, epoch) * (config.parts.prompt != "none")
    is_prompted = torch.rand(setup.batches, generator=chance).double() < share
    drawn = drawn_counts(setup, epoch)
    kept: Iterator[Tensor | None] = repeat(None)
    if setup.kept is not None:
        given: dict[str, Any] = {"prompt": state.prompt, "is_prompted": is_prompted.numpy()}
        given |= {"strength": state.control.get("control_strength"), "counts": state.features}
        size = setup.batch_size
        kept = setup.kept.batches(setup.split.train, epoch=epoch, batch_size=size, **given)
    stream = draw_batches(setup, epoch)
    if log:
        stream = progress(stream, total=setup.batches, label=f"{log}, batch")
    sums = torch.zeros((), device=fabric.device)  # of losses and gradient norms; read now and then
    trained = [part for kind, part in setup.method.items() if kind != "prompt"]
    state.model.train()
    for step in range(setup.steps):
        parts = min(config.accumulate, setup.batches - step * config.accumulate)
        values = torch.zeros((), device=fabric.device)
        state.optimiser.zero_grad()
        for part in range(1, parts + 1):
            images, labels = next(stream)
            source = noise if is_prompted[step * config.accumulate + part - 1] else None
            # Of several batches only the last one sends gradients to the other processes.
            with fabric.no_backward_sync(state.model, enabled=part < parts):
                losses = batch_losses(
                    state, setup, images, labels, drawn, noise=source, features=next(kept)
                )
                with blamed(trained, "differentiated"):
                    fabric.backward(losses["loss"] / parts)
            values = values + torch.stack([loss.detach() for loss in losses.values()])
        norm = fabric.clip_gradients(
            state.model, state.optimiser, max_norm=config.clip_norm, error_if_nonfinite=False
        )
        assert norm is not None
        state.optimiser.step()
        if state.schedule is not None:
            state.schedule.step()  # every step: a warm-up may be shorter than an epoch
        if state.average is not None:
            # The decay rises from 0: a short training would otherwise keep its first weights.
            done = epoch * setup.steps + step
            state.average.decay = min(config.ema_decay, (1 + done) / (10 + done)) * (done > 0)
            state.average.update(state.student)
        sums = sums + torch.cat([values, norm.detach()[None]])
        if (step + 1) % READ_EVERY == 0:
            _check_finite(sums, epoch, config)
    next(stream, None)  # a progress bar closes only after its last item
    fabric.all_reduce(sums, reduce_op="mean")
    _check_finite(sums, epoch, config)
    return dict(zip(losses, (sums[:-1] / setup.batches).tolist(), strict=True))


def _check_finite(sums: Tensor, epoch: int, config: TrainConfig) -> None:
    if not bool(torch.isfinite(sums).all()):
        problem = f"a loss or gradient of epoch {epoch + 1} is not finite; earlier epochs are kept"
        own = [f"{kind} {name}" for kind, name in config.parts._asdict().items() if is_called(name)]
        way_out = f"look at {' and '.join(own)}, or " if own else ""
        way_out += f"train again with a learning_rate below {config.learning_rate:g}"
        raise WorkError(f"training: {problem}; {way_out} and another --out")


def batch_losses(
    state: TrainState,
    setup: TrainSetup,
    images: Tensor,
    labels: Tensor,
    drawn: Tensor,
    *,
    noise: torch.Generator | None,
    features: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute the losses of one batch, the total first; without ``noise`` it is unprompted."""
    config, method = setup.config, setup.method
    output = state.model(shrink(images, config.student_size))
    gives: dict[str, Any] = {"class_counts": drawn, "train_counts": setup.class_counts}
    gives |= {"labels": labels, "epoch": state.epoch, "epochs": config.epochs}
    if smoothing := config.label_smoothing:
        shape = output.logits.shape
        gives["labels"] = label_shares(labels, classes=shape[1], smoothing=smoothing)
    classes = method["loss"]({**gives, "logits": output.logits})
    if "distillation" not in method:
        return {"loss": classes}
    losses = {"loss_classes": classes}
    if output.second_logits is not None:
        losses["loss_second"] = method["loss"]({**gives, "logits": output.second_logits})
    total = sum(losses.values(), start=torch.zeros_like(classes))
    if features is None:
        features = encode_batch(state, setup, images, noise=noise)
    if state.probe is not None:
        gives["teacher_logits"] = state.probe(features)
    gives |= {"student_features": output.features, "logits": output.logits, "labels": labels}
    gives |= {"projection": output.projection, "features": features}
    gives["temperature"] = config.temperature
    distance = method["distillation"](gives, module=state.student.distiller)
    return {"loss": total + config.distill_weight * distance, **losses, "loss_distill": distance}


def encode_batch(
    state: TrainState, setup: TrainSetup, images: Tensor, *, noise: torch.Generator | None
) -> Tensor:
    """Give the teacher's features ``(B, D)`` of a batch, behind the prompt with ``noise``."""
    config, fabric, prompt = setup.config, setup.fabric, setup.method.get("prompt")
    assert setup.fast_teacher is not None
    if prompt is not None and noise is not None:
        given: dict[str, Any] = {"images": images, "generator": noise}
        images = prompt({**given, "epoch": state.epoch, "epochs": config.epochs})
    with torch.inference_mode(), fabric.autocast():
        if state.prompt is not None and noise is not None:
            count, rank = len(images), fabric.global_rank
            share = Share(count * rank, count * (rank + 1), count * fabric.world_size)
            given = {"noise": noise, "share": share}
            given["strength"] = state.control.get("control_strength")
            images = prompted(images, state.prompt, config=config, **given)
        features = setup.fast_teacher.encode(images)
    return features.clone()  # what inference mode made cannot take part in a gradient


def drawn_counts(setup: TrainSetup, epoch: int) -> Tensor:
    """Count how often an epoch draws each class, ``(K,)``: the prior that a loss corrects for."""
    config = setup.config
    how: dict[str, Any] = {"sampler": config.sampler, "mixup_alpha": config.mixup_alpha}
    how["progress"] = training_progress(epoch, config.epochs)
    drawn = effective_counts(setup.class_counts.cpu().numpy(), **how)
    counts = {"class_counts", "train_counts", "teacher_logits"}
    takes = {name for part in setup.method.values() for name in part.takes}
    if counts & takes and (drawn <= 0).any():  # their logarithm or root would be infinite
        empty = np.flatnonzero(drawn <= 0).tolist()
        raise InputError(f"class_counts: expected 1 or more per class, got 0 for classes {empty}")
    return torch.as_tensor(drawn).to(setup.class_counts)


def draw_batches(setup: TrainSetup, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's share of an epoch's batches; mixed images have class shares as label."""
    config, fabric = setup.config, setup.fabric
    how = config.model_dump(include={"augment", "augment_mode", "sampler", "seed", "epochs"})
    how |= {"batch_size": setup.batch_size, "shuffle": True, "drop_last": True, "epoch": epoch}
    how |= {"rank": fabric.global_rank, "world_size": fabric.world_size, "device": fabric.device}
    how["views"] = config.teacher_views
    if not (config.mixup or config.mixup_alpha):
        return batches(setup.packed, setup.split.train, **how)
    how |= {"alpha": config.mixup or config.mixup_alpha, "balanced": not config.mixup}
    pairs = paired_batches(setup.packed, setup.split.train, **how)
    return (mix(pair, classes=len(setup.class_counts)) for pair in pairs)


def train_prompt_before_epoch(state: TrainState, setup: TrainSetup, *, log: str = "") -> None:
    """Train the prompt, the student frozen; every process does the same steps.

    Each image is drawn equally often, whatever the sampler: the balanced softmax of the task
    corrects for the class sizes, and the statistics of a batch cannot be shared out.
    """
    config, device, epoch = setup.config, setup.fabric.device, state.epoch
    assert state.prompt is not None and setup.teacher is not None
    how = config.model_dump(include={"batch_size", "augment", "augment_mode"})
    seed = generator_for(config.seed, epoch, purpose="explore order").initial_seed() % 2**31
    stream = cycle(setup.packed, setup.split.train, seed=seed, device=device, **how)
    if log:
        stream = progress(stream, total=config.prompt_steps, label=f"{log}, prompt step")
    checks = {"every": config.prompt_check_every, "count": config.prompt_check_images}
    held_out = draw_held_out(setup.packed, setup.split.val, **checks)
    epochs, steps = train_prompt.prompt_training_epochs(config), config.prompt_steps
    number = epochs.index(epoch) + 1
    masks = run_folder.MaskHistory.spread(number, trainings=len(epochs), steps=steps)
    # Without its cache: autocast would keep the task head's weights from before the first step.
    half = config.precision == "bf16-mixed"
    given = config.model_dump(include={"objectives", "max_drift", "student_size"})
    given |= {"steps": steps, "learning_rate": config.prompt_learning_rate, "held_out": held_out}
    given |= {name: getattr(setup, name) for name in ("reference", "spectrum", "class_counts")}
    given |= {"head": state.head, "student": state.student, "masks": masks}
    given |= {"generator": generator_for(config.seed, epoch, purpose="explore noise")}
    with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
        history = train_prompt.explore(state.prompt, setup.teacher, stream, **given)
    # Machines may differ in the last digits.
    preparing.share_state(setup.fabric, state.prompt, state.head)
    history.insert(0, "epoch", epoch + 1)
    state.prompt_history += history.to_dict("records")
    state.masks += masks.masks


def match_control(state: TrainState, setup: TrainSetup, *, verbose: bool) -> None:
    """Give the random gains of the control the drift of the learned ones on validation images."""
    assert state.prompt is not None and setup.teacher is not None
    count = setup.config.prompt_check_images
    held_out = draw_held_out(setup.packed, setup.split.val, count=count, every=1)
    if held_out is None:
        raise InputError("method random: expected validation images, on which its drift is matched")
    given = (state.prompt, setup.teacher, held_out.images)
    found = setup.fabric.broadcast(train_prompt.control_strength(*given, config=setup.config))
    names = ("control_strength", "learned_drift", "control_drift")
    state.control = dict(zip(names, found, strict=True))
    if verbose and found[2] < 0.9 * found[1]:
        sys.stderr.write(
            f"fopro: the random gains drift by {found[2]:.3g} at most, the learned ones by "
            f"{found[1]:.3g}: a weaker control\n"
        )


def validate(state: TrainState, setup: TrainSetup) -> float:
    """Return the balanced accuracy on the validation images."""
    # Batch norms that are not synchronised have seen different images in each process.
    preparing.share_state(setup.fabric, state.evaluated)
    logits = predict(state.evaluated, setup, setup.split.val)
    return balanced_accuracy(setup.packed.labels[setup.split.val], logits.argmax(axis=1))


@torch.inference_mode()
def predict(student: Student, setup: TrainSetup, rows: np.ndarray) -> np.ndarray:
    """Classify rows of the pack, unaugmented and unprompted: logits ``(N, K)``, float32."""
    student.eval()
    fabric, world = setup.fabric, setup.fabric.world_size
    # Every process takes equally many, the last ones some twice: gathered is what has one shape.
    each, side = math.ceil(len(rows) / world), setup.config.student_size
    own = rows[np.arange(fabric.global_rank, world * each, world) % len(rows)]
    stream = batches(setup.packed, own, batch_size=preparing.BATCH, device=fabric.device)
    logits = torch.cat([student.classify(shrink(images, side)).float() for images, _ in stream])
    if world > 1:
        gathered: Any = fabric.all_gather(logits)
        logits = gathered.transpose(0, 1).flatten(0, 1)[: len(rows)]
    return logits.cpu().numpy()


def finish(state: TrainState, setup: TrainSetup, *, folder: Path, manifest: dict[str, Any]) -> None:
    """Test the epoch that is kept, once, and close the run; the manifest is written last."""
    state.student.load_state_dict(state.best_student)
    dataset, parts = setup.packed.dataset, []
    columns = [f"logit_{class_name}" for class_name in dataset.class_names]
    for name, rows in (("val", setup.split.val), ("test", setup.split.test)):
        part = dataset.table.iloc[rows][["image", "group", "source", "label"]].copy()
        part.insert(3, "split", name)
        logits = predict(state.student, setup, rows)
        parts.append(part.join(pd.DataFrame(logits, columns=columns, index=part.index)))
    if setup.fabric.global_rank:
        return
    student = {k: v for k, v in state.best_student.items() if k[:10] != "distiller."}
    run_folder.write_weights(folder / "student.safetensors", student)
    state.write(folder)
    if state.probe is not None:
        probe = run_folder.on_cpu(state.probe.state_dict())
        run_folder.write_weights(folder / "probe.safetensors", probe)
        manifest["teacher_probe"] = {"val_balanced_accuracy": state.probe_score}
    if state.prompt is not None:
        state.prompt.load_state_dict(state.best_prompt)
        state.prompt.save(folder / "prompt.safetensors")
        manifest["prompt_epoch"] = state.best_epoch
        manifest |= state.best_control
        size = float(state.prompt.mean_gain().detach().log().abs().mean())
        manifest["prompt_log_gain"] = size  # mean of |log gain|
        if not size:
            sys.stderr.write("fopro: the kept prompt has gain 1 everywhere: this run equals EKD\n")
    predictions = pd.concat(parts, ignore_index=True)
    tell_one_answer(predictions, folder.name)
    write_predictions(folder / "predictions.parquet", predictions)
    manifest |= {"state": "done", "best_epoch": state.best_epoch, "epochs_done": state.epoch}
    manifest["scores"] = {"val_balanced_accuracy": state.best_score}
    manifest |= {"finished": run_folder.now(), "wall_seconds": round(state.seconds, 1)}
    if state.features:
        rate = state.features.get("found", 0) / state.features["needed"]
        views = setup.config.teacher_views
        manifest["teacher_features"] = {"views": views, **state.features, "hit_rate": rate}
    manifest["files"] = run_folder.hash_files(folder)
    write_json(folder / "manifest.json", manifest)
    (folder / run_folder.PREVIOUS).unlink(missing_ok=True)
