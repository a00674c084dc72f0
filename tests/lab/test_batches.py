"""Batches that go wrong, or are told more: limits, conditions, pins, slots, memory, resuming."""

import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from fopro_lab.errors import InputError, WorkError
from fopro_lab.reports import run_plan
from fopro_lab.reports.plan import plan_nodes
from fopro_lab.reports.run import LocalExecutor, dry_run, visible_devices

PLAN = "reports/plans/plan.yaml"


def test_a_hanging_cell_is_interrupted_at_its_limit_and_the_rest_goes_on(house):
    house.notebook("hang", "", "print('before')", "import time; time.sleep(600)")
    house.notebook("fill", "", "kept = bytearray(300_000_000)")
    house.plan({"hang": {"notebook": "hang", "limit": "3 s"}, "fill": {"notebook": "fill"}})
    began = time.monotonic()
    with pytest.raises(WorkError, match=r"1 of 2 notebooks failed \(hang\)"):
        run_plan(PLAN, out="out", progress=False)
    assert time.monotonic() - began < 60
    ended = house.ended()
    assert ended["hang"]["reason"] == "the time limit of 3.0 s was reached"
    assert ended["fill"]["state"] == "done" and ended["fill"]["attempts"] == 1
    assert 3e8 < ended["fill"]["memory"] < 3e9 and ended["fill"]["seconds"] > 0
    page = (house.out / "pages/hang.html").read_text()
    assert "papermill-error-cell" in page and "TimeLimit" in page and "before" in page


def test_a_cell_that_heeds_no_interrupt_is_killed(house, monkeypatch):
    from fopro_lab.reports import run as kernels
    from fopro_lab.reports.run import Job, execute

    monkeypatch.setattr(kernels, "_ASK_AGAIN", 0.5)
    deaf = "import time\nwhile True:\n    try:\n        time.sleep(60)\n"
    path = house.notebook("deaf", "", deaf + "    except KeyboardInterrupt:\n        pass")
    outcome = execute(Job("deaf", str(path), "out/deaf.ipynb", "out/deaf.html", limit=3.0))
    assert outcome.failure == "the time limit of 3.0 s was reached"
    assert "the time limit of 3.0 s" in (house.out / "deaf.html").read_text()


def test_a_kernel_that_fails_to_start_is_started_again(house, monkeypatch):
    from fopro_lab.reports import run as module

    path, whole, calls = house.notebook("a", "", "print(1)"), module.kernel_class, []

    def broken_once(folder, made):
        kernel = whole(folder, made)
        calls.append(kernel)
        if len(calls) == 1:
            kernel.kernel_spec.argv = [sys.executable, "-c", "raise SystemExit(3)"]
        return kernel

    monkeypatch.setattr(module, "kernel_class", broken_once)
    outcome = module.execute(module.Job("a", str(path), "out/a.ipynb", "out/a.html"))
    assert (outcome.failure, outcome.attempts) == ("", 2)


CONDITIONED = 'method: str = "bsm"\nrun_dir: str = "run"\nrun_dirs: list = []'


def test_what_a_condition_leaves_out_is_told_and_not_waited_for(house):
    house.notebook("train", CONDITIONED)
    runs = {"method": ["bsm", "ekd", "fopro"]}
    house.plan(
        {
            "train": {"notebook": "train", "matrix": runs, "when": {"method": ["ekd", "fopro"]}},
            "judge": {"notebook": "train", "after": ["train"]},
            "lost": {"notebook": "train", "when": {"exists": "no/such.pth"}},
            "last": {"notebook": "train", "after": ["lost"]},
        }
    )
    nodes = {node.name: node for node in plan_nodes(PLAN, out="out")}
    assert nodes["train-bsm"].left_out == "method is bsm, not ekd or fopro"
    assert nodes["judge"].after == ("train-ekd", "train-fopro")
    assert len(nodes["judge"].places["run_dirs"]) == 2
    assert nodes["lost"].left_out == "no/such.pth is not there"
    assert nodes["last"].left_out == "all that it waits for is left out (lost)"
    assert "left out: no/such.pth is not there" in "\n".join(dry_run(PLAN, out="out").lines())
    (house.root / "no").mkdir()
    (house.root / "no/such.pth").touch()
    assert not any(n.left_out for n in plan_nodes(PLAN, out="out") if n.entry in ("lost", "last"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"when": {"metod": "ekd"}}, "x: when: metod: not declared by its notebook; did you mean"),
        ({"when": {"exists": 3}}, "x: when: exists: expected a path, got 3"),
        ({"when": {"method": []}}, "x: when: method: expected one value or more"),
        ({"when": {"not": []}}, "x: when: not: expected a condition, got []"),
        ({"when": {"any": {"method": 1}}}, "x: when: any: expected a list of conditions, got"),
        ({"limit": "soon"}, "x: limit: expected a time such as '90 s', '30 min' or '2 h', got 's"),
        ({"limit": "30"}, "x: limit: expected a time such as"),
    ],
)
def test_a_condition_or_limit_that_cannot_be_is_refused(house, entry, message):
    house.notebook("a", 'method: str = "bsm"')
    house.plan({"x": {"notebook": "a", **entry}})
    with pytest.raises(InputError) as told:
        plan_nodes(PLAN, out="out")
    assert message in str(told.value) and "\n" not in str(told.value)


def test_pins_lie_above_the_plan_and_beneath_the_settings(house):
    house.notebook("a", 'epochs: int = 1\nseed: int = 0\nmethod: str = "bsm"')
    house.plan(
        {"a": {"notebook": "a", "matrix": {"seed": [1, 2]}, "parameters": {"epochs": 2}}},
        defaults={"method": "ekd"},
    )
    pin, more = house.root / "pin.yaml", house.root / "more.yaml"
    pin.write_text("# a pin\nepochs: 3\nmethod: random\nseed: 5\n")
    more.write_text("method: fopro\n")

    def values(*settings):
        nodes = plan_nodes(PLAN, out="out", settings=settings, files=[pin, more])
        return [node.parameters for node in nodes]

    assert values() == [{"epochs": 3, "seed": 5, "method": "fopro"}]
    assert [v["seed"] for v in values("seed=[7,8]", "epochs=9")] == [7, 8]
    assert values("epochs=9")[0]["epochs"] == 9
    pin.write_text("epoch: 3\n")
    with pytest.raises(InputError, match=r"-f .*pin.yaml: epoch: declared by no.*'epochs'\?"):
        plan_nodes(PLAN, out="out", files=[pin])


def test_resume_takes_up_settings_and_again_forces(house):
    house.notebook("a", "mark: int = 0", "print(mark)")
    house.plan({"a": {"notebook": "a"}, "b": {"notebook": "a"}})
    with pytest.raises(InputError, match="--resume: no report in out"):
        run_plan(PLAN, out="out", resume=True, progress=False)
    run_plan(PLAN, out="out", settings=["mark=7"], progress=False)
    before = (house.out / "index.html").stat().st_mtime_ns
    run_plan(PLAN, out="out", resume=True, progress=False)
    assert (house.out / "index.html").stat().st_mtime_ns == before
    run_plan(PLAN, out="out", resume=True, again=["a"], progress=False)
    assert house.states() == {"a": "done", "b": "kept"}
    assert house.ended()["a"]["parameters"] == "mark = 7"
    with pytest.raises(InputError, match="--again: no notebook 'c'"):
        run_plan(PLAN, out="out", again=["c"], progress=False)


def test_two_batches_at_once_into_one_folder(house):
    house.notebook("a", "", "open('at-work', 'w').close()\nimport time; time.sleep(6)")
    house.plan({"a": {"notebook": "a"}})
    words = [sys.executable, "-m", "fopro_lab", "report", PLAN, "--out", "out"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        while not (house.root / "at-work").exists() and first.poll() is None:
            time.sleep(0.1)
        second = subprocess.run(words, capture_output=True, text=True, check=False)
        assert second.returncode == 1 and "another report is being written there" in second.stderr
        assert first.wait() == 0
    assert house.states() == {"a": "done"}


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(house):
    place = house.root / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        house.notebook("a", "", "print(1)")
        house.plan({"a": {"notebook": "a"}})
        filler = place / "filler"
        filler.write_bytes(bytes(1000 * 1024))
        with pytest.raises(WorkError, match=r"full|No space"):
            run_plan(PLAN, out=place / "out", progress=False)
        filler.unlink()
        assert run_plan(PLAN, out=place / "out", progress=False).is_file()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_copy_that_finds_the_disk_full_fails_alone(house, monkeypatch):
    import errno

    from fopro_lab.reports import run as module

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = house.notebook("a", "", "print(1)")
    monkeypatch.setattr("fopro_lab.io.os.replace", full)
    outcome = module.execute(module.Job("a", str(path), "out/a.ipynb", "out/a.html"))
    assert outcome.failure == "out/a.ipynb: the disk is full; free some space and start again"
    assert not list(house.out.glob("*"))


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A stand-in for nvidia-smi that tells of two."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-aa)'\n"
        "echo '  MIG 1g.18gb Device 0: (UUID: MIG-cc)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-bb)'\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_notebook_gets_a_gpu_of_its_own(two_gpus, house):
    assert visible_devices() == ["GPU-aa", "GPU-bb"]
    assert LocalExecutor(jobs=0, most=9).jobs == 2
    code = "import os, time\nopen(f'{mark}.txt', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    house.notebook("a", "mark: int = 0", code + "time.sleep(3)")
    house.plan({"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}})
    run_plan(PLAN, out="out", progress=False)
    assert {(house.root / f"{i}.txt").read_text() for i in (0, 1)} == {"GPU-aa", "GPU-bb"}


@pytest.mark.parametrize(
    ("chosen", "seen"), [("3,1", ["3", "1"]), ("", []), ("-1", []), ("2,-1,3", ["2"])]
)
def test_devices_that_are_chosen_already_are_respected(two_gpus, monkeypatch, chosen, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_devices() == seen


def test_more_jobs_than_gpus_share_them_in_turn(two_gpus, monkeypatch):
    executor, told = LocalExecutor(jobs=3, most=9), []
    monkeypatch.setattr(
        "fopro_lab.reports.run.Runner",
        lambda environment: told.append(environment["CUDA_VISIBLE_DEVICES"]),
    )
    for slot in range(3):
        executor._runner(slot)
    assert told == ["GPU-aa", "GPU-bb", "GPU-aa"]


def test_an_unforeseen_fault_of_one_notebook_costs_no_other(house, monkeypatch):
    house.notebook("a", "", "print(1)")
    house.notebook("b", "", "print(2)")
    house.plan({"a": {"notebook": "a"}, "b": {"notebook": "b"}})
    whole = LocalExecutor.work

    def broken(self, job):
        if job.name == "a":
            raise ValueError("unforeseen")
        return whole(self, job)

    monkeypatch.setattr(LocalExecutor, "work", broken)
    with pytest.raises(WorkError, match=r"1 of 2 notebooks failed \(a\)"):
        run_plan(PLAN, out="out", progress=False)
    ended = house.ended()
    assert ended["a"]["reason"] == "ValueError: unforeseen" and ended["b"]["state"] == "done"


def test_stop_reaches_a_runner_that_is_being_started(monkeypatch):
    from fopro_lab.reports.run import Job, Outcome

    starting = threading.Event()

    class Slow:
        alive = True

        def __init__(self, environment):
            starting.set()
            time.sleep(0.3)
            self.ended = threading.Event()

        def work(self, job):
            return Outcome("stopped" if self.ended.wait(timeout=5) else "worked on")

        def stop(self):
            self.ended.set()

    monkeypatch.setattr("fopro_lab.reports.run.Runner", Slow)
    executor, told = LocalExecutor(jobs=1, most=1), []
    thread = threading.Thread(target=lambda: told.append(executor.work(Job("a", "", "", ""))))
    thread.start()
    starting.wait()
    executor.stop()
    thread.join()
    assert [outcome.failure for outcome in told] == ["stopped"]
