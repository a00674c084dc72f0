"""`fopro probe`: a teacher's card by its notebook, with a student, and cards side by side."""

import re
import sys

import pandas as pd
import pytest

from fopro_lab import cli
from fopro_lab.config import DataConfig, ProbeConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from
from fopro_lab.models import load_from
from fopro_lab.probing import TeacherCard, teacher_card
from fopro_lab.training import distill
from fopro_lab.training.run_folder import TrainedRun

DATA = {"images": 120, "image_size": 24}
SMALL = {"rings": 3, "gains": [0.0], "band_gains": [0.0], "resamples": 50, "probe_images": 12}
SMALL |= {"band_images": 4, "heat_images": 8, "cutoffs": [0.2]}


def settings(**values):
    return [f"--set={name}={value}" for name, value in (DATA | SMALL | values).items()]


@pytest.fixture(scope="module")
def fopro():
    def run(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["fopro", *map(str, words)])
            with pytest.raises(SystemExit) as left:
                cli.main()
        return left.value.code or 0

    return run


@pytest.fixture(scope="module")
def cards(fopro, tmp_path_factory):
    """Two cards of the built-in teacher: one with a student, one with another normalisation."""
    out = tmp_path_factory.mktemp("cards")
    distill(TrainConfig(method="bsm", epochs=1, **DATA), out=out / "run", verbose=False)
    assert fopro("probe", "--out", out / "one", *settings(student_run=out / "run")) == 0
    other = {"teacher_mean": [0.2] * 3, "teacher_std": [0.9] * 3, "heat_map": "off"}
    config = ProbeConfig.from_mapping(DATA | SMALL | other)
    packed, split = prepare(config)
    counts = split.class_counts(packed.dataset)
    groups = groups_from(config, packed.dataset.class_names, counts)
    card = teacher_card(load_from(config), packed, split, config, groups=groups)
    card.write(out / "two")
    return out


def test_the_page_shows_every_figure_and_needs_no_network(cards):
    page = (cards / "one/index.html").read_text()
    drawn = list((cards / "one").glob("*.png"))
    assert len(drawn) >= 14 and page.count('src="data:image/png') == len(drawn)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    card = TeacherCard.read(cards / "one")
    for line in card.findings():
        assert line.partition("'")[0] in page
    assert card.summary["classifiers"] == ["probe", "student"]
    assert (cards / "one/heat_map_error_student.png").exists()


def test_a_student_of_another_split_or_size_is_refused(cards):
    run = TrainedRun.read(cards / "run")
    for other, complaint in (
        ({"split_seed": 1}, "was trained on another split"),
        ({"image_size": 32}, "sees images of 24 px, got 32; use image_size=24"),
    ):
        packed, split = prepare(DataConfig.from_mapping(DATA | other))
        with pytest.raises(InputError, match=complaint):
            run.classifier(packed, split)


def test_cards_are_compared(fopro, cards, capsys):
    assert fopro("probe", "--compare", cards / "one", cards / "two", "--out", cards / "both") == 0
    assert capsys.readouterr().out.strip() == str(cards / "both/index.html")
    page = (cards / "both/index.html").read_text()
    assert "builtin (one), builtin (two): preferences" in page and "corrected p" in page
    distances = pd.read_csv(cards / "both/distances.csv")
    assert len(distances) == 1 and (distances["distance"] > 0).all() and "p_holm" in distances
    drawn = sorted(path.name for path in (cards / "both").glob("*.png"))
    assert drawn == ["class_bands_gain_0.png", "distances.png", "preferences_gain_0.png"]


def test_wrong_input_is_refused_in_one_line(fopro, cards, capsys):
    for words, complaint in (
        (("probe", "--compare", cards / "one"), "--compare: expected two or more folders"),
        (("probe", "--compare", cards, cards / "one"), "expected a card of `fopro probe`"),
        (("probe", cards / "one"), "folders are taken with --compare"),
    ):
        assert fopro(*words) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("fopro: ") and complaint in said
