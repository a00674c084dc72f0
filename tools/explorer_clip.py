"""Record docs/pictures/explorer.webp: the band explorer's page while a hand moves its sliders.

``python -m tools.explorer_clip RUN`` serves the page (`fopro explore RUN`), drives it in Chromium
and keeps a frame after every step; nothing in it is drawn by hand. The committed one shows a run of
``fopro train --set images=1500 --set method=fopro --set epochs=8 --set prompt_every=0``, on
generated images. Without a run there is no student in it.
"""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

OUT = Path("docs/pictures/explorer.webp")
SIZE, WIDTH, MOST_BYTES = {"width": 1280, "height": 800}, 960, 1_500_000
MOVES = ((5, 1.0), (5, 0.25), (0, 0.05), (0, 0.25), (2, 0.8), (2, 0.25))  # ring, share of the track
STEPS, STEP_MS, HOLD_MS = 7, 90, 900
HAND = """() => {
  const hand = document.createElement("div");
  hand.style = "position:fixed;z-index:9999;width:20px;height:20px;margin:-10px;border-radius:50%;"
    + "left:-40px;background:#d55e0099;border:2px solid white;pointer-events:none";
  document.body.append(hand);
  document.addEventListener("pointermove", (event) => {
    hand.style.left = event.clientX + "px"; hand.style.top = event.clientY + "px";
  }, true);
}"""


def record(address: str) -> list[tuple[Image.Image, int]]:
    """Open the page, drag sliders there and back, and return frames with milliseconds."""
    with sync_playwright() as driver:
        chromium = os.environ.get("FOPRO_CHROMIUM") or shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.set_default_timeout(200_000)  # the page is there once its images are packed
        page.goto(address)
        sliders = page.locator(".fopro-band-slider")
        sliders.first.wait_for(state="attached")
        page.evaluate(HAND)
        frames = [(_frame(page, settled=True), HOLD_MS)]
        page.get_by_role("button", name="Reset").click()  # a run with a prompt opens with it
        sliders.first.wait_for()
        frames.append((_frame(page, settled=True), HOLD_MS))
        for ring, share in MOVES:
            frames += _drag(page, sliders.nth(ring), share)
        browser.close()
    return frames


def _drag(page: Page, slider: Locator, share: float) -> list[tuple[Image.Image, int]]:
    """Drag a slider, whether it lies or stands, to a share of its track."""
    handle, track = (slider.locator(f".noUi-{name}").bounding_box() for name in ("handle", "base"))
    if handle is None or track is None:
        raise RuntimeError("the page has no such slider")
    start = (handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    upright = track["height"] > track["width"]
    end = (track["x"] + share * track["width"], start[1])
    if upright:
        end = (start[0], track["y"] + (1 - share) * track["height"])
    page.mouse.move(*start)
    page.mouse.down()
    frames = []
    for step in range(1, STEPS + 1):
        part = step / STEPS
        page.mouse.move(*(a + part * (b - a) for a, b in zip(start, end, strict=True)))
        page.wait_for_timeout(250)
        frames.append((_frame(page), STEP_MS))
    page.mouse.up()
    return [*frames, (_frame(page, settled=True), HOLD_MS)]


def _frame(page: Page, *, settled: bool = False) -> Image.Image:
    """Take a picture of the page; ``settled`` waits for the networks' answers."""
    if settled:
        page.wait_for_timeout(500)
        quiet = "() => !document.querySelector('.pending, [aria-busy=true]')"
        page.wait_for_function(quiet)
        page.wait_for_timeout(200)
    shown = {"x": 0, "y": 0, "width": SIZE["width"], "height": 740}  # below is no more than paper
    image = Image.open(io.BytesIO(page.screenshot(clip=shown))).convert("RGB")  # type: ignore[arg-type]
    return image.resize((WIDTH, WIDTH * image.height // image.width), Image.Resampling.LANCZOS)


def main() -> None:
    """Serve the page, record it, and write the clip."""
    command = [sys.executable, "-m", "fopro_lab", "explore", "--no-browser", "--port", "0"]
    command += sys.argv[1:]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            frames = record((server.stdout.readline() if server.stdout else "").strip())
        finally:
            server.terminate()
    images, durations = zip(*frames, strict=True)
    images[0].save(
        OUT, save_all=True, append_images=images[1:], duration=durations, loop=0,
        quality=60, method=6, minimize_size=True,
    )  # fmt: skip
    if OUT.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{OUT}: {OUT.stat().st_size:,} bytes, expected {MOST_BYTES:,} at most")


if __name__ == "__main__":
    main()
