"""Batches from a pack: gathered as 8 bit, then made float and augmented on the device.

Which picture comes when, and how it is changed, is decided for a whole epoch before the first
picture is read. So it does not depend on the device, the batch size, the number of processes or
the batch one begins with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from fopro_lab.config import Sampler
from fopro_lab.data.packing import Pack
from fopro_lab.data.passes import Options, Pass, check_options, seeded_generator
from fopro_lab.data.rows import check_rows
from fopro_lab.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fopro_lab.data.augment import Augmentation, AugmentMode
    from fopro_lab.data.mixup import PairedBatch


def batches(
    pack: Pack,
    rows: np.typing.ArrayLike,
    *,
    batch_size: int,
    shuffle: bool = False,
    drop_last: bool = False,
    augment: Augmentation = "none",
    augment_mode: AugmentMode = "fused",
    sampler: Sampler = "instance",
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go once through some rows of a pack.

    Order and augmentation depend on ``seed`` and ``epoch`` alone. Several processes share each
    batch in stretches: joined by rank they are the batch of one process. An incomplete last batch
    is shared too, so that no picture comes twice; a rank's share of it may be empty, but every
    rank is given as many batches.

    Args:
        pack: The pictures.
        rows: Row numbers.
        batch_size: Pictures a batch, of all processes together.
        shuffle: In random order, else as in ``rows``.
        drop_last: Leave the last, incomplete batch out.
        augment: ``"none"``, ``"flips"`` or ``"published"``.
        augment_mode: ``"fused"`` or ``"exact"``, see `fopro_lab.data.augment`.
        sampler: How often each class is drawn, see `fopro_lab.data.samplers`; any other than
            ``"instance"`` needs ``shuffle``.
        seed: Of order and augmentation.
        epoch: Another epoch, another order.
        epochs: Of the whole training; for the sampler ``"progressive"``.
        rank: This process, from 0.
        world_size: How many processes share the batches.
        start_batch: Begin with this batch, as after an interruption; what comes before is skipped
            unread.
        device: Where the batches shall be.

    Returns:
        Iterator of images ``(B, 3, H, W)``, float in [0, 1], and labels ``(B,)``, int64.

    Raises:
        InputError: If there is no whole batch, or the rows are not row numbers of the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> [len(labels) for _, labels in batches(packed, range(24), batch_size=10)]
        [10, 10, 4]
        >>> [len(y) for _, y in batches(packed, range(24), batch_size=10, rank=1, world_size=2)]
        [5, 5, 2]
    """
    options = Options(
        batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, augment=augment,
        mode=augment_mode, sampler=sampler, seed=seed, epoch=epoch, epochs=epochs, rank=rank,
        world_size=world_size, start_batch=start_batch, device=device,
    )  # fmt: skip
    return iter(Pass(pack, rows, options))


def cycle(
    pack: Pack,
    rows: np.typing.ArrayLike,
    *,
    batch_size: int,
    augment: Augmentation = "none",
    augment_mode: AugmentMode = "fused",
    sampler: Sampler = "instance",
    seed: int = 0,
    epochs: int = 1,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through shuffled rows again and again, whole batches only; it never ends.

    Args:
        pack: The pictures.
        rows: Row numbers.
        batch_size: Pictures a batch; if there are fewer rows, all of them make a batch.
        augment: As in `batches`.
        augment_mode: As in `batches`.
        sampler: As in `batches`.
        seed: As in `batches`; round ``n`` is epoch ``n``.
        epochs: As in `batches`; later rounds are like the last epoch.
        rank: As in `batches`.
        world_size: As in `batches`.
        start_batch: As in `batches`, counted over all rounds.
        device: As in `batches`.

    Returns:
        Iterator as of `batches`.

    Raises:
        InputError: If there are no rows, or they are not row numbers of the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> endless = cycle(packed, range(24), batch_size=16)
        >>> [len(next(endless)[1]) for _ in range(3)]
        [16, 16, 16]
    """
    rows = check_rows(rows, count=len(pack))
    few = max(len(rows) - len(rows) % max(world_size, 1), 1)
    options = Options(
        batch_size=min(batch_size, few), shuffle=True, drop_last=True, augment=augment,
        mode=augment_mode, sampler=sampler, seed=seed, epochs=epochs, rank=rank,
        world_size=world_size, device=device,
    )  # fmt: skip
    check_options(rows, options)
    if start_batch < 0:
        raise InputError(f"start_batch: expected 0 or more, got {start_batch}")
    first, begin = divmod(start_batch, len(rows) // options.batch_size)
    return (
        batch
        for epoch in count(first)
        for batch in Pass(
            pack,
            rows,
            replace(options, epoch=epoch, start_batch=begin if epoch == first else 0),
        )
    )


def paired_batches(
    pack: Pack,
    rows: np.typing.ArrayLike,
    *,
    alpha: float,
    batch_size: int,
    shuffle: bool = True,
    drop_last: bool = False,
    augment: Augmentation = "none",
    augment_mode: AugmentMode = "fused",
    sampler: Sampler = "instance",
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[PairedBatch]:
    """Go once through some rows, each picture with a partner that is drawn class-balanced.

    The batches are those of `batches` with the same options; the partners have their own order
    and their own augmentation.

    Args:
        pack: The pictures.
        rows: Row numbers.
        alpha: Above 0; see `fopro_lab.data.mixup.sample_weights`.
        batch_size: As in `batches`.
        shuffle: As in `batches`; partners are always drawn at random.
        drop_last: As in `batches`.
        augment: As in `batches`.
        augment_mode: As in `batches`.
        sampler: As in `batches`; of the pictures, not of their partners.
        seed: As in `batches`.
        epoch: As in `batches`.
        epochs: As in `batches`.
        rank: As in `batches`.
        world_size: As in `batches`.
        start_batch: As in `batches`.
        device: As in `batches`.

    Returns:
        Iterator of pairs, to be mixed by `fopro_lab.data.mixup.mix`.

    Raises:
        InputError: As `batches`, and if ``alpha`` is not above 0.

    Source: Galdran et al., Balanced-MixUp, MICCAI 2021.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> pair = next(paired_batches(packed, range(24), alpha=0.2, batch_size=8))
        >>> pair.partners.shape, pair.weights.shape
        (torch.Size([8, 3, 16, 16]), torch.Size([8]))
    """
    from fopro_lab.data.mixup import PairedBatch, sample_weights  # late: it needs torch

    options = Options(
        batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, augment=augment,
        mode=augment_mode, sampler=sampler, seed=seed, epoch=epoch, epochs=epochs, rank=rank,
        world_size=world_size, start_batch=start_batch, device=device,
    )  # fmt: skip
    own, drawn = Pass(pack, rows, options), partners_of(options)
    other = Pass(pack, rows, drawn)
    chance = seeded_generator(3, drawn.seed, epoch)
    weights = sample_weights(len(own), alpha=alpha, generator=chance)
    return (
        PairedBatch(*first, *second, weights[part].to(device))
        for first, second, part in zip(own, other, own.parts(), strict=True)
    )


def partners_of(options: Options) -> Options:
    """Say how the partners of a pass are drawn: class-balanced, by a seed of their own.

    Example:
        >>> partners_of(Options(batch_size=8)).sampler
        'class-balanced'
    """
    seed = int(np.random.SeedSequence([3, options.seed]).generate_state(1)[0])
    return replace(options, shuffle=True, sampler="class-balanced", seed=seed)
