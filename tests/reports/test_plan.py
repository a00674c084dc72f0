"""Plans: parameters, options, matrices, conditions, presets, and what is refused before a run."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from fopro_lab.config import TrainConfig
from fopro_lab.reports.plan import (
    files_states,
    missing_inputs,
    plan_nodes,
    read_notebook,
    read_plan,
)
from tests.conftest import complaint
from tests.reports.conftest import PLAN

TRAIN = (
    'method: str = "bsm"\nseed: int = 0\nepochs: int = 3\nobjectives: dict = {"task": 1.0}\n'
    'dataset: str = "phantom"\nout_dir: str = "out"\nrun_dir: str = "run"'
)
CELL = {"source": "x = 1", "metadata": {"tags": ["parameters"]}}
DATA = 'dataset: str = "phantom"\nout_dir: str = "out"\nrun_dirs: list[str] = ["runs"]'


def refuses_settings(messages: dict[str, str]) -> None:
    for setting, message in messages.items():
        assert complaint(plan_nodes, PLAN, out="out", settings=[setting]).startswith(message)


def entry(notebook: str, *, name: str = "x", **keys) -> dict:
    return {"notebooks": {name: {"notebook": notebook, **keys}}}


@pytest.fixture
def three(checkout):
    """Two notebooks, three entries: data, a matrix of runs, and a table that waits for them."""
    checkout.notebook("01_data", DATA, config="DataConfig")
    checkout.notebook("02_train", TRAIN, config="TrainConfig")
    matrix = {"method": ["bsm", "ekd"], "seed": [0, 1]}
    train = {"notebook": "02_train", "matrix": matrix, "parameters": {"epochs": 8}}
    own = {
        "table": {"notebook": "01_data", "after": ["train"]},
        "train": {**train, "after": ["data"]},
        "data": {"notebook": "01_data"},
    }

    def write(*, notebooks=None, **keys):
        return checkout.plan(
            own | (notebooks or {}), **{"defaults": {"dataset": "phantom"}, **keys}
        )

    return write


def test_plan_nodes_expands_a_matrix_sorts_the_graph_and_gives_places(three):
    nodes = plan_nodes(three(), out="out")
    names = [node.name for node in nodes]
    runs = ["train-bsm-0", "train-bsm-1", "train-ekd-0", "train-ekd-1"]
    assert names == ["data", *runs, "table"]
    assert nodes[-1].after == tuple(runs)
    assert nodes[3].parameters == {"method": "ekd", "seed": 0, "epochs": 8, "dataset": "phantom"}
    nodes = {node.name: node for node in plan_nodes(three(), out="some/out")}
    assert nodes["data"].places == {"out_dir": "some/out/data"}
    run_dirs = [nodes[name].places["run_dir"] for name in nodes["table"].after]
    assert nodes["table"].places == {"out_dir": "some/out/table", "run_dirs": run_dirs}
    assert len(set(run_dirs)) == 4 and run_dirs[0].startswith("some/out/runs/train-bsm-0-")
    nodes = plan_nodes(three(defaults={"run_dir": "elsewhere"}), out="out")
    assert "run_dir" not in nodes[1].places and nodes[1].parameters["run_dir"] == "elsewhere"
    assert nodes[-1].places["run_dirs"] == ["elsewhere"] * 4


def test_data_are_asked_for_by_the_notebooks_that_are_to_run_alone(three):
    """A table of runs that are there needs no images: only those that are trained do."""
    plan = three(notebooks={"data": {"notebook": "01_data", "parameters": {"dataset": "nowhere"}}})
    assert complaint(plan_nodes, plan, out="out").startswith("data: dataset: expected")
    assert complaint(plan_nodes, plan, out="out", inputs=["data"]).startswith("data: dataset:")
    assert len(plan_nodes(plan, out="out", inputs=["table", "train-bsm-0"])) == 6
    assert len(plan_nodes(plan, out="out", inputs=None)) == 6


def test_settings_override_defaults_parameters_and_axes_or_are_refused(three):
    settings = ["dataset=..", "epochs=2", "method=ekd", "seed=[5, 6, 7]"]
    nodes = plan_nodes(three(), out="out", settings=[*settings, "objectives.identity=2.0"])
    assert [n.name for n in nodes[1:-1]] == ["train-ekd-5", "train-ekd-6", "train-ekd-7"]
    assert {n.parameters["dataset"] for n in nodes} == {".."}
    assert nodes[1].parameters["epochs"] == 2
    assert nodes[1].parameters["objectives"] == {"task": 1.0, "identity": 2.0}
    plain = plan_nodes(three(), out="out", settings=["objectives={identity: 2.0}"])[1]
    assert plain.parameters["objectives"] == {"identity": 2.0}
    three()
    refuses_settings({
        "epochs=many": "train-bsm-0: epochs: expected int like 3, got 'many'",
        "epochs=0": "train-bsm-0: epochs: expected greater than or equal to 1, got 0",
        "epochs=true": "train-bsm-0: epochs: expected a number, got true",
        "dataset=no": "table: dataset: expected 'phantom' or a path that exists, got 'no'; `fopro",
    })  # fmt: skip


def test_presets_lie_above_the_plan_and_beneath_the_settings(checkout):
    checkout.notebook("a", 'epochs: int = 1\nseed: int = 0\nmethod: str = "bsm"')
    entry = {"notebook": "a", "matrix": {"seed": [1, 2]}, "parameters": {"epochs": 2}}
    checkout.plan({"a": entry}, defaults={"method": "ekd"})
    preset, more = checkout.root / "preset.yaml", checkout.root / "more.yaml"
    preset.write_text("# a preset\nepochs: 3\nmethod: random\nseed: 5\n")
    more.write_text("method: fopro\n")

    def values(*settings):
        nodes = plan_nodes(PLAN, out="out", settings=settings, files=[preset, more])
        return [node.parameters for node in nodes]

    assert values() == [{"epochs": 3, "seed": 5, "method": "fopro"}]
    assert [v["seed"] for v in values("seed=[7,8]", "epochs=9")] == [7, 8]
    assert values("epochs=9")[0]["epochs"] == 9
    preset.write_text("epoch: 3\n")
    told = complaint(plan_nodes, PLAN, out="out", files=[preset])
    assert told.startswith(f"-f {preset}: epoch: an option of no") and "'epochs'?" in told


def test_an_option_of_a_whole_plan_is_for_those_of_its_methods_that_use_it(checkout):
    declared = 'method: str = "fopro"\noptions: dict = {}\nrun_dir: str = ""'
    checkout.notebook("train", declared, config="TrainConfig")
    methods = {"notebook": "train", "matrix": {"method": ["bsm", "ekd", "fopro"]}}
    checkout.plan({"train": methods})
    prompt = checkout.root / "prompt.safetensors"
    prompt.touch()
    nodes = plan_nodes(PLAN, out="out", settings=[f"prompt_file={prompt}"])
    assert [node.config.prompt_file for node in nodes] == ["", "", str(prompt)]
    told = complaint(plan_nodes, PLAN, out="out", settings=["temperature=2"])
    assert told == "temperature: expected none, as no method of train uses it"
    checkout.plan({"train": {**methods, "parameters": {"prompt_file": str(prompt)}}})
    assert "bsm does not use it" in complaint(plan_nodes, PLAN, out="out")


@pytest.fixture
def slim(checkout):
    """A training notebook that declares little and takes the rest as options, and a table."""
    declared = 'method: str = "fopro"\nepochs: int = 10\noptions: dict = {}\nrun_dir: str = ""'
    checkout.notebook("train", declared, config="TrainConfig")
    checkout.notebook("look", 'dataset: str = "phantom"\noptions: dict = {}', config="DataConfig")
    own = {"prompt_steps": 7, "options": {"ema_decay": 0.9}}
    train = {"notebook": "train", "matrix": {"seed": [0, 1]}, "parameters": own}
    checkout.plan({"train": train, "look": {"notebook": "look"}}, defaults={"images": 96})
    return checkout


def test_what_a_notebook_does_not_declare_goes_into_its_options_and_is_checked(slim, capsys):
    first, _, look = plan_nodes(PLAN, out="out", settings=["epochs=2", "objectives.task=0.5"])
    assert first.parameters["epochs"] == 2 and "prompt_steps" not in first.parameters
    options = first.parameters["options"]
    assert (options["prompt_steps"], options["ema_decay"], options["images"]) == (7, 0.9, 96)
    assert options["objectives"] == {"statistics": 1.0, "task": 0.5, "identity": 0.1}
    assert look.parameters == {"options": {"images": 96}}
    assert first.config.ema_decay == 0.9 and first.values["batch_size"] == 32
    refuses_settings({
        "ema_decays=0.9": "--set: ema_decays: an option of no notebook in the plan; did you mea",
        "ema_decay=7": "train-0: ema_decay: expected less than 1, got 7",
        "options=3": "--set: options: expected names and values, got 3",
        "max_skipped=9": "--set: max_skipped: no longer an option, always 5; got 9",
    })  # fmt: skip
    settings = ["explore_steps=3", "max_skipped=5"]  # renamed; gone, at its old default
    nodes = plan_nodes(PLAN, out="out", settings=settings)
    assert nodes[0].given["prompt_steps"] == 3
    assert "explore_steps is called prompt_steps now" in capsys.readouterr().err


def test_values_that_a_plan_sets_win_over_a_recipe_also_at_their_default(slim, capsys):
    settings = ["recipe=published", "epochs=10", "batch_size=32", "student=small"]
    node = plan_nodes(PLAN, out="out", settings=settings)[0]
    assert (node.config.student, node.config.image_size, node.config.epochs) == ("small", 224, 10)
    declared = 'image_size: int = 64\nstudent: str = "small"\noptions: dict = {}'
    slim.notebook("train", declared, config="TrainConfig")
    slim.plan({"train": {"notebook": "train", "parameters": {"image_size": 64}}})
    capsys.readouterr()
    for _ in range(2):
        (node,) = plan_nodes(PLAN, out="out", settings=["recipe=published"])
    assert (node.config.student, node.config.image_size) == ("resnet18", 64)
    assert node.given == {"image_size": 64, "recipe": "published"}
    said = "fopro: the recipe sets student = resnet18; `options` can say otherwise\n"
    assert capsys.readouterr().err == said  # once


def test_a_run_folder_follows_config_and_data_alone(checkout):
    def run_dir(declared: str, *settings: str, parameters: dict | None = None) -> str:
        checkout.notebook("train", f'options: dict = {{}}\nrun_dir: str = ""\n{declared}',
                          config="TrainConfig")  # fmt: skip
        checkout.plan({"train": {"notebook": "train", "parameters": parameters or {}}})
        return plan_nodes(PLAN, out="out", settings=settings)[0].places["run_dir"]

    first = run_dir("epochs: int = 10", "epochs=9")
    assert run_dir("epochs: int = 10", "epochs=8") != first
    # an option that becomes a declared parameter, or a written default, renames no run
    assert run_dir("", "epochs=9") == run_dir("epochs: int = 9") == first
    assert run_dir("", "epochs=9", parameters={"batch_size": 32}) == first
    (checkout.root / "cats").mkdir()
    with_data = run_dir("", "dataset=cats")
    (checkout.root / "cats/new.png").touch()
    assert run_dir("", "dataset=cats") != with_data


def test_a_text_that_names_what_exists_counts_as_a_file_unless_it_is_a_word(checkout):
    (checkout.root / "ekd").mkdir()
    (checkout.root / "data.csv").touch()

    def files(**values):
        return files_states(values, words=TrainConfig.model_fields)

    assert files(method="ekd", run_dirs=["gone"], sep=os.sep, at=".") == {}
    values = {"method": f".{os.sep}ekd", "dataset": "ekd", "run_dirs": ["ekd", "gone"]}
    found = files(**values, more_teachers=["mine=ekd"])
    assert [*found] == ["method", "dataset", "run_dirs: ekd", "more_teachers: ekd"]
    own = {"table": "data.csv", "tables": ["data.csv"], "teachers": {"a": "", "b": "data.csv"}}
    before = files(**own)
    assert [*before] == ["table", "tables: data.csv", "teachers: data.csv"]
    (checkout.root / "data.csv").write_text("a,b")
    assert not before.items() & files(**own).items()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"fixed": ["epoch"]},
            "plan.yaml: fixed: epoch: an option of no notebook in the plan; did",
        ),
        (
            {"defaults": {"epoch": 1}},
            "defaults: epoch: an option of no notebook in the plan; did y",
        ),
        (entry("01_data", afer=[]), "x.afer: no such option; did you mean 'after'?"),
        (entry("01_data", name="runs"), "runs: the report keeps a folder"),
        (entry("01_data", name="train-bsm-0"), "train-bsm-0: two nodes have this name"),
        (entry("01_data", parameters={"epochs": 1}), "x: epochs: not declared by 01_data; known: "),
        (entry("02_train", matrix={"seed": []}), "x: matrix: seed: expected one value or more"),
        (entry("01_data", name="data", after=["table"]), "notebooks wait for each other:"),
        (entry("01_data", when={"not": {}}), "x: when: not: not declared by its notebook; "),
        (entry("01_data", limit="30 x"), "x: limit: expected a time such as '90 s', '30 min' or"),
    ],
)
def test_plan_nodes_says_what_is_wrong(three, keys, message):
    assert message in complaint(plan_nodes, three(**keys), out="out")


def test_what_a_condition_leaves_out_is_said_and_not_waited_for(checkout):
    checkout.notebook("train", 'method: str = "bsm"\nrun_dir: str = "run"\nrun_dirs: list = []')
    runs = {"method": ["bsm", "ekd", "fopro"]}
    checkout.plan(
        {
            "train": {"notebook": "train", "matrix": runs, "when": {"method": ["ekd", "fopro"]}},
            "table": {"notebook": "train", "after": ["train"]},
            "lost": {"notebook": "train", "when": {"exists": "no/such.pth"}},
            "last": {"notebook": "train", "after": ["lost"]},
        }
    )
    nodes = {node.name: node for node in plan_nodes(PLAN, out="out")}
    assert nodes["train-bsm"].left_out == "method is bsm, not ekd or fopro"
    assert nodes["table"].after == ("train-ekd", "train-fopro")
    assert len(nodes["table"].places["run_dirs"]) == 2
    assert nodes["lost"].left_out == "no/such.pth does not exist"
    assert nodes["last"].left_out == "all that it waits for is left out (lost)"
    (checkout.root / "no").mkdir()
    (checkout.root / "no/such.pth").touch()
    assert not any(n.left_out for n in plan_nodes(PLAN, out="out") if n.entry in ("lost", "last"))


def test_a_notebook_without_a_config_has_options_of_its_own(checkout):
    checkout.notebook("a", 'method: str = "svm"\ndataset: str = "table.parquet"')
    checkout.plan({"a": {"notebook": "a", "limit": 30}}, fixed=["method"])
    (node,) = plan_nodes(PLAN, out="out", settings=["dataset=other.parquet"])
    assert node.values == {"method": "svm", "dataset": "other.parquet"} and node.limit == 1800
    refuses_settings({"method=rf": f"--set: method: fixed by {PLAN}; leave it out"})


def test_a_notebook_beside_the_plan_wins_over_one_of_the_same_name(checkout):
    checkout.notebook("04_train", "mark: int = 0")
    checkout.plan({"a": {"notebook": "04_train"}})
    assert plan_nodes(PLAN, out="out")[0].notebook.path.parent.name == "notebooks"
    (checkout.root / "notebooks/04_train.ipynb").rename("reports/plans/04_train.ipynb")
    node = plan_nodes(PLAN, out="out")[0]  # and not that of the package
    assert node.notebook.path.parent.name == "plans" and "mark" in node.values


def test_a_plan_without_notebooks_is_refused_and_a_misspelt_one_gets_the_nearest_name(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("plans").mkdir()
    for name in ("demo", "own", "zebra"):
        for text in ("title: x", "title: x\nnotebooks: {}", "title: [", "- x"):
            Path(f"plans/{name}.yaml").write_text(text)
            assert complaint(read_plan, f"plans/{name}.yaml").startswith(f"plans/{name}.yaml: ")
    for misspelt in ("demmo.yaml", "plans/dem.yaml", "demo"):
        wanted = f"{misspelt}: no such file; did you mean 'plans/demo.yaml'?"
        assert complaint(read_plan, misspelt) == wanted


def test_read_notebook_reads_parameters_that_papermill_overlooks(checkout):
    source = (
        'size: int | None = None\ncolour: str = "#ff0000"  # as in a page\nrate = 1e-3\n'
        'names: list[str] = ["a", "b"]\noffset: int = -1'
    )
    names = {"size": None, "colour": "#ff0000", "rate": 1e-3, "names": ["a", "b"], "offset": -1}
    assert read_notebook(checkout.notebook("a", source)).declared == names
    assert read_notebook(checkout.notebook("a", "", "x = 1")).declared == {}


def test_read_notebook_refuses_what_is_none_and_other_code_among_parameters(checkout):
    for source, message in {
        "import os": "expected lines 'name: type = literal', got 'import os'",
        "x = 1 + len('a')": "move it to the next cell",
        "x = (": "parameters cell: line 1 is no Python",
    }.items():
        told = complaint(read_notebook, path := checkout.notebook("a", source))
        assert told.startswith(f"{path}: ") and message in told
    for content, message in (
        ([], "expected a notebook of format 4, got something else"),
        ({"cells": [CELL, CELL]}, "expected one cell tagged 'parameters', got 2"),
        (
            {"cells": [CELL], "metadata": {"fopro": {"config": "Trainconfig"}}},
            "metadata fopro.config: no config is named 'Trainconfig'",
        ),
    ):
        path.write_text(json.dumps(content))
        assert complaint(read_notebook, path) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"dataset": "nowhere"}, "dataset: expected 'phantom' or a path that exists, got"),
        ({"dataset": "isic2019-lt", "split_rule": "draw"}, "dataset: isic2019-lt is not here"),
        ({"teacher": "timm:resnet18", "method": "bsm"}, ""),
        ({"teacher": "timm:resnet18", "method": "ekd"}, "weights: expected a file with"),
        ({"student_weights": "no.pth"}, "student_weights: no.pth: no such file; give a path"),
        ({"split_rule": "hyperkvasir", "split_files": "no"}, "split_files: no: expected the publ"),
        ({"split_rule": "isic2019-lt", "fold": 4}, "split_files: fopro-splits is not fetched"),
    ],
)
def test_missing_inputs_are_named_with_the_way_to_get_them(values, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = missing_inputs(TrainConfig(**values))
    assert [line[: len(what)] for line in found] == [what] * bool(what)
    assert all("fopro data fetch" in line for line in found if "not here" in line)


def test_the_notebook_of_the_docs_is_one(checkout):
    """The example of docs/reports.md is read as a plan would, and its cells run."""
    page = (Path(__file__).parents[2] / "docs/reports.md").read_text(encoding="utf-8")
    parameters, code = re.findall(r"```py\n(.*?)```", page, flags=re.DOTALL)[0].split("# %%\n")
    path = checkout.notebook("count", parameters, code)
    path.rename("reports/plans/count.ipynb")
    entry = yaml.safe_load(re.findall(r"In the plan: `(.*)`", page)[0])
    checkout.notebook("train", 'run_dir: str = ""')
    checkout.plan({**entry, "train": {"notebook": "train"}})
    (checkout.root / "data.csv").write_text("class\nnevus\nnevus\n")
    node = plan_nodes(PLAN, out="out")[-1]
    assert node.places["out_dir"] == "out/count" and len(node.places["run_dirs"]) == 1
    names = {**node.values, **node.places}
    exec(code, names)
    assert Path("out/count/headline.csv").read_text() == "method,images\nnevus,2\n"
