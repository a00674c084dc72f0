"""The built wheel, installed alone into a fresh environment, is the whole product."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel and install it: its environment and an empty folder to start from."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], cwd=folder)
    bin = folder / "venv/bin"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([bin / "python", "-c", where], cwd=folder).stdout.strip())
    # The packages that it needs, but not this checkout, which an editable install would add.
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "--python", bin / "python", *install, wheel], cwd=folder)
    (folder / "empty").mkdir()
    return wheel, bin, folder / "empty"


# Jupyter's templates lie beside the packages that the environment borrows.
NOT_OWN = ("PYTHONPATH", "FOPRO_HOME", "PYTHONDONTWRITEBYTECODE")
OWN = {name: value for name, value in os.environ.items() if name not in NOT_OWN}
OWN |= {"JUPYTER_PATH": f"{sys.prefix}/share/jupyter"}
HOW = {"capture_output": True, "text": True, "timeout": 400, "env": OWN}


def run(words, *, cwd, **env):
    done = subprocess.run(list(map(str, words)), cwd=cwd, **{**HOW, "env": OWN | env})
    assert done.returncode == 0, done.stderr
    return done


def test_wheel_holds_what_the_checkout_has_and_no_more(installed):
    names = {n.partition("shipped/")[2] for n in zipfile.ZipFile(installed[0]).namelist()} - {""}
    files = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("reports/plans/*.yaml")]
    assert names >= {str(path.relative_to(ROOT)) for path in files} and len(files) > 20
    assert all(re.fullmatch(r"(notebooks|reports/plans)/[^/]+", name) for name in names)


def test_plans_are_found_by_name_and_init_copies_them_without_overwriting(installed):
    wheel, bin, empty = installed
    home = "import fopro_lab; print(fopro_lab.__file__, fopro_lab.__version__)"
    shown = run([bin / "python", "-c", home], cwd=empty).stdout
    assert shown.startswith(str(bin.parent)) and re.search(r" \d+\.\d+\.\d+\n$", shown)
    types = "import fopro_lab as fl; print(fl.open_dataset('phantom', images=24))"
    assert "24" in run([bin / "python", "-c", types], cwd=empty).stdout
    assert any(name.endswith("fopro_lab/py.typed") for name in zipfile.ZipFile(wheel).namelist())
    number = run([bin / "fopro", "--version"], cwd=empty).stdout.strip()
    assert wheel.name.startswith(f"fopro_lab-{number}-")
    asked = {"_FOPRO_COMPLETE": "complete_bash", "COMP_WORDS": "fopro pre", "COMP_CWORD": "1"}
    assert run([bin / "fopro"], cwd=empty, **asked).stdout.split() == ["predict"]
    shown = run([bin / "fopro", "report", "demo", "--plan"], cwd=empty).stdout
    assert "04_train.ipynb" in shown and str(bin.parent) not in shown
    mine = empty / "mine/reports/plans/demo.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(mine_text := "title: mine\nnotebooks: {a: {notebook: 01_dataset}}\n")
    copied = run([bin / "fopro", "init", "mine"], cwd=empty)
    assert f"{mine.relative_to(empty)}: differs from the package's" in copied.stderr
    assert mine.read_text() == mine_text
    assert (empty / "mine/notebooks/04_train.ipynb").read_bytes() == (
        ROOT / "notebooks/04_train.ipynb"
    ).read_bytes()
    shown = run([bin / "fopro", "report", "demo", "--plan"], cwd=empty / "mine").stdout
    assert shown.startswith("mine: 1 notebooks")  # the folder's own goes before the package's


@pytest.mark.slow
def test_demo_and_explorer_run_in_an_empty_folder(installed, tmp_path):
    _, bin, _ = installed
    few = ["--only=train-bsm", "--set=method=bsm", "--set=images=120"]
    done = run([bin / "fopro", "report", "demo", *few, "--set=epochs=2"], cwd=tmp_path)
    assert done.stdout == "reports/demo/index.html\n" and "done    train-bsm" in done.stderr
    assert str(bin.parent) not in (tmp_path / "reports/demo/index.html").read_text()
    words = [bin / "fopro", "explore", "--port=0", "--no-browser", "--set=images=96"]
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=OWN
    ) as server:
        address = server.stdout.readline().strip()
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        try:
            with visitor.open(address, timeout=300) as answer:  # the token becomes a cookie
                page = answer.read().decode()
            server.send_signal(signal.SIGTERM)  # in the background Ctrl-C is ignored
            server.wait(timeout=60)
        finally:
            server.kill()  # else a page that fails, or an ignored Ctrl-C, would be waited for
    assert "Band explorer" in page and "widget-view+json" in page  # no cell before it is red
