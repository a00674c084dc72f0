"""From a config to pictures and their parts, in the one right order."""

from typing import NamedTuple

from fopro_lab.config import DataConfig
from fopro_lab.data.catalog import open_from
from fopro_lab.data.packing import Pack, pack
from fopro_lab.data.splits import Split, split_from


class Prepared(NamedTuple):
    """Pictures and their parts; the split's rows are the pack's.

    Example:
        >>> Prepared._fields
        ('packed', 'split')
    """

    packed: Pack
    split: Split


def pack_from(config: DataConfig, *, progress: bool = True, verify: bool = False) -> Pack:
    """Open and pack the data set that a config names.

    Args:
        config: Data set, size, decoder, interpolation, and what becomes of unreadable pictures.
        progress: Say how far the packing is.
        verify: Compare a pack that is there with its checksums.

    Returns:
        The pack; the name of its data set, and so every protocol id, tells how many pictures were
        left out.

    Raises:
        InputError: As `open_dataset` and `pack`.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> len(pack_from(DataConfig(pictures=40, image_size=16), progress=False))
        40
    """
    return pack(
        open_from(config),
        config.image_size,
        decoder=config.decoder,
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
        >>> packed, split = prepare(DataConfig(pictures=40, image_size=16), progress=False)
        >>> packed.images.shape, len(split.train)
        ((40, 16, 16, 3), 19)
    """
    packed = pack_from(config, progress=progress)
    return Prepared(packed, split_from(packed.dataset, config))
