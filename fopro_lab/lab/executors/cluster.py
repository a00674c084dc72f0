"""Notebooks on a dask cluster: the user's own scheduler, or workers of this machine."""

import secrets
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fopro_lab.errors import WorkError
from fopro_lab.lab.execute import Job, Outcome
from fopro_lab.lab.runners import Runner, cores, notebook_environment

_ANSWER_IN = 5.0  # seconds for the scheduler
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
            self._client = Client(self._own or f"tcp://{address}", timeout=_ANSWER_IN)
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
