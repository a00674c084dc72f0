"""The kernel of one notebook: how it is started, how long it may work, how much memory it took."""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

_SAMPLE_EVERY = 1.0  # seconds between two looks at the memory
_ASK_AGAIN = 5.0  # seconds that an interrupted cell has to end
_ASKS = 3  # interrupts before the kernel is killed


def kernel_class(folder: Path, made: list[Any]) -> type:
    """Build the manager of a kernel of this very interpreter, reached without ports.

    Kernels that start at the same time race for TCP ports; sockets in a private folder have no
    such race. The kernel's command is given here, so a kernel of the same name that another
    environment has registered is never taken.

    Args:
        folder: For sockets; short, since a socket's path may have 107 characters.
        made: Every manager that is made is added here.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class PrivateKernel(AsyncKernelManager):
        kernel_spec = KernelSpec(resource_dir="", **get_kernel_dict())

        def __init__(self, *args: Any, **keys: Any) -> None:
            super().__init__(*args, **keys)
            made.append(self)

        @default("transport")
        def _no_ports(self) -> str:
            return "ipc"

        @default("connection_file")
        def _in_the_private_folder(self) -> str:
            return str(folder / "kernel.json")

    return PrivateKernel


def kernel_pid(made: list[Any]) -> int:
    """Return the process of the kernel made last; 0 if there is none yet.

    Example:
        >>> kernel_pid([])
        0
    """
    process = getattr(getattr(made[-1], "provisioner", None), "process", None) if made else None
    return int(process.pid) if process is not None else 0


class Watch:
    """Measures the memory of this process and all below it, and ends a kernel at its time limit.

    The kernel's cell is interrupted, as by the stop button, so that it ends red with its output;
    one that does not heed is killed.

    Args:
        limit: Seconds from now, 0 for none.
        pid: Tells the kernel's process, 0 if there is none.

    Attributes:
        memory: Largest sum of resident memory seen so far, bytes. What processes share, such as
            libraries, is counted in each.
        late: Whether the limit was reached.

    Example:
        >>> with Watch(0.0, lambda: 0) as watch:
        ...     pass
        >>> watch.memory > 1e6, watch.late
        (True, False)
    """

    def __init__(self, limit: float, pid: Callable[[], int]) -> None:
        self.limit, self.pid = limit, pid
        self.memory, self.late = 0, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        # what ended between two looks is known to the system: the largest process of each kind
        peaks = [resource.getrusage(who).ru_maxrss for who in _WHO]
        self.memory = max(self.memory, sum(peaks) * (1 if sys.platform == "darwin" else 1024))

    def _look(self) -> None:
        asked = 0
        while not self._over.wait(self._pause(asked)):
            self.memory = max(self.memory, _resident())
            past = time.monotonic() - self._began - self.limit
            if self.limit and past >= asked * _ASK_AGAIN:
                self.late, asked = True, asked + 1
                _signal(self.pid(), signal.SIGINT if asked <= _ASKS else signal.SIGKILL)

    def _pause(self, asked: int) -> float:
        if not self.limit:
            return _SAMPLE_EVERY
        left = self.limit + asked * _ASK_AGAIN - (time.monotonic() - self._began)
        return min(_SAMPLE_EVERY, max(left, 0.05))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _resident() -> int:
    """Sum the resident memory of this process and of all below it, bytes."""
    import psutil

    own, total = psutil.Process(), 0
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.Error):  # it ended meanwhile
            total += process.memory_info().rss
    return total


def _signal(pid: int, number: signal.Signals) -> None:
    """Tell the kernel and what it started; it leads a group of its own."""
    if pid:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
