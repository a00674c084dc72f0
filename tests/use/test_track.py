"""What TensorBoard and MLflow receive of a run."""

import pytest

from fopro_lab.training import TrainedRun
from fopro_lab.use import export, track
from fopro_lab.use.track import curves
from tests.conftest import complaint


def test_tensorboard_gets_curves_and_scores_once(trained, tmp_path, fopro):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, out = trained[0], tmp_path / "board"
    for _ in range(2):  # the second in place of the first
        assert fopro("track", run.path, "--out", out) == (0, f"{out / run.name}\n", "")
    assert len(list((out / run.name).iterdir())) == 1
    board = EventAccumulator(str(out / run.name)).Reload()
    losses = [event.value for event in board.Scalars("loss")]
    assert losses == pytest.approx(run.history["loss"].tolist(), rel=1e-6)
    scores = run.table().set_index(["metric", "name"])["value"]
    (found,) = board.Scalars("test/recall/tail")
    assert found.step == run.manifest["best_epoch"]
    assert found.value == pytest.approx(scores["recall", "tail"], rel=1e-6)


def test_scores_of_classes_have_names_of_their_own(trained, monkeypatch, tmp_path):
    run = TrainedRun.read(trained[0].path)
    table = run.table()
    names = ["tail", "<5 mm", ">5 mm"]
    table.loc[table.index[:3], "name"] = names  # of classes, which come first
    monkeypatch.setattr(TrainedRun, "table", lambda _: table)
    scores = dict(each[:2] for each in curves(run) if each[0].startswith("test/"))
    assert len(scores) == table["value"].notna().sum()
    assert {"test/recall/class/tail", "test/recall/tail", "test/balanced_accuracy"} <= set(scores)


def test_a_run_is_not_written_over_another_of_its_name(trained, tmp_path):
    other = TrainedRun(tmp_path / trained[0].name, trained[0].manifest)
    line = complaint(track, [trained[0], other], out=str(tmp_path / "board"))
    assert f"got '{other.name}'" in line and not (tmp_path / "board").exists()


def test_a_missing_extra_is_one_line(trained, fopro, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    line = "fopro: mlflow: not installed; pip install 'fopro_lab[tracking]'\n"
    assert fopro("track", trained[0].path, "--to", "mlflow") == (2, "", line)


def test_mlflow_gets_a_run_once(trained, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra tracking brings it")
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path}/board.db"
    for _ in range(2):
        track([trained[0]], to="mlflow", out=address)
    place = [mlflow.get_experiment_by_name("fopro_lab").experiment_id]
    (found,) = mlflow.MlflowClient().search_runs(place)
    assert found.data.params["method"] == "bsm"
    assert found.data.metrics["loss"] == pytest.approx(trained[0].history["loss"].iloc[-1])
