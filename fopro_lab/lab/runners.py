"""The near end of a process that executes notebooks."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from fopro_lab.lab.execute import Job, Outcome


class Runner:
    """A process that executes one job after the other, each in a copy of itself.

    Args:
        environment: Of the process and of the kernels below it.
        folder: From which the jobs' paths are seen; empty is the current one.
    """

    def __init__(self, environment: Mapping[str, str], *, folder: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fopro_lab.lab.execute"],
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
        from fopro_lab.data.packing import cache_folder  # pandas comes with it

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
