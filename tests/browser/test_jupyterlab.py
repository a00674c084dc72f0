"""JupyterLab as a researcher uses it: notebook 06 runs, a slider moves, a preset is saved."""

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fopro_lab.widgets.bands import load_prompt
from tests.browser.explorer_page import ExplorerPage, play, wait_for

ROOT = Path(__file__).parents[2]
NOTEBOOK = "notebooks/06_band_explorer.ipynb"
TOKEN = "a-token-of-the-tests"

pytestmark = pytest.mark.slow


@pytest.fixture
def laboratory(tmp_path):
    """JupyterLab over a copy of the notebook, with few images; its address and its folder."""
    text = (ROOT / NOTEBOOK).read_text(encoding="utf-8")
    few = text.replace("images: int = 0", "images: int = 80")
    few = few.replace("image_size: int = 64", "image_size: int = 32")
    (tmp_path / NOTEBOOK).parent.mkdir()
    (tmp_path / NOTEBOOK).write_text(few, encoding="utf-8")
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

    def answers() -> bool:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            return bool(urllib.request.urlopen(f"{address}/api", timeout=5).read())
        except OSError:
            return False

    try:
        wait_for(answers, bool)
        yield address, tmp_path
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        finally:
            server.kill()


def test_notebook_06_runs_and_a_band_is_moved_and_saved(laboratory, watched):
    address, folder = laboratory
    page, alarms = watched(height=1400)
    page.goto(f"{address}/lab/tree/{NOTEBOOK}?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    # JupyterLab forgets what it shall run before its kernel has answered for the first time.
    page.get_by_text("| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_selector(".fopro-band-slider")
    last = '.jp-RenderedMarkdown:has-text("moves this teacher most")'
    page.wait_for_selector(last, state="attached")
    explorer = ExplorerPage(page)
    explorer.sliders.first.scroll_into_view_if_needed()
    play(explorer)
    told = explorer.save("by-hand")
    assert "fopro report" in told
    assert alarms.quiet(), (alarms.errors, alarms.requests)
    preset = Path(told.splitlines()[0].removeprefix("Saved: "))
    assert preset.is_relative_to(folder)
    gains = load_prompt(preset).mean_gain(size=(32, 32)).detach()
    assert gains.unique().tolist() == pytest.approx([1.0, explorer.gain(1)]), (
        "the band as it was left, and no other"
    )
