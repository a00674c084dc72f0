"""The dry run: the graph and the cost, everything checked, nothing executed or written."""

from pathlib import Path

import pytest

from fopro_lab.errors import InputError
from fopro_lab.reports import run_plan
from fopro_lab.reports.execute import Outcome
from fopro_lab.reports.plan import plan_nodes
from fopro_lab.reports.run import dry_run, node_key, write_record
from tests.reports.conftest import PLAN

TRAIN = """dataset: str = "phantom"
images: int = 160
teacher: str = "builtin"
method: str = "ekd"
epochs: int = 3
batch_size: int = 16
prompt_steps: int = 5
seed: int = 0
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


def files_below(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*")}


def test_dry_run_shows_the_graph_in_order_and_writes_nothing(checkout, plan):
    before = files_below(checkout.root)
    found = dry_run(plan, out="out")
    assert not found.problems and files_below(checkout.root) == before
    # Counted by hand: 160 phantom images leave `train` to training, in batches of 16.
    from fopro_lab.data import make_split, open_dataset

    train = len(make_split(open_dataset("phantom", images=160)).train)
    steps = 3 * (train // 16)
    assert steps >= 3 * 4
    assert found.lines == [
        "A plan: 4 notebooks",
        "  1  look         01_look",
        f"  2  train-bsm    04_train  method = bsm, {steps} steps",
        f"  3  train-fopro  04_train  method = fopro, {steps} steps, 10 prompt steps",
        "  4  table        05_table  after train, look",
        f"steps: {2 * steps} training steps in 2 notebooks, at most 10 prompt steps",
        "time: unknown, no earlier report in out",
    ]


def test_dry_run_counts_the_steps_that_a_training_takes(checkout, plan, monkeypatch):
    """The count is of the loop itself: its optimiser's steps, and the prompt's."""
    import torch

    from fopro_lab.training import distill

    taken = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda own, *a, **k: (taken.append(own), step(own, *a, **k))[1]
    )
    settings = ["images=100", "epochs=2", "image_size=16", "method=fopro"]
    line = dry_run(plan, out="out", settings=settings).lines[2]
    distill(plan_nodes(plan, out="out", settings=settings)[1].config, out=checkout.root / "run",
            verbose=False)  # fmt: skip
    student, prompt = sorted({own: taken.count(own) for own in taken}.values(), reverse=True)
    assert f"{student} steps, {prompt} prompt steps" in line and prompt == 5


def test_dry_run_names_all_that_is_missing_once(checkout, plan):
    settings = ["dataset=isic2019", "teacher=moco-v2-resnet50"]
    found = dry_run(plan, out="out", settings=settings)
    dataset, weights = found.problems  # weights of fopro alone: bsm has no teacher
    assert dataset.startswith("missing: dataset: isic2019 is not here; fetch it")
    assert weights.startswith("missing: weights: expected a file with the weights of moco-v2-")
    assert "steps: unknown for 2, whose images cannot be counted" in "\n".join(found.lines)


def test_dry_run_names_images_that_cannot_be_split(checkout, plan):
    (checkout.root / "cats/tabby").mkdir(parents=True)
    found = dry_run(plan, out="out", settings=["dataset=cats"])
    assert len(found.problems) == 1 and found.problems[0].startswith("wrong: cats")


def test_dry_run_says_what_is_kept_and_how_long_the_rest_took(checkout, plan):
    nodes = plan_nodes(plan, out="out")
    keys: dict[str, str] = {}
    for node in nodes:
        keys[node.name] = node_key(node, before=keys)
    for node, seconds in ((nodes[0], 4.0), (nodes[1], 75.0)):
        folder = checkout.out / node.name
        key = keys[node.name] if node is nodes[0] else "0" * 64  # its inputs were others
        folder.mkdir(parents=True)
        write_record(node, folder=folder, key=key, took=Outcome("", seconds, 2_000_000))
        for place in (f"notebooks/{node.name}.ipynb", f"pages/{node.name}.html"):
            (checkout.out / place).parent.mkdir(exist_ok=True)
            (checkout.out / place).touch()
    found = dry_run(plan, out="out")
    assert [line.endswith("kept") for line in found.lines[1:5]] == [True, False, False, False]
    told = "\n".join(found.lines)
    assert "kept: 1 of 4 notebooks, whose results still hold" in told
    assert told.endswith(
        "time: 1 min 15 s one after another, as 1 of them took last time; unknown for 2"
    )
    (checkout.out / "pages/look.html").unlink()  # without its page it would be executed again
    assert not dry_run(plan, out="out").lines[1].endswith("kept")


def test_a_dry_run_says_kept_where_a_report_keeps(checkout):
    """The same plan after a real report: everything is kept, and no step is to do."""
    checkout.notebook("01_look", 'mark: int = 1\nout_dir: str = "out"', "print(mark)")
    checkout.plan({"look": {"notebook": "01_look"}})
    run_plan(PLAN, out=checkout.out, progress=False)
    found = dry_run(PLAN, out=checkout.out)
    assert found.lines[-1] == "kept: 1 of 1 notebooks, whose results still hold"
    changed = dry_run(PLAN, out=checkout.out, settings=["mark=2"])
    assert "kept" not in "\n".join(changed.lines) and "as 1 of them took" in changed.lines[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": ["epoch=3"]}, "epoch: declared by no notebook of the plan"),
        ({"settings": ["epochs=0"]}, "epochs: expected"),
        ({"jobs": -1}, "jobs: expected 0 (one per core) or more, got -1"),
    ],
)
def test_dry_run_refuses_what_a_report_refuses(checkout, plan, options, words):
    for run in (dry_run, run_plan):
        with pytest.raises(InputError) as told:
            run(plan, **{"out": "out", **options})
        assert words in str(told.value)


def test_the_command_says_it_by_its_exit_code(checkout, plan, fopro):
    assert fopro("report", plan, "--plan")[0] == 0
    code, told, complaint = fopro("report", plan, "--plan", "--set", "dataset=isic2019")
    assert code == 1 and "missing: dataset: isic2019 is not here" in told
    assert complaint == "fopro: not ready: 1 missing or wrong, see above; nothing was executed\n"
    assert fopro("report", plan, "--plan", "--set", "epochs=0")[0] == 2
    assert not (checkout.root / "reports/plan").exists()
