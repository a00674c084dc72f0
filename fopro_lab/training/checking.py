"""Is the prompt any good on pictures that did not drive it? The best one is kept."""

import copy
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from fopro_lab.data import Pack, batches
from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training.judging import Judge, drift

CHUNK = 64  # pictures encoded together
SHRINKS = 60  # halvings at most; the last ones leave no gain beside 1


@dataclass(frozen=True)
class HeldOut:
    """Pictures of other lesions than those that drive the prompt, and how they are used.

    No gradient ever comes from them: they choose among prompts, as validation pictures choose
    among epochs. Test pictures belong here as little as there.

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
    pictures: int,
    every: int,
    patience: int = 0,
    device: str | torch.device = "cpu",
) -> HeldOut | None:
    """Take the pictures that check a prompt: always the same, the classes alike as far as they go.

    Args:
        pack: The pictures.
        rows: Row numbers to take from, such as validation's.
        pictures: How many at most.
        every: As of `HeldOut`; 0 takes none.
        patience: As of `HeldOut`.
        device: Where they shall be.

    Returns:
        The pictures, or None if ``every`` is 0 or there are no rows.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=40), 16, progress=False)
        >>> held_out = draw_held_out(packed, np.arange(40), pictures=16, every=5)
        >>> torch.bincount(held_out.labels).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2]
    """
    if not every or rows is None or not len(rows):
        return None
    known = pd.Series(pack.labels[rows])
    turn = known.groupby(known).cumcount().to_numpy()  # each class's first picture, then its second
    chosen = rows[turn.argsort(kind="stable")[:pictures]]
    images, labels = next(batches(pack, chosen, batch_size=len(chosen), device=device))
    return HeldOut(images, labels, every=every, patience=patience)


@dataclass(eq=False)
class Keeper:
    """Checks a prompt now and then and keeps the best.

    Attributes:
        judge: Measures it.
        held_out: The pictures.
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
    """Encode pictures as they are, ``(N, D)``."""
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
