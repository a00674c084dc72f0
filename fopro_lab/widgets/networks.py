"""Teacher and student beside the explorer: they answer once the sliders have come to rest."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import bootstrap_weights, percentile_interval
from fopro_lab.fourier import ring_parts
from fopro_lab.models import Teacher, choose_device
from fopro_lab.probing import features, ring_response
from fopro_lab.training import TrainedRun
from fopro_lab.widgets.bands import Change
from fopro_lab.widgets.panels import Panel

DRIFT_IMAGES = 16  # of the ring response and of the mean drift
IMAGES_PER_CLASS = 8  # of the recalls, at most
PROBE_IMAGES = 40  # of each class, at most, train the linear probe of a teacher
BATCH_SIZE = 16
WAIT_SECONDS = 0.25  # after the last move of a slider
Wanted = Callable[[], bool]
Classify = Callable[[Tensor], Tensor]  # images to logits
Question = Callable[..., Any]  # takes ``wanted``, returns the answer


class Superseded(Exception):
    """A newer question has come; nobody waits for this answer."""


class ValidationSample:
    """A few validation images of a pack, the same ones for every question; all without a split."""

    def __init__(self, pack: Pack, split: Split | None) -> None:
        rows = np.arange(len(pack)) if split is None else split.val
        drawn = features.draw_rows(rows, count=DRIFT_IMAGES, seed=0)
        how = {"per_class": IMAGES_PER_CLASS, "seed": 0}
        chosen = features.draw_per_class(rows, pack.labels[rows], **how)
        self.drift_images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
        self.units = features.resampling_units(pack.dataset.table, rows=drawn)
        self.images, _ = next(batches(pack, chosen, batch_size=len(chosen)))
        self.labels, self.names = pack.labels[chosen], np.array(pack.dataset.class_names)


class TeacherDrift:
    """How far a frozen teacher's features move, as cosine distance ``1 - cos``."""

    def __init__(self, teacher: Teacher, sample: ValidationSample, edges: list[float]) -> None:
        self.teacher, self.sample, self.edges = teacher, sample, edges

    @cached_property
    def response(self) -> pd.DataFrame:
        """Drift by the ring that is removed, see `ring_response`; measured once."""
        return ring_response(
            self.teacher, self.sample.drift_images, self.edges, [0.0],
            units=self.sample.units, batch_size=BATCH_SIZE, resamples=200,
        )  # fmt: skip

    @cached_property
    def _unchanged(self) -> Tensor:
        return self._encode(self.sample.drift_images)

    def ask(
        self, image: Tensor, change: Change, *, wanted: Wanted = lambda: True
    ) -> tuple[float, float, pd.DataFrame]:
        """Measure the drift of one image ``(3, H, W)`` and the sample's mean; and `response`."""
        before, after = self._encode(torch.cat([image[None], change.apply(image[None])])).split(1)
        changed = self._encode(change.apply(self.sample.drift_images))
        if not wanted():
            raise Superseded
        mean = float(features.feature_drift(self._unchanged, changed).mean())
        return abs(float(features.feature_drift(before, after))), abs(mean), self.response

    def over(self, images: Tensor, change: Change, units: np.ndarray) -> dict[str, float]:
        """Measure mean drift and its 95 % interval; lesions or patients are resampled whole."""
        both = self._encode(images), self._encode(change.apply(images))
        drifts = features.feature_drift(*both).numpy()
        weights = bootstrap_weights(None, units, resamples=1000, seed=0)
        low, high = percentile_interval(drifts @ weights / weights.sum(axis=0))
        return {"drift": float(drifts.mean()), "low": low, "high": high, "n": len(drifts)}

    @torch.inference_mode()
    def _encode(self, images: Tensor) -> Tensor:
        parts = images.to(features.teacher_device(self.teacher)).split(BATCH_SIZE)
        return torch.cat([features.encode(self.teacher, part) for part in parts]).cpu().double()


class WorstBand(NamedTuple):
    """The ring and gain under which a class loses most, and what it loses on the sample."""

    ring: int
    gain: float
    found: tuple[int, int]  # of its images, before and after
    probability: tuple[float, float]  # of the class, mean over its images
    n: int


class StudentRecall:
    """A classifier's answers on the sample; `load` builds it when it is first asked."""

    def __init__(self, load: Callable[[], Classify], sample: ValidationSample) -> None:
        self.sample, self._classifier = sample, cache(load)
        self._unchanged: np.ndarray | None = None  # which images it recognises as they are

    def ask(
        self, image: Tensor, change: Change, *, wanted: Wanted = lambda: True
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Classify the image and the sample, before and after.

        Returns the image's three most probable classes after the change: name, before, after
        (probabilities); and a row per class of the sample: name, n, before, after (recognised).
        """
        sample = self.sample
        both = self._classify(torch.cat([image[None], change.apply(image[None])]), wanted)
        before, after = torch.softmax(both, dim=1).numpy()
        top = pd.DataFrame({"name": sample.names, "before": before, "after": after})
        if self._unchanged is None:
            self._unchanged = self._recognise(sample.images, wanted)
        changed = self._recognise(change.apply(sample.images), wanted)
        counts = pd.DataFrame({"n": 1, "before": self._unchanged, "after": changed})
        recalls = counts.groupby(sample.labels).sum()
        recalls.insert(0, "name", sample.names[recalls.index])
        return top.iloc[np.argsort(-after)[:3]], recalls.reset_index(drop=True)

    def worst_band(
        self, label: int, edges: Sequence[float], *, wanted: Wanted = lambda: True
    ) -> WorstBand:
        """Remove and double one ring after another; take what lowers the class's probability most.

        A sample without an image of the class is an `InputError`.
        """
        images = self.sample.images[self.sample.labels == label]
        if not len(images):
            raise InputError(f"{self.sample.names[label]}: expected validation images, got none")
        before, found = self._of_class(images, label, wanted)
        cases = []
        for ring, part in enumerate(ring_parts(images, edges)):
            for gain in (0.0, 2.0):
                after, still = self._of_class(images + (gain - 1) * part, label, wanted)
                cases.append(WorstBand(ring, gain, (found, still), (before, after), len(images)))
        return min(cases, key=lambda case: case.probability[1])

    def _of_class(self, images: Tensor, label: int, wanted: Wanted) -> tuple[float, int]:
        logits = self._classify(images, wanted)
        shares = torch.softmax(logits, dim=1)[:, label]
        return float(shares.mean()), int((logits.argmax(dim=1) == label).sum())

    def _recognise(self, images: Tensor, wanted: Wanted) -> np.ndarray:
        return self._classify(images, wanted).argmax(dim=1).numpy() == self.sample.labels

    @torch.inference_mode()
    def _classify(self, images: Tensor, wanted: Wanted) -> Tensor:
        parts = []
        for part in images.split(BATCH_SIZE):
            if not wanted():
                raise Superseded
            parts.append(self._classifier()(part).float().cpu())
        return torch.cat(parts)


def fit_probe(teacher: Teacher, pack: Pack, split: Split) -> Classify:
    """Fit a linear probe on the teacher with a few training images of each class."""
    train, val = (
        features.draw_per_class(rows, pack.labels[rows], per_class=PROBE_IMAGES, seed=0)
        for rows in (split.train, split.val)
    )
    few = replace(split, train=train, val=val)
    probe = features.fit_classifier(teacher, pack, few, batch_size=BATCH_SIZE)
    logits, device = features.probe_logits(teacher, probe), features.teacher_device(teacher)
    return lambda images: logits(features.encode(teacher, images.to(device)).double())


def load_students(
    runs: Mapping[str, Path | str], pack: Pack, sample: ValidationSample, split: Split | None
) -> tuple[dict[str, StudentRecall], list[str]]:
    """Load the students of run folders by name, and say why others do not fit."""
    students: dict[str, StudentRecall] = {}
    refused: list[str] = []
    if split is None:
        if runs:
            raise InputError("runs: expected a split, whose validation images no student has seen")
        return students, refused
    for name, path in runs.items():
        try:
            run = TrainedRun.read(Path(path).expanduser())
            classify = run.classifier(pack, split, device=choose_device())
            students[name] = StudentRecall(partial(partial, classify), sample)
        except InputError as error:
            refused.append(str(error))
    if refused and not students:
        others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise InputError(f"{refused[0]}{others}")
    return students, refused


class Later:
    """Answer only the newest question, in a thread, once no other has come for a while."""

    def __init__(
        self,
        show: Callable[[Any], None],
        *,
        fail: Callable[[Exception], None],
        wait: float = WAIT_SECONDS,
    ) -> None:
        # `show` and `fail` run in the loop
        self.pending = False  # whether the last question still waits for its answer
        self._show, self._fail, self._wait = show, fail, wait
        self._question: Question | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")

    def ask(self, question: Question | None) -> None:
        """Replace the last question by one that answers while its ``wanted()`` is true, or none."""
        self._question, self.pending = question, question is not None
        with suppress(RuntimeError):  # no loop: the answer waits for `flush`
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._answer_later(loop, question)) if question else None

    def flush(self) -> None:
        """Answer the pending question here and now."""
        question, self._question = self._question, None  # no longer wanted in the thread
        if question:
            answer = self._try(question, lambda: True)
            self.pending = False
            answer()

    async def _answer_later(self, loop: asyncio.AbstractEventLoop, question: Question) -> None:
        def wanted() -> bool:
            return question is self._question

        await asyncio.sleep(self._wait)
        if wanted():
            answer = await loop.run_in_executor(self._thread, self._try, question, wanted)
            if wanted():
                self._question, self.pending = None, False
                answer()

    def _try(self, question: Question, wanted: Wanted) -> Callable[[], None]:
        try:
            return partial(self._show, question(wanted=wanted))
        except Exception as error:
            return partial(self._fail, error)


class Networks:
    """The slow half of the explorer: a teacher's drift, and what a classifier recognises."""

    def __init__(self, equaliser: Panel, *, tell: Callable[[WorstBand | Exception], None]) -> None:
        self.teachers: Mapping[str, TeacherDrift] = {}
        self.students: Mapping[str, StudentRecall] = {}
        self.teacher = self.student = ""  # titles of those that are chosen; empty for none
        self.groups: Mapping[str, str] = {}  # head, medium or tail for each class
        self.drift, self.classes, self._equaliser = Panel("drift"), Panel("classes"), equaliser
        self._drifts = Later(self._show_drift, fail=partial(_fail, self.drift))
        self._recalls = Later(self._show_recalls, fail=partial(_fail, self.classes))
        self._worst = Later(tell, fail=tell, wait=0)

    def ask(self, image: Tensor, change: Change) -> None:
        """Ask about a change; what is shown is greyed until the answer is there."""
        teacher, student = self.teachers.get(self.teacher), self.students.get(self.student)
        self._drifts.ask(partial(teacher.ask, image, change) if teacher else None)
        self._recalls.ask(partial(student.ask, image, change) if student else None)
        for panel, later in ((self.drift, self._drifts), (self.classes, self._recalls)):
            panel.pending, panel.moving = later.pending, panel.moving if later.pending else {}

    def ask_worst(self, label: int, edges: Sequence[float]) -> None:
        """Ask which band hurts a class most; the answer goes to `tell`."""
        self._worst.ask(partial(self.students[self.student].worst_band, label, edges))

    def flush(self) -> None:
        """Answer the pending questions here and now."""
        for later in (self._drifts, self._recalls, self._worst):
            later.flush()

    def _show_drift(self, answer: tuple[float, float, pd.DataFrame]) -> None:
        (here, mean, response), title = answer, self.teacher
        largest, n = float(response["drift"].max()), int(response["n"].iloc[0])
        said = {"title": title, "here": here, "mean": mean, "n": n, "largest": largest}
        self.drift.moving, self.drift.pending = said, False
        heard = f"bars: drift of {title}, this ring removed; mean of {n}"
        response = {"response": response["drift"].tolist(), "heard": heard}
        self._equaliser.fixed = {**self._equaliser.fixed, **response}

    def _show_recalls(self, answer: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        top, recalls = answer
        groups = recalls["name"].map(self.groups).fillna("")
        gained = ((recalls["after"] - recalls["before"]) / recalls["n"]).mean()
        points = f"mean recall {100 * gained:+.1f} points"
        named = [f"{r.name} {r.after:.2f} ({r.after - r.before:+.2f})" for r in top.itertuples()]
        self.classes.moving = {
            "title": f"{self.student}: {points} on {recalls['n'].sum()} validation images",
            "rows": recalls.assign(group=groups).astype(object).values.tolist(),
            "top": f"This image: {', '.join(named)}",
        }
        self.classes.pending = False


def _fail(panel: Panel, error: Exception) -> None:
    panel.moving = {"error": f"no answer: {type(error).__name__}: {error}"}
    panel.pending = False
