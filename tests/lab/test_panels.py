import io

import numpy as np
import pytest
import torch
from PIL import Image

from fopro_lab.lab.bands import view_bands
from fopro_lab.lab.panels import GAP, ProfilePanel, picture_panel

EDGES = [0, 0.25, 0.5, 0.75]


@pytest.fixture
def image():
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_picture_panel_shows_both_pictures_enlarged_by_a_whole_factor(image):
    view = view_bands(image, [1.0, 0.0, 1.0], edges=EDGES)
    shown = pixels(picture_panel(view, floor=-3.0, ceiling=5.0))
    assert shown.shape == (224, 3 * 224 + 2 * GAP, 3)
    np.testing.assert_array_equal(shown[::7, :224:7], view.before)
    np.testing.assert_array_equal(shown[::7, 224 + GAP : 2 * 224 + GAP : 7], view.after)


def test_picture_panel_outlines_changed_rings_alone(image):
    def white(gains):
        view = view_bands(image, gains, edges=EDGES)
        spectrum = pixels(picture_panel(view, floor=-3.0, ceiling=5.0))[::7, -224::7]
        return np.argwhere((spectrum == 255).all(axis=-1))

    assert len(white([1.0, 1.0, 1.0])) == 0
    radius = np.hypot(*(white([0.0, 1.0, 1.0]) - 16).T) / 32
    # the outline of ring 0 lies at 0.25 and around zero; a bin is 1 / 32 wide
    assert len(radius) and ((abs(radius - 0.25) < 0.05) | (radius < 0.05)).all()


def test_profile_panel_moves_one_line_and_keeps_its_axes(image):
    panel = ProfilePanel(view_bands(image, [1.0, 1.0, 1.0], edges=EDGES))
    limits = panel.figure.axes[0].get_ylim()
    view = view_bands(image, [1.0, 2.0, 0.0], edges=EDGES)
    first, second = panel.draw(view), panel.draw(view)
    assert first == second
    assert panel.figure.axes[0].get_ylim() == limits
    heights = panel.after.get_ydata()
    assert heights[1] == pytest.approx(2 * view.profile["before"][1], rel=1e-5)
    assert heights[2] == panel.floor
