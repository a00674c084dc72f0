import builtins
import errno
import io
import random
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from fopro_lab.data import fetch as disk
from fopro_lab.data import fetch as downloads
from fopro_lab.data.fetch import ResumingDownloader
from fopro_lab.errors import WorkError
from tests.fetching.loopback import HASTY, Manners, Shop

CONTENT = random.Random(0).randbytes(100_000)


def bring(shop: Shop, folder: Path, **options) -> bytes:
    shop.files.setdefault("a.bin", CONTENT)
    out = folder / "out"
    out.touch()
    options = {"plain": True, "patience": HASTY, **options}
    downloader = ResumingDownloader(folder / "a.part", label="a.bin", **options)
    downloader(shop.url("a.bin"), str(out))
    return out.read_bytes()


def test_a_download_gives_the_bytes(shop, tmp_path):
    assert bring(shop, tmp_path) == CONTENT
    assert bring(shop, tmp_path, proven=True) == CONTENT
    # The second finds the part whole; the first also asked for what is behind the end.
    assert shop.asked == [("a.bin", ""), ("a.bin", "bytes=100000-")]


def test_a_cut_download_goes_on_where_it_was_cut(shop, tmp_path):
    shop.manners = Manners(cut_after=30_000)
    assert bring(shop, tmp_path, proven=True) == CONTENT
    assert [asked for _, asked in shop.asked] == ["", *(f"bytes={k}0000-" for k in (3, 6, 9))]
    assert shop.sent == len(CONTENT)  # not one byte twice


def test_without_ranges_a_cut_download_starts_over(shop, tmp_path):
    shop.manners = Manners(ranges=False, cut_after=30_000, cuts=2)
    assert bring(shop, tmp_path) == CONTENT


@pytest.mark.parametrize("tag", ["", 'W/"one"'])
def test_without_a_strong_validator_a_cut_download_starts_over(shop, tmp_path, tag):
    shop.manners = Manners(tag=tag, cut_after=30_000, cuts=1)
    assert bring(shop, tmp_path, proven=True) == CONTENT
    assert [asked for _, asked in shop.asked] == ["", ""]


@pytest.mark.parametrize("heed", [True, False])
@pytest.mark.parametrize("grown", [0, 5000])
def test_a_changed_file_is_not_glued_to_the_old_part(shop, tmp_path, heed, grown):
    shop.manners = Manners(cut_after=30_000)
    with pytest.raises(WorkError):
        bring(shop, tmp_path, patience=HASTY._replace(attempts=1))
    assert (tmp_path / "a.part").stat().st_size == 30_000
    shop.files["a.bin"] = changed = random.Random(1).randbytes(len(CONTENT) + grown)
    shop.manners = Manners(tag='"two"', heed_if_range=heed)
    assert bring(shop, tmp_path) == changed


def test_another_address_is_another_file(shop, tmp_path):
    shop.manners = Manners(cut_after=30_000)
    with pytest.raises(WorkError):
        bring(shop, tmp_path, patience=HASTY._replace(attempts=1))
    shop.manners, shop.asked = Manners(), []
    shop.files["b.bin"] = CONTENT[::-1]
    (tmp_path / "out").touch()
    downloader = ResumingDownloader(tmp_path / "a.part", label="b", plain=True, proven=True)
    downloader(shop.url("b.bin"), str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == CONTENT[::-1]
    assert shop.asked == [("b.bin", "")]


def test_a_server_that_always_cuts_ends_with_one_line(shop, tmp_path):
    shop.manners = Manners(ranges=False, cut_after=30_000)
    with pytest.raises(WorkError) as caught:
        bring(shop, tmp_path)
    assert str(caught.value) == (
        "a.bin: the connection broke, 3 times in a row; the same command tries again; "
        f"address {shop.url('a.bin')} (--mirror gives another)"
    )
    assert len(shop.asked) == 3


def test_a_server_that_goes_away_leaves_what_can_be_resumed(shop, tmp_path):
    shop.manners = Manners(cut_after=30_000)
    message = r"^a.bin: the connection broke, 1 times in a row; 30.0 kB are kept, the same command"
    with pytest.raises(WorkError, match=message):
        bring(shop, tmp_path, patience=HASTY._replace(attempts=1))


def test_a_chunked_answer_is_read_and_a_cut_one_noticed(shop, tmp_path):
    shop.manners = Manners(chunked=True, cut_after=30_000, cuts=1)
    assert bring(shop, tmp_path, proven=True) == CONTENT
    assert len(shop.asked) == 2


def test_a_new_note_never_stands_beside_old_bytes(shop, tmp_path, monkeypatch):
    shop.manners = Manners(cut_after=30_000)
    with pytest.raises(WorkError):
        bring(shop, tmp_path, patience=HASTY._replace(attempts=1))
    shop.files["a.bin"] = changed = CONTENT[::-1]
    shop.manners = Manners(tag='"two"')

    def stopped(*_):
        raise KeyboardInterrupt  # as near as a test gets to a kill after the note

    with monkeypatch.context() as patch:
        patch.setattr(ResumingDownloader, "_blocks", stopped)
        patch.setattr(downloads, "open", stopped, raising=False)
        with pytest.raises(KeyboardInterrupt):
            bring(shop, tmp_path)
    assert bring(shop, tmp_path) == changed


def test_a_server_that_asks_for_a_pause_gets_it(shop, tmp_path, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", pauses.append)
    shop.manners = Manners(statuses=[429, 429], retry_after="7")
    assert bring(shop, tmp_path, proven=True) == CONTENT
    assert [pause for pause in pauses if pause >= 7] == [7, 7]


def test_too_large_a_declared_length_is_told(shop, tmp_path):
    shop.manners = Manners(declared=500)
    with pytest.raises(WorkError, match=r"^a.bin: .*, 3 times in a row; "):
        bring(shop, tmp_path, proven=True)


def test_too_small_a_declared_length_is_told(shop, tmp_path):
    shop.manners = Manners(declared=-500)
    with pytest.raises(WorkError, match=r"declared 99500 bytes, but holds more, 3 times in a row"):
        bring(shop, tmp_path)
    assert not (tmp_path / "a.part").exists()


@pytest.mark.parametrize("tag", ['"one"', ""])
def test_without_a_declared_length_the_end_is_the_end(shop, tmp_path, tag):
    shop.manners = Manners(length=False, tag=tag)
    assert bring(shop, tmp_path) == CONTENT


def test_a_stalling_server_ends_with_one_line_and_can_be_resumed(shop, tmp_path):
    shop.manners = Manners(stall_after=20_000, ranges=False)
    with pytest.raises(WorkError, match=r"^a.bin: the server stalls, 2 times in a row; the"):
        bring(shop, tmp_path, patience=HASTY._replace(attempts=2, read=0.1))
    kept = (tmp_path / "a.part").stat().st_size
    assert kept == 20_000
    shop.manners, shop.asked = Manners(), []
    assert bring(shop, tmp_path, proven=True) == CONTENT
    assert shop.asked == [("a.bin", f"bytes={kept}-")]


def test_a_server_that_stalls_again_and_again_still_gets_there(shop, tmp_path):
    shop.manners = Manners(stall_after=20_000)
    assert bring(shop, tmp_path, patience=HASTY._replace(read=0.05)) == CONTENT


def test_a_dripping_server_counts_as_stalled(shop, tmp_path):
    shop.manners = Manners(drip=0.01)
    with pytest.raises(WorkError, match=r"^a.bin: the server stalls, 1 times in a row; "):
        bring(shop, tmp_path, patience=HASTY._replace(attempts=1, read=0.1, slow=1000.0))


def test_a_missing_file_is_told_at_once(shop, tmp_path):
    shop.manners = Manners(statuses=[404])
    with pytest.raises(WorkError, match=r"^a.bin: the server answers 404 Not Found at http"):
        bring(shop, tmp_path)
    assert len(shop.asked) == 1


def test_a_busy_server_is_asked_again(shop, tmp_path):
    shop.manners = Manners(statuses=[503, 429])
    assert bring(shop, tmp_path, proven=True) == CONTENT
    shop.manners = Manners(statuses=[500] * 3)
    with pytest.raises(WorkError, match=r"the server answers 500 .*, 3 times in a row"):
        bring(shop, tmp_path / "..", proven=True)


def test_nobody_at_the_address_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        dead = Shop(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(WorkError, match=r"^a.bin: no connection, .* refuses it, 3 times in a"):
            bring(dead, tmp_path)


def test_a_server_whose_name_is_not_known_is_told(tmp_path):
    with pytest.raises(WorkError, match=r"^a.bin: no connection, the server"):
        bring(Shop("http://nowhere.invalid"), tmp_path)


def test_an_address_that_is_none_is_told(tmp_path):
    with pytest.raises(WorkError, match=r"^a.bin: http:///a.bin: "):
        bring(Shop("http://"), tmp_path)


def test_plain_http_is_refused_unless_a_mirror_asks_for_it(shop, tmp_path):
    with pytest.raises(WorkError, match=r"^a.bin: expected https, was sent on to http://127"):
        bring(shop, tmp_path, plain=False)
    assert not (tmp_path / "a.part").exists()


def test_a_compressed_answer_is_refused(shop, tmp_path):
    shop.manners = Manners(encoding="gzip")
    with pytest.raises(WorkError, match=r"^a.bin: the server compresses the file"):
        bring(shop, tmp_path)


def test_an_empty_answer_is_told(shop, tmp_path):
    shop.files["a.bin"] = b""
    with pytest.raises(WorkError, match=r"^a.bin: the server sends nothing, 3 times in a row"):
        bring(shop, tmp_path)


def test_stopped_after_the_last_byte_nothing_comes_twice(shop, tmp_path):
    bring(shop, tmp_path, proven=True)
    note = tmp_path / "a.part.json"
    note.write_text(note.read_text().replace("true", "false"))
    shop.asked = []
    assert bring(shop, tmp_path, proven=True) == CONTENT
    assert shop.asked == []


def test_a_damaged_note_starts_over(shop, tmp_path):
    (tmp_path / "a.part").write_bytes(b"rubbish")
    (tmp_path / "a.part.json").write_text('{"url": 3')
    assert bring(shop, tmp_path) == CONTENT


def test_too_small_a_disk_is_told_before_a_byte_comes(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=60_000_000))
    assert bring(shop, tmp_path) == CONTENT  # 100 kB and the spare fit
    (tmp_path / "a.part").unlink()
    message = r"^a.bin: needs 20.1 MB of disk, 60.0 MB are free in .*; free some space or choose"
    with pytest.raises(WorkError, match=message):
        bring(shop, tmp_path, reserve=20_000_000)
    assert not (tmp_path / "a.part").exists()


class FullDisk(io.BytesIO):
    """Takes 50 kB and no more."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self.file, self.room = file, 50_000

    def write(self, block) -> int:
        self.room -= len(block)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(block)

    def close(self) -> None:
        self.file.close()
        super().close()


def test_a_disk_that_fills_up_is_told_and_the_download_resumed(shop, tmp_path, monkeypatch):
    def full(path, mode="r", *rest, **options):
        opened = builtins.open(path, mode, *rest, **options)
        return FullDisk(opened) if str(path).endswith(".part") else opened

    shop.manners = Manners(pause=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "open", full, raising=False)
        with pytest.raises(WorkError, match=r"the disk is full; free some space; .* are kept"):
            bring(shop, tmp_path, proven=True)
    shop.manners, shop.asked = Manners(), []
    assert bring(shop, tmp_path, proven=True) == CONTENT
    assert shop.asked[0][1].startswith("bytes=")


def test_progress_is_plain_lines_without_a_terminal(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fopro_lab.io.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("fopro_lab.io.LINE_SECONDS", 0.0)
    shop.manners = Manners(pause=0.001)
    assert bring(shop, tmp_path, progress=True) == CONTENT
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("fetching a.bin: ")
    assert " of 100.0 kB, " in lines[-1]
