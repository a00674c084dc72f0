"""Notebooks on a Dask cluster of real processes: workers and schedulers die, versions differ."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import dask
import psutil
import pytest
from distributed import Client

from fopro_lab.errors import WorkError
from fopro_lab.reports import run_plan
from fopro_lab.reports.execute import Job, Outcome, open_executor
from tests.conftest import failure
from tests.reports.conftest import PLAN
from tests.reports.test_run import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


class Cluster:
    """A scheduler and workers on the loopback."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder, self.stack, self.workers = folder, stack, []
        place = folder / "scheduler.json"
        words = ["dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler = self._start(*words, "--scheduler-file", str(place))
        wait_until(lambda: place.exists() and "address" in place.read_text())
        found = place.read_text().split('"address": "')[1].split('"')[0]
        self.address, self.url = found, f"dask://{found.partition('://')[2]}"

    def worker(self, **environment: str) -> psutil.Popen:
        words = ["dask_worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
        self.workers.append(self._start(*words, **environment))
        return self.workers[-1]

    def _start(self, tool: str, *words: str, **environment: str) -> psutil.Popen:
        process = psutil.Popen(
            [sys.executable, "-m", f"distributed.cli.{tool}", *words],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.stack.callback(lambda: (process.kill(), process.wait()))
        return process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One for all tests, of which the last but one ends it."""
    with ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("dask"), stack)
        cluster.worker(), cluster.worker()
        yield cluster


@pytest.fixture
def pretend(checkout, monkeypatch):
    """Two notebooks that wait for the file `go`, and note their process, in place of kernels."""

    def wait_for_go(job: Job) -> Outcome:
        with Path(job.folder, f"{job.name}.txt").open("a") as file:
            print(os.getpid(), file=file)
        while not Path(job.folder, "go").exists():
            time.sleep(0.05)
        return Outcome("")

    def tries(name: str) -> list[int]:
        file = checkout.root / f"{name}.txt"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    monkeypatch.setattr("fopro_lab.reports.run.execute", wait_for_go)
    checkout.notebook("a", "mark: int = 0")
    checkout.plan({"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}})
    return tries


def meanwhile(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_notebook_whose_worker_is_killed_runs_on_another(cluster, checkout, pretend):
    def kill() -> None:
        wait_until(lambda: pretend("a-0") and pretend("a-1"))
        (killed,) = (worker for worker in cluster.workers if worker.pid == pretend("a-0")[0])
        cluster.workers.remove(killed)
        killed.kill()
        (checkout.root / "go").touch()

    thread = meanwhile(kill)
    run_plan(PLAN, out="out", executor=cluster.url, progress=False)
    thread.join()
    assert checkout.states() == {"a-0": "done", "a-1": "done"}
    assert pretend("a-0") == [pretend("a-0")[0], pretend("a-1")[0]]


def test_ctrl_c_leaves_neither_kernel_nor_task(cluster, checkout):
    sleep = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    checkout.notebook("a", "", sleep)
    checkout.plan({"a": {"notebook": "a"}, "b": {"notebook": "a"}})
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fopro_lab.reports import run_plan; from fopro_lab.errors import WorkError\n"
        f"try: run_plan('{PLAN}', out='out', executor='{cluster.url}')\n"
        "except WorkError as error: print(error)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with run:
        wait_until(lambda: (checkout.root / "pid").exists() and (checkout.root / "pid").read_text())
        run.send_signal(signal.SIGINT)
        said = run.stdout.read()
    assert said.startswith("stopped: 0 of 2 notebooks are done")
    kernel = int((checkout.root / "pid").read_text())
    wait_until(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == "zombie")
    wait_until(lambda: not any(worker.children() for worker in cluster.workers))
    with Client(cluster.address, timeout=10) as client:
        wait_until(lambda: not any(client.processing().values()))


def test_a_worker_with_another_version_is_named_before_anything_runs(cluster, checkout, pretend):
    old = checkout.root / "old" / "fopro_lab-0.0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: fopro_lab\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(old.parent), os.environ.get("PYTHONPATH", "")])
    stranger = cluster.worker(PYTHONPATH=path)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(len(cluster.workers))
    told = failure(run_plan, PLAN, out="out", executor=cluster.url, progress=False)
    assert " has fopro_lab 0.0.1, this is " in told
    assert not pretend("a-0")
    cluster.workers.remove(stranger)
    stranger.kill()
    with Client(cluster.address, timeout=30) as client:
        wait_until(lambda: len(client.ncores()) == len(cluster.workers))


def test_without_its_scheduler_a_report_ends_and_says_what_is_left(cluster, checkout, pretend):
    cluster.worker()  # in the place of the one that was killed

    def kill() -> None:
        wait_until(lambda: pretend("a-0") and pretend("a-1"))
        cluster.scheduler.kill()

    thread = meanwhile(kill)
    told = failure(run_plan, PLAN, out="out", executor=cluster.url, progress=False)
    thread.join()
    assert told.startswith("2 of 2 notebooks failed (a-0, a-1)")
    assert "scheduler" in checkout.ended()["a-0"]["reason"]
    (checkout.root / "go").touch()


def test_tls_by_the_configuration_of_dask(tmp_path_factory, checkout, pretend, monkeypatch):
    if not shutil.which("openssl"):
        pytest.skip("no openssl here, which makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "ca.pem"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    given = {"TLS__CA_FILE": folder / "ca.pem", "DEFAULT_SCHEME": "tls", "REQUIRE_ENCRYPTION": True}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        given |= {f"TLS__{role}__KEY": folder / "key.pem", f"TLS__{role}__CERT": folder / "ca.pem"}
    for name, value in given.items():
        monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__{name}", str(value))
    dask.config.refresh()
    (checkout.root / "go").touch()
    try:
        with ExitStack() as stack:
            cluster = Cluster(folder, stack)
            assert cluster.address.startswith("tls://")
            cluster.worker()
            run_plan(PLAN, out="out", executor=cluster.url, progress=False)
    finally:
        monkeypatch.undo()
        dask.config.refresh()
    assert len(pretend("a-0")) == len(pretend("a-1")) == 1


def test_a_cluster_that_no_client_reaches_is_closed(tmp_path, monkeypatch):
    cluster = Mock()
    monkeypatch.setattr("distributed.LocalCluster", lambda **_: cluster)
    monkeypatch.setattr("distributed.Client", Mock(side_effect=OSError("refused")))
    with pytest.raises(WorkError, match="no scheduler answers there"):
        with open_executor("dask", jobs=1, most=1, out=tmp_path):
            pass
    cluster.close.assert_called_once()
