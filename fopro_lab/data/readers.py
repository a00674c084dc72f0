"""Find images below a folder, by a folder per class or by names, and read a table's cells."""

import csv
import filecmp
import gzip
import io
import os
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from fopro_lab.data.decoding import FileReader, Reader
from fopro_lab.errors import InputError, said_of
from fopro_lab.io import in_bytes, kind_of, regular, some

PARTS = ("train", "val", "test")
COLUMNS = ("image", "path", "label", "group", "source", "split")
SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .gif .ppm".split())
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Images that medical archives ship and that are not read here.
UNREADABLE = tuple(
    ".dcm .dicom .ima .jp2 .j2k .jpx .jxl .heic .heif .avif .nii .nii.gz .mha .mhd .nrrd .svs "
    ".ndpi .mrxs .scn .czi .raw .npy .mat .h5 .hdf5".split()
)
ENDINGS = SUFFIXES.union(UNREADABLE)
CONVERT = "such files are not read here: convert them to PNG (16 bit keeps the levels of 12)"
# Folders of an archive, a part of it or a patient: no names of classes.
NO_CLASS = re.compile(
    r"((.*[\W_])?(images?|imgs?)|pictures?|photos?|masks?|segmentations?|annotations?|labels?|gt|"
    r"ground_?truths?|data|dataset|input|raw|jpe?gs?|pngs?|tiffs?|dicoms?)([\W_]*\d+)?"
    r"|(.*[\W_])?(part|batch|chunk|fold|split|shard|zip)[\W_]*\d+"
    r"|(patient|subject|case|study|series|lesion|visit|site|center|centre)[\W_]*\d+"
)
MASKS = re.compile(r"masks?|segmentations?|segs?|annotations?|gt|ground_?truths?")
MASK_FILE = re.compile(r"(.+?)[\s_.-]+(?:mask|seg|segmentation|gt)(?:[\W_]*\d+)?")

MOST_BYTES = 1 << 30  # of a table, unpacked
TABLES = (".csv", ".tsv", ".tab", ".psv")
TEXTS = (".txt", ".dat", "")  # perhaps a table
SHEETS = (".xlsx", ".xls", ".ods", ".parquet", ".jsonl", ".feather")


class Listing(NamedTuple):
    """The images of a data set, with table, class names and reader as of a `Dataset`."""

    table: pd.DataFrame
    class_names: tuple[str, ...]
    reader: Reader
    files: list[str]  # their sizes and times stand for the pixels
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was guessed or left out
    ending: str = ""  # what the data set's name, and so every protocol id, says of that
    groups_known: bool = False  # of every image, also where each has its own


def list_files(
    images: Sequence[str],
    paths: Sequence[str],
    classes: tuple[Sequence[int], tuple[str, ...]],
    *,
    groups: Sequence[str] | None = None,
    sources: Sequence[str] | str = "",
    splits: Sequence[str] | str = "",
    passed_over: tuple[str, ...] = (),
) -> Listing:
    """Put image files into a listing; ``classes`` is a label per image and the class names."""
    labels, names = classes
    groups = images if groups is None else groups  # an image without a group is its own
    groups = [group or image for group, image in zip(groups, images, strict=True)]
    columns = [images, paths, labels, groups, sources, splits]
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    return Listing(table, names, FileReader(tuple(paths)), list(paths), passed_over)


def sort_files(folder: Path | str) -> tuple[list[str], list[str]]:
    """List images and other files below a folder, sorted, relative, with forward slashes.

    Hidden files are in neither list; links to folders are followed, each folder once.
    """
    images, others, seen = list[str](), list[str](), set[str]()

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if name[0] != "." and real not in seen]
        if real in seen:
            continue
        seen.add(real)
        inside = os.path.relpath(parent, folder).replace(os.sep, "/")
        prefix = "" if inside == "." else inside + "/"
        for name in files:
            if name[0] != ".":
                is_image = os.path.splitext(name)[1].lower() in SUFFIXES
                (images if is_image else others).append(prefix + name)
    return sorted(images), sorted(others)


def read_folders(root: Path, *, sure: bool = False) -> Listing:
    """Read a folder per class, or train, val and test folders with a folder per class in each.

    Masks beside or below a class are passed over. Folders whose names are not those of classes,
    such as ``images_part_1``, are refused unless one is ``sure``.
    """
    images, others = sort_files(root)
    strange = name_unreadable(others)
    if not images:
        found = f"{strange[0]}; {CONVERT}" if strange else f"none ({', '.join(sorted(SUFFIXES))})"
        raise InputError(f"expected images, found {found}")
    masks = _find_masks(images)
    images = [image for image in images if image not in masks]
    if not images:
        raise InputError(f"expected images, found masks alone, first {min(masks)}")
    parts = [image.split("/") for image in images]
    tops = {part[0].lower() for part in parts}
    depth = 1 if "train" in {SPLIT_WORDS.get(top) for top in tops} else 0
    if depth and not tops <= SPLIT_WORDS.keys():
        odd = min(tops - SPLIT_WORDS.keys())
        rule = "expected train, val and test folders only"
        raise InputError(f"{rule}, found '{odd}'; rename it to one of these, or move it away")
    if outside := [image for image in images if image.count("/") < depth + 1]:
        rule = f"a folder per class ({'train/' * depth}CLASS/IMAGE) or a CSV of the classes"
        raise InputError(f"expected {rule}, found images outside of one: {some(outside, most=2)}")
    names = {part[depth] for part in parts}
    if not sure and all(len(part) > depth + 2 for part in parts):
        found = f"{some(sorted(names))}, such as {images[0].rpartition('/')[0]}"
        way_out = "if those are the classes, give their folder's path, else labels_from=folders"
        rule = "expected images in the folders of classes"
        raise InputError(f"{rule}, found folders in each of {found}; {way_out}")
    for name in sorted(names):
        if not sure and (NO_CLASS.fullmatch(name.casefold()) or name.lower() in SPLIT_WORDS):
            what = f"folder '{name}' has the name of an archive's part, not of a class"
            way_out = "dataset=TABLE image_dir=FOLDER, or take them as classes: labels_from=folders"
            raise InputError(f"{what}; give a table of the classes: {way_out}")
    classes = number_classes([part[depth] for part in parts])
    inside = [file for file in others if file.count("/") > depth]
    if bare := name_unreadable(file for file in inside if file.split("/")[depth] not in names):
        raise InputError(f"a class has only {bare[0]}; {CONVERT}")
    notes = [f"{len(masks):,} masks passed over, first {min(masks)}"] if masks else []
    notes += [f"passed over: {text}" for text in strange]
    bases = {"/".join(part[:depth]) for part in parts}
    below = {path.name for base in bases for path in (root / base).iterdir() if path.is_dir()}
    if empty := sorted(name for name in below - names if name[0] != "."):
        notes.append(f"no class, as they hold no image: folders {some(empty)}")
    paths = [os.path.join(root, image) for image in images]
    splits = [SPLIT_WORDS[part[0].lower()] if depth else "" for part in parts]
    over = (*others, *sorted(masks))
    listing = list_files(images, paths, classes, splits=splits, passed_over=over)
    return listing._replace(notes=tuple(notes))


def name_unreadable(files: Iterable[str]) -> list[str]:
    """Count files of kinds of images that are not read here, by ending: ``3 .dcm files``."""
    counts: dict[str, list[str]] = {}
    for file in files:
        lower = file.lower()
        ending = max((kind for kind in UNREADABLE if lower.endswith(kind)), key=len, default="")
        if ending:
            counts.setdefault(ending, []).append(file)
    return [f"{len(own):,} {kind} files, first {own[0]}" for kind, own in sorted(counts.items())]


def _find_masks(images: Sequence[str]) -> set[str]:
    """Find images below a class in a folder of masks, and those beside the image they belong to."""
    stem = {image: image.rpartition(".")[0] for image in images}
    owners = set(stem.values())
    return {
        image
        for image in images
        if any(MASKS.fullmatch(folder.casefold()) for folder in image.split("/")[1:-1])
        or ((beside := MASK_FILE.fullmatch(stem[image])) and beside[1] in owners)
    }


def number_classes(classes: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Return the label of each image, and the class names in the order of the labels.

    Integers are ordered by value, other names alphabetically. A single class, a gap in integers,
    and names that differ only in case, space, encoding of accents or leading zeros are refused.
    """
    names = sorted(set(classes))
    refuse_alike(names, where="classes")
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
        first, last = int(names[0]), int(names[-1])
        missing = sorted(set(range(first, min(last, first + len(names)))) - set(map(int, names)))
        if missing:
            got = f"{', '.join(names[:10])} and no {missing[0]}"
            way_out = "renumber them or use a column of names"
            raise InputError(f"labels: expected integers without a gap, got {got}; {way_out}")
    if len(names) < 2:
        raise InputError(f"expected two classes or more, found '{names[0]}' alone")
    label = {name: number for number, name in enumerate(names)}
    return [label[name] for name in classes], tuple(names)


def refuse_alike(names: Iterable[str], *, where: str, way_out: str = "") -> None:
    """Refuse names of which two differ only in case, space, accents' encoding, zeros or ``.0``."""
    first_of: dict[str | int, str] = {}
    for name in sorted(set(names)):
        plain = " ".join(unicodedata.normalize("NFC", name).split()).casefold()
        whole = re.fullmatch(r"(\d+)(\.0+)?", plain)
        other = first_of.setdefault(int(whole[1]) if whole else plain, name)
        if other != name:
            way_out = f"write them alike, or give them names that differ{way_out}"
            raise InputError(f"{where} '{other}' and '{name}' look like one; {way_out}")


def refuse_twice(images: Iterable[str], *, where: Path | str) -> None:
    """Refuse a list that names an image more than once."""
    repeated = [image for image, count in Counter(images).items() if count > 1]
    if repeated:
        more = f" and {len(repeated) - 1:,} more" if len(repeated) > 1 else ""
        way_out = "remove the others, or, if the images differ, write their folders too"
        got = f"got {repeated[0]} twice{more}"
        raise InputError(f"{where}: expected each image once, {got}; {way_out}")


def plain_name(text: str) -> str:
    """Write a name in one way: accents as one letter each (NFC), without case."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def stem_of(name: str) -> str:
    """Return a file's name without folders and without an image's ending."""
    name = name.rpartition("/")[2]
    stem = name[:-3] if name.lower().endswith(".nii.gz") else name
    stem, dot, ending = stem.rpartition(".")
    return stem if stem and (dot + ending).lower() in ENDINGS else name


def as_path(written: str) -> str:
    """Return a path as this system writes it, perhaps from one as Windows does."""
    return written.replace("\\", "/").removeprefix("./")


def file_key(name: str) -> str:
    """Return what names of one image have in common, whatever folder, case, or ending."""
    # Copies of ISIC 2019 drop this ending of some of its images.
    return plain_name(stem_of(as_path(name))).removesuffix("_downsampled")


def find_images(
    images: Iterable[str], root: Path, *, where: Path, way_out: str, leave_out: bool = False
) -> tuple[list[str], list[str]]:
    """Find each image below ``root``: of the files of its `file_key` the `closest` one.

    Several that are equally close are refused. With ``leave_out`` images may be missing, but not
    all; the path is where one should be. Returns the paths, and notes on what had to be guessed.
    """
    files, others = sort_files(root)
    wanted, twins, missing, notes = list(images), list[str](), list[str](), list[str]()
    by_key: dict[str, list[str]] = {}
    for file in files:
        by_key.setdefault(file_key(file), []).append(file)
    alien = {file_key(file): file for file in others if name_unreadable([file])}
    place: dict[str, str] = {}
    for name in wanted:
        near = closest(name, by_key.get(file_key(name), []))
        if len(near) > 1 and all(filecmp.cmp(root / near[0], root / f, False) for f in near):
            twins.append(f"{near[0]} and {near[1]}")
            near = near[:1]
        if len(near) > 1:
            found = f"{len(near)} images below {root} match, {near[0]} and {near[1]}"
            way_out = "write the path, or name the folder of the images: image_dir=..."
            raise InputError(f"{where}: {name}: {found}; {way_out}")
        other = alien.get(file_key(name), "")
        place[name] = near[0] if near else other or as_path(name)
        if not near and not (os.path.isabs(name) and os.path.isfile(name)):
            missing.append(other or name)
    if loose := [name for name in wanted if place[name] not in (name, as_path(name))]:
        such = f"such as {place[loose[0]]} for {loose[0]}"
        notes.append(f"{len(loose):,} of {len(wanted):,} images found by their name, {such}")
    if twins:
        same = f"{len(twins):,} images are there twice, byte by byte the same"
        notes.append(f"{same}, such as {twins[0]}: one of each is taken")
    if missing and (not leave_out or len(missing) == len(wanted)):
        if strange := name_unreadable(missing):
            raise InputError(f"{where}: of {len(wanted):,} images {strange[0]}; {CONVERT}")
        gone = f"{len(missing)} of {len(wanted)} images are not below {root}"
        raise InputError(f"{where}: {gone}: {some(missing, most=3)}; {way_out}")
    return [os.path.join(root, place[name]) for name in wanted], notes  # an absolute path is kept


def closest(written: str, files: list[str]) -> list[str]:
    """Keep of several files those that agree most with a written path.

    The whole path counts more than the name, that more than the name without ending, each first
    as it is and then without case and Unicode form; last the folders, from below.
    """
    if len(files) < 2:
        return files
    written = written if written in files else as_path(written)

    def agree(file: str) -> tuple[int, ...]:
        found = []
        for part in (str, lambda path: path.rpartition("/")[2], stem_of):
            one, other = part(written), part(file)
            found += [one == other, plain_name(one) == plain_name(other)]
        theirs, own = (plain_name(path).split("/")[-2::-1] for path in (written, file))
        same = [a == b for a, b in zip(theirs, own, strict=False)]
        return (*found, [*same, False].index(False))

    best = max(map(agree, files))
    return [file for file in files if agree(file) == best]


def table_ending(file: str) -> str | None:
    """Return the ending of a file that may be a table, in lower case; None of any other."""
    ending = Path(file.lower().removesuffix(".gz")).suffix
    return ending if ending in (*TABLES, *TEXTS, *SHEETS) else None


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read the lines of a table that are not empty, each with its number, as stripped texts.

    The file is UTF-8, or UTF-16 as spreadsheets write it, perhaps packed by gzip; separated by
    comma, semicolon, tab or bar, whichever the header has most of, else by spaces.
    """
    if table_ending(path.name) in SHEETS:
        raise InputError(f"a {path.suffix} file is not read here; save it as CSV UTF-8")
    # Not pandas.read_csv: it pads short lines and takes a first column for an index in silence.
    try:
        raw = regular(path).read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.open(io.BytesIO(raw)).read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise InputError(f"expected up to {in_bytes(MOST_BYTES)} of text, got more")
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if "\0" in text:
            raise UnicodeError
        header = next((line for line in text.splitlines() if line.strip()), "")
        unquoted = "".join(header.split('"')[::2])
        mark = max(",;\t|", key=unquoted.count)
        mark = mark if mark in unquoted or " " not in unquoted.strip() else " "
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=mark == " ")
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeError:
        rule = f"expected text in UTF-8, got {kind_of(path)}"
        raise InputError(f"{rule}; save a table as CSV UTF-8, or unpack an archive") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read as CSV ({reason})") from None
    return [(line, row) for line, row in rows if any(row)]


def read_cells(path: Path, *, needed: Sequence[str] = ()) -> pd.DataFrame:
    """Read every cell of a table as stripped text, so that an id such as 0012 keeps its zeros.

    Empty lines and columns without a name are left out; ``needed`` columns must be there.
    """
    with said_of(str(path)):
        rows = read_rows(path)
        if len(rows) < 2:
            raise InputError(f"expected a header and a row per image, found {len(rows)} lines")
        names = rows.pop(0)[1]
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise InputError(f"expected columns of different names, got '{twice[0]}' twice")
        for line, row in rows:
            if not any(row[len(names) :]):  # spreadsheets like to write empty cells at the end
                del row[len(names) :]
            if len(row) != len(names):
                rule = f"expected {len(names)} cells as in the header, got {len(row)}"
                raise InputError(f"line {line}: {rule}")
        frame = pd.DataFrame([row for _, row in rows], columns=names)
        frame = frame.loc[:, [name != "" for name in names]]
        for name in needed:
            check_column(name, frame)
        return frame


def check_column(name: str, frame: pd.DataFrame) -> None:
    """Refuse a name that no column of a table has."""
    if name not in frame:
        raise InputError(f"no column '{name}'; it has {', '.join(frame)}")
