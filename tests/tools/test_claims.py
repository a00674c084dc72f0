"""The two files of the claims' runs: what is unpacked is what was added."""

import numpy as np
import pandas as pd

from fopro_lab.config import TrainConfig
from fopro_lab.evaluation import load_runs
from fopro_lab.training import distill
from tools.claims import add_run, unpack


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
