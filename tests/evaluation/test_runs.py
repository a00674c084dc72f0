import json
import re

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from fopro_lab.evaluation import Run, load_runs, score
from fopro_lab.evaluation.runs import MAPS_FILE, RINGS_FILE, read_mask_histories, read_mask_history
from tests.conftest import refuses
from tests.evaluation.toy_runs import predictions, write_run


def test_run_reads_its_manifest_and_tables(tmp_path):
    folder = write_run(tmp_path / "bsm-0", predictions(), method="ekd", seed=3)
    (folder / "history.csv").write_text("epoch,loss\n1,0.5\n")
    run = Run.read(folder)
    assert (run.name, run.method, run.seed, run.state) == ("bsm-0", "ekd", 3, "done")
    assert (run.protocol, run.class_names) == ("toy/64px/seed0", ("nv", "mel", "bkl", "df"))
    assert run.config["method"] == "ekd" and run.groups["nv"] == "head"
    assert run.history["loss"].tolist() == [0.5]
    expected = score(run.predictions, run.groups, run.protocol, resamples=20)
    pd.testing.assert_frame_equal(run.table(resamples=20), expected)
    assert Run.read(folder / "manifest.json").path == folder


def test_a_run_of_version_0_1_is_read_in_the_words_of_today(tmp_path):
    config = {"method": "fopro", "seed": 0, "explore_steps": 9}
    about = {"config": config, "protocol": "skin/pictures/val0.15-test0.25/seed0"}
    run = Run.read(write_run(tmp_path / "a", predictions(), **about))
    assert run.config["prompt_steps"] == 9
    assert run.protocol == "skin/images/val0.15-test0.25/seed0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"state": "do', "expected JSON, got damaged text"),
        ("[1]", "expected the key 'state', got none; remove the folder and train again"),
        ('{"state": "failed", "config": {}}', "expected the key 'config: method', got none"),
        ("\x00\xff", "expected"),
        ('{"state": "failed", "config": 1e308}', r"expected the key 'config', got 1e\+308"),
        (
            '{"state": "failed", "config": {"method": "bsm", "seed": [1]}}',
            r"expected the key 'config: seed', got \[1\]",
        ),
        (
            '{"state": "failed", "config": {"method": "bsm", "seed": 1}, "student": {"macs": "1"}}',
            "expected the key 'student: macs', got 1",
        ),
    ],
)
def test_a_damaged_manifest_is_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "manifest.json"
    path.write_text(text, encoding="latin-1")
    refuses(f"^{re.escape(str(path))}: .*{message}", Run.read, tmp_path)


def test_load_runs_finds_runs_at_any_depth_once_and_missing_files_are_named(tmp_path):
    for name in ("x/b", "a", "x/y/c"):
        write_run(tmp_path / name, predictions())
    runs = load_runs([tmp_path, tmp_path / "a", str(tmp_path / "x")])
    assert [run.name for run in runs] == ["a", "b", "c"]
    assert [run.name for run in load_runs(tmp_path / "a")] == ["a"]
    run = Run.read(write_run(tmp_path / "a", predictions()))
    (tmp_path / "a" / "predictions.parquet").unlink()
    refuses(r"a/predictions.parquet: no such file", lambda: run.predictions)
    refuses(r"a/history.csv: no such file; the run has not", lambda: run.history)
    (tmp_path / "a" / "history.csv").write_text("epoch,seconds\n1,x\n")
    refuses(r"a/history.csv: expected numbers, got text in column 'seconds'", lambda: run.history)


def test_load_runs_warns_of_unfinished_runs_and_leaves_them_out(tmp_path):
    refuses("expected a run folder or one that holds runs, got no", load_runs, tmp_path)
    (tmp_path / "b").mkdir()
    running = {"state": "running", "config": {"method": "ce", "seed": 0}}
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(running))
    refuses(r"runs: expected a finished one, got .* \(running\)", load_runs, tmp_path)
    write_run(tmp_path / "a", predictions())
    with pytest.warns(UserWarning, match=r"left out, not finished: .*b \(running\)"):
        runs = load_runs(tmp_path)
    assert [run.name for run in runs] == ["a"]
    assert [run.state for run in load_runs(tmp_path, unfinished=True)] == ["done", "running"]


def write_masks(folder, *, dropped="", **columns):
    """Write the masks of two steps."""
    base = {"exploration": 1, "step": [0, 5], "low": 0.0, "high": 0.75, "gain": [1.0, 2.0]}
    pd.DataFrame(base | columns).drop(columns=dropped.split()).to_parquet(folder / RINGS_FILE)
    save_file({"gain": np.full((2, 4, 4), 3.0, np.float16)}, folder / MAPS_FILE)


def test_mask_history_reads_what_a_run_wrote(tmp_path):
    write_masks(tmp_path)
    history = read_mask_history(tmp_path)
    assert history.times == [(1, 0), (1, 5)] and (history.planes == 3.0).all()
    np.testing.assert_array_equal(history.edges, [0.0, 0.75])
    places = [history.at(time) for time in ((0, 9), (1, 0), (1, 4), (1, 5), (2, 0))]
    assert places == [0, 0, 0, 1, 1]
    (tmp_path / MAPS_FILE).write_bytes(b"no tensors")
    refuses("expected whole files of masks", read_mask_history, tmp_path)


def test_mask_history_refuses_what_is_none(tmp_path):
    refuses(r"exploration_gains\.parquet: no such file; it is", read_mask_history, tmp_path)
    for gain in (0.0, -1.0, np.nan, np.inf):
        write_masks(tmp_path, gain=[1.0, gain])
        refuses(r"expected a finite gain above", read_mask_history, tmp_path)
    write_masks(tmp_path, dropped="gain")
    refuses("expected whole files of masks", read_mask_history, tmp_path)
    refuses("runs: expected at least one, got none", read_mask_histories, [])
