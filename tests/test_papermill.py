"""Notebooks run by papermill itself, from any folder: command, YAML and Python."""

import os
import subprocess
import sys
from pathlib import Path

import papermill
import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = "method: bsm\nepochs: 1\nimage_size: 16\noptions: {images: 120, threads: 1}\n"


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in str(path)}


@pytest.mark.slow
def test_results_lie_below_the_current_folder_or_fopro_home_and_nowhere_else(tmp_path, monkeypatch):
    before = {name: files(ROOT / name) for name in ("notebooks", "reports")}
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "small.yaml").write_text(SMALL)

    def run(name: str, *words: str, cwd: Path, **more: str) -> None:
        command = [sys.executable, "-m", "papermill", str(ROOT / f"notebooks/{name}.ipynb")]
        own = {k: v for k, v in os.environ.items() if k != "FOPRO_HOME"}
        how = {"cwd": cwd, "env": own | more, "capture_output": True, "text": True}
        done = subprocess.run([*command, "out.ipynb", *words], **how)
        assert done.returncode == 0, done.stderr

    run("04_train", "-f", "small.yaml", cwd=here)
    assert {path.name for path in here.iterdir()} == {"out.ipynb", "small.yaml", "reports", "runs"}
    (folder,) = (here / "runs").iterdir()
    assert (folder / "manifest.json").is_file()
    run("05_tail_accuracy", "-p", "resamples", "20", cwd=there, FOPRO_HOME=str(here))
    assert files(there) == {"out.ipynb"}
    assert {path.name for path in (here / "reports").iterdir()} == {"04_train", "05_tail_accuracy"}
    assert (here / "reports/05_tail_accuracy/headline.csv").is_file()

    monkeypatch.chdir(there)
    monkeypatch.delenv("FOPRO_HOME", raising=False)
    maker = "runs: no such folder; notebook 04_train and `fopro train` make runs"
    with pytest.raises(papermill.PapermillExecutionError, match=maker):
        papermill.execute_notebook(
            str(ROOT / "notebooks/05_tail_accuracy.ipynb"), "05.ipynb", progress_bar=False
        )
    assert files(there) == {"out.ipynb", "05.ipynb"}
    assert {path.name for path in tmp_path.iterdir()} == {"here", "there"}
    assert before == {name: files(ROOT / name) for name in before}
