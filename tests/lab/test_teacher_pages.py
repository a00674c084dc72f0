"""`fopro probe`: cards, pages, students beside teachers, and comparisons, through the door."""

import json
import re
import sys

import pandas as pd
import pytest

from fopro_lab import cli
from fopro_lab.config import ProbeConfig, TrainConfig
from fopro_lab.errors import InputError
from fopro_lab.reports.notebook_pages import ask_teacher, read_student
from fopro_lab.training import distill

SMALL = ("images=120", "image_size=24", "rings=3", "gains=[0.0]", "resamples=50")
QUICK = ("probe_images=12", "band_images=4", "heat_images=8", "cutoffs=[0.2]")


def knobs(*more):
    return [f"--set={knob}" for knob in (*SMALL, *QUICK, *more)]


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
    shared = {"images": 120, "image_size": 24}
    distill(TrainConfig(method="bsm", epochs=1, **shared), out=out / "run")
    assert fopro("probe", "--out", out / "one", *knobs(f"student_run={out / 'run'}")) == 0
    other = {"teacher_mean": [0.2] * 3, "teacher_std": [0.9] * 3, "heat_map": "off"}
    small = {"rings": 3, "gains": [0.0], "resamples": 50, "probe_images": 12}
    config = ProbeConfig.from_mapping(shared | other | small | {"band_images": 4})
    ask_teacher(config).write(out / "two")
    return out


def test_a_page_holds_every_figure_and_needs_no_network(cards):
    page = (cards / "one/index.html").read_text()
    drawn = sorted(path.name for path in (cards / "one").glob("*.png"))
    assert len(drawn) >= 12 and page.count('src="data:image/png') == len(drawn)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page) and "<script" not in page
    assert "survive Holm" in page and (cards / "one/card.json").is_file()


def test_a_student_is_asked_beside_the_probe(cards):
    bands = pd.read_parquet(cards / "one/class_bands.parquet")
    assert bands["classifier"].unique().tolist() == ["probe", "student"]
    assert (cards / "one/heat_map_error_student.png").exists()


def test_a_student_of_another_split_or_size_is_refused(cards):
    with pytest.raises(InputError, match=r"^student_run: .*: was trained on another split"):
        read_student(cards / "run", split_fingerprint="other", image_size=24)
    manifest = json.loads((cards / "run/manifest.json").read_text())
    with pytest.raises(InputError, match=r"reads images of 24 px, got 32; probe with image_size"):
        read_student(cards / "run", split_fingerprint=manifest["split_fingerprint"], image_size=32)


def test_cards_are_laid_side_by_side(fopro, cards, capsys):
    assert fopro("probe", "--compare", cards / "one", cards / "two", "--out", cards / "both") == 0
    *found, place = capsys.readouterr().out.strip().splitlines()
    assert place == str(cards / "both") and "builtin (one), builtin (two): preferences" in found[0]
    distances = pd.read_csv(cards / "both/distances.csv")
    assert len(distances) == 1 and (distances["distance"] > 0).all()
    assert (cards / "both/distances.png").exists()


def test_wrong_words_are_refused(fopro, cards, capsys):
    for words, told in (
        (("probe", "--compare", cards / "one"), "--compare: expected two or more folders"),
        (("probe", "--compare", cards, cards / "one"), "expected a card of `fopro probe`"),
        (("probe", cards / "one"), "folders are taken with --compare"),
        (("probe", *knobs("rings=20")), "edges: expected a frequency in every ring"),
    ):
        assert fopro(*words) == 2
        complaint = capsys.readouterr().err.strip().splitlines()[-1]
        assert complaint.startswith("fopro: ") and told in complaint
