import base64

import pytest

from fopro_lab.data import open_dataset, pack
from fopro_lab.errors import InputError
from fopro_lab.lab import BandExplorer
from fopro_lab.models import load_teacher

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    dataset = open_dataset("phantom", pictures=24)
    return pack(dataset, 32, cache=tmp_path_factory.mktemp("cache"), progress=False)


@pytest.fixture
def explorer(packed):
    return BandExplorer(packed, rings=3)


def test_band_explorer_follows_a_slider_at_once(explorer):
    before = explorer.pictures.value, explorer.profile.value
    explorer.sliders[1].value = 2.0
    assert explorer.view.profile["gain"].tolist() == [1.0, 2.0, 1.0, 1.0]
    assert explorer.view.profile["after"][1] == pytest.approx(
        2 * explorer.view.profile["before"][1], rel=1e-5
    )
    assert explorer.pictures.value != before[0] and explorer.profile.value != before[1]


def test_band_explorer_back_at_one_shows_what_it_showed(explorer):
    before = explorer.pictures.value, explorer.profile.value
    explorer.sliders[0].value = 0.0
    explorer.sliders[0].value = 1.0
    assert (explorer.pictures.value, explorer.profile.value) == before


def test_band_explorer_presets_redraw_once(explorer, monkeypatch):
    drawn = []
    look = explorer._look
    monkeypatch.setattr(explorer, "_look", lambda *args: drawn.append(1) or look(*args))
    explorer.ring.value = 1
    explorer.buttons["low-pass"].click()
    assert explorer.gains == [1.0, 1.0, 0.0, 0.0] and len(drawn) == 1
    explorer.buttons["identity"].click()
    assert explorer.gains == [1.0] * 4


def test_band_explorer_keeps_the_gains_when_another_picture_is_chosen(explorer):
    explorer.sliders[2].value = 3.0
    before = explorer.view.before
    explorer.picture.value = explorer.picture.options[1][1]
    assert (explorer.view.before != before).any() and explorer.gains[2] == 3.0


def test_band_explorer_reads_out_the_teachers_drift(packed):
    explorer = BandExplorer(packed, rings=2, teacher=load_teacher("builtin"))
    assert "Teacher drift 0.0000 (1 - cos)" in explorer.readout.value
    explorer.sliders[0].value = 0.0
    assert explorer.view.drift > 1e-4
    assert f"Teacher drift {explorer.view.drift:.4f}" in explorer.readout.value


def test_band_explorer_shows_a_still_where_there_is_no_front_end(explorer):
    bundle = explorer._repr_mimebundle_()
    assert WIDGET in bundle
    assert base64.b64decode(bundle["image/png"])[1:4] == b"PNG"
    assert len(explorer.still().axes) == 1 + 2 * 4


def test_band_explorer_has_labels_with_frequencies(explorer):
    assert [s.description for s in explorer.sliders][-1] == "0.5 to 0.75"
    assert all(s.min == 0 and s.max == 4 and s.value == 1 for s in explorer.sliders)


def test_band_explorer_offers_the_first_picture_of_each_class(explorer, packed):
    assert len(explorer.picture.options) == len(packed.dataset.class_names)


def test_band_explorer_refuses_a_row_that_there_is_not(packed):
    with pytest.raises(InputError, match=r"rows: expected up to 200, from 0 to 23, got \[24\]"):
        BandExplorer(packed, rows=[24])
