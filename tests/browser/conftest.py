"""Tests in a real browser: Chromium, pages that cannot reach the network, and their alarms.

Chromium is taken from $FOPRO_CHROMIUM or from the system; nothing is downloaded. Without one these
tests skip. The browser lives as long as this folder's tests: Playwright keeps an event loop running
in this thread, in which no test after it could start its own.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

PLACES = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")


class Alarms:
    """Script errors of a page, and requests that failed or were answered with an error."""

    def __init__(self, page) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", lambda request: self.requests.append(request.url))
        page.on("response", lambda got: got.status >= 400 and self.requests.append(got.url))

    def quiet(self, *, blocked: str = "") -> bool:
        """Say whether nothing went wrong but requests to a host that the page's policy blocks."""
        errors = [e for e in self.errors if not (blocked in e and "Content Security Policy" in e)]
        requests = [url for url in self.requests if not (blocked and url.startswith(blocked))]
        return not (errors if blocked else self.errors) and not requests


@pytest.fixture(scope="package")
def browser() -> Iterator:
    """A headless Chromium, driven by Playwright; one for all tests of this folder."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make setup")
    named = os.environ.get("FOPRO_CHROMIUM", "")
    chromium = next(filter(None, (shutil.which(place) for place in (named, *PLACES) if place)), "")
    if not chromium:
        pytest.skip("no Chromium: apt-get install chromium, or set FOPRO_CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def watched(browser):
    """Open a page with its alarms: ``page, alarms = watched(width=390, color_scheme="dark")``."""
    contexts = []

    def start(*, width: int = 1280, height: int = 1000, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].set_default_timeout(60_000)  # milliseconds; a hang is a clear failure
        page = contexts[-1].new_page()
        return page, Alarms(page)

    yield start
    for context in contexts:
        context.close()


@pytest.fixture
def open_offline(watched):
    """Open a file with the network off: ``page, alarms = open_offline(path, width=390)``."""

    def start(path: Path, **options):
        page, alarms = watched(offline=True, **options)
        page.goto(path.resolve().as_uri())
        page.wait_for_load_state("load")
        return page, alarms

    return start
