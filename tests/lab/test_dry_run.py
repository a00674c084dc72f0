"""The dry run: the graph and the cost told, everything checked, nothing executed or written."""

import os
from pathlib import Path

import pytest

from fopro_lab.errors import InputError
from fopro_lab.io import write_json
from fopro_lab.reports.plan import missing_inputs, plan_nodes
from fopro_lab.reports.run import Record, dry_run, node_key, write_record

TRAIN = """dataset: str = "phantom"
images: int = 160
val_fraction: float = 0.15
test_fraction: float = 0.25
method: str = "ekd"
student: str = "small"
teacher: str = "builtin"
weights: str = ""
epochs: int = 3
batch_size: int = 16
prompt_every: int = 2
prompt_steps: int = 5
warmup_epochs: int = 0
seed: int = 0
out_dir: str = "out"
"""


@pytest.fixture
def plan(house) -> str:
    house.notebook("01_look", 'dataset: str = "phantom"\nout_dir: str = "out"')
    house.notebook("04_train", TRAIN)
    house.notebook("05_judge", 'run_dirs: list = []\nout_dir: str = "out"')
    house.plan(
        {
            "look": {"notebook": "01_look"},
            "train": {"notebook": "04_train", "matrix": {"method": ["bsm", "fopro"]}},
            "judge": {"notebook": "05_judge", "after": ["train", "look"]},
        }
    )
    return "reports/plans/plan.yaml"


def files_below(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*")}


def test_dry_run_tells_the_graph_in_order_and_writes_nothing(house, plan):
    before = files_below(house.root)
    found = dry_run(plan, out="out")
    assert found.ready and files_below(house.root) == before
    # Counted by hand: 160 phantom images leave `train` to training, in batches of 16.
    from fopro_lab.data import make_split, open_dataset

    train = len(make_split(open_dataset("phantom", images=160)).train)
    steps = 3 * (train // 16)
    assert steps >= 3 * 4
    assert found.lines() == [
        "A plan: 4 notebooks",
        "  1  look         01_look",
        f"  2  train-bsm    04_train  method = bsm, {steps} steps",
        f"  3  train-fopro  04_train  method = fopro, {steps} steps, 10 prompt steps",
        "  4  judge        05_judge  after train (2), look",
        f"steps: {2 * steps} training steps in 2 notebooks, at most 10 prompt steps",
        "time: unknown, no earlier report in out",
    ]


def test_dry_run_steps_are_those_that_a_training_takes(house, plan, monkeypatch):
    """The count is of the loop itself: its optimiser's steps, and the rows of its exploration."""
    import torch

    from fopro_lab.config import TrainConfig
    from fopro_lab.training import distill

    taken = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda own, *a, **k: (taken.append(own), step(own, *a, **k))[1]
    )
    found = dry_run(plan, out="out", settings=["images=100", "epochs=2"])
    planned = found.nodes[2]
    config = TrainConfig.from_parameters({**planned.node.parameters, "image_size": 16})
    run = distill(
        config.model_copy(update={"batch_size": 16, "prompt_steps": 5}),
        out=house.root / "run",
        verbose=False,
    )
    assert planned.steps is not None and run.state == "done"
    of_student = max(taken.count(own) for own in set(taken))
    assert of_student == planned.steps.student
    assert len((house.root / "run/exploration.csv").read_text().splitlines()) - 1 == 5
    assert planned.steps.prompt == 5


def test_dry_run_names_all_that_is_missing_once(house, plan):
    settings = ["dataset=isic2019", "teacher=moco-v2-resnet50"]
    found = dry_run(plan, out="out", settings=settings)
    assert [each.what for each in found.missing] == [
        "data set isic2019",
        "weights of moco-v2-resnet50",  # of fopro alone: bsm has no teacher
    ]
    assert "steps: unknown for 2, whose images cannot be counted" in "\n".join(found.lines())


def test_dry_run_tells_images_that_cannot_be_split(house, plan):
    (house.root / "cats/tabby").mkdir(parents=True)
    found = dry_run(plan, out="out", settings=["dataset=cats"])
    assert not found.ready and not found.missing
    assert len(found.wrong) == 1 and found.wrong[0].startswith("cats")


def test_dry_run_tells_what_is_kept_and_how_long_the_rest_took(house, plan):
    nodes = plan_nodes(plan, out="out")
    keys: dict[str, str] = {}
    for node in nodes:
        keys[node.name] = node_key(node, before=keys)
    for node, seconds in ((nodes[0], 4.0), (nodes[1], 75.0)):
        folder = house.out / node.name
        key = keys[node.name] if node is nodes[0] else "0" * 64  # its inputs were others
        folder.mkdir(parents=True)
        write_record(node, folder=folder, key=key, took=Record(seconds, memory=2_000_000))
        for place in (f"notebooks/{node.name}.ipynb", f"pages/{node.name}.html"):
            (house.out / place).parent.mkdir(exist_ok=True)
            (house.out / place).touch()
    found = dry_run(plan, out="out")
    assert [each.kept for each in found.nodes] == [True, False, False, False]
    told = "\n".join(found.lines())
    assert "kept: 1 of 4 notebooks, whose results still hold" in told
    assert "time: 1 min 15 s of notebooks one after another, as 1 of them took last time; " in told
    assert told.endswith("unknown for 2\nmemory: up to 2.0 MB of one notebook last time")
    (house.out / "pages/look.html").unlink()  # without its page it would be executed again
    assert not dry_run(plan, out="out").nodes[0].kept


def test_a_dry_run_says_kept_where_a_report_keeps(house):
    """The same plan after a real report: everything is kept, and no step is to do."""
    from fopro_lab.reports import run_plan

    house.notebook("01_look", 'mark: int = 1\nout_dir: str = "out"', "print(mark)")
    house.plan({"look": {"notebook": "01_look"}})
    run_plan("reports/plans/plan.yaml", out=house.out, progress=False)
    found = dry_run("reports/plans/plan.yaml", out=house.out)
    assert found.nodes[0].kept and found.lines()[-1] == (
        "kept: 1 of 1 notebooks, whose results still hold"
    )
    changed = dry_run("reports/plans/plan.yaml", out=house.out, settings=["mark=2"])
    assert not changed.nodes[0].kept and changed.nodes[0].last is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": ["epoch=3"]}, "epoch: declared by no notebook of the plan"),
        ({"settings": ["epochs=0"]}, "epochs: expected"),
        ({"jobs": -1}, "jobs: expected 0 (one a core) or more, got -1"),
        ({"out": "notebooks/04_train.ipynb"}, "out: expected a folder to write to"),
    ],
)
def test_dry_run_refuses_what_a_report_refuses(house, plan, options, words):
    from fopro_lab.reports import run_plan

    for run in (dry_run, run_plan):
        with pytest.raises(InputError) as told:
            run(plan, **{"out": "out", **options})
        assert words in str(told.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_dry_run_refuses_a_folder_that_may_not_be_written(house, plan):
    (house.root / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="out: expected a folder to write to"):
        dry_run(plan, out="locked/out")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"dataset": "phantom", "teacher": "builtin"}, []),
        ({"dataset": "nowhere"}, ["data set nowhere"]),
        ({"dataset": "medmnist:derma"}, ["data set medmnist:derma"]),
        ({"dataset": "medmnist:dermis"}, ["data set medmnist:dermis"]),
        ({"teacher": "timm:resnet18", "method": "bsm"}, []),
        ({"teacher": "timm:resnet18", "method": "ekd"}, ["weights of timm:resnet18"]),
        ({"teacher": "timm:resnet18", "weights": "no.pth"}, ["weights of timm:resnet18"]),
        (
            {"teacher": "timm:resnet18", "weights": "no.pth", "method": "bsm"},
            ["weights of timm:resnet18"],  # as a report would refuse it
        ),
        ({"student_weights": "no.pth"}, ["weights that the student starts from"]),
        ({"natural": "no"}, ["natural images"]),
        (
            {"split_rule": "hyperkvasir", "split_files": "no"},
            ["published split (5_fold_split.csv)"],
        ),
        (
            {"split_rule": "isic2019-lt", "tail_ratio": 0.01, "fold": 4},
            ["published split (train_skin4_0.01.csv, val_skin4_0.01.csv, test_skin4_0.01.csv)"],
        ),
    ],
)
def test_missing_inputs(values, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [each.what for each in missing_inputs(values)] == what


def test_missing_inputs_tells_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path))
    (told,) = missing_inputs({"dataset": "isic2019-lt", "split_rule": "draw"})
    assert str(told) == (
        f"data set isic2019-lt: not at {tmp_path / 'isic2019'}; `fopro data fetch isic2019` brings "
        "it (9.8 GB, licence: CC BY-NC 4.0), or --set dataset=FOLDER"
    )
    (told,) = missing_inputs({"dataset": "nowhere"})
    assert str(told).endswith("not at nowhere; give the images' folder or CSV: --set dataset=PATH")
    write_json(tmp_path / "moco-v2" / "fetched.json", {"complete": False, "files": {}})
    (told,) = missing_inputs({"teacher": "moco-v2-resnet50"})  # a fetch that was cut
    assert told.where == str(tmp_path / "moco-v2/moco_v2_800ep_pretrain.pth.tar")


def test_the_command_tells_by_its_exit_code(house, plan, fopro):
    assert fopro("report", plan, "--plan")[0] == 0
    code, told, complaint = fopro("report", plan, "--plan", "--set", "dataset=isic2019")
    assert code == 1 and "missing: data set isic2019" in told
    assert complaint == "fopro: not ready: 1 missing or wrong, see above; nothing was executed\n"
    assert fopro("report", plan, "--plan", "--set", "epochs=0")[0] == 2
    assert not (house.root / "reports/plan").exists()
