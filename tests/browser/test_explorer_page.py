"""`fopro explore` as a researcher uses it: the page opens, a slider moves, a preset is saved."""

import psutil
import pytest

from tests.browser.explorer_page import ExplorerPage, play, wait_for
from tests.data.toys import write_images
from tests.widgets.conftest import serve_page

pytestmark = pytest.mark.slow


def test_a_band_is_moved_and_saved_and_another_data_set_chosen(tmp_path, watched):
    write_images(tmp_path / "more", each=12, side=32)
    page, alarms = watched(height=1100)
    with serve_page(tmp_path, "images=80", "more_datasets=[more]") as (process, address):
        page.goto(address)
        page.wait_for_selector(".fopro-band-slider")
        explorer = ExplorerPage(page)
        play(explorer)
        preset = tmp_path / "presets/by-hand.yaml"
        assert f"fopro train -f {preset}" in explorer.save("by-hand") and preset.is_file()
        gain, before = explorer.gain(1), explorer.picture("images")
        page.locator(".fopro-choose-dataset select").select_option("more")
        wait_for(lambda: explorer.picture("images"), lambda seen: seen != before)
        assert explorer.gain(1) == gain
        assert alarms.quiet(blocked="https://cdn.jsdelivr.net/"), (alarms.errors, alarms.requests)
        server = psutil.Process(process.pid)
        assert server.children(recursive=True)
        page.goto("about:blank")
        wait_for(lambda: server.children(recursive=True), lambda kernels: not kernels)
