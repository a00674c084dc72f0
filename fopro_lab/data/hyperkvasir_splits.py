"""HyperKvasir's official folds, and the spellings of its 23 classes."""

from pathlib import Path

import numpy as np
import pandas as pd

from fopro_lab.data.catalog import Dataset
from fopro_lab.data.csv_cells import read_cells
from fopro_lab.data.drawing import Wanted
from fopro_lab.data.folds import check_fold, draw_validation
from fopro_lab.data.parts import Split, make_parts
from fopro_lab.data.published_splits import match_pictures, refuse_disagreement
from fopro_lab.data.split_files import find_split_files, tell_altered
from fopro_lab.errors import InputError

OFFICIAL_FOLDS = (2, 5)
COLUMNS = ("file-name", "class-name", "split-index")
CLASSES = tuple(
    "barretts barretts-short-segment bbps-0-1 bbps-2-3 cecum dyed-lifted-polyps "
    "dyed-resection-margins esophagitis-a esophagitis-b-d hemorrhoids ileum impacted-stool polyps "
    "pylorus retroflex-rectum retroflex-stomach ulcerative-colitis-grade-0-1 "
    "ulcerative-colitis-grade-1 ulcerative-colitis-grade-1-2 ulcerative-colitis-grade-2 "
    "ulcerative-colitis-grade-2-3 ulcerative-colitis-grade-3 z-line".split()
)
ALIASES = {
    "hemorroids": "hemorrhoids",
    "haemorrhoids": "hemorrhoids",
    "normal-cecum": "cecum",
    "normal-pylorus": "pylorus",
    "normal-z-line": "z-line",
    "oesophagitis-a": "esophagitis-a",
    "oesophagitis-b-d": "esophagitis-b-d",
    "polyp": "polyps",
    "short-segment-barretts": "barretts-short-segment",
    **{f"ulcerative-colitis-{g}": f"ulcerative-colitis-grade-{g}" for g in "0-1 1-2 2-3".split()},
    **{f"ulcerative-colitis-{g}": f"ulcerative-colitis-grade-{g}" for g in "123"},
}


def make_hyperkvasir(
    dataset: Dataset,
    *,
    folds: int = 5,
    fold: int = 1,
    val_fraction: float = 0.15,
    val_per_class: int = 0,
    seed: int = 0,
    files: Path | None = None,
    leave_out: bool = False,
) -> Split:
    """Test on one of HyperKvasir's official folds, validate on a share of the others.

    Args:
        dataset: Its labelled pictures, classes in any of the known spellings.
        folds: 2 or 5, the official ones.
        fold: The one that is tested, from 1: ``split-index`` 0 of the file.
        val_fraction: Share of each class of the other folds; the publishers give no validation.
        val_per_class: If above 0, exactly this many pictures of every class instead.
        seed: Of the validation part alone.
        files: ``2_fold_split.csv`` or ``5_fold_split.csv``, or their folder; None is the fetched
            one.
        leave_out: Go on without named pictures that are not here; the protocol id tells.

    Returns:
        The split, ``hyperkvasir/official<folds>/val<size>/seed<n>/fold<n>``; a file that is not
        byte for byte as published adds ``/altered-<hash>``.

    Raises:
        InputError: If there is no such split, the file is damaged or another one, pictures are
            missing, classes disagree, or a class has no training picture.

    Source: Borgli et al., Scientific Data 7, 283 (2020); github.com/simula/hyper-kvasir.

    Example:
        >>> make_hyperkvasir(None, folds=3)
        Traceback (most recent call last):
        fopro_lab.errors.InputError: folds: expected 2 or 5, the official ones, got 3; ...
    """
    if folds not in OFFICIAL_FOLDS:
        raise InputError(
            f"folds: expected 2 or 5, the official ones, got {folds}; split_rule=folds takes any"
        )
    check_fold(fold, folds=folds)
    name = f"{folds}_fold_split.csv"
    (path,) = find_split_files([name], files=files, fetched="hyperkvasir", knob=f"folds={folds}")
    altered, told = tell_altered([path], [name], fetched="hyperkvasir")
    named = read_hyperkvasir_folds(path, folds=folds)
    matched = match_pictures(dataset, named, where=path, leave_out=leave_out)
    spelt_here = {canonical_class(own): own for own in dataset.class_names}
    expected = [spelt_here.get(canonical_class(c), c) for c in matched.named["class"]]
    refuse_disagreement(dataset, matched, expected, where=path)
    tested, rest = np.zeros((2, len(dataset)), dtype=bool)
    tested[matched.rows] = matched.named["fold"] == fold
    rest[matched.rows] = matched.named["fold"] != fold
    wanted = Wanted("val", val_fraction, val_per_class)
    parts = draw_validation(dataset, tested, wanted, rest=rest, seed=seed)
    drawn = f"{wanted.label}/seed{seed}/fold{fold}"
    protocol = f"hyperkvasir/official{folds}/{drawn}{altered}{matched.ending}"
    notes = [*told, *matched.notes]
    return make_parts(dataset, parts, protocol, given=("train", "test"), notes=notes)


def read_hyperkvasir_folds(path: Path, *, folds: int) -> pd.DataFrame:
    r"""Read an official file of folds.

    Args:
        path: Columns ``file-name``, ``class-name`` and ``split-index``, from 0.
        folds: How many it should have.

    Returns:
        Columns ``image``, ``class`` (as spelt there) and ``fold``, from 1.

    Raises:
        InputError: If the file cannot be read, a column is missing or an index is no fold.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.csv"
        ...     _ = path.write_text("file-name;class-name;split-index\na.jpg;polyp;1\n")
        ...     read_hyperkvasir_folds(path, folds=2).to_dict("records")
        [{'image': 'a.jpg', 'class': 'polyp', 'fold': 2}]
    """
    frame = read_cells(path)
    for column in COLUMNS:
        if column not in frame.columns:
            has = ", ".join(frame.columns)
            raise InputError(f"{path}: expected a column '{column}', it has {has}")
    strange = set(frame["split-index"]) - {str(index) for index in range(folds)}
    if strange:
        raise InputError(
            f"{path}: split-index: expected 0 to {folds - 1}, got '{min(strange)}'; is it the file "
            f"of {folds} folds?"
        )
    return pd.DataFrame(
        {
            "image": frame["file-name"],
            "class": frame["class-name"],
            "fold": frame["split-index"].astype(int) + 1,
        }
    )


def canonical_class(name: str) -> str:
    """Spell a class of HyperKvasir as the folders of the published archive do.

    Args:
        name: Any known spelling.

    Returns:
        The folder's name; an unknown name comes back in lower case, with hyphens.

    Example:
        >>> canonical_class("hemorroids"), canonical_class("Normal Z-line")
        ('hemorrhoids', 'z-line')
    """
    plain = "-".join(name.lower().replace("_", " ").split())
    return ALIASES.get(plain, plain)
