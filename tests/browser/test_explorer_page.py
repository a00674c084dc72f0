"""`fopro explore` as a researcher uses it: the page opens, a slider moves, a pin is made."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.browser.explorer_page import ExplorerPage, play, wait_for
from tests.data.toys import write_pictures

ROOT = Path(__file__).parents[2]
HANGS_AFTER = 300  # seconds
SHOWN_WITHIN = 180_000  # milliseconds: the kernel starts, imports and draws

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path):
    """Address of a page with its token, started in the test's folder, and a count of kernels."""
    write_pictures(tmp_path / "more", each=20, side=64)
    words = ["explore", "--port", "0", "--no-browser", "--set", "pictures=200"]
    words += ["--set", "more_datasets=[more]"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fopro_lab", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell's background process ignores Ctrl-C, and so would this one in such a test run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    guard = threading.Timer(HANGS_AFTER, process.kill)
    guard.start()
    server = psutil.Process(process.pid)
    yield process.stdout.readline().strip(), lambda: len(server.children(recursive=True))
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    guard.cancel()
    process.stdout.close()


def test_a_band_is_moved_and_pinned_in_the_page(served, tmp_path, watched, shots):
    address, kernels = served
    page, alarms = watched(width=1280, height=1100)
    page.goto(address, timeout=SHOWN_WITHIN)
    page.wait_for_selector(".fopro-band-slider", timeout=SHOWN_WITHIN)
    explorer = ExplorerPage(page)
    play(explorer, shots, "explore")
    assert "fopro train -f pins/by-hand.yaml" in explorer.pin("by-hand")
    assert (tmp_path / "pins/by-hand.yaml").is_file()
    page.screenshot(path=shots / "explore_pinned.png", full_page=True)
    pictures = explorer.pictures()
    shown = page.query_selector(".fopro-pictures")
    page.select_option(".fopro-choose-dataset select", "more")
    shown.wait_for_element_state("hidden")  # the other data set has sliders of its own
    page.wait_for_selector(".fopro-pictures", timeout=SHOWN_WITHIN)
    wait_for(explorer.pictures, lambda seen: seen != pictures)
    assert explorer.gain(1) == 0.1, "the bands stay"
    page.screenshot(path=shots / "explore_more.png", full_page=True)
    assert alarms.quiet(), (alarms.errors, alarms.requests)
    assert kernels() > 0
    page.goto("about:blank")
    wait_for(kernels, lambda count: count == 0, within=20)
