import io
import sys

import pytest

from fopro_lab import io as progress_module
from fopro_lab.io import byte_progress, in_bytes, progress


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


def blocks(clock: Clock, *, count: int):
    for _ in range(count):
        clock.now += 1.0
        yield bytes(1_000_000)


def test_byte_progress_says_how_much_is_here_and_how_fast_it_comes(clock, capsys):
    list(byte_progress(blocks(clock, count=21), done=50_000_000, total=80_000_000, label="a.zip"))
    assert capsys.readouterr().err.splitlines() == [
        "a.zip: 55.0 MB of 80.0 MB, 1.0 MB/s, about 25 s left",
        "a.zip: 70.0 MB of 80.0 MB, 1.0 MB/s, about 10 s left",
    ]


def test_byte_progress_guesses_nothing_of_an_unknown_length(clock, capsys):
    list(byte_progress(blocks(clock, count=6), done=0, total=0, label="a.zip"))
    assert capsys.readouterr().err.splitlines() == ["a.zip: 5.0 MB, 1.0 MB/s"]


@pytest.mark.parametrize("total", [0, 3])
def test_byte_progress_in_a_terminal_passes_every_block(monkeypatch, total):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(byte_progress([b"ab", b"c"], done=0, total=total, label="a.zip")) == [b"ab", b"c"]
    assert "a.zip" in terminal.getvalue()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2500.0 GB")]
)
def test_in_bytes_writes_what_people_read(count, text):
    assert in_bytes(count) == text
