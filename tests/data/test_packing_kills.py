"""Packing that is killed or stopped, and gone on with."""

import json
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

from fopro_lab.data import open_dataset, pack
from fopro_lab.data import pack as pack_files
from fopro_lab.data import pack as pack_writing
from fopro_lab.errors import WorkError
from tests.data.dying import in_child, killed_after, noise

# Python 3.12 warns of every fork beside a thread; the children here use none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


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
    dataset = noise(open_dataset("phantom", images=150), unreadable=unreadable)

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
    dataset = noise(open_dataset("phantom", images=70), unreadable=unreadable)

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
            dataset = open_dataset("phantom", images=400)
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
    dataset = open_dataset("phantom", images=400)
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
    dataset = noise(open_dataset("phantom", images=100))
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


def test_pack_believes_neither_a_torn_nor_a_foreign_journal(tmp_path):
    dataset = noise(open_dataset("phantom", images=100))
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


def test_pack_of_a_process_that_is_killed_at_work_says_so(tmp_path):
    dataset = open_dataset("phantom", images=200)

    class Deadly:
        def __call__(self, row: int, size: int) -> np.ndarray:
            if os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            return np.zeros((size, size, 3), np.uint8)

    parent = os.getpid()
    object.__setattr__(dataset, "reader", Deadly())
    with pytest.raises(WorkError, match=r"a process was killed; start again with fewer processes"):
        pack(dataset, 8, cache=tmp_path, jobs=2, progress=False)
