"""``run_plan``: execute a plan's notebooks in parallel processes and write the index."""

import hashlib
import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from fopro_lab.io import write_json
from fopro_lab.reports.plan import Node
from fopro_lab.reports.plan import read_cells
from fopro_lab.reports.plan import files_states, package_hash
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
import select
from dataclasses import asdict, dataclass, field
from tempfile import TemporaryDirectory
from fopro_lab.errors import WorkError
from fopro_lab.io import atomic_path
from fopro_lab.reports.plan import duration
import subprocess
from collections.abc import Mapping
import re
import shutil
from typing import Protocol
from fopro_lab.errors import InputError
import queue
import secrets
from dataclasses import asdict
from importlib.metadata import version
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from fopro_lab.reports.plan import NodeReport
from collections.abc import Sequence
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fopro_lab.config import DataConfig, TrainConfig
from fopro_lab.reports.plan import Missing, missing_inputs
from fopro_lab.reports.plan import Node, plan_nodes
from fopro_lab.reports.plan import declared_parameters
from fopro_lab.reports.plan import read_plan
from fopro_lab.io import in_bytes
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from filelock import FileLock, Timeout
from fopro_lab.errors import InputError, WorkError
from fopro_lab.reports.plan import chosen_names, plan_nodes
from fopro_lab.reports.plan import Report, duration
from fopro_lab.reports.plan import CHECKOUT, read_plan
from fopro_lab.reports.plan import page_hash



@dataclass(frozen=True)
class Record:
    """What a node's last execution took.

    Attributes:
        seconds: Of wall time.
        memory: Peak of its processes, bytes; 0 where it is not known.
        attempts: How often its kernel was started.

    Example:
        >>> Record(2.5).attempts
        1
    """

    seconds: float
    memory: int = 0
    attempts: int = 1


def node_key(
    node: Node, *, before: Mapping[str, str], files: MutableMapping[str, str] | None = None
) -> str:
    """Hash all that a node's result depends on.

    Args:
        node: The node.
        before: Key of every node that it waits for.
        files: States of paths that are known already, and are added here: many nodes read one
            data set, and listing it takes a while.

    Returns:
        64 hexadecimal digits over the notebook's cells, the parameters, the package's source, the
        files that parameters point to (names, sizes, times), and the keys before.
    """
    files = {} if files is None else files
    parts = {
        "cells": [(cell.get("cell_type"), cell["source"]) for cell in read_cells(node.notebook)],
        "parameters": node.parameters,
        "package": package_hash(),
        "files": files_states(node.parameters, known=files),
        "before": {name: before[name] for name in node.after},
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_record(node: Node, *, folder: Path, key: str, took: Record) -> None:
    """Note beside a node's outputs that it is done.

    Args:
        node: The node.
        folder: Its ``out_dir``; the record holds as long as every file in it is there, and the
            manifest in its ``run_dir``.
        key: The node's key.
        took: Time and memory.
    """
    outputs = [p for p in folder.rglob("*") if p.is_file() and p.name != ".done.json"]
    manifest = Path(node.places.get("run_dir", "")) / "manifest.json"
    outputs += [manifest] if manifest.is_file() else []
    names = sorted(os.path.relpath(path, folder) for path in outputs)
    write_json(_record_path(folder), {"key": key, **asdict(took), "outputs": names})


def read_record(*, folder: Path, key: str) -> Record | None:
    """Look up whether a node with this key is done and all that it wrote is still there.

    Args:
        folder: The node's ``out_dir``.
        key: The node's key now.

    Returns:
        What it took, or None if it is to be executed.

    Example:
        >>> read_record(folder=Path("nowhere"), key="0" * 64) is None
        True
    """
    try:
        record: dict[str, Any] = json.loads(_record_path(folder).read_text(encoding="utf-8"))
        there = all((folder / path).exists() for path in record["outputs"])
        return _took(record) if there and record["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def last_record(*, folder: Path) -> Record | None:
    """Look up what a node took when it was last done, whatever has changed since.

    Args:
        folder: The node's ``out_dir``.

    Returns:
        Time and memory, or None without a record.

    Example:
        >>> last_record(folder=Path("nowhere")) is None
        True
    """
    try:
        return _took(json.loads(_record_path(folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _took(record: Mapping[str, Any]) -> Record:
    memory, attempts = record.get("memory", 0), record.get("attempts", 1)
    return Record(float(record["seconds"]), int(memory), int(attempts))


def forget_record(*, folder: Path) -> None:
    """Remove a record and the files that it lists, so that no old figure passes for a new one.

    Only files below ``folder`` that the last execution wrote are removed.

    Args:
        folder: The node's ``out_dir``.

    Example:
        >>> forget_record(folder=Path("nowhere"))
    """
    try:
        names = json.loads(_record_path(folder).read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        names = []
    for name in names:
        if not name.startswith(os.pardir):
            (folder / name).unlink(missing_ok=True)
    _record_path(folder).unlink(missing_ok=True)


def _record_path(folder: Path) -> Path:
    return folder / ".done.json"


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


@dataclass(frozen=True)
class Job:
    """What to execute and where the results go; paths are seen from the current folder.

    ``notebook`` is the source, ``executed`` and ``page`` are written, ``parameters`` are injected.
    ``limit`` is the longest time in seconds, 0 for none.
    """

    name: str
    notebook: str
    executed: str
    page: str
    parameters: dict[str, Any] = field(default_factory=dict)
    limit: float = 0.0

    def to_json(self) -> str:
        """Return the job as one line, the form in which the process is told."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Outcome:
    """How a notebook ended.

    Attributes:
        failure: Empty when every cell went through, else one line: the error of the red cell.
        seconds: From the start of its kernel to its page.
        memory: Peak of its processes, bytes; 0 where it is not known.
        attempts: How often its kernel was started.
    """

    failure: str
    seconds: float = 0.0
    memory: int = 0
    attempts: int = 1


def execute(job: Job) -> Outcome:
    """Execute a notebook with papermill and write the executed copy and its page.

    Both are written whole, and also when a cell fails: then with its red cell. A kernel that does
    not start is started once more.

    Args:
        job: What and where.

    Returns:
        How it ended; a full disk and a kernel that never starts are failures as well.
    """
    from nbclient.exceptions import DeadKernelError

    began, memory = time.monotonic(), 0
    for attempt in (1, 2):
        made: list[Any] = []
        # the folder's name is short: a socket's path may have 107 characters
        with TemporaryDirectory(prefix="fopro-", ignore_cleanup_errors=True) as folder:
            try:
                with Watch(job.limit, lambda made=made: kernel_pid(made)) as watch:  # type: ignore[misc]
                    live, failure = _run_cells(job, Path(folder), made, watch)
                _write(job, live)
            except (WorkError, OSError) as error:
                failure = str(error)
            except RuntimeError as error:
                memory = watch.memory
                if not isinstance(error, DeadKernelError) and attempt == 1:
                    continue
                failure = f"{job.name}: the kernel does not start ({error})"
            memory = max(memory, watch.memory)
            return Outcome(failure, time.monotonic() - began, memory, attempt)
    raise AssertionError("unreachable")


def _run_cells(job: Job, folder: Path, made: list[Any], watch: Watch) -> tuple[Any, str]:
    """Return the executed notebook, marked where it broke, and its failure."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    live, failure = folder / "live.ipynb", ""
    try:
        papermill.execute_notebook(
            job.notebook,
            live,
            parameters=job.parameters,
            kernel_name="python3",
            language="python",  # a stripped notebook may not say it
            progress_bar=False,
            kernel_manager_class=kernel_class(folder, made),
        )
    except papermill.PapermillExecutionError as error:
        failure = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
    except DeadKernelError:
        failure = "the kernel died in the middle of a cell; was the memory full?"
        failure = _late(job) if watch.late else failure
        _mark_dead_cell(live, failure)
    notebook = nbformat.read(live, as_version=4)
    if watch.late and failure:
        failure = _late(job)
        _mark_late_cell(notebook, failure)
    return notebook, failure


def _write(job: Job, notebook: Any) -> None:
    import nbformat

    from fopro_lab.reports.pages import write_notebook_page

    notebook.metadata.papermill.update(input_path=job.notebook, output_path=job.executed)
    with atomic_path(job.executed) as temporary, open(temporary, "w", encoding="utf-8") as file:
        nbformat.write(notebook, file)
    write_notebook_page(notebook, job.page, name=job.name)


def _late(job: Job) -> str:
    return f"the time limit of {duration(job.limit)} was reached"


def _mark_late_cell(notebook: Any, failure: str) -> None:
    """Say in the red cell that it was interrupted by the limit, by no hand."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    for output in outputs:
        if output.output_type == "error" and output.ename == "KeyboardInterrupt":
            output.update(ename="TimeLimit", evalue=failure)
            output.traceback.append(f"TimeLimit: {failure}")


def _mark_dead_cell(live: Path, failure: str) -> None:
    """Give the cell in which the kernel died an error of its own; papermill leaves it blank."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import raise_for_execution_errors

    notebook = nbformat.read(live, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    done = [c for c in code if c.metadata.papermill.status == "completed" and c.execution_count]
    cell = code[min(len(done), len(code) - 1)]
    cell.outputs.append(
        nbformat.v4.new_output("error", ename="DeadKernel", evalue=failure, traceback=[failure])
    )
    try:
        raise_for_execution_errors(notebook, str(live))
    except PapermillExecutionError:
        pass  # it has written the notebook with its marks


def _import_ahead() -> None:
    """Import all that every job needs, before the first one is told."""
    # building this parser of web addresses takes 1.7 s; jsonschema does without, notebooks as well
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import nbconvert.exporters
    import papermill
    from ipykernel import kernelspec
    from jupyter_client import manager
    from nbformat.v4 import new_code_cell, new_notebook
    from psutil import Process

    from fopro_lab.reports.pages import notebook_page

    assert all((nbconvert, papermill, kernelspec, manager, Process))
    # the first page loads lexers and filters, a second's worth
    notebook_page(new_notebook(cells=[new_code_cell("print(1)")]), name="first")


def _work(job: Job, result: int, life: int) -> None:
    """Execute a job in the forked copy and end it; it ends as well when the first process does."""
    threading.Thread(target=lambda: (os.read(life, 1), os._exit(1)), daemon=True).start()
    try:
        outcome = execute(job)
    except Exception as error:
        outcome = Outcome(f"{job.name}: {type(error).__name__}: {error}")
    with os.fdopen(result, "w") as pipe:
        pipe.write(json.dumps(asdict(outcome)))
    sys.stdout.flush()
    os._exit(0)


def _fork(job: Job, life: tuple[int, int]) -> str:
    """Execute one job in a copy of this process; its result as a line."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.close(life[1])
        try:
            _work(job, write, life[0])
        finally:
            os._exit(1)  # never back into the loop of the first process
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        ready, _, _ = select.select([0, read], [], [])
        if 0 in ready:  # whoever told the job is gone, and so is this process; the copy follows
            os._exit(1)
        result = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return result or json.dumps({"status": os.waitstatus_to_exitcode(status)})


def main() -> None:
    """Execute the jobs on stdin, one a line; each is answered by a line with its `Outcome`."""
    _import_ahead()
    life = os.pipe()
    jobs = open(0, "rb", buffering=0)  # unbuffered, so that waiting for its end sees all of it
    for line in iter(jobs.readline, b""):
        result = _fork(Job(**json.loads(line)), life)
        sys.stdout.write("\n" + result + "\n")
        sys.stdout.flush()
    os._exit(0)  # taking down what was imported takes 0.2 s, which the report would wait


if __name__ == "__main__":
    main()


class Runner:
    """A process that executes one job after the other, each in a copy of itself.

    Args:
        environment: Of the process and of the kernels below it.
        folder: From which the jobs' paths are seen; empty is the current one.
    """

    def __init__(self, environment: Mapping[str, str], *, folder: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fopro_lab.reports.run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=dict(environment),
            cwd=folder or None,
            start_new_session=True,  # Ctrl-C goes to the batch, which ends its runners
        )

    @property
    def alive(self) -> bool:
        """Whether it can be told another job."""
        return self.process.poll() is None

    def work(self, job: Job) -> Outcome:
        """Execute a job and wait for its end.

        Args:
            job: What and where.

        Returns:
            How it ended; a process that was killed is a failure, told with its last words.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        last = ""
        try:
            self.process.stdin.write(job.to_json() + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                result = _result(line)
                if "failure" in result:
                    return Outcome(**result)
                if "status" in result:
                    return _lost(result["status"], last)
                last = line.strip() or last
        except BrokenPipeError:
            pass
        return _lost(self.process.wait(), last)

    def stop(self) -> None:
        """End it at once; the notebook at work and its kernel follow within a second."""
        self.process.terminate()

    def close(self) -> None:
        """Let it end: there is no further job."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        self.process.wait()


def _result(line: str) -> dict:
    try:
        result = json.loads(line)
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}


def _lost(status: int, last: str) -> Outcome:
    return Outcome(f"its process ended without a result (status {status}): {last}".rstrip(": "))


def notebook_environment(*, threads: int, device: str = "") -> dict[str, str]:
    """Return the environment of a notebook: its share of the cores, figures inlined, its GPU.

    Where bytecode is not to be written beside the source, every process would compile all imports
    anew, ten seconds each; so it is kept with the packs instead.

    Args:
        threads: Cores that it may use.
        device: What ``CUDA_VISIBLE_DEVICES`` shall name; empty leaves that as it is.

    Example:
        >>> environment = notebook_environment(threads=2, device="1")
        >>> environment["OMP_NUM_THREADS"], environment["CUDA_VISIBLE_DEVICES"]
        ('2', '1')
    """
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        from fopro_lab.data.pack import cache_folder

        environment.setdefault("PYTHONPYCACHEPREFIX", str(cache_folder().absolute() / "bytecode"))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    if device:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return {**environment, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def cores() -> int:
    """Count the cores that this process may use.

    Example:
        >>> cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_ANSWER_IN = 20.0  # seconds; a driver that is busy answers late


def visible_devices() -> list[str]:
    """List the CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Returns:
        The entries of that variable if it is set; else what ``nvidia-smi -L`` tells; empty where
        there is neither.

    Example:
        >>> all(isinstance(device, str) for device in visible_devices())
        True
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        named = [part.strip() for part in chosen.split(",")]
        # CUDA itself stops at the first entry that names no device
        return named[: next((i for i, d in enumerate(named) if d in ("", "-1")), len(named))]
    if not shutil.which("nvidia-smi"):
        return []
    try:
        told = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=_ANSWER_IN
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU \d+:.*\(UUID: ([^)]+)\)", told, flags=re.MULTILINE)


class Executor(Protocol):
    """Executes jobs; `work` is called from several threads, `jobs` of them at the most."""

    jobs: int

    def work(self, job: Job) -> Outcome:
        """Execute a job and wait for its end."""

    def stop(self) -> None:
        """End all that is at work, at once."""

    def close(self) -> None:
        """Give back what it holds."""


def check_executor(name: str) -> None:
    """Refuse the name of an executor that cannot be.

    Args:
        name: ``local``, ``dask`` (or ``dask://local``) or ``dask://HOST:PORT``.

    Raises:
        InputError: If it is something else.

    Example:
        >>> check_executor("slurm")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: executor: expected local, dask or dask://HOST:PORT, got 'slurm'
    """
    if not re.fullmatch(r"local|dask|dask://local|dask://[^\s/]+:\d+", name):
        raise InputError(f"executor: expected local, dask or dask://HOST:PORT, got '{name}'")


def executor_from(name: str, *, jobs: int, most: int, out: Path) -> Executor:
    """Make an executor by its name.

    Args:
        name: As of `check_executor`.
        jobs: Notebooks at the same time; 0 is one a GPU, or one a core where there is none, or
            one a thread of the cluster's workers.
        most: How many notebooks there are.
        out: Folder of the report, which all must see.

    Raises:
        InputError: If there is no such kind.
        WorkError: If the cluster does not answer or does not see the folder.
    """
    check_executor(name)
    if name == "local":

        return LocalExecutor(jobs=jobs, most=most)

    address = name.removeprefix("dask://")
    return ClusterExecutor(
        "" if address in ("dask", "local") else address, jobs=jobs, most=most, out=out
    )


_GAP = 0.25  # seconds between two starts: imports at the same time fight for disk and cores


class LocalExecutor:
    """Slots of this machine.

    Where there are GPUs, slot ``i`` sees GPU ``i`` modulo their number: by default one notebook a
    GPU, and with more jobs than GPUs they share them in turn.

    Args:
        jobs: Slots; 0 is one a GPU, or one a core where there is none.
        most: How many notebooks there are; more slots are never made.
    """

    def __init__(self, *, jobs: int, most: int) -> None:
        self.devices = visible_devices()
        self.jobs = max(1, min(jobs or len(self.devices) or cores(), most))
        self._runners: dict[int, Runner] = {}
        self._free: queue.LifoQueue[int] = queue.LifoQueue()  # the slot used last is warm
        for slot in reversed(range(self.jobs)):
            self._free.put(slot)
        self._starting, self._last = threading.Lock(), float("-inf")
        self._stopped = False

    def work(self, job: Job) -> Outcome:
        """Execute a job on a free slot and wait for its end."""
        slot = self._free.get()
        try:
            with self._starting:
                time.sleep(max(0.0, self._last + _GAP - time.monotonic()))
                self._last = time.monotonic()
                if self._stopped:
                    return Outcome("stopped before it started")
                runner = self._runner(slot)
            return runner.work(job)
        finally:
            self._free.put(slot)

    def stop(self) -> None:
        """End all that is at work, at once."""
        self._stopped = True
        with self._starting:  # what is being started is among them then
            runners = list(self._runners.values())
        for runner in runners:
            runner.stop()

    def close(self) -> None:
        """End the slots' processes; nothing is at work any more."""
        for runner in self._runners.values():
            runner.close()

    def _runner(self, slot: int) -> Runner:
        """Return the slot's process; a new one if the last was killed."""
        runner = self._runners.get(slot)
        if runner is None or not runner.alive:
            if runner is not None:
                runner.close()
            device = self.devices[slot % len(self.devices)] if self.devices else ""
            threads = max(1, cores() // self.jobs)
            runner = Runner(notebook_environment(threads=threads, device=device))
            self._runners[slot] = runner
        return runner


_CLUSTER_ANSWER_IN = 5.0  # seconds for the scheduler
_WORKERS_IN = 30.0  # seconds for the first worker
_COMPARED = ("distributed", "fopro_lab", "papermill")


class ClusterExecutor:
    """Each notebook is one task, which starts the same process on its worker as the local one.

    A thread of a worker is a slot: a worker with one thread has one notebook at a time. A task
    whose worker is lost goes to another one. Which GPU a worker sees is the cluster's matter.
    All must see the report's folder, the data and the notebooks under the same paths.

    Args:
        address: ``HOST:PORT`` of the scheduler; empty starts workers on this machine, which end
            with the report.
        jobs: Notebooks at the same time; 0 is one a thread of the workers.
        most: How many notebooks there are.
        out: Folder of the report.

    Raises:
        WorkError: If the scheduler does not answer, has no workers, or they do not see ``out``.
    """

    def __init__(self, address: str, *, jobs: int, most: int, out: Path) -> None:
        from distributed import Client, LocalCluster

        self._own = None
        self._tasks: dict[str, Any] = {}
        self._changing = threading.Lock()
        self._stopped = False
        if not address:
            count = max(1, min(jobs or cores(), most))
            self._own = LocalCluster(
                n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=50
            )
        try:
            self._client = Client(self._own or f"tcp://{address}", timeout=_CLUSTER_ANSWER_IN)
        except (OSError, ValueError) as error:
            raise WorkError(
                f"dask://{address}: no scheduler answers there ({type(error).__name__}); "
                "start one with `dask scheduler` and workers with `dask worker HOST:PORT`"
            ) from None
        try:
            slots = self._slots(address)
            _check_shared(self._client, out)
        except BaseException:
            self.close()
            raise
        _warn_of_versions(self._client)
        self.jobs = max(1, min(jobs or slots, most))

    def work(self, job: Job) -> Outcome:
        """Execute a job on a worker and wait for its end, on another worker if that is lost."""
        from distributed import CancelledError, KilledWorker

        with self._changing:
            if self._stopped:
                return Outcome("stopped before it started")
            folder = str(Path.cwd())
            task = self._client.submit(
                work_here, asdict(job), folder, pure=False, key=f"{job.name}-{secrets.token_hex(4)}"
            )
            self._tasks[job.name] = task
        try:
            return Outcome(**task.result())
        except KilledWorker as error:
            return Outcome(f"each worker that took it was lost ({error.last_worker.address})")
        except CancelledError:
            return Outcome("stopped")
        except Exception as error:  # whatever happened over there is this notebook's failure
            return Outcome(f"on its worker: {type(error).__name__}: {error}".splitlines()[0])
        finally:
            self._tasks.pop(job.name, None)

    def stop(self) -> None:
        """Cancel all tasks and end the processes that they have started."""
        with self._changing:
            self._stopped = True
            tasks = list(self._tasks.values())
        with suppress(Exception):  # a cluster that is gone has nothing to be stopped
            self._client.cancel(tasks, force=True)
            self._client.run(stop_here, [task.key for task in tasks])

    def close(self) -> None:
        """Leave the cluster; workers of this machine end."""
        with suppress(Exception):
            self._client.close()
        if self._own is not None:
            self._own.close()

    def _slots(self, address: str) -> int:
        from distributed import TimeoutError as DaskTimeoutError

        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_IN)
        except DaskTimeoutError:
            raise WorkError(
                f"dask://{address}: the scheduler has no workers; start some with "
                f"`dask worker {address}`"
            ) from None
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(worker["nthreads"] for worker in workers)


_RUNNERS: dict[str, Runner] = {}  # on a worker: by the key of the task


def work_here(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Execute a job on this worker, in a process of its own; called by dask.

    Args:
        job: Fields of a `Job`.
        folder: From which its paths are seen.

    Returns:
        Fields of an `Outcome`.
    """
    from distributed import get_worker

    worker = get_worker()
    threads = max(1, cores() // worker.state.nthreads)
    runner = Runner(notebook_environment(threads=threads), folder=folder)
    key = str(worker.get_current_task())
    _RUNNERS[key] = runner
    try:
        return asdict(runner.work(Job(**job)))
    finally:
        _RUNNERS.pop(key, None)
        runner.close()


def stop_here(keys: list[str]) -> None:
    """End the processes of some tasks on this worker; called by dask."""
    for key in keys:
        if key in _RUNNERS:
            _RUNNERS[key].stop()


def read_here(path: str) -> str:
    """Read a small file on this worker, empty if it is not there; called by dask."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _check_shared(client: Any, out: Path) -> None:
    """Let every worker read a file that is written here: is the folder one and the same?"""
    probe, word = (out / f".probe-{secrets.token_hex(4)}").absolute(), secrets.token_hex(8)
    probe.write_text(word, encoding="utf-8")
    try:
        read = client.run(read_here, str(probe))
    except Exception as error:
        raise WorkError(
            f"dask: the workers cannot run fopro_lab ({type(error).__name__}: {error}); "
            "install the same version there".replace("\n", " ")
        ) from None
    finally:
        probe.unlink(missing_ok=True)
    blind = sorted(address for address, text in read.items() if text != word)
    if blind:
        raise WorkError(
            f"dask: {', '.join(blind)} does not see {out.absolute()}; all workers must share the "
            "report's folder, the notebooks and the data under the same paths"
        )


def _warn_of_versions(client: Any) -> None:
    """Say in a line where a worker has other versions than this process."""
    own = versions_here()
    others = client.run(versions_here)
    for address, theirs in others.items():
        differing = [f"{n} {theirs[n]}, here {own[n]}" for n in own if theirs[n] != own[n]]
        if differing:
            sys.stderr.write(f"warning: {address} has {'; '.join(differing)}\n")


def versions_here() -> dict[str, str]:
    """Tell the versions on this worker; called by dask."""
    return {name: version(name) for name in _COMPARED} | {"python": sys.version.split()[0]}


_STILL_RUNNING_EVERY = 30.0  # seconds between two lines while nothing ends


class Batch:
    """Who waits, who runs, who ended how.

    Args:
        nodes: In an order in which they can be executed.
        out: Folder of the report.
        executor: Makes what executes them; called when the first one is to be executed.
        progress: Whether to say on stderr what starts and ends.
        only: Names of the nodes that may be executed; empty is all. The others are taken as they
            lie in the folder.
        again: Names of the nodes that are executed even if nothing changed.

    Attributes:
        ended: How each node ended, by name.
        jobs: Notebooks at the same time; 0 while none had to be executed.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        out: Path,
        *,
        executor: Callable[[], Executor],
        progress: bool,
        only: Collection[str] = (),
        again: Collection[str] = (),
    ) -> None:
        self.nodes, self.out, self.progress = nodes, out, progress
        self.only, self.again = set(only), set(again)
        self.ended: dict[str, NodeReport] = {}
        self.jobs = 0
        self._make = executor
        self._executor: Executor | None = None
        self._keys: dict[str, str] = {}
        self._working: set[str] = set()
        self._stopping = threading.Event()
        self._began = time.monotonic()

    def run(self) -> bool:
        """Execute everything and fill ``ended``, in the order of the nodes.

        Returns:
            Whether Ctrl-C ended it early; what was at work then is marked as stopped.

        Raises:
            WorkError: If there is nothing that could execute a notebook.
        """
        files: dict[str, str] = {}
        for node in self.nodes:
            self._keys[node.name] = node_key(node, before=self._keys, files=files)
        waiting = list(self.nodes)
        running: dict[Future[NodeReport], Node] = {}
        pool: ThreadPoolExecutor | None = None
        try:
            while waiting or running:
                for node in [n for n in waiting if all(a in self.ended for a in n.after)]:
                    waiting.remove(node)
                    if not self._settle(node):
                        pool = pool or self._open()
                        running[pool.submit(self._work, node)] = node
                self._wait(running)
        except KeyboardInterrupt:
            self._stop()
        finally:
            self._close(pool)
        for future in running:
            if future.result().state != "stopped":
                self._end(future.result())
        for node in self.nodes:
            if node.name not in self.ended:
                self._end(self._report(node, "stopped"))
        self.ended = {node.name: self.ended[node.name] for node in self.nodes}
        return self._stopping.is_set()

    def _open(self) -> ThreadPoolExecutor:
        self._executor = self._make()
        self.jobs = self._executor.jobs
        return ThreadPoolExecutor(self.jobs)

    def _close(self, pool: ThreadPoolExecutor | None) -> None:
        if pool is not None:
            pool.shutdown()
        if self._executor is not None:
            self._executor.close()

    def _settle(self, node: Node) -> bool:
        """End a node without executing it: left out, a predecessor failed, nothing changed."""
        if node.left_out:
            self._end(self._report(node, "left out", reason=node.left_out))
            return True
        before = [self.ended[name] for name in node.after]
        broken = [b.name for b in before if b.state in ("failed", "skipped")]
        if broken:
            self._end(self._report(node, "skipped", reason=f"waits for {', '.join(broken)}"))
            return True
        took = read_record(folder=self.out / node.name, key=self._keys[node.name])
        whole = self._page(node).is_file() and self._executed(node).is_file()
        changed = took is None or not whole or any(b.state != "kept" for b in before)
        if changed or node.name in self.again:
            if not self.only or node.name in self.only:
                return False
            self._end(self._report(node, "left out"))
            return True
        self._end(self._report(node, "kept", took=took))
        return True

    def _wait(self, running: dict[Future[NodeReport], Node]) -> None:
        """Take in what has ended; say now and then what still runs."""
        if not running:
            return
        done, _ = wait(running, timeout=_STILL_RUNNING_EVERY, return_when=FIRST_COMPLETED)
        for future in done:
            self._end(future.result())
            del running[future]
        if not done:
            names = ", ".join(sorted(self._working))
            self._say(f"{len(self.ended)} of {len(self.nodes)} ended, at work: {names}")

    def _work(self, node: Node) -> NodeReport:
        """Execute one node (in a thread); a full disk is this node's failure, not the batch's."""
        if self._stopping.is_set():
            return self._report(node, "stopped")
        self._working.add(node.name)
        try:
            return self._execute(node)
        except (WorkError, OSError) as error:
            return self._report(node, "failed", reason=str(error))
        except Exception as error:  # one notebook's bad luck; the others' work must not be lost
            return self._report(node, "failed", reason=f"{type(error).__name__}: {error}")
        finally:
            self._working.discard(node.name)

    def _execute(self, node: Node) -> NodeReport:
        assert self._executor is not None
        self._say(f"start   {node.name}")
        folder, began = self.out / node.name, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        forget_record(folder=folder)
        for path in (self._executed(node), self._page(node)):
            path.unlink(missing_ok=True)
        job = Job(
            name=node.name,
            notebook=_short(node.notebook),
            executed=_short(self._executed(node)),
            page=_short(self._page(node)),
            parameters={**node.parameters, **node.places},
            limit=node.limit,
        )
        outcome = self._executor.work(job)
        if self._stopping.is_set():
            return self._report(node, "stopped")
        seconds = outcome.seconds or time.monotonic() - began
        took = Record(seconds, outcome.memory, outcome.attempts)
        if outcome.failure:
            return self._report(node, "failed", took=took, reason=outcome.failure)
        write_record(node, folder=folder, key=self._keys[node.name], took=took)
        return self._report(node, "done", took=took)

    def _stop(self) -> None:
        self._stopping.set()
        self._say("stopping: ending the notebooks at work")
        if self._executor is not None:
            self._executor.stop()

    def _end(self, report: NodeReport) -> None:
        self.ended[report.name] = report
        reason = f": {report.reason}" if report.reason else ""
        took = f" in {report.time}" if report.state in ("done", "failed") and report.time else ""
        peak = f", {report.peak}" if took and report.peak else ""
        self._say(f"{report.state:7} {report.name}{took}{peak}{reason}")

    def _report(
        self, node: Node, state: str, *, took: Record | None = None, reason: str = ""
    ) -> NodeReport:
        shown = state in ("done", "kept", "failed") and self._page(node).is_file()
        took = took or Record(0.0)
        return NodeReport(
            name=node.name,
            entry=node.entry,
            state=state,
            seconds=took.seconds,
            folder=node.name,
            page=f"pages/{node.name}.html" if shown else "",
            reason=reason,
            parameters=", ".join(f"{key} = {value}" for key, value in node.parameters.items()),
            memory=took.memory,
            attempts=took.attempts,
        )

    def _executed(self, node: Node) -> Path:
        return self.out / "notebooks" / f"{node.name}.ipynb"

    def _page(self, node: Node) -> Path:
        return self.out / "pages" / f"{node.name}.html"

    def _say(self, line: str) -> None:
        if self.progress:
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            sys.stderr.write(f"{minutes:3d}:{seconds:02d}  {line}\n")
            sys.stderr.flush()


def _short(path: Path) -> str:
    """A path as seen from the current folder where it lies below, else whole."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@dataclass(frozen=True)
class Request:
    """What shapes the nodes of a report.

    Attributes:
        plan: The plan's file, as it was given.
        settings: Texts ``name=value``.
        files: Pin files, absolute.
    """

    plan: str
    settings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def write_request(request: Request, *, out: Path) -> None:
    """Note what a report is asked for, before anything runs.

    Args:
        request: Plan, settings and pin files.
        out: Folder of the report.
    """
    write_json(_place(out), asdict(request))


def asked(plan: Path | str, *, settings: Sequence[str], files: Sequence[Path | str]) -> Request:
    """Note what is asked for now.

    Args:
        plan: The plan's file.
        settings: Texts ``name=value``.
        files: Pin files.

    Example:
        >>> asked("plans/demo.yaml", settings=["epochs=3"], files=[]).settings
        ('epochs=3',)
    """
    return Request(str(plan), tuple(settings), tuple(_whole(file) for file in files))


def resumed(now: Request, *, out: Path) -> Request:
    """Take up what the report in a folder was asked for, and put what is asked for now on top.

    Args:
        now: What is asked for now.
        out: Folder of the report.

    Raises:
        InputError: If no report of this plan lies there.

    Example:
        >>> resumed(Request("plans/demo.yaml"), out=Path("nowhere"))
        Traceback (most recent call last):
        fopro_lab.errors.InputError: --resume: no report in nowhere; leave --resume out to start one
    """
    try:
        words = json.loads(_place(out).read_text(encoding="utf-8"))
        old = Request(words["plan"], tuple(words["settings"]), tuple(words["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"--resume: no report in {out}; leave --resume out to start one") from None
    if Path(old.plan).name != Path(now.plan).name:
        raise InputError(f"--resume: the report in {out} is of {old.plan}, not of {now.plan}")
    settings = dict.fromkeys((*old.settings, *now.settings))
    return Request(now.plan, tuple(settings), tuple(dict.fromkeys((*old.files, *now.files))))


def _whole(file: Path | str) -> str:
    return str(Path(file).absolute())


def _place(out: Path) -> Path:
    return out / ".request.json"


@dataclass(frozen=True)
class Steps:
    """How many steps a training takes.

    Attributes:
        student: Steps of the student; None if the images cannot be counted.
        prompt: Steps of the prompt, at most.

    Example:
        >>> Steps(student=None, prompt=0).student is None
        True
    """

    student: int | None
    prompt: int


@dataclass(frozen=True)
class PlannedNode:
    """One notebook as it would be executed.

    Attributes:
        node: Name, notebook, parameters, what it waits for.
        varying: The parameters in which the nodes of this notebook differ.
        steps: Of its training; None if it trains no student.
        last: What it took the last time; None without a record.
        kept: Whether that result still holds and would not be made again.
    """

    node: Node
    varying: dict[str, Any]
    steps: Steps | None
    last: Record | None
    kept: bool


@dataclass(frozen=True)
class DryRun:
    """What executing a plan would mean.

    Attributes:
        title: Of the plan.
        out: Folder of the report.
        nodes: In the order in which they can be executed.
        missing: What the notebooks read and what is not here, each once.
        wrong: What is here and cannot be used, a line each.
    """

    title: str
    out: Path
    nodes: list[PlannedNode]
    missing: list[Missing]
    wrong: list[str]

    @property
    def ready(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not self.missing and not self.wrong

    def lines(self) -> list[str]:
        """Return graph, cost and all that is missing or wrong, as lines for people."""
        return [
            f"{self.title}: {len(self.nodes)} notebooks",
            *_graph(self.nodes),
            *_cost(self.nodes, self.out),
            *(f"missing: {each}" for each in self.missing),
            *(f"wrong: {each}" for each in self.wrong),
        ]


def dry_run(
    plan: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    jobs: int = 0,
) -> DryRun:
    """Check all that `run_plan` checks before it starts, and go on where it would stop.

    Data and weights that are not here are listed, all of them. Nothing is executed or written.
    Of the cost only what is known is told: steps, if the images can be counted, and how long
    the notebooks took in an earlier report of the same folder. Images that cannot be read are
    first noticed when they are packed, so they are counted here.

    Args:
        plan: YAML file, see `Plan`.
        out: Folder of the report.
        settings: Texts ``name=value`` that override the plan.
        files: Pin files, as in `run_plan`.
        jobs: As in `run_plan`.

    Returns:
        The graph, and what it lacks.

    Raises:
        InputError: If plan, settings, a notebook or the folder is wrong.

    Example:
        >>> dry_run("nowhere.yaml", out="reports/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    if jobs < 0:
        raise InputError(f"jobs: expected 0 (one a core) or more, got {jobs}")
    nodes = plan_nodes(plan, out=out, settings=settings, files=files, inputs=False)
    out = Path(out)
    _check_writable(out)
    values = {n.name: {**declared_parameters(n.notebook), **n.parameters} for n in nodes}
    missing = list(
        dict.fromkeys(
            m for node in nodes if not node.left_out for m in missing_inputs(values[node.name])
        )
    )
    counted = _Counted()
    planned, kept, keys, states = [], set[str](), dict[str, str](), dict[str, str]()
    for node in nodes:
        keys[node.name] = node_key(node, before=keys, files=states)
        pages = (out / "notebooks" / f"{node.name}.ipynb", out / "pages" / f"{node.name}.html")
        held = read_record(folder=out / node.name, key=keys[node.name]) is not None
        if (
            held
            and not node.left_out
            and all(p.is_file() for p in pages)
            and kept.issuperset(node.after)
        ):
            kept.add(node.name)
        steps = None if node.left_out else _steps(values[node.name], counted)
        last, varying = last_record(folder=out / node.name), _varying(node, nodes)
        planned.append(PlannedNode(node, varying, steps, last, node.name in kept))
    return DryRun(read_plan(plan).title, out, planned, missing, counted.wrong)


def _check_writable(out: Path) -> None:
    """Refuse a folder that `run_plan` could not make, without making it."""
    here = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not here.is_dir() or not os.access(here, os.W_OK):
        reason = "Permission denied" if here.is_dir() else "Not a directory"
        raise InputError(f"out: expected a folder to write to, got {out} ({reason})")


class _Counted:
    """Training images of each data set and split, counted once; and what went wrong with it."""

    def __init__(self) -> None:
        self.known: dict[DataConfig, int | None] = {}
        self.wrong: list[str] = []

    def train(self, config: DataConfig) -> int | None:
        if config not in self.known:
            self.known[config] = self._count(config)
        return self.known[config]

    def _count(self, config: DataConfig) -> int | None:
        if missing_inputs(config.model_dump()):
            return None
        from fopro_lab.data.dataset import open_from
        from fopro_lab.data.prepare import split_from

        try:
            return len(split_from(open_from(config), config).train)
        except InputError as error:
            self.wrong += [str(error)] if str(error) not in self.wrong else []
            return None


def _steps(values: Mapping[str, Any], counted: _Counted) -> Steps | None:
    """Count the steps of a notebook that trains a student."""
    if not {"method", "student", "epochs", "batch_size"} <= values.keys():
        return None
    config = TrainConfig.from_parameters(values)
    train = counted.train(DataConfig.from_parameters(values))
    each = None if train is None else train // min(config.batch_size, max(train, 1))
    return Steps(None if each is None else config.epochs * each, _prompt_steps(config))


def _prompt_steps(config: TrainConfig) -> int:
    from fopro_lab.training.train_prompt import prompt_training_epochs

    return config.prompt_steps * len(prompt_training_epochs(config))


def _varying(node: Node, nodes: Sequence[Node]) -> dict[str, Any]:
    """Return the parameters of a node that another node of its notebook has otherwise, or not."""
    siblings = [other.parameters for other in nodes if other.notebook == node.notebook]
    return {
        key: value
        for key, value in node.parameters.items()
        if any(key not in other or other[key] != value for other in siblings)
    }


def _graph(nodes: Sequence[PlannedNode]) -> list[str]:
    """Tell every node on a line: name, notebook, what it waits for, what is its own."""
    entries = [each.node.entry for each in nodes]
    names = max(len(each.node.name) for each in nodes)
    books = max(len(each.node.notebook.stem) for each in nodes)
    lines = []
    for number, each in enumerate(nodes, start=1):
        told = [f"{key} = {value}" for key, value in each.varying.items()]
        if each.steps and each.steps.student is not None:
            told.append(f"{each.steps.student:,} steps")
        if each.steps and each.steps.prompt:
            told.append(f"{each.steps.prompt:,} prompt steps")
        told += [f"limit {duration(each.node.limit)}"] if each.node.limit else []
        told += ["kept"] if each.kept else []
        told += [f"left out: {each.node.left_out}"] if each.node.left_out else []
        after = _waits_for(each.node, nodes, entries)
        facts = "; ".join(part for part in (after, ", ".join(told)) if part)
        line = (
            f"{number:3d}  {each.node.name:<{names}}  {each.node.notebook.stem:<{books}}  {facts}"
        )
        lines.append(line.rstrip())
    return lines


def _waits_for(node: Node, nodes: Sequence[PlannedNode], entries: list[str]) -> str:
    """Name what a node waits for; all nodes of one entry by the entry and their number."""
    entry_of = {each.node.name: each.node.entry for each in nodes}
    told: dict[str, None] = {}
    for name in node.after:
        entry = entry_of[name]
        siblings = [other for other in node.after if entry_of[other] == entry]
        whole = entries.count(entry) == len(siblings) > 1
        told[f"{entry} ({len(siblings)})" if whole else name] = None
    return f"after {', '.join(told)}" if told else ""


def _cost(nodes: Sequence[PlannedNode], out: Path) -> list[str]:
    """Tell steps and time, as far as they are known."""
    to_do = [each for each in nodes if not each.kept and not each.node.left_out]
    kept = sum(each.kept for each in nodes)
    lines = [f"kept: {kept} of {len(nodes)} notebooks, whose results still hold"] if kept else []
    training = [each.steps for each in to_do if each.steps]
    known = [steps.student for steps in training if steps.student is not None]
    prompt = sum(steps.prompt for steps in training)
    if training:
        told = [f"{sum(known):,} training steps in {len(known)} notebooks"] if known else []
        unknown = len(training) - len(known)
        told += [f"unknown for {unknown}, whose images cannot be counted"] if unknown else []
        told += [f"at most {prompt:,} prompt steps"] if prompt else []
        lines.append(f"steps: {', '.join(told)}")
    known_records = [each.last for each in to_do if each.last is not None]
    timed = [record.seconds for record in known_records]
    if timed:
        rest = len(to_do) - len(timed)
        lines.append(
            f"time: {duration(sum(timed))} of notebooks one after another, as {len(timed)} of them "
            f"took last time" + (f"; unknown for {rest}" if rest else "")
        )
        peak = max(record.memory for record in known_records)
        lines += [f"memory: up to {in_bytes(peak)} of one notebook last time"] if peak else []
    elif to_do:
        lines.append(f"time: unknown, no earlier report in {out}")
    return lines


def run_plan(
    plan: Path | str,
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    files: Sequence[Path | str] = (),
    jobs: int = 0,
    executor: str = "local",
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    fresh: bool = False,
    limit: float = 0.0,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Execute a plan, keep every executed notebook, and write pages and an index.

    Notebooks run in the caller's current folder, so relative paths in parameters mean what they
    mean on the command line. A node whose notebook, parameters, package source, input files and
    predecessors are unchanged is kept from the last time. A failed node keeps its notebook with the
    red cell, what waits for it is skipped, and the rest goes on. Where nothing at all changed, the
    report is left as it lies.

    Args:
        plan: YAML file, see `Plan`.
        out: Folder of the report.
        settings: Texts ``name=value`` that override the plan wherever the name is declared.
        files: Pin files: YAML mappings of knobs, beneath the settings, above the plan.
        jobs: Notebooks at the same time; 0 is one a GPU, or one a core where there is none.
        executor: ``local``, ``dask`` for workers of this machine, or ``dask://HOST:PORT``.
        only: Nodes, or entries of the plan, that may be executed; empty is all. What they wait for
            is taken as it lies in the folder.
        again: Nodes, or entries, that are executed even if nothing changed. A training run that
            lies complete in ``runs/`` is taken up, not trained again.
        fresh: Whether all are executed even if nothing changed.
        limit: Longest time of each notebook in seconds, instead of the plan's; 0 leaves those.
        resume: Whether to take up the settings and pin files of the report that lies in the
            folder; those given now come on top.
        progress: Whether to write a line to stderr when a notebook starts and ends.

    Returns:
        Path of ``index.html``.

    Raises:
        InputError: If plan, settings or a notebook is wrong, before anything runs.
        WorkError: If a notebook failed or the work was stopped (the index is written all the
            same), or the cluster does not answer.

    Example:
        >>> run_plan("nowhere.yaml", out="reports/nowhere")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: nowhere.yaml: no such file
    """
    if jobs < 0:
        raise InputError(f"jobs: expected 0 (one a core) or more, got {jobs}")
    check_executor(executor)
    out, started = Path(out), time.monotonic()
    request = asked(plan, settings=settings, files=files)
    request = resumed(request, out=out) if resume else request
    nodes = plan_nodes(plan, out=out, settings=request.settings, files=request.files)
    nodes = [replace(node, limit=limit) for node in nodes] if limit else nodes
    names = {node.name for node in nodes}
    with _only_writer(out):
        batch = Batch(
            nodes,
            out,
            executor=lambda: executor_from(executor, jobs=jobs, most=len(nodes), out=out),
            progress=progress,
            only=chosen_names(nodes, only),
            again=names if fresh else chosen_names(nodes, again, option="--again"),
        )
        facts = _asked_facts(request, only)
        write_request(request, out=out)
        stopped = batch.run()
        report = Report(*_words(plan), list(batch.ended.values()), facts)
        if not _unchanged(report, out=out):
            facts |= _provenance(out)
            facts["Finished"] = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
            at_once = f", {batch.jobs} at a time" if batch.jobs else ""
            facts["Wall time"] = f"{duration(time.monotonic() - started)}{at_once}"
            _write_pages(replace(report, facts=facts), out=out)
    _raise_if_incomplete(report, index=out / "index.html", stopped=stopped)
    return out / "index.html"


def _words(plan: Path | str) -> tuple[str, str]:
    words = read_plan(plan)
    return words.title, words.about


def _asked_facts(request: Request, only: Sequence[str]) -> dict[str, str]:
    """What the caller asked for, as text."""
    pins = ", ".join(Path(file).name for file in request.files)
    return {
        "Plan": request.plan,
        "Settings": ", ".join(request.settings) or "none",
        **({"Pinned": pins} if pins else {}),
        **({"Only": ", ".join(only)} if only else {}),
    }


def _unchanged(report: Report, *, out: Path) -> bool:
    """Whether the pages that lie there say the same: nothing was executed, nothing is otherwise."""
    try:
        old = json.loads((out / "report.json").read_text(encoding="utf-8"))
        told = [_lasting(node) for node in old["nodes"]]
        same = {key: old["facts"].get(key) for key in report.facts} == report.facts
        same = same and ("Only" in old["facts"]) == ("Only" in report.facts)
        same = same and old["made_by"] == page_hash() and (out / "index.html").is_file()
        words = (old["title"], old["about"]) == (report.title, report.about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    now = report.to_json()["nodes"]
    nothing_done = all(node["state"] in ("kept", "left out") for node in now)
    return nothing_done and same and words and told == [_lasting(node) for node in now]


def _lasting(node: dict[str, Any]) -> dict[str, Any]:
    """A node's report without the difference between done now and done before."""
    return node | {"state": "kept" if node["state"] == "done" else node["state"]}


def _write_pages(report: Report, *, out: Path) -> None:
    from fopro_lab.reports.pages import write_index

    write_json(out / "report.json", {**report.to_json(), "made_by": page_hash()})
    write_index(report, out=out)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the report's folder; two reports in one folder would mix their pages."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise WorkError(
            f"{out}: another report is being written there; wait, or choose another --out"
        ) from None
    except OSError as error:
        raise InputError(
            f"out: expected a folder to write to, got {out} ({error.strerror})"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _raise_if_incomplete(report: Report, *, index: Path, stopped: bool) -> None:
    states = [node.state for node in report.nodes]
    if stopped:
        ready = states.count("done") + states.count("kept")
        raise WorkError(
            f"stopped: {ready} of {len(states)} notebooks are done and kept; "
            "the same command goes on from there"
        )
    failed = [node.name for node in report.nodes if node.state == "failed"]
    if failed:
        skipped = f", {states.count('skipped')} skipped" if "skipped" in states else ""
        names = f"{len(failed)} of {len(states)} notebooks failed ({', '.join(failed)})"
        raise WorkError(f"{names}{skipped}; see {index}")


def _provenance(out: Path) -> dict[str, str]:
    """Commit, versions and machine, as text; devices are those that the runs name."""
    git = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown (no git checkout)"
    devices = set()
    for manifest in out.glob("runs/*/manifest.json"):
        devices.add(str(json.loads(manifest.read_text(encoding="utf-8")).get("device", "unknown")))
    trained = f", trained on {' and '.join(sorted(devices))}" if devices else ""
    packages = ("fopro_lab", "torch", "torchvision", "timm", "numpy", "papermill")
    return {
        "Commit": commit,
        "Versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]
        ),
        "Machine": f"{platform.system()} {platform.machine()}, {cores()} cores{trained}",
    }
