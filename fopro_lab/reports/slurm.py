"""Notebooks as batch jobs, by submitit: one job each, behind the interface of an executor."""

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from fopro_lab.errors import InputError, WorkError
from fopro_lab.reports.execute import Outcome

POLL = 1.0  # seconds between two looks at the jobs
ASK = 15.0  # seconds between two questions to Slurm about jobs without a result
WAY = "--set-slurm partition=gpu,gres=gpu:1,time=2:00:00"


class JobExecutor(Executor):
    """Submits what has come within a second as one array; a lost job is its notebook's failure.

    ``engine`` is submitit's ``SlurmExecutor``, ``LocalExecutor`` or ``DebugExecutor``. ``listed``
    returns the ids of jobs that are queued or at work, None if that is not known; a job without a
    result that it does not list twice is lost. Without it submitit says so.
    """

    def __init__(self, engine: Any, listed: Callable[[], set[str] | None] | None = None) -> None:
        self._engine, self._listed = engine, listed
        self._new: list[tuple[Future[Outcome], Callable[[], Outcome]]] = []
        self._jobs: dict[Future[Outcome], Any] = {}
        self._missed: set[str] = set()
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, work: Any, /, *args: Any, **keys: Any) -> Future[Any]:
        """Queue a call that returns an `Outcome`."""
        future: Future[Outcome] = Future()
        self._new.append((future, partial(work, *args, **keys)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel every job that has not ended."""
        self._over.set()
        self._thread.join()
        for job in self._jobs.values():
            job.cancel(check=False)

    def _watch(self) -> None:
        looks = 0
        while not self._over.wait(POLL):
            looks += 1
            # A drive or squeue that fails once may answer at the next look.
            with suppress(OSError, subprocess.SubprocessError):
                self._look(ask=looks % round(ASK / POLL) == 0)

    def _look(self, *, ask: bool) -> None:
        new = [self._new.pop(0) for _ in range(len(self._new))]  # one list: another thread adds
        if new := [item for item in new if not item[0].cancelled()]:
            try:
                jobs = self._engine.submit_array([work for _, work in new])
                self._jobs |= {future: job for (future, _), job in zip(new, jobs, strict=True)}
            except Exception as error:  # sbatch refuses, or is not there
                for future, _ in new:
                    self._end(future, Outcome(f"not submitted: {_lines(error)}"))
        listed = self._listed() if ask and self._listed else None
        for future, job in list(self._jobs.items()):
            started = Path(job.paths.stdout).exists()
            if started and not future.running():
                future.set_running_or_notify_cancel()
            if future.cancelled():
                job.cancel(check=False)
                del self._jobs[future]
            elif (outcome := self._outcome(job, listed)) is not None:
                del self._jobs[future]
                self._end(future, replace(outcome, log=str(job.paths.stdout) if started else ""))

    def _outcome(self, job: Any, listed: set[str] | None) -> Outcome | None:
        if Path(job.paths.result_pickle).exists() or (self._listed is None and job.done()):
            try:
                return job.result()
            except Exception as error:
                return Outcome(f"job {job.job_id}: {_lines(error)}")
        if listed is not None and job.job_id not in listed:
            if job.job_id in self._missed:
                return Outcome(f"job {job.job_id} was lost: it has ended without a result")
            self._missed.add(job.job_id)
        return None

    @staticmethod
    def _end(future: Future[Outcome], outcome: Outcome) -> None:
        if future.running() or future.set_running_or_notify_cancel():
            future.set_result(outcome)


def _lines(error: Exception) -> str:
    """Join the last line of an error, which tells most, with its kind."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"


def slurm_options(text: str) -> dict[str, str]:
    """Read ``partition=gpu,gres=gpu:1,time=2:00:00``; a comma without a ``=`` belongs to a value.

    Examples:
        >>> slurm_options("exclude=node1,node2,time=30")
        {'exclude': 'node1,node2', 'time': '30'}
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if equals:
            found[name.strip().replace("-", "_")] = value.strip()
        elif found:
            found[list(found)[-1]] += f",{part}"
        else:
            raise InputError(f"--set-slurm: expected name=value,name=value, got '{text}'; {WAY}")
    if "time" not in found:  # submitit's own is five minutes
        raise InputError(f"--set-slurm: expected time, the longest of a job, got none; {WAY}")
    return found


def slurm_executor(text: str, *, folder: Path) -> JobExecutor:
    """Start an executor of Slurm jobs with options of ``sbatch``; logs go into ``folder``."""
    options = slurm_options(text)
    try:
        import submitit
    except ImportError:
        way = "pip install 'fopro_lab[slurm]'"
        raise InputError(f"executor slurm: needs submitit, which is not installed: {way}") from None
    if missing := [name for name in ("sbatch", "squeue", "srun") if not shutil.which(name)]:
        raise WorkError(f"executor slurm: no {missing[0]} here; call it where jobs are submitted")
    engine = submitit.SlurmExecutor(folder=folder)
    known = submitit.SlurmExecutor._valid_parameters()
    rest = {n.replace("_", "-"): options.pop(n) for n in list(options) if n not in known}
    how: dict[str, Any] = {"job_name": "fopro", "stderr_to_stdout": True, **options}
    engine.update_parameters(additional_parameters=rest, **how)
    return JobExecutor(engine, _own_jobs)


def _own_jobs() -> set[str] | None:
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return set(done.stdout.split()) if done.returncode == 0 else None
