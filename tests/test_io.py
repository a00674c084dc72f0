"""Atomic files, hashes and progress."""

import errno
import hashlib
import io
import json
import os
import sys

import pytest

from fopro_lab import io as progress_module
from fopro_lab.errors import WorkError
from fopro_lab.io import atomic_path, in_bytes, progress, sha256_file, write_json


def raising(number):
    def fail(*_arguments, **_settings):
        raise OSError(number, os.strerror(number))

    return fail


def write(path, text):
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_the_file_appears_whole_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_path(str(path)) as temporary:
        assert temporary.parent == path.parent and not path.exists()
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["c.txt"]


def test_the_old_file_is_seen_until_the_new_one_is_done(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "a long old text")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "a long old text"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    write(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, step, number):
    path = tmp_path / "a.txt"
    monkeypatch.setattr(os, step, raising(number))
    with pytest.raises(WorkError) as caught:
        write(path, "new")
    assert str(caught.value) == f"{path}: the disk is full; free some space and start again"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_folder_that_may_not_be_written_is_said(tmp_path, monkeypatch, number):
    path = tmp_path / "a.txt"
    monkeypatch.setattr(os, "replace", raising(number))
    with pytest.raises(WorkError) as caught:
        write(path, "new")
    assert str(caught.value) == f"{path}: may not be written; choose another folder"
    assert os.listdir(tmp_path) == []


def test_files_in_the_place_of_folders_are_said(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "b" / "a.txt",
                 tmp_path / "folder"):  # fmt: skip
        with pytest.raises(WorkError) as caught:
            write(path, "new")
        assert str(caught.value) == f"{path}: may not be written; choose another folder"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_write_json_is_readable_and_atomic(tmp_path):
    path = tmp_path / "a.json"
    content = {"n": 1, "names": ["é", "b"], "path": tmp_path}
    write_json(path, content)
    assert json.loads(path.read_text(encoding="utf-8")) == content | {"path": str(tmp_path)}
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"n": float("nan")})
    assert json.loads(path.read_text())["n"] == 1 and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_sha256_is_that_of_the_whole_content(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


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


def test_progress_of_blocks_says_how_much_is_here_and_how_fast_it_comes(clock, capsys):
    list(
        progress(
            blocks(clock, count=21), total=80_000_000, label="a.zip", done=50_000_000, blocks=True
        )
    )
    assert capsys.readouterr().err.splitlines() == [
        "a.zip: 55.0 MB of 80.0 MB, 1.0 MB/s, about 25 s left",
        "a.zip: 70.0 MB of 80.0 MB, 1.0 MB/s, about 10 s left",
        "a.zip: 71.0 MB of 80.0 MB in 21 s",
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2500.0 GB")]
)
def test_in_bytes_writes_what_people_read(count, text):
    assert in_bytes(count) == text
