import html
import shlex
from pathlib import Path

import pytest

from fopro_lab.widgets import BandExplorer


@pytest.fixture
def explorer(prepared):
    return BandExplorer(prepared.packed, rings=3)


def test_half_a_pin_is_taken_away_so_that_its_name_is_free(explorer, tmp_path, monkeypatch):
    explorer.pins = tmp_path

    def full(*args, **keys):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fopro_lab.widgets.bands.atomic_path", full)
        assert not explorer.pin("a") and "No space left" in explorer.message.value
    assert not list(tmp_path.glob("a.*"))
    assert explorer.pin("a")


def test_the_told_command_names_a_plan_that_is_there(explorer, tmp_path):
    explorer.pins = tmp_path / "my pins"
    assert explorer.pin("a")
    told = html.unescape(explorer.message.value).split("fopro report ")[1]
    plan, _, pin = shlex.split(told.split("<br>")[0])
    assert Path(plan).is_file() and pin == "my pins/a.yaml"
