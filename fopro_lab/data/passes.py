"""One pass over a pack, decided before the first picture is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fopro_lab.config import Sampler
from fopro_lab.data.packing import Pack
from fopro_lab.data.rows import check_rows
from fopro_lab.data.samplers import check_sampler, epoch_order
from fopro_lab.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fopro_lab.data.augment import Augmentation, Augmentations, AugmentMode


@dataclass(frozen=True)
class Options:
    """What was asked for; see `fopro_lab.data.batches.batches` for each."""

    batch_size: int
    shuffle: bool = False
    drop_last: bool = False
    augment: Augmentation = "none"
    mode: AugmentMode = "fused"
    sampler: Sampler = "instance"
    seed: int = 0
    epoch: int = 0
    epochs: int = 1
    rank: int = 0
    world_size: int = 1
    start_batch: int = 0
    device: str | torch.device = "cpu"


class Pass:
    """One pass: order and augmentation of all its pictures, then batch by batch.

    Args:
        pack: The pictures.
        rows: Row numbers.
        options: How to pass over them.

    Raises:
        InputError: If there is no whole batch, or the rows are not row numbers of the pack.
    """

    def __init__(self, pack: Pack, rows: np.typing.ArrayLike, options: Options) -> None:
        rows = check_rows(rows, count=len(pack))
        check_options(rows, options)
        self.pack, self.rows, self.options = pack, rows, options
        size = options.batch_size
        self.batches = len(rows) // size if options.drop_last else -(-len(rows) // size)
        if not 0 <= options.start_batch <= self.batches:
            raise InputError(
                f"start_batch: expected 0 to {self.batches}, got {options.start_batch}"
            )

    def __len__(self) -> int:
        """Count the pictures, of all processes together."""
        return len(self.rows)

    def parts(self) -> Iterator[slice]:
        """Yield where this rank's share of each batch lies in the epoch's order."""
        size, rank, world = self.options.batch_size, self.options.rank, self.options.world_size
        for number in range(self.options.start_batch, self.batches):
            start = number * size
            length = min(size, len(self) - start)
            yield slice(start + length * rank // world, start + length * (rank + 1) // world)

    def order(self) -> np.ndarray:
        """Tell which row comes when, all batches of all processes in one line."""
        return self._drawn()[0]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels."""
        import torch  # late: so that the room can be entered without it

        from fopro_lab.data.ahead import read_ahead
        from fopro_lab.data.augment import apply_augmentations
        from fopro_lab.data.pixels import float_images, read_pixels

        device = torch.device(self.options.device)
        rows, drawn = self._drawn()

        def read(part: slice) -> tuple[slice, Tensor, Tensor]:
            labels = torch.from_numpy(self.pack.labels[rows[part]])
            return part, read_pixels(self.pack, rows[part]), labels

        def read_pinned(part: slice) -> tuple[slice, Tensor, Tensor]:
            _, pixels, labels = read(part)
            return part, pixels.pin_memory(), labels.pin_memory()

        # A CPU has no time to read in while it computes; a GPU has, and fetches what is pinned.
        cuda = device.type == "cuda"
        passed = read_ahead(self.parts(), read_pinned) if cuda else map(read, self.parts())
        for part, pixels, labels in passed:
            pixels = pixels.to(device, non_blocking=cuda)
            if self.options.augment == "none":
                images = float_images(pixels)
            else:
                images = apply_augmentations(pixels, drawn.rows(part), mode=self.options.mode)
            yield images, labels.to(device, non_blocking=cuda)

    def _drawn(self) -> tuple[np.ndarray, Augmentations]:
        """Draw the order of the rows and what happens to each."""
        import torch

        from fopro_lab.data.augment import sample_augmentations

        rows, options = self.rows, self.options
        generator = seeded_generator(options.seed, options.epoch)
        if options.shuffle and options.sampler == "instance":
            rows = rows[torch.randperm(len(rows), generator=generator).numpy()]
        elif options.shuffle:
            rows = rows[
                epoch_order(
                    self.pack.labels[rows],
                    sampler=options.sampler,
                    seed=options.seed,
                    epoch=options.epoch,
                    epochs=options.epochs,
                )
            ]
        return rows, sample_augmentations(len(rows), kind=options.augment, generator=generator)


def seeded_generator(*numbers: int) -> torch.Generator:
    """Make a generator that depends on some numbers and on nothing else.

    Example:
        >>> seeded_generator(0, 1).initial_seed() == seeded_generator(0, 2).initial_seed()
        False
    """
    import torch

    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def check_options(rows: np.ndarray, options: Options) -> None:
    """Refuse what no pass can be made of.

    Raises:
        InputError: With what was expected.
    """
    from fopro_lab.data.augment import check_kind, check_mode  # late: it needs torch

    check_kind(options.augment)
    check_mode(options.mode)
    check_sampler(options.sampler)
    if options.batch_size < 1:
        raise InputError(f"batch_size: expected 1 or more, got {options.batch_size}")
    if options.world_size < 1 or not 0 <= options.rank < options.world_size:
        raise InputError(
            f"rank: expected 0 to world_size - 1 = {options.world_size - 1}, got {options.rank}"
        )
    if options.batch_size % options.world_size:
        raise InputError(
            f"batch_size: expected a multiple of world_size = {options.world_size}, "
            f"got {options.batch_size}; it is that of all processes together"
        )
    if options.sampler != "instance" and not options.shuffle:
        raise InputError(f"sampler: expected instance without shuffle, got '{options.sampler}'")
    if not len(rows):
        raise InputError("rows: expected at least one, got none")
    if options.drop_last and len(rows) < options.batch_size:
        raise InputError(
            f"batch_size: expected at most {len(rows)}, the number of pictures, "
            f"got {options.batch_size}"
        )
