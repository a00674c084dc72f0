"""Who reads the classes: a linear probe on a teacher, a trained student, or any function."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import InputError, ShapeError
from fopro_lab.probing.features import (
    Encoder,
    Precision,
    encode,
    encode_rows,
    teacher_device,
)
from fopro_lab.probing.probe import LinearProbe, linear_probe
from fopro_lab.progress import progress as show_progress

Classifier = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reader:
    """Something that names the class of each picture.

    Attributes:
        name: For tables: "probe", "student", or your own.
        predict: Turns pictures ``(B, 3, H, W)`` in [0, 1] on ``device`` into classes ``(B,)``.
        device: Where it wants them.

    Example:
        >>> reader = read_by(lambda images: images.mean(dim=(2, 3)))  # the brightest colour
        >>> red = torch.zeros(1, 3, 4, 4).index_fill(1, torch.tensor(0), 1.0)
        >>> reader.name, reader.predict(red).tolist()
        ('student', [0])
    """

    name: str
    predict: Callable[[Tensor], np.ndarray]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def read_by(classify: Classifier, *, name: str = "student", device: str | None = None) -> Reader:
    """Make a reader of any function from pictures to logits.

    Args:
        classify: Maps ``(B, 3, H, W)`` in [0, 1] to ``(B, K)``, for example a trained student's
            ``classify`` after a shrink to the size that it sees.
        name: For tables.
        device: Where it wants its pictures; None looks at its weights, if it is a module or a
            method of one.

    Returns:
        The reader. It raises ``ShapeError`` when the function gives no logits.
    """
    owner = getattr(classify, "__self__", classify)
    found = teacher_device(cast(Encoder, owner)) if isinstance(owner, torch.nn.Module) else "cpu"

    def predict(images: Tensor) -> np.ndarray:
        logits = classify(images)
        if logits.ndim != 2 or len(logits) != len(images):
            raise ShapeError(
                f"{name}: expected logits ({len(images)}, K), got {tuple(logits.shape)}"
            )
        return logits.argmax(dim=1).cpu().numpy()

    return Reader(name, predict, torch.device(device or found))


def read_by_probe(
    teacher: Encoder, probe: LinearProbe, *, precision: Precision = "32-true"
) -> Reader:
    """Make a reader of a teacher and a linear probe on its features."""

    def predict(images: Tensor) -> np.ndarray:
        return probe.predict(encode(teacher, images, precision=precision).float().cpu().numpy())

    return Reader("probe", predict, teacher_device(teacher))


def reader_of(
    asked: Encoder | Reader | Classifier,
    pack: Pack,
    split: Split,
    *,
    probe: LinearProbe | None = None,
    batch_size: int = 64,
) -> Reader:
    """Turn whatever was given into a reader; a teacher gets a linear probe.

    Args:
        asked: A reader, a teacher, or a function from pictures to logits.
        pack: The pictures.
        split: Train and val rows fit the probe.
        probe: Of this teacher and split, if there is one already.
        batch_size: Pictures a pass.

    Returns:
        The reader.
    """
    if isinstance(asked, Reader):
        return asked
    if hasattr(asked, "encode"):
        teacher = cast(Encoder, asked)
        return read_by_probe(
            teacher, probe or fit_probe(teacher, pack, split, batch_size=batch_size)
        )
    return read_by(asked)


def fit_probe(
    teacher: Encoder,
    pack: Pack,
    split: Split,
    *,
    batch_size: int = 64,
    precision: Precision = "32-true",
) -> LinearProbe:
    """Fit a linear probe on a teacher's features of the training pictures.

    Args:
        teacher: The frozen network.
        pack: The pictures.
        split: Its train rows are fitted, its val rows choose the regularisation.
        batch_size: Pictures a pass.
        precision: As in `encode`.

    Returns:
        The probe.

    Raises:
        InputError: If a class has no training picture.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.models import wrap_teacher
        >>> pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        >>> teacher = wrap_teacher(pool, mean=[0] * 3, std=[1] * 3, input_size=16, feature_dim=12)
        >>> packed = pack(open_dataset("phantom", pictures=60), 16, progress=False)
        >>> fit_probe(teacher, packed, make_split(packed.dataset)).weight.shape
        (8, 12)
    """
    counts = np.bincount(pack.labels[split.train], minlength=len(pack.dataset.class_names))
    if (counts == 0).any():
        absent = pack.dataset.class_names[int(np.argmin(counts))]
        raise InputError(
            f"split: expected every class in train, where the probe is fitted, got no picture of "
            f"'{absent}'; add some, leave the class out, or take another split"
        )
    train, val = (
        encode_rows(teacher, pack, rows=rows, batch_size=batch_size, precision=precision)
        for rows in (split.train, split.val)
    )
    return linear_probe(
        train, pack.labels[split.train], val_features=val, val_labels=pack.labels[split.val]
    )


def predict_changed(
    reader: Reader,
    pack: Pack,
    rows: np.ndarray,
    change: Callable[[Tensor], Iterable[Tensor]],
    *,
    label: str,
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict pictures as they are, and each way in which they are changed.

    Args:
        reader: Who is asked.
        pack: The pictures.
        rows: Which.
        change: Yields the M changed versions of a batch, one after another.
        label: What is being done, for the progress.
        batch_size: Pictures a pass.
        progress: Say how far it is.

    Returns:
        Classes ``(n,)`` and ``(M, n)``.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> reader = read_by(lambda images: images.mean(dim=(2, 3)))
        >>> clean, changed = predict_changed(
        ...     reader, packed, np.arange(4), lambda x: [1 - x, x.flip(1)], label="colours")
        >>> changed.shape, (changed[1] == 2 - clean).all()
        ((2, 4), np.True_)
    """
    clean, changed = [], []
    work = batches(pack, rows, batch_size=batch_size, device=reader.device)
    if progress:
        total = -(-len(rows) // batch_size)
        work = show_progress(work, total=total, label=f"{label}, read by {reader.name}")
    for images, _ in work:
        with torch.inference_mode():
            clean.append(reader.predict(images))
            changed.append(np.stack([reader.predict(version) for version in change(images)]))
    return np.concatenate(clean), np.concatenate(changed, axis=1)
