"""Images to explore, and the explorer's page as `fopro explore` serves it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from fopro_lab.config import DataConfig
from fopro_lab.data import prepare

OPTIONS = {"images": 160, "image_size": 32}
ROOT = Path(__file__).parents[2]
# The command, which ends the kernel of a closed page sooner than the half minute of a user's.
COMMAND = "from fopro_lab import cli; from fopro_lab.widgets import serving; "
COMMAND += "serving.IDLE_SECONDS = 5; cli.main()"
# The same with a page of one slider, whose kernel imports no torch, which takes ten seconds.
LIGHT = "from tests.widgets.conftest import light; made = serving.page_notebook; "
LIGHT += "serving.page_notebook = lambda config: light(made(config)); cli.main()"
LIGHT = COMMAND.replace("cli.main()", LIGHT)


@pytest.fixture(scope="session")
def prepared():
    """A pack of generated images and its split."""
    packed, split = prepare(DataConfig(**OPTIONS), progress=False)
    return SimpleNamespace(packed=packed, split=split)


def light(book):
    """Put another cell in the page's notebook."""
    book.cells[0].source = "from ipywidgets import IntSlider; IntSlider()"
    return book


@contextmanager
def serve_page(
    folder: Path, *settings: str, log: IO | None = None, **env: str
) -> Iterator[tuple[subprocess.Popen, str]]:
    """Serve the page from a folder: the process, and the address that it prints."""
    words = ["explore", "--port", "0", "--no-browser", "--set", "image_size=32"]
    words += [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        # A shell's background process ignores Ctrl-C, and so would this one in such a test run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    guard = threading.Timer(120, process.kill)
    guard.start()
    try:
        address = process.stdout.readline().strip()
        guard.cancel()
        assert address, "fopro explore printed no address within 120 s, or failed: see above"
        yield process, address
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.stdout.close()
