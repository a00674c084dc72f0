import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from fopro_lab.errors import InputError, WorkError
from fopro_lab.reports import run_plan

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

    def __init__(self, house):
        self.house, self.error = house, ""
        house.notebook("01_draw", 'out_dir: str = "out"', DRAW)
        house.notebook("02_break", 'broken: bool = True\nmark: str = "#0 = no cut"', BREAK)
        house.plan(
            {
                "draw": {"notebook": "01_draw"},
                "break": {"notebook": "02_break", "parameters": {"mark": "a#b"}},
                "after": {"notebook": "02_break", "after": ["break"]},
            }
        )
        plan = "reports/plans/plan.yaml"
        try:
            run_plan(plan, out=house.out, progress=False)
        except WorkError as error:
            self.error = str(error)
        self.first = self.snapshot()
        run_plan(plan, out=house.out, settings=["broken=false"], progress=False)
        self.second = self.snapshot()
        began = time.monotonic()
        self.index = run_plan(plan, out=house.out, settings=["broken=false"], progress=False)
        self.third, self.seconds = self.snapshot(), time.monotonic() - began

    def snapshot(self) -> dict:
        files = [p for p in self.house.out.rglob("*.*") if p.suffix in (".html", ".ipynb")]
        texts = {p.relative_to(self.house.out).as_posix(): p.read_text() for p in files}
        return {"states": self.house.states(), "ended": self.house.ended(), "texts": texts}


@pytest.fixture(scope="module")
def story(tmp_path_factory, make_house):
    home, root = os.getcwd(), tmp_path_factory.mktemp("house")
    os.chdir(root)
    yield Story(make_house(root))
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


def test_run_plan_hands_over_values_whole(story):
    assert "a#b" in story.second["texts"]["pages/break.html"]
    assert story.second["ended"]["break"]["parameters"] == "broken = False, mark = a#b"


def test_run_plan_shows_headline_and_figures(story):
    index = story.third["texts"]["index.html"]
    assert "[0.400, 0.600]" in index
    assert 'href="draw/a_line.png"' in index and "a line, from draw" in index
    assert (story.house.out / "draw" / "a_line.png").is_file()


def test_run_plan_shows_no_path_of_this_machine(story):
    for name, text in story.third["texts"].items():
        assert str(story.house.root) not in text, name


def test_run_plan_names_a_kernel_that_died(house, capfd):
    house.notebook("a", "", "x = 1", "import os; os._exit(9)")
    with pytest.raises(WorkError, match="1 of 1 notebooks failed"):
        run_plan(house.plan({"a": {"notebook": "a"}}), out="out")
    assert "the kernel died in the middle of a cell" in house.ended()["a"]["reason"]
    page = (house.out / "pages" / "a.html").read_text()
    assert page.index("papermill-error-cell") < page.index("_exit")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "  0:00  start   a" and "failed  a in" in lines[1]


def test_run_plan_executes_only_what_is_asked_for_and_takes_the_rest_as_it_lies(house):
    house.notebook("a", "seed: int = 0", "print(seed)")
    plan = house.plan(
        {
            "first": {"notebook": "a", "matrix": {"seed": [0, 1]}},
            "other": {"notebook": "a"},
            "last": {"notebook": "a", "after": ["first"]},
        }
    )
    index = run_plan(plan, out="out", only=["last", "first-1"], progress=False)
    asked = {"first-0": "left out", "first-1": "done", "other": "left out", "last": "done"}
    assert house.states() == asked
    assert "Only" in index.read_text() and not (house.out / "pages" / "other.html").exists()
    run_plan(plan, out="out", only=["other"], progress=False)
    # What was made before is kept in sight: first-1 alone, since last was made without first-0.
    assert house.states()["other"] == "done" and house.states()["first-1"] == "kept"
    with pytest.raises(InputError, match=r"--only: no notebook 'lost' in the plan; did you mean"):
        run_plan(plan, out="out", only=["lost"], progress=False)


def test_run_plan_refuses_wrong_names_before_anything_runs(house):
    house.notebook("a", "epochs: int = 3")
    with pytest.raises(InputError, match=r"epoch: declared by no notebook.*'epochs'"):
        run_plan(house.plan({"a": {"notebook": "a"}}), out="out", settings=["epoch=4"])
    assert not house.out.exists()


def test_run_plan_refuses_a_folder_in_use_and_one_it_cannot_make(house):
    house.notebook("a", "")
    plan = house.plan({"a": {"notebook": "a"}})
    house.out.mkdir()
    with FileLock(house.out / ".lock"), pytest.raises(WorkError, match="another report is being"):
        run_plan(plan, out=house.out)
    with pytest.raises(InputError, match="out: expected a folder to write to"):
        run_plan(plan, out=plan / "out")
    with pytest.raises(InputError, match=r"jobs: expected 0 \(one a core\) or more, got -1"):
        run_plan(plan, out=house.out, jobs=-1)


def test_run_plan_ends_kernels_at_ctrl_c_and_writes_the_index(house):
    sleep = "import os, time, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\n"
    house.notebook("a", "", sleep + "time.sleep(60)")
    house.plan({"a": {"notebook": "a"}, "b": {"notebook": "a", "after": ["a"]}})
    code = (
        # A suite that runs in the background of a shell hands on an ignored Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fopro_lab.lab import run_plan; from fopro_lab.errors import WorkError\n"
        "try: run_plan('reports/plans/plan.yaml', out='out')\n"
        "except WorkError as error: print(error)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with run:
        wait_until(lambda: (house.root / "pid").exists() and (house.root / "pid").read_text())
        run.send_signal(signal.SIGINT)
        out = run.stdout.read()
    assert out.startswith("stopped: 0 of 2 notebooks are done and kept; the same command")
    assert house.states() == {"a": "stopped", "b": "stopped"}
    assert "0 failed, 2 not executed" in (house.out / "index.html").read_text()
    kernel = int((house.root / "pid").read_text())
    wait_until(lambda: not alive(kernel))


def wait_until(fact, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or ") Z " not in stat.read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
