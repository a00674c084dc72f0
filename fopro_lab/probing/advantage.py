"""How much better one network's features serve a data set than another's."""

from typing import Any

import numpy as np

from fopro_lab.data import Pack, Split
from fopro_lab.evaluation.intervals import bootstrap_weights, percentile_interval
from fopro_lab.evaluation.metrics import class_recalls, confusion_matrices
from fopro_lab.probing.features import Encoder, encode_rows
from fopro_lab.probing.pictures import resampling_units
from fopro_lab.probing.readers import fit_probe


def probe_advantage(
    teacher: Encoder, other: Encoder, pack: Pack, split: Split, *, resamples: int = 1000
) -> dict[str, Any]:
    """Compare two networks by a linear probe on the same test pictures.

    Args:
        teacher: The one of interest.
        other: What it is compared with, for example the same network untrained.
        pack: The pictures.
        split: Train fits the probes, validation chooses their strength, test is touched once.
        resamples: Of a paired bootstrap, stratified by class, lesions or patients kept whole.

    Returns:
        ``balanced_accuracy`` of the one and ``other_balanced_accuracy``, ``difference`` with
        ``low`` and ``high`` (95 %), ``test_pictures`` and ``protocol``.

    Example:
        >>> from fopro_lab.data import make_split, open_dataset, pack
        >>> from fopro_lab.models import load_teacher
        >>> packed = pack(open_dataset("phantom", pictures=60), 16, progress=False)
        >>> teacher = load_teacher("builtin")
        >>> probe_advantage(teacher, teacher, packed, make_split(packed.dataset))["difference"]
        0.0
    """
    labels = pack.labels[split.test]
    units = resampling_units(pack.dataset.table, rows=split.test)
    drawn = bootstrap_weights(labels, units, resamples=resamples, seed=0)
    weights = np.column_stack([np.ones(len(labels), dtype=np.float32), drawn])
    scores = []
    for network in (teacher, other):
        probe = fit_probe(network, pack, split)
        predicted = probe.predict(encode_rows(network, pack, rows=split.test))
        confusion = confusion_matrices(labels, predicted, weights, classes=len(probe.weight))
        scores.append(np.nanmean(class_recalls(confusion), axis=1))
    low, high = percentile_interval(scores[0][1:] - scores[1][1:])
    return {
        "balanced_accuracy": float(scores[0][0]),
        "other_balanced_accuracy": float(scores[1][0]),
        "difference": float(scores[0][0] - scores[1][0]),
        "low": low,
        "high": high,
        "test_pictures": len(labels),
        "image_size": pack.size,
        "protocol": split.protocol,
    }
