import json

import numpy as np
import pytest
from PIL import Image

from fopro_lab.errors import InputError
from fopro_lab.reports.pages import make_gallery


@pytest.fixture
def report(tmp_path):
    """A finished report of three notebooks, two of one entry, with figures and a table."""
    nodes = [
        {"name": name, "entry": entry, "state": "done", "folder": name}
        for name, entry in (("tail", "tail"), ("run-0", "run"), ("run-1", "run"))
    ]
    facts = {"Plan": "plans/toy.yaml", "Settings": "none", "Commit": "abc123", "Finished": "today"}
    folder = tmp_path / "report"
    rng = np.random.default_rng(0)
    for name, file, size in (
        ("tail", "class_recall.png", 8),
        ("tail", "noise.png", 700),
        ("run-0", "learned_mask.png", 8),
        ("run-1", "learned_mask.png", 8),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, size=(size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / file)
    (folder / "tail" / "headline.csv").write_text("method\nbsm\n")
    (folder / "report.json").write_text(
        json.dumps({"title": "A toy", "nodes": nodes, "facts": facts})
    )
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_gallery_takes_the_usual_files_as_they_are_and_says_where_from(report, tmp_path):
    out = tmp_path / "gallery"
    readme = make_gallery(report, out=out)
    assert names(out) == ["README.md", "class_recall.png", "headline.csv", "manifest.json"]
    copied = (out / "class_recall.png").read_bytes()
    assert copied == (report / "tail" / "class_recall.png").read_bytes()
    told = readme.read_text()
    assert "commit abc123" in told and "fopro report plans/toy.yaml" in told and "today" in told
    manifest = json.loads((out / "manifest.json").read_text())
    [entry] = [each for each in manifest["files"] if each["file"] == "class_recall.png"]
    assert entry["from"] == "tail/class_recall.png" and entry["sha256"] == entry["of"]


def test_gallery_made_twice_is_the_same_to_the_byte(report, tmp_path):
    parts = [make_gallery(report, out=tmp_path / "g", chosen=["noise.png"], limit=400)]
    first = {path.name: path.read_bytes() for path in (tmp_path / "g").iterdir()}
    parts.append(make_gallery(report, out=tmp_path / "g", chosen=["noise.png"], limit=400))
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "g").iterdir()}


def test_gallery_shrinks_what_is_over_the_limit_and_says_so(report, tmp_path):
    readme = make_gallery(report, out=tmp_path, chosen=["tail/noise.png"], limit=400)
    assert (tmp_path / "noise.png").stat().st_size <= 400_000
    assert (report / "tail" / "noise.png").stat().st_size > 400_000
    with Image.open(tmp_path / "noise.png") as small:
        assert f"shrunk to {small.width} px" in readme.read_text()


def test_gallery_takes_what_is_asked_for_under_names_that_differ(report, tmp_path):
    make_gallery(report, out=tmp_path / "g", chosen=["learned_mask.png"])
    assert [name for name in names(tmp_path / "g") if name.endswith(".png")] == [
        "run-0-learned_mask.png",
        "run-1-learned_mask.png",
    ]


def test_gallery_forgets_its_earlier_files_and_no_others(report, tmp_path):
    out = tmp_path / "g"
    make_gallery(report, out=out)
    (out / "mine.png").write_bytes(b"mine")
    make_gallery(report, out=out, chosen=["headline.csv"])
    assert names(out) == ["README.md", "headline.csv", "manifest.json", "mine.png"]


def test_gallery_refuses_an_incomplete_report(report, tmp_path):
    told = json.loads((report / "report.json").read_text())
    told["nodes"][1]["state"] = "failed"
    (report / "report.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"expected a complete report, got run-0 failed; run `fop"):
        make_gallery(report, out=tmp_path / "g")
    assert not (tmp_path / "g").exists()


def test_gallery_refuses_a_file_that_is_not_there_and_a_damaged_report(report, tmp_path):
    with pytest.raises(
        InputError, match=r"--take: .* has no 'tail/clas_recall.png'; .*class_recall"
    ):
        make_gallery(report, out=tmp_path / "g", chosen=["tail/clas_recall.png"])
    (report / "report.json").write_text("[]")
    with pytest.raises(InputError, match="expected a report's own file"):
        make_gallery(report, out=tmp_path / "g")


def test_gallery_is_a_command(report, tmp_path, fopro, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, told, _ = fopro("gallery", report)
    assert (code, told.strip()) == (0, "reports/gallery/report/README.md")
    code, _, complaint = fopro("gallery", tmp_path / "nowhere")
    assert code == 2 and "no such file" in complaint


def test_gallery_says_which_image_is_over_the_limit_at_its_smallest(report, tmp_path):
    with pytest.raises(InputError, match=r"noise.png: takes \d+ kB at \d+ px, more than the 1"):
        make_gallery(report, out=tmp_path, chosen=["tail/noise.png"], limit=1)
    assert not (tmp_path / "noise.png").exists()
