"""What kept teacher features save: an epoch of EKD, and a sweep of folds, seeds and methods."""

import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import count, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import timm
import torch

from benchmarks.data import photograph_pack
from benchmarks.step import BF16, engine_epoch, set_up
from benchmarks.timing import Variant, compare
from fopro_lab.config import TrainConfig
from fopro_lab.data import Split
from fopro_lab.fourier import FourierPrompt
from fopro_lab.models import Teacher, choose_device, wrap_teacher
from fopro_lab.models.backbones import IMAGENET_MEAN, IMAGENET_STD
from fopro_lab.training import distill

KEPT: dict[str, tuple[dict[str, Any], float | None]] = {
    "balanced softmax alone": ({"method": "bsm"}, None),
    "EKD, features kept": ({"teacher_views": 1}, 0.8),
    "EKD, live": ({}, None),
}
METHODS: dict[str, dict[str, Any]] = {
    "bsm": {},
    "ekd": {},
    "fopro": {"prompted_fraction": 1.0},
    "random": {"prompted_fraction": 1.0},
}


def bench_sweep(
    *, rounds: int = 1, size: int = 128, images: int = 450, epochs: int = 8, repeats: int = 3
) -> dict[str, pd.DataFrame]:
    """Measure a sweep of ``repeats`` folds and seeds and four methods, whatever ``rounds`` says.

    ``images`` are generated, of ``size`` pixels; runs train ``epochs``. Every sweep begins without
    kept features and runs once, after a small one that does not count.

    Returns:
        ``sweep`` of `compare`, images per second of training.
    """
    how: dict[str, Any] = {"size": size, "images": images, "epochs": epochs, "repeats": repeats}
    variants = [
        Variant("live", sweep(views=0, **how)),
        Variant("kept, a view per epoch", sweep(views=epochs, **how), 2.0),
        Variant("kept, a view per four epochs", sweep(views=max(1, epochs // 4), **how), 3.0),
        # No sweep with a teacher can be faster than students that have none.
        Variant("no teacher", sweep(views=0, methods=["bsm"] * len(METHODS), **how)),
    ]
    small = how | {"images": 96, "epochs": 1, "repeats": 2}
    sweep(views=1, **small)()  # imports, and compiles what is compiled
    timed: dict[str, Any] = {"threads": torch.get_num_threads(), "warm_up": False}
    return {"sweep": compare(variants, rounds=1, label="sweep", **timed)}


def sweep(
    *,
    views: int,
    size: int,
    images: int,
    epochs: int,
    repeats: int,
    methods: Sequence[str] = tuple(METHODS),
) -> Callable[[], int]:
    """Return what trains all runs in a new folder and counts the images they trained on."""
    options: dict[str, Any] = {"image_size": size, "student_size": size // 2}
    options |= {"epochs": epochs, "batch_size": 32, "schedule": "cosine", "teacher_views": views}
    options |= {"threads": torch.get_num_threads(), **BF16}
    teacher = random_mobilenet(size)

    def run() -> int:
        trained, names = 0, count()
        with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
            prompt = Path(place) / "prompt.safetensors"
            learned = FourierPrompt("radial", size=size).requires_grad_(False)
            learned.cells.data += 0.3
            learned.save(prompt)
            packed = photograph_pack(Path(place), size=size, count=images)
            parts = np.array_split(np.random.default_rng(0).permutation(images), repeats)
            for fold, method, seed in product(range(repeats), methods, range(repeats)):
                own = {"method": method, "seed": seed, **options, **METHODS[method]}
                if METHODS[method]:
                    own |= {"prompt_file": str(prompt)}
                    own |= {"random_gains": "per-view" if views else "fixed"}
                others = np.concatenate([part for n, part in enumerate(parts) if n != fold])
                given: dict[str, Any] = {"packed": packed, "verbose": False}
                rows: dict[str, Any] = {"train": others[8:], "val": others[:8], "test": parts[fold]}
                given["split"] = Split(**rows, protocol=f"fold{fold}", fingerprint=str(fold))
                given["teacher"] = None if method == "bsm" else teacher
                with patch.dict(os.environ, FOPRO_CACHE=place):
                    distill(TrainConfig(**own), out=Path(place) / str(next(names)), **given)
                trained += epochs * len(others[8:])
        return trained

    return run


def random_mobilenet(size: int) -> Teacher:
    """Wrap a MobileNetV2 with random weights: what it computes does not matter here."""
    network = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=0)
    rules: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "input_size": size}
    teacher = wrap_teacher(network, **rules, name="mobilenetv2, random weights")
    return teacher.to(choose_device("auto"))


def bench_kept_features(
    *, rounds: int = 5, size: int = 128, images: int = 256
) -> dict[str, pd.DataFrame]:
    """Measure epochs of the recipe ``small``: EKD with kept features and live, against no teacher.

    Args:
        rounds: Rounds that count; the features are filled in the one before.
        size: Side of the images, pixels; the student sees half of it.
        images: Generated photographs.

    Returns:
        ``epoch`` of `compare`, images per second.
    """
    teacher = random_mobilenet(size)
    how: dict[str, Any] = {
        "student": "small",
        "student_size": size // 2,
        "augment": "published",
        **BF16,
    }
    with tempfile.TemporaryDirectory(prefix="fopro-bench-") as place:
        packed = photograph_pack(Path(place), size=size, count=images)
        with patch.dict(os.environ, FOPRO_CACHE=place):
            variants = []
            for name, (more, goal) in KEPT.items():
                given = None if more.get("method") == "bsm" else teacher
                made = set_up(packed, given, batch=min(64, images), **how, **more)
                variants.append(Variant(name, engine_epoch(*made), goal))
            timed: dict[str, Any] = {"rounds": rounds, "threads": torch.get_num_threads()}
            return {"epoch": compare(variants, label="kept", **timed)}
