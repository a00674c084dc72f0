"""What a batch asks of an executor, and how one is named."""

import re
from pathlib import Path
from typing import Protocol

from fopro_lab.errors import InputError
from fopro_lab.lab.execute import Job, Outcome


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
        from fopro_lab.lab.executors.local import LocalExecutor

        return LocalExecutor(jobs=jobs, most=most)
    from fopro_lab.lab.executors.cluster import ClusterExecutor

    address = name.removeprefix("dask://")
    return ClusterExecutor(
        "" if address in ("dask", "local") else address, jobs=jobs, most=most, out=out
    )
