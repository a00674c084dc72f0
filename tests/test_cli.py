"""What each command prints, and one clear line for every wrong input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fopro_lab.evaluation import load_runs


def images(folder: Path, *, each: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for name in "abc":
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}{number}.png")
    return folder


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("fopro: ")]


def test_help_needs_neither_torch_nor_pandas():
    code = (
        "import sys; sys.argv = ['fopro', '--help']\n"
        "from fopro_lab import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip().endswith("set()")
    for command in ("data", "teachers", "train", "probe", "report", "compare", "explore"):
        assert command in told.stdout


def test_python_m_is_the_same_command():
    words = [sys.executable, "-m", "fopro_lab", "train", "--set", "epoch=3"]
    told = subprocess.run(words, capture_output=True, text=True)
    assert told.returncode == 2 and told.stdout == ""
    assert told.stderr == "fopro: epoch: not a name of TrainConfig; did you mean 'epochs'?\n"


def test_train_then_compare(fopro, tmp_path):
    small = ["--set=images=96", "--set=image_size=24", "--set=epochs=1", "--set=batch_size=16"]
    for method in ("bsm", "ekd"):
        out = tmp_path / method
        code, told, _ = fopro("train", "--out", out, *small, f"--set=method={method}")
        assert code == 0 and "balanced_accuracy" in told and str(out) in told
    assert {run.method for run in load_runs(tmp_path)} == {"bsm", "ekd"}
    code, told, _ = fopro("compare", tmp_path, "--json", "--out", tmp_path / "tables")
    rows = json.loads(told)
    assert code == 0 and {row["method"] for row in rows} == {"ekd"}
    assert (tmp_path / "tables/comparison.csv").exists()
    code, told, _ = fopro("compare", tmp_path)
    assert code == 0 and told.startswith("ekd")


def test_print_config_can_be_read_back(fopro, tmp_path):
    code, told, _ = fopro("train", "--print-config", "--set", "objectives.task=0.25")
    assert code == 0
    (tmp_path / "config.yaml").write_text(told)
    code, again, _ = fopro("train", "--print-config", "-f", tmp_path / "config.yaml")
    assert code == 0 and again == told
    assert "task: 0.25" in told and "statistics: 1.0" in told


def test_data_check_counts(fopro, tmp_path):
    folder = images(tmp_path / "data", each=8)
    code, told, _ = fopro("data", "check", "--set", f"dataset={folder}", "--json")
    facts = json.loads(told)
    assert code == 0 and facts["images"] == 24 and facts["groups in two parts"] == 0
    assert sum(row["n"] for row in facts["tables"]["counts"] if row["class"] == "a") == 8
    assert facts["groups"] == "unknown: each image is its own" and facts["sources"] == "unknown"
    assert {row["level"] for row in facts["findings"]} == {"ok", "note", "warn"}


@pytest.fixture
def executed(monkeypatch):
    """Record what notebooks a command executes, without their kernels' seconds."""
    calls = []

    def record(name, values, *, out):
        calls.append((name, values, Path(out)))
        return None, Path(out) / "index.html"

    monkeypatch.setattr("fopro_lab.reports.execute_notebook", record)
    return calls


def test_data_check_gives_one_verdict_per_line_and_ends_with_0(fopro, tmp_path, executed):
    folder = images(tmp_path / "data", each=8)
    out, setting = tmp_path / "checked", f"dataset={folder}"
    code, told, complaint = fopro("data", "check", "--set", setting, "--out", out)
    assert code == 0 and lines(complaint) == []
    verdicts = [" ".join(line.split()) for line in told.splitlines()]
    assert "ok reading all 24 images can be read" in verdicts
    assert executed == [("01_dataset", {"dataset": str(folder)}, out)]
    assert told.endswith(f"{out / 'index.html'}\n")


def test_data_check_lists_every_image_that_fails_and_ends_with_1(fopro, tmp_path, executed):
    folder = images(tmp_path / "data", each=8)
    broken = [folder / f"a/a{number}.png" for number in range(5)]
    for path in broken:
        path.write_bytes(b"no image")
    (folder / "c/c7.png").write_bytes((folder / "b/b0.png").read_bytes())
    options = ("--set", f"dataset={folder}", "--set", "image_size=16")
    code, told, complaint = fopro("data", "check", *options, "--out", tmp_path / "out")
    assert code == 1 and len(lines(complaint)) == 1
    assert lines(complaint)[0].startswith("fopro: not fit for use as it is: reading")
    assert "5 of 24 images cannot be read" in told
    for path in broken:
        assert f"unreadable: {path}: " in told
    assert "1 image copied from another" in told
    assert len(executed) == 1  # the page is written all the same


def test_teachers_check_prints_the_card(fopro):
    code, told, _ = fopro("teachers", "check", "--json")
    card = json.loads(told)
    assert code == 0 and card["coverage"] == 1.0 and len(card["sha256"]) == 64
    code, told, _ = fopro("teachers", "list")
    assert code == 0 and "timm:NAME" in told


def test_probe_executes_its_notebook(fopro, tmp_path, executed):
    code, told, _ = fopro("probe", "--out", tmp_path, "--set=rings=3", "--set=heat_map=off")
    assert (code, told) == (0, f"{tmp_path / 'index.html'}\n")
    ((name, values, out),) = executed
    assert (name, out) == ("02_teacher_frequencies", tmp_path)
    assert values.items() >= {"rings": 3, "heat_map": "off"}.items()
    code, _, complaint = fopro("probe", tmp_path)
    assert code == 2 and "folders are taken with --compare" in complaint


def no_image(folder: Path) -> None:
    (folder / "b/b1.png").write_bytes(b"no image")


def one_image(folder: Path) -> None:
    for path in sorted((folder / "c").iterdir())[1:]:
        path.unlink()


def empty(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_image, ("b1.png",)),
        (one_image, ("class 'c' has", "at least 3")),
        (empty, ("data", "image")),
    ],
)
def test_wrong_images_end_with_one_line_and_code_2(fopro, tmp_path, spoil, words):
    folder = images(tmp_path / "data")
    spoil(folder)
    out = tmp_path / "run"
    options = ("--set", f"dataset={folder}", "--set", "image_size=16", "--set", "method=bsm")
    code, told, complaint = fopro("train", *options, "--out", out)
    assert code == 2 and told == "", complaint
    assert len(lines(complaint)) == 1 and "Traceback" not in complaint
    for word in words:
        assert word in complaint
    assert not out.exists() or not any(path.is_file() for path in out.rglob("*"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dataset=nowhere", "nowhere"),
        ("epochs=0", "epochs: expected greater than or equal to 1, got 0"),
        ("method=magic", "method: expected 'ce', 'bsm', 'ekd', 'fopro' or 'random', got 'magic'"),
        ("objectives.tusk=1", "objectives"),
        ("epochs", "--set: expected name=value, got 'epochs'"),
    ],
)
def test_wrong_options_end_with_one_line_and_code_2(fopro, tmp_path, setting, words):
    code, told, complaint = fopro("train", "--set", setting, "--out", tmp_path / "run")
    assert code == 2 and told == "" and complaint.startswith("fopro: ")
    assert len(complaint.splitlines()) == 1 and words in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "stopped; what was finished is kept"),
        (ZeroDivisionError("division"), "unexpected ZeroDivisionError: division (FOPRO_DEBUG=1 "),
    ],
)
def test_interrupts_and_bugs_are_one_line_and_code_1(fopro, monkeypatch, tmp_path, error, line):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("fopro_lab.training.distill", broken)
    code, _, complaint = fopro("train", "--out", tmp_path)
    assert code == 1 and complaint.startswith(f"fopro: {line}") and complaint.count("\n") == 1
    if isinstance(error, ZeroDivisionError):
        monkeypatch.setenv("FOPRO_DEBUG", "1")
        with pytest.raises(ZeroDivisionError):
            fopro("train", "--out", tmp_path)
