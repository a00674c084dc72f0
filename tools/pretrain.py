"""Pre-training of the built-in teacher on natural images: `fopro teachers pretrain`."""

import io
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from fopro_lab.config import PretrainConfig
from fopro_lab.errors import InputError
from fopro_lab.io import atomic_path, write_json
from fopro_lab.models.backbones import IMAGENET_MEAN as MEAN
from fopro_lab.models.backbones import IMAGENET_STD as STD
from fopro_lab.models.backbones import SmallResNet
from tools.natural import NaturalImages, epoch_batches, normalise, read_archive, steps_per_epoch

CALTECH_SIZES = (32, 48, 64, 96)  # pixels: crops show the same things at several scales


def read_natural(config: PretrainConfig) -> list[NaturalImages]:
    """Read both archives of natural images, their classes numbered one after the other.

    Raises:
        InputError: If one is missing or damaged.
    """
    folder = Path(config.natural).expanduser()
    tiny = read_archive(folder / "tinyimagenet32.zip", sizes=(32,), first_label=0)
    caltech = read_archive(
        folder / "caltech101_30.zip", sizes=CALTECH_SIZES, first_label=tiny.classes
    )
    return [tiny, caltech]


def pretrain(
    archives: list[NaturalImages], config: PretrainConfig, *, checkpoint: Path
) -> SmallResNet:
    """Train the built-in teacher; started again it goes on after the last finished epoch.

    Args:
        archives: Images in memory, see `read_natural`.
        config: Recipe.
        checkpoint: File that holds the state between epochs.

    Returns:
        The network after the last epoch, rounded as it is stored. No epoch is selected, so the
        held-out images decide nothing and their accuracy is unbiased.

    Raises:
        InputError: If the checkpoint belongs to another recipe.
    """
    torch.manual_seed(config.seed)
    network = untrained(config, classes=sum(archive.classes for archive in archives))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    steps = steps_per_epoch(archives, config)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps * config.epochs, pct_start=0.15
    )
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    first = _resume(checkpoint, parts, config)
    loss_function = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    for epoch in range(first, config.epochs):
        network.train()
        started, total = time.perf_counter(), 0.0
        for images, labels in epoch_batches(archives, config, epoch):
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed"):
                logits = network(images.to(memory_format=torch.channels_last))
            loss = loss_function(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        _save(checkpoint, parts, config, epoch + 1)
        top1 = held_out_accuracy(network, archives[0])["top1"]
        print(  # noqa: T201 - the progress of a long command
            f"epoch {epoch + 1}/{config.epochs}  loss {total / steps:.3f}  "
            f"held-out top-1 {top1:.3f}  {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    network.load_state_dict(as_stored(network))
    return network.eval()


def as_stored(network: SmallResNet) -> dict[str, torch.Tensor]:
    """Round the weights to half precision, which halves the file; batch statistics stay single."""
    return {
        name: (value.half() if value.ndim > 1 else value).contiguous()
        for name, value in network.state_dict().items()
    }


def untrained(config: PretrainConfig, *, classes: int) -> SmallResNet:
    """Build the network as it is before the first step: what the trained one is compared with."""
    torch.manual_seed(config.seed)
    network = SmallResNet(width=config.width, classes=classes)
    return network.to(memory_format=torch.channels_last)


@torch.inference_mode()
def held_out_accuracy(network: SmallResNet, archive: NaturalImages) -> dict[str, float]:
    """Top-1 accuracy on an archive's held-out images, the answer chosen among all classes.

    Returns:
        ``images`` (count), ``top1`` (share of right answers), ``chance`` (1 / classes).
    """
    network.eval()
    rows = torch.nonzero(archive.held_out).flatten()
    right, classes = 0, 0
    for part in rows.split(500):
        images = normalise(archive.pyramid[0][part])
        logits = network(images.to(memory_format=torch.channels_last))
        classes = logits.shape[1]
        right += int((logits.argmax(1) == archive.labels[part]).sum())
    return {"images": len(rows), "top1": right / len(rows), "chance": 1 / classes}


def write_builtin(
    network: SmallResNet,
    archives: list[NaturalImages],
    config: PretrainConfig,
    *,
    advantage: dict[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Write the network, in half precision, and its card.

    Args:
        network: After `pretrain`.
        archives: What it was trained on.
        config: The recipe.
        advantage: What its features gain over the untrained network's, by data set.
        out: Folder for ``builtin.safetensors`` and ``card.json``.

    Returns:
        The card: data, recipe, seed, held-out accuracy.
    """
    images = [int((~archive.held_out).sum()) for archive in archives]
    card = {
        "architecture": "SmallResNet",
        "width": config.width,
        "classes": sum(archive.classes for archive in archives),
        "input_size": config.image_size,
        "mean": MEAN,
        "std": STD,
        "data": [
            {
                "archive": archive.name,
                "sha256": archive.sha256,
                "training_images": count,
                "classes": archive.classes,
                "held_out": held_out_accuracy(network, archive),
            }
            for archive, count in zip(archives, images, strict=True)
        ],
        "recipe": config.model_dump(exclude={"natural"}),
        "seed": config.seed,
        "advantage_over_untrained": advantage,
    }
    with atomic_path(out / "builtin.safetensors") as temporary:
        temporary.write_bytes(safetensors.torch.save(as_stored(network)))
    write_json(out / "card.json", card)
    return card


def _save(path: Path, parts: dict[str, Any], config: PretrainConfig, epoch: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    # torch.save reports a full disk as a RuntimeError without errno, so it writes to memory first.
    buffer = io.BytesIO()
    torch.save(state | {"recipe": config.model_dump_json(), "epoch": epoch}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _resume(path: Path, parts: dict[str, Any], config: PretrainConfig) -> int:
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        recipe = state["recipe"]
    except Exception:  # a damaged byte can lead the unpickler to almost any of them
        raise InputError(f"{path}: expected a checkpoint of this command; remove it") from None
    if recipe != config.model_dump_json():
        raise InputError(f"{path}: belongs to another recipe; give another --out or remove it")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"])
