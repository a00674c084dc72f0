"""A report on dask: workers of this machine, one of them killed, and a scheduler that is not."""

import os
import signal
import threading
import time

import pytest

from fopro_lab.errors import InputError, WorkError
from fopro_lab.reports import run_plan

PLAN = "reports/plans/plan.yaml"


@pytest.mark.parametrize("name", ["slurm", "dask://", "dask://host", "dask://host:port"])
def test_an_executor_that_cannot_be_is_refused(house, name):
    house.notebook("a", "")
    house.plan({"a": {"notebook": "a"}})
    with pytest.raises(InputError, match="executor: expected local, dask or dask://HOST:PORT"):
        run_plan(PLAN, out="out", executor=name, progress=False)


@pytest.mark.filterwarnings("default")
def test_no_scheduler_is_one_line_within_seconds(house):
    house.notebook("a", "")
    house.plan({"a": {"notebook": "a"}})
    began = time.monotonic()
    with pytest.raises(WorkError, match=r"dask://127.0.0.1:9: no scheduler answers there"):
        run_plan(PLAN, out="out", executor="dask://127.0.0.1:9", progress=False)
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_worker_killed_in_mid_notebook_loses_nothing(house):
    from distributed import LocalCluster

    code = "import os\nwith open('tries.txt', 'a') as f: f.write(f'{os.getpid()} ')\n"
    house.notebook("a", "", code + "import time; time.sleep(6)")
    house.plan({"a": {"notebook": "a"}})
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        pids = {w.pid for w in cluster.workers.values()}

        def kill_the_busy_one() -> None:
            import psutil

            while not (house.root / "tries.txt").exists():
                time.sleep(0.1)
            for pid in pids:
                for child in psutil.Process(pid).children(recursive=True):
                    if child.pid == int((house.root / "tries.txt").read_text().split()[0]):
                        os.kill(worker_above(child), signal.SIGKILL)
                        return

        thread = threading.Thread(target=kill_the_busy_one)
        thread.start()
        address = cluster.scheduler_address.removeprefix("tcp://")
        run_plan(PLAN, out="out", executor=f"dask://{address}", progress=False)
        thread.join()
    assert house.states() == {"a": "done"}
    assert len((house.root / "tries.txt").read_text().split()) == 2  # killed, and run again


def worker_above(kernel) -> int:
    """The worker that a kernel belongs to: above the runner, below the nanny's process."""
    for parent in kernel.parents():
        words = " ".join(parent.cmdline())
        if "fopro_lab.reports.run" not in words and "ipykernel" not in words:
            return parent.pid
    raise AssertionError("no worker above the kernel")
