"""Teacher and student beside the explorer: they answer after the last tick."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError
from fopro_lab.evaluation.bootstrap import bootstrap_weights, percentile_interval
from fopro_lab.fourier import FourierPrompt, radial_frequency
from fopro_lab.models import Student, Teacher
from fopro_lab.probing import ring_response
from fopro_lab.probing.features import draw_per_class, draw_rows, resampling_units
from fopro_lab.training import TrainedRun
from fopro_lab.training.train_prompt import shrink
from fopro_lab.widgets.bands import (
    AFTER,
    BEFORE,
    BandView,
    figure_png,
    knobs_of_teacher,
    scale_bands,
    short_entry,
    tidy_axes,
)

TEACHER_IMAGES = 16  # of the ring response and of the mean drift
PER_CLASS = 8  # images of the recalls, at most
BATCH = 16
Wanted = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Change:
    """What is done to images, as it stands at one moment.

    Attributes:
        gain: ``(1 or 3, H, W // 2 + 1)``.
        prompt: Whose gain depends on the image; it then counts instead of ``gain``.
        phase_lock: See `scale_bands`.
    """

    gain: Tensor
    prompt: FourierPrompt | None = None
    phase_lock: bool = True

    @torch.inference_mode()
    def apply(self, images: Tensor) -> Tensor:
        """Change images ``(B, 3, H, W)``; they are not clipped."""
        gain = self.gain if self.prompt is None else self.prompt.gain(images)
        return scale_bands(images, gain, phase_lock=self.phase_lock)


class SmallSet:
    """Some images of the validation part, the same ones for every question.

    Args:
        pack: All images.
        split: Whose validation images are taken; None takes any.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> small = SmallSet(pack(open_dataset("phantom", images=24), 16, progress=False), None)
        >>> small.drawn.shape, len(small.images) == len(small.labels)
        (torch.Size([16, 3, 16, 16]), True)
    """

    def __init__(self, pack: Pack, split: Split | None) -> None:
        rows = np.arange(len(pack)) if split is None else split.val
        drawn = draw_rows(rows, count=TEACHER_IMAGES, seed=0)
        chosen = draw_per_class(rows, pack.labels[rows], per_class=PER_CLASS, seed=0)
        self.units = resampling_units(pack.dataset.table, rows=drawn)
        self.drawn, _ = next(batches(pack, drawn, batch_size=len(drawn)))
        self.images, _ = next(batches(pack, chosen, batch_size=len(chosen)))
        self.labels = pack.labels[chosen]
        self.names = pack.dataset.class_names


class AskedTeacher:
    """A teacher with its features of the unchanged images, and its ring response.

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
        """Measure the drift of one image, and its mean over the set; cosine distances."""
        if self._plain is None:
            self._plain = self._encode(self.small.drawn)
        changed = self._encode(change.apply(self.small.drawn))
        return self.drift(image, change), _distance(self._plain, changed)

    def drift(self, image: Tensor, change: Change) -> float:
        """Measure the drift of one image, cosine distance."""
        one = torch.cat([image[None], change.apply(image[None])])
        before, after = self._encode(one).split(1)
        return _distance(before, after)

    def drift_over(self, images: Tensor, change: Change, units: np.ndarray) -> dict[str, float]:
        """Measure the mean drift of many images.

        Args:
            images: ``(N, 3, H, W)`` in [0, 1].
            change: What is done to them.
            units: Lesion, patient or image of each, ``(N,)``, drawn as a whole.

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
        recalls: A row a class of the set: ``name``, ``n``, ``before``, ``after`` (images that
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
    """A trained student with its answers to the unchanged images.

    Args:
        run: The finished run.
        pack: The explorer's images.
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
        """Classify the image and the set, before and after."""
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
    """Load the students of some run folders, by name; those of other images are left out.

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


Question = TypeVar("Question")
Answer = TypeVar("Answer")
WAIT = 0.25  # seconds after the last tick


class Later(Generic[Question, Answer]):
    """Answers the newest question alone, once no other has come for a while.

    In a kernel's event loop the work runs in one thread, so that ticks are never blocked; what a
    newer question has overtaken is dropped. Without a running loop, as in a script, the answer
    waits for `flush`.

    Args:
        work: Answers a question; asks its second argument now and then whether to go on.
        show: Takes an answer, in the thread of the loop.
        fail: Takes what went wrong.
        wait: Seconds without a new question before the work begins.

    Attributes:
        pending: Whether the last question still waits for its answer.

    Example:
        >>> told = []
        >>> later = Later(lambda x, wanted: x + 1, told.append, fail=print)
        >>> for number in range(3):
        ...     later.ask(number)
        >>> later.flush()
        >>> told
        [3]
    """

    def __init__(
        self,
        work: Callable[[Question, Callable[[], bool]], Answer],
        show: Callable[[Answer], None],
        *,
        fail: Callable[[Exception], None],
        wait: float = WAIT,
    ) -> None:
        self.pending = False
        self._work, self._show, self._fail, self._wait = work, show, fail, wait
        self._number = 0
        self._question: Question | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._threads: ThreadPoolExecutor | None = None

    def ask(self, question: Question) -> None:
        """Put a question in the place of the last one."""
        self._number += 1
        self._question, self.pending = question, True
        self._stop_timer()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timer = loop.call_later(self._wait, self._start, loop, self._number, question)

    def flush(self) -> None:
        """Answer what waits, here and now."""
        self._stop_timer()
        if not self.pending:
            return
        self._number += 1  # what a thread is at comes too late
        try:
            answer = self._work(self._question, lambda: True)  # type: ignore[arg-type]
        except Exception as error:
            self._end(error=error)
        else:
            self._end(answer=answer)

    def _start(self, loop: asyncio.AbstractEventLoop, number: int, question: Question) -> None:
        self._timer = None
        self._threads = self._threads or ThreadPoolExecutor(1, thread_name_prefix="explorer")
        future = self._threads.submit(self._work, question, lambda: number == self._number)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._done, number, done))

    def _done(self, number: int, future: "Future[Answer]") -> None:
        if number != self._number:
            return
        error = future.exception()
        if isinstance(error, Exception):
            self._end(error=error)
        else:
            self._end(answer=future.result())

    def _end(self, *, answer: Answer | None = None, error: Exception | None = None) -> None:
        self.pending, self._question = False, None
        if error is not None:
            self._fail(error)
        else:
            self._show(answer)  # type: ignore[arg-type]

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def told_image(view: BandView) -> str:
    """Say how far the image is moved, and what share of it is clipped for the eye.

    Example:
        >>> import torch
        >>> from fopro_lab.widgets.bands import BandLens
        >>> told_image(BandLens(torch.full((3, 16, 16), 0.5)).look(torch.ones(1, 16, 9)))
        '<div ...>Changed by 0.0000 RMS of [0, 1]; 0.0% of the values leave it.</div>'
    """
    share = f"Changed by {view.moved:.4f} RMS of [0, 1]; {view.clipped:.1%} of the values leave it."
    return f'<div style="min-height:1.6em">{share}</div>'


def told_later(body: str, *, pending: bool) -> str:
    """Put an answer into a frame that a screen reader follows; an old one is dimmed.

    Example:
        >>> "updating" in told_later("drift 0.1", pending=True)
        True
    """
    note = "updating ..." if pending else "&nbsp;"
    dim = ' style="opacity:.45"' if pending else ""
    return (
        f'<div aria-live="polite" aria-busy="{str(pending).lower()}"><div{dim}>{body}</div>'
        f'<div style="color:#595959;font-style:italic">{note}</div></div>'
    )


def told_message(text: str) -> str:
    """Tell what a button did, or why it did not; several lines are kept.

    Example:
        >>> told_message("a < b")
        '<div role="status" style="min-height:3em">a &lt; b</div>'
    """
    lines = "<br>".join(escape(text).splitlines())
    return f'<div role="status" style="min-height:3em">{lines}</div>'


def told_refused(lines: Sequence[str]) -> str:
    """Tell which runs are not among the students, the first of them with its reason.

    Example:
        >>> "2 runs left out; the first: a: unfinished" in told_refused(["a: unfinished", "b: old"])
        True
    """
    count = f"{len(lines)} run{'s' if len(lines) > 1 else ''} left out; the first: "
    return told_message(f"{count}{lines[0]}" if lines else "")


def told_teacher(name: str, *, drift: float, mean: float, number: int) -> str:
    """Tell a teacher's drift of the image and of the small set.

    Example:
        >>> told_teacher("builtin", drift=0.25, mean=0.5, number=16)
        '<b>Teacher builtin</b>: drift (1&nbsp;-&nbsp;cos) 0.2500 here, mean of 16: 0.5000.'
    """
    return (
        f"<b>Teacher {escape(name)}</b>: drift (1&nbsp;-&nbsp;cos) {drift:.4f} here, "
        f"mean of {number}: {mean:.4f}."
    )


def told_student(name: str, answer: StudentAnswer) -> str:
    """Tell a student's three most probable classes and its recall of each class.

    Args:
        name: Of the student.
        answer: What it said.

    Returns:
        Two tables as HTML.
    """
    top = _table(
        ("Class", "Probability after", "Change, points"),
        (
            (row.name, f"{row.after:.3f}", f"{100 * (row.after - row.before):+.1f}")
            for row in answer.top.itertuples(index=False)
        ),
    )
    recalls = _table(
        ("Class", "Found before", "Found after", "Change, points"),
        (
            (
                row.name,
                f"{row.before} of {row.n}",
                f"{row.after} of {row.n}",
                f"{100 * (row.after - row.before) / row.n:+.0f}",
            )
            for row in answer.recalls.itertuples(index=False)
        ),
    )
    total = int(answer.recalls["n"].sum())
    return (
        f"<b>Student {escape(name)}</b>: this image{top}"
        f"{total} validation images, mean recall {100 * answer.change:+.1f} points{recalls}"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = [f"<th scope='col' style='padding:0 .8em 0 0'>{name}</th>" for name in head]
    lines = ["".join(cells)]
    for row in rows:
        lines.append("".join(f"<td style='padding:0 .8em 0 0'>{escape(x)}</td>" for x in row))
    body = "".join(f"<tr style='text-align:left'>{line}</tr>" for line in lines)
    return f"<table style='border-collapse:collapse;line-height:1.35'>{body}</table>"


class ResponsePanel:
    """One figure, drawn again with each answer.

    Example:
        >>> ResponsePanel().draw(None, where=0.2, drift=0.1)[1:4]
        b'PNG'
    """

    def __init__(self) -> None:
        self.figure = Figure(figsize=(4.6, 2.3), dpi=100)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0.14, 0.22, 0.83, 0.7))

    def draw(self, response: pd.DataFrame | None, *, where: float | None, drift: float) -> bytes:
        """Draw the mean drift by the ring that is removed, and the one of now.

        Args:
            response: As of `ring_response`, of gain 0; None leaves it out.
            where: Middle of what is changed, cycles per pixel; None where nothing is.
            drift: Mean over the same images, cosine distance.

        Returns:
            PNG bytes.
        """
        ax = self.axes
        ax.clear()
        top, number = drift, 0
        if response is not None:
            edges = [*response["low"], response["high"].iloc[-1]]
            top, number = max(top, float(response["drift"].max())), int(response["n"].iloc[0])
            ax.stairs(response["drift"], edges, color=BEFORE, lw=1.8, label="this ring removed")
        if where is not None:
            ax.plot([where], [drift], "D", color=AFTER, ms=8, mec="white", label="changed now")
        ax.set_xlim(0, 0.75)
        ax.set_ylim(0, max(top, 1e-3) * 1.45)
        told = f", mean of {number}" if number else ""
        ax.set_ylabel(f"Drift, 1 - cos{told}", fontsize=8)
        tidy_axes(ax)
        ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
        return figure_png(self.canvas)


def middle_of(gain: Tensor, *, width: int) -> float | None:
    """Return the mean frequency of what a gain changes, weighted by the change.

    Args:
        gain: ``(1 or 3, H, W // 2 + 1)``.
        width: W, pixels.

    Returns:
        Cycles per pixel; None if nothing is changed.

    Example:
        >>> import torch
        >>> middle_of(torch.ones(1, 8, 5), width=8) is None
        True
    """
    change = np.abs(gain.detach().numpy() - 1).mean(axis=0)
    if change.max() < 1e-4:
        return None
    radius = radial_frequency(gain.shape[-2], width).numpy()
    return float((radius * change).sum() / change.sum())


class _Question(NamedTuple):
    image: Tensor
    change: Change
    teacher: str
    student: str


class _Answer(NamedTuple):
    question: _Question
    drift: tuple[float, float] | None
    response: pd.DataFrame | None
    student: StudentAnswer | None


class Followers:
    """The slow half of the explorer.

    Args:
        teachers: By name; the first is asked first.
        students: By name; the first is asked first.

    Attributes:
        box: What is shown.
        answer: The last answer, of `teacher` drift (this image, mean) and student; or None.
    """

    def __init__(
        self, teachers: Mapping[str, AskedTeacher], students: Mapping[str, AskedStudent]
    ) -> None:
        self.teachers, self.students = teachers, students
        self.teacher, self.student = next(iter(teachers), ""), next(iter(students), "")
        self.answer: _Answer | None = None
        self.later = Later(self._work, self._show, fail=self._fail)
        self.drift, self.words = widgets.HTML(), widgets.HTML()
        hidden = {"max_width": "100%", "visibility": "hidden"}  # until there is an answer
        self.response = widgets.Image(format="png", layout=hidden)
        self._panel = ResponsePanel()
        self._told = {"teacher": "", "student": ""}
        self._dimmed = False
        self.drift.add_class("fopro-teacher")
        self.words.add_class("fopro-student")
        self.response.add_class("fopro-response")
        height = {"min_height": "21em"} if teachers or students else {}
        left = [widgets.VBox([self.drift, self.response], layout={"flex": "1 1 29em"})]
        right = [widgets.VBox([self.words], layout={"flex": "1 1 22em"})]
        shown = (left if teachers else []) + (right if students else [])
        self.box = widgets.HBox(shown, layout={"flex_flow": "row wrap", **height})

    @property
    def pending(self) -> bool:
        """Whether what is shown is not yet of what is set."""
        return self.later.pending

    @property
    def teacher_now(self) -> AskedTeacher | None:
        """The teacher that is chosen."""
        return self.teachers.get(self.teacher)

    def needed_teacher(self) -> AskedTeacher:
        """Return the teacher that is chosen.

        Raises:
            InputError: If there is none.
        """
        if (asked := self.teacher_now) is None:
            raise InputError("teacher: expected one to ask, got none")
        return asked

    @property
    def student_now(self) -> AskedStudent | None:
        """The student that is chosen."""
        return self.students.get(self.student)

    def choose(self, teacher: str | None, student: str | None) -> None:
        """Choose who is asked from now on."""
        self.teacher, self.student = teacher or "", student or ""

    def name_teacher(self, knobs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the knobs of the first teacher, or with the name of another that is chosen."""
        first = next(iter(self.teachers), "")
        return knobs if self.teacher == first else knobs_of_teacher(knobs, self.teacher)

    def ask(self, image: Tensor, change: Change) -> None:
        """Ask anew; what is shown is dimmed until the answer is there."""
        if not self.teachers and not self.students:
            return
        self.later.ask(_Question(image, change, self.teacher, self.student))
        if not self._dimmed:
            self._tell(pending=True)

    def flush(self) -> None:
        """Answer what waits, here and now."""
        self.later.flush()

    def _work(self, question: _Question, wanted: Wanted) -> _Answer:
        teacher, student = self.teachers.get(question.teacher), None
        drift, response = None, None
        if teacher is not None:
            drift = teacher.ask(question.image, question.change)
            if not wanted():
                raise Overtaken
            response = teacher.response
        if question.student:
            asked = self.students[question.student]
            student = asked.ask(question.image, question.change, wanted=wanted)
        return _Answer(question, drift, response, student)

    def _show(self, answer: _Answer) -> None:
        self.answer, question = answer, answer.question
        self._told = {"teacher": "", "student": ""}
        if answer.drift is not None:
            drift, mean = answer.drift
            number = len(self.teachers[question.teacher].small.drawn)
            self._told["teacher"] = told_teacher(
                short_entry(question.teacher), drift=drift, mean=mean, number=number
            )
            where = middle_of(question.change.gain, width=question.image.shape[-1])
            self.response.value = self._panel.draw(answer.response, where=where, drift=mean)
            self.response.layout.visibility = "visible"
        if answer.student is not None:
            self._told["student"] = told_student(question.student, answer.student)
        self._tell(pending=False)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Overtaken):
            self._told = dict.fromkeys(self._told, f"no answer: {type(error).__name__}: {error}")
            self._tell(pending=False)

    def _tell(self, *, pending: bool) -> None:
        self._dimmed = pending
        self.drift.value = told_later(self._told["teacher"], pending=pending)
        self.words.value = told_later(self._told["student"], pending=pending)
