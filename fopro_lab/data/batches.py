"""Batches from a pack: gathered as 8 bit, then made float and augmented on the device.

Which image comes when, and how it is changed, is decided for a whole epoch before the first
image is read. So it does not depend on the device, the batch size, the number of processes or
the batch one begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING, TypeVar, get_args

import numpy as np

from fopro_lab.config import Sampler
from fopro_lab.data.dataset import check_rows
from fopro_lab.data.pack import Pack
from fopro_lab.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fopro_lab.data.augment import Augmentation, Augmentations, AugmentMode, PairedBatch


Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Read], *, depth: int = 2
) -> Iterator[Read]:
    """Yield what is read for each item, in order, some items ahead of who takes them.

    Args:
        items: What to read; taken in this thread.
        read: Reads an item, in a thread of its own, one after the other.
        depth: Items ahead, 1 or more.

    Raises:
        Exception: What reading an item raised, where that item's turn is.

    Example:
        >>> list(read_ahead([1, 2, 3], str))
        ['1', '2', '3']
    """
    waiting: list[Future[Read]] = []
    stream = iter(items)
    with ThreadPoolExecutor(max_workers=1) as reader:
        try:
            waiting += [reader.submit(read, item) for item in islice(stream, depth)]
            while waiting:
                done = waiting.pop(0).result()
                waiting += [reader.submit(read, item) for item in islice(stream, 1)]
                yield done
        finally:  # who took enough does not wait for what nobody wants
            for pending in waiting:
                pending.cancel()


def effective_counts(
    class_counts: np.typing.ArrayLike,
    *,
    sampler: Sampler,
    progress: float = 0.0,
    mixup_alpha: float = 0.0,
) -> np.ndarray:
    """Count how often an epoch draws each class: the prior that a student sees.

    A loss that corrects for class sizes must be given these. With the sizes themselves it would
    correct a class-balanced epoch a second time.

    Args:
        class_counts: ``(K,)``, images a class, 0 or more.
        sampler: ``"instance"`` draws each image once, ``"class-balanced"`` each class as often,
            ``"square-root"`` each by the root of its size, ``"progressive"`` goes from the first
            to the second.
        progress: Share of the training that is done, 0 to 1; for ``"progressive"``.
        mixup_alpha: Of Balanced-MixUp, 0 is off: the share ``alpha / (1 + alpha)`` of each image
            is, on average, that of a class-balanced partner.

    Returns:
        ``float64 (K,)`` of the same sum; a class without images keeps 0.

    Raises:
        InputError: For an unknown sampler, or a value out of range.

    Source: Kang et al., Decoupling Representation and Classifier, ICLR 2020, eq. 1 and 2; Galdran
        et al., Balanced-MixUp, MICCAI 2021.

    Example:
        >>> effective_counts([90, 10], sampler="progressive", progress=0.5).tolist()
        [70.0, 30.0]
    """
    check_sampler(sampler)
    counts = np.asarray(class_counts, dtype=np.float64)
    if counts.ndim != 1 or (counts < 0).any() or not counts.sum() > 0:
        raise InputError(f"class_counts: expected (K,), each 0 or more, got {counts.tolist()}")
    if not 0 <= progress <= 1:
        raise InputError(f"progress: expected 0 to 1, got {progress}")
    if not mixup_alpha >= 0:
        raise InputError(f"mixup_alpha: expected 0 or more, got {mixup_alpha}")
    balanced = (counts > 0) * counts.sum() / (counts > 0).sum()
    drawn = counts
    if sampler == "class-balanced":
        drawn = balanced
    elif sampler == "square-root":
        drawn = np.sqrt(counts) * (counts.sum() / np.sqrt(counts).sum())
    elif sampler == "progressive":
        drawn = (1 - progress) * counts + progress * balanced
    partner = mixup_alpha / (1 + mixup_alpha)
    return (1 - partner) * drawn + partner * balanced


def class_shares(
    class_counts: np.typing.ArrayLike, *, sampler: Sampler, progress: float = 0.0
) -> np.ndarray:
    """Return each class's share of the drawn images; see `effective_counts`.

    Args:
        class_counts: ``(K,)``, images a class.
        sampler: How often each class is drawn.
        progress: Share of the training that is done, 0 to 1; for ``"progressive"``.

    Returns:
        ``float64 (K,)``, sum 1.

    Raises:
        InputError: As `effective_counts`.

    Example:
        >>> class_shares([90, 10], sampler="square-root").tolist()
        [0.75, 0.25]
    """
    drawn = effective_counts(class_counts, sampler=sampler, progress=progress)
    return drawn / drawn.sum()


def training_progress(epoch: int, epochs: int) -> float:
    """Return the share of a training that is done: 0 in the first epoch, 1 in the last.

    Args:
        epoch: Counted from 0.
        epochs: Of the whole training.

    Example:
        >>> training_progress(0, 5), training_progress(4, 5), training_progress(0, 1)
        (0.0, 1.0, 0.0)
    """
    return min(epoch / max(epochs - 1, 1), 1.0)


def epoch_order(
    labels: np.typing.ArrayLike, *, sampler: Sampler, seed: int, epoch: int = 0, epochs: int = 1
) -> np.ndarray:
    """Choose and order the images of one epoch, which is as long as there are images.

    Args:
        labels: ``(N,)``, class of each image.
        sampler: How often each class is drawn, to the nearest whole number.
        seed: Another seed, other images and another order.
        epoch: Counted from 0; each class goes on where the epoch before stopped.
        epochs: Of the whole training; for ``"progressive"``.

    Returns:
        ``int64 (N,)``, positions in ``labels``; for ``"instance"`` each once.

    Raises:
        InputError: For an unknown sampler or no images.

    Example:
        >>> order = epoch_order([0, 0, 0, 0, 0, 1], sampler="class-balanced", seed=0)
        >>> (order == 5).sum()
        np.int64(3)
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not len(labels):
        raise InputError("labels: expected at least one, got none")
    counts = np.bincount(labels)
    before = np.zeros(len(counts), dtype=np.int64)
    for past in range(epoch):
        before += _quotas(counts, sampler, training_progress(past, epochs))
    quotas = _quotas(counts, sampler, training_progress(epoch, epochs))
    chance = np.random.default_rng([1, seed, epoch])
    drawn, places = [], []
    for label in np.flatnonzero(quotas):
        members = np.flatnonzero(labels == label)
        drawn.append(
            members[_rounds(len(members), before[label], quotas[label], (seed, int(label)))]
        )
        # One in each of as many equal parts of the epoch, anywhere in the part.
        places.append((np.arange(quotas[label]) + chance.random(quotas[label])) / quotas[label])
    return np.concatenate(drawn)[np.argsort(np.concatenate(places), kind="stable")]


def _quotas(counts: np.ndarray, sampler: Sampler, progress: float) -> np.ndarray:
    """Round the counts of an epoch to whole images by largest remainders."""
    exact = effective_counts(counts, sampler=sampler, progress=progress)
    whole = np.floor(exact + 1e-9).astype(np.int64)
    for label in np.argsort(whole - exact, kind="stable")[: int(counts.sum() - whole.sum())]:
        whole[label] += 1
    return whole


def _rounds(count: int, start: int, length: int, key: tuple[int, int]) -> np.ndarray:
    """Take a stretch of an endless sequence of shuffled rounds over ``count`` images."""
    first, last = start // count, (start + length - 1) // count
    rounds = [
        np.random.default_rng([2, *key, number]).permutation(count)
        for number in range(first, last + 1)
    ]
    return np.concatenate(rounds)[start - first * count :][:length]


def check_sampler(sampler: str) -> None:
    """Refuse an unknown sampler.

    Raises:
        InputError: With the known ones.

    Example:
        >>> check_sampler("balanced")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: sampler: expected one of instance, class-balanced,
        square-root, progressive, got 'balanced'
    """
    samplers = get_args(Sampler)
    if sampler not in samplers:
        raise InputError(f"sampler: expected one of {', '.join(samplers)}, got '{sampler}'")


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
    """One pass: order and augmentation of all its images, then batch by batch.

    Args:
        pack: The images.
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
        """Count the images, of all processes together."""
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

        from fopro_lab.data.augment import apply_augmentations, float_images, read_pixels

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
    from fopro_lab.data.augment import check_kind, check_mode

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
            f"batch_size: expected at most {len(rows)}, the number of images, "
            f"got {options.batch_size}"
        )


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
    is shared too, so that no image comes twice; a rank's share of it may be empty, but every
    rank is given as many batches.

    Args:
        pack: The images.
        rows: Row numbers.
        batch_size: Images a batch, of all processes together.
        shuffle: In random order, else as in ``rows``.
        drop_last: Leave the last, incomplete batch out.
        augment: ``"none"``, ``"flips"`` or ``"published"``.
        augment_mode: ``"fused"`` or ``"exact"``, see `fopro_lab.data.augment`.
        sampler: How often each class is drawn, see `fopro_lab.data.batches`; any other than
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
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
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
        pack: The images.
        rows: Row numbers.
        batch_size: Images a batch; if there are fewer rows, all of them make a batch.
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
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
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
    """Go once through some rows, each image with a partner that is drawn class-balanced.

    The batches are those of `batches` with the same options; the partners have their own order
    and their own augmentation.

    Args:
        pack: The images.
        rows: Row numbers.
        alpha: Above 0; see `fopro_lab.data.augment.sample_weights`.
        batch_size: As in `batches`.
        shuffle: As in `batches`; partners are always drawn at random.
        drop_last: As in `batches`.
        augment: As in `batches`.
        augment_mode: As in `batches`.
        sampler: As in `batches`; of the images, not of their partners.
        seed: As in `batches`.
        epoch: As in `batches`.
        epochs: As in `batches`.
        rank: As in `batches`.
        world_size: As in `batches`.
        start_batch: As in `batches`.
        device: As in `batches`.

    Returns:
        Iterator of pairs, to be mixed by `fopro_lab.data.augment.mix`.

    Raises:
        InputError: As `batches`, and if ``alpha`` is not above 0.

    Source: Galdran et al., Balanced-MixUp, MICCAI 2021.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> pair = next(paired_batches(packed, range(24), alpha=0.2, batch_size=8))
        >>> pair.partners.shape, pair.weights.shape
        (torch.Size([8, 3, 16, 16]), torch.Size([8]))
    """
    from fopro_lab.data.augment import PairedBatch, sample_weights

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
