"""Batches from a pack: gathered as 8 bit, then made float and augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from fopro_lab.data.packing import Pack
from fopro_lab.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fopro_lab.data.augment import Augmentation


def batches(
    pack: Pack,
    rows: np.typing.ArrayLike,
    *,
    batch_size: int,
    shuffle: bool = False,
    drop_last: bool = False,
    augment: Augmentation = "none",
    seed: int = 0,
    epoch: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go once through some rows of a pack.

    Order and augmentation depend on ``seed`` and ``epoch`` alone: they are drawn on the CPU
    before the first batch, so neither the device nor the batch size has a say.

    Args:
        pack: The pictures.
        rows: Row numbers.
        batch_size: Pictures a batch.
        shuffle: In random order, else as in ``rows``.
        drop_last: Leave the last, incomplete batch out.
        augment: ``"none"``, ``"flips"`` or ``"published"``.
        seed: Of order and augmentation.
        epoch: Another epoch, another order.
        device: Where the batches shall be.

    Returns:
        Iterator of images ``(B, 3, H, W)``, float in [0, 1], and labels ``(B,)``, int64.

    Raises:
        InputError: If there is no whole batch, or a row is not in the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> [len(labels) for _, labels in batches(packed, range(24), batch_size=10)]
        [10, 10, 4]
    """
    rows = np.asarray(rows, dtype=np.int64)
    _check(pack, rows, batch_size, drop_last, augment)
    return _one_epoch(pack, rows, batch_size, shuffle, drop_last, augment, seed, epoch, device)


def cycle(
    pack: Pack,
    rows: np.typing.ArrayLike,
    *,
    batch_size: int,
    augment: Augmentation = "none",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through shuffled rows again and again, whole batches only; it never ends.

    Args:
        pack: The pictures.
        rows: Row numbers.
        batch_size: Pictures a batch; if there are fewer rows, all of them make a batch.
        augment: As in `batches`.
        seed: As in `batches`; round ``n`` is epoch ``n``.
        device: As in `batches`.

    Returns:
        Iterator as of `batches`.

    Raises:
        InputError: If there are no rows, or a row is not in the pack.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> endless = cycle(packed, range(24), batch_size=16)
        >>> [len(next(endless)[1]) for _ in range(3)]
        [16, 16, 16]
    """
    rows = np.asarray(rows, dtype=np.int64)
    batch_size = min(batch_size, max(len(rows), 1))
    _check(pack, rows, batch_size, True, augment)
    return (
        batch
        for epoch in count()
        for batch in _one_epoch(pack, rows, batch_size, True, True, augment, seed, epoch, device)
    )


def _one_epoch(
    pack: Pack,
    rows: np.ndarray,
    batch_size: int,
    shuffle: bool,
    drop_last: bool,
    augment: Augmentation,
    seed: int,
    epoch: int,
    device: str | torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    import torch  # late: so that the room can be entered without it

    from fopro_lab.data.augment import apply_augmentations, sample_augmentations

    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    if shuffle:
        rows = rows[torch.randperm(len(rows), generator=generator).numpy()]
    drawn = sample_augmentations(len(rows), kind=augment, generator=generator)
    stop = len(rows) - len(rows) % batch_size if drop_last else len(rows)
    for start in range(0, stop, batch_size):
        part = slice(start, min(start + batch_size, stop))
        pixels = torch.from_numpy(np.asarray(pack.images[rows[part]])).to(device)
        images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255
        if augment != "none":
            images = apply_augmentations(images, drawn.rows(part))
        yield images, torch.from_numpy(pack.labels[rows[part]]).to(device)


def _check(
    pack: Pack, rows: np.ndarray, batch_size: int, drop_last: bool, augment: Augmentation
) -> None:
    from fopro_lab.data.augment import check_kind  # late: it needs torch

    check_kind(augment)
    if batch_size < 1:
        raise InputError(f"batch_size: expected 1 or more, got {batch_size}")
    if not len(rows):
        raise InputError("rows: expected at least one, got none")
    if rows.min() < 0 or rows.max() >= len(pack):
        raise InputError(
            f"rows: expected 0 to {len(pack) - 1}, got {rows.min()} to {rows.max()}; "
            "was the split made of pack.dataset?"
        )
    if drop_last and len(rows) < batch_size:
        raise InputError(
            f"batch_size: expected at most {len(rows)}, the number of pictures, got {batch_size}"
        )
