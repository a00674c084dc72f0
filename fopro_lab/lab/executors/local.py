"""Notebooks in processes of this machine, each on a slot: a share of the cores, and a GPU."""

import queue
import threading
import time

from fopro_lab.lab.execute import Job, Outcome
from fopro_lab.lab.executors.devices import visible_devices
from fopro_lab.lab.runners import Runner, cores, notebook_environment

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
