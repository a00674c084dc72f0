"""The ring sliders in a page without a kernel: what they show is what the package computes."""

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fopro_lab.fourier import apply_gain, ring_edges, ring_gain
from fopro_lab.models import wrap_teacher
from fopro_lab.probing import ring_response
from fopro_lab.reports.pages import write_notebook_page
from fopro_lab.widgets import ring_sliders
from tests.conftest import complaint

pytestmark = pytest.mark.slow

PIXELS = """(canvas) => [...canvas.getContext("2d")
  .getImageData(0, 0, canvas.width, canvas.height).data]"""


def smooth_images(size: int) -> torch.Tensor:
    noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return 0.25 * noise + 0.6 * torch.linspace(0, 1, size)[None, None, :, None] + 0.1


def small_teacher():
    """A convolution with weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (torch.nn.Conv2d(3, 16, 5), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2))
        network = torch.nn.Sequential(*layers, torch.nn.Flatten())
    return wrap_teacher(network, mean=[0.5] * 3, std=[0.2] * 3, input_size=64, feature_dim=64)


def test_an_image_without_a_title_is_refused_not_left_out():
    args = (small_teacher(), smooth_images(47), ring_edges(4))
    assert (
        complaint(ring_sliders, *args, titles=["a"]) == "titles: expected one per image, 2, got 1"
    )


def write_page(path, sliders) -> None:
    outputs = [
        new_output("display_data", data={"text/html": html})
        for html in (sliders.data, "<script>document.title = 'foreign'</script>")
    ]
    cells = [new_markdown_cell("# Rings"), new_code_cell("show()", outputs=outputs)]
    write_notebook_page(new_notebook(cells=cells), path, name="rings")


@pytest.mark.parametrize(("size", "factor", "width"), [(47, 1, 390), (260, 3, 1280)])
def test_moved_sliders_show_the_image_that_the_package_computes(
    open_offline, tmp_path, size, factor, width
):
    images, edges = smooth_images(size), ring_edges(4)
    teacher = small_teacher()
    learned = [0.5, 2.0, 0.0, 1.0, 3.0]
    write_page(
        tmp_path / "page.html",
        ring_sliders(teacher, images, edges, titles=["a", "b"], presets={"learned": learned}),
    )
    page, alarms = open_offline(tmp_path / "page.html", width=width)
    assert page.title() == "Rings", "no other script than that of the sliders is executed"
    assert all("Content Security Policy" in error for error in alarms.errors)
    assert not alarms.requests
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.inner_text(".fopro-rings tbody tr:last-child th") == "0.5 to 0.707"
    sliders = page.locator(".fopro-rings input[type=range]")
    page.locator(".fopro-rings select").select_option("b")
    gains = [1.3, 0.0, 4.0, 1.0, 2.0]
    for place, gain in enumerate(gains):
        sliders.nth(place).fill(str(gain))
    check(page, images[1:], edges, gains, factor)
    changed = apply_gain(images[1:], of_rings(gains, edges, size)) - images[1:]
    rms = float(changed.square().mean().sqrt())
    assert f"Changed by {rms:.4f} RMS" in page.inner_text(".fopro-rings .changed")
    sliders.nth(2).focus()
    page.keyboard.press("Home")
    assert sliders.nth(2).input_value() == "0", "reached and moved by keyboard"
    alone = ring_response(teacher, images[1:], edges, [0.0, 2.0], resamples=2).set_index(
        ["ring", "gain"]
    )["drift"]
    for ring, gain in ((2, 0), (4, 2)):
        shown = page.locator(".fopro-rings .drift").nth(ring).inner_text()
        assert f"at gain {gain}" in shown
        assert float(shown.split(" at")[0]) == pytest.approx(alone[ring, gain], abs=2e-4)
    page.get_by_role("button", name="learned").click()
    check(page, images[1:], edges, learned, factor)


def of_rings(gains, edges, size) -> torch.Tensor:
    return ring_gain(torch.tensor([gains]), edges, height=size, width=size)


def check(page, image, edges, gains, factor) -> None:
    """Compare the canvas with the package's image, in grey levels of 255.

    A ring is kept in 255 steps, so that levels are off by less than 1 per unit of gain; a ring that
    is taken for another, or a gain that is off by 0.1, makes several.
    """
    canvas = page.locator(".fopro-rings canvas").nth(1)
    shown = np.array(canvas.evaluate(PIXELS)).reshape(-1, 4)[:, :3]
    whole = apply_gain(image, of_rings(gains, edges, image.shape[-1]))
    small = torch.nn.functional.avg_pool2d(whole, factor)[0].clamp(0, 1)
    wanted = 255 * small.flatten(1).T.numpy()
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).max() < 2
