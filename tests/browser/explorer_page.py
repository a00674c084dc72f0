"""What a hand does with a band explorer in a page: drag, press keys, read, save."""

import time

WITHIN = 60.0  # seconds, on a busy machine; how fast a slider answers is timed in benchmarks/


class ExplorerPage:
    """A band explorer in a page of Playwright."""

    def __init__(self, page) -> None:
        self.page = page
        self.sliders = page.locator(".fopro-band-slider")

    def picture(self, name: str) -> bytes:
        """Take a picture of the part ``images`` or ``profile``."""
        return self.page.locator(f".fopro-{name}").first.screenshot()

    def text(self, name: str) -> str:
        """Read the part ``readout``, ``teacher`` or ``message``."""
        return self.page.locator(f".fopro-{name}").first.inner_text()

    def gain(self, place: int) -> float:
        """Return the gain beside a slider."""
        return float(self.sliders.nth(place).locator(".widget-readout").inner_text())

    def drag(self, place: int, share: float) -> None:
        """Drag a slider with the mouse: 0 is its left end, 1 its right end."""
        slider = self.sliders.nth(place)
        slider.scroll_into_view_if_needed()
        handle = slider.locator(".noUi-handle").bounding_box()
        track = slider.locator(".noUi-base").bounding_box()
        middle = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, middle)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + share * track["width"], middle, steps=8)
        self.page.mouse.up()

    def press(self, place: int, *keys: str) -> None:
        """Give a slider the focus and press keys, one after the other."""
        self.sliders.nth(place).locator(".noUi-handle").focus()
        for key in keys:
            self.page.keyboard.press(key)

    def save(self, name: str) -> str:
        """Type a name, press *Save* and return the message."""
        self.page.locator(".fopro-preset-name input").fill(name)
        self.page.keyboard.press("Tab")
        before = self.text("message")
        self.page.locator("button.fopro-save").click()
        return wait_for(lambda: self.text("message"), lambda text: text != before and name in text)


def wait_for(ask, enough):
    """Ask until the answer is enough, and return it; fail with the last answer if none was."""
    end = time.monotonic() + WITHIN
    while True:
        answer = ask()
        if enough(answer):
            return answer
        assert time.monotonic() < end, f"after {WITHIN} s still {answer!r:.300}"
        time.sleep(0.1)


def play(explorer: ExplorerPage) -> None:
    """Move a band by mouse and by keys, and see everything answer."""
    pictures = {part: explorer.picture(part) for part in ("images", "profile")}
    readout = explorer.text("readout")
    teacher = wait_for(lambda: explorer.text("teacher"), lambda text: "updating" not in text)
    explorer.drag(1, 0.0)
    wait_for(lambda: explorer.gain(1), lambda gain: gain == 0.0)
    wait_for(lambda: explorer.text("readout"), lambda text: text != readout)
    for part, before in pictures.items():
        wait_for(lambda part=part: explorer.picture(part), lambda now, before=before: now != before)
    new = wait_for(lambda: explorer.text("teacher"), lambda t: t != teacher and "updating" not in t)
    assert "drift (1 - cos)" in new.replace("\xa0", " ")
    readout = explorer.text("readout")
    explorer.press(1, "ArrowRight", "ArrowRight")
    stepped = wait_for(lambda: explorer.gain(1), lambda gain: gain > 0)
    assert stepped < 0.5, "a key is a small step"
    wait_for(lambda: explorer.text("readout"), lambda text: text != readout)
