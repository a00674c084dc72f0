"""`fopro explore` as a researcher uses it: the page opens, a slider moves, a preset is saved."""

import psutil
import pytest

from tests.browser.explorer_page import ExplorerPage, play, wait_for
from tests.data.toys import write_images
from tests.fourier.toys import make
from tests.widgets.conftest import serve_page

pytestmark = pytest.mark.slow


# Parts that are not wholly within the window.
OUTSIDE = """() => [".wipe", ".spectrum", ".fopro-strip", ".fopro-equaliser", ".fopro-sliders",
  ".fopro-drift", ".fopro-classes svg", ".fopro-row button", ".fopro-said"].filter((part) => {
  const box = document.querySelector(`.fopro-explorer ${part}`).getBoundingClientRect();
  return !box.width || box.left < 0 || box.top < 0 || box.right > innerWidth
    || box.bottom > innerHeight;
})"""
# How far each slider is from the middle of its ring on the axis above, in pixels.
ASTRAY = """() => {
  const bars = [...document.querySelectorAll(".fopro-equaliser .response")];
  const middle = (e) => { const b = e.getBoundingClientRect(); return b.left + b.width / 2; };
  const tracks = [...document.querySelectorAll(".fopro-band-slider .noUi-base")];
  return tracks.map((track, i) => Math.abs(middle(track) - middle(bars[i])));
}"""


# Shares of the drift's bars, and of the mark on them.
BARS = """() => [...document.querySelectorAll(".fopro-drift .meter i")].map((bar) =>
  ["share", "mark"].map((name) => +bar.style.getPropertyValue(`--${name}`)))"""


def test_a_band_is_moved_and_saved_and_another_data_set_chosen(tmp_path, watched):
    write_images(tmp_path / "more", each=12, side=32)
    page, alarms = watched(height=800)
    with serve_page(tmp_path, "images=80", "more_datasets=[more]") as (process, address):
        page.goto(address)
        page.wait_for_selector(".fopro-band-slider")
        assert page.url == address.partition("login")[0], "without the token"
        explorer = ExplorerPage(page)
        assert "drag its handle" in page.locator(".fopro-equaliser").inner_text()
        play(explorer)
        assert page.evaluate(OUTSIDE) == [], "all of it is seen at once"
        assert max(page.evaluate(ASTRAY)) < 1.5, "each slider stands under its ring"
        drift = explorer.answer("drift")
        for place in range(9):  # all removed: more drift than of any ring alone
            explorer.drag(place, 0.0)
        explorer.answer("drift", drift)
        bars = wait_for(lambda: page.evaluate(BARS), lambda bars: bars[0][1] < 1 / 1.3 - 0.01)
        assert max(share for share, _ in bars) == 1, "the longest ends at the edge, none beyond it"
        page.get_by_role("button", name="Reset").click()
        before = explorer.picture("images")
        page.get_by_label("Wipe").press("Home")
        assert explorer.picture("images") != before
        page.locator(".fopro-strip button").nth(1).click()
        page.wait_for_selector(".fopro-strip button:nth-child(2)[aria-pressed=true]")
        page.get_by_role("button", name="Which band hurts this class most?").click()
        wait_for(lambda: explorer.text("message"), lambda text: "hurts most" in text)
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert max(page.evaluate(ASTRAY)) < 1.5
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


def test_a_prompt_acts_as_learned_until_a_hand_moves_a_slider(tmp_path, watched):
    make("shared", scale=1.0, size=64).save(tmp_path / "p.safetensors")
    page, alarms = watched(height=800)
    with serve_page(tmp_path, "images=80", f"prompt_file={tmp_path / 'p.safetensors'}") as served:
        page.goto(served[1])
        page.wait_for_selector(".fopro-band-slider")
        explorer = ExplorerPage(page)
        drift = explorer.answer("drift")
        # A browser rounds what it shows, and sends back what it rounded: that is no hand.
        assert "acts as learned" in explorer.text("message")
        explorer.press(1, "ArrowUp")
        wait_for(lambda: explorer.text("message"), lambda text: "by hand" in text)
        assert explorer.answer("drift", drift) != drift
        assert alarms.quiet(blocked="https://cdn.jsdelivr.net/"), (alarms.errors, alarms.requests)
