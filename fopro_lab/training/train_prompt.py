"""What each class asks for: one gain a ring, explored on its own images. To look at, not to use.

A gain chosen by the label would tell the teacher the class, so it never enters training; and the
task objective has no place here, since a class alone has no task.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fopro_lab.config import Objective, TrainConfig
from fopro_lab.data import Pack, batches
from fopro_lab.errors import InputError, WorkError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.gain import scale_spectrum
from fopro_lab.models import Student, Teacher
from fopro_lab.training.losses import (
    TaskHead,
    confidence_loss,
    disagreement_loss,
    identity_loss,
    task_loss,
)
from fopro_lab.training.run_folder import MaskRecord
from fopro_lab.training.statistics import Reference, reference_of, watched

PROMPTING = ("fopro", "random")


def explores(config: TrainConfig, epoch: int) -> bool:
    """Tell whether an exploration stands before an epoch.

    Args:
        config: Of the run.
        epoch: Counted from 0.

    Returns:
        Never for a method without prompt, a prompt from a file, or during the warm-up; then at
        once and every ``prompt_every`` epochs, or once if that is 0.

    Example:
        >>> config = TrainConfig(warmup_epochs=1, prompt_every=2)
        >>> [explores(config, epoch) for epoch in range(5)]
        [False, True, False, True, False]
    """
    since = epoch - config.warmup_epochs
    if config.method not in PROMPTING or config.prompt_file or since < 0:
        return False
    return since % config.prompt_every == 0 if config.prompt_every else since == 0


def exploration_place(config: TrainConfig, epoch: int) -> dict[str, int]:
    """Tell which of a run's explorations stands before an epoch, and how long each is.

    Args:
        config: Of the run.
        epoch: Counted from 0; one with an exploration.

    Returns:
        ``number``, from 1; ``explorations``, in all epochs; ``steps``, of one at most.

    Example:
        >>> config = TrainConfig(epochs=5, warmup_epochs=1, prompt_every=2, prompt_steps=20)
        >>> exploration_place(config, 3)
        {'number': 2, 'explorations': 2, 'steps': 20}
    """
    before, all_of_them = (
        sum(explores(config, each) for each in range(count)) for count in (epoch, config.epochs)
    )
    return {"number": before + 1, "explorations": all_of_them, "steps": config.prompt_steps}


def prompted_share(config: TrainConfig, epoch: int) -> float:
    """Tell which share of an epoch's batches is prompted.

    Args:
        config: Of the run.
        epoch: Counted from 0.

    Returns:
        0 during the warm-up, then ``prompted_fraction``, from which a part ``prompted_decay`` is
        lost linearly until the last epoch.

    Example:
        >>> config = TrainConfig(epochs=3, prompted_fraction=0.8, prompted_decay=0.5)
        >>> [round(prompted_share(config, epoch), 2) for epoch in range(3)]
        [0.8, 0.6, 0.4]
    """
    if epoch < config.warmup_epochs:
        return 0.0
    left = max(1, config.epochs - 1 - config.warmup_epochs)
    progress = min(1.0, (epoch - config.warmup_epochs) / left)
    return config.prompted_fraction * (1 - config.prompted_decay * progress)


@dataclass(frozen=True, eq=False)
class Judge:
    """Everything that judges a prompt.

    Attributes:
        teacher: Frozen.
        objectives: Weight of each term that counts, above 0.
        reference: What ``statistics`` compares with.
        class_counts: ``(K,)``, training images a class; what ``task`` needs.
        head: What ``task`` trains together with the prompt.
        student: What ``disagreement`` needs, in evaluation mode.
        student_size: Side of the image the student sees, pixels; 0 is as it comes.
    """

    teacher: Teacher
    objectives: Mapping[Objective, float]
    reference: Reference | None = None
    class_counts: Tensor | None = None
    head: TaskHead | None = None
    student: Student | None = None
    student_size: int = 0

    def measure(
        self, images: Tensor, labels: Tensor, gain: Tensor
    ) -> tuple[dict[Objective, Tensor], Tensor]:
        """Measure each term, before its weight, on images under a gain.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            labels: ``(B,)``.
            gain: ``(B, 3, H, W // 2 + 1)``.

        Returns:
            A scalar tensor a term, and the teacher's features of the prompted images.
        """
        with ExitStack() as stack:
            if self.reference is not None:
                measured = stack.enter_context(watched(self.teacher, self.reference.layers))
            features = self.teacher.encode(scale_spectrum(images, gain))
        terms: dict[Objective, Tensor] = {}
        for name in self.objectives:
            if name == "statistics":
                assert self.reference is not None
                terms[name] = self.reference.distance(measured)
            elif name == "confidence":
                terms[name] = confidence_loss(self.teacher.classify(features))
            elif name == "task":
                assert self.head is not None and self.class_counts is not None
                terms[name] = task_loss(
                    features, head=self.head, labels=labels, class_counts=self.class_counts
                )
            elif name == "disagreement":
                assert self.student is not None
                seen = shrink(images, self.student_size)
                terms[name] = disagreement_loss(self.student, seen, features)
            else:
                terms[name] = identity_loss(gain)
        return terms, features

    def total(self, terms: Mapping[Objective, Tensor]) -> Tensor:
        """Sum the terms with their weights."""
        return torch.stack([self.objectives[name] * value for name, value in terms.items()]).sum()


def drift(plain: Tensor, features: Tensor) -> Tensor:
    """Tell how far features have turned away: mean of ``1 - cos``, in [0, 2].

    Args:
        plain: The teacher's on the images as they are, ``(B, D)``.
        features: On the prompted images, ``(B, D)``.

    Returns:
        Scalar.

    Example:
        >>> float(drift(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])))
        1.0
    """
    return (1 - torch.nn.functional.cosine_similarity(plain, features, dim=1)).mean()


def active_objectives(
    objectives: Mapping[Objective, float], teacher: Teacher
) -> dict[Objective, float]:
    """Leave out terms of weight 0, and refuse those that the teacher cannot answer.

    Args:
        objectives: Weight of each term.
        teacher: Has it a head?

    Returns:
        The terms that count.

    Raises:
        InputError: For an unknown name, a negative weight, nothing beside ``identity``, or a
            term that this teacher lacks.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> active_objectives({"statistics": 1.0, "task": 0.0}, load_teacher("builtin"))
        {'statistics': 1.0}
    """
    active = {name: weight for name, weight in objectives.items() if weight != 0}
    unknown = sorted(set(active) - set(get_args(Objective)))
    if unknown:
        raise InputError(f"objectives: expected names out of {get_args(Objective)}, got {unknown}")
    if not all(0 < weight < math.inf for weight in active.values()):
        raise InputError(f"objectives: expected weights of 0 or more, got {active}")
    if not set(active) - {"identity"}:
        raise InputError(f"objectives: expected one beside 'identity', got {sorted(active)}")
    if "confidence" in active and teacher.head is None:
        raise InputError(
            f"objective 'confidence': teacher {teacher.name} has no head; "
            "set objectives.confidence=0"
        )
    return active


def shrink(images: Tensor, size: int) -> Tensor:
    """Bring images to the side the student sees, antialiased; 0 leaves them alone.

    Example:
        >>> shrink(torch.rand(1, 3, 8, 8), 4).shape
        torch.Size([1, 3, 4, 4])
    """
    if size in (0, images.shape[-1]):
        return images
    return torch.nn.functional.interpolate(
        images, (size, size), mode="bilinear", antialias=True, align_corners=False
    )


@contextmanager
def evaluating(student: Student | None) -> Iterator[None]:
    """Keep a student's batch norms still; training goes on afterwards as before."""
    if student is None:
        yield
        return
    was_training = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(was_training)


CHUNK = 64  # images encoded together
SHRINKS = 60  # halvings at most; the last ones leave no gain beside 1


@dataclass(frozen=True)
class HeldOut:
    """Images of other lesions than those that drive the prompt, and how they are used.

    No gradient ever comes from them: they choose among prompts, as validation images choose
    among epochs. Test images belong here as little as there.

    Attributes:
        images: ``(N, 3, H, W)`` in [0, 1].
        labels: ``(N,)``.
        every: Prompt steps between two checks, at least 1.
        patience: Checks without a better prompt after which the exploration ends; 0 is never.

    Example:
        >>> HeldOut(torch.rand(2, 3, 8, 8), torch.tensor([0, 1])).every
        10
    """

    images: Tensor
    labels: Tensor
    every: int = 10
    patience: int = 0

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or not len(self.labels):
            raise InputError(
                f"held_out: expected as many labels as images, 1 or more, got {len(self.images)} "
                f"images and {len(self.labels)} labels"
            )


def draw_held_out(
    pack: Pack,
    rows: np.ndarray | None,
    *,
    count: int,
    every: int,
    patience: int = 0,
    device: str | torch.device = "cpu",
) -> HeldOut | None:
    """Take the images that check a prompt: always the same, the classes alike as far as they go.

    Args:
        pack: The images.
        rows: Row numbers to take from, such as validation's.
        count: How many at most.
        every: As of `HeldOut`; 0 takes none.
        patience: As of `HeldOut`.
        device: Where they shall be.

    Returns:
        The images, or None if ``every`` is 0 or there are no rows.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=40), 16, progress=False)
        >>> held_out = draw_held_out(packed, np.arange(40), count=16, every=5)
        >>> torch.bincount(held_out.labels).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2]
    """
    if not every or rows is None or not len(rows):
        return None
    known = pd.Series(pack.labels[rows])
    turn = known.groupby(known).cumcount().to_numpy()  # each class's first image, then its second
    chosen = rows[turn.argsort(kind="stable")[:count]]
    images, labels = next(batches(pack, chosen, batch_size=len(chosen), device=device))
    return HeldOut(images, labels, every=every, patience=patience)


@dataclass(eq=False)
class Keeper:
    """Checks a prompt now and then and keeps the best.

    Attributes:
        judge: Measures it.
        held_out: The images.
        prompt: What is kept, together with the judge's head.
        max_drift: A prompt beyond is moved back before it is checked; 0 is no bound.
        best_score: Lower is better.
        waited: Checks since the best.
    """

    judge: Judge
    held_out: HeldOut
    prompt: FourierPrompt
    max_drift: float = 0.0
    best_score: float = float("inf")
    waited: int = 0
    _best: list[dict[str, Tensor]] = field(default_factory=list)
    _plain: Tensor | None = None

    def check(self) -> dict[str, float]:
        """Check the prompt as it is now.

        Returns:
            ``val_drift``; with a task ``val_task`` (balanced: mean over the classes of the mean
            cross-entropy) and ``val_balanced_accuracy``, else ``val_total``.
        """
        if self._plain is None:
            self._plain = plain_features(self.judge, self.held_out.images)
        if self.max_drift:
            hold_drift(self.prompt, self.judge, self.held_out.images, self._plain, self.max_drift)
        found = self._measured(self._plain)
        score = found.get("val_task", found.get("val_total", 0.0))
        if score < self.best_score:
            self.best_score, self.waited = score, 0
            self._best = [copy.deepcopy(module.state_dict()) for module in self._modules()]
        else:
            self.waited += 1
        return found

    @property
    def done(self) -> bool:
        """Whether it has waited long enough for a better prompt."""
        return 0 < self.held_out.patience <= self.waited

    def restore(self) -> None:
        """Put the best prompt back, and its head."""
        for module, state in zip(self._modules(), self._best, strict=False):
            module.load_state_dict(state)

    def _modules(self) -> list[torch.nn.Module]:
        return [self.prompt, *([self.judge.head] if self.judge.head is not None else [])]

    @torch.no_grad()
    def _measured(self, plain: Tensor) -> dict[str, float]:
        images, labels = self.held_out.images, self.held_out.labels
        noise = torch.Generator().manual_seed(0)
        totals, features = [], []
        head = self.judge.head
        if head is not None:
            head.eval()
        for part, named in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
            gain = self.prompt.gain(part, noise)
            terms, encoded = self.judge.measure(part, named, gain)
            totals.append(float(self.judge.total(terms)) * len(part))
            features.append(encoded)
        encoded = torch.cat(features)
        found = {"val_drift": float(drift(plain, encoded))}
        if head is None:
            return {**found, "val_total": sum(totals) / len(images)}
        logits = head(encoded).float()
        head.train()
        classes, place = labels.unique(return_inverse=True)
        loss = F.cross_entropy(logits, labels, reduction="none")
        right = (logits.argmax(dim=1) == labels).float()
        counts = torch.bincount(place, minlength=len(classes))
        task, accuracy = (torch.bincount(place, v) / counts for v in (loss, right))
        found["val_task"] = float(task.mean())
        return {**found, "val_balanced_accuracy": float(accuracy.mean())}


@torch.no_grad()
def plain_features(judge: Judge, images: Tensor) -> Tensor:
    """Encode images as they are, ``(N, D)``."""
    return torch.cat([judge.teacher.encode(part) for part in images.split(CHUNK)])


@torch.no_grad()
def hold_drift(
    prompt: FourierPrompt, judge: Judge, images: Tensor, plain: Tensor, bound: float
) -> float:
    """Move a prompt back towards the identity until the teacher's drift is within the bound.

    The identity has no drift, so the way back always ends.

    Args:
        prompt: Changed in place.
        judge: With the teacher.
        images: ``(N, 3, H, W)``.
        plain: The teacher's features of them, ``(N, D)``.
        bound: Of the mean of ``1 - cos``, above 0.

    Returns:
        The drift that is left, at most ``bound``.
    """
    for _ in range(SHRINKS):
        noise = torch.Generator().manual_seed(0)
        parts = [prompt(part, noise) for part in images.split(CHUNK)]
        found = float(drift(plain, torch.cat([judge.teacher.encode(part) for part in parts])))
        if found <= bound:
            break
        # Drift grows about as the square of the log gain.
        prompt.shrink_(min(max(0.98 * (bound / found) ** 0.5, 0.5), 0.95))
    return found


class PromptedTeacher(nn.Module):
    """Answers as its teacher does on prompted images.

    Args:
        teacher: Frozen.
        prompt: Kept as it is; a generator's noise is drawn from a fixed seed for every batch.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> prompted = PromptedTeacher(load_teacher("builtin"), FourierPrompt("shared"))
        >>> prompted.encode(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 256])
    """

    def __init__(self, teacher: Teacher, prompt: FourierPrompt) -> None:
        super().__init__()
        self.teacher, self.prompt = teacher, prompt
        self.name = f"{teacher.name} behind a prompt"
        self.card: dict[str, Any] = {**teacher.card, "prompt": dict(prompt.settings)}

    def encode(self, images: Tensor) -> Tensor:
        """Prompt images ``(B, 3, H, W)`` in [0, 1] and turn them into features ``(B, D)``."""
        return self.teacher.encode(self.prompt(images, torch.Generator().manual_seed(0)))


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
    generator: torch.Generator | None = None,
    record: MaskRecord | None = None,
) -> pd.DataFrame:
    """Take some steps of Adam on the prompt, and on the task head if there is one.

    Args:
        prompt: Changed in place.
        teacher: Frozen.
        batches: Images ``(B, 3, H, W)`` in [0, 1] and labels ``(B,)``; begun anew at its end.
        objectives: Weight of each term, 0 or more; a weight of 0 leaves the term out.
        steps: Prompt steps.
        learning_rate: Adam's.
        max_drift: Bound of the teacher's drift, mean ``1 - cos``: a prompt beyond is moved back
            towards the identity; 0 is none.
        held_out: Images that choose among the prompts of these steps, and may end them early;
            None keeps the last prompt.
        reference: What ``statistics`` compares with; None takes it anew, see `reference_of`.
        class_counts: ``(K,)``, training images a class; needed by ``task``.
        head: Goes on from an earlier exploration; None starts one where ``task`` needs it.
        student: Needed by ``disagreement``; set to evaluation mode for the while.
        student_size: Side of the image the student sees, pixels; 0 is as it comes.
        generator: Source of the prompt's noise.
        record: Looks at the mask now and then, and at the end at the one that was kept.

    Returns:
        One row a step: ``step``, each term before its weight, ``total``, ``log_gain`` (mean of
        |log gain|, natural logarithm), with a bound ``drift``. Where a check was made after the
        step, columns ``val_...`` of `Keeper.check`, elsewhere NaN; ``kept`` is 1 for the step
        whose prompt was kept, nowhere if the prompt was best as it came.

    Raises:
        InputError: If an objective lacks what it needs, or there are no batches.
        WorkError: If a value or a gradient stops being finite; the prompt is left as it was before
            that step, or as the best that was checked.

    Example:
        >>> from fopro_lab.models import load_teacher
        >>> batches = [(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))]
        >>> history = explore(FourierPrompt("ring", size=32), load_teacher("builtin"), batches,
        ...                   objectives={"statistics": 1.0}, steps=2)
        >>> list(history.columns)
        ['step', 'statistics', 'total', 'log_gain']
    """
    active = active_objectives(objectives, teacher)
    if "disagreement" in active and student is None:
        raise InputError("objective 'disagreement': expected a student, got none")
    head = _task_head(head, teacher, class_counts) if "task" in active else None
    stream = _endless(batches)
    first = next(stream)
    if "statistics" in active:
        reference = reference or reference_of(teacher, size=first[0].shape[-1])
    else:
        reference = None
    judge = Judge(teacher, active, reference, class_counts, head, student, student_size)
    prompt.observe(first[0])
    parameters = [*prompt.parameters(), *(head.parameters() if head is not None else ())]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    keeper = Keeper(judge, held_out, prompt, max_drift) if held_out is not None else None
    rows: list[dict[str, float]] = []
    kept = -1  # the prompt as it came
    with evaluating(student):
        if keeper is not None:
            keeper.check()
        if record is not None:
            record.look(prompt, 0)
        for step, (images, labels) in enumerate(_chained(first, stream, steps)):
            gain = prompt.gain(images, generator)
            terms, features = judge.measure(images, labels, gain)
            total = judge.total(terms)
            row: dict[str, float] = {name: float(value.detach()) for name, value in terms.items()}
            optimiser.zero_grad()
            if torch.isfinite(total):
                total.backward()
            if not torch.isfinite(total) or not _finite_gradients(parameters):
                if keeper is not None:
                    keeper.restore()
                raise WorkError(
                    f"explore: step {step}: not finite: {row}; lower prompt_learning_rate"
                )
            optimiser.step()
            row["total"] = float(total.detach())
            row["log_gain"] = float(gain.detach().log().abs().mean())
            if max_drift:
                plain = plain_features(judge, images)
                row["drift"] = float(drift(plain, features.detach()))
                if row["drift"] > max_drift or step + 1 == steps:
                    hold_drift(prompt, judge, images, plain, max_drift)
            rows.append({"step": step, **row})
            if record is not None and step + 1 < steps:
                record.look(prompt, step + 1)
            if keeper is not None and held_out is not None:
                if (step + 1) % held_out.every == 0 or step + 1 == steps:
                    rows[-1] |= keeper.check()
                    kept = step if keeper.waited == 0 else kept
                if keeper.done:
                    break
        if keeper is not None:
            keeper.restore()
        if record is not None and record.steps - {0}:
            record.take(prompt, len(rows))
    history = pd.DataFrame(rows)
    return history if held_out is None else history.assign(kept=(history["step"] == kept) * 1)


def _task_head(head: TaskHead | None, teacher: Teacher, class_counts: Tensor | None) -> TaskHead:
    """Go on with a head, or start one."""
    if class_counts is None:
        raise InputError("objective 'task': expected class_counts, got none")
    if head is not None:
        return head
    return TaskHead(teacher.feature_dim, classes=len(class_counts)).to(teacher.mean.device)


def _finite_gradients(parameters: list[torch.nn.Parameter]) -> bool:
    """Tell whether a step may be taken; after a step on NaN nothing could be saved."""
    norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    return bool(torch.isfinite(torch.stack(norms)).all()) if norms else True


def _chained(
    first: tuple[Tensor, Tensor], stream: Iterator[tuple[Tensor, Tensor]], steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``steps`` batches, and take none in advance."""
    yield first
    for _ in range(steps - 1):
        yield next(stream)


def _endless(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        came = False
        for batch in batches:
            came = True
            yield batch
        if not came:
            raise InputError("batches: expected images and labels, got none; an iterator that is "
                             "used up cannot begin anew")  # fmt: skip


LABEL_FREE = ("statistics", "confidence", "identity")


def class_gains(
    teacher: Teacher,
    batches: Mapping[str, Iterable[tuple[Tensor, Tensor]]],
    *,
    objectives: Mapping[Objective, float],
    steps: int,
    learning_rate: float = 0.05,
    rings: int = 8,
    max_log_gain: float = 0.7,
    reference: Reference | None = None,
) -> pd.DataFrame:
    """Explore a ring prompt for each class on that class's images alone.

    Args:
        teacher: Frozen.
        batches: Class name to its batches, as of `explore`.
        objectives: Weight of each term; ``statistics``, ``confidence`` and ``identity`` only.
        steps: Prompt steps for each class.
        learning_rate: Adam's.
        rings: Up to 0.5 cycles per pixel; the corners add one.
        max_log_gain: Bound of |log gain|.
        reference: What ``statistics`` compares with.

    Returns:
        A row for each class and ring: ``class_name``, ``ring``, ``low``, ``high`` (cycles per
        pixel), ``gain`` (geometric mean of the channels).

    Raises:
        InputError: If there is no class, or an objective needs the labels or a student.

    Example:
        >>> import torch
        >>> from fopro_lab.models import load_teacher
        >>> batches = {"a": [(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))]}
        >>> table = class_gains(load_teacher("builtin"), batches, steps=1, rings=2,
        ...                     objectives={"statistics": 1.0})
        >>> table[["class_name", "ring"]].values.tolist()
        [['a', 0], ['a', 1], ['a', 2]]
    """
    others = sorted(
        name for name, weight in objectives.items() if weight and name not in LABEL_FREE
    )
    if others:
        raise InputError(f"objectives: expected names out of {LABEL_FREE}, got {others}")
    if not batches:
        raise InputError("batches: expected one class or more, got none")
    rows = []
    for name, own in batches.items():
        prompt = FourierPrompt("ring", rings=rings, max_log_gain=max_log_gain)
        explore(
            prompt,
            teacher,
            own,
            objectives=objectives,
            steps=steps,
            learning_rate=learning_rate,
            reference=reference,
        )
        gains = (max_log_gain * prompt.cells.detach().tanh()).mean(dim=0).exp().tolist()
        for ring, ((low, high), gain) in enumerate(zip(pairwise(prompt.edges), gains, strict=True)):
            rows.append((name, ring, low, high, gain))
    return pd.DataFrame(rows, columns=["class_name", "ring", "low", "high", "gain"])
