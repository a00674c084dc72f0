"""What a hand does with a band explorer in a page: drag, press keys, read, pin."""

import time

ANSWERS_WITHIN = (
    60.0  # seconds, on a busy machine; what is meant to be at once is timed in the bench
)


class ExplorerPage:
    """A shown band explorer.

    Args:
        page: Of Playwright, with the explorer's sliders in it.
    """

    def __init__(self, page) -> None:
        self.page = page
        self.sliders = page.locator(".fopro-band-slider")

    def images(self) -> bytes:
        """Return what is seen of image before, after and spectrum, as a PNG."""
        return self.page.locator(".fopro-images").first.screenshot()

    def profile(self) -> bytes:
        """Return what is seen of the radial profile, as a PNG."""
        return self.page.locator(".fopro-profile").first.screenshot()

    def readout(self) -> str:
        """Return the line below them."""
        return self.page.locator(".fopro-readout").first.inner_text()

    def teacher(self) -> str:
        """Return what is said of the teacher."""
        return self.page.locator(".fopro-teacher").first.inner_text()

    def gain(self, place: int) -> float:
        """Return the gain that stands beside a slider."""
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
        handle = self.sliders.nth(place).locator(".noUi-handle")
        handle.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def pin(self, name: str) -> str:
        """Type a name, press *Pin* and return what is said then."""
        self.page.locator(".fopro-pin-name input").fill(name)
        self.page.keyboard.press("Tab")
        before = self.message()
        self.page.locator("button.fopro-pin").click()
        return wait_for(self.message, lambda told: told != before and name in told)

    def message(self) -> str:
        """Return the line for what was done or refused."""
        return self.page.locator(".fopro-message").first.inner_text()


def wait_for(ask, enough, *, within: float = ANSWERS_WITHIN):
    """Ask until the answer is enough; return it.

    Raises:
        AssertionError: With the last answer, if none was in time.
    """
    end = time.monotonic() + within
    while True:
        answer = ask()
        if enough(answer):
            return answer
        assert time.monotonic() < end, f"after {within} s still {answer!r:.300}"
        time.sleep(0.1)


def play(explorer: ExplorerPage, shots, name: str) -> None:
    """Move a band by mouse and by keys, and see everything answer."""
    images, profile, readout = explorer.images(), explorer.profile(), explorer.readout()
    teacher = wait_for(explorer.teacher, lambda told: "updating" not in told)
    explorer.page.screenshot(path=shots / f"{name}_before.png")
    explorer.drag(1, 0.0)
    wait_for(lambda: explorer.gain(1), lambda gain: gain == 0.0)
    wait_for(explorer.readout, lambda told: told != readout)
    wait_for(explorer.images, lambda seen: seen != images)
    wait_for(explorer.profile, lambda seen: seen != profile)
    wait_for(explorer.teacher, lambda told: told != teacher and "updating" not in told)
    readout = explorer.readout()
    explorer.press(1, "ArrowRight", "ArrowRight")
    stepped = wait_for(lambda: explorer.gain(1), lambda gain: gain > 0)
    assert 0 < stepped < 0.5, "a key is a small step"
    wait_for(explorer.readout, lambda told: told != readout)
    explorer.page.screenshot(path=shots / f"{name}_after.png")
