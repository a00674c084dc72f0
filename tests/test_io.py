"""Atomic files, hashes and progress."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from fopro_lab import io as progress_module
from fopro_lab.io import atomic_path, progress, scratch_folder, sha256_file, write_json
from tests.conftest import failure


def write(path, text):
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_a_file_appears_whole_or_the_old_one_stays(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_path(str(path)) as temporary:
        assert temporary.parent == path.parent and not path.exists()
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["c.txt"]
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["c.txt"]


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


def test_write_json_is_readable_and_atomic_and_sha256_of_the_whole(tmp_path):
    path = tmp_path / "a.json"
    content = {"n": 1, "names": ["é", "b"], "path": tmp_path}
    write_json(path, content)
    assert json.loads(path.read_text(encoding="utf-8")) == content | {"path": str(tmp_path)}
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"n": float("nan")})
    assert json.loads(path.read_text())["n"] == 1 and os.listdir(tmp_path) == ["a.json"]
    content = bytes(range(256)) * (1 << 12) + b"x"  # a byte more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_progress_without_a_terminal_writes_a_line_now_and_then(monkeypatch, capsys):
    assert list(progress(range(10), total=10, label="x")) == [*range(10)]
    assert capsys.readouterr() == ("", "")  # short work says nothing
    for name in ("QUIET_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(progress_module, name, 0.0)
    blocks = (bytes(1_000_000) for _ in range(3))
    list(progress(blocks, total=8_000_000, label="a.zip", done=5_000_000, blocks=True))
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) >= 3 and lines[0].startswith("a.zip: ")
    assert lines[-1].startswith("a.zip: 8.00M of 8.00M, ")


def test_what_a_killed_process_left_in_the_temporary_folder_goes_with_the_next(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os; from fopro_lab.io import scratch_folder\n"
    code += "with scratch_folder() as folder: (folder / 'kernel').touch(); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("fopro-*")
    with scratch_folder() as young:  # whose lock might not be held yet
        assert left.exists()
        for folder in (left, young):
            os.utime(folder / ".lock", (0, 0))
        with scratch_folder():
            assert young.exists() and not left.exists()
    assert not list(tmp_path.iterdir())
