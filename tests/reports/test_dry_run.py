"""The dry run: the graph and the time, everything checked, nothing executed or written."""

import pytest

from fopro_lab.reports import run_plan
from fopro_lab.reports.run import dry_run
from tests.conftest import complaint
from tests.reports.conftest import PLAN

TRAIN = """dataset: str = "phantom"
images: int = 160
method: str = "ekd"
epochs: int = 3
batch_size: int = 16
prompt_steps: int = 5
run_dir: str = ""
out_dir: str = "out"
options: dict = {}
"""


@pytest.fixture
def plan(checkout) -> str:
    checkout.notebook("01_look", 'dataset: str = "phantom"\nout_dir: str = "out"')
    checkout.notebook("04_train", TRAIN, config="TrainConfig")
    checkout.notebook("05_table", 'run_dirs: list = []\nout_dir: str = "out"')
    checkout.plan(
        {
            "look": {"notebook": "01_look"},
            "train": {"notebook": "04_train", "matrix": {"method": ["bsm", "fopro"]}},
            "table": {"notebook": "05_table", "after": ["train", "look"]},
        }
    )
    return PLAN


def test_dry_run_shows_the_graph_in_order_and_writes_nothing(checkout, plan):
    before = sorted(checkout.root.rglob("*"))
    lines, missing = dry_run(plan, out="out")
    assert not missing and sorted(checkout.root.rglob("*")) == before
    assert lines == [
        "A plan: 4 notebooks",
        "  1  look         notebooks/01_look.ipynb",
        "  2  train-bsm    notebooks/04_train.ipynb  method = bsm",
        "  3  train-fopro  notebooks/04_train.ipynb  method = fopro",
        "  4  table        notebooks/05_table.ipynb  after train, look",
        "time: unknown, no earlier report in out",
    ]


def test_dry_run_names_all_that_is_missing_once(checkout, plan):
    settings = ["dataset=isic2019", "teacher=moco-v2-resnet50"]
    _, missing = dry_run(plan, out="out", settings=settings)
    dataset, weights = missing  # weights of fopro alone: bsm has no teacher
    assert dataset.startswith("missing: dataset: isic2019 is not here; fetch it")
    assert weights.startswith("missing: weights: expected a file with the weights of moco-v2-")


def test_dry_run_says_what_is_kept_and_how_long_the_rest_took(checkout, plan):
    checkout.run(only=["look", "train-bsm"])
    lines, _ = dry_run(plan, out="out", settings=["epochs=2"], limit=90.0)
    assert [line.endswith("kept") for line in lines[1:5]] == [True, False, False, False]
    assert "limit 1 min 30 s" in lines[2]
    assert "kept: 1 of 4 notebooks, whose results still hold" in lines
    last = "time: 1.0 s one after another, as 1 took last time; unknown for 2"
    assert lines[-1] == last
    (checkout.out / "pages/look.html").unlink()  # without its page it would be executed again
    assert not dry_run(plan, out="out")[0][1].endswith("kept")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"settings": ["epoch=3"]},
            "epoch: an option of no notebook in the plan; did you mean 'ep",
        ),
        ({"jobs": -1}, "jobs: expected 0 (one per GPU, or per core) or more, got -1"),
        ({"executor": "ray"}, "executor: expected local, dask, dask://HOST:PORT or slurm, got"),
        (
            {"executor": "dask://host"},
            "executor: expected local, dask, dask://HOST:PORT or slurm, got",
        ),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(checkout, plan, options, words):
    for run in (dry_run, run_plan):
        assert words in complaint(run, plan, **{"out": "out", **options})
    assert not checkout.out.exists()


def test_the_command_says_it_by_its_exit_code(checkout, plan, fopro):
    assert fopro("report", plan, "--plan", "--limit", "2 h")[0] == 0
    code, out, err = fopro("report", plan, "--plan", "--set", "dataset=isic2019")
    assert code == 1 and "missing: dataset: isic2019 is not here" in out
    assert err == "fopro: not ready: 1 missing, see above; nothing was executed\n"
    for wrong in (["--set", "epochs=0"], ["--limit", "soon"], ["--executor", "slurm"]):
        assert fopro("report", plan, "--plan", *wrong)[0] == 2
    assert not (checkout.root / "reports/plan").exists()


def test_a_plan_of_very_many_nodes_is_refused_before_it_is_built_unless_asked_for(checkout, plan):
    seeds = {"seed": list(range(100)), "method": ["bsm", "ekd"], "epochs": list(range(1, 1001))}
    checkout.plan({"train": {"notebook": "04_train", "matrix": seeds}})
    rule = "train: expands to 200,000 nodes or more; shorten the matrix, or set most_nodes"
    assert rule in complaint(dry_run, PLAN, out="out")
