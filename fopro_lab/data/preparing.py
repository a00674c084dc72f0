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


def prepare(config: DataConfig, *, progress: bool = True) -> Prepared:
    """Open, pack and split the data set that a config names.

    Args:
        config: Data set, size, decoder and split.
        progress: Say how far the packing is.

    Returns:
        The pack and the split of ``packed.dataset``.

    Raises:
        InputError: As `open_dataset`, `pack` and `make_split`.
        WorkError: If the disk is full or may not be written.

    Example:
        >>> packed, split = prepare(DataConfig(pictures=40, image_size=16), progress=False)
        >>> packed.images.shape, len(split.train)
        ((40, 16, 16, 3), 19)
    """
    packed = pack(
        open_from(config),
        config.image_size,
        progress=progress,
        leave_out=config.unusable == "leave-out",
    )
    return Prepared(packed, split_from(packed.dataset, config))
