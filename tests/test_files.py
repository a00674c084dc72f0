import errno
import hashlib
import json
import os

import pytest

from fopro_lab.errors import WorkError
from fopro_lab.io import atomic_path, sha256_file, write_json


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


def test_a_disk_that_fills_up_while_writing_is_said(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(WorkError, match="the disk is full"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raising(errno.ENOSPC)()
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


def test_any_other_error_of_the_system_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", raising(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write(tmp_path / "a.txt", "new")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write(tmp_path / "a.txt", "new")
        assert os.umask(umask) == umask  # left as it was
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


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
