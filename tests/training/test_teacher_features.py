"""Kept teacher features: equal to live ones, shared, checked, filled once."""

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from fopro_lab.config import TrainConfig
from fopro_lab.data import prepare
from fopro_lab.models.teacher import quick_teacher
from fopro_lab.training import distill
from fopro_lab.training.setup import build_setup, start_fabric
from fopro_lab.training.teacher_features import FeatureFiles
from fopro_lab.training.train_prompt import build_prompt
from tests.conftest import fails
from tests.fourier.toys import make
from tests.training.forked import start

# No Adam: its first steps turn the last digit of a gradient near 0 into a whole step.
TINY = {"method": "ekd", "images": 96, "image_size": 16, "epochs": 3, "batch_size": 18,
        "optimiser": "sgd", "teacher_views": 3, "device": "cpu", "threads": 1}  # fmt: skip
LOSSES = ["loss", "loss_classes", "loss_second", "loss_distill"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(folder: Path, **options: object):
    return distill(TrainConfig.from_mapping(TINY | options), out=folder, verbose=False)


def no_teacher(monkeypatch) -> None:
    """Let a run fail if it asks its teacher for the features of a batch."""

    def silent(*given, **options):
        teacher = quick_teacher(*given, **options)
        teacher.encode = None
        return teacher

    monkeypatch.setattr("fopro_lab.training.setup.quick_teacher", silent)


def prompt_file(folder: Path, form: str) -> str:
    make(form, scale=0.3, size=16).save(folder / f"{form}.safetensors")
    return str(folder / f"{form}.safetensors")


@pytest.mark.parametrize("method", ["ekd", "fopro", "random"])
def test_as_many_views_as_epochs_are_the_live_run(tmp_path, monkeypatch, method):
    options = {"method": method, "augment_mode": "exact"}
    if method != "ekd":
        options |= {"prompt_file": prompt_file(tmp_path, "shared")}
    live = run(tmp_path / "live", teacher_views=0, **options)
    kept = run(tmp_path / "kept", **options)
    # float16 moves a loss by 1e-5. The smallest wrong answers: the next view moves `loss_distill`
    # by 1.3e-4 in every epoch, another image's features by 4e-3.
    # The total, the first column, holds the last one three times.
    away = (kept.history[LOSSES] - live.history[LOSSES]).abs()
    assert (away <= [9e-5, 3e-5, 3e-5, 3e-5]).all(axis=None)
    found = kept.manifest["teacher_features"]
    assert found == {"views": 3, "needed": 3 * 54, "found": 0, "hit_rate": 0.0}
    assert "teacher_features" not in live.manifest
    no_teacher(monkeypatch)
    again = run(tmp_path / "again", **options)
    assert again.manifest["teacher_features"]["hit_rate"] == 1
    assert again.predictions.equals(kept.predictions)


def test_seeds_lambdas_and_fewer_views_find_what_is_kept(tmp_path, monkeypatch):
    run(tmp_path / "first")
    no_teacher(monkeypatch)
    others = [{"seed": 5}, {"distill_weight": 1.0}, {"teacher_views": 2, "epochs": 6}]
    for number, options in enumerate(others):
        found = run(tmp_path / str(number), **options).manifest["teacher_features"]
        assert found["hit_rate"] == 1, options


def test_folds_share_and_fill_what_the_others_lack(tmp_path):
    how = {"split_rule": "folds", "folds": 3}
    folds = [run(tmp_path / str(fold), fold=fold, **how) for fold in (1, 2, 3)]
    rates = [fold.manifest["teacher_features"]["hit_rate"] for fold in folds]
    assert rates[0] == 0 < rates[1] < rates[2]  # of three folds the first two hold all images


def test_what_decides_a_feature_decides_its_file(tmp_path):
    def folder(strength: float | None = None, **options: object) -> Path:
        config = TrainConfig.from_mapping(TINY | options)
        packed, split = prepare(config, progress=False)
        setup = build_setup(config, fabric=start_fabric(config), packed=packed, split=split)
        prompt = build_prompt(config) if config.method != "ekd" else None
        return setup.kept.files_of(prompt, strength).folder

    others: list[dict] = [{"augment": "flips"}, {"augment_mode": "exact"}, {"image_size": 24}]
    others += [{"teacher_size": 32}, {"precision": "bf16-mixed"}, {"images": 90}]
    forms = ("shared", "generator")
    others += [{"method": "fopro", "prompt_file": prompt_file(tmp_path, form)} for form in forms]
    control = others[-1] | {"method": "random"}
    others += [
        control | {"strength": power, "seed": seed} for power, seed in ((1, 0), (1, 1), (2, 0))
    ]
    assert len({folder(), *(folder(**options) for options in others)}) == len(others) + 1
    views = control | {"random_gains": "per-view", "strength": 1}
    assert folder(**views) == folder(**views | {"seed": 3}) != folder(**control | {"strength": 1})
    assert folder(seed=3, epochs=5, teacher_views=2, distill_weight=1.0) == folder()


def test_a_prompt_is_fitted_in_the_precision_of_a_live_run():
    config = TrainConfig.from_mapping(TINY | {"prompt": "vptta", "precision": "bf16-mixed"})
    packed, split = prepare(config, progress=False)
    kept = build_setup(config, fabric=start_fabric(config), packed=packed, split=split).kept
    seen = []
    kept.adapt = lambda images: seen.append(torch.is_autocast_enabled("cpu")) or images
    kept.files_of("vptta").encode(split.train[:2], 0)
    assert seen == [False]


@pytest.mark.parametrize("damage", ["features", "check", "header", "cut"])
def test_damage_is_found_said_and_mended(tmp_path, cache, capsys, damage):
    first = run(tmp_path / "first")
    (path,) = cache.glob("features-*/view-0001.npy")
    content = bytearray(path.read_bytes())
    width = first.manifest["teacher"]["feature_dim"]
    row = prepare(first.train_config, progress=False)[1].train[4]
    offset = len(content) - (96 - row) * (2 * width + 8)
    place = {"features": offset + 9, "check": offset + 2 * width + 5, "header": 3, "cut": 0}
    content[place[damage]] ^= 8
    path.write_bytes(content[:-9] if damage == "cut" else content)
    again = run(tmp_path / "again")
    told = capsys.readouterr().err
    one = damage in ("features", "check")
    assert f"view-0001.npy: {'1 images damaged; made' if one else 'damaged; its features'}" in told
    found = again.manifest["teacher_features"]
    assert found["needed"] - found["found"] == (1 if one else 54)
    assert again.predictions.equals(first.predictions)


def test_features_of_another_view_or_teacher_are_not_taken(tmp_path, cache, capsys):
    first = run(tmp_path / "first")
    (folder,) = cache.glob("features-*")
    content = (folder / "view-0000.npy").read_bytes()
    (folder / "view-0001.npy").write_bytes(content)
    again = run(tmp_path / "again")
    assert "view-0001.npy: 54 images damaged; made again" in capsys.readouterr().err
    assert again.predictions.equals(first.predictions)


def test_two_processes_at_once_fill_each_view_once(tmp_path, cache):
    options = [TINY | {"seed": seed} for seed in (0, 1)]
    both = [start(tmp_path / str(n), each)[0] for n, each in enumerate(options)]
    for process in both:
        process.join(timeout=120)
        assert process.exitcode == 0
    runs = [run(tmp_path / str(n), **each) for n, each in enumerate(options)]  # returned as done
    counts = [each.manifest["teacher_features"] for each in runs]
    assert sum(each["needed"] - each["found"] for each in counts) == 3 * 54
    alone = run(tmp_path / "alone", seed=1)
    assert alone.predictions.equals(runs[1].predictions)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(f"{FeatureFiles.__module__}.disk_usage", Mock(return_value=Mock(free=100)))
        fails(r"expected .* kB of free space for teacher features", run, tmp_path / "run")
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with monkeypatch.context() as patch:
        patch.setattr(FeatureFiles, "_records", full)
        fails(r"view-0000\.npy: the disk is full; free some", run, tmp_path / "run")
    assert run(tmp_path / "run").state == "done"
