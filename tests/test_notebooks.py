"""The notebooks: clean as committed, of one form, and executed with small parameters."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

from fopro_lab.config import ProbeConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.models import load_teacher
from fopro_lab.probing import teacher_card
from fopro_lab.reports import run_plan
from fopro_lab.reports.plan import read_notebook
from fopro_lab.training import distill

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]

# 00 opens few images, 02 measures on fewer than a card, 03 trains its prompt once where 04 does
# so repeatedly.
OWN_DEFAULTS = {
    "00_start": {"images"},
    "02_teacher_frequencies": {"probe_images", "band_images"},
    "03_fourier_prompt": {"prompt_steps"},
}

NETWORK = r"""(?:src|href)=["'](?:https?:)?//|@import|fetch\("""
SMOKE = """
title: The notebooks that no plan of the docs executes, small
defaults: {images: 160, image_size: 32, rings: 2}
notebooks:
  start: {notebook: 00_start}
  explorer: {notebook: 06_band_explorer}
  claims:
    notebook: 07_claims
    parameters: {run_dirs: [OUT/runs], pairs: [[fopro, bsm]], probe_images: 8, resamples: 20}
  teachers: {notebook: 08_teachers, parameters: {cards: [OUT/card, OUT/again]}}
  control:
    notebook: 09_control
    parameters: {options: {val_fraction: 0.3}, steps: 1, resamples: 20}
  help:
    notebook: 10_when_prompts_help
    parameters:
      {options: {val_fraction: 0.3}, severities: {low-pass: [0.1]}, resamples: 20}"""


@pytest.fixture(params=NOTEBOOKS, ids=NAMES)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebook_is_committed_clean_with_title_question_steps_and_findings(notebook):
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert not cell.outputs and cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info", "fopro"}
    assert re.match(r"# .+\n\n\*\*.+\?\*\*", notebook.cells[0].source, re.DOTALL)
    assert notebook.cells[-2].source.startswith("**What was found**")
    assert "Markdown(" in notebook.cells[-1].source
    steps = [cell.cell_type for cell in notebook.cells if not is_set_up(cell)]
    assert steps[1::2] == ["markdown"] * len(steps[1::2])
    assert steps[2::2] == ["code"] * len(steps[2::2])


def is_set_up(cell):
    imports = cell.cell_type == "code" and cell.source.startswith(("from ", "import "))
    return imports or "parameters" in cell.metadata.get("tags", [])


def test_notebook_escapes_names_in_styled_tables(notebook):
    """Pandas escapes a table's text, a Styler's only if asked."""
    for cell in code_cells(notebook):
        for rest in cell.source.split(".style.")[1:] if "plt.style" not in cell.source else ():
            assert re.match(r'format\((precision=\d, )?escape="html"\)', rest), cell.source


def test_notebook_cells_are_short_define_nothing_and_explain_every_parameter(notebook):
    for cell in code_cells(notebook):
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 12, cell.source
        kinds = (ast.FunctionDef, ast.ClassDef, ast.While)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]
    (cell,) = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert re.match(r"# \w|\w+: \w+ = .+  # \w", line), line


def test_notebook_declares_few_parameters_and_takes_the_rest_as_options(path):
    book = read_notebook(path)
    assert len(book.declared) <= 15 and {"options", "out_dir"} <= set(book.declared)
    code = "\n".join(source for kind, source in book.cells if kind == "code")
    line = f"config = {book.kind.__name__}.from_parameters(globals())"
    assert code.count("from_parameters(") == 1 and line in code.splitlines()
    for name in book.declared.keys() & book.kind.model_fields.keys():
        if name not in OWN_DEFAULTS.get(path.stem, ()):
            default = book.kind.model_fields[name].get_default()
            assert json.dumps(book.declared[name]) == json.dumps(default), name


def check_pages(report: Path) -> None:
    """Hold a report to what is promised: all done, every figure once, no warning, no network."""
    nodes = json.loads((report / "report.json").read_text())["nodes"]
    assert {node["state"] for node in nodes} == {"done"}
    assert not re.findall(NETWORK, (report / "index.html").read_text())
    for page in (report / "pages").glob("*.html"):
        text = page.read_text()
        assert "Warning" not in text and not re.findall(NETWORK, text), page.name
        assert len(text) < 5_000_000
        figures = len(list((report / page.stem).glob("*.png")))
        assert text.count('src="data:image/png') == figures, page.name


@pytest.mark.slow
def test_notebooks_execute_with_small_parameters(tmp_path, monkeypatch, forked_kernels):
    """All but 01 to 05, which test_readme.py executes by a plan of the docs."""
    documented = (ROOT / "reports/plans/own.yaml").read_text()
    assert set(re.findall(r"notebook: (\w+)", SMOKE + documented)) == set(NAMES)
    data = {"images": 160, "image_size": 32, "epochs": 1, "prompt_steps": 2}
    for method in ("bsm", "fopro"):
        config = TrainConfig(method=method, threads=1, **data)
        distill(config, out=tmp_path / "runs" / method, verbose=False)
    packed, split = prepare(config, progress=False)
    groups = dict.fromkeys(packed.dataset.class_names, "head")
    small = ProbeConfig(rings=2, gains=[0.0], probe_images=8, resamples=20, heat_map="off")
    card = teacher_card(load_teacher("builtin"), packed, split, small, groups=groups)
    for name in ("card", "again"):
        card.write(tmp_path / name)
    (tmp_path / "smoke.yaml").write_text(SMOKE.replace("OUT", str(tmp_path)))
    monkeypatch.chdir(ROOT)
    run_plan(tmp_path / "smoke.yaml", out=tmp_path / "out", progress=False)
    check_pages(tmp_path / "out")
    assert 'href="pages/start.html#sliders"' in (tmp_path / "out/index.html").read_text()
    for name in ("explorer", "teachers"):
        assert list((tmp_path / "out" / name).glob("*.png")), name
