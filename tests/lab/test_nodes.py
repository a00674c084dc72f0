import pytest

from fopro_lab.errors import InputError
from fopro_lab.reports.plan import plan_nodes


@pytest.fixture
def three(house):
    """Two notebooks, three entries: data, a matrix of runs, and a table that waits for them."""
    house.notebook(
        "01_data", 'dataset: str = "phantom"\nout_dir: str = "out"\nrun_dirs: list[str] = ["runs"]'
    )
    house.notebook(
        "02_train",
        'method: str = "bsm"\nseed: int = 0\nepochs: int = 3\nobjectives: dict = {"task": 1.0}\n'
        'dataset: str = "phantom"\nout_dir: str = "out"\nrun_dir: str = "run"',
    )

    def write(**keys):
        keys = {"defaults": {"dataset": "phantom"}, **keys}
        notebooks = {
            "table": {"notebook": "01_data", "after": ["train"]},
            "train": {
                "notebook": "02_train",
                "matrix": {"method": ["bsm", "ekd"], "seed": [0, 1]},
                "parameters": {"epochs": 8},
                "after": ["data"],
            },
            "data": {"notebook": "01_data"},
        }
        return house.plan({**notebooks, **keys.pop("notebooks", {})}, **keys)

    return write


def test_plan_nodes_expands_a_matrix_and_sorts_the_graph(three):
    nodes = plan_nodes(three(), out="out")
    names = [node.name for node in nodes]
    runs = ["train-bsm-0", "train-bsm-1", "train-ekd-0", "train-ekd-1"]
    assert names == ["data", *runs, "table"]
    assert nodes[-1].after == tuple(runs)
    assert nodes[3].parameters == {"method": "ekd", "seed": 0, "epochs": 8, "dataset": "phantom"}


def test_plan_nodes_gives_places_only_where_they_are_declared(three):
    nodes = {node.name: node for node in plan_nodes(three(), out="some/out")}
    assert nodes["data"].places == {"out_dir": "some/out/data"}
    run_dirs = [nodes[name].places["run_dir"] for name in nodes["table"].after]
    assert nodes["table"].places == {"out_dir": "some/out/table", "run_dirs": run_dirs}
    assert len(set(run_dirs)) == 4
    assert run_dirs[0].startswith("some/out/runs/train-bsm-0-")


def test_plan_nodes_names_a_run_folder_after_its_parameters(three):
    def run_dir(*settings):
        return plan_nodes(three(), out="out", settings=settings)[1].places["run_dir"]

    assert run_dir() == run_dir("epochs=8") != run_dir("epochs=9")


def test_plan_nodes_leaves_a_given_run_dir(three):
    nodes = plan_nodes(three(defaults={"run_dir": "elsewhere"}), out="out")
    assert "run_dir" not in nodes[1].places and nodes[1].parameters["run_dir"] == "elsewhere"
    assert nodes[-1].places["run_dirs"] == ["elsewhere"] * 4


def test_settings_override_defaults_parameters_and_axes(three):
    settings = ["dataset=..", "epochs=2", "method=ekd", "seed=[5, 6, 7]"]
    nodes = plan_nodes(three(), out="out", settings=settings)
    assert [n.name for n in nodes[1:-1]] == ["train-ekd-5", "train-ekd-6", "train-ekd-7"]
    assert {n.parameters["dataset"] for n in nodes} == {".."}
    assert nodes[1].parameters["epochs"] == 2


def test_a_dotted_setting_changes_one_entry_and_a_plain_one_all(three):
    dotted = plan_nodes(three(), out="out", settings=["objectives.identity=2.0"])[1]
    assert dotted.parameters["objectives"] == {"task": 1.0, "identity": 2.0}
    plain = plan_nodes(three(), out="out", settings=["objectives={identity: 2.0}"])[1]
    assert plain.parameters["objectives"] == {"identity": 2.0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"titel": "x"}, "titel: not a key of a plan; did you mean 'title'?"),
        ({"notebooks": {"x": {"notebook": "01_data", "afer": []}}}, "x.afer: not a key of a plan"),
        ({"notebooks": {"x": {}}}, "notebooks.x.notebook: expected"),
        ({"notebooks": {"x": {"notebook": "01_data", "after": "data"}}}, "notebooks.x.after: exp"),
        ({"notebooks": {"../x": {"notebook": "01_data"}}}, "names of letters and digits"),
        ({"notebooks": {"runs": {"notebook": "01_data"}}}, "runs: the report keeps a folder"),
        ({"notebooks": {"x": {"notebook": "01_dat"}}}, "did you mean '01_data'?"),
        (
            {"notebooks": {"x": {"notebook": "01_data", "parameters": {"epochs": 1}}}},
            "x: epochs: not declared by 01_data; known: dataset, out_dir, run_dirs",
        ),
        (
            {"notebooks": {"x": {"notebook": "02_train", "matrix": {"sed": [1]}}}},
            "x: sed: not declared by 02_train; did you mean 'seed'?",
        ),
        (
            {"notebooks": {"x": {"notebook": "02_train", "matrix": {"seed": []}}}},
            "x: matrix: seed: expected one value or more",
        ),
        (
            {"notebooks": {"x": {"notebook": "01_data", "parameters": {"out_dir": "a"}}}},
            "x: out_dir: set by the report itself; use --out",
        ),
        (
            {"notebooks": {"train-bsm-0": {"notebook": "01_data"}}},
            "train-bsm-0: two nodes have this name",
        ),
        (
            {"defaults": {"epoch": 1}},
            "epoch: declared by no notebook of the plan; did you mean 'ep",
        ),
        (
            {"notebooks": {"x": {"notebook": "01_data", "after": ["tabel"]}}},
            "x: after: no entry 'tabel'; did you mean 'table'?",
        ),
        (
            {
                "notebooks": {
                    "x": {"notebook": "01_data", "after": ["y"]},
                    "y": {"notebook": "01_data", "after": ["x"]},
                }
            },
            "notebooks wait for each other:",
        ),
        (
            {"defaults": {"epochs": "many"}, "notebooks": {"x": {"notebook": "02_train"}}},
            "x: epochs: expected a whole number like 3, got 'many'",
        ),
    ],
)
def test_plan_nodes_says_what_is_wrong(three, keys, message):
    with pytest.raises(InputError) as caught:
        plan_nodes(three(**keys), out="out")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "--set: epoch: declared by no notebook of the plan; did you mean 'epochs'?"),
        ("epochs=many", "train-bsm-0: epochs: expected a whole number like 3, got 'many'"),
        ("epochs=0", "train-bsm-0: epochs: expected greater than or equal to 1, got 0"),
        ("out_dir=x", "--set: out_dir: set by the report itself; use --out"),
        ("dataset", "--set: expected name=value, got 'dataset'"),
    ],
)
def test_plan_nodes_refuses_a_setting(three, setting, message):
    with pytest.raises(InputError) as caught:
        plan_nodes(three(), out="out", settings=[setting])
    assert str(caught.value) == message
