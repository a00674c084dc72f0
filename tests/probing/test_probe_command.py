"""`fopro probe`: a teacher's card by its notebook, with a student, and cards side by side."""

import re
import shutil
import sys

import pytest

from fopro_lab import cli
from fopro_lab.config import DataConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.probing import TeacherCard, compare_cards, read_cards
from fopro_lab.training import distill
from fopro_lab.training.run_folder import TrainedRun
from tests.conftest import refuses

DATA = {"images": 120, "image_size": 24}
SMALL = {"rings": 3, "gains": [0.0], "band_gains": [0.0], "resamples": 50, "probe_images": 12}
SMALL |= {"band_images": 4, "heat_images": 8, "cutoffs": [0.2]}


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """A card of the built-in teacher with a student, and its copy; notebook 02 runs once."""
    out = tmp_path_factory.mktemp("cards")
    distill(TrainConfig(method="bsm", epochs=1, **DATA), out=out / "run", verbose=False)
    values = DATA | SMALL | {"student_run": out / "run"}
    words = ["--out", out / "one", *(f"--set={name}={value}" for name, value in values.items())]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["fopro", "probe", *map(str, words)])
        cli.main()
    assert not left.value.code
    shutil.copytree(out / "one", out / "two")
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
