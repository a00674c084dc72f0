"""Pictures in: data sets, splits, packs and batches. Entering this room imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fopro_lab.data.batches import batches, cycle, paired_batches
from fopro_lab.data.catalog import Dataset, open_dataset, open_from
from fopro_lab.data.packing import Pack, pack
from fopro_lab.data.preparing import Prepared, prepare
from fopro_lab.data.samplers import class_shares, effective_counts, epoch_order
from fopro_lab.data.splits import (
    Split,
    isic2019_lt_counts,
    make_folds,
    make_hyperkvasir,
    make_isic2019_lt,
    make_long_tail,
    make_split,
    split_from,
)

if TYPE_CHECKING:
    from fopro_lab.data.augment import apply_augmentations, augment_batch, sample_augmentations
    from fopro_lab.data.mixup import mix
    from fopro_lab.data.pixels import float_images, read_pixels

__all__ = [
    "Dataset",
    "Pack",
    "Prepared",
    "Split",
    "apply_augmentations",
    "augment_batch",
    "batches",
    "class_shares",
    "cycle",
    "effective_counts",
    "epoch_order",
    "float_images",
    "isic2019_lt_counts",
    "make_folds",
    "make_hyperkvasir",
    "make_isic2019_lt",
    "make_long_tail",
    "make_split",
    "mix",
    "open_dataset",
    "open_from",
    "pack",
    "paired_batches",
    "prepare",
    "read_pixels",
    "sample_augmentations",
    "split_from",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    rooms = {"mix": "mixup", "float_images": "pixels", "read_pixels": "pixels"}
    augmenting = ("apply_augmentations", "augment_batch", "sample_augmentations")
    room = "augment" if name in augmenting else rooms.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{room}"), name)
