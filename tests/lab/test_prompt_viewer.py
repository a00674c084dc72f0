import base64
import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fopro_lab.errors import InputError
from fopro_lab.evaluation import runs as reading
from fopro_lab.evaluation.runs import read_mask_histories, read_mask_history
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import run_folder as masks
from fopro_lab.widgets.viewers import PromptViewer

WIDGET = "application/vnd.jupyter.widget-view+json"


def write(folder, *, steps=(0, 3, 6), explorations=1, seed=0):
    """Explorations of a prompt that wanders."""
    source = torch.Generator().manual_seed(seed)
    prompt, taken = FourierPrompt("shared", size=16, rows=6), []
    for number in range(1, explorations + 1):
        record = masks.MaskHistory(number, frozenset(steps))
        for step in range(max(steps) + 1):
            record.look(prompt, step)
            with torch.no_grad():
                prompt.cells.add_(0.2 * torch.randn(prompt.shape, generator=source))
        taken += record.masks
    masks.write_masks(folder, taken)
    return folder


@pytest.fixture
def viewer(tmp_path):
    return PromptViewer([write(tmp_path / "a"), write(tmp_path / "b", steps=(0, 4), seed=1)])


def table(gains=(1.0, 2.0)):
    return pd.DataFrame(
        {"exploration": 1, "step": [0, 5], "low": 0.0, "high": 0.75, "gain": list(gains)}
    )


def pixels(viewer):
    return np.asarray(Image.open(io.BytesIO(viewer.image.value)))


def test_training_and_reading_agree_on_the_files():
    assert (reading.RINGS_FILE, reading.MAPS_FILE) == (masks.RINGS_FILE, masks.MAPS_FILE)


def test_prompt_viewer_joins_the_times_of_its_runs_and_opens_at_the_last(viewer):
    assert viewer.times == [(1, 0), (1, 3), (1, 4), (1, 6)]
    assert viewer.time == (1, 6)
    assert [film.at((1, 4)) for film in viewer.films] == [1, 1]


def test_prompt_viewer_shows_the_masks_of_the_time(viewer):
    viewer.slider.index = 1
    panel = viewer._panel
    shown = [image.get_array() for image in panel.images]
    np.testing.assert_array_equal(shown[0], np.log2(viewer.films[0].planes[1]))
    np.testing.assert_array_equal(shown[1], np.log2(viewer.films[1].planes[0]))
    np.testing.assert_array_equal(panel.lines[0].get_ydata()[:-1], viewer.films[0].rings[1])
    told = [title.get_text() for title in panel.titles]
    assert told == ["exploration 1, step 3", "exploration 1, step 0"]


def test_prompt_viewer_draws_the_same_image_at_the_same_time(viewer):
    last = viewer.image.value
    viewer.slider.index = 0
    first = viewer.image.value
    assert first != last
    for index in (2, 3, 1, 0):
        viewer.slider.index = index
    assert viewer.image.value == first  # nothing of the times between is left in it


def test_prompt_viewer_draws_what_matplotlib_would_draw_afresh(viewer):
    viewer.slider.index = 1
    shown = pixels(viewer).astype(int)
    for artist in viewer._panel._moving:
        artist.set_animated(False)
    viewer._panel.canvas.draw()
    fresh = np.asarray(viewer._panel.canvas.buffer_rgba())[..., :3].astype(int)
    # A line over an axis' spine or grid may differ; a mask that is not drawn would be everywhere.
    assert (np.abs(shown - fresh).max(axis=2) > 40).mean() < 0.002


def test_prompt_viewer_scale_is_the_same_at_all_times_and_for_all_runs(viewer):
    limits = {image.get_clim() for image in viewer._panel.images}
    (only,) = limits
    largest = max(np.abs(np.log2(film.planes)).max() for film in viewer.films)
    assert only == pytest.approx((-largest, largest))


def test_prompt_viewer_takes_a_table_and_draws_its_rings():
    viewer = PromptViewer(table())
    assert not viewer.films[0].whole
    assert viewer.films[0].planes[1].max() == 2.0 and viewer.films[0].planes[1][32, 32] == 1.0
    assert "ring means" in viewer._panel.images[0].axes.get_xlabel()


def test_prompt_viewer_shows_a_still_where_there_is_no_front_end(viewer):
    bundle = viewer._repr_mimebundle_()
    assert WIDGET in bundle and base64.b64decode(bundle["image/png"])[1:4] == b"PNG"
    still = viewer.still()
    titles = [ax.get_title(loc="left") for ax in still.axes[:4]]
    assert titles == [
        "exploration 1, step 0",
        "exploration 1, step 3",
        "exploration 1, step 6",
        "Mean gain of each ring",
    ]


def test_prompt_viewer_keeps_no_image_of_before(viewer):
    artists = len(viewer._panel.figure.findobj())
    for index in (0, 1, 2, 3) * 5:
        viewer.slider.index = index
    assert len(viewer._panel.figure.findobj()) == artists


def test_titles_of_a_mapping_name_the_films():
    assert [film.name for film in read_mask_histories({"one": table(), "two": table()})] == [
        "one",
        "two",
    ]


@pytest.mark.parametrize("gain", [0.0, -1.0, np.nan, np.inf])
def test_film_refuses_a_gain_that_is_none(gain):
    with pytest.raises(InputError, match=r"table: expected a finite gain above 0"):
        read_mask_history(table((1.0, gain)))


def test_film_refuses_a_table_without_a_column():
    with pytest.raises(InputError, match="got no column 'gain'"):
        read_mask_history(table().drop(columns="gain"))


def test_film_refuses_a_folder_without_masks_and_a_damaged_one(tmp_path):
    with pytest.raises(InputError, match=r"exploration_gains\.parquet: no such file; training"):
        read_mask_history(tmp_path)
    write(tmp_path)
    (tmp_path / masks.MAPS_FILE).write_bytes(b"no tensors")
    with pytest.raises(InputError, match="expected whole files of masks"):
        read_mask_history(tmp_path)
