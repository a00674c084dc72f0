"""Notebooks run by papermill itself: results lie where they are looked for, and nowhere else."""

from pathlib import Path

import papermill
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SMALL = "method: bsm\nepochs: 1\nimage_size: 16\noptions: {images: 120, threads: 1}\n"


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in str(path)}


@pytest.mark.slow
def test_results_lie_below_the_current_folder_or_fopro_home_and_nowhere_else(
    tmp_path, monkeypatch, forked_kernels
):
    before = {name: files(ROOT / name) for name in ("notebooks", "reports")}
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.delenv("FOPRO_HOME", raising=False)

    def run(name: str, cwd: Path, **parameters: object) -> None:
        cwd.mkdir()
        monkeypatch.chdir(cwd)
        book = str(ROOT / f"notebooks/{name}.ipynb")
        papermill.execute_notebook(book, "out.ipynb", parameters, progress_bar=False)

    run("04_train", here, **yaml.safe_load(SMALL))
    assert {path.name for path in here.iterdir()} == {"out.ipynb", "reports", "runs"}
    (folder,) = (here / "runs").iterdir()
    assert (folder / "manifest.json").is_file()
    monkeypatch.setenv("FOPRO_HOME", str(here))
    run("05_tail_accuracy", there, resamples=20)
    assert files(there) == {"out.ipynb"}
    assert {path.name for path in (here / "reports").iterdir()} == {"04_train", "05_tail_accuracy"}
    assert (here / "reports/05_tail_accuracy/headline.csv").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"here", "there"}
    assert before == {name: files(ROOT / name) for name in before}
