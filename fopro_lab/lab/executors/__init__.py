"""Where a report's notebooks are executed: processes of this machine, or a dask cluster."""

from fopro_lab.lab.executors.base import Executor, executor_from

__all__ = ["Executor", "executor_from"]
