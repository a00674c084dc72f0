"""The committed plans: they can be executed, and their settings can be overridden."""

import shutil
from pathlib import Path

import pytest
import timm
import torch

from fopro_lab.errors import InputError
from fopro_lab.models import load_teacher
from fopro_lab.reports.plan import plan_nodes
from fopro_lab.reports.run import dry_run
from fopro_lab.training import distill
from tests.reports.published_inputs import (
    TRAINING,
    lay_out_isic2019,
    lay_out_moco,
    lay_out_splits,
    write_dinov2,
)

ROOT = Path(__file__).resolve().parents[2]
PLANS = ROOT / "reports/plans"
DEMO = PLANS / "demo.yaml"
MOCO, DINO = PLANS / "isic2019_moco.yaml", PLANS / "isic2019_dinov2.yaml"
# What makes one node of a published plan short enough for a test; the rest is as in the plan. The
# teacher of DINOv2 keeps its 224 px.
SHORT = [
    *("epochs=1", "image_size=32", "batch_size=16", "prompt_steps=1"),
    *("prompt_check_every=0", "device=cpu"),
]


def here(path: Path) -> list[str]:
    """Settings that let a plan be read where its data are not."""
    return [f"dataset={path}", f"weights={path / 'file'}"] if path.is_dir() else []


@pytest.mark.parametrize("plan", sorted(PLANS.glob("*.yaml")), ids=lambda p: p.stem)
def test_plan_expands(plan, tmp_path):
    (tmp_path / "file").touch()
    nodes = plan_nodes(plan, out=tmp_path, settings=here(tmp_path), inputs=False)
    methods = {node.parameters.get("method") for node in nodes} - {None}
    seeds = {node.parameters["seed"] for node in nodes if "method" in node.parameters}
    assert {"bsm", "ekd", "fopro"} <= methods and len(seeds) >= 2


def test_several_values_are_meant_for_the_matrix_alone(tmp_path):
    nodes = plan_nodes(DEMO, out=tmp_path, settings=["seed=[3,4,5]", "gains=[1.5]"])
    assert {node.given["seed"] for node in nodes if node.entry == "train"} == {3, 4, 5}
    others = {node.entry: node.given for node in nodes if node.entry != "train"}
    assert not any("seed" in parameters for parameters in others.values())
    assert others["teacher"]["gains"] == [1.5]
    one = plan_nodes(DEMO, out=tmp_path, settings=["seed=3"])
    assert {node.given.get("seed") for node in one if node.entry in ("teacher", "train")} == {3}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dataset=nowhere", "dataset: expected 'phantom' or a path that exists, got 'nowhere'"),
        ("weights=nowhere.pth", "weights: nowhere.pth: no such file"),
        ("data=phantom", "did you mean 'dataset'"),
        ("epochs=0", "epochs: expected"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(tmp_path, setting, words):
    with pytest.raises(InputError) as told:
        plan_nodes(DEMO, out=tmp_path / "out", settings=[setting])
    assert words in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def fetched(tmp_path_factory) -> Path:
    """A folder of sources with stand-ins for all that the published plans read."""
    root = tmp_path_factory.mktemp("sources")
    lay_out_isic2019(root)
    lay_out_splits(root)
    lay_out_moco(root)
    write_dinov2(root / "dinov2.pth")
    return root


@pytest.fixture
def here_and_now(fetched, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FOPRO_DATA", str(fetched))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return fetched


@pytest.mark.parametrize(
    ("plan", "ratio", "epochs", "explored"), [(MOCO, 0.002, 500, 100), (DINO, 0.005, 100, 100)]
)
def test_a_published_plan_is_ready_with_all_inputs(
    here_and_now, fopro, tmp_path, plan, ratio, epochs, explored
):
    weights = () if plan == MOCO else ("--set", f"weights={here_and_now / 'dinov2.pth'}")
    code, told, complaint = fopro("report", plan, "--plan", *weights)
    assert (code, complaint) == (0, "")
    steps = epochs * (TRAINING // 32)
    assert f"steps: {12 * steps:,} training steps in 12 notebooks, at most 12,000 prompt" in told
    assert "missing" not in told and "wrong" not in told
    assert list(tmp_path.iterdir()) == []  # nothing was written
    nodes = plan_nodes(plan, out="out", settings=[w for w in weights if w != "--set"])
    assert [node.entry for node in nodes] == [
        "dataset",
        "teacher",
        "prompt",
        *["train"] * 12,
        "tail",
    ]
    train = nodes[3].config
    assert (train.rule, train.tail_ratio, train.fold) == ("isic2019-lt", ratio, 1)
    assert (train.student, train.image_size, train.batch_size) == ("resnet18", 224, 32)
    assert (train.learning_rate, train.clip_norm, train.distill_weight) == (3e-4, 5.0, 3.0)
    assert train.epochs == epochs and epochs // train.prompt_every == explored


@pytest.mark.parametrize(
    ("plan", "teacher"),
    [
        (MOCO, "weights of moco-v2-resnet50, got none; fetch them with `fopro data fetch moco-v2`"),
        (DINO, "weights: ~/.local/share/fopro_lab/dinov2/dinov2_vits14_pretrain.pth: no such file"),
    ],
)
def test_a_published_plan_names_every_missing_input(fopro, tmp_path, monkeypatch, plan, teacher):
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, told, complaint = fopro("report", plan, "--plan")
    missing = [line for line in told.splitlines() if line.startswith("missing: ")]
    assert code == 1 and len(missing) == 3
    assert "isic2019-lt is not here; fetch it (about 9.8 GB, CC BY-NC 4.0)" in missing[0]
    assert "`fopro data fetch isic2019`" in missing[0]
    assert "say `fopro data fetch fopro-splits`" in missing[1]
    assert teacher in missing[2]
    assert "not ready: 3 missing or wrong" in complaint
    assert list(tmp_path.iterdir()) == []


def test_a_published_plan_names_the_one_input_that_is_missing(here_and_now, tmp_path, monkeypatch):
    shutil.copytree(here_and_now / "isic2019", tmp_path / "isic2019")
    lay_out_splits(tmp_path)
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path))
    (problem,) = dry_run(MOCO, out="out").problems
    assert "weights of moco-v2-resnet50" in problem
    (tmp_path / "isic2019/ISIC_2019_Training_Input/ISIC_0000000.jpg").unlink()
    _, problem = dry_run(MOCO, out="out").problems
    assert problem.startswith("wrong: ") and "ISIC_0000000" in problem


@pytest.mark.slow
@pytest.mark.parametrize("plan", [MOCO, DINO], ids=["moco", "dinov2"])
def test_a_node_of_a_published_plan_trains(here_and_now, tmp_path, monkeypatch, plan):
    """Its knobs fit together: data, split, teacher at its size, student, prompt and recipe."""
    monkeypatch.setattr("fopro_lab.training.statistics.IMAGES", 4)  # stand for natural ones
    weights = [] if plan == MOCO else [f"weights={here_and_now / 'dinov2.pth'}"]
    nodes = plan_nodes(plan, out="out", settings=[*SHORT, *weights])
    (node,) = [node for node in nodes if node.name == "train-fopro-0"]
    config = node.config
    run = distill(config, out=tmp_path / "run", verbose=False)
    assert run.state == "done"
    assert run.manifest["protocol"].startswith(f"isic2019-lt/fopro/{config.tail_ratio:g}/fold1")
    teacher = run.manifest["teacher"]
    facts = (teacher["feature_dim"], teacher["resize"], teacher["input_size"], teacher["coverage"])
    assert facts == ((2048, False, 224, 1.0) if plan == MOCO else (384, True, 224, 1.0))
    assert (tmp_path / "run/exploration.csv").is_file()


def test_dinov2_sees_16_x_16_patches_at_the_plans_size(here_and_now):
    """At its own size it would be 37 x 37; the position embeddings of these are shrunk."""
    own = timm.get_pretrained_cfg("vit_small_patch14_dinov2")
    assert own is not None and own.input_size[-1] == 518 and own.fixed_input_size
    seen = []
    teacher = load_teacher(
        "timm:vit_small_patch14_dinov2", weights=str(here_and_now / "dinov2.pth"), size=224
    )
    block = teacher.body.model.blocks[0]
    block.register_forward_hook(lambda layer, given, got: seen.append(got.shape[1] - 1))
    assert teacher.encode(torch.rand(1, 3, 40, 40)).shape == (1, 384)
    assert seen == [16 * 16]
