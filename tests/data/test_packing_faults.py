"""Packing through kills, full disks, damage and company."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fopro_lab.data import Dataset, open_dataset, pack, pack_files, pack_writing
from fopro_lab.data import packing as packing_module
from fopro_lab.errors import InputError, WorkError
from tests.data.toys import write_pictures

ROOMS = ("packing.py", "pack_writing.py", "decode_chunks.py", "journal.py", "files.py")


def noise(dataset: Dataset, *, unreadable: tuple[int, ...] = ()) -> Dataset:
    """Give each row known pixels that cost nothing, and let some rows be unreadable."""
    object.__setattr__(dataset, "reader", _Noise(tuple(range(len(dataset))), unreadable))
    return dataset


class _Noise:
    def __init__(self, rows: tuple[int, ...], unreadable: tuple[int, ...]) -> None:
        self.rows, self.unreadable = rows, unreadable

    def __call__(self, row: int, size: int) -> np.ndarray:
        if self.rows[row] in self.unreadable:
            raise InputError(f"{self.rows[row]}: cannot be decoded")
        rng = np.random.default_rng(self.rows[row])
        return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)

    def take(self, rows: np.ndarray) -> "_Noise":
        return _Noise(tuple(self.rows[row] for row in rows), self.unreadable)


def in_child(work: Callable[[], object]) -> int:
    """Do some work in a forked process and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(timeout=60)
    assert process.exitcode is not None
    return process.exitcode


def killed_after(lines: int, work: Callable[[], object]) -> Callable[[], None]:
    """Let ``work`` die by SIGKILL when that many lines of the packing were executed."""

    def traced() -> None:
        left = lines

        def trace(frame, event, value):
            nonlocal left
            if os.path.basename(frame.f_code.co_filename) not in ROOMS:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()

    return traced


def content(cache: Path) -> dict[str, bytes | dict]:
    """Return what a finished pack is, but for the time at which it was written."""
    found: dict[str, bytes | dict] = {}
    for path in cache.iterdir():
        if path.suffix == ".json":
            note = json.loads(path.read_text())
            assert note.pop("mtime_ns") == path.with_suffix(".npy").stat().st_mtime_ns
            found[path.name] = note
        elif path.suffix not in (".lock", ".journal"):  # a journal may outlive the note's writing
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize("unreadable", [(), (3, 40, 69)])
def test_pack_killed_at_20_random_moments_is_the_same_in_the_end(tmp_path, unreadable):
    dataset = noise(open_dataset("phantom", pictures=150), unreadable=unreadable)

    def work(cache: Path) -> Callable[[], object]:
        return lambda: pack(dataset, 8, cache=cache, jobs=1, progress=False, leave_out=True)

    work(tmp_path / "whole")()
    expected = content(tmp_path / "whole")
    rng = np.random.default_rng(0)
    kills, rounds = 0, 0
    for moment in rng.integers(0, 2200, 20):  # a whole pack is about 3000 lines
        code = in_child(killed_after(int(moment), work(tmp_path / f"torn{rounds}")))
        assert code in (0, -signal.SIGKILL)
        kills += code == -signal.SIGKILL
        if code == 0:  # it came to the end: look at it and begin another
            assert content(tmp_path / f"torn{rounds}") == expected
            rounds += 1
    work(tmp_path / f"torn{rounds}")()
    assert content(tmp_path / f"torn{rounds}") == expected
    assert kills >= 12
    assert rounds >= 1


@pytest.mark.parametrize("unreadable", [(), (3, 40)])
def test_pack_killed_at_each_step_of_the_end_is_the_same(tmp_path, unreadable, monkeypatch):
    dataset = noise(open_dataset("phantom", pictures=70), unreadable=unreadable)

    def work() -> object:
        return pack(dataset, 8, cache=tmp_path / "torn", jobs=1, progress=False, leave_out=True)

    pack(dataset, 8, cache=tmp_path / "whole", jobs=1, progress=False, leave_out=True)
    for module, name in (
        (pack_writing, "_close_up"),
        (pack_writing.os, "fsync"),
        (pack_writing, "_write_note"),
        (pack_writing, "write_json"),
    ):
        for after in (False, True):
            original = getattr(module, name)

            def deadly(*args, _original=original, _after=after, **options):
                if _after:
                    _original(*args, **options)
                os.kill(os.getpid(), signal.SIGKILL)

            with monkeypatch.context() as patched:
                patched.setattr(module, name, deadly)
                assert in_child(work) in (0, -signal.SIGKILL)
    work()
    assert content(tmp_path / "torn") == content(tmp_path / "whole")


def test_pack_killed_in_two_processes_goes_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from fopro_lab.data import open_dataset, pack
            dataset = open_dataset("phantom", pictures=400)
            reader = dataset.reader
            class Slow:
                def __call__(self, row, size):
                    time.sleep(0.004)
                    return reader(row, size)
            object.__setattr__(dataset, "reader", Slow())
            pack(dataset, 16, cache=sys.argv[1], jobs=2, progress=False)
            """
        )
    )
    cache = tmp_path / "torn"
    dataset = open_dataset("phantom", pictures=400)
    whole = pack(dataset, 16, cache=tmp_path / "whole", jobs=1, progress=False)
    journal = cache / whole.path.with_suffix(".journal").name
    with subprocess.Popen([sys.executable, str(script), str(cache)]) as process:
        wait_for(lambda: len(_lines(journal)) > 4)  # the head, one chunk alone, some of two
        process.kill()
    assert whole.path.name not in os.listdir(cache)
    packed = pack(dataset, 16, cache=cache, jobs=1, progress=False)
    assert packed.path.read_bytes() == whole.path.read_bytes()


def _lines(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines() if journal.exists() else [b""]


def wait_for(fact: Callable[[], bool], *, seconds: float = 30) -> None:
    """Look again and again until something is so."""
    stop = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < stop, "it took too long"
        time.sleep(0.01)


def test_pack_that_is_interrupted_keeps_what_is_done(tmp_path):
    read: list[int] = []
    dataset = noise(open_dataset("phantom", pictures=100))
    inner = dataset.reader

    class Impatient:
        def __init__(self, rows: np.ndarray) -> None:
            self.rows = rows

        def __call__(self, row: int, size: int) -> np.ndarray:
            read.append(int(self.rows[row]))
            if len(read) == 70:
                raise KeyboardInterrupt
            return inner(read[-1], size)

        def take(self, rows: np.ndarray) -> "Impatient":
            return Impatient(rows)

    object.__setattr__(dataset, "reader", Impatient(np.arange(100)))
    with pytest.raises(KeyboardInterrupt):
        pack(dataset, 8, cache=tmp_path, jobs=1)
    assert not list(tmp_path.glob("*.npy")) + list(tmp_path.glob("*.json"))
    read[:] = range(100, 200)  # past the moment of impatience
    packed = pack(dataset, 8, cache=tmp_path, jobs=1)
    assert sorted(read[100:]) == list(range(64, 100))  # the first two chunks were kept
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob("*.journal"))
    np.testing.assert_array_equal(packed.images[99], inner(99, 8))


@pytest.mark.parametrize("jobs", [1, 2])
def test_pack_on_a_full_disk_is_gone_on_with(tmp_path, monkeypatch, jobs):
    dataset = noise(open_dataset("phantom", pictures=150))
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
    dataset = noise(open_dataset("phantom", pictures=40))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pack_writing, "_check_space", lambda part, layout: None)
        patched.setattr(
            pack_writing, "_reopen", lambda target, part, journal: part.symlink_to("/dev/full")
        )
        with pytest.raises(WorkError, match=r"the disk is full"):
            pack(dataset, 8, cache=tmp_path, progress=False)


def test_pack_checks_the_space_before_the_first_picture(tmp_path, monkeypatch):
    dataset = open_dataset("phantom", pictures=24)
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
    dataset = noise(open_dataset("phantom", pictures=100))
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
    assert "damaged; what does not match its checksum is decoded again" in capsys.readouterr().err
    chunk = {0: range(0), 200: range(32), -1: range(96, 100)}.get(place, range(32, 64))
    assert sorted(read) == list(chunk)


def test_pack_makes_a_damaged_one_with_gaps_anew(tmp_path):
    dataset = noise(open_dataset("phantom", pictures=100), unreadable=(5, 50))
    path = pack(dataset, 8, cache=tmp_path, leave_out=True).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    mended = pack(dataset, 8, cache=tmp_path, leave_out=True)
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(mended.images[97], dataset.read(99, 8))


def test_pack_finds_hidden_damage_when_asked(tmp_path):
    dataset = noise(open_dataset("phantom", pictures=100))
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
    dataset = noise(open_dataset("phantom", pictures=40))
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
    dataset = noise(open_dataset("phantom", pictures=40))
    path = pack(dataset, 8, cache=tmp_path).path
    whole = path.read_bytes()
    path.write_bytes(b"another")
    path.with_suffix(".json").write_bytes(torn)
    assert pack(dataset, 8, cache=tmp_path).path.read_bytes() == whole


def test_pack_believes_neither_a_torn_nor_a_foreign_journal(tmp_path):
    dataset = noise(open_dataset("phantom", pictures=100))
    whole = pack(dataset, 8, cache=tmp_path / "whole")
    cache = tmp_path / "torn"
    part = cache / whole.path.with_suffix(".part").name
    journal = part.with_suffix(".journal")
    layout = pack_files.Layout(100, 8)
    assert in_child(killed_after(900, lambda: pack(dataset, 8, cache=cache, jobs=1))) < 0
    done = _lines(journal)
    assert 2 <= len(done) < 1 + layout.chunks
    for lines in (
        [*done[:-1], done[-1][:9]],  # torn in the last line
        [*done, b"00000000 {}"],
        [done[0].replace(b"100", b"101"), *done[1:]],
        [done[0], done[1].replace(b'"chunk": 0', b'"chunk": 1')],  # its checksum is another's
    ):
        journal.write_bytes(b"\n".join(lines) + b"\n" * (lines[-1] != done[-1][:9]))
        kept = bytes(part.read_bytes())
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / part.name).write_bytes(kept)
        (copy / journal.name).write_bytes(journal.read_bytes())
        assert pack(dataset, 8, cache=copy).path.read_bytes() == whole.path.read_bytes()
        for path in copy.iterdir():
            path.unlink()
        copy.rmdir()


def test_pack_of_several_processes_is_written_by_one_and_read_whole(tmp_path):
    dataset = noise(open_dataset("phantom", pictures=300))
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
    dataset = noise(open_dataset("phantom", pictures=100))
    reading = pack(dataset, 8, cache=tmp_path)
    expected = np.array(reading.images)
    os.utime(reading.path, ns=(1, 1))
    note = reading.path.with_suffix(".json")
    note.write_text(note.read_text().replace('"rows": 100', '"rows": 99'))  # the note is damaged
    again = pack(dataset, 8, cache=tmp_path)
    np.testing.assert_array_equal(reading.images, expected)
    np.testing.assert_array_equal(again.images, expected)


def test_pack_of_a_process_that_is_killed_at_work_says_so(tmp_path):
    dataset = open_dataset("phantom", pictures=200)

    class Deadly:
        def __call__(self, row: int, size: int) -> np.ndarray:
            if os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            return np.zeros((size, size, 3), np.uint8)

    parent = os.getpid()
    object.__setattr__(dataset, "reader", Deadly())
    with pytest.raises(WorkError, match=r"a process was killed; start again with fewer processes"):
        pack(dataset, 8, cache=tmp_path, jobs=2, progress=False)


def test_pack_lists_every_unreadable_picture_in_its_note(tmp_path):
    root = write_pictures(tmp_path / "skin", each=12)
    for path in root.glob("*/*.png"):
        if path.stem != "0":
            path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^skin: 22 of 24 pictures cannot be read"):
        pack(open_dataset(root), 8, cache=tmp_path / "cache")
    note = json.loads(next((tmp_path / "cache").glob("*.json")).read_text())
    assert len(note["unreadable"]) == 22
    assert note["unreadable"][0]["image"] == "class0/1.png"
