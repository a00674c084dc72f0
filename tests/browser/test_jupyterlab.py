"""JupyterLab as a researcher uses it: notebook 06 runs, a slider moves, a pin is made."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from fopro_lab.widgets.bands import read_prompt_file
from tests.browser.explorer_page import ExplorerPage, play

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
STARTS_WITHIN = 90.0  # seconds, on a busy machine
RUNS_WITHIN = 180_000  # milliseconds: the kernel starts, imports and draws

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """JupyterLab over a copy of the notebooks; its address and its folder."""
    folder = tmp_path_factory.mktemp("laboratory")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / "home"  # the settings of whoever runs the tests stay out of it
    environment = {
        **os.environ,
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--allow-root"]
    options = [f"--port={port}", f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={folder}"]
    log = open(folder / "lab.log", "w", encoding="utf-8")
    server = subprocess.Popen(
        [*command, *options], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(f"{address}/api", server, log=folder / "lab.log")
        yield address, folder
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def _wait_until_it_answers(address: str, server: subprocess.Popen, *, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text()[-2000:])


def test_notebook_06_is_run_a_band_moved_and_pinned_for_a_report(laboratory, watched, shots):
    address, folder = laboratory
    page, alarms = watched(width=1280, height=1400)
    page.goto(f"{address}/lab/tree/notebooks/06_band_explorer.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    # JupyterLab forgets what it was told to run before its kernel has answered for the first time.
    page.get_by_text("| Idle").wait_for(timeout=RUNS_WITHIN)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_selector(".fopro-band-slider", timeout=RUNS_WITHIN)
    last = page.locator(".jp-OutputArea .jp-RenderedMarkdown", has_text="moves this teacher most")
    last.wait_for(state="attached", timeout=RUNS_WITHIN)
    explorer = ExplorerPage(page)
    explorer.sliders.first.scroll_into_view_if_needed()
    play(explorer, shots, "lab")
    told = explorer.pin("by-hand")
    home, command = re.search(r"In (.+): (fopro report .+)", told).groups()
    assert alarms.quiet(), (alarms.errors, alarms.requests)
    pin = folder / "pins/by-hand.yaml"
    assert pin.is_file() and pin.with_suffix(".safetensors").is_file()
    _the_told_command_runs(shlex.split(command)[1:], home=home, out=folder / "report")
    prompt = read_prompt_file(pin)
    with torch.no_grad():
        found = prompt.gain(torch.zeros(1, 3, 64, 64)).unique().tolist()
    left = [explorer.gain(1), 1.0]
    assert found == pytest.approx(left), "the band as it was left, and the others untouched"


def _the_told_command_runs(words: list[str], *, home: str, out: Path) -> None:
    words += ["--out", str(out), "--only", "bands", "--set", "images=200"]
    done = subprocess.run(
        [sys.executable, "-m", "fopro_lab", *words],
        capture_output=True, text=True, cwd=home, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "bands/bands.png").is_file() and (out / "pages/bands.html").is_file()
    assert "The prompt moves it by" in (out / "pages/bands.html").read_text()
