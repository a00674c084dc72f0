"""When one of several processes fails, the others hear why, and one of them says it."""

import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch.distributed import DistError, PrefixStore, Store

from fopro_lab.errors import InputError, WorkError

STOPPED = "stopped; what was finished is kept, the same command goes on from there"
AGAIN = "what was finished is kept, start the same command again to go on"
ROUNDS = itertools.count(1)  # of this process; all of a launcher count alike
SEARCH_SECONDS = 2.0  # a launcher needs a moment to notice that a process has ended
GRACE_SECONDS = 5.0  # a GPU's wait for a lost process cannot be interrupted, only ended
# What gloo and NCCL say when the other end is gone; they have no errors of their own for it.
SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "connect fail")


class Stopped(BaseException):
    """A signal asked this process to end; no ``except Exception`` may keep it."""


class Peers:
    """The processes of one run, and a notebook they share that outlives each of them.

    Args:
        store: The launcher's store.
        rank: This process, from 0.
        world_size: How many there are.
    """

    def __init__(self, store: Store, *, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.common = store
        self.notes: Store = store
        self.leaving = False
        self._write(store, f"who/{rank}", [socket.gethostname(), os.getpid()])

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let every process raise the first error of any, and one of them print it.

        Raises:
            InputError: If that was the first error.
            WorkError: If that was, or if a process has ended without a word, or was stopped.
        """
        # A script may train one run after another, each with notes of its own.
        self.notes = PrefixStore(f"round {next(ROUNDS)}", self.common)
        self.leaving = False
        with ExitStack() as stack:
            stack.enter_context(self._obeying_signals())
            try:
                try:
                    yield
                except BaseException:
                    self.leaving = True  # a second signal shall not cut off what is told
                    raise
            except (InputError, WorkError) as error:
                self._told(error)
                raise
            except (Stopped, KeyboardInterrupt) as error:
                raise self._why(stopped=True) from error
            except Exception as error:
                if not is_loss(error):
                    first = str(error).partition("\n")[0]
                    name = f"process {self.rank + 1} of {self.world_size}"
                    self._claim(WorkError(f"{name}: unexpected {type(error).__name__}: {first}"))
                    raise
                raise self._why(stopped=False) from error

    def wait_for(self, key: str) -> None:
        """Wait for `say` of another process, for hours if need be, or for its error."""
        while not self.notes.check([key]):
            if (error := self._claimed()) is not None:
                raise error
            time.sleep(0.05)

    def say(self, key: str) -> None:
        """Let go on who waits for a key."""
        self.notes.set(key, "1")

    def _why(self, *, stopped: bool) -> InputError | WorkError:
        """Find out why a process is gone or was stopped: an error that was claimed, or none."""
        until = time.monotonic() + SEARCH_SECONDS
        while True:
            if (error := self._claimed()) is not None:
                return error
            lost, elsewhere = self._lost()
            if lost or time.monotonic() > until:
                break
            time.sleep(0.05)
        if lost:
            names = " and ".join(str(rank + 1) for rank in lost)
            text = f"process {names} of {self.world_size} has ended; {AGAIN}"
        elif stopped:
            text = STOPPED
        else:
            where = "on another machine " if elsewhere else ""
            text = f"a process {where}of {self.world_size} has ended; {AGAIN}"
        return self._told(WorkError(text))

    def _told(self, error: InputError | WorkError) -> InputError | WorkError:
        """Print an error if nobody else did; at once, since a launcher soon ends who is left."""
        if not error.told and self._claim(error):
            sys.stderr.write(f"fopro: {error}\n")
            sys.stderr.flush()
        error.told = True
        return error

    def _claim(self, error: InputError | WorkError) -> bool:
        """Write an error down as the run's; False if another process was earlier."""
        try:
            self.notes.set(f"left/{self.rank}", "1")
            if self.notes.add("claims", 1) > 1:
                return False
            kind = "input" if isinstance(error, InputError) else "work"
            self._write(self.notes, "error", [kind, str(error)])
        except Exception:  # the store is gone with the process that kept it: better told twice
            pass
        return True

    def _claimed(self) -> InputError | WorkError | None:
        """Return the error that another process has claimed, if one has."""
        try:
            if not self.notes.check(["error"]):
                return None
            kind, text = json.loads(self.notes.get("error"))
        except Exception:
            return None
        error = (InputError if kind == "input" else WorkError)(text)
        error.told = True
        return error

    def _lost(self) -> tuple[list[int], bool]:
        """List who has ended here without a word, and tell whether there are other machines."""
        lost, elsewhere = [], False
        try:
            for rank in range(self.world_size):
                host, process = json.loads(self.common.get(f"who/{rank}"))
                if host != socket.gethostname():
                    elsewhere = True
                elif not _lives(process):
                    lost.append(rank)
            # Looked up afterwards: who went because of another's end wrote it down before.
            return [rank for rank in lost if not self.notes.check([f"left/{rank}"])], elsewhere
        except Exception:
            return [], elsewhere

    @staticmethod
    def _write(store: Store, key: str, content: list) -> None:
        store.set(key, json.dumps(content))

    @contextmanager
    def _obeying_signals(self) -> Iterator[None]:
        """Turn a launcher's or a user's signal into `Stopped`, once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python lets no other thread do it
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if not self.leaving:
                self.leaving = True
                raise Stopped

        kinds = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(kind, stop) for kind in kinds]
        try:
            with _ended_if_stuck(lambda: self._why(stopped=True)):
                yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)


@contextmanager
def _ended_if_stuck(tell: Callable[[], object]) -> Iterator[None]:
    """End this process some seconds after a signal that it cannot hear.

    Python hears a signal between two of its own steps. Who waits for a GPU takes none, and the GPU
    may wait for a process that is gone.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    done = threading.Event()

    def watch() -> None:
        ends = (b"", bytes([signal.SIGTERM]), bytes([signal.SIGINT]))
        while (number := heard.recv(1)) not in ends:
            pass  # another signal, such as a scheduler's
        if number and not done.wait(GRACE_SECONDS):
            tell()
            os._exit(1)

    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        told.close()
        watcher.join()
        heard.close()


def is_loss(error: BaseException) -> bool:
    """Tell whether an error says that another process is gone.

    Example:
        >>> is_loss(RuntimeError("[pair.cc:538] Connection closed by peer [127.0.0.1]:1234"))
        True
        >>> is_loss(RuntimeError("shapes do not fit"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, DistError) or any(sign in str(error).lower() for sign in SIGNS)


def _lives(process: int) -> bool:
    """Tell whether a process of this machine runs; one that only waits to be counted does not."""
    try:
        # Behind the name, which may hold anything, stands the state.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
