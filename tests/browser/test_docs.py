"""The documentation from files, the network off: its search answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_search_of_the_documentation_works_from_files(open_offline, tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path / "site"]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=Path(__file__).parents[2], env=env, check=True)
    page, alarms = open_offline(tmp_path / "site/index.html")
    page.locator(".md-search__input").fill("near-duplicates")
    page.locator(".md-search-result__item").first.wait_for()
    page.locator(".md-search-result__link[href*='data.html']").first.wait_for()
    assert alarms.quiet(), (alarms.errors, alarms.requests)
