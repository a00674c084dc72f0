"""Teacher and student beside the explorer: they answer once the sliders have come to rest."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import bootstrap_weights, percentile_interval
from fopro_lab.models import Teacher, choose_device
from fopro_lab.plots.style import METHOD_COLORS
from fopro_lab.probing import ring_response
from fopro_lab.probing.features import (
    draw_per_class,
    draw_rows,
    encode,
    resampling_units,
    teacher_device,
)
from fopro_lab.training import TrainedRun
from fopro_lab.widgets.bands import Change, MovingFigure, change_centre, style_frequency_axes

DRIFT_IMAGES = 16  # of the ring response and of the mean drift
IMAGES_PER_CLASS = 8  # of the recalls, at most
BATCH_SIZE = 16
WAIT_SECONDS = 0.25  # after the last move of a slider
Wanted = Callable[[], bool]
Question = tuple[Tensor, Change, str, str]  # image, change, titles of teacher and student or ""


class Superseded(Exception):
    """A newer question has come; nobody waits for this answer."""


class ValidationSample:
    """A few validation images of a pack, the same ones for every question; all without a split."""

    def __init__(self, pack: Pack, split: Split | None) -> None:
        rows = np.arange(len(pack)) if split is None else split.val
        drawn = draw_rows(rows, count=DRIFT_IMAGES, seed=0)
        chosen = draw_per_class(rows, pack.labels[rows], per_class=IMAGES_PER_CLASS, seed=0)
        self.drift_images, _ = next(batches(pack, drawn, batch_size=len(drawn)))
        self.units = resampling_units(pack.dataset.table, rows=drawn)
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

    def of_image(self, image: Tensor, change: Change) -> float:
        """Measure the drift of one image ``(3, H, W)``."""
        before, after = self._encode(torch.cat([image[None], change.apply(image[None])])).split(1)
        return float(_distances(before, after))

    def of_sample(self, change: Change) -> float:
        """Measure the mean drift of the sample."""
        changed = self._encode(change.apply(self.sample.drift_images))
        return float(_distances(self._unchanged, changed).mean())

    def over(self, images: Tensor, change: Change, units: np.ndarray) -> dict[str, float]:
        """Measure mean drift and its 95 % interval; lesions or patients are resampled whole."""
        drifts = _distances(self._encode(images), self._encode(change.apply(images))).numpy()
        one_class = np.zeros(len(units), dtype=np.int64)
        weights = bootstrap_weights(one_class, units, resamples=1000, seed=0)
        low, high = percentile_interval(drifts @ weights / weights.sum(axis=0))
        return {"drift": float(drifts.mean()), "low": low, "high": high, "n": len(drifts)}

    @torch.inference_mode()
    def _encode(self, images: Tensor) -> Tensor:
        device = teacher_device(self.teacher)
        parts = [encode(self.teacher, part.to(device)) for part in images.split(BATCH_SIZE)]
        return torch.cat(parts).cpu().double()


def _distances(features: Tensor, others: Tensor) -> Tensor:
    return (1 - torch.cosine_similarity(features, others, dim=1)).clamp(min=0)


@dataclass(frozen=True, eq=False)
class StudentAnswer:
    """What a student makes of a change."""

    top: pd.DataFrame  # three most probable classes after: name, before, after (probabilities)
    recalls: pd.DataFrame  # a row per class: name, n, before, after (images recognised)

    @property
    def change(self) -> float:
        """Change of the mean class recall on the sample, -1 to 1."""
        gained = self.recalls["after"] - self.recalls["before"]
        return float((gained / self.recalls["n"]).mean())


class StudentRecall:
    """A trained student, of the explorer's own split, and its answers to the unchanged images."""

    def __init__(self, run: TrainedRun, pack: Pack, sample: ValidationSample, split: Split) -> None:
        self.sample, self._device = sample, choose_device()
        self._classifier = run.classifier(pack, split, device=self._device)
        self._unchanged: np.ndarray | None = None  # which images it recognises as they are

    def ask(self, image: Tensor, change: Change, *, wanted: Wanted = lambda: True) -> StudentAnswer:
        """Classify the image and the sample, before and after."""
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
        return StudentAnswer(top.iloc[np.argsort(-after)[:3]], recalls.reset_index(drop=True))

    def _recognise(self, images: Tensor, wanted: Wanted) -> np.ndarray:
        return self._classify(images, wanted).argmax(dim=1).numpy() == self.sample.labels

    @torch.inference_mode()
    def _classify(self, images: Tensor, wanted: Wanted) -> Tensor:
        parts = []
        for part in images.split(BATCH_SIZE):
            if not wanted():
                raise Superseded
            parts.append(self._classifier(part.to(self._device)).float().cpu())
        return torch.cat(parts)


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
            students[name] = StudentRecall(run, pack, sample, split)
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
        work: Callable[[Any, Wanted], Any],
        show: Callable[[Any], None],
        *,
        fail: Callable[[Exception], None],
        wait: float = WAIT_SECONDS,
    ) -> None:
        # `work` also takes whether its answer is still wanted; `show` and `fail` run in the loop.
        self.pending = False  # whether the last question still waits for its answer
        self._work, self._show, self._fail, self._wait = work, show, fail, wait
        self._question: Any = None
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")

    def ask(self, question: Any) -> None:
        """Replace the last question."""
        self._cancel()
        self._question, self.pending = question, True
        with suppress(RuntimeError):  # no loop: the answer waits for `flush`
            self._task = asyncio.get_running_loop().create_task(self._answer_later(question))

    def flush(self) -> None:
        """Answer the pending question here and now."""
        self._cancel()
        if self.pending:
            question, self._question = self._question, None  # no longer wanted in the thread
            try:
                answer = self._work(question, lambda: True)
            except Exception as error:
                self._end(self._fail, error)
            else:
                self._end(self._show, answer)

    async def _answer_later(self, question: Any) -> None:
        await asyncio.sleep(self._wait)
        work = partial(self._work, question, lambda: question is self._question)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except Exception as error:
            self._end(self._fail, error)
        else:
            self._end(self._show, answer)

    def _end(self, tell: Callable[[Any], None], result: Any) -> None:
        self.pending = False
        tell(result)

    def _cancel(self) -> None:
        if self._task is not None:  # its thread goes on until it looks at `wanted`
            self._task.cancel()
            self._task = None


class Answer(NamedTuple):
    """What the networks say; None for one that was not asked."""

    question: Question
    drift: tuple[float, float] | None  # of the image, and mean over the sample
    response: pd.DataFrame | None
    student: StudentAnswer | None


class NetworkPanel(widgets.HBox):
    """The slow half of the explorer: a teacher's drift, and what a student recognises."""

    def __init__(self) -> None:
        self.teachers: Mapping[str, TeacherDrift] = {}
        self.students: Mapping[str, StudentRecall] = {}
        self.teacher = self.student = ""  # titles of those that are chosen; empty for none
        self.answer: Answer | None = None  # the last one
        self._later = Later(self._work, self._show, fail=self._fail)
        self._teacher_html = self._student_html = ""
        self.teacher_text = widgets.HTML().add_class("fopro-teacher")
        self.student_text = widgets.HTML().add_class("fopro-student")
        hidden = {"max_width": "100%", "visibility": "hidden"}  # until there is an answer
        self.response = widgets.Image(format="png", layout=hidden).add_class("fopro-response")
        self._left = widgets.VBox([self.teacher_text, self.response], layout={"flex": "1 1 29em"})
        self._right = widgets.VBox([self.student_text], layout={"flex": "1 1 22em"})
        super().__init__(layout={"flex_flow": "row wrap"})

    def watch(
        self,
        teachers: Mapping[str, TeacherDrift],
        students: Mapping[str, StudentRecall],
        *,
        teacher: str,
    ) -> None:
        """Ask these from now on, by title: the given teacher, and the first student."""
        self.teachers, self.students = teachers, students
        self.teacher, self.student = teacher, next(iter(students), "")
        boxes = ((self._left, teachers), (self._right, students))
        self.children = [box for box, some in boxes if some]
        self.layout.min_height = "21em" if self.children else None

    @property
    def pending(self) -> bool:
        """Whether what is shown does not yet belong to what is set."""
        return self._later.pending

    def ask(self, image: Tensor, change: Change) -> None:
        """Ask about a change; what is shown is marked as pending until the answer is there."""
        if self.teachers or self.students:
            was_pending = self.pending
            self._later.ask((image, change, self.teacher, self.student))
            if not was_pending:
                self._write()

    def flush(self) -> None:
        """Answer the pending question here and now."""
        self._later.flush()

    def _work(self, question: Question, wanted: Wanted) -> Answer:
        image, change, teacher, student = question
        drift = response = answer = None
        if teacher:
            watched = self.teachers[teacher]
            drift = watched.of_image(image, change), watched.of_sample(change)
            if not wanted():
                raise Superseded
            response = watched.response
        if student:
            answer = self.students[student].ask(image, change, wanted=wanted)
        return Answer(question, drift, response, answer)

    def _show(self, answer: Answer) -> None:
        self.answer = answer
        image, change, teacher, student = answer.question
        self._teacher_html = self._student_html = ""
        if answer.drift is not None and answer.response is not None:
            here, mean = answer.drift
            self._teacher_html = (
                f"<b>Teacher {escape(teacher)}</b>: drift (1&nbsp;-&nbsp;cos) {here:.4f} here, "
                f"mean of {answer.response['n'].iloc[0]}: {mean:.4f}."
            )
            centre = change_centre(change.gain, width=image.shape[-1])
            self.response.value = draw_response(answer.response, centre=centre, drift=mean)
            self.response.layout.visibility = "visible"
        if answer.student is not None:
            tables = write_tables(answer.student)
            self._student_html = f"<b>Student {escape(student)}</b>: {tables}"
        self._write()

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Superseded):
            text = escape(f"no answer: {type(error).__name__}: {error}")
            self._teacher_html = self._student_html = text
            self._write()

    def _write(self) -> None:
        """Write both texts into a frame that a screen reader follows; old ones are dimmed."""
        note, dim = ("updating ...", "opacity:.45") if self.pending else ("&nbsp;", "")
        frame = (
            f'<div aria-live="polite" aria-busy="{str(self.pending).lower()}">'
            f'<div style="{dim}">{{}}</div>'
            f'<div style="color:#595959;font-style:italic">{note}</div></div>'
        )
        self.teacher_text.value = frame.format(self._teacher_html)
        self.student_text.value = frame.format(self._student_html)


def draw_response(response: pd.DataFrame, *, centre: float | None, drift: float) -> bytes:
    """Draw the mean drift by the ring that is removed and, at its centre, that of the change."""
    figure = Figure(figsize=(4.6, 2.3), dpi=100)
    ax = figure.add_axes((0.14, 0.22, 0.83, 0.7))
    edges = [*response["low"], response["high"].iloc[-1]]
    removed, now = METHOD_COLORS["bsm"], METHOD_COLORS["fopro"]
    ax.stairs(response["drift"], edges, color=removed, lw=1.8, label="this ring removed")
    if centre is not None:
        ax.plot([centre], [drift], "D", color=now, ms=8, mec="white", label="changed now")
    ax.set_xlim(0, 0.75)
    ax.set_ylim(0, max(drift, float(response["drift"].max()), 1e-3) * 1.45)
    ax.set_ylabel(f"Drift, 1 - cos, mean of {response['n'].iloc[0]}", fontsize=8)
    style_frequency_axes(ax)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    return MovingFigure(figure, ()).png()


def write_tables(answer: StudentAnswer) -> str:
    """Write a student's three most probable classes and its recall of each class as HTML."""
    top, recalls = answer.top, answer.recalls
    number = recalls["n"].astype(str)
    gained = 100 * (recalls["after"] - recalls["before"]) / recalls["n"]
    tables = (
        {
            "Class": top["name"],
            "Probability after": top["after"].map("{:.3f}".format),
            "Change, points": (100 * (top["after"] - top["before"])).map("{:+.1f}".format),
        },
        {
            "Class": recalls["name"],
            "Found before": recalls["before"].astype(str) + " of " + number,
            "Found after": recalls["after"].astype(str) + " of " + number,
            "Change, points": gained.map("{:+.0f}".format),
        },
    )
    first, second = (pd.DataFrame(t).to_html(index=False, border=0, justify="left") for t in tables)
    return (
        "<style>.fopro-student :is(td, th) "
        "{padding: 0 .8em 0 0; line-height: 1.35; white-space: nowrap} "
        ".fopro-student th {white-space: normal; vertical-align: bottom}</style>"
        f"this image{first}{recalls['n'].sum()} validation images, mean recall "
        f"{100 * answer.change:+.1f} points{second}"
    )
