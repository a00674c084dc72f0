"""The notebooks: clean as committed, of one form, and executed with small parameters."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

from fopro_lab.reports import run_plan
from fopro_lab.reports.plan import read_notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]

# 02 measures on fewer images than a card, 03 trains its prompt once where 04 does so repeatedly.
OWN_DEFAULTS = {
    "02_teacher_frequencies": {"probe_images", "band_images"},
    "03_fourier_prompt": {"prompt_steps"},
}

NETWORK = r"""(?:src|href)=["'](?:https?:)?//|@import|fetch\("""
SMOKE = """
title: Every notebook, small
defaults: {images: 160, image_size: 32, rings: 2}
notebooks:
  dataset: {notebook: 01_dataset}
  teacher:
    notebook: 02_teacher_frequencies
    matrix: {heat_map: [blocks, off]}
    parameters: {probe_images: 8, gains: [0.0], resamples: 20}
  prompt: {notebook: 03_fourier_prompt, parameters: {prompt_steps: 2}}
  train:
    notebook: 04_train
    matrix: {method: [bsm, fopro]}
    parameters: {epochs: 1, prompt_steps: 2, threads: 1}
  tail: {notebook: 05_tail_accuracy, after: [train], parameters: {resamples: 20}}
  explorer: {notebook: 06_band_explorer}
  claims:
    notebook: 07_claims
    after: [train]
    parameters: {pairs: [[fopro, bsm]], probe_images: 8, resamples: 20}
  control:
    notebook: 09_control
    parameters: {image_size: 32, options: {val_fraction: 0.3}, steps: 1, resamples: 20}
  help:
    notebook: 10_when_prompts_help
    parameters:
      {image_size: 32, options: {val_fraction: 0.3}, severities: {low-pass: [0.1]}, resamples: 20}
  teachers:
    notebook: 08_teachers
    after: [teacher]"""


@pytest.fixture(params=NOTEBOOKS, ids=NAMES)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebook_is_committed_without_outputs_and_counts(notebook):
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert not cell.outputs and cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info", "fopro"}


def test_notebook_opens_with_title_and_question_and_closes_with_what_was_found(notebook):
    assert re.match(r"# .+\n\n\*\*.+\?\*\*", notebook.cells[0].source, re.DOTALL)
    assert notebook.cells[-2].source.startswith("**What was found**")
    assert "Markdown(" in notebook.cells[-1].source


def test_notebook_has_a_sentence_before_every_step(notebook):
    steps = [cell.cell_type for cell in notebook.cells if not is_set_up(cell)]
    assert steps[1::2] == ["markdown"] * len(steps[1::2])
    assert steps[2::2] == ["code"] * len(steps[2::2])


def is_set_up(cell):
    imports = cell.cell_type == "code" and cell.source.startswith(("from ", "import "))
    return imports or "parameters" in cell.metadata.get("tags", [])


def test_notebook_cells_are_short_and_define_nothing(notebook):
    for cell in code_cells(notebook):
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 12, cell.source
        kinds = (ast.FunctionDef, ast.ClassDef, ast.While)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]


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


def test_notebook_explains_every_parameter(notebook):
    (cell,) = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert re.match(r"# \w|\w+: \w+ = .+  # \w", line), line


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    plan = out / "smoke.yaml"
    cards = [str(out / f"teacher-{kind}") for kind in ("blocks", "off")]
    plan.write_text(f"{SMOKE}\n    parameters: {{cards: {cards}}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_plan(plan, out=out, progress=False)
    return out


@pytest.mark.slow
def test_notebooks_execute_with_small_parameters(report):
    nodes = json.loads((report / "report.json").read_text())["nodes"]
    assert {node["state"] for node in nodes} == {"done"}
    assert set(re.findall(r"notebook: (\w+)", SMOKE)) == set(NAMES)
    for name in ("dataset", "teacher-off", "prompt", "train-fopro", "tail", "explorer", "teachers"):
        assert list((report / name).glob("*.png")), name
    assert (report / "tail" / "headline.csv").is_file()
    assert (report / "prompt" / "prompt.safetensors").is_file()
    assert len(list((report / "runs").glob("train-*/manifest.json"))) == 2


@pytest.mark.slow
def test_pages_show_every_figure_once_no_warning_and_need_no_network(report):
    assert not re.findall(NETWORK, (report / "index.html").read_text())
    for page in (report / "pages").glob("*.html"):
        text = page.read_text()
        assert "Warning" not in text and not re.findall(NETWORK, text), page.name
        assert len(text) < 5_000_000
        figures = len(list((report / page.stem).glob("*.png")))
        assert text.count('src="data:image/png') == figures, page.name
