"""Executing notebooks: what is kept, red cells, limits, GPUs, Ctrl-C, executors, one alone."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from fopro_lab.errors import InputError, WorkError
from fopro_lab.reports import execute_notebook, run_plan
from fopro_lab.reports.execute import LocalExecutor, Outcome, visible_devices
from fopro_lab.reports.plan import plan_nodes
from fopro_lab.reports.run import forget_record, node_key, read_record, write_record
from tests.reports.conftest import PLAN, Checkout

DRAW = """
from pathlib import Path
import matplotlib.pyplot as plt
axes = plt.figure().gca()
axes.plot([0, 1])
Path(out_dir).mkdir(exist_ok=True, parents=True)
axes.figure.savefig(Path(out_dir) / "a_line.png")
Path(out_dir, "headline.csv").write_text("method,tail,tail_low,tail_high\\nekd,0.5,0.4,0.6\\n")
"""
BREAK = "1 / 0 if broken else print(mark)"


class Story:
    """A report run three times: with a broken notebook, mended, and once more unchanged."""

    def __init__(self, checkout):
        self.checkout, self.error = checkout, ""
        checkout.notebook("01_draw", 'out_dir: str = "out"', DRAW)
        checkout.notebook("02_break", 'broken: bool = True\nmark: str = "#0 = no cut"', BREAK)
        checkout.plan(
            {
                "draw": {"notebook": "01_draw"},
                "break": {"notebook": "02_break", "parameters": {"mark": "a#b"}},
                "after": {"notebook": "02_break", "after": ["break"]},
            }
        )
        try:
            run_plan(PLAN, out=checkout.out, progress=False)
        except WorkError as error:
            self.error = str(error)
        self.first = self.snapshot()
        run_plan(PLAN, out=checkout.out, settings=["broken=false"], progress=False)
        self.second = self.snapshot()
        began = time.monotonic()
        self.index = run_plan(PLAN, out=checkout.out, settings=["broken=false"], progress=False)
        self.third, self.seconds = self.snapshot(), time.monotonic() - began

    def snapshot(self) -> dict:
        files = [p for p in self.checkout.out.rglob("*.*") if p.suffix in (".html", ".ipynb")]
        texts = {p.relative_to(self.checkout.out).as_posix(): p.read_text() for p in files}
        return {"states": self.checkout.states(), "ended": self.checkout.ended(), "texts": texts}


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    home, root = os.getcwd(), tmp_path_factory.mktemp("checkout")
    os.chdir(root)
    yield Story(Checkout(root))
    os.chdir(home)


def test_run_plan_goes_on_after_a_failure_and_skips_what_waits(story):
    assert story.first["states"] == {"draw": "done", "break": "failed", "after": "skipped"}
    assert story.first["ended"]["after"]["reason"] == "waits for break"
    assert story.first["ended"]["break"]["reason"] == "ZeroDivisionError: division by zero"
    assert story.error == f"1 of 3 notebooks failed (break), 1 skipped; see {story.index}"


def test_run_plan_keeps_the_red_cell_and_links_to_it(story):
    assert "ZeroDivisionError" in story.first["texts"]["notebooks/break.ipynb"]
    assert 'id="papermill-error-cell"' in story.first["texts"]["pages/break.html"]
    assert 'href="pages/break.html#papermill-error-cell"' in story.first["texts"]["index.html"]
    assert "pages/after.html" not in story.first["texts"]


def test_run_plan_executes_again_only_what_changed(story):
    assert story.second["states"] == {"draw": "kept", "break": "done", "after": "done"}
    assert story.third == story.second  # nothing changed, so its pages are left as they are
    assert story.seconds < 2.0  # a single kernel takes longer


def test_run_plan_passes_values_whole(story):
    assert "a#b" in story.second["texts"]["pages/break.html"]
    assert story.second["ended"]["break"]["parameters"] == {"broken": False, "mark": "a#b"}


def test_run_plan_shows_headline_figures_and_memory(story):
    index = story.third["texts"]["index.html"]
    assert "[0.400, 0.600]" in index
    assert 'href="draw/a_line.png"' in index and "a line, from draw" in index
    assert (story.checkout.out / "draw" / "a_line.png").is_file()
    assert 1e7 < story.second["ended"]["break"]["memory"] < 3e9


def test_run_plan_shows_no_path_of_this_machine(story):
    for name, text in story.third["texts"].items():
        assert str(story.checkout.root) not in text, name


@pytest.fixture
def node(checkout):
    checkout.notebook(
        "a", 'epochs: int = 3\ndataset: str = "phantom"\nrun_dir: str = ""', "print(epochs)"
    )
    checkout.plan({"a": {"notebook": "a", "parameters": {"epochs": 4}}})
    return plan_nodes(PLAN, out="out")[0]


def test_a_key_follows_cells_parameters_files_version_and_what_comes_before(
    checkout, node, monkeypatch
):
    def key(changed=node, before="1"):
        return node_key(replace(changed, after=("b",)), before={"b": before})

    first = key()
    assert key(replace(node, parameters={"epochs": 5})) != first
    assert key(before="2") != first
    assert key(replace(node, places={"out_dir": "elsewhere"})) == first
    (checkout.root / "data").mkdir()
    given = {"dataset": "data"}
    pointing = replace(node, parameters=given, config=node.notebook.config(given, where="a"))
    with_data = key(pointing)
    (checkout.root / "data" / "new.png").touch()
    assert key(pointing) != with_data
    checkout.notebook(
        "a", 'epochs: int = 3\ndataset: str = "phantom"\nrun_dir: str = ""', "print(0)"
    )
    assert key(plan_nodes(PLAN, out="out")[0]) != first
    monkeypatch.setattr("fopro_lab.reports.run.version", lambda name: "9.9")
    assert key() != first


def test_an_edit_of_the_package_executes_nothing_again(tmp_path):
    """A docstring of a copy of the package changes; keys and run folders stay."""
    source = Path(__file__).parents[2]
    checkout = Checkout(tmp_path)
    checkout.notebook("train", 'epochs: int = 3\nrun_dir: str = ""', config="TrainConfig")
    checkout.plan({"train": {"notebook": "train"}})
    subprocess.run(["cp", "-r", source / "fopro_lab", tmp_path / "fopro_lab"], check=True)
    code = (
        "from fopro_lab.reports.plan import plan_nodes\n"
        "from fopro_lab.reports.run import node_key\n"
        f"node, = plan_nodes('{PLAN}', out='out')\n"
        "import fopro_lab; print(fopro_lab.__file__, node.places, node_key(node, before={}))"
    )

    def keys() -> str:
        words = [sys.executable, "-c", code]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
        return run.stdout

    first = keys()
    assert first.startswith(str(tmp_path)) and "runs/train-" in first
    for file in ("training/train.py", "reports/plan.py", "config.py"):
        path = tmp_path / "fopro_lab" / file
        path.write_text(path.read_text().replace('"""', '"""Edited. ', 1))
    assert keys() == first


def test_a_record_holds_while_key_and_outputs_are_there(checkout, node):
    folder, run = checkout.out / "a", checkout.out / "runs" / "a"
    for path in (folder, run):
        path.mkdir(parents=True)
    for path in (folder / "figure.png", run / "manifest.json"):
        path.touch()
    node = replace(node, places={"run_dir": str(run)})
    for removed in (folder / "figure.png", run / "manifest.json"):
        write_record(node, folder=folder, key="k", took=Outcome("", 2.5))
        assert read_record(folder, key="k") == Outcome("", 2.5)
        assert read_record(folder, key="other") is None
        removed.unlink()
        assert read_record(folder, key="k") is None
        removed.touch()
    (folder / "mine.txt").touch()
    forget_record(folder)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"] and (run / "manifest.json").exists()
    (folder / ".done.json").write_text("{")
    assert read_record(folder, key="k") is None


def test_a_result_is_not_kept_over_one_that_was_executed_again_without_it(checkout):
    checkout.notebook("first", "", "print(1)")
    checkout.notebook("later", "", "print(2)")
    checkout.plan(
        {"first": {"notebook": "first"}, "later": {"notebook": "later", "after": ["first"]}}
    )
    run_plan(PLAN, out="out", progress=False)
    run_plan(PLAN, out="out", progress=False, again=["first"], only=["first"])
    run_plan(PLAN, out="out", progress=False)
    assert checkout.states() == {"first": "kept", "later": "done"}


def test_fresh_and_again_execute_what_is_unchanged_and_train_from_the_start(checkout):
    train = (
        "from pathlib import Path\nfolder = Path(run_dir)\n"
        "assert not (folder / 'manifest.json').exists(), 'taken up'\n"
        "folder.mkdir(parents=True)\n(folder / 'manifest.json').write_text('{}')"
    )
    checkout.notebook("train", 'run_dir: str = ""\nseed: int = 0', train)
    checkout.plan({"train": {"notebook": "train", "matrix": {"seed": [0, 1]}}})
    run_plan(PLAN, out="out", progress=False)
    run_plan(PLAN, out="out", progress=False, again=["train-1"])
    assert checkout.states() == {"train-0": "kept", "train-1": "done"}
    run_plan(PLAN, out="out", progress=False, fresh=True)
    assert checkout.states() == {"train-0": "done", "train-1": "done"}
    with pytest.raises(InputError, match="--again: no notebook 'c'"):
        run_plan(PLAN, out="out", again=["c"], progress=False)


def test_only_executes_what_is_named_and_takes_the_rest_as_it_lies(checkout):
    checkout.notebook("a", "seed: int = 0", "print(seed)")
    plan = checkout.plan(
        {
            "first": {"notebook": "a", "matrix": {"seed": [0, 1]}},
            "other": {"notebook": "a"},
            "last": {"notebook": "a", "after": ["first"]},
        }
    )
    index = run_plan(plan, out="out", only=["last", "first-1"], progress=False)
    states = {"first-0": "left out", "first-1": "done", "other": "left out", "last": "done"}
    assert checkout.states() == states
    assert "Only" in index.read_text() and not (checkout.out / "pages" / "other.html").exists()
    run_plan(plan, out="out", only=["other"], progress=False)
    # What was made before is kept in sight: first-1 alone, since last was made without first-0.
    assert checkout.states()["other"] == "done" and checkout.states()["first-1"] == "kept"
    with pytest.raises(InputError, match=r"--only: no notebook 'lost' in the plan; did you mean"):
        run_plan(plan, out="out", only=["lost"], progress=False)


def test_run_plan_refuses_what_is_wrong_before_anything_runs(checkout):
    checkout.notebook("a", "epochs: int = 3")
    plan = checkout.plan({"a": {"notebook": "a"}})
    for keys, words in (
        ({"settings": ["epoch=4"]}, r"epoch: declared by no notebook.*'epochs'"),
        ({"jobs": -1}, r"jobs: expected 0 \(one per core\) or more, got -1"),
        ({"executor": "slurm"}, "executor: expected local, dask or dask://HOST:PORT"),
        ({"executor": "dask://host"}, "executor: expected local, dask or dask://HOST:PORT"),
    ):
        with pytest.raises(InputError, match=words):
            run_plan(plan, out="out", **keys)
    assert not checkout.out.exists()
    with pytest.raises(InputError, match="out: expected a folder to write to"):
        run_plan(plan, out=plan / "out")
    checkout.out.mkdir()
    with FileLock(checkout.out / ".lock"), pytest.raises(WorkError, match="another report is bei"):
        run_plan(plan, out=checkout.out)


def test_one_failing_notebook_costs_no_other(checkout, capfd):
    """A cell past its limit, one that ignores the interrupt, a dead kernel: each red by itself."""
    from fopro_lab.reports import execute

    deaf = "import time\nwhile True:\n    try:\n        time.sleep(60)\n"
    deaf += "    except KeyboardInterrupt:\n        pass"
    checkout.notebook("hang", "", "print('before')", "import time; time.sleep(600)")
    checkout.notebook("deaf", "", deaf)
    checkout.notebook("dead", "", "x = 1", "import os; os._exit(9)")
    checkout.notebook("fill", "", "kept = bytearray(300_000_000)\nimport time; time.sleep(2)")
    entries = {name: {"notebook": name} for name in ("hang", "deaf", "dead", "fill")}
    for name in ("hang", "deaf"):
        entries[name]["limit"] = "4 s"
    checkout.plan(entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "GRACE", 1.0)
        with pytest.raises(WorkError, match=r"3 of 4 notebooks failed \(hang, deaf, dead\)"):
            run_plan(PLAN, out="out", jobs=4)
    ended = checkout.ended()
    limit = "the time limit of 4.0 s was reached"
    assert ended["hang"]["reason"] == ended["deaf"]["reason"] == limit
    assert ended["dead"]["reason"].startswith("the kernel died in the middle of a cell")
    assert ended["fill"]["state"] == "done" and 3e8 < ended["fill"]["memory"] < 3e9
    page = (checkout.out / "pages/hang.html").read_text()
    assert "papermill-error-cell" in page and "time limit of 4.0 s" in page and "before" in page
    page = (checkout.out / "pages/dead.html").read_text()
    assert page.index("papermill-error-cell") < page.index("_exit")
    assert "failed  hang in" in capfd.readouterr().err


def test_ctrl_c_ends_kernels_and_writes_the_index(checkout):
    sleep = "import os, time, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\n"
    checkout.notebook("a", "", sleep + "time.sleep(60)")
    checkout.plan({"a": {"notebook": "a"}, "b": {"notebook": "a", "after": ["a"]}})
    code = (
        # A suite that runs in the background of a shell passes on an ignored Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fopro_lab.reports import run_plan; from fopro_lab.errors import WorkError\n"
        f"try: run_plan('{PLAN}', out='out')\n"
        "except WorkError as error: print(error)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with run:
        wait_until(lambda: (checkout.root / "pid").exists() and (checkout.root / "pid").read_text())
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another report is being written there" in second.stdout
        run.send_signal(signal.SIGINT)
        out = run.stdout.read()
    assert out.startswith("stopped: 0 of 2 notebooks are done; the same command goes on from there")
    assert checkout.states() == {"a": "stopped", "b": "stopped"}
    assert "0 failed, 2 not executed" in (checkout.out / "index.html").read_text()
    kernel = int((checkout.root / "pid").read_text())
    wait_until(lambda: not alive(kernel))


def wait_until(fact, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or ") Z " not in state.read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(checkout):
    place = checkout.root / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        checkout.notebook("a", "", "print(1)")
        checkout.plan({"a": {"notebook": "a"}})
        filler = place / "filler"
        filler.write_bytes(bytes(1000 * 1024))
        with pytest.raises(WorkError, match=r"full|No space"):
            run_plan(PLAN, out=place / "out", progress=False)
        filler.unlink()
        assert run_plan(PLAN, out=place / "out", progress=False).is_file()
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A stand-in for nvidia-smi that lists two."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-aa)'\n"
        "echo '  MIG 1g.18gb Device 0: (UUID: MIG-cc)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-bb)'\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_notebook_gets_a_gpu_of_its_own(two_gpus, checkout):
    assert visible_devices() == ["GPU-aa", "GPU-bb"]
    with LocalExecutor(0, most=9) as executor:
        assert executor.jobs == 2
    code = "import os, time\nopen(f'{mark}.txt', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    checkout.notebook("a", "mark: int = 0", code + "time.sleep(3)")
    checkout.plan({"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}})
    run_plan(PLAN, out="out", progress=False)
    assert {(checkout.root / f"{i}.txt").read_text() for i in (0, 1)} == {"GPU-aa", "GPU-bb"}


@pytest.mark.parametrize(
    ("chosen", "seen"), [("3,1", ["3", "1"]), ("", []), ("-1", []), ("2,-1,3", ["2"])]
)
def test_devices_that_are_chosen_already_are_respected(two_gpus, monkeypatch, chosen, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_devices() == seen


def test_any_executor_of_concurrent_futures_will_do(checkout):
    class Unlucky(ThreadPoolExecutor):
        def submit(self, work, job):
            broken = job.name == "a-0"
            return super().submit(lambda: [].pop() if broken else work(job))

    checkout.notebook("a", "mark: int = 0", "print(mark)")
    checkout.plan({"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}})
    with Unlucky(1) as executor, pytest.raises(WorkError, match=r"1 of 2 notebooks failed \(a-0\)"):
        run_plan(PLAN, out="out", executor=executor, progress=False)
    ended = checkout.ended()
    assert ended["a-0"]["reason"] == "IndexError: pop from empty list"
    assert ended["a-1"]["state"] == "done"


@pytest.mark.filterwarnings("default")
def test_no_dask_scheduler_is_one_line_within_seconds(checkout):
    checkout.notebook("a", "")
    checkout.plan({"a": {"notebook": "a"}})
    began = time.monotonic()
    with pytest.raises(WorkError, match=r"dask://127.0.0.1:9: no scheduler answers there"):
        run_plan(PLAN, out="out", executor="dask://127.0.0.1:9", progress=False)
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_dask_worker_killed_in_mid_notebook_loses_nothing(checkout):
    from distributed import LocalCluster

    code = "import os\nwith open('tries.txt', 'a') as f: f.write(f'{os.getppid()} ')\n"
    checkout.notebook("a", "", code + "import time; time.sleep(6)")
    checkout.plan({"a": {"notebook": "a"}})
    keys = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    tries = checkout.root / "tries.txt"

    def kill_the_first_worker() -> None:
        wait_until(lambda: tries.exists() and tries.read_text())
        os.kill(int(tries.read_text().split()[0]), signal.SIGKILL)  # the parent of the kernel

    with LocalCluster(n_workers=2, **keys) as cluster:
        thread = threading.Thread(target=kill_the_first_worker)
        thread.start()
        address = cluster.scheduler_address.removeprefix("tcp://")
        run_plan(PLAN, out="out", executor=f"dask://{address}", progress=False)
        thread.join()
    assert checkout.states() == {"a": "done"}
    assert len(tries.read_text().split()) == 2  # killed, and run again


def test_execute_notebook_writes_copy_page_and_results_into_one_folder(checkout):
    checkout.notebook("01_draw", 'mark: str = ""\nout_dir: str = "out"', DRAW, "print(mark)")
    executed, page = execute_notebook("01_draw", {"mark": "a#b"}, out="page")
    assert (executed, page) == (
        Path("page/01_draw.ipynb").absolute(),
        executed.parent / "index.html",
    )
    assert (checkout.root / "page/a_line.png").is_file()
    text = page.read_text()
    assert "a#b" in text and "<title>01_draw, a test</title>" in text
    assert "default-src 'none'" in text and "Report</a>" not in text


def test_execute_notebook_ends_with_one_line_where_a_cell_fails(checkout):
    wrong = "from fopro_lab.errors import InputError\nraise InputError('weights: no such file')"
    checkout.notebook("broken", "x: int = 1", "1 / 0 if x else 1", wrong)
    with pytest.raises(WorkError, match=r"broken: ZeroDivisionError: division by zero; see .*html"):
        execute_notebook("broken", {}, out="page")
    assert "papermill-error-cell" in (checkout.root / "page/index.html").read_text()
    with pytest.raises(InputError, match=r"^weights: no such file$"):
        execute_notebook("broken", {"x": 0}, out="page")
    with pytest.raises(InputError, match="broken: y: not declared by broken; known: x"):
        execute_notebook("broken", {"y": 0}, out="page")
