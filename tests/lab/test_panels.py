import io

import numpy as np
import pytest
import torch
from PIL import Image

from fopro_lab.fourier import ring_gain
from fopro_lab.widgets.bands import GAP, BandLens, ProfilePanel, image_panel

EDGES = [0, 0.25, 0.5, 0.75]


@pytest.fixture
def lens():
    return BandLens(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)))


def gain_of(*gains):
    return ring_gain(torch.tensor([gains]), EDGES, height=32, width=32)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_image_panel_shows_both_images_enlarged_by_a_whole_factor(lens):
    view = lens.look(gain_of(1.0, 0.0, 1.0))
    shown = pixels(image_panel(view, floor=-3.0, ceiling=5.0))
    assert shown.shape == (224, 3 * 224 + 2 * GAP, 3)
    np.testing.assert_array_equal(shown[::7, :224:7], view.before)
    np.testing.assert_array_equal(shown[::7, 224 + GAP : 2 * 224 + GAP : 7], view.after)


def test_image_panel_outlines_changed_rings_alone(lens):
    def white(gains):
        view = lens.look(gain_of(*gains))
        spectrum = pixels(image_panel(view, floor=-3.0, ceiling=5.0))[::7, -224::7]
        return np.argwhere((spectrum == 255).all(axis=-1))

    assert len(white([1.0, 1.0, 1.0])) == 0
    radius = np.hypot(*(white([0.0, 1.0, 1.0]) - 16).T) / 32
    # the outline of ring 0 lies at 0.25; a bin is 1 / 32 wide
    assert len(radius) and (abs(radius - 0.25) < 0.05).all()


def test_profile_panel_moves_one_line_and_keeps_its_axes(lens):
    plain = lens.look(gain_of(1.0, 1.0, 1.0))
    panel = ProfilePanel(plain)
    limits = panel.figure.axes[0].get_ylim()
    view = lens.look(gain_of(1.0, 2.0, 0.0))
    first, second = panel.draw(view), panel.draw(view)
    assert first == second != panel.draw(plain)
    assert panel.figure.axes[0].get_ylim() == limits
    panel.draw(view)
    heights, place = panel.after.get_ydata(), view.edges.index(0.375)
    assert heights[place] == pytest.approx(2 * view.contrast[0][place], rel=1e-5)
    assert heights[-1] == panel.floor
    shown = pixels(panel.draw(view))
    assert (shown == [213, 94, 0]).all(axis=-1).sum() > 100  # the line is there, in its colour
