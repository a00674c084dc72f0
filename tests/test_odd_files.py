"""Pipes and devices in the place of files: each reader says so, and waits for none."""

import os
import signal

import numpy as np
import pytest
from PIL import Image

from fopro_lab.data import open_dataset, pack
from fopro_lab.data.benchmarks import open_array, read_npz
from fopro_lab.data.decoding import read_image, survey
from fopro_lab.data.fetch import read_record
from fopro_lab.data.published_splits import describe_changes
from fopro_lab.data.readers import read_cells
from fopro_lab.evaluation import Run
from fopro_lab.evaluation.runs import read_mask_history
from fopro_lab.evaluation.scores import read_predictions
from fopro_lab.fourier import FourierPrompt
from fopro_lab.io import sha256_file
from fopro_lab.models.weights import read_state, read_weights
from fopro_lab.options import read_yaml
from fopro_lab.probing.teacher_card import TeacherCard
from fopro_lab.reports.plan import copy_shipped, read_notebook
from fopro_lab.training.run_folder import load_checkpoint
from fopro_lab.training.statistics import hash_natural
from tests.conftest import complaint

REFUSED = {
    "a.png": read_image,
    "a.csv": read_cells,
    "a.npz": read_npz,
    "a.npy": open_array,
    "a.pth": read_weights,
    "a.safetensors": read_state,
    "prompt.safetensors": FourierPrompt.load,
    "a.yaml": read_yaml,
    "predictions.parquet": read_predictions,
    "manifest.json": lambda path: Run.read(path.parent),
    "exploration_gains.parquet": lambda path: read_mask_history(path.parent),
    "checkpoint.pt": lambda path: load_checkpoint(path.parent),
    "card.json": lambda path: TeacherCard.read(path.parent),
    "preferences.parquet": lambda path: TeacherCard.read(path.parent),
    "a.ipynb": read_notebook,
    "images.zip": lambda path: hash_natural(str(path)),
    "split.csv": lambda path: describe_changes([path], [path.name], fetched="monica"),
    "data.csv": open_dataset,
    "data.npz": open_dataset,
    "data": open_dataset,
    "a.bin": sha256_file,
}
PASSED_OVER = {
    "b.png": lambda path: survey([str(path)]),
    "fopro.json": lambda path: read_record(path.parent),
    "notebooks/04_train.ipynb": lambda path: copy_shipped(path.parents[1]),
}


@pytest.fixture(params=["pipe", "device"])
def odd_file(request, tmp_path):
    """Put a pipe, or a link to an endless device, in a file's place; who waits there fails."""

    def place(name):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path) if request.param == "pipe" else path.symlink_to("/dev/zero")
        return path

    def late(*_):
        pytest.fail("it waits for what never comes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield place
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_is_refused(odd_file, name):
    path = odd_file(name)
    if name == "preferences.parquet":
        (path.parent / "card.json").write_text("{}")
    with pytest.raises((ValueError, OSError)) as found:  # InputError is a ValueError
        REFUSED[name](path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", PASSED_OVER)
def test_what_is_no_file_among_others_is_passed_over(odd_file, name):
    PASSED_OVER[name](odd_file(name))


def test_an_image_that_is_no_file_is_named(odd_file, tmp_path):
    for number in range(8):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    path.unlink()
    odd_file(path.relative_to(tmp_path))
    dataset, how = open_dataset(tmp_path / "set"), {"cache": tmp_path, "progress": False}
    assert "7.png: not a regular file" in complaint(pack, dataset, 8, **how)
    assert len(pack(dataset, 8, leave_out=True, **how)) == 7
