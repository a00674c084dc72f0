import os

from fopro_lab.reports.plan import files_states, plan_nodes


def test_only_a_text_with_a_separator_or_a_path_by_name_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ekd").mkdir()
    assert files_states({"method": "ekd"}) == {}
    assert len(files_states({"method": f".{os.sep}ekd"})["method"]) == 64
    assert len(files_states({"dataset": "ekd"})["dataset"]) == 64


def test_a_run_folder_follows_the_data_and_the_source(house, monkeypatch):
    (house.root / "cats").mkdir()
    house.notebook("train", 'dataset: str = "phantom"\nrun_dir: str = "run"')
    plan = house.plan({"train": {"notebook": "train"}})

    def run_dir() -> str:
        (node,) = plan_nodes(plan, out="out", settings=["dataset=cats"])
        return node.places["run_dir"]

    first = run_dir()
    assert run_dir() == first
    (house.root / "cats/new.png").touch()
    second = run_dir()
    assert second != first
    monkeypatch.setattr("fopro_lab.reports.plan.package_hash", lambda: "another")
    assert run_dir() != second
