"""`fopro probe`: students that do not fit, and cards side by side."""

import shutil

import pytest

from fopro_lab.config import DataConfig, ProbeConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.models import load_teacher
from fopro_lab.probing import compare_cards, read_cards, teacher_card
from fopro_lab.training import distill
from tests.conftest import refuses

DATA = {"images": 120, "image_size": 24}
SMALL = {"rings": 3, "gains": [0.0], "band_gains": [0.0], "resamples": 50, "probe_images": 12}
SMALL |= {"band_images": 4, "heat_images": 8}


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """A card of the built-in teacher and its copy; what `fopro probe` runs is in test_notebooks."""
    out = tmp_path_factory.mktemp("cards")
    packed, split = prepare(DataConfig(**DATA))
    groups = dict.fromkeys(packed.dataset.class_names, "head")
    config = ProbeConfig(**SMALL)
    teacher_card(load_teacher("builtin"), packed, split, config, groups=groups).write(out / "one")
    shutil.copytree(out / "one", out / "two")
    return out


def test_a_student_of_another_split_or_size_is_refused(tmp_path):
    run = distill(TrainConfig(method="bsm", epochs=1, **DATA), out=tmp_path, verbose=False)
    for other, complaint in (
        ({"split_seed": 1}, "was trained on another split"),
        ({"image_size": 32}, "sees images of 24 px, got 32; use image_size=24"),
    ):
        packed, split = prepare(DataConfig.from_mapping(DATA | other))
        refuses(complaint, run.classifier, packed, split)


def test_cards_are_compared_by_notebook_08(fopro, cards, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "fopro_lab.reports.execute_notebook", lambda *a, **k: asked.append((a, k)) or ("", "page")
    )
    folders = [str(cards / "one"), str(cards / "two")]
    code, out, _ = fopro("probe", "--compare", *folders, "--out", cards / "both")
    assert (code, out.strip()) == (0, "page")
    assert asked == [(("08_teachers", {"cards": folders}), {"out": cards / "both"})]
    (line,) = compare_cards(read_cards(folders)).findings()  # one teacher twice
    assert line.startswith("builtin (one), builtin (two): preferences do not differ clearly")


def test_wrong_input_is_refused_in_one_line(fopro, cards):
    for words, complaint in (
        (("--compare", cards / "one"), "--compare: expected two or more folders"),
        (("--compare", cards, cards / "one"), "expected a card of `fopro probe`"),
        ((cards / "one",), "folders are taken with --compare"),
    ):
        code, _, error = fopro("probe", *words)
        said = error.strip().splitlines()[-1]
        assert code == 2 and said.startswith("fopro: ") and complaint in said
