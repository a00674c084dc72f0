"""Training the Fourier prompt before a frozen teacher: when, towards what, and how it is checked.

All of it is this project's reconstruction: the published generator was never released.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fopro_lab.arguments import wrong
from fopro_lab.config import Objective, TrainConfig
from fopro_lab.data import Pack, batches
from fopro_lab.data.batches import VIEW_SEED, seeded_generator
from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier import FourierPrompt, random_gain_like
from fopro_lab.fourier.gain import match_strength, scale_spectrum
from fopro_lab.fourier.prompt import Share
from fopro_lab.fourier.rings import check_pixels
from fopro_lab.fourier.spectrum import fit_prompt, mean_amplitude, octave_distance, spectrum_gain
from fopro_lab.models import Student, Teacher
from fopro_lab.models.student import shrink
from fopro_lab.training import losses
from fopro_lab.training.losses import TaskHead, balanced_softmax_loss
from fopro_lab.training.run_folder import MaskHistory
from fopro_lab.training.statistics import IMAGES, Reference, natural_images, reference_of, watched

CHUNK = 64  # images encoded together
READ_EVERY = 10  # prompt steps between two looks at the losses: a GPU waits for each
BLOCK = 5  # side of VPTTA's block, bins: as in the source's images of 512 px
SHRINKS = 60  # at most; the last ones leave no gain other than 1


def prompt_training_epochs(config: TrainConfig) -> list[int]:
    """List the epochs, counted from 0, that begin with prompt training."""
    if not config.parts.learns_prompt or config.prompt_file:
        return []
    return list(range(config.warmup_epochs, config.epochs, config.prompt_every or config.epochs))


def prompted_share(config: TrainConfig, epoch: int) -> float:
    """Return the share of an epoch's batches that is prompted, which may fall after the warm-up."""
    if epoch < config.warmup_epochs:
        return 0.0
    left = max(1, config.epochs - 1 - config.warmup_epochs)
    progress = min(1.0, (epoch - config.warmup_epochs) / left)
    return config.prompted_fraction * (1 - config.prompted_decay * progress)


def generator_for(*numbers: int, purpose: str) -> torch.Generator:
    """Make a generator that depends on some numbers and a purpose, and on nothing else."""
    return seeded_generator(*numbers, *purpose.encode())


def build_prompt(config: TrainConfig) -> FourierPrompt:
    """Build the prompt that a config describes, at the identity, or read its file."""
    if config.prompt_file:
        prompt = FourierPrompt.load(Path(config.prompt_file).expanduser()).requires_grad_(False)
        if (got := prompt.channels) not in (1, 3):
            raise InputError(f"prompt_file: expected a prompt of 1 or 3 channels, got {got}")
        return prompt
    how: dict[str, Any] = {"size": config.image_size, "max_log_gain": config.max_log_gain}
    how |= {"rows": config.prompt_rows, "noise": config.prompt_noise, "seed": config.seed}
    return FourierPrompt(config.prompt_form, **how)


@torch.no_grad()
def prompted(
    images: Tensor,
    prompt: FourierPrompt,
    *,
    config: TrainConfig,
    noise: torch.Generator,
    share: Share | None = None,
    strength: float | None = None,
    view: int = 0,
) -> Tensor:
    """Put the prompt, or its random control, before the teacher; no gradient flows.

    With a ``strength`` it is the control: the learned gains at other frequencies, raised to this
    power, which gives them the drift of the learned ones (`control_strength`). The frequencies are
    drawn once per run, or with ``random_gains=per-view`` for each ``view``, the same ones in runs
    of all seeds.
    Images are ``(B, 3, H, W)`` in [0, 1]; the result has this shape and is not clipped.
    """
    gain = prompt.gain(images, noise, share=share)
    if strength is not None:
        drawn = (VIEW_SEED, view) if config.random_gains == "per-view" else (config.seed,)
        places = generator_for(*drawn, purpose="places of the control")
        size = (images.shape[2], images.shape[3])
        gain = random_gain_like(prompt, gain, places, size=size) ** strength
    return scale_spectrum(images, gain)


def control_strength(
    prompt: FourierPrompt, teacher: Teacher, images: Tensor, *, config: TrainConfig
) -> tuple[float, float, float]:
    """Find the exponent with which a run's random gains drift as far as the learned ones.

    At other frequencies images have more energy, or the teacher is more sensitive: gains that are
    only moved would be a stronger or a weaker change. Returns the exponent, the drift of the
    learned gains, and that of the random ones, which is lower if no exponent up to 5 reaches it.
    """
    images = images.to(teacher.mean.device)
    plain = encode(teacher, images)
    # Of gains that differ from view to view it is the mean drift that is matched.
    per_view = CHUNK if config.random_gains != "per-view" else -(-len(images) // 16)

    def drift_of(strength: float | None) -> float:
        seed = VIEW_SEED if config.random_gains == "per-view" else config.seed
        noise = generator_for(seed, purpose="drift of the control")
        given: dict[str, Any] = {"config": config, "noise": noise, "strength": strength}
        views = cycle(range(max(1, config.teacher_views)))
        parts = zip(images.split(per_view), views, strict=False)
        changed = [prompted(part, prompt, view=view, **given) for part, view in parts]
        return float(drift(plain, encode(teacher, torch.cat(changed))))

    learned = drift_of(None)
    strength = match_strength(drift_of, learned)
    return strength, learned, drift_of(strength)


def drift(plain: Tensor, features: Tensor) -> Tensor:
    """Mean of ``1 - cos`` between features ``(B, D)`` without and with a prompt, in [0, 2]."""
    return (1 - F.cosine_similarity(plain, features, dim=1)).mean()


@torch.no_grad()
def encode(
    teacher: Teacher, images: Tensor, change: Callable[[Tensor], Tensor] = lambda images: images
) -> Tensor:
    """Encode images, changed before by a prompt for example, in chunks: ``(N, D)``."""
    return torch.cat([teacher.encode(change(part)) for part in images.split(CHUNK)])


class PromptedTeacher(nn.Module):
    """Answers as its teacher does on prompted images; every batch has the same noise."""

    def __init__(self, teacher: Teacher, prompt: FourierPrompt) -> None:
        super().__init__()
        self.teacher, self.prompt = teacher, prompt
        self.name = f"{teacher.name} behind a prompt"
        self.card: dict[str, Any] = {**teacher.card, "prompt": dict(prompt.settings)}

    def encode(self, images: Tensor) -> Tensor:
        """Prompt images ``(B, 3, H, W)`` in [0, 1] and turn them into features ``(B, D)``."""
        return self.teacher.encode(self.prompt(images, torch.Generator().manual_seed(0)))


@dataclass(frozen=True)
class HeldOut:
    """Images of other lesions than those that train the prompt, which choose the best one.

    No gradient ever comes from them. Test images do not belong here.
    """

    images: Tensor  # (N, 3, H, W) in [0, 1]
    labels: Tensor  # (N,)
    every: int = 10  # prompt steps between two checks, at least 1

    def __post_init__(self) -> None:
        check_pixels(self.images, slack=0.5)
        if len(self.images) != len(self.labels) or not len(self.labels):
            got = f"{len(self.images)} images and {len(self.labels)} labels"
            raise InputError(f"held_out: expected as many labels as images, 1 or more, got {got}")


def draw_held_out(pack: Pack, rows: np.ndarray, *, count: int, every: int) -> HeldOut | None:
    """Take the images that check a prompt: always the same, each class in turn while it lasts.

    At most ``count`` of ``rows``, on the CPU; None if ``every`` is 0 or there are no rows.
    """
    if not every or not len(rows):
        return None
    known = pd.Series(pack.labels[rows])
    turn = known.groupby(known).cumcount().to_numpy()  # each class's first image, then its second
    chosen = rows[turn.argsort(kind="stable")[:count]]
    images, labels = next(batches(pack, chosen, batch_size=len(chosen)))
    return HeldOut(images, labels, every)


def active_objectives(objectives: Mapping[Objective, float]) -> dict[Objective, float]:
    """Leave out terms of weight 0, and refuse weights that drive nothing."""
    active = {name: weight for name, weight in objectives.items() if weight != 0}
    if not all(0 < weight < float("inf") for weight in active.values()):
        raise InputError(f"objectives: expected weights of 0 or more, got {active}")
    if not set(active) - {"identity"}:
        raise InputError(f"objectives: expected one beside 'identity', got {sorted(active)}")
    return active


@dataclass(eq=False)
class PromptObjective:
    """What a prompt is trained towards: a weighted sum of terms, and what each of them needs."""

    teacher: Teacher
    weights: Mapping[Objective, float]
    reference: Reference | None  # for statistics
    class_counts: Tensor | None  # (K,), for task
    head: TaskHead | None  # for task, trained together with the prompt
    student: Student | None  # for disagreement, in evaluation mode
    student_size: int
    spectrum: tuple[Tensor, Tensor] | None  # (24,) each, seen and aimed at, for spectrum
    wanted: Tensor | None = None  # log gain (H, W // 2 + 1) that gives images this spectrum

    def prepare(self, prompt: FourierPrompt, images: Tensor) -> None:
        """Measure or build what was not given, for images like these; refuse what cannot be.

        For ``spectrum`` a prompt that is still the identity moves to the gain in closed form.
        """
        size = (images.shape[2], images.shape[3])
        if "statistics" in self.weights:
            self.reference = self.reference or reference_of(self.teacher, size=size[1])
        if "task" not in self.weights:
            self.head = None
        elif self.class_counts is None:
            raise InputError("objective 'task': expected class_counts, got none")
        else:
            self.class_counts = self.class_counts.to(images.device)
            width, classes = self.teacher.feature_dim, len(self.class_counts)
            self.head = (self.head or TaskHead(width, classes=classes)).to(images.device)
        if "disagreement" in self.weights and self.student is None:
            raise InputError("objective 'disagreement': expected a student, got none")
        if "spectrum" in self.weights:
            if self.spectrum is None:
                natural = natural_images(IMAGES, size=size[0])[0].to(images)
                self.spectrum = (mean_amplitude(images), mean_amplitude(natural))
            gain = spectrum_gain(*self.spectrum, size=size, max_log_gain=prompt.max_log_gain)
            if not prompt.mean_gain(size=size).log().any():
                fit_prompt(prompt, gain)
            self.wanted = gain.log()

    def __call__(
        self, images: Tensor, labels: Tensor, gain: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Measure images under a gain: the sum, each term unweighted, the features ``(B, D)``."""
        compared: Any = self.reference if "statistics" in self.weights else None
        with watched(self.teacher, compared.layers if compared else ()) as measured:
            features = self.teacher.encode(scale_spectrum(images, gain))

        def measure(name: Objective) -> Tensor:
            given: Any = self  # `prepare` has seen to what a term needs
            if name == "statistics":
                return compared.distance(measured)
            if name == "task":
                counts = given.class_counts
                return balanced_softmax_loss(given.head(features), labels, class_counts=counts)
            if name == "spectrum":
                return octave_distance(gain, given.wanted, size=(images.shape[2], images.shape[3]))
            if name == "disagreement":
                seen = shrink(images, self.student_size)
                return losses.disagreement_loss(given.student, seen, features)
            return losses.identity_loss(gain)

        terms: dict[str, Tensor] = {name: measure(name) for name in self.weights}
        weighted = [weight * terms[name] for name, weight in self.weights.items()]
        return torch.stack(weighted).sum(), terms, features


class BestPrompt:
    """Checks a prompt on held-out images now and then and keeps the best, with its task head.

    With a task, prompt and head are scored together, and the head learns: the score falls even
    with a prompt that does nothing, so later steps are favoured, and what an untrained head says of
    the prompt as it came does not count. It guards against overfitting; which prompt is the better
    one, a probe fitted to each tells (`probe_advantage`).
    """

    def __init__(
        self, objective: PromptObjective, held_out: HeldOut, prompt: FourierPrompt, max_drift: float
    ) -> None:
        self.objective, self.prompt, self.max_drift = objective, prompt, max_drift
        self.every = held_out.every
        device = objective.teacher.mean.device
        self.images, self.labels = held_out.images.to(device), held_out.labels.to(device)
        self.modules = [m for m in (prompt, objective.head) if m is not None]
        self.plain = encode(objective.teacher, self.images)
        self.score = float("inf")  # lower is better
        self.step, self.best = -1, list[dict[str, Tensor]]()  # -1: as it came

    def check(self, step: int) -> dict[str, float]:
        """Check the prompt, after it is moved back within ``max_drift`` if that is above 0.

        Found are ``val_drift`` and the score: with a task ``val_task`` (mean over the classes of
        the mean cross-entropy; beside it ``val_balanced_accuracy``), else ``val_total``.
        """
        if self.max_drift:
            hold_drift(self.prompt, self.objective.teacher, self.images, self.plain, self.max_drift)
        found = self._measure()
        head, score = self.objective.head, found.get("val_task", found.get("val_total", 0.0))
        if head is not None and not head.batches:
            score = float("inf")
        if score < self.score or not self.best:
            self.score, self.step = score, step
            self.best = [copy.deepcopy(module.state_dict()) for module in self.modules]
        return found

    def restore(self) -> None:
        """Put the best prompt back, and its head."""
        for module, state in zip(self.modules, self.best, strict=False):
            module.load_state_dict(state)

    @torch.no_grad()
    def _measure(self) -> dict[str, float]:
        head, noise = self.objective.head, torch.Generator().manual_seed(0)
        if head is not None:
            head.eval()
        total, features = 0.0, []
        for images, labels in zip(self.images.split(CHUNK), self.labels.split(CHUNK), strict=True):
            value, _, encoded = self.objective(images, labels, self.prompt.gain(images, noise))
            total += float(value) * len(images)
            features.append(encoded)
        encoded = torch.cat(features)
        found = {"val_drift": float(drift(self.plain, encoded))}
        if head is None:
            return {**found, "val_total": total / len(self.images)}
        logits = head(encoded).float()
        head.train()
        # Products: a deterministic GPU has no weighted bincount.
        own = F.one_hot(self.labels.unique(return_inverse=True)[1]).float()
        loss = F.cross_entropy(logits, self.labels, reduction="none")
        right = (logits.argmax(dim=1) == self.labels).float()
        task, accuracy = (v @ own / own.sum(dim=0) for v in (loss, right))
        found["val_task"] = float(task.mean())
        return {**found, "val_balanced_accuracy": float(accuracy.mean())}


@torch.no_grad()
def hold_drift(
    prompt: FourierPrompt, teacher: Teacher, images: Tensor, plain: Tensor, bound: float
) -> None:
    """Move a prompt towards the identity, which has no drift, until the drift is within a bound."""
    for _ in range(SHRINKS):
        behind = partial(prompt, generator=torch.Generator().manual_seed(0))
        found = float(drift(plain, encode(teacher, images, behind)))
        if found <= bound:
            break
        # Drift grows about as the square of the log gain.
        prompt.shrink_(min(max(0.98 * (bound / found) ** 0.5, 0.5), 0.95))


def explore(
    prompt: FourierPrompt,
    teacher: Teacher,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    objectives: Mapping[Objective, float],
    steps: int,
    learning_rate: float = 0.01,
    max_drift: float = 0.0,
    held_out: HeldOut | None = None,
    reference: Reference | None = None,
    class_counts: Tensor | None = None,
    head: TaskHead | None = None,
    student: Student | None = None,
    student_size: int = 0,
    spectrum: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
    masks: MaskHistory | None = None,
) -> pd.DataFrame:
    """Train a prompt, and the task head if there is one, by some steps of Adam.

    Everything is computed where the teacher is; the prompt and the head are moved there.

    Args:
        prompt: Changed in place.
        teacher: Frozen.
        batches: Images ``(B, 3, H, W)`` in [0, 1] and labels ``(B,)``; iterated again at its end.
        objectives: Weight of each term, 0 or more; a weight of 0 leaves the term out.
        steps: Prompt steps, 1 or more.
        learning_rate: Adam's.
        max_drift: Bound of the teacher's drift, mean ``1 - cos``: a prompt beyond is moved back
            towards the identity; 0 is none.
        held_out: Chooses among the prompts of these steps; None keeps the last prompt.
        reference: What ``statistics`` compares with; None measures it, see `reference_of`.
        class_counts: ``(K,)``, training images per class; needed by ``task``.
        head: Continues from an earlier prompt training; None starts one where ``task`` needs it.
        student: Needed by ``disagreement``, on the teacher's device.
        student_size: Side of the image the student sees, pixels; 0 is as it comes.
        spectrum: For ``spectrum``, `mean_amplitude` of the images at hand and of those they should
            resemble; None measures the first batch, and generated images with the stored spectrum
            of natural ones. A prompt that is the identity starts at the gain between them.
        generator: Source of the prompt's noise.
        masks: Takes the mask at some steps, and at the end that of the kept prompt.

    Returns:
        One row per step: ``step``, each term before its weight, ``total``, ``log_gain`` (mean of
        |log gain|, natural logarithm), with a bound ``drift``; with held-out images the columns
        ``val_...`` of `BestPrompt.check`, NaN between the checks, and ``kept``, 1 for the step
        whose prompt was kept (for none if the initial prompt was the best).

    Raises:
        InputError: If an objective lacks what it needs, or there are no batches.
        WorkError: If a term or a gradient is not finite; the prompt is then the best that was
            checked, and of no use without ``held_out``.
    """
    weights = active_objectives(objectives)
    stream = _endless(batches, teacher.mean.device)
    first = next(stream)
    check_pixels(first[0], slack=0.5)  # an augmentation of one's own may leave [0, 1]
    prompt.to(teacher.mean.device)
    needs = (reference, class_counts, head, student, student_size, spectrum)
    objective = PromptObjective(teacher, weights, *needs)
    objective.prepare(prompt, first[0])
    head, masks = objective.head, masks or MaskHistory(1, frozenset())
    parameters = [*prompt.parameters(), *(head.parameters() if head is not None else ())]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    measured: list[Tensor] = []  # one row per step, on the device; last the gradient's norm
    checks: dict[int, dict[str, float]] = {}
    with ExitStack() as stack:
        if student is not None:
            stack.callback(student.train, student.training)
            student.eval()
        best = None
        if held_out is not None:
            best = BestPrompt(objective, held_out, prompt, max_drift)
            stack.callback(best.restore)
            best.check(-1)
        masks.look(prompt, 0)
        for step, (images, labels) in enumerate(chain([first], islice(stream, steps - 1))):
            is_last = step + 1 == steps
            gain = prompt.gain(images, generator)
            total, terms, features = objective(images, labels, gain)
            optimiser.zero_grad()
            total.backward()
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            optimiser.step()
            row = {**terms, "total": total, "log_gain": gain.log().abs().mean()}
            if max_drift:
                plain = encode(teacher, images)
                row["drift"] = drift(plain, features)
                if is_last or float(row["drift"].detach()) > max_drift:
                    hold_drift(prompt, teacher, images, plain, max_drift)
            measured.append(torch.stack([x.detach().float() for x in (*row.values(), norm)]))
            if is_last or (step + 1) % READ_EVERY == 0:
                _check_finite(measured, terms)
            if not is_last:
                masks.look(prompt, step + 1)
            if best is not None and (is_last or (step + 1) % best.every == 0):
                checks[step] = best.check(step)
    history = pd.DataFrame([
        {"step": step, **dict(zip(row, values, strict=False)), **checks.get(step, {})}
        for step, values in enumerate(torch.stack(measured).tolist())
    ])  # fmt: skip
    if masks.steps - {0}:
        masks.take(prompt, len(history))
    return history if best is None else history.assign(kept=(history["step"] == best.step) * 1)


def _endless(
    batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        batch = None
        for batch in batches:
            if not isinstance(batch, list | tuple) or len(batch) != 2:
                raise wrong("batches", "pairs of images and labels", batch, "")
            yield batch[0].to(device), batch[1].to(device)
        if batch is None:
            hint = "an iterator that is used up cannot start again"
            raise InputError(f"batches: expected images and labels, got none; {hint}")


def _check_finite(measured: list[Tensor], terms: Iterable[str]) -> None:
    rows = torch.stack(measured[-READ_EVERY:])
    if not bool(torch.isfinite(rows).all()):
        place = int((~torch.isfinite(rows).all(dim=1)).nonzero()[0])
        values = dict(zip(terms, rows[place].tolist(), strict=False))
        problem = f"step {len(measured) - len(rows) + place} is not finite: {values}"
        way_out = "train again with a lower prompt_learning_rate and another --out"
        raise WorkError(f"prompt training: {problem}; {way_out}")


def adapt_images(
    images: Tensor,
    *,
    teacher: Teacher,
    reference: Reference,
    steps: int,
    learning_rate: float,
    max_log_gain: float,
) -> Tensor:
    """Fit VPTTA's gain on the lowest frequencies to each image ``(B, 3, H, W)``, and apply it.

    By steps of Adam. The result is not clipped and has no gradient; an image's does not depend on
    the batch. docs/method.md says what is the source's and what a reconstruction.

    Source: Chen et al., Each Test Image Deserves A Specific Prompt, CVPR 2024, arXiv:2311.18363.
    """
    half = BLOCK // 2 + 1
    # What inference mode made could not take part in a gradient.
    with torch.inference_mode(False), torch.enable_grad():
        images = images.clone()
        count, channels, height, width = images.shape
        cells = images.new_zeros((count, channels, BLOCK, half), requires_grad=True)
        rows = torch.arange(-(BLOCK // 2), half, device=images.device) % height

        def prompted() -> Tensor:
            log_gain = images.new_zeros((count, channels, height, width // 2 + 1))
            log_gain[:, :, rows, :half] = max_log_gain * cells.tanh()
            return scale_spectrum(images, log_gain.exp())

        optimiser = torch.optim.Adam([cells], lr=learning_rate)
        for _ in range(steps):
            with watched(teacher, reference.layers, per_image=True) as measured:
                teacher.encode(prompted())
            optimiser.zero_grad()
            (len(images) * reference.distance(measured)).backward()  # a sum: each has its own
            optimiser.step()
        return prompted().detach()
