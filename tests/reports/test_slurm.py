"""Notebooks as batch jobs, without a cluster: submitit's local and debug executors."""

import gc
import os
import shutil
import signal
from pathlib import Path

import pytest
import submitit

from fopro_lab.reports import run_plan
from fopro_lab.reports.execute import Job, Outcome
from fopro_lab.reports.slurm import JobExecutor, slurm_options
from tests.conftest import complaint, failure
from tests.reports.conftest import PLAN

MATRIX = {"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}}


@pytest.fixture
def local(checkout):
    """Jobs of this machine, each a process of its own, as submitit starts them."""
    engine = submitit.LocalExecutor(folder=checkout.out / "slurm")
    engine.update_parameters(stderr_to_stdout=True)
    with JobExecutor(engine) as executor:
        yield executor


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_notebook_runs_as_a_job(checkout, local):
    checkout.notebook("a", "", "open('made.txt', 'w').write('done')")
    checkout.plan({"a": {"notebook": "a"}})
    run_plan(PLAN, out="out", executor=local, progress=False)
    assert checkout.states() == {"a": "done"}
    assert (checkout.root / "made.txt").read_text() == "done"


@pytest.mark.filterwarnings("default")
def test_a_lost_job_fails_alone_and_the_same_command_goes_on(checkout, local, monkeypatch):
    def pretend(job: Job) -> Outcome:
        if job.name == "a-0" and not Path(job.folder, "lost").exists():
            Path(job.folder, "lost").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for path in (job.executed, job.page):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        return Outcome("")

    monkeypatch.setattr("fopro_lab.reports.run.execute", pretend)
    checkout.notebook("a", "mark: int = 0")
    checkout.plan(MATRIX)
    told = failure(run_plan, PLAN, out="out", executor=local, progress=False)
    assert told.startswith("1 of 2 notebooks failed (a-0)")
    assert checkout.ended()["a-0"]["reason"].startswith("job ")
    page = (checkout.out / "index.html").read_text()
    logs = [node["log"] for node in checkout.ended().values()]
    assert len(set(logs)) == 2 and all(f'href="{log}"' in page for log in logs)
    assert all("submitit" in (checkout.out / log).read_text() for log in logs)
    run_plan(PLAN, out="out", executor=local, progress=False)
    assert checkout.states() == {"a-0": "done", "a-1": "kept"}


@pytest.mark.filterwarnings("ignore")  # it leaves its logs open
def test_a_job_of_the_debug_executor_gives_its_result(tmp_path):
    with JobExecutor(submitit.DebugExecutor(folder=tmp_path)) as executor:
        future = executor.submit(Outcome, "", seconds=2.0)
        assert future.result(timeout=30).seconds == 2.0
    del future, executor
    gc.collect()


class Refused:
    """An engine whose jobs never give a result, or which takes none."""

    def __init__(self, folder: Path, *, refuses: bool = False):
        self.folder, self.refuses, self.cancelled = folder, refuses, []

    def submit_array(self, works):
        if self.refuses:
            raise RuntimeError("sbatch said\nInvalid partition")
        return [self.Job(self, number) for number in range(len(works))]

    class Job:
        def __init__(self, engine, number):
            self.job_id, self.engine = f"7_{number}", engine
            self.paths = submitit.core.utils.JobPaths(engine.folder, self.job_id)

        def cancel(self, check):
            self.engine.cancelled.append(self.job_id)


def test_what_slurm_refuses_or_no_longer_lists_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("fopro_lab.reports.slurm.POLL", 0.01)
    monkeypatch.setattr("fopro_lab.reports.slurm.ASK", 0.01)
    with JobExecutor(Refused(tmp_path, refuses=True)) as executor:
        told = executor.submit(Outcome, "").result(timeout=30).failure
    assert told == "not submitted: RuntimeError: Invalid partition"
    engine = Refused(tmp_path)
    with JobExecutor(engine, lambda: {"7_1"}) as executor:
        lost, queued = executor.submit(Outcome, ""), executor.submit(Outcome, "")
        assert "job 7_0 was lost" in lost.result(timeout=30).failure
        assert not queued.running()
    assert engine.cancelled == ["7_1"]  # what is left is taken back
    engine = Refused(tmp_path)
    answers = iter([None, None, OSError("no memory")])  # Slurm does not answer: wait

    def listed():
        if isinstance(answer := next(answers, set()), OSError):
            raise answer
        return answer

    with JobExecutor(engine, listed) as executor:
        future = executor.submit(Outcome, "")
        assert "was lost" in future.result(timeout=30).failure
        assert next(answers, "all asked") == "all asked"


def test_options_of_slurm_are_checked_before_anything_runs(checkout, monkeypatch):
    assert slurm_options("gres=gpu:1,cpus-per-task=4,time=2:00:00")["cpus_per_task"] == "4"
    checkout.notebook("a", "mark: int = 0")
    checkout.plan(MATRIX)
    told = complaint(run_plan, PLAN, out="out", executor="slurm:partition=gpu")
    assert told.startswith("--set-slurm: expected time, the longest of a job, got none")
    assert complaint(slurm_options, "gpu").startswith("--set-slurm: expected name=value")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    told = failure(run_plan, PLAN, out="out", executor="slurm:time=5")
    assert told.startswith("executor slurm: no sbatch here")
