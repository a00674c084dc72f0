"""JupyterLab as a researcher uses it: notebook 06 runs, a slider moves, a preset is saved."""

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

from fopro_lab.widgets.bands import load_prompt
from tests.browser.explorer_page import ExplorerPage, play

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
RUNS_WITHIN = 180_000  # milliseconds: the kernel starts, imports and draws

pytestmark = pytest.mark.slow


@pytest.fixture
def laboratory(tmp_path):
    """JupyterLab over a copy of the notebooks; its address and its folder."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = tmp_path / "home"  # the settings of whoever runs the tests stay out of it
    own = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    own |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": cache}
    log = tmp_path / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--allow-root",
             f"--port={port}", f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={tmp_path}"],
            env={**os.environ, **own}, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(f"{address}/api", server, log)
        yield address, tmp_path
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_until_it_answers(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 90  # seconds, on a busy machine
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text()[-2000:])


def test_notebook_06_runs_and_a_band_is_moved_and_saved_for_a_report(laboratory, watched, shots):
    address, folder = laboratory
    page, alarms = watched(width=1280, height=1400)
    page.goto(f"{address}/lab/tree/notebooks/06_band_explorer.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    # JupyterLab forgets what it shall run before its kernel has answered for the first time.
    page.get_by_text("| Idle").wait_for(timeout=RUNS_WITHIN)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_selector(".fopro-band-slider", timeout=RUNS_WITHIN)
    last = page.locator(".jp-OutputArea .jp-RenderedMarkdown", has_text="moves this teacher most")
    last.wait_for(state="attached", timeout=RUNS_WITHIN)
    explorer = ExplorerPage(page)
    explorer.sliders.first.scroll_into_view_if_needed()
    play(explorer, shots, "lab")
    (command,) = re.findall(r"fopro (report .+)", explorer.save("by-hand"))
    assert alarms.quiet(), (alarms.errors, alarms.requests)
    with torch.no_grad():
        prompt = load_prompt(folder / "presets/by-hand.yaml")
        gains = prompt.gain(torch.zeros(1, 3, 64, 64)).unique().tolist()
    assert gains == pytest.approx([explorer.gain(1), 1.0]), "the band as it was left, and no other"
    out = folder / "report"
    words = [*shlex.split(command), "--out", out, "--only", "bands", "--set", "images=200"]
    done = subprocess.run(
        [sys.executable, "-m", "fopro_lab", *words], capture_output=True, text=True, cwd=folder,
        timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The prompt moves it by" in (out / "pages/bands.html").read_text()
