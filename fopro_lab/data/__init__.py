"""Pictures in: data sets, splits, packs and batches. Entering this room imports no torch."""

from typing import TYPE_CHECKING, Any

from fopro_lab.data.batches import batches, cycle
from fopro_lab.data.catalog import Dataset, open_dataset, open_from
from fopro_lab.data.packing import Pack, pack
from fopro_lab.data.preparing import Prepared, prepare
from fopro_lab.data.splits import Split, isic2019_lt_counts, make_split, split_from

if TYPE_CHECKING:
    from fopro_lab.data.augment import augment_batch

__all__ = [
    "Dataset",
    "Pack",
    "Prepared",
    "Split",
    "augment_batch",
    "batches",
    "cycle",
    "isic2019_lt_counts",
    "make_split",
    "open_dataset",
    "open_from",
    "pack",
    "prepare",
    "split_from",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name == "augment_batch":
        from fopro_lab.data.augment import augment_batch

        return augment_batch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
