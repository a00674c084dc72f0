"""Refine finished runs without training their features again: `refine`, from runs to a run folder.

Whatever is chosen is chosen on validation images, and the manifest says it. Not supported: several
processes; logit adjustment and scales of classifiers without a bias, which give cosines.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from torch import Tensor
from torch.nn import functional as F

from fopro_lab.config import RefineConfig, RefineHow, is_called
from fopro_lab.data import Pack, Split, batches
from fopro_lab.data.batches import effective_counts, training_progress
from fopro_lab.errors import InputError, WorkError
from fopro_lab.evaluation import Run, balanced_accuracy, write_predictions
from fopro_lab.io import sha256_file, write_json
from fopro_lab.models import Student, choose_device
from fopro_lab.models.student import shrink
from fopro_lab.models.weights import read_state
from fopro_lab.training import run_folder
from fopro_lab.training.run_folder import TrainedRun
from fopro_lab.training.setup import BATCH, prepare_images, start_fabric

SEVERAL = ("soup", "ensemble")  # of any number of runs; the others are of one
TAUS = np.linspace(0, 2, 41)  # tried on validation images
FILES = ("manifest.json", "predictions.parquet", "student.safetensors")
# What a manifest says of the training alone.
OF_TRAINING = {"earlier", "prompt_epoch", "prompt_log_gain", "teacher_features", "wall_seconds"}
# After these, logits hold for equal classes: losses, refinements, and a sampler.
CORRECTED = {"bsm", "logit-adjustment", "class-balanced", "ldam-drw", "crt", "lws", "tau-norm"}
CORRECTED |= {"sampler class-balanced", "kd", "dkd"}  # their probe of the teacher has equal priors
State = dict[str, Tensor]


def refine(
    runs: Sequence[Run],
    config: RefineConfig,
    *,
    out: Path | str,
    packed: Pack | None = None,
    split: Split | None = None,
) -> TrainedRun:
    """Refine a run, or put several together, into a run folder of its own, as ``config.how`` says.

    Called again with the same runs, config and folder, it returns what is there. ``soup`` averages
    weights and running statistics, ``ensemble`` and ``tta`` probabilities (of runs, or of an image
    and its flips); `post_hoc` and `retrain` say what the others do.

    ``runs`` are finished ones of one split; one, but for ``soup`` and ``ensemble``. ``packed`` and
    ``split`` take the place of what the run's config names, as for `distill`.

    Raises:
        InputError: If runs are not finished or differ in data, split or (``soup``) network, the
            images are not theirs, or the folder holds something else.
        WorkError: If the loss of ``crt`` or ``lws`` is not finite.

    Source: Menon et al., ICLR 2021, arXiv:2007.07314 (logit adjustment); Kang et al., ICLR 2020,
        arXiv:1910.09217 (tau-norm, crt, lws); Wortsman et al., ICML 2022, arXiv:2203.05482 (soup).
    """
    sources, how = [TrainedRun(run.path, run.manifest) for run in runs], config.how
    check_sources(sources, how)
    folder, first = Path(out).expanduser(), sources[0]
    hashes = [{n: sha256_file(r.path / n) for n in FILES if (r.path / n).exists()} for r in sources]
    plan = {"how": how, "options": config.used, "sha256": hashes}
    with run_folder.locked(folder):
        if any(folder.glob("[!.]*")):
            found = TrainedRun.read(folder)
            if not plan.items() <= found.manifest.get("refined", {}).items():
                got = f"holds another run ({found.method})"
                raise InputError(f"{folder}: {got}; choose another --out")
            damaged = found.damaged() if found.state == "done" else ["its end"]
            if not damaged:
                return found
            sys.stderr.write(f"{folder}: {', '.join(damaged)} gone or damaged; made again\n")
        started, device = run_folder.now(), choose_device(config.device)
        # Sorted, the images of all runs are in one order.
        tables = [r.predictions.sort_values(["split", "image"], ignore_index=True) for r in sources]
        if not all((table["split"] == "val").any() for table in tables):
            raise InputError("runs: expected predictions of validation images, too, got none")
        columns = [f"logit_{name}" for name in first.class_names]
        stored = [table[columns].to_numpy() for table in tables]
        states = [read_state(run.file(FILES[-1])) for run in sources if how != "ensemble"]
        if how in ("logit-adjustment", "tau-norm", "lws") and "classifier.bias" not in states[0]:
            raise InputError(f"{first.path}: {how} needs a classifier with a bias; try crt")
        chosen: dict[str, Any] = {}
        if how == "ensemble":
            logits = mean_probabilities(stored)
        elif how in ("logit-adjustment", "tau-norm"):
            logits, chosen = post_hoc(states[0], first, config, tables[0], stored[0])
        else:
            packed, split = open_images(first, config, packed, split)
            student = first.student().to(device)
            if how == "soup":
                student.load_state_dict(mean_state(states))
            elif how != "tta":
                chosen = {"loss": retrain(student, first, config, packed, split.train)}
            states = [run_folder.on_cpu(student.state_dict())]
            flips = config.flipped if how == "tta" else ((),)
            passes = [classify(student, first, packed, tables[0]["image"], flip) for flip in flips]
            logits = mean_probabilities(passes) if how == "tta" else passes[0]
        methods = "&".join(sorted({run.method for run in sources}))
        refined = {"method": f"{methods}+{how}", **plan, **chosen}
        refined["steps"] = [*first.manifest.get("refined", {}).get("steps", ()), how]
        refined["runs"] = [run.path.as_posix() for run in sources]
        refined["val_balanced_accuracy_before"] = [_validate(tables[0], own) for own in stored]
        manifest = {k: v for k, v in first.manifest.items() if k not in OF_TRAINING}
        manifest |= {**run_folder.origin(device), "processes": 1, "refined": refined, "files": {}}
        manifest |= {"method": refined["method"], "student": _cost(sources, config)}
        manifest |= {"started": started, "finished": run_folder.now()}
        manifest["scores"] = {"val_balanced_accuracy": _validate(tables[0], logits)}
        # Now it is known what the files are of, should it be interrupted between them.
        write_json(folder / "manifest.json", {**manifest, "state": "running"})
        if how not in ("ensemble", "tta"):
            run_folder.write_weights(folder / FILES[-1], states[0])
        tables[0][columns] = logits
        write_predictions(folder / "predictions.parquet", tables[0])
        manifest["files"] = run_folder.hash_files(folder)
        write_json(folder / "manifest.json", manifest)
    return TrainedRun.read(folder)


def check_sources(runs: Sequence[TrainedRun], how: str) -> None:
    """Refuse runs that are not whole, or that do not belong together."""
    if not how:
        raise InputError(f"how: expected one of {', '.join(get_args(RefineHow)[1:])}, got none")
    if not runs or (len(runs) > 1 and how not in SEVERAL):
        wanted = "one or more" if how in SEVERAL else "one"
        raise InputError(f"runs: expected {wanted} for {how}, got {len(runs)}")
    same = ["protocol", "split_fingerprint", "data_fingerprint", "class_names"]
    same += ["sampler", "mixup", "mixup_alpha"]  # what was drawn: the prior in the logits
    same += ["student", "student_size", "image_size"] if how == "soup" else []
    for run in runs:
        if not run.complete:
            raise InputError(f"{run.path}: expected a finished run with its predictions")
        if how != "ensemble" and not (run.path / FILES[-1]).is_file():
            raise InputError(f"{run.path}: {how} needs a student, and {run.method} has none")
        for key in same:
            both = (r.manifest | r.train_config.model_dump() for r in (run, runs[0]))
            mine, theirs = (known.get(key) for known in both)
            if mine != theirs:
                where = f"{theirs!r} as in {runs[0].path}"
                raise InputError(f"{run.path}: {key}: expected {where} for {how}, got {mine!r}")


def post_hoc(
    state: State, run: TrainedRun, config: RefineConfig, table: pd.DataFrame, logits: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Adjust or scale logits ``(N, K)``, and the classifier in place; say what tau is.

    ``logit-adjustment`` subtracts tau times the logarithm of the class's share of what the kept
    epoch drew; it refuses a run whose loss, sampler or refinement has corrected for it already.
    ``tau-norm`` divides by the norm of the class's weights to the power of tau (the bias, too,
    which the paper drops). A tau that is not given is the smallest with the best balanced accuracy
    on validation images.
    """
    counts = drawn_counts(run) if config.how == "logit-adjustment" else np.ones(0)
    weight, bias = (state[f"classifier.{name}"].double().numpy() for name in ("weight", "bias"))

    def move(tau: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the addend of each class's logit."""
        if config.how == "tau-norm":
            return np.linalg.norm(weight, axis=1) ** -tau, np.zeros(len(bias))
        return np.ones(len(bias)), -tau * np.log(counts / counts.sum())

    tau, how = config.tau, "given"
    if tau < 0:
        scores = [_validate(table, logits * f + a) for f, a in map(move, TAUS.tolist())]
        tau = float(TAUS[int(np.argmax(scores))])
        how = f"balanced accuracy on validation, {len(TAUS)} from {TAUS[0]:g} to {TAUS[-1]:g}"
    factor, addend = move(tau)
    for name, value in (("weight", weight * factor[:, None]), ("bias", bias * factor + addend)):
        state[f"classifier.{name}"] = torch.from_numpy(value).to(state[f"classifier.{name}"])
    return logits * factor + addend, {"tau": round(tau, 6), "tau_chosen": how}


def drawn_counts(run: TrainedRun) -> np.ndarray:
    """Count how often a run's kept epoch drew each class, ``(K,)``: the prior in its logits."""
    options, kept = run.train_config, run.manifest.get("best_epoch", run.train_config.epochs)
    done = [*run.manifest.get("refined", {}).get("steps", ()), options.parts.loss]
    done += [f"sampler {options.sampler}", options.parts.distillation]
    found = [f"a mean of methods ({run.method})"] if "&" in run.method else []
    found += [each for each in done if each in CORRECTED or is_called(each)]  # own code may have
    how: dict[str, Any] = {"sampler": options.sampler, "mixup_alpha": options.mixup_alpha}
    progress = training_progress(kept - 1, options.epochs)
    counts = effective_counts(run.manifest["class_counts"], progress=progress, **how)
    if np.allclose(counts, counts.mean()):
        found.append("an even draw of classes")
    if found:
        verb = "may have" if is_called(found[0]) else "has"
        problem = f"expected a prior to adjust for, but {found[0]} {verb} corrected it"
        raise InputError(f"{run.path}: {problem}; give a run of ce, or how=tau-norm")
    return counts


def retrain(
    student: Student, run: TrainedRun, config: RefineConfig, packed: Pack, rows: np.ndarray
) -> float:
    """Train a new classifier (``crt``) or a factor per class (``lws``); return the last loss.

    Cross-entropy on frozen features of class-balanced batches, augmented as in the run's training,
    by SGD with momentum 0.9 under a cosine to 0. All draws depend on the run's seed alone.
    """
    head, options, device = student.classifier, run.train_config, student.mean.device
    factor = torch.ones(len(run.class_names), device=device)
    trained = [factor.requires_grad_()]
    if config.how == "crt":
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            head.cpu().reset_parameters()  # the same on every device
        trained = list(head.to(device).parameters())
    size = min(config.batch_size, len(rows))
    optimiser = torch.optim.SGD(trained, lr=config.learning_rate, momentum=0.9)
    steps = config.epochs * (len(rows) // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    how: dict[str, Any] = {"batch_size": size, "shuffle": True, "drop_last": True, "device": device}
    how |= {"augment": options.augment, "augment_mode": options.augment_mode, "seed": run.seed}
    how |= {"sampler": "class-balanced", "epochs": config.epochs}
    for epoch in range(config.epochs):
        losses = []
        for images, labels in batches(packed, rows, epoch=epoch, **how):
            with torch.no_grad():
                features = student(shrink(images, options.student_size)).features
            loss = F.cross_entropy(head(features) * factor, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
    total = float(torch.stack(losses).mean())
    if not np.isfinite(total):
        raise WorkError(f"{config.how}: the loss is not finite; try a lower learning_rate")
    with torch.no_grad():
        for value in head.parameters() if config.how == "lws" else ():
            value.mul_(factor.view(-1, *[1] * (value.ndim - 1)))
    return round(total, 6)


def mean_state(states: Sequence[State]) -> State:
    """Average state dicts of one network in float64; whole numbers, counters, are the first's."""
    first, *others = ({name: value.shape for name, value in state.items()} for state in states)
    if any(other != first for other in others):
        raise InputError("soup: expected students with the same tensors, trained alike")
    sums = {name: torch.stack([state[name].double() for state in states]) for name in first}
    mean = {name: value.mean(dim=0).to(states[0][name]) for name, value in sums.items()}
    return {n: mean[n] if value.is_floating_point() else value for n, value in states[0].items()}


def mean_probabilities(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Return logits ``(N, K)`` whose softmax is the mean of those of several; always finite."""
    shares = np.stack([each - logsumexp(each, axis=1, keepdims=True) for each in logits])
    return logsumexp(shares, axis=0) - np.log(len(shares))


@torch.inference_mode()
def classify(
    student: Student, run: TrainedRun, packed: Pack, names: pd.Series, flip: tuple[int, ...]
) -> np.ndarray:
    """Classify images by name, flipped along some dimensions: logits ``(N, K)``, float64."""
    side, device = run.train_config.student_size, student.mean.device
    rows = pd.Index(packed.dataset.table["image"]).get_indexer(names)
    stream = batches(packed, rows, batch_size=BATCH, device=device)
    logits = [student.classify(shrink(images.flip(flip), side)) for images, _ in stream]
    return torch.cat(logits).double().cpu().numpy()


def open_images(
    run: TrainedRun, config: RefineConfig, packed: Pack | None, split: Split | None
) -> tuple[Pack, Split]:
    """Open the images that a run was trained on, and refuse others."""
    if packed is None and run.manifest.get("given"):
        raise InputError(f"{run.path}: was trained on objects; give packed, and split, from Python")
    trained = run.train_config.model_copy(update={"device": config.device})
    packed, split = prepare_images(trained, start_fabric(trained), packed, split, verbose=False)
    run.check_split(split)
    if run.manifest["data_fingerprint"] != packed.dataset.fingerprint:
        raise InputError(f"{run.path}: the data set has changed since this run was trained")
    return packed, split


def _validate(table: pd.DataFrame, logits: np.ndarray) -> float:
    val = (table["split"] == "val").to_numpy()
    return balanced_accuracy(table["label"].to_numpy()[val], logits[val].argmax(axis=1))


def _cost(runs: Sequence[TrainedRun], config: RefineConfig) -> dict[str, Any]:
    """Say what an image costs now: with all students of an ensemble, or all flips."""
    counted = runs if config.how == "ensemble" else runs[:1]
    cards = [run.manifest.get("student", {}) for run in counted]
    if not all("macs" in card for card in cards):  # an older version's
        return {}
    total = {key: sum(c[key] for c in cards) for key in ("parameters", "macs", "megabytes")}
    total["macs"] *= len(config.flipped) if config.how == "tta" else 1
    return {**cards[0], **total}
