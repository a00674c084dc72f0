"""What a student says of the held-out pictures."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fopro_lab.data import Pack, Split, batches
from fopro_lab.errors import WorkError
from fopro_lab.models import Student
from fopro_lab.training.judging import shrink
from fopro_lab.training.processes import Processes


@torch.inference_mode()
def predict(
    student: Student,
    pack: Pack,
    rows: np.ndarray,
    *,
    size: int = 0,
    batch_size: int = 128,
    processes: Processes | None = None,
) -> np.ndarray:
    """Classify some pictures, unaugmented and unprompted.

    Args:
        student: Left in evaluation mode.
        pack: The pictures.
        rows: Row numbers.
        size: Side of the picture the student sees, pixels; 0 is the pack's.
        batch_size: Pictures a pass.
        processes: Who shares the rows, all with the same student; None is this process alone.

    Returns:
        Logits ``(N, K)``, float32, in the order of ``rows``.

    Example:
        >>> from fopro_lab.data import open_dataset, pack
        >>> from fopro_lab.models import build_student
        >>> packed = pack(open_dataset("phantom", pictures=24), 16, progress=False)
        >>> predict(build_student("small", classes=8), packed, np.arange(5)).shape
        (5, 8)
    """
    student.eval()
    device = student.mean.device
    processes = processes or Processes()
    share = processes.share(len(rows))
    own = rows[share.start : share.stop]
    logits = [torch.empty(0, student.classifier.out_features)]
    if len(own) or not processes.many:  # fewer rows than processes leave some without
        passes = batches(pack, own, batch_size=batch_size, device=device)
        logits += [_classified(student, shrink(x, size)) for x, _ in passes]
    return processes.joined(torch.cat(logits).numpy(), len(rows))


def _classified(student: Student, images: Tensor) -> Tensor:
    """Classify a batch, in halves where a GPU's memory is too small for all of it."""
    try:
        return student.classify(images).float().cpu()
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise WorkError(
                f"out of GPU memory with one picture of {images.shape[-1]} px; lower image_size"
            ) from None
    halves = images.split(-(-len(images) // 2))  # out of the handler, which holds memory
    return torch.cat([_classified(student, half) for half in halves])


def prediction_table(
    student: Student,
    pack: Pack,
    split: Split,
    *,
    size: int = 0,
    processes: Processes | None = None,
) -> pd.DataFrame:
    """Classify validation and test pictures into the table that every verdict reads.

    Args:
        student: The best one, by validation.
        pack: The pictures.
        split: Which are held out.
        size: Side of the picture the student sees, pixels; 0 is the pack's.
        processes: As of `predict`.

    Returns:
        See `fopro_lab.evaluation.predictions`.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.models import build_student
        >>> dataset = open_dataset("phantom", pictures=120)
        >>> packed = pack(dataset, 16, progress=False)
        >>> table = prediction_table(
        ...     build_student("small", classes=8), packed, make_split(dataset))
        >>> sorted(table["split"].unique())
        ['test', 'val']
    """
    parts = []
    for name, rows in (("val", split.val), ("test", split.test)):
        part = pack.dataset.table.iloc[rows][["image", "group", "source", "label"]].copy()
        part.insert(3, "split", name)
        logits = predict(student, pack, rows, size=size, processes=processes)
        columns = [f"logit_{class_name}" for class_name in pack.dataset.class_names]
        parts.append(part.join(pd.DataFrame(logits, columns=columns, index=part.index)))
    return pd.concat(parts, ignore_index=True)
