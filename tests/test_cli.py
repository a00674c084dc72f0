"""What each command prints, and one clear line for every wrong input."""

import errno
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest

import fopro_lab
from fopro_lab.errors import InputError
from fopro_lab.evaluation import load_runs
from fopro_lab.training import distill
from tests.data.toys import write_images
from tests.forked import start_command


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("fopro: ")]


def test_help_the_main_names_and_reading_images_need_no_torch():
    code = (
        "import sys; sys.argv = ['fopro', '--help']\n"
        "from fopro_lab import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules))\n"
        "import fopro_lab as fl; fl.TrainConfig; print({'torch', 'pandas'} & set(sys.modules))\n"
        "import fopro_lab.data; print({'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("set()\n" * 3)
    commands = "data teachers train refine predict export probe report compare track explore init"
    assert all(command in run.stdout for command in commands.split())


def test_version_and_main_names(fopro):
    assert fopro("--version") == (0, f"{fopro_lab.__version__}\n", "")
    for name in dir(fopro_lab):
        assert getattr(fopro_lab, name) is not None
    assert fopro_lab.distill is distill and "distill" in dir(fopro_lab)
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        fopro_lab.distil  # noqa: B018


def test_help_is_in_whole_sentences_and_says_where_the_options_are(fopro, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ((), ("data",), ("teachers",)):
        code, out, _ = fopro(*words, "--help")
        lines = out.partition("Commands:")[2].splitlines()[1:]
        assert code == 0 and len(lines) >= 2
        assert all(line[-1] == "." and line[-3:] != "..." for line in lines if line), lines
    assert "docs/options.md" in fopro("--help")[1]
    for words, usage in (
        (("predict",), "[OPTIONS] RUN FOLDER"),
        (("compare",), "[OPTIONS] RUN..."),
        (("explore",), "[OPTIONS] [RUN]"),
        (("probe",), "[OPTIONS] [DIR...]"),
    ):
        _, out, _ = fopro(*words, "--help")
        assert out.splitlines()[0].endswith(f" {words[0]} {usage}")
        assert not re.search(r"<(str|list)|\{", out)


def test_python_m_is_the_same_command():
    words = [sys.executable, "-m", "fopro_lab", "train", "--set", "epoch=3"]
    run = subprocess.run(words, capture_output=True, text=True)
    line = "fopro: epoch: no such option; did you mean 'epochs'?\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", line)


def test_train_then_compare(fopro, tmp_path):
    small = ["--set=images=96", "--set=image_size=24", "--set=epochs=1", "--set=batch_size=16"]
    for method in ("bsm", "ekd"):
        folder = tmp_path / method
        code, out, _ = fopro("train", "--out", folder, *small, f"--set=method={method}")
        assert code == 0 and "balanced_accuracy" in out and str(folder) in out
    assert {run.method for run in load_runs(tmp_path)} == {"bsm", "ekd"}
    code, out, _ = fopro("compare", tmp_path, "--json", "--out", tmp_path / "tables")
    rows = json.loads(out)
    assert code == 0 and {row["method"] for row in rows} == {"ekd"}
    assert (tmp_path / "tables/comparison.csv").exists()
    code, out, _ = fopro("compare", tmp_path)
    assert code == 0 and "\nbsm " in out and "0.174" in out and "1.52" in out
    assert "ekd minus bsm, in points; 1 seed, n images:\nhead recall " in out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"\ntail recall .* undertrained\n", out)
    assert fopro("compare", tmp_path, "--effect=-1")[0] == 2
    told = out.partition("\n\n")[0].splitlines()
    assert [line for line in told if "recipe=small" in line] == told[:1], "said once"
    assert "  ekd: 1 epoch, fewer than 5" in told
    code, out, _ = fopro("refine", tmp_path / "bsm", "--set=how=tau-norm", "--set=tau=1")
    assert code == 0 and f"{tmp_path}/bsm+tau-norm: bsm+tau-norm, tau 1 (given), valid" in out
    out = fopro("compare", tmp_path, "--baseline=ekd")[1]
    assert "\nbsm+tau-norm minus ekd, in points; 1 seed" in out
    code, _, err = fopro("predict", tmp_path, tmp_path)
    assert code == 2 and f"expected a run folder, such as one of: {tmp_path}/bsm, " in err
    for _ in range(2):  # the second call does not take the result of the first
        code, out, err = fopro("refine", tmp_path, "--set=how=ensemble")
        assert code == 0 and f"{tmp_path}/bsm+ensemble-2: bsm&ekd+ensemble, valid" in out
    assert "fopro: 2 refined runs left out; name them" in err
    code, _, err = fopro("refine", tmp_path / "bsm", "--set=how=prune")
    assert code == 2 and "how: expected '' (none), 'logit-adjustment'" in err


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
    folder = write_images(tmp_path / "data", classes=3, each=8)
    options, page = ("--set", f"dataset={folder}"), tmp_path / "checked"
    code, out, err = fopro("data", "check", *options, "--out", page)
    assert code == 0 and lines(err) == []
    verdicts = [" ".join(line.split()) for line in out.splitlines()]
    assert "ok reading all 24 images can be read" in verdicts
    assert executed == [("01_dataset", {"dataset": str(folder)}, page)]
    assert out.endswith(f"{page / 'index.html'}\n")
    facts = json.loads(fopro("data", "check", *options, "--json")[1])
    assert facts["images"] == 24 and facts["groups in two parts"] == "groups unknown"
    assert sum(row["n"] for row in facts["tables"]["counts"] if row["class"] == "class0") == 8
    assert facts["groups"] == "unknown: each image is its own" and facts["sources"] == "unknown"
    assert {row["level"] for row in facts["findings"]} == {"ok", "note", "warn"}


def test_data_check_lists_every_image_that_fails_and_ends_with_1(fopro, tmp_path, executed):
    folder = write_images(tmp_path / "data", classes=3, each=8)
    broken = [folder / f"class0/{number}.png" for number in range(5)]
    for path in broken:
        path.write_bytes(b"no image")
    (folder / "class2/7.png").write_bytes((folder / "class1/0.png").read_bytes())
    options = ("--set", f"dataset={folder}", "--set", "image_size=16")
    code, out, err = fopro("data", "check", *options, "--out", tmp_path / "out")
    assert code == 1 and len(lines(err)) == 1
    assert lines(err)[0].startswith("fopro: not fit for use as it is: reading")
    assert "5 of 24 images cannot be read" in out and "1 image copied from another" in out
    assert all(f"unreadable: {path}: " in out for path in broken)
    assert len(executed) == 1  # the page is written all the same


def test_teachers_are_listed_and_checked_and_probe_executes_its_notebook(fopro, tmp_path, executed):
    code, out, _ = fopro("teachers", "check", "--json")
    card = json.loads(out)
    assert code == 0 and card["coverage"] == 1.0 and len(card["sha256"]) == 64
    code, out, _ = fopro("teachers", "list")
    assert code == 0 and "timm:NAME" in out
    code, out, _ = fopro("probe", "--out", tmp_path, "--set=rings=3", "--set=heat_map=off")
    assert (code, out) == (0, f"{tmp_path / 'index.html'}\n")
    ((name, values, out),) = executed
    assert (name, out) == ("02_teacher_frequencies", tmp_path)
    assert values.items() >= {"rings": 3, "heat_map": "off"}.items()
    code, _, err = fopro("probe", tmp_path)
    assert code == 2 and "folders are taken with --compare" in err


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ({"class1/1.png": b"no image"}, "class1/1.png"),
        (dict.fromkeys(f"class2/{i}.png" for i in (1, 2, 3)), "class 'class2' has 1"),
        (
            {f"class{c}/{i}.png": None for c in range(3) for i in range(4)},
            "expected images, found none",
        ),
    ],
)
def test_wrong_images_end_with_one_line_and_code_2(fopro, tmp_path, spoilt, words):
    folder, run = write_images(tmp_path / "data", classes=3, each=4), tmp_path / "run"
    for name, content in spoilt.items():
        (folder / name).write_bytes(content) if content else (folder / name).unlink()
    options = ("--set", f"dataset={folder}", "--set", "image_size=16", "--set", "method=bsm")
    code, out, err = fopro("train", *options, "--out", run)
    assert code == 2 and out == "" and len(lines(err)) == 1 and "Traceback" not in err
    assert words in err
    assert not any(path.is_file() for path in run.rglob("*"))


def test_wrong_options_end_with_one_line_and_code_2(fopro, tmp_path):
    for name, value in (("dataset", "nowhere"), ("epochs", "0")):
        code, out, err = fopro("train", "--set", f"{name}={value}", "--out", tmp_path / "run")
        assert code == 2 and out == "" and len(err.splitlines()) == 1
        assert err.startswith(f"fopro: {name}: expected ") and value in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.EIO, "Input/output error", "a.csv"), 1, "a.csv: input/output error"),
        (OSError(errno.EFBIG, "File too large"), 1, "file too large"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), 2, "a: file name too long"),
        (MemoryError(), 1, "memory was not enough; use a smaller batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "memory was not enough"),
        (InputError("class '\x1b[31m\n" + "x" * 5000), 2, r"class '\x1b[31m\nxxx"),
    ],
)
def test_errors_of_the_system_and_odd_text_are_one_short_line(
    fopro, monkeypatch, tmp_path, error, code, line
):
    monkeypatch.setattr("fopro_lab.training.distill", Mock(side_effect=error))
    found, _, told = fopro("train", "--out", tmp_path)
    assert found == code and told.startswith(f"fopro: {line}") and told.count("\n") == 1
    assert len(told) < 500 and "unexpected" not in told


def test_sigterm_ends_a_training_like_ctrl_c_and_it_goes_on(tmp_path):
    words = ["--set", "images=100", "--set", "image_size=16", "--set", "method=bsm"]
    words += ["--set", "device=cpu", "--set", "epochs=2000", "--out", str(tmp_path / "run")]
    process = start_command(["train", *words], str(tmp_path / "log"))
    while not (tmp_path / "run/checkpoint.pt").exists() and process.is_alive():
        time.sleep(0.2)
    process.terminate()
    process.join(timeout=60)
    told = (tmp_path / "log").read_text().splitlines()[-1]
    assert process.exitcode == 1 and "stopped, resumable: " in told
    assert (tmp_path / "run/checkpoint.pt").exists() and not list(tmp_path.rglob("*.part"))


def test_interrupts_and_bugs_are_one_line_and_code_1(fopro, monkeypatch, tmp_path):
    errors = [ZeroDivisionError("division"), KeyboardInterrupt(), ZeroDivisionError("division")]

    def broken(*_, **__):
        raise errors.pop()

    monkeypatch.setattr("fopro_lab.training.distill", broken)
    for line in (
        "unexpected ZeroDivisionError: division (FOPRO_DEBUG=1 ",
        "stopped, resumable: what was finished is kept",
    ):
        code, _, err = fopro("train", "--out", tmp_path)
        assert code == 1 and err.startswith(f"fopro: {line}") and err.count("\n") == 1
    monkeypatch.setenv("FOPRO_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        fopro("train", "--out", tmp_path)


def test_an_effect_is_asked_for_in_points(fopro, tmp_path, monkeypatch):
    asked, table = [], pd.DataFrame({"scope": ["class"], "method": ["ekd"]})
    monkeypatch.setattr("fopro_lab.evaluation.load_runs", lambda *_, **__: [])
    monkeypatch.setattr("fopro_lab.evaluation.dropped_lines", lambda *_: [])
    monkeypatch.setattr("fopro_lab.evaluation.summarise", lambda *_: None)
    compare = Mock(side_effect=lambda *_, effect: asked.append(effect) or table)
    monkeypatch.setattr("fopro_lab.evaluation.compare", compare)
    for option in ("--effect=2", "--effect=0"):
        assert fopro("compare", tmp_path, option, "--json")[0] == 0
    assert asked == [0.02, None]
