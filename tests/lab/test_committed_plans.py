"""The committed plans: they can be executed, and their settings can be overridden."""

from pathlib import Path

import pytest

from fopro_lab.errors import InputError
from fopro_lab.lab.nodes import plan_nodes

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "reports/plans/demo.yaml"


def here(path: Path) -> list[str]:
    """Settings that let a plan be read where its data are not."""
    return [f"dataset={path}", f"weights={path / 'file'}"] if path.is_dir() else []


@pytest.mark.parametrize(
    "plan", sorted((ROOT / "reports/plans").glob("*.yaml")), ids=lambda p: p.stem
)
def test_plan_expands(plan, tmp_path):
    (tmp_path / "file").touch()
    nodes = plan_nodes(plan, out=tmp_path, settings=here(tmp_path))
    methods = {node.parameters.get("method") for node in nodes} - {None}
    seeds = {node.parameters["seed"] for node in nodes if node.entry == "train"}
    assert {"bsm", "ekd", "fopro"} <= methods and len(seeds) >= 2
    assert nodes[-1].entry == "tail"


def test_several_values_are_meant_for_the_matrix_alone(tmp_path):
    nodes = plan_nodes(DEMO, out=tmp_path, settings=["seed=[3,4,5]", "gains=[1.5]"])
    assert {node.parameters["seed"] for node in nodes if node.entry == "train"} == {3, 4, 5}
    others = {node.entry: node.parameters for node in nodes if node.entry != "train"}
    assert not any("seed" in parameters for parameters in others.values())
    assert others["teacher"]["gains"] == [1.5]
    one = plan_nodes(DEMO, out=tmp_path, settings=["seed=3"])
    assert {node.parameters.get("seed") for node in one if node.entry in ("teacher", "train")} == {
        3
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dataset=nowhere", "dataset: expected 'phantom' or a path that exists, got 'nowhere'"),
        ("weights=nowhere.pth", "weights: nowhere.pth: no such file"),
        ("data=phantom", "did you mean 'dataset'"),
        ("epochs=0", "epochs: expected"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(tmp_path, setting, words):
    with pytest.raises(InputError) as told:
        plan_nodes(DEMO, out=tmp_path / "out", settings=[setting])
    assert words in str(told.value)
    assert not (tmp_path / "out").exists()
