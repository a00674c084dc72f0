"""`fopro explore` as a researcher uses it: the page opens, a slider moves, a pin is made."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.browser.explorer_page import ExplorerPage, play, wait_for
from tests.data.toys import write_images

ROOT = Path(__file__).parents[2]
HANGS_AFTER = 300  # seconds
SHOWN_WITHIN = 180_000  # milliseconds: the kernel starts, imports and draws

pytestmark = pytest.mark.slow


@contextmanager
def serve(folder, *knobs):
    """Address of a page with its token, started in a folder, and a count of kernels."""
    words = ["explore", "--port", "0", "--no-browser", "--set", "images=200"]
    words += [part for knob in knobs for part in ("--set", knob)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fopro_lab", *words],
        cwd=folder, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell's background process ignores Ctrl-C, and so would this one in such a test run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    guard = threading.Timer(HANGS_AFTER, process.kill)
    guard.start()
    server = psutil.Process(process.pid)
    try:
        yield process.stdout.readline().strip(), lambda: len(server.children(recursive=True))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        guard.cancel()
        process.stdout.close()


@pytest.fixture
def served(tmp_path):
    """A page with another data set to choose."""
    write_images(tmp_path / "more", each=20, side=64)
    with serve(tmp_path, "more_datasets=[more]") as told:
        yield told


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
    images = explorer.images()
    shown = page.query_selector(".fopro-images")
    page.select_option(".fopro-choose-dataset select", "more")
    shown.wait_for_element_state("hidden")  # the other data set has sliders of its own
    page.wait_for_selector(".fopro-images", timeout=SHOWN_WITHIN)
    wait_for(explorer.images, lambda seen: seen != images)
    assert explorer.gain(1) == 0.1, "the bands stay"
    page.screenshot(path=shots / "explore_more.png", full_page=True)
    assert alarms.quiet(), (alarms.errors, alarms.requests)
    assert kernels() > 0
    page.goto("about:blank")
    wait_for(kernels, lambda count: count == 0, within=20)


def test_what_is_wrong_is_said_in_one_line_of_the_page(tmp_path, watched):
    page, _ = watched(width=1280, height=800)
    with serve(tmp_path, "more_teachers=[cifar-resnet20]") as (address, _):
        page.goto(address, timeout=SHOWN_WITHIN)
        page.wait_for_selector("text=InputError", timeout=SHOWN_WITHIN)
        lines = page.inner_text("body").strip().splitlines()
    assert "InputError: weights: cifar-resnet20 comes without any; give their file" in lines[-1]
    assert not any("Traceback" in line or "site-packages" in line for line in lines)
