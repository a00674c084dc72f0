"""The committed plans: they can be executed, and their settings can be overridden."""

from pathlib import Path

import pytest

from fopro_lab.config import TrainConfig
from fopro_lab.reports.plan import plan_nodes
from fopro_lab.training import distill
from tests.reports.published_inputs import lay_out

PLANS = Path(__file__).resolve().parents[2] / "reports/plans"
MOCO, DINO = PLANS / "isic2019_moco.yaml", PLANS / "isic2019_dinov2.yaml"
BOTH = pytest.mark.parametrize("plan", [MOCO, DINO], ids=["moco", "dinov2"])
# What makes one node of a published plan short enough for a test; the rest is as in the plan.
SHORT = ["epochs=1", "image_size=32", "batch_size=16", "prompt_steps=1"]
SHORT += ["prompt_check_every=0", "device=cpu"]


@pytest.mark.parametrize("plan", sorted(PLANS.glob("*.yaml")), ids=lambda p: p.stem)
def test_plan_expands(plan, tmp_path):
    (tmp_path / "file").touch()
    settings = [f"dataset={tmp_path}", f"weights={tmp_path / 'file'}"]
    nodes = plan_nodes(plan, out=tmp_path, settings=settings, inputs=None)
    methods = {node.parameters.get("method") for node in nodes} - {None}
    seeds = {node.parameters.get("seed") for node in nodes if "method" in node.parameters}
    trained = [node.config for node in nodes if isinstance(node.config, TrainConfig)]
    assert len({config.split_seed for config in trained}) <= 1  # else no verdict compares them
    if plan.stem not in ("control", "when_prompts_help"):  # they train no students
        alone = plan.stem in ("baselines", "claims_teachers")
        wanted = {"bsm"} if alone else {"bsm", "ekd", "fopro"}
        assert wanted <= methods and (len(seeds) >= 2 or plan.stem == "demo")


def test_several_values_are_meant_for_the_matrix_alone(tmp_path):
    def given(*settings):
        settings = ["dataset=phantom", *settings]
        nodes = plan_nodes(PLANS / "own.yaml", out=tmp_path, settings=settings)
        return {node.name: node.given for node in nodes}

    several = given("seed=[3,4,5]", "gains=[1.5]")
    assert {own["seed"] for name, own in several.items() if name[:5] == "train"} == {3, 4, 5}
    assert "seed" not in several["prompt"] and several["teacher"]["gains"] == [1.5]
    one = given("seed=3").items()
    assert {own.get("seed") for name, own in one if name[:5] in ("teach", "train")} == {3}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory) -> Path:
    """A folder of sources with stand-ins for all that the published plans read."""
    return lay_out(tmp_path_factory.mktemp("sources")).parent


@pytest.fixture
def here_and_now(fetched, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FOPRO_DATA", str(fetched))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return fetched


@BOTH
def test_a_published_plan_is_ready_with_all_inputs(here_and_now, fopro, tmp_path, plan):
    ratio, epochs = (0.002, 500) if plan == MOCO else (0.005, 100)
    weights = [] if plan == MOCO else [f"weights={here_and_now / 'dinov2.pth'}"]
    code, out, err = fopro("report", plan, "--plan", *[f"--set={text}" for text in weights])
    assert (code, err) == (0, "")
    assert "missing" not in out
    assert list(tmp_path.iterdir()) == []  # nothing was written
    nodes = plan_nodes(plan, out="out", settings=weights)
    entries = ["dataset", "teacher", "prompt", *["train"] * 12, "tail"]
    assert [node.entry for node in nodes] == entries
    train = nodes[3].config
    assert (train.rule, train.tail_ratio, train.fold) == ("isic2019-lt", ratio, 1)
    assert (train.student, train.image_size, train.batch_size) == ("resnet18", 224, 32)
    assert (train.learning_rate, train.clip_norm, train.distill_weight) == (3e-4, 5.0, 3.0)
    assert train.epochs == epochs and epochs // train.prompt_every == 100


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
    assert "not ready: 3 missing, see" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_node_of_a_published_plan_trains(here_and_now, tmp_path, monkeypatch):
    """Its options fit together: data, split, teacher at its size, student, prompt and recipe."""
    monkeypatch.setattr("fopro_lab.training.statistics.IMAGES", 4)  # stand for natural ones
    nodes = plan_nodes(MOCO, out="out", settings=SHORT)
    (config,) = [node.config for node in nodes if node.name == "train-fopro-0"]
    run = distill(config, out=tmp_path / "run", verbose=False)
    assert run.state == "done"
    assert run.manifest["protocol"].startswith(f"isic2019-lt/fopro/{config.tail_ratio:g}/fold1")
    teacher = run.manifest["teacher"]
    facts = (teacher["feature_dim"], teacher["resize"], teacher["input_size"], teacher["coverage"])
    assert facts == (2048, False, 224, 1.0)
    assert (tmp_path / "run/exploration.csv").is_file()
