"""Execute one notebook with papermill, in a kernel of its own, on a slot of an executor."""

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from joblib import cpu_count

from fopro_lab.errors import InputError, WorkError
from fopro_lab.io import cache_folder, say_once, scratch_folder
from fopro_lab.reports.plan import Node, duration, one_node

LOOK_EVERY = 0.5  # seconds between two looks at a kernel
DEVICE_VARIABLES = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")  # ROCm: the first wins
GRACE = 10.0  # seconds that an interrupted cell has to end, before its kernel is killed
_ASK_TORCH = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


@dataclass(frozen=True)
class Job:
    """A notebook to execute. Paths are absolute: any worker that shares the disk can do it."""

    name: str
    notebook: Path
    folder: Path  # the kernel's current folder
    parameters: dict[str, Any]
    executed: Path
    page: Path
    stop: Path  # as soon as this file exists, the kernel is killed
    limit: float = 0.0  # longest time in seconds, 0 for none
    threads: int = 0  # its share of the cores, 0 for no change
    device: str = ""  # its CUDA_VISIBLE_DEVICES
    home: str = "../index.html"  # the page's way back

    @classmethod
    def of(cls, node: Node, **how: Any) -> "Job":
        """Describe how a node is executed in the current folder."""
        path, values = node.notebook.path.absolute(), {**node.parameters, **node.places}
        return cls(node.name, path, Path.cwd(), values, **how)


@dataclass(frozen=True)
class Outcome:
    """How a notebook ended: the error of its red cell in one line, or empty."""

    failure: str
    seconds: float = 0.0
    made_by: str = ""  # commit, versions and machine
    log: str = ""  # file of a batch job's own output


def execute_notebook(
    notebook: Path | str, parameters: Mapping[str, Any], *, out: Path | str, limit: float = 0.0
) -> tuple[Path, Path]:
    """Execute one notebook, and write its executed copy and a page that needs no network.

    Args:
        notebook: A name such as ``02_teacher_frequencies``, or a path.
        parameters: Names and values: declared parameters, and options of the notebook's config.
        out: Folder for both files, for figures and tables, and for ``runs/`` of `04_train`.
        limit: Longest time in seconds, 0 for none.

    Returns:
        Paths of the executed ``.ipynb`` and of ``index.html``.

    Raises:
        InputError: If the notebook, a name or a value is wrong, an input is missing, or a cell
            found that an input is wrong.
        WorkError: If a cell failed; the page shows it.
    """
    out = Path(out).absolute()
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    node = one_node(notebook, parameters, out=out)
    executed, page = out / f"{node.name}.ipynb", out / "index.html"
    with only_writer(out) as stop, ThreadPoolExecutor(1) as pool:
        say_once(f"executing {node.name}; its page comes to {page}")
        job = Job.of(node, executed=executed, page=page, stop=stop, limit=limit, home="")
        try:  # in a thread: nbclient would take Ctrl-C for itself in this one
            failure = pool.submit(execute, job).result().failure
        except KeyboardInterrupt:
            stop.touch()
            raise
    if failure.startswith("InputError: "):
        with suppress(OSError):  # the line says all; what is left beside the notebook stays
            for path in (executed, page, out / ".lock") if new else ():
                path.unlink(missing_ok=True)
            for folder in new:
                folder.rmdir()
        raise InputError(failure.removeprefix("InputError: "))
    if failure:
        raise WorkError(f"{node.name}: {failure}; see {page}")
    return executed, page


def execute(job: Job) -> Outcome:
    """Execute a notebook with papermill and write its page, with the red cell if one failed."""
    import nbformat
    import papermill
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import DeadKernelError

    from fopro_lab.reports.pages import write_notebook_page

    # it warns of every parameter that it overlooks; unknown ones are refused before
    logging.getLogger("papermill").setLevel(logging.ERROR)
    began, failure, watch = time.monotonic(), "", _Watch(job)
    job.executed.parent.mkdir(parents=True, exist_ok=True)
    # the folder's name is short: the path of a socket may have 107 characters
    with scratch_folder() as folder:
        try:
            with watch:
                papermill.execute_notebook(
                    str(job.notebook),
                    str(job.executed),
                    parameters=job.parameters,
                    kernel_name="python3",
                    language="python",  # a stripped notebook may not say it
                    progress_bar=False,
                    iopub_timeout=3600,  # s for what a cell wrote to arrive; else 4
                    kernel_manager_class=_kernel_class(folder, job, watch.kernels),
                    resources={"metadata": {"path": str(job.folder)}},
                )
        except papermill.PapermillExecutionError as error:
            failure = str(WorkError(f"{error.ename}: {error.evalue}".strip().splitlines()[0]))
        except DeadKernelError:
            failure = "the kernel died in the middle of a cell; was the memory full?"
        except (OSError, RuntimeError) as error:  # a full disk, or a kernel that does not start
            failure = f"not executed to the end: {error}".splitlines()[0]
        finally:
            ensure_event_loop().close()  # nbclient opens one in each thread and leaves it
    failure = watch.reason or failure
    try:
        if failure:
            _mark_cell(job.executed, failure)
        notebook = nbformat.read(job.executed, as_version=4)
        own, copy = job.notebook.name, job.executed.name  # no path of this machine
        notebook.metadata.papermill.update(input_path=own, output_path=copy)
        nbformat.write(notebook, job.executed)
        write_notebook_page(notebook, job.page, name=job.name, home=job.home)
    except (OSError, WorkError) as error:  # a full disk costs this notebook alone
        failure = failure or str(error)
    return Outcome(failure, time.monotonic() - began)


def _mark_cell(executed: Path, failure: str) -> None:
    """Give the cell in which a kernel died or was interrupted an error that says why."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import raise_for_execution_errors, remove_error_markers

    notebook = nbformat.read(executed, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    errors = [output for output in outputs if output.output_type == "error"]
    if errors and errors[-1].ename != "KeyboardInterrupt":
        return
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    done = [c for c in code if c.metadata.papermill.status == "completed" and c.execution_count]
    error = {"ename": "Stopped", "evalue": failure, "traceback": [failure]}
    cell = code[min(len(done), len(code) - 1)]
    cell.outputs = [output for output in cell.outputs if output.output_type != "error"]
    cell.outputs.append(nbformat.v4.new_output("error", **error))
    with suppress(PapermillExecutionError):  # it writes the notebook with its marks first
        raise_for_execution_errors(remove_error_markers(notebook), str(executed))


def _kernel_class(folder: Path, job: Job, made: list[Any]) -> type:
    """Build a manager for kernels of this very interpreter, reached by sockets in a folder."""
    # so no kernel that another environment has registered is taken, and none race for TCP ports
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    environment = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    environment["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):  # else each kernel compiles torch and pandas
        environment["PYTHONDONTWRITEBYTECODE"] = ""
        environment["PYTHONPYCACHEPREFIX"] = str(cache_folder().absolute() / "bytecode")
    if job.threads:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment |= dict.fromkeys(names, str(job.threads))
    if job.device:
        environment |= dict.fromkeys(DEVICE_VARIABLES, job.device)

    class Kernel(AsyncKernelManager):
        kernel_spec = KernelSpec(resource_dir="", **{**get_kernel_dict(), "env": environment})

        def __init__(self, **keys: Any) -> None:
            super().__init__(transport="ipc", connection_file=str(folder / "kernel.json"), **keys)
            made.append(self)

        def start_kernel(self, *args: Any, **keys: Any) -> Any:
            # what a cell writes is in the notebook; this is ipykernel's own talk
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            return super().start_kernel(*args, **keys, **quiet)

    return Kernel


class _Watch:
    """Ends a kernel at its time limit or when the report is stopped."""

    def __init__(self, job: Job) -> None:
        self.job, self.kernels = job, list[Any]()
        self.reason = ""  # why it was ended; empty if it was not
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        began, interrupted = time.monotonic(), 0.0
        while not self._over.wait(LOOK_EVERY):
            pid = getattr(self.kernels[-1].provisioner, "pid", None) if self.kernels else None
            if pid is None:
                continue
            now = time.monotonic() - began
            if self.job.stop.exists():
                self.reason = self.reason or "stopped by the user before its end"
                number = signal.SIGKILL
            elif interrupted and now > interrupted + GRACE:
                number = signal.SIGKILL
            elif self.job.limit and now > self.job.limit and not interrupted:
                self.reason = f"the time limit of {duration(self.job.limit)} was reached"
                interrupted = now
                number = signal.SIGINT  # as by the stop button: the cell ends red
            else:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)  # a kernel leads a group of its own


def visible_devices() -> list[str]:
    """List the GPUs that torch can use here, as ``CUDA_VISIBLE_DEVICES`` names them.

    A process of its own asks torch: so a MIG slice, ROCm and a container without ``nvidia-smi``
    count as they will in a kernel, and this process holds no GPU. Apple's MPS is not used.
    """
    names = next((os.environ[name] for name in DEVICE_VARIABLES if name in os.environ), None)
    if names in ("", "-1") or not _may_have_gpus():
        return []
    words = [sys.executable, "-c", _ASK_TORCH]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
        count = int(done.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        sys.stderr.write(f"fopro: GPUs are not shared out: torch could not be asked ({error})\n")
        return []
    return [n.strip() for n in names.split(",")][:count] if names else [*map(str, range(count))]


def _may_have_gpus() -> bool:
    """Tell whether a driver is loaded: where there is none, torch need not be imported to see."""
    kinds = ("nvidia*", "nvgpu*", "nvhost*", "kfd", "dxg")  # NVIDIA, Jetson, AMD, WSL
    return any(any(Path("/dev").glob(kind)) for kind in kinds)


class Slots(NamedTuple):
    """An executor, and what each notebook gets of the machines behind it."""

    executor: Executor
    jobs: int  # notebooks at the same time; 0 is the executor's own choice
    threads: int = 0  # of each notebook; 0 is no change
    devices: Sequence[str] = ()  # CUDA devices to share out; none leaves those of the worker


@contextmanager
def open_executor(where: str | Executor, *, jobs: int, most: int, out: Path) -> Iterator[Slots]:
    """Start or find what executes notebooks: here one per GPU or core, ``most`` at most."""
    if isinstance(where, Executor):
        yield Slots(where, jobs)
        return
    address = where.partition("://")[2].removeprefix("local")
    devices = [] if address else visible_devices()
    here = max(1, min(jobs or len(devices) or cpu_count(), most))
    threads = max(1, cpu_count() // here)
    if where == "local":
        with ThreadPoolExecutor(here) as executor:
            yield Slots(executor, here, threads, devices)
        return
    # dask: a task per notebook, one per worker thread
    from distributed import Client, LocalCluster
    from distributed import TimeoutError as DaskTimeoutError

    keys = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    mark = (out / f".probe-{secrets.token_hex(4)}").absolute()
    cluster: Any = None if address else LocalCluster(n_workers=here, **keys)
    client: Any = None
    try:
        try:
            client = Client(cluster or address, timeout=5)  # tcp, or tls by Dask's config
        except (OSError, ValueError) as error:
            why = f"no scheduler answers there ({type(error).__name__})"
            raise WorkError(f"dask://{address}: {why}; start one: `dask scheduler`") from None
        client.wait_for_workers(1, timeout=30)
        mark.touch()
        own = version("fopro_lab")
        facts = client.run(lambda: (mark.exists(), version("fopro_lab"), cpu_count()))
        for worker, (shared, theirs, _) in facts.items():
            if theirs != own:
                raise WorkError(f"dask: {worker} has fopro_lab {theirs}, this is {own}")
            if not shared:
                raise WorkError(f"dask: {worker} misses {out.absolute()}; all must share its disk")
        executor = client.get_executor(pure=False)
        if cluster is not None:
            yield Slots(executor, here, threads, devices)
        else:  # workers elsewhere keep the devices that they were started with
            known = client.nthreads().items()  # a worker may have come, or gone, meanwhile
            shares = [facts[worker][2] // n for worker, n in known if worker in facts]
            yield Slots(executor, jobs, max(1, min(shares, default=1)))
    except DaskTimeoutError:
        way = f"start some: `dask worker {address}`"
        raise WorkError(f"dask://{address}: the scheduler has no workers; {way}") from None
    finally:
        mark.unlink(missing_ok=True)
        for each in filter(None, (client, cluster)):
            with suppress(Exception):  # a cluster that is gone needs no goodbye
                each.close()


@contextmanager
def only_writer(out: Path) -> Iterator[Path]:
    """Hold a folder, as two reports in one would mix their pages; yield its stop file.

    Once that exists, all kernels end: every worker that shares the folder sees it.
    """
    lock, stop = FileLock(out / ".lock", timeout=0), (out / ".stop").absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        why = "another report is being written there; wait, or choose another --out"
        raise WorkError(f"{out}: {why}") from None
    except OSError as error:
        got = f"{out} ({error.strerror})"
        raise InputError(f"out: expected a folder to write to, got {got}") from None
    try:
        stop.unlink(missing_ok=True)
        yield stop
    finally:
        stop.unlink(missing_ok=True)
        lock.release()
