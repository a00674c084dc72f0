"""The notebooks: clean as committed, in the house's form, and executed with small parameters."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from fopro_lab.config import TrainConfig
from fopro_lab.reports import run_plan
from fopro_lab.reports.plan import declared_parameters

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]

# 03 trains a prompt in one go, 04 in several.
OWN_DEFAULTS = {("03_fourier_prompt", "prompt_steps")}

SMOKE = {
    "title": "Every notebook, small",
    "defaults": {"images": 160, "image_size": 32, "rings": 2},
    "notebooks": {
        "dataset": {"notebook": "01_dataset"},
        "teacher": {
            "notebook": "02_teacher_frequencies",
            "parameters": {"probe_images": 8, "gains": [0.0]},
        },
        "prompt": {"notebook": "03_fourier_prompt", "parameters": {"prompt_steps": 2}},
        "train": {
            "notebook": "04_train",
            "matrix": {"method": ["bsm", "fopro"]},
            "parameters": {"epochs": 1, "prompt_steps": 2, "threads": 1},
        },
        "tail": {
            "notebook": "05_tail_accuracy",
            "after": ["train"],
            "parameters": {"resamples": 20},
        },
        "explorer": {"notebook": "06_band_explorer"},
        "claims": {
            "notebook": "07_claims",
            "after": ["train"],
            "parameters": {
                "pairs": [["fopro", "bsm"]],
                "teachers": {"builtin": ""},
                "probe_images": 8,
                "resamples": 20,
            },
        },
    },
}


@pytest.fixture(params=NOTEBOOKS, ids=NAMES)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebooks_are_numbered_in_the_order_of_use():
    assert [re.match(r"(\d\d)_[a-z_]+$", name).group(1) for name in NAMES] == [
        f"{number:02d}" for number in range(1, 9)
    ]


def test_notebook_is_committed_without_outputs_and_counts(notebook):
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert not cell.outputs and cell.execution_count is None
    assert set(notebook.metadata) - {"fopro"} == {"kernelspec", "language_info"}


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
        tree = ast.parse(cell.source)
        if "parameters" not in cell.metadata.get("tags", []):
            assert cell.source.count("\n") < 12, cell.source
        kinds = (ast.FunctionDef, ast.ClassDef, ast.While)
        assert not [node for node in ast.walk(tree) if isinstance(node, kinds)]


def test_notebook_declares_what_it_is_for_with_the_configs_defaults(path):
    declared = declared_parameters(path)
    assert "out_dir" in declared
    for name, field in TrainConfig.model_fields.items():
        if name in declared and (path.stem, name) not in OWN_DEFAULTS:
            assert declared[name] == field.default, name


def test_notebook_explains_every_parameter(notebook):
    (cell,) = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert re.match(r"# \w|\w+: \w+ = .+  # \w", line), line


@pytest.mark.parametrize("name", ["03_fourier_prompt", "04_train"])
def test_training_notebooks_declare_few_parameters_and_take_any_option(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    declared = declared_parameters(path)
    assert declared["options"] == {} and len(declared) <= 18
    assert nbformat.read(path, as_version=4).metadata["fopro"] == {"config": "TrainConfig"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    plan = out / "smoke.yaml"
    plan.write_text(yaml.safe_dump(SMOKE, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_plan(plan, out=out, progress=False)
    return out


@pytest.mark.slow
def test_notebooks_execute_with_small_parameters(report):
    nodes = json.loads((report / "report.json").read_text())["nodes"]
    assert {node["state"] for node in nodes} == {"done"}
    used = {entry["notebook"] for entry in SMOKE["notebooks"].values()}
    assert used == set(NAMES) - {"08_teachers"}  # which takes cards; see tests/probing


@pytest.mark.slow
def test_notebooks_write_figures_tables_and_runs(report):
    for name in ("dataset", "teacher", "prompt", "train-fopro", "tail", "explorer", "claims"):
        assert list((report / name).glob("*.png")), name
    assert (report / "tail" / "headline.csv").is_file()
    assert (report / "prompt" / "prompt.safetensors").is_file()
    assert len(list((report / "runs").glob("train-*/manifest.json"))) == 2


@pytest.mark.slow
def test_pages_show_every_figure_once_and_no_warning(report):
    for page in (report / "pages").glob("*.html"):
        text = page.read_text()
        assert "Warning" not in text, page.name
        assert len(text) < 5_000_000
        figures = len(list((report / page.stem).glob("*.png")))
        assert text.count('src="data:image/png') == figures, page.name


@pytest.mark.slow
def test_report_needs_no_network(report):
    for page in [report / "index.html", *(report / "pages").glob("*.html")]:
        text = page.read_text()
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']*""", text), page.name
        assert "@import" not in text and "fetch(" not in text, page.name
