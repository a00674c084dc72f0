"""Batches from a pack: gathered as 8-bit pixels, then made float and augmented on the device.

Which image comes when depends on seed and epoch alone, how it is changed on seed, view and image:
neither on the device, nor on the batch size, nor on the number of processes. A view is one draw of
the augmentation; every epoch has a new one, or K views come in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from fopro_lab.arguments import wrong
from fopro_lab.config import Augmentation, AugmentMode, Sampler, Switch
from fopro_lab.data.dataset import check_rows
from fopro_lab.data.pack import Pack
from fopro_lab.errors import InputError
from fopro_lab.io import in_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fopro_lab.data.augment import Augmentations, PairedBatch

AHEAD = 2  # batches
RESIDENT = 0.5  # most of a GPU's free memory that images may take
_ON_DEVICE: WeakKeyDictionary[Pack, Tensor] = WeakKeyDictionary()
VIEW_SEED = 0  # of K views: the same for every seed of a training, so that features are shared
Item = TypeVar("Item")
Read = TypeVar("Read")


class Order(NamedTuple):
    """What comes in an epoch: row numbers of the pack, and the view of each, ``int64 (N,)``."""

    rows: np.ndarray
    views: np.ndarray


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
    views: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pass once over some rows of a pack, shuffled or in their order.

    Several processes share each batch: joined by rank, their parts are the batch of one process.
    So is an incomplete last batch: no image comes twice, but a rank's part may be empty.

    Args:
        pack: The images.
        rows: Row numbers.
        batch_size: Images per batch, of all processes together.
        shuffle: In an order of ``seed`` and ``epoch``.
        drop_last: Leave out an incomplete last batch.
        augment: See `fopro_lab.data.augment`, as for ``augment_mode``.
        augment_mode: Each published operation, or all fused.
        sampler: See `effective_counts`; any other than ``"instance"`` needs ``shuffle``.
        seed: Of order and augmentation.
        epoch: Another epoch, another order.
        epochs: Of the whole training; for the sampler ``"progressive"``.
        views: So many draws of the augmentation come in turn, whatever the seed; 0: always new.
        rank: This process, from 0.
        world_size: How many processes share the batches.
        device: Of the batches.

    Returns:
        Iterator of images ``(B, 3, H, W)``, float in [0, 1], and labels ``(B,)``, int64.

    Raises:
        InputError: If there is no whole batch, or the rows are not row numbers of the pack.

    Examples:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", images=24), 16, progress=False)
        >>> [len(labels) for _, labels in batches(packed, range(24), batch_size=10)]
        [10, 10, 4]
    """
    import torch  # late: `fopro --help` does without it

    from fopro_lab.data import augment as augmenting

    how: dict[str, Any] = {"seed": seed, "epoch": epoch, "epochs": epochs, "views": views}
    order = draw_order(pack, rows, shuffle=shuffle, sampler=sampler, **how)
    chosen, sharing = order.rows, {"rank": rank, "world_size": world_size}
    parts = batch_parts(len(chosen), batch_size, drop_last=drop_last, **sharing)
    if augment != "none":
        recipe: dict[str, Any] = {"kind": augment, "seed": VIEW_SEED if views else seed}
        drawn = draw_augmentations(*order, count=len(pack), **recipe)
    cuda, stored = torch.device(device).type == "cuda", _ON_DEVICE.get(pack)
    resident = stored is not None and stored.device.type == torch.device(device).type
    if resident:
        places, known = (torch.from_numpy(x).to(device) for x in (chosen, pack.labels[chosen]))

    def read(part: slice) -> tuple[slice, Tensor, Tensor]:
        if resident and stored is not None:
            return part, stored[places[part]], known[part]
        pixels = augmenting.read_pixels(pack, chosen[part])
        labels = torch.from_numpy(pack.labels[chosen[part]])
        return (part, pixels.pin_memory(), labels.pin_memory()) if cuda else (part, pixels, labels)

    def draw() -> Iterator[tuple[Tensor, Tensor]]:
        # A CPU has no time to read in while it computes; a GPU has, and fetches what is pinned.
        for part, pixels, labels in (
            read_ahead(parts, read) if cuda and not resident else map(read, parts)
        ):
            pixels = pixels.to(device, non_blocking=cuda)
            if augment == "none":
                images = augmenting.float_images(pixels)
            else:
                images = augmenting.apply_augmentations(pixels, drawn.rows(part), mode=augment_mode)
            yield images, labels.to(device, non_blocking=cuda)

    return draw()  # what is wrong is refused at the call, not at the first batch


def place_images(pack: Pack, device: torch.device, *, how: Switch = "auto") -> bool:
    """Copy all images of a pack to a device, once; `batches` then takes them there, the same bits.

    ``auto`` does so on a GPU where they take at most half of its free memory; else batches are read
    ahead, as always with ``off``. ``on`` makes it an `InputError` that they do not fit.
    """
    import torch

    if how == "off" or (how == "auto" and device.type == "cpu"):
        _ON_DEVICE.pop(pack, None)
        return False
    if pack in _ON_DEVICE and _ON_DEVICE[pack].device.type == device.type:
        return True
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    if (size := pack.images.nbytes) > RESIDENT * free:
        if how == "on":
            expected = f"expected images of at most half of the {in_bytes(int(free))} free"
            raise InputError(f"resident: {expected} on the GPU, got {in_bytes(size)}; use auto")
        return False
    stored = torch.empty(pack.images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(pack), 1024):
        rows = np.arange(start, min(start + 1024, len(pack)))
        stored[start : start + 1024] = torch.from_numpy(pack.checked(rows))
    _ON_DEVICE[pack] = stored
    return True


def cycle(
    pack: Pack, rows: np.typing.ArrayLike, *, batch_size: int, world_size: int = 1, **options: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pass over shuffled rows again and again, whole batches only; round ``n`` is epoch ``n``.

    Takes the other options of `batches`. Fewer rows than ``batch_size`` make one batch.
    """
    rows = check_rows(rows, count=len(pack))
    most = max(len(rows) - len(rows) % max(world_size, 1), 1)
    options |= {"batch_size": min(batch_size, most), "world_size": world_size}
    options |= {"shuffle": True, "drop_last": True}
    batches(pack, rows, **options)  # refuses what is wrong at the call
    return (batch for n in count() for batch in batches(pack, rows, epoch=n, **options))


def paired_batches(
    pack: Pack,
    rows: np.typing.ArrayLike,
    *,
    alpha: float,
    balanced: bool = True,
    shuffle: bool = True,
    sampler: Sampler = "instance",
    seed: int = 0,
    epoch: int = 0,
    **options: Any,
) -> Iterator[PairedBatch]:
    """Pass once over some rows, each image with a partner that is drawn class-balanced, or alike.

    Arguments and images are those of `batches`; ``alpha`` sets the partners' shares, Beta(alpha,
    1), or of partners that are not ``balanced`` but drawn alike, Beta(alpha, alpha). Partners are
    always shuffled, with an order and an augmentation of their own.

    Returns:
        Iterator of pairs, to be mixed by `mix`.

    Source: Galdran et al., Balanced-MixUp, MICCAI 2021; Zhang et al., mixup, ICLR 2018. Both draw
        one share per batch, here each image has its own.
    """
    from fopro_lab.data.augment import PairedBatch, sample_weights

    rows = check_rows(rows, count=len(pack))
    options["epoch"] = epoch
    own = batches(pack, rows, shuffle=shuffle, sampler=sampler, seed=seed, **options)
    partner_seed = int(np.random.SeedSequence([3, seed]).generate_state(1)[0])
    other_sampler = "class-balanced" if balanced else sampler
    options |= {"shuffle": True, "sampler": other_sampler, "seed": partner_seed}
    other = batches(pack, rows, **options)
    chance = seeded_generator(3, partner_seed, epoch)
    weights = sample_weights(len(rows), alpha=alpha, balanced=balanced, generator=chance)
    sharing: dict[str, Any] = {"drop_last": False, "rank": 0, "world_size": 1}
    sharing |= {name: options[name] for name in sharing.keys() & options.keys()}
    parts = batch_parts(len(rows), options["batch_size"], **sharing)
    return (
        PairedBatch(*first, *second, weights[part].to(first[0].device))
        for first, second, part in zip(own, other, parts, strict=True)
    )


def draw_order(
    pack: Pack,
    rows: np.typing.ArrayLike,
    *,
    shuffle: bool = True,
    sampler: Sampler = "instance",
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    views: int = 0,
) -> Order:
    """Draw which rows come in an epoch, in which order and in which view; see `batches`.

    Epoch ``e`` has view ``e``, or with ``views`` view ``e % views``. An image that a sampler draws
    several times takes other views after its first: with ``views`` the ones that follow.
    """
    import torch

    if sampler != "instance" and not shuffle:
        raise InputError(f"sampler: expected instance without shuffle, got '{sampler}'")
    chosen = check_rows(rows, count=len(pack))
    if not len(chosen):
        raise InputError("rows: expected at least one, got none")
    if shuffle and sampler == "instance":
        generator = seeded_generator(seed, epoch)
        chosen = chosen[torch.randperm(len(chosen), generator=generator).numpy()]
    elif shuffle:
        when = {"seed": seed, "epoch": epoch, "epochs": epochs}
        chosen = chosen[epoch_order(pack.labels[chosen], sampler=sampler, **when)]
    # How often each image came before, counted along the order.
    by_row = chosen.argsort(kind="stable")
    _, first, times = np.unique(chosen[by_row], return_index=True, return_counts=True)
    repeat = np.empty_like(chosen)
    repeat[by_row] = np.arange(len(chosen)) - np.repeat(first, times)
    return Order(chosen, (epoch + repeat) % views if views else epoch + repeat * epochs)


def draw_augmentations(
    rows: np.ndarray, views: np.ndarray, *, count: int, kind: Augmentation, seed: int
) -> Augmentations:
    """Draw what happens to each row of a pack of ``count`` images in its view."""
    import torch

    from fopro_lab.data.augment import Augmentations, sample_augmentations

    found: list[Tensor] = []
    for view in np.unique(views).tolist():
        places = torch.from_numpy(np.flatnonzero(views == view))
        # For all images at once: so a row's draw depends on nothing but seed, view and row.
        drawn = sample_augmentations(count, kind=kind, generator=seeded_generator(seed, view, 4))
        found = found or [part.new_empty((len(rows), *part.shape[1:])) for part in drawn]
        for whole, part in zip(found, drawn, strict=True):
            whole[places] = part[rows[places.numpy()]]
    return Augmentations(*found)


def seeded_generator(*numbers: int) -> torch.Generator:
    """Make a generator that depends on some numbers and on nothing else."""
    import torch

    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def read_ahead(items: Iterable[Item], read: Callable[[Item], Read]) -> Iterator[Read]:
    """Yield what is read for each item, in order; the next two are read in a thread meanwhile."""
    waiting: list[Future[Read]] = []
    with ThreadPoolExecutor(max_workers=1) as reader:
        for item in items:
            waiting.append(reader.submit(read, item))
            if len(waiting) > AHEAD:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def batch_parts(
    count: int, batch_size: int, *, drop_last: bool, rank: int, world_size: int
) -> list[slice]:
    """Return where this rank's part of each batch lies in the epoch's order."""
    if world_size < 1 or not 0 <= rank < world_size:
        raise InputError(f"rank: expected 0 to world_size - 1 = {world_size - 1}, got {rank}")
    if batch_size < 1 or batch_size % world_size or (drop_last and count < batch_size):
        most = f"to {count}, the number of images" if drop_last else "or more"
        rule = f"expected 1 {most}, a multiple of world_size = {world_size}"
        raise InputError(f"batch_size: {rule}, got {batch_size}")
    parts = []
    for start in range(0, count - batch_size + 1 if drop_last else count, batch_size):
        length = min(batch_size, count - start)
        first, last = (start + length * r // world_size for r in (rank, rank + 1))
        parts.append(slice(first, last))
    return parts


def effective_counts(
    class_counts: np.typing.ArrayLike,
    *,
    sampler: Sampler,
    progress: float = 0.0,
    mixup_alpha: float = 0.0,
) -> np.ndarray:
    """Count how often an epoch draws each class: the prior to give a loss that corrects for it.

    Args:
        class_counts: ``(K,)``, images per class, 0 or more.
        sampler: ``"instance"`` draws each image once, ``"class-balanced"`` each class as often,
            ``"square-root"`` each by the root of its size, ``"progressive"`` goes from the first
            to the second.
        progress: Share of the training that is done, 0 to 1; for ``"progressive"``.
        mixup_alpha: Of Balanced-MixUp, whose partners' mean share is ``alpha / (1 + alpha)``.

    Returns:
        ``float64 (K,)`` of the same sum; a class without images keeps 0.

    Source: Kang et al., Decoupling Representation and Classifier, ICLR 2020, eq. 1 and 2; Galdran
        et al., Balanced-MixUp, MICCAI 2021.
    """
    try:
        counts = np.asarray(class_counts, dtype=np.float64)
    except (TypeError, ValueError):
        raise wrong("class_counts", "a number per class", class_counts, "") from None
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


def training_progress(epoch: int, epochs: int) -> float:
    """Return the share of a training that is done: 0 in the first epoch, 1 in the last."""
    return min(epoch / max(epochs - 1, 1), 1.0)


def epoch_order(
    labels: np.typing.ArrayLike, *, sampler: Sampler, seed: int, epoch: int = 0, epochs: int = 1
) -> np.ndarray:
    """Choose and order one epoch: as many positions in ``labels`` as there are, ``int64 (N,)``.

    Each class is drawn as `effective_counts` says and goes on where the epoch before stopped.
    """
    labels = np.asarray(labels, dtype=np.int64)
    counts = np.bincount(labels)
    progress = (training_progress(n, epochs) for n in range(epoch + 1))
    quotas = np.array([_quotas(counts, sampler, share) for share in progress])
    before, own = quotas[:-1].sum(axis=0), quotas[-1]
    chance = np.random.default_rng([1, seed, epoch])
    drawn, places = [], []
    for label in np.flatnonzero(own):
        members = np.flatnonzero(labels == label)
        drawn.append(members[_rounds(len(members), before[label], own[label], (seed, int(label)))])
        # One in each of as many equal parts of the epoch, anywhere in the part.
        places.append((np.arange(own[label]) + chance.random(own[label])) / own[label])
    return np.concatenate(drawn)[np.argsort(np.concatenate(places), kind="stable")]


def _quotas(counts: np.ndarray, sampler: Sampler, progress: float) -> np.ndarray:
    """Round the counts of an epoch to whole images by largest remainders."""
    exact = effective_counts(counts, sampler=sampler, progress=progress)
    whole = np.floor(exact + 1e-9).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: int(counts.sum() - whole.sum())]] += 1
    return whole


def _rounds(count: int, start: int, length: int, key: tuple[int, int]) -> np.ndarray:
    """Take a stretch of an endless sequence of shuffled rounds over ``count`` images."""
    numbers = range(start // count, (start + length - 1) // count + 1)
    rounds = [np.random.default_rng([2, *key, number]).permutation(count) for number in numbers]
    return np.concatenate(rounds)[start % count :][:length]
