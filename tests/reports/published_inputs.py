"""A stand-in for all that the published plans read, laid out as a fetch leaves it."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import resnet50

from fopro_lab.data.fetch import find_source, note_complete
from fopro_lab.data.published_splits import CLASSES, RANKED
from tests.data.publisher import jpeg

SIZES = {"train": 4, "val": 2, "test": 2}  # images of each class
ROWS = [(part, name) for part, each in SIZES.items() for name in CLASSES for _ in range(each)]
IMAGES = [(f"ISIC_{number:07d}", part, name) for number, (part, name) in enumerate(ROWS)]


def lay_out(root: Path) -> Path:
    """Write images, the 45 files of splits, and untrained networks; return DINOv2's file."""
    place = root / find_source("isic2019").folder
    (place / "ISIC_2019_Training_Input").mkdir(parents=True)
    truth = ["image," + ",".join([*CLASSES, "UNK"])]
    known = ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number, (image, _, name) in enumerate(IMAGES):
        marks = ["1.0" if code == name else "0.0" for code in CLASSES]
        truth.append(f"{image},{','.join(marks)},0.0")
        known.append(f"{image},55.0,head/neck,HAM_{image[-7:]},female")
        (place / f"ISIC_2019_Training_Input/{image}.jpg").write_bytes(jpeg(number, 40))
    (place / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    (place / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(known) + "\n")
    note_complete(place, find_source("isic2019"))

    splits = find_source("fopro-splits")
    (root / splits.folder).mkdir()
    for file in splits.files:  # all name the same images
        rows = ["image,finding_name,finding"]
        for image, part, name in IMAGES:
            if part == file.name.partition("_")[0]:
                rows.append(f"{image},{CLASSES.index(name)},{RANKED.index(name)}")
        (root / splits.folder / file.name).write_text("\n".join(rows) + "\n")
    note_complete(root / splits.folder, splits)

    network, source = resnet50(weights=None), find_source("moco-v2")
    hidden = torch.nn.Linear(2048, 2048)
    network.fc = torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Linear(2048, 128))
    state = {f"module.encoder_q.{key}": value for key, value in half(network).items()}
    (root / source.folder).mkdir()
    checkpoint = {"epoch": 800, "arch": "resnet50", "state_dict": state}
    torch.save(checkpoint, root / source.folder / source.files[0].name)
    note_complete(root / source.folder, source)

    (root / "dinov2.pth").touch()  # its layout is loaded in tests/models
    return root / "dinov2.pth"


def half(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return the tensors in half precision, so that they are written sooner."""
    state = network.state_dict()
    return {key: v.half() if v.is_floating_point() else v for key, v in state.items()}
