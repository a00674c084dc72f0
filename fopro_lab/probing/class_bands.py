"""Class bands: which class is lost when some frequencies of the test images are changed.

Changes are not clipped and keep the mean of each channel (DC), so that brightness and colour stay.
A linear probe on a teacher, fitted on unchanged images, or a trained student names the classes.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest

from fopro_lab.data import Pack, Split, batches
from fopro_lab.evaluation import bootstrap
from fopro_lab.evaluation.scores import GROUPS, check_groups
from fopro_lab.fourier import ring_parts
from fopro_lab.io import progress
from fopro_lab.probing import features
from fopro_lab.probing.features import Classifier, Encoder
from fopro_lab.probing.ring_response import check_gains, check_rings

FLIPS = 19_999  # draws of signs, so many that a p-value survives the correction for 900 means


def class_band_matrix(
    network: Encoder | Classifier, pack: Pack, split: Split, edges: Sequence[float], *,
    gains: Sequence[float] = (0.0, 2.0), groups: Mapping[str, str], per_class: int = 0,
    batch_size: int = 64, resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Measure how each class's recall changes when one ring of the test images is scaled.

    Args:
        network: A frozen teacher, for which a linear probe is fitted, or a `Classifier`.
        pack: The images, with their data set.
        split: Its train rows fit the probe, val chooses its regularisation, test is measured.
        edges: ``R + 1`` increasing frequencies, cycles per pixel, as in ``ring_masks``.
        gains: Non-negative factors of the amplitudes; 0 removes a ring.
        groups: "head", "medium" or "tail" for each class, in the order of the table.
        per_class: Test images of each class at most; 0 is all.
        batch_size: Images per pass.
        resamples: Of the bootstrap over lesions.
        seed: Of drawn images, bootstrap and sign flips.

    Returns:
        A row for each class, group and "overall" (means of class recalls), ring and gain:
        ``classifier``, ``scope``, ``name``, ``group`` (of a class), ``ring``, ``low``, ``high``
        (cycles per pixel), ``gain``, then as `compare_predictions`, and ``protocol``.

    Raises:
        InputError: If gains, edges or groups are wrong, a ring is empty at this size, or a class
            is absent from training.
    """
    check_gains(gains)
    check_rings(edges, height=pack.size, width=pack.size)
    names = pack.dataset.class_names
    check_groups(groups, names)
    if isinstance(network, Classifier):
        classifier = network
    else:
        probe = features.fit_classifier(network, pack, split, batch_size=batch_size)
        classifier = features.probe_classifier(network, probe)
    tested = (split.test, pack.labels[split.test])
    rows = features.draw_per_class(*tested, per_class=per_class, seed=seed)
    work = batches(pack, rows, batch_size=batch_size, device=classifier.device)
    label, total = f"class bands of the {classifier.name}", -(-len(rows) // batch_size)
    parts = []
    for images, _ in progress(work, total=total, label=label):
        with torch.inference_mode():
            found = [classifier.predict(images)]
            for part, gain in product(ring_parts(images, edges), gains):
                found.append(classifier.predict(torch.add(images, part, alpha=gain - 1)))
        parts.append(torch.stack(found).cpu())
    classes = torch.cat(parts, dim=1).numpy()
    cases = [
        {"ring": ring, "low": float(low), "high": float(high), "gain": float(gain)}
        for (ring, (low, high)), gain in product(enumerate(pairwise(edges)), gains)
    ]
    units = features.resampling_units(pack.dataset.table, rows=rows)
    how: dict[str, Any] = {"names": names, "groups": groups, "resamples": resamples, "seed": seed}
    about = (pack.labels[rows], units, classes[0], classes[1:])
    table = compare_predictions(*about, cases=cases, **how)
    table.insert(0, "classifier", classifier.name)
    return table.assign(protocol=split.protocol)


def compare_predictions(
    labels: np.ndarray, units: np.ndarray, before: np.ndarray, after: np.ndarray, *,
    cases: Sequence[Mapping[str, Any]], names: Sequence[str], groups: Mapping[str, str],
    resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Compare predictions ``(M, n)`` of images after changes with those ``(n,)`` before.

    Intervals are of the paired change: bootstrap within each class, whole lesions or patients;
    where no image of a class changed sides two Wilson intervals are combined ("newcombe"), and a
    mean over such classes is "mover". The p-value of a class is of the exact sign test over
    lesions (a normal one would call six lesions a certainty), that of a mean of `sign_flip_test`.

    Returns:
        A row for each case and each class, group and "overall" (means of class recalls):
        ``scope``, ``name``, ``group`` (of a class), those of the case, ``recall``, ``recall_low``,
        ``recall_high``, ``clean_recall``, ``change``, ``change_low``, ``change_high``, ``n``,
        ``interval``, ``p``, ``p_holm`` (corrected over one of two families: all rows of classes,
        of every case, or all rows of groups and overall), ``cells`` (rows of the family that have
        a p-value), ``survives`` (5 % after the correction, and the interval excludes zero),
        ``resampled``. A class without images has NaN.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.
    """
    drawn = bootstrap.bootstrap_weights(labels, units, resamples=resamples, seed=seed)
    weights = drawn.astype(np.float64)
    members = {name: np.flatnonzero(labels == names.index(name)) for name in groups}
    clean, changed = ((part == labels).astype(np.float64) for part in (before, after))
    absent = {"n": 0, "interval": "none"}  # of a class without images; all else is NaN
    rows: list[dict[str, Any]] = []
    for case, hits in zip(cases, changed, strict=True):
        found = {
            name: _class_change(hits[own], clean[own], units[own], weights[own])
            for name, own in members.items()
            if len(own)
        }
        for name, group in groups.items():
            row = {"scope": "class", "name": name, "group": group, **case}
            rows.append(row | found.get(name, absent))
        for group in (*GROUPS, "all"):
            classes = [each for name, each in found.items() if group in (groups[name], "all")]
            if classes:
                scope = "overall" if group == "all" else "group"
                row = {"scope": scope, "name": group, "group": "", **case}
                rows.append(row | _mean_change(classes, seed=seed))
    columns = [
        *("scope", "name", "group", *cases[0], "recall", "recall_low", "recall_high"),
        *("clean_recall", "change", "change_low", "change_high", "n", "interval", "p"),
    ]
    table = pd.DataFrame(rows, columns=columns)
    families = table["p"].groupby(table["scope"] == "class")  # classes, and means over them
    adjusted = families.transform(lambda p: bootstrap.holm(p.to_numpy()))
    clear = (table["change_low"] > 0) | (table["change_high"] < 0)
    return table.assign(
        p_holm=adjusted,
        cells=families.transform("count").astype(int),
        survives=clear & (adjusted < 1 - bootstrap.LEVEL),
        resampled=bootstrap.resampled(labels, units),
    )


def sign_flip_test(shares: Sequence[np.ndarray], *, seed: int = 0) -> float:
    """Return the two-sided p-value of "no change" of a mean over classes.

    ``shares`` are what each lesion adds to the mean change of its class. Without an effect each is
    as likely with the other sign; p is the share of drawn signs that take the sum as far from 0.

    Source: Fisher's randomisation test; Davison & Hinkley 1997, section 4.3.
    """
    sizes, counts = np.unique(np.abs(np.concatenate(shares)), return_counts=True)
    # Of lesions with equal shares it matters alone how many keep their sign.
    kept = np.random.default_rng(seed).binomial(counts, 0.5, (FLIPS, len(counts)))
    drawn, observed = (2 * kept - counts) @ sizes, abs(np.concatenate(shares).sum())
    return float((1 + (np.abs(drawn) >= observed - 1e-9).sum()) / (1 + FLIPS))


def _class_change(
    after: np.ndarray, before: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    """Measure the recall of one class from hits (0 or 1) after and before, ``(n,)`` each."""
    _, unit = np.unique(units, return_inverse=True)
    trials = int(unit.max()) + 1
    total = weights.sum(axis=0)  # divided last: sums of whole numbers are exact
    changes, recalls = (after - before) @ weights / total, after @ weights / total
    recall, clean = float(after.mean()), float(before.mean())
    low, high, _ = bootstrap.recall_interval(recall, recalls, trials)
    found: dict[str, Any] = {"recall": recall, "recall_low": low, "recall_high": high}
    low, high, kind = *bootstrap.percentile_interval(changes), "bootstrap"
    if np.ptp(changes) == 0:
        low, high, kind = *bootstrap.difference_interval(recall, clean, trials), "newcombe"
    by_unit = np.bincount(unit, weights=after - before)
    better, worse = int((by_unit > 0).sum()), int((by_unit < 0).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    found |= {"change": recall - clean, "change_low": low, "change_high": high, "interval": kind}
    found |= {"clean_recall": clean, "n": len(units), "p": p, "shares": by_unit / len(units)}
    return found | {"drawn": {"change": changes, "recall": recalls}}


def _mean_change(classes: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """Average over classes, whose resamples are independent of one another."""
    names, found = ("recall", "clean_recall"), dict[str, Any]()
    found |= {key: float(np.mean([each[key] for each in classes])) for key in names}
    found["change"] = found["recall"] - found["clean_recall"]
    varied = all(each["interval"] == "bootstrap" for each in classes)
    for key in ("change", "recall"):
        drawn = np.mean([each["drawn"][key] for each in classes], axis=0)
        parts = pd.DataFrame(classes)[[key, f"{key}_low", f"{key}_high"]].to_numpy()
        low, high, kind = bootstrap.class_mean_interval(drawn, parts, varied=varied)
        found |= {f"{key}_low": low, f"{key}_high": high}
    p = sign_flip_test([each["shares"] for each in classes], seed=seed)
    return found | {"n": sum(each["n"] for each in classes), "interval": kind, "p": p}
