"""Packing on full disks, over damage, and in company."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from fopro_lab.data import open_dataset, pack
from fopro_lab.data import pack as pack_files
from fopro_lab.data import pack as pack_writing
from fopro_lab.data import pack as packing_module
from fopro_lab.errors import InputError, WorkError
from tests.data.dying import noise
from tests.data.toys import write_images

# Python 3.12 warns of every fork beside a thread; the children here use none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.mark.parametrize("jobs", [1, 2])
def test_pack_on_a_full_disk_is_gone_on_with(tmp_path, monkeypatch, jobs):
    dataset = noise(open_dataset("phantom", images=150))
    add = pack_writing.Journal.add

    def full(journal, number, chunk):
        if number == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(journal, number, chunk)

    with monkeypatch.context() as patched:
        patched.setattr(pack_writing.Journal, "add", full)
        with pytest.raises(WorkError, match=r"the disk is full; free some space and start again"):
            pack(dataset, 8, cache=tmp_path, jobs=jobs, progress=False)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".journal", ".lock", ".part"]
    packed = pack(dataset, 8, cache=tmp_path, jobs=jobs, progress=False)
    for row in range(150):
        np.testing.assert_array_equal(packed.images[row], dataset.read(row, 8))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_pack_on_a_file_that_takes_no_byte(tmp_path):
    dataset = noise(open_dataset("phantom", images=40))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pack_writing, "_check_space", lambda part, layout: None)
        patched.setattr(
            pack_writing, "_reopen", lambda target, part, journal: part.symlink_to("/dev/full")
        )
        with pytest.raises(WorkError, match=r"the disk is full"):
            pack(dataset, 8, cache=tmp_path, progress=False)


def test_pack_checks_the_space_before_the_first_image(tmp_path, monkeypatch):
    dataset = open_dataset("phantom", images=24)
    object.__setattr__(dataset, "reader", None)  # nothing is read
    monkeypatch.setattr(
        pack_writing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 4_000_000})
    )
    with pytest.raises(
        WorkError, match=r"expected 0.07 GB of free space for the pack, got 0.00 GB; free some, or"
    ):
        pack(dataset, 1000, cache=tmp_path)


@pytest.mark.parametrize("place", [0, 200, 128 + 40 * 192, -1])
def test_pack_mends_the_damaged_part_alone(tmp_path, place, capsys):
    dataset = noise(open_dataset("phantom", images=100))
    whole = pack(dataset, 8, cache=tmp_path).path.read_bytes()
    path = pack(dataset, 8, cache=tmp_path).path
    torn = bytearray(whole)
    torn[place] ^= 1
    path.write_bytes(torn)
    os.utime(path, ns=(1, 1))
    read: list[int] = []
    counted = dataset.reader.__class__
    original = counted.__call__
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            counted,
            "__call__",
            lambda self, r, s: (read.append(self.rows[r]), original(self, r, s))[1],
        )
        mended = pack(dataset, 8, cache=tmp_path)
    assert mended.path.read_bytes() == whole
    told = capsys.readouterr().err
    assert "damaged; what does not match its checksum is decoded again" in told
    assert f"npy: {4 if place == 0 else 3} of 4 chunks are there" in told
    chunk = {0: range(0), 200: range(32), -1: range(96, 100)}.get(place, range(32, 64))
    assert sorted(read) == list(chunk)


def test_pack_makes_a_damaged_one_with_gaps_anew(tmp_path):
    dataset = noise(open_dataset("phantom", images=100), unreadable=(5, 50))
    path = pack(dataset, 8, cache=tmp_path, leave_out=True).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    mended = pack(dataset, 8, cache=tmp_path, leave_out=True)
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(mended.images[97], dataset.read(99, 8))


def test_pack_finds_hidden_damage_when_asked(tmp_path):
    dataset = noise(open_dataset("phantom", images=100))
    path = pack(dataset, 8, cache=tmp_path).path
    whole, facts = path.read_bytes(), path.stat()
    with open(path, "rb+") as stream:  # a bit that flipped on the disk: same length, same time
        stream.seek(5000)
        stream.write(bytes([whole[5000] ^ 1]))
    os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    pack(dataset, 8, cache=tmp_path)
    assert path.read_bytes() != whole
    pack(dataset, 8, cache=tmp_path, verify=True)
    assert path.read_bytes() == whole


def test_pack_that_was_copied_is_compared_once(tmp_path, monkeypatch):
    dataset = noise(open_dataset("phantom", images=40))
    path = pack(dataset, 8, cache=tmp_path).path
    os.utime(path, ns=(1, 1))
    compared = []
    is_whole = packing_module.is_whole
    monkeypatch.setattr(packing_module, "is_whole", lambda *a: compared.append(a) or is_whole(*a))
    monkeypatch.setattr(packing_module, "write_pack", None)
    for _ in range(3):
        pack(dataset, 8, cache=tmp_path)
    assert len(compared) == 1


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"format": 0}', b"\xff\xfe"])
def test_pack_without_a_sound_note_is_made_again(tmp_path, torn):
    dataset = noise(open_dataset("phantom", images=40))
    path = pack(dataset, 8, cache=tmp_path).path
    whole = path.read_bytes()
    path.write_bytes(b"another")
    path.with_suffix(".json").write_bytes(torn)
    assert pack(dataset, 8, cache=tmp_path).path.read_bytes() == whole


def test_pack_of_several_processes_is_written_by_one_and_read_whole(tmp_path):
    dataset = noise(open_dataset("phantom", images=300))
    expected = np.stack([dataset.read(row, 8) for row in range(300)])
    write = packing_module.write_pack

    def counted(*args, **options):
        with open(tmp_path / "written", "ab") as stream:
            stream.write(b"x")
        return write(*args, **options)

    def work() -> None:
        packed = pack(dataset, 8, cache=tmp_path / "cache", jobs=1, progress=False)
        np.testing.assert_array_equal(packed.images, expected)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing_module, "write_pack", counted)
        context = multiprocessing.get_context("fork")
        running = [context.Process(target=work) for _ in range(5)]
        for process in running:
            process.start()
        for process in running:
            process.join(timeout=60)
    assert [process.exitcode for process in running] == [0] * 5
    assert (tmp_path / "written").read_bytes() == b"x"


def test_pack_is_not_torn_for_those_who_read_while_it_is_mended(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_files, "HELD", 0)
    dataset = noise(open_dataset("phantom", images=100))
    reading = pack(dataset, 8, cache=tmp_path)
    expected = np.array(reading.images)
    os.utime(reading.path, ns=(1, 1))
    note = reading.path.with_suffix(".json")
    note.write_text(note.read_text().replace('"rows": 100', '"rows": 99'))  # the note is damaged
    again = pack(dataset, 8, cache=tmp_path)
    np.testing.assert_array_equal(reading.images, expected)
    np.testing.assert_array_equal(again.images, expected)


def test_pack_lists_every_unreadable_image_in_its_note(tmp_path):
    root = write_images(tmp_path / "skin", each=12)
    for path in root.glob("*/*.png"):
        if path.stem != "0":
            path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^skin: 22 of 24 images cannot be read"):
        pack(open_dataset(root), 8, cache=tmp_path / "cache")
    note = json.loads(next((tmp_path / "cache").glob("*.json")).read_text())
    assert len(note["unreadable"]) == 22
    assert note["unreadable"][0]["image"] == "class0/1.png"
