"""The committed plans: they can be executed, and their settings can be overridden."""

from pathlib import Path

import pytest

from fopro_lab.reports.plan import plan_nodes
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
    if plan.stem != "control":  # it trains no students
        # The claims wait for a learned prompt that passes the control.
        wanted = {"bsm", "ekd"} | ({"fopro"} if plan.stem != "claims" else set())
        assert wanted <= methods and len(seeds) >= 2


def test_several_values_are_meant_for_the_matrix_alone(tmp_path):
    nodes = plan_nodes(DEMO, out=tmp_path, settings=["seed=[3,4,5]", "gains=[1.5]"])
    given = {node.name: node.given for node in nodes}
    assert {values["seed"] for name, values in given.items() if name[:5] == "train"} == {3, 4, 5}
    assert "seed" not in given["prompt"] and given["teacher"]["gains"] == [1.5]
    one = plan_nodes(DEMO, out=tmp_path, settings=["seed=3"])
    assert {node.given.get("seed") for node in one if node.entry in ("teacher", "train")} == {3}


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
    code, out, err = fopro("report", plan, "--plan", *weights)
    assert (code, err) == (0, "")
    steps = epochs * (TRAINING // 32)
    assert f"steps: {12 * steps:,} training steps in 12 notebooks, at most 12,000 prompt" in out
    assert "missing" not in out and "wrong" not in out
    assert list(tmp_path.iterdir()) == []  # nothing was written
    nodes = plan_nodes(plan, out="out", settings=[w for w in weights if w != "--set"])
    entries = ["dataset", "teacher", "prompt", *["train"] * 12, "tail"]
    assert [node.entry for node in nodes] == entries
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
    code, out, err = fopro("report", plan, "--plan")
    missing = [line for line in out.splitlines() if line.startswith("missing: ")]
    assert code == 1 and len(missing) == 3
    assert "isic2019-lt is not here; fetch it (about 9.8 GB, CC BY-NC 4.0)" in missing[0]
    assert "`fopro data fetch isic2019`" in missing[0]
    assert "say `fopro data fetch fopro-splits`" in missing[1]
    assert teacher in missing[2]
    assert "not ready: 3 missing or wrong" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("plan", [MOCO, DINO], ids=["moco", "dinov2"])
def test_a_node_of_a_published_plan_trains(here_and_now, tmp_path, monkeypatch, plan):
    """Its options fit together: data, split, teacher at its size, student, prompt and recipe."""
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
