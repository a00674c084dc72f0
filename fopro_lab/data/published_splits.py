"""HyperKvasir's official folds, and the spellings of its 23 classes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data.dataset import Dataset
from fopro_lab.data.fetch import published_hashes
from fopro_lab.data.readers import SUFFIXES, read_cells, refuse_twice
from fopro_lab.data.split_rules import (
    PARTS,
    Split,
    Wanted,
    check_fold,
    count_shared,
    draw_validation,
    make_parts,
)
from fopro_lab.errors import InputError


class Matched(NamedTuple):
    """The named images that are here.

    Attributes:
        rows: Row of the data set of each, ``int64 (M,)``.
        named: The same images as the file names them, ``M`` rows.
        ending: What the protocol id adds: empty if all named images are here.
        notes: What is missing, a line each.

    Example:
        >>> Matched._fields
        ('rows', 'named', 'ending', 'notes')
    """

    rows: np.ndarray
    named: pd.DataFrame
    ending: str
    notes: list[str]


def match_images(
    dataset: Dataset, named: pd.DataFrame, *, where: Path | str, leave_out: bool
) -> Matched:
    """Find the images that a published split names, with or without their extensions.

    Args:
        dataset: The images that are here; those that are not named belong to no part.
        named: Column ``image`` and what else the split says; a row an image.
        where: File or folder of the split, for the messages.
        leave_out: Go on without named images that are not here; the protocol id tells.

    Returns:
        The images of both.

    Raises:
        InputError: If an image is named twice or two images have one name, none is here, or
            some are not and ``leave_out`` is off.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", images=24)
        >>> named = pd.DataFrame({"image": [*dataset.table["image"][:3], "elsewhere"]})
        >>> match_images(dataset, named, where="a.csv", leave_out=True).ending
        '/part-3of4-phantom-24'
    """
    ids = [image_id(image) for image in named["image"]]
    own = [image_id(image) for image in dataset.table["image"]]
    row_of = dict(zip(own, range(len(own)), strict=True))
    refuse_twice(ids, where=where)
    if len(row_of) < len(own):  # twins that no split names do no harm
        named_here = set(ids)
        refuse_twice((name for name in own if name in named_here), where=dataset.name)
    here = np.array([name in row_of for name in ids])
    have, total = int(here.sum()), len(ids)
    if not have:
        raise InputError(
            f"{where}: none of its {total:,} images is in {dataset.name}, first {ids[0]}; "
            "is it the split of these images?"
        )
    if have < total and not leave_out:
        raise InputError(
            f"{where}: {total - have:,} of its {total:,} images are not in {dataset.name}, "
            f"first {ids[int(np.argmin(here))]}; add them, or go on without them: "
            "unusable=leave-out"
        )
    rows = np.array([row_of[name] for name in ids if name in row_of], dtype=np.int64)
    if have == total:
        return Matched(rows, named, "", [])
    note = f"{have:,} of the {total:,} images that the published split names are here"
    return Matched(rows, named[here], f"/part-{have}of{total}-{dataset.name}", [note])


def image_id(name: str) -> str:
    """Return an image's name without folders and extension.

    Args:
        name: As a data set or a split writes it. ISIC 2019 calls some images ``_downsampled``,
            copies of it do not, and no image is there in both forms.

    Returns:
        What both have in common.

    Example:
        >>> image_id("nv/ISIC_0000017_downsampled.JPG"), image_id("v1.2-3")
        ('ISIC_0000017', 'v1.2-3')
    """
    plain = name.rpartition("/")[2]
    stem, dot, suffix = plain.rpartition(".")
    return (stem if (dot + suffix).lower() in SUFFIXES else plain).removesuffix("_downsampled")


def refuse_disagreement(
    dataset: Dataset, matched: Matched, expected: Sequence[str], *, where: Path | str
) -> None:
    """Refuse a split whose classes are not those of the data set.

    Args:
        dataset: The images.
        matched: Those that the split names; its column ``class`` is told in the message.
        expected: The data set's class that each named image should have, ``(M,)``.
        where: File or folder of the split.

    Raises:
        InputError: If an image has another class.

    Example:
        >>> from fopro_lab.data import open_dataset
        >>> dataset = open_dataset("phantom", images=24)
        >>> named = pd.DataFrame({"image": dataset.table["image"][:1], "class": ["X"]})
        >>> matched = match_images(dataset, named, where="a.csv", leave_out=False)
        >>> refuse_disagreement(dataset, matched, [dataset.class_names[0]], where="a.csv")
    """
    labels = dataset.table["label"].to_numpy()[matched.rows]
    own = np.array(dataset.class_names, dtype=object)[labels]
    wrong = np.flatnonzero(own != np.array(list(expected), dtype=object))
    if len(wrong):
        first = matched.named.iloc[wrong[0]]
        raise InputError(
            f"{where}: {len(wrong):,} of {len(own):,} images have another class in "
            f"{dataset.name}, first {first['image']}: '{own[wrong[0]]}' where the split says "
            f"'{first['class']}'; mend the labels"
        )


BELOW = "official_splits"  # where HyperKvasir's repository keeps its files


def find_split_files(
    names: Sequence[str], *, files: Path | None, fetched: str, knob: str
) -> list[Path]:
    """Find the files of a published split.

    Args:
        names: Names of the files.
        files: Folder that holds them, also in ``official_splits`` below it, or the file itself if
            it is one; None looks where ``fopro data fetch`` puts them.
        fetched: Name under which they are fetched.
        knob: What chose these names, for the message.

    Returns:
        Their paths.

    Raises:
        InputError: If they were not fetched, or one is missing.

    Example:
        >>> find_split_files(["a.csv"], files=Path("nowhere"), fetched="toy", knob="fold=1")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: split_files: nowhere: no such folder or file
    """
    if files is None:
        from fopro_lab.data.fetch import fetched_place

        files = fetched_place(fetched)
        if files is None:
            raise InputError(
                f"split_files: {fetched} is not fetched; say `fopro data fetch {fetched}`, or give "
                f"the folder that holds {names[0]}"
            )
    if not files.exists():
        raise InputError(f"split_files: {files}: no such folder or file")
    if files.is_file() and len(names) == 1:
        return [files]
    folder = files / BELOW if (files / BELOW).is_dir() else files
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"split_files: {folder}: expected the published {name} for {knob}, found none"
            )
    return [folder / name for name in names]


def tell_altered(
    paths: Sequence[Path], names: Sequence[str], *, fetched: str
) -> tuple[str, list[str]]:
    """Compare the files of a split with the hashes of those that were published.

    Args:
        paths: The files that are read, as `find_split_files` returns them.
        names: Their published names, in the same order.
        fetched: Name under which they are fetched.

    Returns:
        What the protocol id adds, and what a reader should know: both empty if every byte is as
        published, line ends included; else ``/altered-`` with the start of a hash over the files.

    Raises:
        InputError: If a file cannot be read, or is another published file under this name, as
            when validation and test are exchanged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "5_fold_split.csv"
        ...     _ = path.write_text("made up")
        ...     tell_altered([path], [path.name], fetched="hyperkvasir")
        ('/altered-da10ba95', ['5_fold_split.csv: not the published file'])
    """
    known = {
        place.rpartition("/")[2]: digest for place, digest in published_hashes(fetched).items()
    }
    name_of = {digest: name for name, digest in known.items()}
    digests = []
    for path, name in zip(paths, names, strict=True):
        content = _read(path)
        digests.append(hashlib.sha256(content).hexdigest())
        # A file that was saved anew with other line ends is still the one it was.
        plain = hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
        held = name_of.get(digests[-1]) or name_of.get(plain) or name
        if held != name:
            raise InputError(
                f"split_files: {path}: expected the published {name}, got the content of {held}; "
                "files are exchanged: give each its own name again"
            )
    altered = [name for name, own in zip(names, digests, strict=True) if own != known[name]]
    if not altered:
        return "", []
    over_all = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    what = "not the published file" + "s" * (len(altered) > 1)
    return f"/altered-{over_all[:8]}", [f"{', '.join(altered)}: {what}"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


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
    """Read one of the 15 published splits of ISIC-2019-LT and find its images.

    The parts are those of the files, lesions in two parts included: a note tells how many. Several
    published classes may be one here, as AK and SCC are HAM10000's ``akiec``.

    Args:
        dataset: The images of ISIC 2019, or some of them; others belong to no part.
        ratio: 0.01, 0.005 or 0.002.
        fold: 1 to 5; five random redraws, not a partition.
        files: Folder of the 45 files; None is the fetched one.
        leave_out: Go on without named images that are not here; the protocol id tells.

    Returns:
        The split; with all images and classes its id is ``isic2019-lt/fopro/<ratio>/fold<n>``.
        Files that are not byte for byte as published add ``/altered-<hash>``.

    Raises:
        InputError: If there is no such split, files are damaged or exchanged, images are missing,
            classes disagree, or a class has no training image.

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
    matched = match_images(dataset, named, where=where, leave_out=leave_out)
    own_name = _match_classes(dataset, matched)
    expected = [own_name[name] for name in matched.named["class"]]
    refuse_disagreement(dataset, matched, expected, where=where)
    parts = np.full(len(dataset), "", dtype="U5")
    parts[matched.rows] = matched.named["part"]
    ending, notes = _tell_classes(own_name)
    leaks = count_shared(dataset, parts)
    if leaks:
        notes.append(f"{leaks} groups have images in two parts or more, as published")
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
    """Find the data set's name of each published class: that of most of its images here."""
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
        notes.append(f"no image of {', '.join(absent)} is here")
    kept = len(set(own_name.values()))
    return (f"/{kept}classes" if kept < len(CLASSES) else ""), notes


OFFICIAL_FOLDS = (2, 5)
COLUMNS = ("file-name", "class-name", "split-index")
HYPERKVASIR_SPLITS_CLASSES = tuple(
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
        dataset: Its labelled images, classes in any of the known spellings.
        folds: 2 or 5, the official ones.
        fold: The one that is tested, from 1: ``split-index`` 0 of the file.
        val_fraction: Share of each class of the other folds; the publishers give no validation.
        val_per_class: If above 0, exactly this many images of every class instead.
        seed: Of the validation part alone.
        files: ``2_fold_split.csv`` or ``5_fold_split.csv``, or their folder; None is the fetched
            one.
        leave_out: Go on without named images that are not here; the protocol id tells.

    Returns:
        The split, ``hyperkvasir/official<folds>/val<size>/seed<n>/fold<n>``; a file that is not
        byte for byte as published adds ``/altered-<hash>``.

    Raises:
        InputError: If there is no such split, the file is damaged or another one, images are
            missing, classes disagree, or a class has no training image.

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
    matched = match_images(dataset, named, where=path, leave_out=leave_out)
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
