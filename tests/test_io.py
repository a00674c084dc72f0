"""Atomic files, hashes and progress."""

import errno
import hashlib
import io
import json
import os
import sys
from types import SimpleNamespace

import pytest

from fopro_lab import io as progress_module
from fopro_lab.io import atomic_path, progress, sha256_file, write_json
from tests.conftest import failure


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


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("step", "number", "reason"),
    [
        ("fsync", errno.ENOSPC, "the disk is full; free some space and start again"),
        ("replace", errno.EACCES, "may not be written; choose another folder"),
    ],
)
def test_a_failed_write_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, step, number, reason):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    assert failure(write, tmp_path / "a.txt", "new") == f"{tmp_path / 'a.txt'}: {reason}"
    assert os.listdir(tmp_path) == []


def test_files_in_the_place_of_folders_are_said(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file/a.txt", tmp_path / "file/b/a.txt", tmp_path / "folder"):
        assert failure(write, path, "new") == f"{path}: may not be written; choose another folder"
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


def test_sha256_is_that_of_the_whole_content(tmp_path):
    content = bytes(range(256)) * (1 << 12) + b"x"  # a byte more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock.now)
    return clock


def work(clock, *, items: int, seconds: float):
    for item in range(items):
        clock.now += seconds
        yield item


def test_progress_without_a_terminal_writes_a_line_now_and_then(clock, capsys):
    assert list(progress(work(clock, items=10, seconds=0.1), total=10, label="x")) == [*range(10)]
    assert capsys.readouterr() == ("", "")  # short work says nothing
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


def test_progress_of_blocks_says_how_much_is_here_and_how_fast_it_comes(clock, capsys):
    megabytes = (bytes(1_000_000) for _ in work(clock, items=21, seconds=1.0))
    list(progress(megabytes, total=80_000_000, label="a.zip", done=50_000_000, blocks=True))
    assert capsys.readouterr().err.splitlines() == [
        "a.zip: 55.0 MB of 80.0 MB, 1.0 MB/s, about 25 s left",
        "a.zip: 70.0 MB of 80.0 MB, 1.0 MB/s, about 10 s left",
        "a.zip: 71.0 MB of 80.0 MB in 21 s",
    ]
