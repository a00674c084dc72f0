"""Data sets, splits, packs and batches. Importing this package does not import torch."""

from importlib import import_module
from typing import Any

from fopro_lab.arguments import check_public, checked
from fopro_lab.data.batches import batches, cycle, effective_counts, paired_batches
from fopro_lab.data.dataset import Dataset, from_torch, open_dataset, open_from
from fopro_lab.data.pack import Pack, Prepared, pack, prepare, split_from
from fopro_lab.data.published_splits import make_hyperkvasir, make_isic2019_lt, make_monica
from fopro_lab.data.split_rules import Split, make_folds, make_long_tail, make_split

LATE = ("apply_augmentations", "float_images", "mix", "read_pixels", "sample_augmentations")
check_public(__name__)


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used."""
    if name in LATE:
        return checked(getattr(import_module(f"{__name__}.augment"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
