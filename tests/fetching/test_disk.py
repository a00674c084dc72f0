import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from fopro_lab.data import fetch as disk
from fopro_lab.data.fetch import check_disk, disk_told
from fopro_lab.errors import WorkError


def test_check_disk_leaves_some_space(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    check_disk(tmp_path, 10**9 - disk.SPARE, label="a")
    with pytest.raises(WorkError, match=r"^a: needs 950.0 MB of disk, 1.0 GB are free"):
        check_disk(tmp_path, 10**9 - disk.SPARE + 1, label="a")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_told(number):
    message = r"^here: may not be written; choose another folder with --out$"
    with pytest.raises(WorkError, match=message), disk_told(Path("here"), kept=str):
        raise OSError(number, "")


def test_other_errors_of_the_system_pass():
    with pytest.raises(OSError, match="odd"), disk_told(Path("here"), kept=str):
        raise OSError(errno.EIO, "odd")
