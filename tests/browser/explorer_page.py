"""What a hand does with a band explorer in a page: drag, press keys, read, save."""

import time

WITHIN = 60.0  # seconds, on a busy machine; how fast a slider answers is timed in benchmarks/


class ExplorerPage:
    """A band explorer in a page of Playwright."""

    def __init__(self, page) -> None:
        self.page = page
        self.sliders = page.locator(".fopro-band-slider")

    def picture(self, name: str) -> bytes:
        """Take a picture of the part ``images``, ``strip`` or ``equaliser``."""
        return self.page.locator(f".fopro-{name}").first.screenshot()

    def text(self, name: str) -> str:
        """Read the part ``readout``, ``drift``, ``classes`` or ``message``."""
        return self.page.locator(f".fopro-{name}").first.inner_text()

    def gain(self, place: int) -> float:
        """Return the gain beside a slider."""
        return float(self.sliders.nth(place).locator(".widget-readout").inner_text())

    def answer(self, name: str, before: str = "") -> str:
        """Wait until the part ``drift`` or ``classes`` is no longer greyed, and read it."""
        settled = self.page.locator(f".fopro-{name}:not(.pending)")
        return wait_for(
            lambda: self.text(name), lambda text: text not in ("", before) and settled.count() == 1
        )

    def drag(self, place: int, share: float) -> None:
        """Drag a slider with the mouse: 0 is its lower end, 1 its upper end."""
        slider = self.sliders.nth(place)
        slider.scroll_into_view_if_needed()
        handle = slider.locator(".noUi-handle").bounding_box()
        track = slider.locator(".noUi-base").bounding_box()
        middle = handle["x"] + handle["width"] / 2
        self.page.mouse.move(middle, handle["y"] + handle["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(middle, track["y"] + (1 - share) * track["height"], steps=8)
        self.page.mouse.up()

    def drag_ring(self, radius: float, up: float) -> None:
        """Drag the spectrum at this frequency up by a share of its height."""
        box = self.page.locator(".fopro-images .spectrum").bounding_box()
        x, y = box["x"] + (0.5 + radius) * box["width"], box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x, y - up * box["height"], steps=6)
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
    pictures = {part: explorer.picture(part) for part in ("images", "strip", "equaliser")}
    readout = explorer.text("readout")
    drift, classes = explorer.answer("drift"), explorer.answer("classes")
    assert explorer.gain(0) == 2.0, "it opens with the ring amplified that the teacher hears most"
    explorer.drag(1, 0.0)
    wait_for(lambda: explorer.gain(1), lambda gain: gain == 0.0)
    wait_for(lambda: explorer.text("readout"), lambda text: text != readout)
    for part, before in pictures.items():
        wait_for(lambda part=part: explorer.picture(part), lambda now, before=before: now != before)
    assert "(1 - cos)" in explorer.answer("drift", drift)
    explorer.answer("classes", classes)
    readout = explorer.text("readout")
    explorer.press(1, "ArrowUp", "ArrowUp")
    stepped = wait_for(lambda: explorer.gain(1), lambda gain: gain > 0)
    assert stepped < 0.5, "a key is a small step"
    wait_for(lambda: explorer.text("readout"), lambda text: text != readout)
    explorer.page.get_by_role("button", name="Reset").click()
    wait_for(lambda: explorer.text("readout"), lambda text: "Changed by 0.0000" in text)
    explorer.drag_ring(0.09, 0.25)  # the second ring of eight, by a quarter of the range
    raised = wait_for(lambda: explorer.gain(1), lambda gain: gain == 2.0)
    assert raised == 2.0 and explorer.gain(0) == explorer.gain(2) == 1.0
