"""One question in three steps: read changed pictures, compare with the unchanged, lay out."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from fopro_lab.data import Pack, Split
from fopro_lab.probing.changes import lay_out, measure_changes
from fopro_lab.probing.pictures import resampling_units
from fopro_lab.probing.readers import Reader, predict_changed


def ask_changed(
    reader: Reader,
    pack: Pack,
    rows: np.ndarray,
    change: Callable[[Tensor], Iterator[Tensor]],
    *,
    cases: pd.DataFrame,
    split: Split,
    groups: Mapping[str, str],
    label: str,
    batch_size: int,
    resamples: int,
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    """Let a reader name the classes of pictures before and after several changes.

    Args:
        reader: What reads.
        pack: The pictures.
        rows: Which.
        change: Yields a changed batch for each row of ``cases``.
        cases: What was changed, a row a case.
        split: Its protocol is told beside each number.
        groups: "head", "medium" or "tail" for each class.
        label: Of the progress.
        batch_size: Pictures a pass.
        resamples: Bootstrap resamples of every interval.
        seed: Of the bootstrap.
        progress: Say how far it is.

    Returns:
        The table of `lay_out`.
    """
    before, after = predict_changed(
        reader, pack, rows, change, label=label, batch_size=batch_size, progress=progress
    )
    table = measure_changes(
        pack.labels[rows],
        resampling_units(pack.dataset.table, rows=rows),
        before,
        after,
        names=pack.dataset.class_names,
        groups=groups,
        resamples=resamples,
        seed=seed,
    )
    return lay_out(table, cases, reader=reader.name, protocol=split.protocol)
