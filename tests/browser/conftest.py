"""Fixtures of the tests in a real browser: Chromium, a page that cannot reach the network, alarms.

Chromium is taken from $FOPRO_CHROMIUM or from the system; nothing is downloaded. Without one these
tests skip, and say so. The browser lives as long as this folder's tests: Playwright keeps an event
loop running in this thread, in which no test after it could start its own.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

PLACES = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str:
    """Return the path of a Chromium, or an empty text."""
    named = os.environ.get("FOPRO_CHROMIUM", "")
    return next(
        (found for place in (named, *PLACES) if place and (found := shutil.which(place))), ""
    )


class Alarms:
    """What went wrong in a page: script errors, and requests that were tried in vain.

    Attributes:
        errors: Texts of console errors and of exceptions that no script caught.
        requests: Addresses that failed, or that answered with an error.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []

    def watch(self, page) -> "Alarms":
        """Listen to a page from now on."""
        page.on("console", lambda told: told.type == "error" and self.errors.append(told.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", lambda request: self.requests.append(request.url))
        page.on("response", lambda got: got.status >= 400 and self.requests.append(got.url))
        return self

    def quiet(self) -> bool:
        """Say whether nothing went wrong."""
        return not self.errors and not self.requests


@pytest.fixture(scope="package")
def browser() -> Iterator:
    """A headless Chromium, driven by Playwright; one for all tests of this folder."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make setup")
    chromium = find_chromium()
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
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        return page, Alarms().watch(page)

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


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Folder in which screenshots are kept: $FOPRO_SHOTS, or a temporary one."""
    named = os.environ.get("FOPRO_SHOTS", "")
    folder = Path(named) if named else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
