"""What teacher and student say of the bands: on the picture, and on a small set that is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation.intervals import bootstrap_weights, percentile_interval
from fopro_lab.fourier import FourierPrompt
from fopro_lab.lab.bands import scale_bands
from fopro_lab.models import Student, Teacher
from fopro_lab.probing import ring_response
from fopro_lab.probing.pictures import draw_per_class, draw_rows, resampling_units
from fopro_lab.training import TrainedRun
from fopro_lab.training.judging import shrink

TEACHER_PICTURES = 16  # of the ring response and of the mean drift
PER_CLASS = 8  # pictures of the recalls, at most
BATCH = 16
Wanted = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Change:
    """What is done to pictures, as it stands at one moment.

    Attributes:
        gain: ``(1 or 3, H, W // 2 + 1)``.
        prompt: Whose gain depends on the picture; it then counts instead of ``gain``.
        phase_lock: See `scale_bands`.
    """

    gain: Tensor
    prompt: FourierPrompt | None = None
    phase_lock: bool = True

    @torch.inference_mode()
    def apply(self, images: Tensor) -> Tensor:
        """Change pictures ``(B, 3, H, W)``; they are not clipped."""
        gain = self.gain if self.prompt is None else self.prompt.gain(images)
        return scale_bands(images, gain, phase_lock=self.phase_lock)


class SmallSet:
    """Some pictures of the validation part, the same ones for every question.

    Args:
        pack: All pictures.
        split: Whose validation pictures are taken; None takes any.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> small = SmallSet(pack(open_dataset("phantom", pictures=24), 16, progress=False), None)
        >>> small.drawn.shape, len(small.images) == len(small.labels)
        (torch.Size([16, 3, 16, 16]), True)
    """

    def __init__(self, pack: Pack, split: Split | None) -> None:
        rows = np.arange(len(pack)) if split is None else split.val
        drawn = draw_rows(rows, count=TEACHER_PICTURES, seed=0)
        chosen = draw_per_class(rows, pack.labels[rows], per_class=PER_CLASS, seed=0)
        self.units = resampling_units(pack.dataset.table, rows=drawn)
        self.drawn, _ = next(batches(pack, drawn, batch_size=len(drawn)))
        self.images, _ = next(batches(pack, chosen, batch_size=len(chosen)))
        self.labels = pack.labels[chosen]
        self.names = pack.dataset.class_names


class AskedTeacher:
    """A teacher with its features of the unchanged pictures, and its ring response.

    Args:
        teacher: Frozen.
        small: The set.
        edges: Of the rings of the response, cycles per pixel.
    """

    def __init__(self, teacher: Teacher, small: SmallSet, edges: list[float]) -> None:
        self.teacher, self.small, self.edges = teacher, small, edges
        self._response: pd.DataFrame | None = None
        self._plain: Tensor | None = None

    @property
    def response(self) -> pd.DataFrame:
        """Drift by the ring that is removed, as of `ring_response`; measured once."""
        if self._response is None:
            self._response = ring_response(
                self.teacher, self.small.drawn, self.edges, [0.0], units=self.small.units,
                batch_size=BATCH, resamples=200,
            )  # fmt: skip
        return self._response

    def ask(self, image: Tensor, change: Change) -> tuple[float, float]:
        """Measure the drift of one picture, and its mean over the set; cosine distances."""
        if self._plain is None:
            self._plain = self._encode(self.small.drawn)
        changed = self._encode(change.apply(self.small.drawn))
        return self.drift(image, change), _distance(self._plain, changed)

    def drift(self, image: Tensor, change: Change) -> float:
        """Measure the drift of one picture, cosine distance."""
        one = torch.cat([image[None], change.apply(image[None])])
        before, after = self._encode(one).split(1)
        return _distance(before, after)

    def drift_over(self, images: Tensor, change: Change, units: np.ndarray) -> dict[str, float]:
        """Measure the mean drift of many pictures.

        Args:
            images: ``(N, 3, H, W)`` in [0, 1].
            change: What is done to them.
            units: Lesion, patient or picture of each, ``(N,)``, drawn as a whole.

        Returns:
            ``drift``, ``low``, ``high`` (95 % bootstrap interval) and ``n``.
        """
        changed = self._encode(change.apply(images))
        moved = 1 - torch.cosine_similarity(self._encode(images), changed, dim=1).numpy()
        same = np.zeros(len(units), dtype=np.int64)
        weights = bootstrap_weights(same, units, resamples=1000, seed=0)
        low, high = percentile_interval(moved @ weights / weights.sum(axis=0))
        return {"drift": float(moved.mean()), "low": low, "high": high, "n": len(moved)}

    @torch.inference_mode()
    def _encode(self, images: Tensor) -> Tensor:
        return torch.cat([self.teacher.encode(part) for part in images.split(BATCH)]).double()


def _distance(one: Tensor, other: Tensor) -> float:
    return max(0.0, float((1 - torch.cosine_similarity(one, other, dim=1)).mean()))


@dataclass(frozen=True, eq=False)
class StudentAnswer:
    """What a student makes of the change.

    Attributes:
        top: The three most probable classes after: ``name``, ``before``, ``after`` (0 to 1).
        recalls: A row a class of the set: ``name``, ``n``, ``before``, ``after`` (pictures that
            are found).
    """

    top: pd.DataFrame
    recalls: pd.DataFrame

    @property
    def change(self) -> float:
        """Change of the mean class recall on the set, -1 to 1."""
        n = self.recalls["n"]
        return float(((self.recalls["after"] - self.recalls["before"]) / n).mean())


class AskedStudent:
    """A trained student with its answers to the unchanged pictures.

    Args:
        run: The finished run.
        pack: The explorer's pictures.
        small: The set.
        split: Of the explorer; None if it has none.

    Raises:
        InputError: If the run is unfinished, or was trained on other classes, another size or
            another split, so that what counts as validation here may have trained it.
    """

    def __init__(self, run: TrainedRun, pack: Pack, small: SmallSet, split: Split | None) -> None:
        config, manifest = run.config, run.manifest
        if run.state != "done":
            raise InputError(f"{run.path}: expected a finished run, got one that is {run.state}")
        pairs: dict[str, tuple[Any, Any]] = {
            "classes": (list(pack.dataset.class_names), list(run.class_names)),
            "image_size": (pack.size, config["image_size"]),
        }
        if split is not None:
            pairs["split"] = (split.fingerprint, manifest["split_fingerprint"])
        for what, (here, there) in pairs.items():
            if here != there:
                raise InputError(
                    f"{run.path}: expected a student of the {what} shown, {here}, got {there}; "
                    "open the explorer with the run's own data knobs"
                )
        self.student: Student = run.student()
        self.small, self.size = small, int(config["student_size"])
        self._plain: np.ndarray | None = None

    def ask(self, image: Tensor, change: Change, *, wanted: Wanted = lambda: True) -> StudentAnswer:
        """Classify the picture and the set, before and after."""
        one = self._classify(torch.cat([image[None], change.apply(image[None])]), wanted)
        before, after = torch.softmax(one, dim=1).numpy()
        order = np.argsort(-after)[:3]
        names = np.array(self.small.names)
        top = pd.DataFrame({"name": names[order], "before": before[order], "after": after[order]})
        if self._plain is None:
            self._plain = self._found(self.small.images, wanted)
        changed = self._found(change.apply(self.small.images), wanted)
        rows = [
            (names[k], own.sum(), self._plain[own].sum(), changed[own].sum())
            for k in np.unique(self.small.labels)
            for own in [self.small.labels == k]
        ]
        return StudentAnswer(top, pd.DataFrame(rows, columns=["name", "n", "before", "after"]))

    def _found(self, images: Tensor, wanted: Wanted) -> np.ndarray:
        return self._classify(images, wanted).argmax(dim=1).numpy() == self.small.labels

    @torch.inference_mode()
    def _classify(self, images: Tensor, wanted: Wanted) -> Tensor:
        parts = []
        for part in images.split(BATCH):
            if not wanted():
                raise Overtaken
            parts.append(self.student.classify(shrink(part, self.size)).float())
        return torch.cat(parts)


class Overtaken(Exception):
    """A newer question has come; nobody waits for this answer."""


def read_students(
    runs: Mapping[str, Path | str], pack: Pack, small: SmallSet, split: Split | None
) -> tuple[dict[str, AskedStudent], list[str]]:
    """Load the students of some run folders, by name; those of other pictures are left out.

    Returns:
        The students, and a line for each run that does not fit.

    Raises:
        InputError: If none fits, as `AskedStudent` and `TrainedRun.read`.

    Example:
        >>> read_students({}, None, None, None)
        ({}, [])
    """
    students: dict[str, AskedStudent] = {}
    refused: list[str] = []
    for name, path in runs.items():
        try:
            run = TrainedRun.read(Path(path).expanduser())
            students[name] = AskedStudent(run, pack, small, split)
        except InputError as error:
            refused.append(str(error))
    if refused and not students:
        others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise InputError(f"{refused[0]}{others}")
    return students, refused
