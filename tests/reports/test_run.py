"""Executing notebooks: what is kept, red cells, limits, GPUs, Ctrl-C, executors, one alone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from filelock import FileLock

from fopro_lab.errors import WorkError
from fopro_lab.reports import execute, execute_notebook, run_plan
from fopro_lab.reports.execute import Job, Outcome, open_executor, visible_devices
from tests.conftest import complaint, failure
from tests.reports.conftest import PLAN, Checkout

DRAW = """
from pathlib import Path
from PIL import Image
Path(out_dir).mkdir(exist_ok=True, parents=True)
Image.new("RGB", (9, 9)).save(Path(out_dir) / "a_line.png")
Path(out_dir, "headline.csv").write_text("method,tail,tail_low,tail_high\\nekd,0.5,0.4,0.6\\n")
"""
BREAK = "1 / 0 if broken else print(mark)"


class Story:
    """A report run three times: with a broken notebook, mended, and once more unchanged."""

    def __init__(self, checkout):
        self.checkout = checkout
        checkout.notebook("01_draw", 'out_dir: str = "out"', DRAW)
        checkout.notebook("02_break", 'broken: bool = True\nmark: str = "#0 = no cut"', BREAK)
        broken = {"notebook": "02_break", "parameters": {"mark": "a#b"}}
        after = {"notebook": "02_break", "after": ["break"]}
        checkout.plan({"draw": {"notebook": "01_draw"}, "break": broken, "after": after})
        self.error = failure(run_plan, PLAN, out=checkout.out, progress=False)
        self.first = self.snapshot()
        mended = {"out": checkout.out, "settings": ["broken=false"], "progress": False}
        run_plan(PLAN, **mended)
        self.second, began = self.snapshot(), time.monotonic()
        self.index = run_plan(PLAN, **mended)
        self.third, self.seconds = self.snapshot(), time.monotonic() - began

    def snapshot(self) -> dict:
        files = [p for p in self.checkout.out.rglob("*.*") if p.suffix in (".html", ".ipynb")]
        texts = {p.relative_to(self.checkout.out).as_posix(): p.read_text() for p in files}
        return {"states": self.checkout.states(), "ended": self.checkout.ended(), "texts": texts}


def test_a_failed_notebook_keeps_its_red_cell_and_the_same_command_mends_it(checkout):
    story = Story(checkout)
    assert story.first["states"] == {"draw": "done", "break": "failed", "after": "skipped"}
    assert story.first["ended"]["after"]["reason"] == "waits for break"
    assert story.first["ended"]["break"]["reason"] == "ZeroDivisionError: division by zero"
    assert story.error == f"1 of 3 notebooks failed (break), 1 skipped; see {story.index}"
    assert "ZeroDivisionError" in story.first["texts"]["notebooks/break.ipynb"]
    assert 'id="papermill-error-cell"' in story.first["texts"]["pages/break.html"]
    assert 'href="pages/break.html#papermill-error-cell"' in story.first["texts"]["index.html"]
    assert "pages/after.html" not in story.first["texts"]
    assert story.second["states"] == {"draw": "kept", "break": "done", "after": "done"}
    assert "a#b" in story.second["texts"]["pages/break.html"]
    assert story.second["ended"]["break"]["parameters"] == {"broken": False, "mark": "a#b"}
    assert story.third == story.second  # nothing changed, so its pages are left as they are
    assert story.seconds < 2.0  # a single kernel takes longer
    index = story.third["texts"]["index.html"]
    assert "[40.0, 60.0]" in index  # per cent
    assert 'href="draw/a_line.png"' in index and "a line, from draw" in index
    for name, text in story.third["texts"].items():
        assert str(story.checkout.root) not in text, name


PARAMETERS = 'seed: int = 0\ndataset: str = "phantom"\nrun_dir: str = ""\nout_dir: str = "out"'


@pytest.fixture
def instant(checkout):
    """A plan of two training runs, a table that waits for them, and one more; no kernels."""
    checkout.notebook("a", PARAMETERS, "print(seed)")
    matrix = {"notebook": "a", "matrix": {"seed": [0, 1]}, "parameters": {"dataset": "data"}}
    table = {"notebook": "a", "after": ["run"]}
    checkout.plan({"run": matrix, "table": table, "other": {"notebook": "a"}})
    (checkout.root / "data").mkdir()

    def run(**keys) -> str:
        run.resumed = checkout.run(**keys)
        states = checkout.states()
        return " ".join(states.get(n, "absent") for n in ("run-0", "run-1", "table", "other"))

    return run


@pytest.mark.parametrize(
    ("change", "states"),
    [
        (lambda out: (out / "run-1/figure.png").unlink(), "kept done done kept"),
        (lambda out: (out / "run-1/.done.json").write_text("{"), "kept done done kept"),
        (lambda out: (out / "pages/table.html").unlink(), "kept kept done kept"),
        (lambda out: next(out.glob("runs/run-0*/*")).unlink(), "done kept done kept"),
        (lambda out: (out.parent / "data/new.png").touch(), "done done done kept"),
    ],
    ids=["output", "record", "page", "manifest", "input"],
)
def test_a_result_is_kept_until_its_files_change(checkout, instant, change, states):
    assert instant() == "done done done done"
    (checkout.out / "run-1/mine.txt").touch()  # files of the user are left
    change(checkout.out)
    assert instant() == states and (checkout.out / "run-1/mine.txt").exists()


def test_a_result_is_kept_until_cells_parameters_or_the_version_change(
    checkout, instant, monkeypatch
):
    instant()
    assert instant(settings=["seed=[1,2]"]) == "absent kept done kept"
    checkout.notebook("a", PARAMETERS, "print(0)")
    assert instant() == "done done done done"
    assert {"run-0", "run-1"} <= set(instant.resumed)  # executed again, not trained again
    monkeypatch.setattr("fopro_lab.reports.run.version", lambda name: "9.9")
    assert instant() == "done done done done"


def test_a_node_shows_what_it_was_given_or_has_by_default_and_what_made_it(checkout, monkeypatch):
    checkout.notebook("train", "options: dict = {}", config="TrainConfig")
    checkout.notebook("look", "mark: int = 0")
    entries = {"plain": {"notebook": "train"}, "look": {"notebook": "look"}}
    entries["warm"] = {"notebook": "train", "parameters": {"warmup_epochs": 2}}
    checkout.plan(entries)
    for commit, settings in (("first", []), ("second", ["mark=1"])):
        origin = f"commit {commit}"
        monkeypatch.setattr("fopro_lab.reports.run._origin", lambda said=origin: said)
        checkout.run(settings=settings)
    ended = checkout.ended()
    assert [ended[name]["parameters"] for name in entries] == [
        {"warmup_epochs": 0}, {"mark": 1}, {"warmup_epochs": 2}
    ]  # fmt: skip
    made = {name: ended[name]["made_by"] for name in entries}  # kept ones by the first
    assert made == {"plain": "commit first", "warm": "commit first", "look": "commit second"}


def test_a_table_of_a_notebook_waited_for_executes_nothing_twice(checkout):
    checkout.notebook("a", 'table: str = ""\nseed: int = 0\nout_dir: str = "out"')
    table = {"notebook": "a", "after": ["a"], "parameters": {"table": "out/a/seed_1.csv"}}
    checkout.plan({"a": {"notebook": "a"}, "b": table})
    keys = []
    for _ in range(2):
        checkout.run(settings=["seed=1"])
        record = (checkout.out / "b/.done.json").stat()
        keys.append((record.st_ino, record.st_mtime_ns))
    assert keys[0] == keys[1] and (checkout.out / "a/seed_1.csv").exists()


def test_no_file_of_an_earlier_result_stays(checkout):
    """Neither of one that was executed before, nor of one that failed, nor in the index."""
    checkout.notebook("a", PARAMETERS)
    checkout.plan({"a": {"notebook": "a"}, "b": {"notebook": "a", "after": ["a"]}})
    for seed, broken in ((1, ()), (2, ("a",)), (3, ("b",)), (4, ())):
        with suppress(WorkError):
            checkout.run(*broken, settings=[f"seed={seed}"])
    for name in ("a", "b"):
        assert [p.name for p in (checkout.out / name).glob("seed*")] == ["seed_4.csv"]


def test_only_again_and_fresh_choose_what_is_executed(checkout, instant):
    assert instant(only=["run-1", "other"]) == "left out done left out done"
    assert instant(again=["run-1"]) == "done done done kept" and instant.resumed == []
    assert instant(again=["run"], only=["run-1"]) == "kept done left out kept"
    told = complaint(instant, again=["other"], only=["run"])
    assert told.startswith("--again: other: --only leaves it out")
    assert instant(fresh=True, only=["other"]) == "kept kept left out done"
    assert "--only" in checkout.ended()["table"]["reason"]
    assert instant() == "kept kept done kept"  # one of its results was executed without the table
    assert instant(fresh=True) == "done done done done" and instant.resumed == []
    for option in ("only", "again"):
        told = complaint(instant, **{option: ["tabel"]})
        assert told.startswith(f"--{option}: no notebook 'tabel'") and "'table'?" in told


def test_a_folder_that_cannot_be_written_or_is_in_use_is_refused(checkout):
    checkout.notebook("a", "epochs: int = 3")
    plan = checkout.plan({"a": {"notebook": "a"}})
    told = complaint(run_plan, plan, out=plan / "out")
    assert told.startswith("out: expected a folder to write to")
    checkout.out.mkdir()
    with FileLock(checkout.out / ".lock"):
        assert "another report is being written" in failure(run_plan, plan, out=checkout.out)


def test_one_failing_notebook_costs_no_other(checkout, capfd, monkeypatch):
    """A cell past its limit, one that ignores the interrupt, a dead kernel: each red by itself."""
    hang, deaf = "import time; time.sleep(600)", "import time\nwhile True:\n    try:\n        "
    deaf += "time.sleep(60)\n    except KeyboardInterrupt:\n        pass"
    checkout.notebook("hang", "", "print('before')", hang)
    checkout.notebook("deaf", "", deaf)
    checkout.notebook("dead", "", "x = 1", "import os; os._exit(9)")
    checkout.notebook("well", "", "x = 1")
    limits = {"hang": "4 s", "deaf": "4 s", "dead": "", "well": ""}
    checkout.plan({name: {"notebook": name, "limit": limit} for name, limit in limits.items()})
    monkeypatch.setattr("fopro_lab.reports.execute.GRACE", 1.0)
    told = failure(run_plan, PLAN, out="out", jobs=4)
    assert told.startswith("3 of 4 notebooks failed (hang, deaf, dead)")
    ended = checkout.ended()
    limit = "the time limit of 4.0 s was reached"
    assert ended["hang"]["reason"] == ended["deaf"]["reason"] == limit
    assert ended["dead"]["reason"].startswith("the kernel died in the middle of a cell")
    assert ended["well"]["state"] == "done"
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
        run.send_signal(signal.SIGINT)
        out = run.stdout.read()
    assert out.startswith("stopped: 0 of 2 notebooks are done; the same command goes on from there")
    assert checkout.states() == {"a": "stopped", "b": "stopped"}
    assert "0 failed, 2 not executed" in (checkout.out / "index.html").read_text()
    page = (checkout.out / "pages/a.html").read_text()
    assert "stopped by the user before its end" in page and "kernel died" not in page
    kernel = int((checkout.root / "pid").read_text())
    wait_until(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == "zombie")


def wait_until(fact, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


STAND_IN = """
import os
names = os.environ.get("CUDA_VISIBLE_DEVICES")
seen = [0, 1] if names is None else []
for name in (names or "").split(",") if names else []:
    if name.strip() == "-1": break  # CUDA itself stops there
    seen.append(name)
class cuda:
    is_available = staticmethod(lambda: bool(seen))
    device_count = staticmethod(lambda: len(seen))
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A stand-in for torch on a machine with two, in the process that asks it."""
    for name in execute.DEVICE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "torch.py").write_text(STAND_IN)
    first = f"import sys; sys.path.insert(0, {str(tmp_path / 'bin')!r}); "
    monkeypatch.setattr(execute, "_ASK_TORCH", first + execute._ASK_TORCH)
    monkeypatch.setattr(execute, "_may_have_gpus", lambda: True)


def test_the_devices_are_those_of_torch(monkeypatch, capsys):
    monkeypatch.setattr(execute, "_may_have_gpus", lambda: True)
    assert len(visible_devices()) == torch.cuda.device_count()
    monkeypatch.setattr(execute, "_ASK_TORCH", "import no_such_module")
    assert visible_devices() == []
    assert "GPUs are not shared out: torch could not be asked" in capsys.readouterr().err


def test_a_notebook_gets_a_gpu_of_its_own_of_those_chosen(two_gpus, checkout, monkeypatch):
    assert visible_devices() == ["0", "1"]
    with open_executor("local", jobs=0, most=9, out=checkout.out) as slots:
        assert slots.jobs == 2
    code = "import os\nopen(f'{mark}.txt', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    checkout.notebook("a", "mark: int = 0", code)
    checkout.plan({"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}})
    run_plan(PLAN, out="out", progress=False)
    assert {(checkout.root / f"{i}.txt").read_text() for i in (0, 1)} == {"0", "1"}
    cases = {"3, 1": ["3", "1"], "": [], "-1": [], "2,-1,3": ["2"], "MIG-cc": ["MIG-cc"]}
    for chosen, seen in cases.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert visible_devices() == seen


def test_an_error_of_a_worker_is_its_notebooks_failure_alone(checkout):
    checkout.notebook("a", "mark: int = 0", "print(mark)")
    checkout.plan({"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}})
    assert failure(checkout.run, "a-0").startswith("1 of 2 notebooks failed (a-0)")
    ended = checkout.ended()
    assert ended["a-0"]["reason"] == "IndexError: pop from empty list"
    assert ended["a-1"]["state"] == "done"


def test_execute_notebook_writes_copy_page_and_results_into_one_folder(checkout):
    declared = 'mark: str = ""\nout_dir: str = "out"\nrun_dir: str = ""'
    checkout.notebook("01_draw", declared, DRAW, "print(mark, run_dir)")
    executed, page = execute_notebook("01_draw", {"mark": "a#b"}, out="page")
    assert executed == checkout.root / "page/01_draw.ipynb"
    assert page == checkout.root / "page/index.html"
    assert (checkout.root / "page/a_line.png").is_file()
    text = page.read_text()
    assert "a#b page/runs/01_draw-" in text and "<title>01_draw, a test</title>" in text
    assert "default-src 'none'" in text and "Report</a>" not in text


def test_execute_notebook_ends_with_one_line_where_a_cell_fails(checkout):
    wrong = "from fopro_lab.errors import InputError\nraise InputError('weights: no such file')"
    checkout.notebook("broken", "x: int = 1", "1 / 0 if x else 1", wrong)
    page = checkout.root / "page/index.html"
    told = failure(execute_notebook, "broken", {}, out="page")
    assert told == f"broken: ZeroDivisionError: division by zero; see {page}"
    assert "papermill-error-cell" in page.read_text()
    assert complaint(execute_notebook, "broken", {"x": 0}, out="page") == "weights: no such file"
    assert Path("page/index.html").is_file(), "which was there before"
    assert complaint(execute_notebook, "broken", {"x": 0}, out="a/b") == "weights: no such file"
    assert not Path("a").exists(), "nothing is left of a wrong input"
    told = complaint(execute_notebook, "broken", {"y": 0}, out="page")
    assert told == "broken: y: not declared by broken; known: x"


def test_an_edit_of_the_package_executes_nothing_again(tmp_path):
    """A docstring of a copy of the package changes; keys and run folders stay."""
    checkout = Checkout(tmp_path)
    checkout.notebook("train", 'epochs: int = 3\nrun_dir: str = ""', config="TrainConfig")
    checkout.plan({"train": {"notebook": "train"}})
    shutil.copytree(Path(__file__).parents[2] / "fopro_lab", tmp_path / "fopro_lab")
    code = f"""
import pathlib, sys
for _ in "ab":
    from fopro_lab.reports import plan, run
    nodes = plan.plan_nodes({PLAN!r}, out="out")
    print(plan.__file__, nodes[0].places, run.node_keys(nodes))
    for file in ("training/train.py", "reports/plan.py", "config.py"):
        path = pathlib.Path("fopro_lab", file)
        path.write_text(path.read_text().replace('\"\"\"', '\"\"\"Edited. ', 1))
    for name in [name for name in sys.modules if name.startswith("fopro_lab")]:
        del sys.modules[name]
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-c", code]
    found = subprocess.check_output(words, text=True, cwd=tmp_path, env=environment)
    first, again = found.splitlines()
    assert first.startswith(str(tmp_path)) and "runs/train-" in first
    assert again == first


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
        assert re.search("full|No space", failure(run_plan, PLAN, out=place / "out"))
        filler.unlink()
        assert run_plan(PLAN, out=place / "out", progress=False).is_file()
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.filterwarnings("default")
def test_no_dask_scheduler_is_one_line_within_seconds(checkout):
    checkout.notebook("a", "")
    checkout.plan({"a": {"notebook": "a"}})
    began = time.monotonic()
    told = failure(run_plan, PLAN, out="out", executor="dask://127.0.0.1:9")
    assert told.startswith("dask://127.0.0.1:9: no scheduler answers there")
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_dask_workers_have_a_gpu_each_and_a_killed_one_loses_nothing(
    two_gpus, checkout, monkeypatch
):
    def pretend(job: Job) -> Outcome:
        with Path(job.folder, f"{job.name}.txt").open("a") as file:
            print(job.device, os.getpid(), file=file)
        while not Path(job.folder, "killed").exists():
            time.sleep(0.05)
        return Outcome("")

    def tries(name: str) -> list[list[str]]:
        file = checkout.root / f"{name}.txt"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def kill_a_worker() -> None:
        wait_until(lambda: tries("a-0") and tries("a-1"))
        os.kill(int(tries("a-0")[0][1]), signal.SIGKILL)
        (checkout.root / "killed").touch()

    monkeypatch.setattr("fopro_lab.reports.run.execute", pretend)
    checkout.notebook("a", "mark: int = 0")
    checkout.plan({"a": {"notebook": "a", "matrix": {"mark": [0, 1]}}})
    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    run_plan(PLAN, out="out", executor="dask", progress=False)
    thread.join()
    assert checkout.states() == {"a-0": "done", "a-1": "done"}
    assert {tries(name)[0][0] for name in ("a-0", "a-1")} == {"0", "1"}
    assert [gpu for gpu, _ in tries("a-0")] == [tries("a-0")[0][0]] * 2
