"""Published splits: FoPro-KD's, HyperKvasir's folds, Balanced-MixUp's, and MONICA's of MedMNIST."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.config import DataConfig
from fopro_lab.data.benchmarks import ISIC_CLASSES as RANKED
from fopro_lab.data.benchmarks import open_array
from fopro_lab.data.dataset import Dataset
from fopro_lab.data.fetch import fetched_place, find_source
from fopro_lab.data.readers import PARTS, read_cells, refuse_twice, stem_of
from fopro_lab.data.split_rules import Split, Wanted, build_split, check_fold, draw_validation
from fopro_lab.errors import InputError
from fopro_lab.io import regular

RATIOS = (0.01, 0.005, 0.002)
# A file of ISIC-2019-LT writes a class twice: its place in this order, and its rank by size.
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
ALIASES = {  # HyperKvasir's classes as its split files write them, and as its folders do
    "hemorroids": "hemorrhoids", "haemorrhoids": "hemorrhoids", "polyp": "polyps",
    **{f"normal-{place}": place for place in ("cecum", "pylorus", "z-line")},
    "oesophagitis-a": "esophagitis-a", "oesophagitis-b-d": "esophagitis-b-d",
    "short-segment-barretts": "barretts-short-segment",
    **{f"ulcerative-colitis-{g}": f"ulcerative-colitis-grade-{g}"
       for g in ("0-1", "1-2", "2-3", *"123")}}  # fmt: skip


def make_isic2019_lt(
    dataset: Dataset,
    *,
    ratio: float,
    fold: int = 1,
    files: Path | None = None,
    leave_out: bool = False,
) -> Split:
    """Read one of the 15 published splits of ISIC-2019-LT and find its images.

    The parts are those of the files, lesions in two parts included: a note says how many. Several
    published classes may be one here, as AK and SCC are HAM10000's ``akiec``; images of no file
    belong to no part. With ``leave_out`` named images may be missing, and the protocol id says so:
    ``isic2019-lt/fopro/<ratio>/fold<n>``, ``/altered-<hash>`` for changed files, ``/part-...``.
    ``ratio`` is 0.01, 0.005 or 0.002, ``fold`` 1 to 5, five random redraws and no partition;
    ``files`` the folder of the 45 files, None the fetched one.

    Raises:
        InputError: If the split, an image or a class is missing, or files and labels disagree.

    Source: xmed-lab/FoPro-KD, Elbatel et al., IEEE TMI 43(3), 2024.
    """
    if ratio not in RATIOS:
        rule = f"expected one of the published {', '.join(map(str, RATIOS))}"
        raise InputError(f"tail_ratio: {rule}, got {ratio:g}; split_rule=long-tail takes any")
    check_fold(fold, folds=5)
    names = isic2019_lt_names(ratio, fold)
    paths = find_split_files(names, files=files, fetched="fopro-splits")
    altered, notes = describe_changes(paths, names, fetched="fopro-splits")
    where, tables = paths[0].parent, [read_isic_part(path) for path in paths]
    named = pd.concat(tables, keys=PARTS, names=["part"]).reset_index("part")
    matched = match_images(dataset, named, where=where, leave_out=leave_out)
    # The data set's name of a published class is that of most of its images here.
    labels = dataset.table["label"].to_numpy()[matched.rows]
    votes = pd.crosstab(matched.named["class"].to_numpy(), labels).idxmax(axis=1)
    own_name = {str(name): dataset.class_names[label] for name, label in votes.items()}
    refuse_disagreement(dataset, matched, own_name, where=where)
    parts = np.full(len(dataset), "", dtype="U5")
    parts[matched.rows] = matched.named["part"]
    notes += matched.notes
    for own in dict.fromkeys(own_name.values()):
        published = [name for name in CLASSES if own_name.get(name) == own]
        if len(published) > 1:
            notes.append(f"{' and '.join(published)} are one class here, '{own}'")
    absent = [name for name in CLASSES if name not in own_name]
    if absent:
        notes.append(f"no image of {', '.join(absent)} is here")
    kept = len(set(own_name.values()))
    protocol = f"isic2019-lt/fopro/{ratio:g}/fold{fold}{altered}{matched.ending}"
    protocol += f"/{kept}classes" if kept < len(CLASSES) else ""
    split = build_split(dataset, parts, protocol, drawn=(), notes=notes)
    leaks = len(split.group_leakage(dataset))
    leak = f"{leaks} groups have images in two parts or more, as published"
    return replace(split, notes=(*split.notes, leak)) if leaks else split


def isic2019_lt_names(ratio: float, fold: int) -> list[str]:
    """Name the three files of a published split of ISIC-2019-LT."""
    return [f"{part}_skin{fold}_{ratio:g}.csv" for part in PARTS]


def read_isic_part(path: Path) -> pd.DataFrame:
    """Read one published file of ISIC-2019-LT into the columns ``image`` and ``class``."""
    columns = ["image", "finding_name", "finding"]
    frame = read_cells(path, needed=columns)
    class_of = {(str(CLASSES.index(c)), str(RANKED.index(c))): c for c in CLASSES}
    pairs = zip(frame["finding_name"], frame["finding"], strict=True)
    frame["class"] = [class_of.get(pair) for pair in pairs]
    for image, number, rank in frame[frame["class"].isna()][columns].to_numpy():
        rule = "expected finding_name and finding of one class, such as 1 and 0 of NV"
        raise InputError(f"{path}: {image}: {rule}, got '{number}' and '{rank}'")
    return frame[["image", "class"]]


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
    redraw: bool = False,
) -> Split:
    """Test on one of HyperKvasir's official folds, validate on a share of the others.

    There are 2 or 5 ``folds``; ``fold`` 1 is ``split-index`` 0 of the file. The publishers give no
    validation: ``val_fraction`` or ``val_per_class``, and ``seed``, draw it as in `make_folds`.
    ``redraw`` takes the five folds of Balanced-MixUp in their place: see `mixup_folds`.
    ``files`` is ``2_fold_split.csv``, ``5_fold_split.csv`` or their folder. ``leave_out``, what is
    raised and what is added to the id ``hyperkvasir/official<folds>/val<size>/seed<n>/fold<n>`` are
    as of `make_isic2019_lt`.

    Source: Borgli et al., Scientific Data 7, 283 (2020); github.com/simula/hyper-kvasir.
    """
    if folds not in ((5,) if redraw else (2, 5)):
        known = "5, as Balanced-MixUp draws" if redraw else "2 or 5, the official ones"
        raise InputError(f"folds: expected {known}, got {folds}; split_rule=folds takes any")
    check_fold(fold, folds=folds)
    name = f"{folds}_fold_split.csv"
    (path,) = find_split_files([name], files=files, fetched="hyperkvasir")
    altered, notes = describe_changes([path], [name], fetched="hyperkvasir")
    named = read_cells(path, needed=("file-name", "class-name", "split-index"))
    named = named.rename(columns={"file-name": "image", "class-name": "class"})
    strange = set(named["split-index"]) - set(map(str, range(folds)))
    if strange:
        got = f"'{min(strange)}'; is it the file of {folds} folds?"
        raise InputError(f"{path}: split-index: expected 0 to {folds - 1}, got {got}")
    named["fold"] = named["split-index"].astype(int) + 1
    if redraw:
        named["fold"] = mixup_folds(named["image"], named["class"].map(canonical_class))
    matched = match_images(dataset, named, where=path, leave_out=leave_out)
    own_name = {canonical_class(own): own for own in dataset.class_names}
    spelt = {name: own_name.get(canonical_class(name), name) for name in set(named["class"])}
    refuse_disagreement(dataset, matched, spelt, where=path)
    fold_of = np.zeros(len(dataset), dtype=np.int64)  # 0: not named
    fold_of[matched.rows] = matched.named["fold"]
    wanted = Wanted("val", val_fraction, val_per_class)
    parts = draw_validation(dataset, fold_of, wanted, fold=fold, seed=seed)
    drawn = f"{wanted.label}/seed{seed}/fold{fold}"
    rule = "balanced-mixup" if redraw else "official"
    protocol = f"hyperkvasir/{rule}{folds}/{drawn}{altered}{matched.ending}"
    return build_split(dataset, parts, protocol, drawn=("val",), notes=notes + matched.notes)


def mixup_folds(images: pd.Series, classes: pd.Series) -> np.ndarray:
    """Draw Balanced-MixUp's folds, 1 to 5: four stratified draws of ``N // 5``, and the rest.

    The draws depend on the order within each class alone: by name, as in the archive's own list.

    Source: Galdran et al., MICCAI 2021; github.com/agaldran/balanced_mixup, commit c9e053b.
    """
    from sklearn.model_selection import train_test_split

    left = np.lexsort([images, classes])
    labels = np.unique(classes, return_inverse=True)[1]
    fold_of = np.full(len(images), 5)
    for fold in range(1, 5):
        how = {"test_size": len(images) // 5, "random_state": 0, "stratify": labels[left]}
        left, drawn = train_test_split(left, **how)
        fold_of[drawn] = fold
    return fold_of


def monica_names(name: str) -> list[str]:
    """Name the three lists of a set of MedMNIST, given the name of data set or file."""
    found = re.search("derma|blood|organ[acs]|path", name)
    if not found:
        known = "derma, blood, organa, organc, organs or path of MedMNIST"
        raise InputError(f"split_rule: monica is of {known}, got '{name}'")
    return [f"{found[0]}mnist_{part}.npy" for part in PARTS]


def make_monica(dataset: Dataset, *, files: Path | None = None, leave_out: bool = False) -> Split:
    """Read MONICA's lists: a long tail of MedMNIST's training part, and all of val and test.

    ``files`` is the folder of ``dermamnist_train.npy`` and so on, whose lines are
    ``train_<place in the part>_<label>.jpg``; the rest is as of `make_isic2019_lt`.

    Source: github.com/PyJulie/MONICA, commit bfc2570, numpy/medmnist.
    """
    names = monica_names(dataset.name)
    paths = find_split_files(names, files=files, fetched="monica-splits")
    altered, notes = describe_changes(paths, names, fetched="monica-splits")
    rows = []
    for path, part in zip(paths, PARTS, strict=True):
        for line in open_array(path).tolist():
            if not (found := re.fullmatch(r"(train|val|test)_(\d+)_(\d+)\.jpg", str(line))):
                raise InputError(f"{path}: expected lines such as train_0_5.jpg, got {line!r}")
            rows.append((f"{found[1]}-{int(found[2]):06d}", int(found[3]), part))
    named = pd.DataFrame(rows, columns=["image", "class", "part"])
    matched = match_images(dataset, named, where=paths[0].parent, leave_out=leave_out)
    own_name = dict(enumerate(dataset.class_names))
    refuse_disagreement(dataset, matched, own_name, where=paths[0].parent)
    parts = np.full(len(dataset), "", dtype="U5")
    parts[matched.rows] = matched.named["part"]
    protocol = f"{dataset.name}/monica{altered}{matched.ending}"
    return build_split(dataset, parts, protocol, drawn=(), notes=notes + matched.notes)


def published_files(config: DataConfig) -> list[Path]:
    """Find the files of the published split that a config names."""
    names, fetched = [f"{config.folds}_fold_split.csv"], "hyperkvasir"
    if config.rule == "isic2019-lt":
        names, fetched = isic2019_lt_names(config.tail_ratio, config.fold), "fopro-splits"
    if config.rule == "monica":
        names, fetched = monica_names(Path(config.dataset).name), "monica-splits"
    files = Path(config.split_files).expanduser() if config.split_files else None
    return find_split_files(names, files=files, fetched=fetched)


def canonical_class(name: str) -> str:
    """Spell a class of HyperKvasir as the folders of the published archive do."""
    plain = "-".join(name.lower().replace("_", " ").split())
    return ALIASES.get(plain, plain)


class Matched(NamedTuple):
    """The images that a published split names and that are here."""

    rows: np.ndarray  # int64 (M,), of the data set
    named: pd.DataFrame  # (M rows) as the file names them
    ending: str  # what the protocol id adds; empty if all named images are here
    notes: list[str]  # what is missing


def match_images(
    dataset: Dataset, named: pd.DataFrame, *, where: Path | str, leave_out: bool
) -> Matched:
    """Find the images that a published split names, with or without their extensions.

    With ``leave_out`` some may be missing, but not all. Two images of one name are refused.
    """
    ids, own = (
        [stem_of(name).removesuffix("_downsampled") for name in names]
        for names in (named["image"], dataset.table["image"])
    )
    refuse_twice(ids, where=where)
    named_here = set(ids)  # twins that the split does not name do no harm
    refuse_twice((name for name in own if name in named_here), where=dataset.name)
    row_of = {name: row for row, name in enumerate(own)}
    rows = np.array([row_of.get(name, -1) for name in ids], dtype=np.int64)
    here = rows >= 0
    have, total = int(here.sum()), len(ids)
    if have == total:
        return Matched(rows, named, "", [])
    if not have or not leave_out:
        add = "add them, or go on without them: unusable=leave-out"
        way_out = add if have else "is it the split of these images?"
        lack = f"{total - have:,} of its {total:,} images are not in {dataset.name}"
        raise InputError(f"{where}: {lack}, first {ids[here.argmin()]}; {way_out}")
    note = f"{have:,} of the {total:,} images that the published split names are here"
    return Matched(rows[here], named[here], f"/part-{have}of{total}-{dataset.name}", [note])


def refuse_disagreement(
    dataset: Dataset, matched: Matched, own_name: Mapping[Any, str], *, where: Path
) -> None:
    """Refuse a split whose classes, by their names in the data set, are not those of its images."""
    labels = dataset.table["label"].to_numpy()[matched.rows]
    own = np.array(dataset.class_names, dtype=object)[labels]
    wrong = np.flatnonzero(own != matched.named["class"].map(own_name).to_numpy(dtype=object))
    if len(wrong):
        image, published = matched.named[["image", "class"]].iloc[wrong[0]]
        many = f"{len(wrong):,} of {len(own):,} images have another class in {dataset.name}"
        first = f"first {image}: '{own[wrong[0]]}' where the split says '{published}'"
        raise InputError(f"{where}: {many}, {first}; mend the labels")


def find_split_files(names: Sequence[str], *, files: Path | None, fetched: str) -> list[Path]:
    """Find a split's files in a folder, or ``official_splits`` below it, or as the one file given.

    None is where ``fopro data fetch`` puts what is called ``fetched``.
    """
    files = files or fetched_place(fetched)
    if files is None:
        way_out = f"say `fopro data fetch {fetched}`, or give the folder that holds {names[0]}"
        raise InputError(f"split_files: {fetched} is not fetched; {way_out}")
    if files.is_file() and len(names) == 1:
        return [files]
    below = files / "official_splits"  # where HyperKvasir's repository keeps them
    folder = below if below.is_dir() else files
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"split_files: {folder}: expected the published {name}, found none")
    return [folder / name for name in names]


def describe_changes(
    paths: Sequence[Path], names: Sequence[str], *, fetched: str
) -> tuple[str, list[str]]:
    """Compare the files of a split with the hashes of the published ones.

    Returns what the protocol id adds, ``/altered-`` with the start of a hash over the files, and
    notes; both are empty if every byte is as published, line ends included.
    """
    known = {Path(f.name).name: f.known.partition(":")[2] for f in find_source(fetched).files}
    name_of = {digest: name for name, digest in known.items()}
    digests = []
    for path, name in zip(paths, names, strict=True):
        content = regular(path).read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        # Saved again with other line ends, it is still the file it was.
        plain = hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
        held = name_of.get(digests[-1]) or name_of.get(plain) or name
        if held != name:
            got = f"the content of {held}; files are exchanged: give each its own name again"
            raise InputError(f"split_files: {path}: expected the published {name}, got {got}")
    altered = [name for name, own in zip(names, digests, strict=True) if own != known[name]]
    if not altered:
        return "", []
    over_all = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:8]
    note = f"{', '.join(altered)}: not the published file{'s' * (len(altered) > 1)}"
    return f"/altered-{over_all}", [note]
