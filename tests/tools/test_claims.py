"""The two files of the claims' runs: what is unpacked is what was added."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest

from fopro_lab.config import TrainConfig
from fopro_lab.evaluation import load_runs
from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import distill, train
from fopro_lab.training.run_folder import TrainedRun
from fopro_lab.training.teacher_features import KeptFeatures
from tools.claims import PLAN, _configs, add_run, cite, is_kept, refine_all, unpack
from tools.kept_views import keep_views


def test_runs_come_back_from_the_two_files(tmp_path):
    options = {"images": 120, "image_size": 16, "epochs": 1, "method": "bsm"}
    runs = [
        distill(TrainConfig(seed=seed, **options), out=tmp_path / f"run{seed}", verbose=False)
        for seed in (0, 1)
    ]
    for run in runs:
        add_run(run, tmp_path)
    unpack(tmp_path / "again", tmp_path)
    found = load_runs(tmp_path / "again")
    assert [run.seed for run in found] == [0, 1]
    for run, other in zip(runs, found, strict=True):
        whole = run.predictions[run.predictions["split"] == "test"].reset_index(drop=True)
        logits = [name for name in whole if name.startswith("logit_")]
        assert other.predictions.drop(columns=logits).equals(whole.drop(columns=logits))
        # float16 moves a logit of 2 by 1e-3 at most; another image's logits are 0.01 away.
        np.testing.assert_allclose(other.predictions[logits], whole[logits], atol=2e-3)
        pd.testing.assert_frame_equal(other.history, run.history)
        assert other.manifest["config"] == run.manifest["config"]
        assert other.protocol == run.protocol


def test_steps_after_training_are_kept_once_and_come_back(tmp_path):
    options = {"images": 120, "image_size": 16, "epochs": 1, "method": "ce"}
    out, kept = tmp_path / "out", tmp_path / "kept"
    kept.mkdir()
    distill(TrainConfig(**options), out=out / "run", verbose=False)
    for _ in range(2):
        refine_all(out, kept, how=["tau-norm"])
    unpack(tmp_path / "again", kept)
    (found,) = load_runs(tmp_path / "again")
    assert found.method == "ce+tau-norm" and found.name == "run+tau-norm"


def test_a_run_of_other_options_or_prompt_is_not_kept(tmp_path):
    prompt = tmp_path / "p.safetensors"
    FourierPrompt("ring", size=16).save(prompt)
    options = {"images": 120, "image_size": 16, "epochs": 1, "prompt_file": str(prompt)}
    config = TrainConfig(method="fopro", **options)
    add_run(distill(config, out=tmp_path / "run", verbose=False), tmp_path)
    add_run(TrainedRun.read(tmp_path / "run"), tmp_path)  # again, after a call that was cut off
    assert len(pd.read_parquet(tmp_path / "manifests.parquet")) == 1
    kept = partial(is_kept, path=tmp_path / "manifests.parquet")
    assert kept(config) and kept(config.model_copy(update={"precision": "auto"}))
    for other in ({"seed": 1}, {"distill_weight": 2.0}, {"method": "random"}):
        assert not kept(config.model_copy(update=other))
    FourierPrompt("ring", size=16, rings=3).save(prompt)
    assert not kept(config)


@pytest.mark.parametrize("plan", ["claims.yaml", "claims_tail.yaml", "claims_low_pass.yaml"])
def test_the_prompts_that_a_plan_of_claims_names_are_committed(plan):
    files = {config.prompt_file for config in _configs(PLAN.parent / plan)} - {""}
    assert len(files) == 3
    for path in files:
        gain = FourierPrompt.load(path).mean_gain(size=(128, 128)).log()
        along = gain[0, 1:]  # a change of contrast alone would have one gain for all frequencies
        assert gain.isfinite().all() and along.max() - along.min() > 0.3


def test_the_script_for_a_gpu_trains_until_the_time_is_over(tmp_path):
    small = {"device": "cpu", "dataset": "phantom", "images": 120, "image_size": 32}
    small |= {"student_size": 32, "epochs": 2, "threads": 1, "compile": "off", "teacher_views": 1}
    options = [text for name, value in small.items() for text in ("--set", f"{name}={value}")]
    command = [str(PLAN.parents[2].resolve() / "tools/claims_on_gpu"), tmp_path / "out", "0.001"]
    done = subprocess.run(
        [*command, *options],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = pd.read_parquet(tmp_path / "out/manifests.parquet")
    config = json.loads(kept["manifest"].iloc[0])["config"]
    assert len(kept) == 1 and config["student"] == "resnet18"


def test_kept_views_train_the_same_student(tmp_path, monkeypatch):
    small = {"images": 160, "image_size": 32, "student_size": 16, "epochs": 2, "threads": 1}
    config = TrainConfig(
        method="ekd", teacher="builtin", teacher_views=2, augment="published", **small
    )
    monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / "cache"))  # else it finds its own of before
    live = distill(config, out=tmp_path / "live", verbose=False)
    patched = ((train, "draw_batches"), (KeptFeatures, "_encode"), (KeptFeatures, "_what"))
    for owner, name in patched:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # undone when the test ends
    keep_views(tmp_path / "views")
    kept = distill(config, out=tmp_path / "kept", verbose=False)
    assert (
        kept.manifest["teacher_features"]["found"] == 0
    )  # torch's features are not taken for them
    logits = [name for name in live.predictions if name.startswith("logit_")]
    difference = kept.predictions[logits] - live.predictions[logits]
    # The teacher's last digits differ; other views would move logits by 0.03.
    assert difference.abs().max().max() < 1e-4
    assert [file.suffix for file in sorted((tmp_path / "views").iterdir())] == [".f32", ".there"]
    # Without a teacher the bits are the same, also where the views are there already.
    config = TrainConfig(method="bsm", teacher_views=2, augment="published", **small)
    first, again = (distill(config, out=tmp_path / name, verbose=False) for name in "ab")
    monkeypatch.undo()
    live = distill(config, out=tmp_path / "c", verbose=False)
    for run in (first, again):
        assert run.predictions.equals(live.predictions)


@pytest.mark.parametrize("plan", ["claims", "baselines"])
def test_the_ledger_is_what_the_command_writes(plan, tmp_path, capsys):
    reports = PLAN.parents[1]
    table = {"claims": "verdict/levels.csv", "baselines": "tail/headline.csv"}[plan]
    ledger = tmp_path / "ledger.csv"
    ledger.write_bytes((reports / "ledger.csv").read_bytes())
    cite(reports / plan / table, reports / plan, PLAN.parent / f"{plan}.yaml", ledger)
    assert ledger.read_bytes() == (reports / "ledger.csv").read_bytes()
    rows = pd.read_csv(ledger, dtype=str, keep_default_na=False)
    without = rows[~rows["command"].str.contains("tools.claims")]
    without.to_csv(ledger, index=False)
    cite(reports / plan / table, reports / plan, PLAN.parent / f"{plan}.yaml", ledger)
    found = pd.read_csv(ledger, dtype=str, keep_default_na=False)
    assert len(found) == len(without) + 4 * len(pd.read_csv(reports / plan / table))
    assert capsys.readouterr().out.count("| EKD |") == 2
