import os
from dataclasses import replace

import pytest

from fopro_lab.reports.plan import Node, files_states
from fopro_lab.reports.run import Record, forget_record, node_key, read_record, write_record


@pytest.fixture
def node(house):
    path = house.notebook("a", "epochs: int = 3", "print(epochs)")
    return Node("a", "a", path, {"epochs": 4}, {"out_dir": "out/a"}, after=("b",))


def test_node_key_changes_with_what_the_result_depends_on(house, node):
    def key(changed=node, before="1"):
        return node_key(changed, before={"b": before})

    first = key()
    assert key(replace(node, parameters={"epochs": 5})) != first
    assert key(before="2") != first
    assert key(replace(node, places={"out_dir": "elsewhere"})) == first
    house.notebook("a", "epochs: int = 3", "print(epochs, 1)")
    assert key() != first


def test_node_key_changes_with_the_files_a_parameter_points_to(house, node):
    (house.root / "data").mkdir()
    pointing = replace(node, parameters={"dataset": f".{os.sep}data"})
    first = node_key(pointing, before={"b": ""})
    (house.root / "data" / "new.png").touch()
    assert node_key(pointing, before={"b": ""}) != first


def test_node_key_lists_a_folder_once_for_all_nodes(house, node):
    pointing = replace(node, parameters={"dataset": f".{os.sep}notebooks"})
    files = {}
    first = node_key(pointing, before={"b": ""}, files=files)
    here = f".{os.sep}notebooks"
    assert files == {here: files_states({"folder": here})["folder"]}
    (house.root / "notebooks" / "new").touch()
    assert node_key(pointing, before={"b": ""}, files=files) == first


def test_read_record_holds_while_key_and_outputs_are_there(house, node):
    folder = house.out / "a"
    folder.mkdir(parents=True)
    (folder / "figure.png").touch()
    write_record(node, folder=folder, key="k", took=Record(2.5))
    assert read_record(folder=folder, key="k") == Record(2.5)
    assert read_record(folder=folder, key="other") is None
    (folder / "figure.png").unlink()
    assert read_record(folder=folder, key="k") is None


def test_read_record_misses_a_run_folder_that_is_gone(house, node):
    folder, run = house.out / "a", house.out / "runs" / "a"
    for path in (folder, run):
        path.mkdir(parents=True)
    (run / "manifest.json").touch()
    node = replace(node, places={"run_dir": str(run)})
    write_record(node, folder=folder, key="k", took=Record(1.0))
    assert read_record(folder=folder, key="k") == Record(1.0)
    (run / "manifest.json").unlink()
    assert read_record(folder=folder, key="k") is None


def test_read_record_takes_a_broken_record_for_none(house):
    (house.root / ".done.json").write_text("{")
    assert read_record(folder=house.root, key="k") is None


def test_forget_record_removes_what_the_record_lists_and_nothing_else(house, node):
    folder, run = house.out / "a", house.out / "runs" / "a"
    for path in (folder, run):
        path.mkdir(parents=True)
    (folder / "figure.png").touch()
    (run / "manifest.json").touch()
    node = replace(node, places={"run_dir": str(run)})
    write_record(node, folder=folder, key="k", took=Record(1.0))
    (folder / "mine.txt").touch()
    forget_record(folder=folder)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]
    assert (run / "manifest.json").exists()
