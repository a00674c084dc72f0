"""Small tables of predictions and run folders."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.evaluation import Run, class_groups, write_predictions

NAMES = ("nv", "mel", "bkl", "df")


def predictions(counts=(40, 20, 10, 6), *, seed=0, skill=1.0, split="test", a_group=1):
    """Draw logits that know the label a little; ``a_group`` images share a lesion."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(size=(len(labels), len(counts)))
    logits[np.arange(len(labels)), labels] += skill
    table = pd.DataFrame(
        {
            "image": [f"image_{row:04d}" for row in range(len(labels))],
            "group": [f"lesion_{row // a_group}" for row in range(len(labels))],
            "source": "",
            "split": split,
            "label": labels,
        }
    )
    for k, name in enumerate(NAMES[: len(counts)]):
        table[f"logit_{name}"] = logits[:, k]
    return table


def groups(counts=(40, 20, 10, 6)):
    return class_groups(dict(zip(NAMES, counts, strict=False)))


def manifest_of(table, *, method="bsm", seed=0, **changes):
    names = [column.removeprefix("logit_") for column in table if column.startswith("logit_")]
    manifest = {
        "state": "done",
        "config": {"method": method, "seed": seed},
        "protocol": "toy/64px/seed0",
        "split_fingerprint": "abc",
        "class_names": names,
        "groups": groups(tuple(table["label"].value_counts(sort=False))),
    }
    return manifest | changes


def run_of(table=None, *, name="", **changes) -> Run:
    """Return a finished run in memory, named by its method and seed."""
    table = predictions() if table is None else table
    manifest = manifest_of(table, **changes)
    run = Run(Path(name or "{method}-{seed}".format(**manifest["config"])), manifest)
    run.__dict__["predictions"] = table  # in the place of what the property would read
    return run


def write_run(folder: Path, table, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest_of(table, **changes)))
    write_predictions(folder / "predictions.parquet", table)
    return folder


def slow_bootstrap(table, values, *, resamples):
    """Draw whole lesions of each class one by one; average values per image, then classes."""
    rng, classes = np.random.default_rng(3), [own for _, own in table.groupby("label")]
    lesions = [[values[rows.index] for _, rows in own.groupby("group")] for own in classes]
    means = [
        [np.concatenate([own[rng.integers(len(own))] for _ in own]).mean() for own in lesions]
        for _ in range(resamples)
    ]
    return np.mean(means, axis=1)


def hits(table):
    """Say of each image whether its class has the largest logit."""
    return table.filter(like="logit_").to_numpy().argmax(axis=1) == table["label"].to_numpy()
