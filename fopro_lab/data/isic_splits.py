"""ISIC-2019-LT as published with FoPro-KD: 45 files, read as they are."""

from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.csv_cells import read_cells
from fopro_lab.data.folds import check_fold
from fopro_lab.data.parts import PARTS, Split, count_shared, make_parts
from fopro_lab.data.published_splits import (
    Matched,
    match_pictures,
    refuse_disagreement,
)
from fopro_lab.data.split_files import find_split_files, tell_altered
from fopro_lab.errors import InputError

RATIOS = (0.01, 0.005, 0.002)
FOLDS = 5  # random redraws: their test parts overlap
# A file writes a class twice: its place in this order, and its rank by size.
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
RANKED = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "VASC", "DF")


def make_isic2019_lt(
    dataset: Dataset,
    *,
    ratio: float,
    fold: int = 1,
    files: Path | None = None,
    leave_out: bool = False,
) -> Split:
    """Read one of the 15 published splits of ISIC-2019-LT and find its pictures.

    The parts are those of the files, lesions in two parts included: a note tells how many. Several
    published classes may be one here, as AK and SCC are HAM10000's ``akiec``.

    Args:
        dataset: The pictures of ISIC 2019, or some of them; others belong to no part.
        ratio: 0.01, 0.005 or 0.002.
        fold: 1 to 5; five random redraws, not a partition.
        files: Folder of the 45 files; None is the fetched one.
        leave_out: Go on without named pictures that are not here; the protocol id tells.

    Returns:
        The split; with all pictures and classes its id is ``isic2019-lt/fopro/<ratio>/fold<n>``.
        Files that are not byte for byte as published add ``/altered-<hash>``.

    Raises:
        InputError: If there is no such split, files are damaged or exchanged, pictures are missing,
            classes disagree, or a class has no training picture.

    Source: xmed-lab/FoPro-KD, Elbatel et al., IEEE TMI 43(3), 2024.

    Example:
        >>> make_isic2019_lt(None, ratio=0.05)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: tail_ratio: expected one of the published 0.01, 0.005, ...
    """
    if ratio not in RATIOS:
        raise InputError(
            f"tail_ratio: expected one of the published {', '.join(map(str, RATIOS))}, got "
            f"{ratio:g}; split_rule=long-tail takes any"
        )
    check_fold(fold, folds=FOLDS)
    names = [f"{part}_skin{fold}_{ratio:g}.csv" for part in PARTS]
    knob = f"fold={fold}, tail_ratio={ratio:g}"
    paths = find_split_files(names, files=files, fetched="fopro-splits", knob=knob)
    altered, told = tell_altered(paths, names, fetched="fopro-splits")
    tables = [
        read_isic_part(path).assign(part=part) for path, part in zip(paths, PARTS, strict=True)
    ]
    where = paths[0].parent
    named = pd.concat(tables, ignore_index=True)
    matched = match_pictures(dataset, named, where=where, leave_out=leave_out)
    own_name = _match_classes(dataset, matched)
    expected = [own_name[name] for name in matched.named["class"]]
    refuse_disagreement(dataset, matched, expected, where=where)
    parts = np.full(len(dataset), "", dtype="U5")
    parts[matched.rows] = matched.named["part"]
    ending, notes = _tell_classes(own_name)
    leaks = count_shared(dataset, parts)
    if leaks:
        notes.append(f"{leaks} groups have pictures in two parts or more, as published")
    return make_parts(
        dataset,
        parts,
        f"isic2019-lt/fopro/{ratio:g}/fold{fold}{altered}{matched.ending}{ending}",
        given=PARTS,
        notes=[*told, *matched.notes, *notes],
    )


def read_isic_part(path: Path) -> pd.DataFrame:
    r"""Read one published file.

    Args:
        path: Columns ``image``, ``finding_name`` (0 to 7 in the order of ``CLASSES``) and
            ``finding`` (0 to 7, rank by size).

    Returns:
        Columns ``image`` and ``class``, in the order of the file.

    Raises:
        InputError: If the file cannot be read, a column is missing, or the two numbers of a class
            do not belong together.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.csv"
        ...     _ = path.write_text("image,finding_name,finding\nISIC_0000000,1,0\n")
        ...     read_isic_part(path).to_dict("records")
        [{'image': 'ISIC_0000000', 'class': 'NV'}]
    """
    frame = read_cells(path)
    for column in ("image", "finding_name", "finding"):
        if column not in frame.columns:
            has = ", ".join(frame.columns)
            raise InputError(f"{path}: expected a column '{column}', it has {has}")
    written = {(str(CLASSES.index(c)), str(RANKED.index(c))): c for c in CLASSES}
    pairs = list(zip(frame["finding_name"], frame["finding"], strict=True))
    for image, pair in zip(frame["image"], pairs, strict=True):
        if pair not in written:
            raise InputError(
                f"{path}: {image}: expected finding_name and finding of one class, such as 1 and 0 "
                f"of NV, got {pair[0] or 'nothing'} and {pair[1] or 'nothing'}"
            )
    return pd.DataFrame({"image": frame["image"], "class": [written[pair] for pair in pairs]})


def _match_classes(dataset: Dataset, matched: Matched) -> dict[str, str]:
    """Find the data set's name of each published class: that of most of its pictures here."""
    labels = dataset.table["label"].to_numpy()[matched.rows]
    votes = pd.crosstab(matched.named["class"].to_numpy(), labels)
    return {str(name): dataset.class_names[label] for name, label in votes.idxmax(axis=1).items()}


def _tell_classes(own_name: dict[str, str]) -> tuple[str, list[str]]:
    """Tell which published classes are one class here, or none."""
    notes = []
    for own in dict.fromkeys(own_name.values()):
        published = [name for name in CLASSES if own_name.get(name) == own]
        if len(published) > 1:
            notes.append(f"{' and '.join(published)} are one class here, '{own}'")
    absent = [name for name in CLASSES if name not in own_name]
    if absent:
        notes.append(f"no picture of {', '.join(absent)} is here")
    kept = len(set(own_name.values()))
    return (f"/{kept}classes" if kept < len(CLASSES) else ""), notes
