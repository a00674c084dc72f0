"""From a config to packed images and their split."""

from pathlib import Path
from typing import Any, NamedTuple

from fopro_lab.config import DataConfig
from fopro_lab.data.dataset import Dataset, open_from
from fopro_lab.data.pack import Pack, pack
from fopro_lab.data.published_splits import make_hyperkvasir, make_isic2019_lt
from fopro_lab.data.split_rules import Split, make_folds, make_long_tail, make_split


def split_from(dataset: Dataset, config: DataConfig) -> Split:
    """Split a data set by the rule that a config names; raises what the rule's function raises."""
    published: dict[str, Any] = {
        "files": Path(config.split_files).expanduser() if config.split_files else None,
        "leave_out": config.unusable == "leave-out",
    }
    sizes: dict[str, Any] = {
        "val_fraction": config.val_fraction,
        "val_per_class": config.val_per_class,
        "seed": config.split_seed,
    }
    if config.rule == "isic2019-lt":
        return make_isic2019_lt(dataset, ratio=config.tail_ratio, fold=config.fold, **published)
    if config.rule == "hyperkvasir":
        return make_hyperkvasir(dataset, folds=config.folds, fold=config.fold, **sizes, **published)
    if config.rule == "folds":
        return make_folds(dataset, folds=config.folds, fold=config.fold, **sizes)
    sizes |= {"test_fraction": config.test_fraction, "test_per_class": config.test_per_class}
    if config.rule == "long-tail":
        return make_long_tail(dataset, ratio=config.tail_ratio, **sizes)
    return make_split(dataset, **sizes)


def pack_from(config: DataConfig, *, progress: bool = True, verify: bool = False) -> Pack:
    """Open and pack the data set that a config names; raises what `open_dataset` and `pack` do."""
    return pack(
        open_from(config),
        config.image_size,
        interpolation=config.interpolation,
        progress=progress,
        leave_out=config.unusable == "leave-out",
        verify=verify,
    )


class Prepared(NamedTuple):
    """Packed images and their split; the split's rows are the pack's."""

    packed: Pack
    split: Split


def prepare(config: DataConfig, *, progress: bool = True) -> Prepared:
    """Open, pack and split the data set that a config names.

    Raises:
        InputError: As `open_dataset`, `pack` and the function of the split rule.
        WorkError: If the disk is full or cannot be written.
    """
    packed = pack_from(config, progress=progress)
    return Prepared(packed, split_from(packed.dataset, config))
