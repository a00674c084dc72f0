import io
import sys

import pytest

from fopro_lab import progress as progress_module
from fopro_lab.progress import progress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module.time, "monotonic", clock)
    return clock


def work(clock: Clock, *, items: int, seconds: float):
    for item in range(items):
        clock.now += seconds
        yield item


def test_progress_of_short_work_says_nothing(clock, capsys):
    assert list(progress(work(clock, items=10, seconds=0.1), total=10, label="x")) == [*range(10)]
    assert capsys.readouterr() == ("", "")


def test_progress_without_a_terminal_writes_a_line_now_and_then(clock, capsys):
    list(progress(work(clock, items=40, seconds=1.0), total=40, label="packing"))
    assert capsys.readouterr().err.splitlines() == [
        "packing: 5 of 40, about 35 s left",
        "packing: 20 of 40, about 20 s left",
        "packing: 35 of 40, about 5 s left",
        "packing: 40 of 40 in 40 s",
    ]


def test_progress_guesses_no_time_from_the_first_item(clock, capsys):
    list(progress(work(clock, items=1, seconds=9.0), total=1000, label="packing"))
    assert capsys.readouterr().err.splitlines()[0] == "packing: 1 of 1000"


def test_progress_in_a_terminal_draws_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress("abc", total=3, label="packing")) == ["a", "b", "c"]
    assert "packing: 100%" in terminal.getvalue()
