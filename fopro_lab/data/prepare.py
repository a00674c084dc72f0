"""From a config to images and their parts, in the one right order."""

from pathlib import Path
from typing import NamedTuple

from fopro_lab.config import DataConfig
from fopro_lab.data.dataset import Dataset, open_from
from fopro_lab.data.pack import Pack, pack
from fopro_lab.data.published_splits import make_hyperkvasir, make_isic2019_lt
from fopro_lab.data.split_rules import (
    PARTS,
    Split,
    Wanted,
    draw_missing,
    make_folds,
    make_long_tail,
    make_parts,
    name_drawing,
)


def make_split(
    dataset: Dataset,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    val_per_class: int = 0,
    test_per_class: int = 0,
    seed: int = 0,
) -> Split:
    """Split by class without tearing a group apart; a given split is honoured.

    A group goes where the majority of its images' class sends it. Parts that the data set
    gives are kept as they are; of those it does not give, test and validation are drawn from the
    given training part.

    Args:
        dataset: The images.
        val_fraction: Share of each class, between 0 and 1.
        test_fraction: Share of each class; both together below 1.
        val_per_class: If above 0, exactly this many images of every class instead. Images of
            a group that would exceed it are left out of all parts.
        test_per_class: The same for the test part.
        seed: Another seed gives another split.

    Returns:
        The split; a class that a given validation or test lacks is told in its notes.

    Raises:
        InputError: If a class has fewer than three groups or is missing from training.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> split = make_split(open_dataset("phantom", images=40), seed=1)
        >>> split.protocol, len(split.train), len(split.val), len(split.test)
        ('phantom-40/groups/val0.15-test0.25/seed1', 19, 9, 12)
    """
    wanted = (
        Wanted("test", test_fraction, test_per_class),
        Wanted("val", val_fraction, val_per_class),
    )
    parts, drawn = draw_missing(dataset, wanted=wanted, seed=seed)
    given = set(PARTS) - {part.name for part in drawn}
    return make_parts(dataset, parts, name_drawing(dataset, drawn, seed=seed), given=given)


def split_from(dataset: Dataset, config: DataConfig) -> Split:
    """Split a data set as a config says.

    Args:
        dataset: The images.
        config: Its fields ``split_rule`` to ``split_seed``, and ``unusable``.

    Returns:
        The split.

    Raises:
        InputError: As the rule's own function: `make_split`, `make_folds`, `make_long_tail`,
            `make_isic2019_lt` or `make_hyperkvasir`.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> config = DataConfig(split_seed=2, split_rule="folds", folds=3, fold=2)
        >>> split_from(open_dataset("phantom", images=80), config).protocol
        'phantom-80/groups/folds3-val0.15/seed2/fold2'
    """
    files = Path(config.split_files).expanduser() if config.split_files else None
    leave_out = config.unusable == "leave-out"
    val = config.val_fraction
    counts = {"val_per_class": config.val_per_class, "seed": config.split_seed}
    which = {"folds": config.folds, "fold": config.fold}
    if config.rule == "isic2019-lt":
        return make_isic2019_lt(
            dataset, ratio=config.tail_ratio, fold=config.fold, files=files, leave_out=leave_out
        )
    if config.rule == "hyperkvasir":
        return make_hyperkvasir(
            dataset, val_fraction=val, **which, **counts, files=files, leave_out=leave_out
        )
    if config.rule == "folds":
        return make_folds(dataset, val_fraction=val, **which, **counts)
    test = config.test_fraction
    counts["test_per_class"] = config.test_per_class
    if config.rule == "long-tail":
        ratio = config.tail_ratio
        return make_long_tail(dataset, ratio=ratio, val_fraction=val, test_fraction=test, **counts)
    return make_split(dataset, val_fraction=val, test_fraction=test, **counts)


class Prepared(NamedTuple):
    """Images and their parts; the split's rows are the pack's.

    Example:
        >>> Prepared._fields
        ('packed', 'split')
    """

    packed: Pack
    split: Split


def pack_from(config: DataConfig, *, progress: bool = True, verify: bool = False) -> Pack:
    """Open and pack the data set that a config names.

    Args:
        config: Data set, size, interpolation, and what becomes of unreadable images.
        progress: Say how far the packing is.
        verify: Compare a pack that is there with its checksums.

    Returns:
        The pack; the name of its data set, and so every protocol id, tells how many images were
        left out.

    Raises:
        InputError: As `open_dataset` and `pack`.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> len(pack_from(DataConfig(images=40, image_size=16), progress=False))
        40
    """
    return pack(
        open_from(config),
        config.image_size,
        interpolation=config.interpolation,
        progress=progress,
        leave_out=config.unusable == "leave-out",
        verify=verify,
    )


def prepare(config: DataConfig, *, progress: bool = True) -> Prepared:
    """Open, pack and split the data set that a config names.

    Args:
        config: As of `pack_from`, and the split.
        progress: Say how far the packing is.

    Returns:
        The pack and the split of ``packed.dataset``.

    Raises:
        InputError: As `pack_from` and `split_from`.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> packed, split = prepare(DataConfig(images=40, image_size=16), progress=False)
        >>> packed.images.shape, len(split.train)
        ((40, 16, 16, 3), 19)
    """
    packed = pack_from(config, progress=progress)
    return Prepared(packed, split_from(packed.dataset, config))
