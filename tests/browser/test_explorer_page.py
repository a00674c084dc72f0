"""`fopro explore` as a researcher uses it: the page opens, a slider moves, a preset is saved."""

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
SHOWN_WITHIN = 180_000  # milliseconds: the kernel starts, imports and draws

pytestmark = pytest.mark.slow


@contextmanager
def serve(folder, *settings):
    """Address of a page with its token, started in a folder, and a count of its kernels."""
    words = ["explore", "--port", "0", "--no-browser", "--set", "images=200"]
    words += [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fopro_lab", *words],
        cwd=folder, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell's background process ignores Ctrl-C, and so would this one in such a test run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    guard = threading.Timer(300, process.kill)  # a hang, not a slow machine
    guard.start()
    server = psutil.Process(process.pid)
    try:
        yield process.stdout.readline().strip(), lambda: len(server.children(recursive=True))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        guard.cancel()
        process.stdout.close()


def test_a_band_is_moved_and_saved_and_another_data_set_chosen(tmp_path, watched, shots):
    write_images(tmp_path / "more", each=20, side=64)
    page, alarms = watched(width=1280, height=1100)
    with serve(tmp_path, "more_datasets=[more]") as (address, kernels):
        page.goto(address, timeout=SHOWN_WITHIN)
        page.wait_for_selector(".fopro-band-slider", timeout=SHOWN_WITHIN)
        explorer = ExplorerPage(page)
        play(explorer, shots, "explore")
        preset = tmp_path / "presets/by-hand.yaml"
        assert f"fopro train -f {preset}" in explorer.save("by-hand") and preset.is_file()
        gain, before = explorer.gain(1), explorer.picture("images")
        page.locator(".fopro-choose-dataset select").select_option("more")
        wait_for(lambda: explorer.picture("images"), lambda seen: seen != before)
        assert explorer.gain(1) == gain
        assert alarms.quiet(blocked="https://cdn.jsdelivr.net/"), (alarms.errors, alarms.requests)
        assert kernels() > 0
        page.goto("about:blank")
        wait_for(kernels, lambda count: count == 0)
