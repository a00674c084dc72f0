"""A stand-in for all that the published plans read, laid out as a fetch leaves it."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fopro_lab.data.fetch import find_source, note_complete
from fopro_lab.data.published_splits import CLASSES, RANKED

SIZES = {"train": 5, "val": 2, "test": 2}  # images of each class
TRAINING = SIZES["train"] * len(CLASSES)
SIDE = 40


def lay_out_isic2019(root: Path) -> Path:
    """Write images and tables; ids and classes are those that `lay_out_splits` names."""
    source = find_source("isic2019")
    place = root / source.folder
    images = place / "ISIC_2019_Training_Input"
    images.mkdir(parents=True)
    truth = ["image," + ",".join([*CLASSES, "UNK"])]
    known = ["image,age_approx,anatom_site_general,lesion_id,sex"]
    noise = np.random.default_rng(0)
    for image, _, name in _images():
        marks = ["1.0" if code == name else "0.0" for code in CLASSES]
        truth.append(f"{image},{','.join(marks)},0.0")
        known.append(f"{image},55.0,head/neck,HAM_{image[-7:]},female")
        pixels = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        (images / f"{image}.jpg").write_bytes(stream.getvalue())
    (place / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    (place / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(known) + "\n")
    note_complete(place, source)
    return place


def lay_out_splits(root: Path) -> Path:
    """Write the 45 files, all naming the same images."""
    source = find_source("fopro-splits")
    place = root / source.folder
    place.mkdir(parents=True)
    for file in source.files:
        part = file.name.partition("_")[0]
        rows = [
            f"{image},{CLASSES.index(name)},{RANKED.index(name)}"
            for image, own, name in _images()
            if own == part
        ]
        (place / file.name).write_text("\n".join(["image,finding_name,finding", *rows]) + "\n")
    note_complete(place, source)
    return place


def lay_out_moco(root: Path) -> Path:
    """Write an untrained ResNet-50 as MoCo-v2's checkpoint names it, in half precision."""
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.fc = torch.nn.Sequential(
        torch.nn.Linear(2048, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 128)
    )
    source = find_source("moco-v2")
    place = root / source.folder
    place.mkdir(parents=True)
    state = {f"module.encoder_q.{key}": _half(value) for key, value in network.state_dict().items()}
    torch.save(
        {"epoch": 800, "arch": "resnet50", "state_dict": state}, place / source.files[0].name
    )
    note_complete(place, source)
    return place / source.files[0].name


def write_dinov2(path: Path) -> Path:
    """Write an untrained ViT-S/14 as Meta's checkpoint names it: no head, one tensor more."""
    import timm

    network = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    state = {key: _half(value) for key, value in network.state_dict().items()}
    torch.save(state | {"mask_token": torch.zeros(1, 384)}, path)
    return path


def _half(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value


def _images() -> list[tuple[str, str, str]]:
    """List (id, part, class)."""
    rows = [(part, name) for part, each in SIZES.items() for name in CLASSES for _ in range(each)]
    return [(f"ISIC_{number:07d}", part, name) for number, (part, name) in enumerate(rows)]
