"""Teacher and student beside the explorer: they answer after the last tick."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import ipywidgets as widgets
import pandas as pd
from torch import Tensor

from fopro_lab.errors import InputError
from fopro_lab.lab.widgets.answers import (
    AskedStudent,
    AskedTeacher,
    Change,
    Overtaken,
    StudentAnswer,
    Wanted,
)
from fopro_lab.lab.widgets.later import Later
from fopro_lab.lab.widgets.pins import knobs_of_teacher, short_entry
from fopro_lab.lab.widgets.readouts import told_later, told_student, told_teacher
from fopro_lab.lab.widgets.response_panel import ResponsePanel, middle_of


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
        answer: The last answer, of `teacher` drift (this picture, mean) and student; or None.
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
