"""The documentation from files, the network off: it needs none, and its search answers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    site = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", site]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=Path(__file__).parents[2], env=env, check=True)
    return site


def test_the_documentation_is_whole_and_needs_no_network(site):
    for name in ("index", "concepts", "api"):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        assert not re.search(r'<(script|link|img)[^>]*(src|href)="(https?:)?//', page), name
    assert 'id="fopro_lab.training.train.distill"' in page
    assert (site / "reports/control/control.png").exists()


def test_the_search_of_the_documentation_works_from_files(open_offline, site):
    page, alarms = open_offline(site / "index.html")
    # Keys one by one, as a hand types: the search reads its field on keyup and on focus; a value
    # that is set without keys is seen only if it came within a millisecond of the focus.
    page.locator(".md-search__input").press_sequentially("near-duplicates")
    page.locator(".md-search-result__item").first.wait_for()
    page.locator(".md-search-result__link[href*='data.html']").first.wait_for()
    assert alarms.quiet(), (alarms.errors, alarms.requests)
